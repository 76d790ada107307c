"""What many share cannot be used up by one of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.signed_in import GRANTS, MLFLOW, Served, served
from muniment_auth.principal import principal_id
from muniment_services.domain import promotion

COMMENT = f"{MLFLOW}comments/"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """ana made the model `m`; mal and bob edit it, lead manages it."""
    with served(tmp_path_factory.mktemp("data")) as running:
        for who in ("ana", "mal", "bob"):
            running.grant(who, "editor", "model", "*")
        running.grant("lead", "manager", "model", "m")
        made = running.ask("ana", "POST", f"{MLFLOW}registered-models/create", {"name": "m"})
        assert made.status_code == 200
        version = {"name": "m", "source": "s3://b/m"}
        made = running.ask("ana", "POST", f"{MLFLOW}model-versions/create", version)
        assert made.status_code == 200, made.text
        yield running


def test_one_requester_leaves_room_for_others(server: Served) -> None:
    asked = [
        server.ask("mal", "POST", f"{MLFLOW}transition-requests/create", {
            "name": "m", "version": "1", "stage": f"@x{n}",
        }).status_code
        for n in range(promotion.REQUESTS_OF_ONE_MAX + 1)
    ]  # fmt: skip
    assert asked == [*[200] * promotion.REQUESTS_OF_ONE_MAX, 400]
    body = {"name": "m", "version": "1", "stage": "@y"}
    assert server.ask("bob", "POST", f"{MLFLOW}transition-requests/create", body).status_code == 200


def test_one_author_leaves_room_for_others_and_managers_clear_up(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promotion, "COMMENTS_OF_ONE_MAX", 2)
    body = {"name": "m", "version": "1", "comment": "spam"}
    made = [server.ask("mal", "POST", f"{COMMENT}create", body) for _ in range(3)]
    assert [answer.status_code for answer in made] == [200, 200, 400]
    assert server.ask("bob", "POST", f"{COMMENT}create", body).status_code == 200
    path = f"{COMMENT}delete?id={made[0].json()['comment']['id']}"
    assert server.ask("bob", "DELETE", path).status_code == 403
    assert server.ask("stranger", "DELETE", path).status_code == 404
    assert server.ask("lead", "DELETE", path).status_code == 200
    assert server.ask("lead", "DELETE", path).status_code == 404
    own = f"{COMMENT}delete?id={made[1].json()['comment']['id']}"
    assert server.ask("mal", "DELETE", own).status_code == 200


def test_who_is_no_admin_makes_so_many_grants_and_leaves_room(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muniment_services.domain.access.GRANTS_OF_MAKER_MAX", 2)

    def grant(who: str, to: str) -> int:
        return server.ask(who, "POST", GRANTS, {
            "subject_kind": "principal", "subject": principal_id(server.provider.url, to),
            "role": "viewer", "resource_kind": "model", "pattern": "m",
        }).status_code  # fmt: skip

    assert [grant("ana", f"p{n}") for n in range(3)] == [200, 200, 400]
    assert grant("ana", "p0") == 200, "the same again needs no room"
    assert [grant("admin", f"q{n}") for n in range(3)] == [200, 200, 200]
    assert grant("lead", "r") == 200
