"""The access file: what it may say, what is wrong where; a second start changes nothing."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from muniment_services import bootstrap
from muniment_services.access_file import parse, read
from muniment_services.access_text import time_of
from muniment_services.config import ConfigError, Settings
from muniment_services.domain.access import AccessState, DefineRole, MakeGrant, state_of

FILE = """
[[grant]]
to = "group:ml-team"
issuer = "https://id.example/realms/main"
role = "promoter"
on = "experiment:team-*"
expires = 2100-01-01

[[grant]]
to = "claims"
issuer = "https://token.actions.githubusercontent.com"
claims = { repository_id = "123456", environment = "production" }
role = "approver"
on = "model:churn"
stages = ["production"]

[[grant]]
to = "principal:anna"
role = "auditor"
on = "server"

[[grant]]
to = "everyone"
role = "viewer"
on = "*"
expires = 2001-01-01

[[role]]
name = "promoter"
permissions = ["model:read", "model:promote"]
"""


def test_the_file_is_read_as_commands_roles_first() -> None:
    commands = [entry.command for entry in parse(FILE, "f.toml")]
    assert isinstance(commands[0], DefineRole)
    grants = [command.grant for command in commands if isinstance(command, MakeGrant)]
    assert [g.workspace for g in grants] == ["default", "default", "*", "default"]
    assert grants[0].expires_at_ms == 4_102_444_800_000
    assert grants[1].stages == ("Production",)
    assert {(c.name, c.pattern) for c in grants[1].claims} == {
        ("repository_id", "123456"),
        ("environment", "production"),
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[grant", "f.toml is not valid TOML"),
        ("[[grants]]", "f.toml has 'grants'"),
        ("[grant]\nto = 'everyone'", "two brackets"),
        ("[[grant]]\nto = 'everyone'\nrole = 'viewer'", "f.toml: grant 1: "),
        ("[[grant]]\nto = 'bob'\nrole = 'viewer'\non = '*'", "'bob' is nobody"),
        ("[[grant]]\nto = 'everyone'\nrole = 'viewer'\non = 'run:x'", "'run:x' is no resource"),
        ("[[grant]]\nto = 'group:x'\nrole = 'viewer'\non = '*'", "needs 'issuer'"),
        ("[[grant]]\nto='everyone'\nrole='viewer'\non='*'\nexpires='soon'", "'soon' is no time"),
        ("[[grant]]\nto='everyone'\nrole='viewer'\non='*'\nexpires=7", "7 is no time"),
        ("[[grant]]\nto='everyone'\nrole='viewer'\non='*'\nwho='x'", "who"),
        ("[[role]]\nname = 'r'\npermissions = ['run:raed']", "f.toml: role 1: 'run:raed'"),
        ("[[role]]\nname = 'admin'\npermissions = ['run:read']", "built in"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(text, "f.toml")
    assert says in str(refused.value)
    assert "f.toml" in str(refused.value)


def start(folder: Path, file: Path) -> AccessState:
    async def main() -> AccessState:
        settings = Settings(data_dir=folder, access_file=file)
        async with bootstrap.services(settings) as services:
            return state_of(services.fold.state)

    return asyncio.run(main())


def test_a_second_start_changes_nothing_and_a_longer_file_adds(tmp_path: Path) -> None:
    file, folder = tmp_path / "access.toml", tmp_path / "data"
    file.write_text(FILE)
    first = start(folder, file)
    assert len(first.grants) == 3, "what has expired is not made"
    assert {record.granted_by for record in first.grants.values()} == {"system"}
    assert start(folder, file) == first
    file.write_text("[[grant]]\nto = 'principal:eva'\nrole = 'editor'\non = 'prompt:id:7'\n")
    assert len(start(folder, file).grants) == 4, "what is taken out of the file stays"


def test_a_role_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    file = tmp_path / "access.toml"
    file.write_text("[[grant]]\nto = 'everyone'\nrole = 'emperor'\non = '*'\n")
    with pytest.raises(ConfigError, match="grant 1: There is no role"):
        start(tmp_path / "data", file)
    with pytest.raises(ConfigError, match="cannot read"):
        read(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("holder", "says"),
    [
        ("to = 'group:ml'\nissuer = 'https://other.example'", "grant 1: 'issuer' "),
        ("to = 'group:ml'\nissuer = 'https://id.example/'", "exactly as written"),
        ("to = 'claims'\nissuer = 'https://other.example'\nclaims = { sub = 'x' }", "'issuer' "),
        ("to = 'principal:anna'", "no principal's id"),
    ],
)
def test_a_grant_that_nobody_could_hold_stops_the_start(
    tmp_path: Path, holder: str, says: str
) -> None:
    file, url = tmp_path / "access.toml", "https://id.example"
    file.write_text(f"[[grant]]\n{holder}\nrole = 'viewer'\non = '*'\n")

    async def main(issuer: str | None) -> None:
        settings = Settings(
            data_dir=tmp_path / "data",
            access_file=file,
            issuer=issuer,
            audience=None if issuer is None else "muniment",
        )
        async with bootstrap.services(settings):
            pass

    with pytest.raises(ConfigError, match=re.escape(says)):
        asyncio.run(main(url))
    asyncio.run(main(None))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90d", 1_000 + 90 * 86_400_000),
        ("12h", 1_000 + 12 * 3_600_000),
        ("1970-01-02", 86_400_000),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01T00:00:01Z", 1_000),
    ],
)
def test_times_are_utc_or_from_now(text: str, expected: int) -> None:
    assert time_of(text, 1_000) == expected


def test_a_file_has_no_times_from_now() -> None:
    with pytest.raises(ValueError, match="no time"):
        time_of("90d")
