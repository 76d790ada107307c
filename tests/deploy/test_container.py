"""The image's steps, without a container engine: the same script, the same user, a tree to read."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.server import Server, free_port
from house.sources import ROOT

if TYPE_CHECKING:
    from deploy.conftest import Tool

CONTAINERFILE = (ROOT / "deploy" / "Containerfile").read_text("utf-8")
INSTALLED_WITHIN_S = 300
NOBODY = 65532


def test_the_image_runs_as_nobody_from_a_pinned_base() -> None:
    bases = re.findall(r"^FROM (\S+)", CONTAINERFILE, re.MULTILINE)
    assert len(set(bases)) == 1
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", bases[0])
    assert f"USER {NOBODY}:{NOBODY}" in CONTAINERFILE
    assert 'ENTRYPOINT ["muniment"]' in CONTAINERFILE
    assert "MUNIMENT_HOST=" not in CONTAINERFILE.replace("(MUNIMENT_HOST=0.0.0.0,", "")


@pytest.mark.slow
def test_hadolint_has_nothing_to_say(tool: Tool, tmp_path: Path) -> None:
    checked = tool("hadolint", "Containerfile")
    assert checked.returncode == 0, checked.stdout
    loose = tmp_path / "Containerfile"
    loose.write_text(re.sub(r"^FROM python:\S+", "FROM python", CONTAINERFILE, flags=re.M), "utf-8")
    assert "DL3006" in tool("hadolint", str(loose)).stdout


def test_what_the_build_needs_is_in_its_context() -> None:
    kept = (ROOT / "deploy" / "Containerfile.dockerignore").read_text("utf-8").splitlines()
    assert kept[0] == "*"
    for path in (
        "pyproject.toml",
        "README.md",
        "deploy/requirements.lock",
        "deploy/install-image.sh",
    ):
        assert f"!{path}" in kept
        assert (ROOT / path).exists()


def python_for_all(folder: Path) -> Path:
    """A copy of this interpreter that any user may run; ours may lie in somebody's home."""
    ignored = shutil.ignore_patterns("__pycache__", "site-packages", "test", "tests", "idlelib")
    shutil.copytree(sys.base_prefix, folder / "python", ignore=ignored, symlinks=True)
    return folder / "python" / "bin" / f"python3.{sys.version_info.minor}"


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_what_is_installed_serves_as_nobody_and_writes_its_data_only(tmp_path: Path) -> None:
    checkout, installed = tmp_path / "src", tmp_path / "image"
    for name in ("services", "projections", "auth", "schemas", "deploy"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, checkout / name)
    libraries = {"LD_LIBRARY_PATH": str(tmp_path / "python" / "lib")}
    subprocess.run(
        [checkout / "deploy" / "install-image.sh", python_for_all(tmp_path), checkout, installed],
        check=True,
        timeout=INSTALLED_WITHIN_S,
        env={**os.environ, **libraries},
    )
    assert not (installed / "bin" / "pip").exists()
    for folder in (tmp_path, *tmp_path.parents):
        folder.chmod(folder.stat().st_mode | 0o005)
    data = tmp_path / "data"
    data.mkdir()
    os.chown(data, NOBODY, NOBODY)
    port = free_port()
    program = f"import os; os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY}); "
    program += "import sys; os.execv(sys.argv[1], sys.argv[1:])"
    command = [sys.executable, "-c", program, str(installed / "bin" / "muniment"), "serve"]
    command += ["--port", str(port), "--data-dir", str(data)]
    environment = {
        "PATH": f"{installed}/bin:/usr/bin:/bin",
        "PYTHONDONTWRITEBYTECODE": "1",
        **libraries,
    }
    server = Server(command, port, tmp_path / "log", environment)
    before = {path: path.stat().st_mtime_ns for path in installed.rglob("*")}
    server.start()
    assert server.stop() == 0
    assert {path: path.stat().st_mtime_ns for path in installed.rglob("*")} == before
    assert (data / "log.sqlite").stat().st_uid == NOBODY
