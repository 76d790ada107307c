"""Settings of identity providers: what cannot be is refused when the server starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from muniment_services.config import ConfigError, load

TENANT = "0f1e2d3c-1111-2222-3333-444455556666"


def loaded(tmp_path: Path, *tables: str) -> tuple[tuple[str, ...], ...]:
    """The exact issuers of each table."""
    file = tmp_path / "muniment.toml"
    file.write_text("".join(f"[[issuers]]\n{table}\n" for table in tables))
    issuers = load({}, {}, file).settings.all_issuers()
    return tuple(issuer.urls for issuer in issuers)


@pytest.mark.parametrize(
    ("url", "other"),
    [
        (f"https://login.microsoftonline.com/{TENANT}/v2.0", f"https://sts.windows.net/{TENANT}/"),
        (f"https://login.microsoftonline.us/{TENANT}/v2.0", f"https://sts.windows.net/{TENANT}/"),
        (
            f"https://login.partner.microsoftonline.cn/{TENANT}/v2.0",
            f"https://sts.chinacloudapi.cn/{TENANT}/",
        ),
    ],
)
def test_a_tenant_of_entra_has_two_issuers(tmp_path: Path, url: str, other: str) -> None:
    assert loaded(tmp_path, f'url = "{url}"\naudience = "a"\nprofile = "entra"') == ((url, other),)


@pytest.mark.parametrize("tenant", ["common", "organizations", "consumers", "x.test", "{tenantid}"])
def test_entra_is_trusted_for_one_tenant_only(tmp_path: Path, tenant: str) -> None:
    table = f'url = "https://login.microsoftonline.com/{tenant}/v2.0"\naudience = "a"'
    with pytest.raises(ConfigError, match="name one tenant"):
        loaded(tmp_path, table)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ('url = "http://idp.test"\naudience = "a"', "neither https nor on loopback"),
        ('url = "https://idp.test"\naudience = ""', "audience must not be empty"),
        ('url = "https://idp.test"\naudience = "a"\nalgorithms = ["HS256"]', "HS256 are none of"),
        ('url = "https://idp.test"\naudience = "a"\nalgorithms = ["none"]', "none are none of"),
        ('url = "https://idp.test"\naudience = "a"\nintrospect = true', "needs client_id"),
        ('url = "https://idp.test"\naudience = "a"\nprofile = "x"', "is none of"),
        ('url = "https://idp.test"\naudience = "a"\nclint_id = "x"', r"no clint_id. It has: .*url"),
    ],
)
def test_what_cannot_be(tmp_path: Path, table: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        loaded(tmp_path, table)


def test_opaque_tokens_are_one_issuers(tmp_path: Path) -> None:
    tables = [
        f'url = "https://{host}.test"\naudience = "a"\nintrospect = true\n'
        'client_id = "m"\nclient_secret = "s"'
        for host in ("one", "two")
    ]
    assert len(loaded(tmp_path, tables[0])) == 1
    with pytest.raises(ConfigError, match="introspect is for one issuer"):
        loaded(tmp_path, *tables)
