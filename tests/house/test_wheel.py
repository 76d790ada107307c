"""One wheel holds the four packages, data files included, and runs without the checkout."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from house.sources import CODE_FOLDERS, ROOT

pytestmark = pytest.mark.slow
RUN_SECONDS_MAX = 120


def run(*words: str | Path, at: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        words, cwd=at, env=environment, capture_output=True, text=True, timeout=RUN_SECONDS_MAX
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # The build tool of this environment, so that building needs no network.
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, at=ROOT)
    (built,) = folder.glob("*.whl")
    return built


def packaged_files() -> set[str]:
    """All files of the four packages, as they should stand in the wheel."""
    return {
        path.relative_to(ROOT / folder).as_posix()
        for folder in CODE_FOLDERS
        for path in (ROOT / folder / f"muniment_{folder}").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_holds_the_four_packages_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name for name in names if ".dist-info/" not in name} == packaged_files()
    assert any(name.endswith(".avsc") for name in names)


def test_an_installed_wheel_runs_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    run(sys.executable, "-m", "venv", venv, at=tmp_path)
    run(
        venv / "bin" / "python",
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--no-index",
        wheel,
        at=tmp_path,
    )
    (site,) = venv.glob("lib/python*/site-packages")
    # The dependencies come from this environment. Its own .pth files, and with them an editable
    # install of the checkout, are not read through a path that is added like this.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"), "utf-8")
    found = run(
        venv / "bin" / "python",
        "-c",
        "import muniment_services as m; print(m.__file__)",
        at=tmp_path,
    )
    assert Path(found.strip()).is_relative_to(venv)
    assert run(venv / "bin" / "muniment", "version", at=tmp_path).strip()
