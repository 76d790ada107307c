"""The distribution as users install it: its wheel, its entry points, what it costs and needs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from importlib.metadata import requires
from pathlib import Path

import pytest

from harness import client_wheel
from harness.guarded_server import GuardedServer

CHECKOUT = Path(__file__).resolve().parents[2]
PROJECT = CHECKOUT / "services/client"
CALL_S = 120
LOADED_AT_START = ("requests", "cryptography", "http.server", "muniment_client.auth")
LOG = """
import warnings
warnings.simplefilter("error")
import mlflow
mlflow.MlflowClient().log_metric("0" * 32, "loss", 1.0)
"""
START = """
import json, sys
import muniment_client, muniment_client.provider as provider
provider.MunimentAuthProvider().get_name()
provider.MunimentHeaderProvider().in_context()
print(json.dumps([name for name in sys.argv[1:] if name in sys.modules]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return client_wheel.build(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel unpacked into it."""
    return client_wheel.unpack(wheel, tmp_path_factory.mktemp("site"))


def run(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python with the installed distribution, and not the checkout's, on its path."""
    environment = {**os.environ, "PYTHONPATH": str(installed), "PYTHONWARNINGS": ""}
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        cwd=installed,
        capture_output=True,
        text=True,
        timeout=CALL_S,
    )


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"muniment_client"}
    assert "muniment_client/py.typed" in names


def test_mlflow_finds_the_plugin_by_its_entry_points(
    installed: Path,
    environment: pytest.MonkeyPatch,
    server: GuardedServer,
    signed_in: Callable[[str], None],
) -> None:
    signed_in("ada")
    environment.setenv("MLFLOW_TRACKING_URI", server.url)
    done = run(installed, "-c", LOG)
    assert done.returncode == 0, done.stderr
    write = server.requests[-1]
    assert write.subject == "ada"
    assert "idempotency-key" in write.headers
    assert re.fullmatch(
        r"mlflow-python-client/\S+ muniment-client/[\d.]+", write.headers["user-agent"]
    )


def test_loading_the_plugin_loads_nothing_of_weight(installed: Path) -> None:
    done = run(installed, "-c", START, *LOADED_AT_START)
    assert json.loads(done.stdout) == [], done.stderr


def test_the_command_is_installed_under_its_own_name(
    installed: Path, environment: pytest.MonkeyPatch
) -> None:
    (points,) = installed.glob("*.dist-info/entry_points.txt")
    scripts = points.read_text().partition("[console_scripts]")[2].partition("[")[0]
    assert scripts.split() == ["muniment-client", "=", "muniment_client.command:main"]
    server_project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))
    assert "muniment-client" not in server_project["project"]["scripts"]
    done = run(installed, "-m", "muniment_client", "token", "http://127.0.0.1:1")
    assert done.returncode == 1
    assert "Run `muniment-client login http://127.0.0.1:1`" in done.stderr


def test_it_needs_only_what_mlflow_brings() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]
    brought = {
        re.split(r"[^\w-]", requirement)[0].lower()
        for package in ("mlflow-skinny", "databricks-sdk", "google-auth")
        for requirement in requires(package) or []
        if "extra ==" not in requirement
    }
    needed = {re.split(r"[^\w-]", requirement)[0] for requirement in project["dependencies"]}
    assert needed <= brought


def test_it_imports_nothing_of_the_server() -> None:
    found = {
        name.split(".")[0]
        for path in (PROJECT / "muniment_client").glob("*.py")
        for name in re.findall(
            r"^ *(?:from|import) ([\w.]+)", path.read_text("utf-8"), re.MULTILINE
        )
    }
    ours = found - set(sys.stdlib_module_names)
    assert ours == {"muniment_client", "requests", "cryptography", "mlflow"}


def test_the_readme_names_every_variable_that_is_read() -> None:
    readme = (PROJECT / "README.md").read_text("utf-8")
    code = "".join(path.read_text("utf-8") for path in (PROJECT / "muniment_client").glob("*.py"))
    read = set(re.findall(r"\bMUNIMENT_[A-Z_]*[A-Z]\b", code)) - {"MUNIMENT_CLIENT"}
    assert {name for name in read if name not in readme} == set()
