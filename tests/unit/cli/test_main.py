"""The command line as a whole: help, versions, and how errors are told."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from muniment_services.api.server import MLFLOW_VERSION
from muniment_services.cli.main import COMMANDS
from muniment_services.cli.version import MLFLOW_API
from unit.cli.conftest import Call

NAMES = [name for name, _ in COMMANDS]
HEAVY = ("duckdb", "fastapi", "pyarrow", "numpy", "uvicorn", "fastavro", "pydantic")


def test_help_shows_the_first_steps_and_every_command(call: Call) -> None:
    shown = call("--help")
    assert shown.status == 0
    assert "muniment serve --demo" in shown.out
    assert "MLFLOW_TRACKING_URI" in shown.out
    assert all(f"│ {name} " in shown.out for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_help_of_a_command_has_its_text_and_an_example(call: Call, name: str) -> None:
    shown = call(name, "--help")
    assert shown.status == 0
    assert dict(COMMANDS)[name].splitlines()[0] in shown.out
    assert f"\n  muniment {name}" in shown.out
    assert "First steps" not in shown.out


# These have commands of their own, or an argument and no option.
GROUPS = (
    *("access", "audit", "backup", "config", "hold", "log", "policy", "privacy", "proof"),
    *("quarantine", "snapshot", "token"),
    *("logout", "whoami"),
)
SUB_COMMANDS = [
    *((name,) for name in NAMES if name not in GROUPS),
    *(("access", name) for name in ("grant", "revoke", "list", "explain", "roles")),
    ("access", "roles", "define"),
    ("access", "roles", "remove"),
    *(("audit", name) for name in ("query", "facets", "tail", "hash", "reports", "report", "diff")),
    *(("backup", name) for name in ("create", "list", "verify", "restore")),
    *(("hold", name) for name in ("place", "list", "release")),
    ("log", "copy"),
    *(("policy", name) for name in ("set", "list", "show", "remove")),
    *(("privacy", name) for name in ("show", "erase")),
    ("proof", "rotate"),
    ("quarantine", "replay"),
    ("token", "create"),
    ("token", "list"),
    ("token", "revoke"),
    ("snapshot", "create"),
    ("snapshot", "restore"),
]


@pytest.mark.parametrize("names", SUB_COMMANDS, ids=" ".join)
def test_every_option_has_a_help_text(call: Call, names: tuple[str, ...]) -> None:
    # An option without help is a line that ends behind the option's type.
    lines = [
        line.strip("│ ")
        for line in call(*names, "--help").lines
        if line.startswith(("│ --", "│ *  --", "│    --"))
    ]
    assert lines
    assert all(len(line.split("  ", 1)) == 2 for line in lines), lines


def test_no_help_text_is_wider_than_a_terminal() -> None:
    assert [line for _, text in COMMANDS for line in text.splitlines() if len(line) > 79] == []


@pytest.mark.parametrize("arguments", [["--help"], ["version"], ["--version"]])
def test_help_and_versions_import_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        f"sys.argv = ['muniment', *{arguments!r}]\n"
        "from muniment_services.cli.main import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n    pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )
    environment = {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stderr.strip() == "[]"


def test_versions_are_printed_as_text_and_json(call: Call) -> None:
    text, data = call("version"), json.loads(call("version", "--json").out)
    assert data["muniment"] == call("--version").out.strip()
    assert [line.split() for line in text.lines] == [[name, value] for name, value in data.items()]


def test_the_mlflow_release_is_the_one_that_is_served() -> None:
    assert MLFLOW_VERSION.startswith(f"{MLFLOW_API}.")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["serve", "--prot", "1"], "--port"),
        (["serve", "--port", "many"], "--port"),
        (["evnets"], "events"),
        (["events", "--type", "RunCraeted"], "Did you mean RunCreated"),
        (["events", "--since", "yesterday"], "2026-01-31"),
        (["rebuild", "--url", "localhost:5000"], "http://127.0.0.1:5000"),
    ],
)
def test_a_wrong_call_is_one_line_and_status_2(
    call: Call, data_dir: Path, arguments: list[str], says: str
) -> None:
    where = ["--data-dir", data_dir] if arguments[0] == "events" else []
    ended = call(*arguments, *where)
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith("muniment: ")
    assert ended.err.count("\n") == 1
    assert says in ended.err


@pytest.mark.parametrize("command", ["events", "rebuild", "verify"])
def test_a_folder_without_a_log_is_one_line_and_stays_empty(
    call: Call, tmp_path: Path, command: str
) -> None:
    ended = call(command, "--data-dir", tmp_path / "none")
    assert ended.status == 1
    assert ended.err.startswith("muniment: there is no log in")
    assert "--data-dir" in ended.err
    assert not (tmp_path / "none").exists()


def test_a_wrong_setting_is_one_line_that_names_it_and_its_origin(call: Call) -> None:
    ended = call("serve", "--port", "70000")
    assert ended.status == 1
    assert ended.err.startswith("muniment: port (from command line) cannot be 70000")


def test_serving_the_world_without_sign_in_is_refused(call: Call) -> None:
    ended = call("serve", "--host", "0.0.0.0")
    assert ended.status == 1
    assert "--allow-unauthenticated-network-access" in ended.err


def test_the_demo_says_what_it_needs(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muniment_services.cli.serve.DEMO_NEEDS", ("mlflow_that_is_not_there",))
    ended = call("serve", "--demo")
    assert ended.status == 1
    assert "pip install mlflow" in ended.err
