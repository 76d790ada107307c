"""`muniment login`, `logout` and `whoami` hand over to the package muniment-client."""

from __future__ import annotations

import sys

import pytest

from muniment_client import command
from muniment_services.cli.main import main


def run(*words: str) -> int | str | None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["muniment", *words])
        try:
            main()
        except SystemExit as ended:
            return ended.code
    return 0


@pytest.mark.parametrize(
    ("words", "handed"),
    [
        (["login"], ["login"]),
        (
            ["login", "https://t.example", "--device", "--client-id", "cli"],
            ["login", "--device", "--client-id=cli", "https://t.example"],
        ),
        (
            ["login", "--browser", "--issuer", "https://i"],
            ["login", "--browser", "--issuer=https://i"],
        ),
        (["logout", "https://t.example"], ["logout", "https://t.example"]),
        (["whoami"], ["whoami"]),
    ],
)
def test_the_words_are_handed_over(
    words: list[str], handed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def note(arguments: list[str], name: str) -> int:
        seen.append((arguments, name))
        return 0

    monkeypatch.setattr(command, "main", note)
    assert run(*words) == 0
    assert seen == [(handed, "muniment")]


def test_its_exit_status_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "main", lambda arguments, name: 1)
    assert run("whoami") == 1


def test_without_the_package_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "muniment_client", None)
    monkeypatch.setitem(sys.modules, "muniment_client.command", None)
    assert run("login") == 1
    assert "muniment-client" in capsys.readouterr().err
