"""One Keycloak, one server that trusts it, and one Chromium for the whole folder.

Keycloak is started again before a test if the one before stopped it. When a test fails, the end of
what the server and Keycloak printed is shown with it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from harness.browser import fresh_page, running_chromium
from harness.guarded import Guarded, running_guarded
from harness.keycloak import Provider, running_keycloak

LOG_SHOWN_CHARS = 3_000

_provider = pytest.StashKey[Provider]()


@pytest.fixture(scope="session")
def one_keycloak(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    """A Keycloak, running or not."""
    with running_keycloak(tmp_path_factory.mktemp("keycloak") / "data") as provider:
        yield provider


@pytest.fixture
def keycloak(one_keycloak: Provider, request: pytest.FixtureRequest) -> Provider:
    """The Keycloak, running."""
    request.node.stash[_provider] = one_keycloak
    one_keycloak.heal()
    return one_keycloak


@pytest.fixture(scope="session")
def one_server(
    one_keycloak: Provider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guarded]:
    """The server, which runs through all tests."""
    with running_guarded(tmp_path_factory.mktemp("guarded") / "data", one_keycloak) as server:
        yield server


@pytest.fixture
def server(keycloak: Provider, one_server: Guarded) -> Guarded:
    """The server, with its Keycloak running."""
    return one_server


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A Chromium."""
    with running_chromium() as browser:
        yield browser


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A page of a person who was nowhere before."""
    with fresh_page(chromium) as page:
        yield page


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Add the log of Keycloak to the report of a test that failed."""
    report = yield
    assert isinstance(report, pytest.TestReport)
    if report.failed and _provider in item.stash:
        log = item.stash[_provider].keycloak.log
        report.sections.append(("log of Keycloak", log[-LOG_SHOWN_CHARS:]))
    return report
