"""The scripts parse, continuous integration calls one of them, the README's commands exist."""

import os
import re
import subprocess
import sys

import pytest

from house.sources import CODE_FOLDERS, ROOT

SCRIPTS = ("serve", "test", "check", "lock", "kafka", "keycloak", "tools")
RUN_SECONDS_MAX = 60


@pytest.mark.parametrize("path", [*(f"deploy/scripts/{name}" for name in SCRIPTS), ".ci/run"])
def test_a_script_is_executable_and_parses(path: str) -> None:
    assert os.access(ROOT / path, os.X_OK)
    subprocess.run(["bash", "-n", ROOT / path], check=True, timeout=RUN_SECONDS_MAX)


def readme_commands() -> list[list[str]]:
    """The words of each command line in the README's shell blocks."""
    readme = (ROOT / "README.md").read_text("utf-8")
    blocks = re.findall(r"^```(?:sh|bash|console)\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    lines = [line.removeprefix("$ ").split() for block in blocks for line in block.splitlines()]
    return [words for words in lines if words and not words[0].startswith("#")]


def test_the_readme_names_the_two_commands() -> None:
    programs = {words[0] for words in readme_commands()}
    assert {"./deploy/scripts/serve", "./deploy/scripts/test"} <= programs


def test_files_that_the_readme_runs_are_executable() -> None:
    programs = {words[0] for words in readme_commands() if words[0].startswith("./")}
    assert [name for name in programs if not os.access(ROOT / name, os.X_OK)] == []


def test_sub_commands_that_the_readme_runs_exist() -> None:
    named = {words[1] for words in readme_commands() if words[0] == "muniment" and words[1:]}
    path = os.pathsep.join(str(ROOT / folder) for folder in CODE_FOLDERS)
    for name in sorted(name for name in named if not name.startswith("-")):
        done = subprocess.run(
            [sys.executable, "-m", "muniment_services", name, "--help"],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS_MAX,
        )
        assert done.returncode == 0, f"muniment {name}: {done.stderr}"


def test_continuous_integration_runs_the_test_script_and_nothing_else() -> None:
    lines = (ROOT / ".ci" / "run").read_text("utf-8").splitlines()
    commands = [line for line in lines if line and not line.startswith("#")]
    assert commands == ['exec "$(dirname -- "$0")/../deploy/scripts/test" "$@"']
