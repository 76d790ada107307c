"""What deploy/scripts/environment.sh decides, on a stand-in checkout without network."""

import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from house.sources import ROOT

RUN_SECONDS_MAX = 60
SOURCED = '. "$PWD/deploy/scripts/environment.sh"; '
BARE_PATH = "/usr/bin:/bin"


def write_program(path: Path, text: str) -> None:
    path.write_text("#!/usr/bin/env bash\n" + text, "utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def bash(command: str, at: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", "set -euo pipefail; " + command],
        cwd=at,
        # An interpreter that is not there: whatever would set up has to fail.
        env={"PATH": BARE_PATH, "PYTHON": "/nowhere", **environment},
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS_MAX,
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with the real scripts and a stand-in environment, in a folder with a space."""
    root = tmp_path / "my checkout"
    shutil.copytree(ROOT / "deploy" / "scripts", root / "deploy" / "scripts")
    (root / "deploy" / "requirements.lock").write_text("a==1\n", "utf-8")
    (root / "pyproject.toml").write_text("[project]\n", "utf-8")
    (root / ".venv" / "bin").mkdir(parents=True)
    (root / ".venv" / ".muniment").mkdir()
    write_program(root / ".venv" / "bin" / "python", "exit 1\n")
    write_program(root / ".venv" / "bin" / "muniment", 'printf "%s|" "$PWD" "$@"\n')
    return root


def stamp(root: Path, group: str) -> None:
    done = bash(SOURCED + f'write_stamps {group} "$(fingerprint)"', root)
    assert done.returncode == 0, done.stderr


def test_a_second_start_sets_nothing_up_and_keeps_folder_and_arguments(
    checkout: Path, tmp_path: Path
) -> None:
    stamp(checkout, "server")
    done = bash(f"'{checkout}/deploy/scripts/serve' --data-dir 'x y'", tmp_path)
    assert done.stdout == f"{tmp_path}|serve|--data-dir|x y|"
    assert done.stderr == ""


@pytest.mark.parametrize("changed", ["deploy/requirements.lock", "pyproject.toml"])
def test_a_change_of_lock_or_project_sets_up_again(checkout: Path, changed: str) -> None:
    stamp(checkout, "dev")
    (checkout / changed).write_text("changed\n", "utf-8")
    for group in ("server", "client", "dev"):
        assert bash(SOURCED + f'stamped {group} "$(fingerprint)"', checkout).returncode == 1


def test_a_moved_checkout_sets_up_again(checkout: Path) -> None:
    stamp(checkout, "server")
    assert bash(SOURCED + 'stamped server "$(fingerprint)"', checkout).returncode == 0
    moved = checkout.rename(checkout.parent / "moved")
    assert bash(SOURCED + 'stamped server "$(fingerprint)"', moved).returncode == 1


def test_the_demo_needs_more_than_the_server(checkout: Path) -> None:
    stamp(checkout, "server")
    done = bash("deploy/scripts/serve --demo", checkout)
    assert done.returncode != 0
    assert "Setting up the client environment" in done.stderr


def test_all_tools_contain_the_client_and_the_server(checkout: Path) -> None:
    stamp(checkout, "dev")
    done = bash("deploy/scripts/serve --demo", checkout)
    assert done.stdout == f"{checkout}|serve|--demo|"


def adopted(root: Path, listed: str, **environment: str) -> list[str]:
    """uv's settings after pip's have been adopted; `listed` is what `pip config list` prints."""
    (root / "pip.txt").write_text(listed, "utf-8")
    write_program(root / ".venv" / "bin" / "python", f"cat '{root}/pip.txt'\n")
    shown = "env | grep -E '^(UV_|SSL_CERT_FILE=)' | sort"
    done = bash(SOURCED + "adopt_pip_settings; " + shown, root, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_pips_index_and_certificate_reach_uv(checkout: Path) -> None:
    listed = (
        ":env:.index-url='https://mirror.example/simple'\n"
        "global.cert='/etc/ours.pem'\n"
        "global.extra-index-url='\\nhttps://a.example\\nhttps://b.example'\n"
        "global.index-url='https://other.example'\n"
    )
    assert adopted(checkout, listed) == [
        "SSL_CERT_FILE=/etc/ours.pem",
        "UV_DEFAULT_INDEX=https://mirror.example/simple",
        "UV_INDEX=https://a.example https://b.example",
        "UV_INDEX_STRATEGY=unsafe-best-match",
    ]


def test_uvs_own_settings_are_kept(checkout: Path) -> None:
    settings = adopted(
        checkout,
        "global.index-url='https://pip.example'\nglobal.cert='/pip.pem'\n",
        UV_INDEX_URL="https://uv.example",
        UV_INDEX_STRATEGY="first-index",
        SSL_CERT_FILE="/uv.pem",
    )
    assert settings == [
        "SSL_CERT_FILE=/uv.pem",
        "UV_INDEX_STRATEGY=first-index",
        "UV_INDEX_URL=https://uv.example",
    ]


def test_an_old_uv_gives_way_to_the_one_that_the_lock_pins(checkout: Path) -> None:
    pinned = "uv==2 \\\n    --hash=sha256:bb\n    # via x\n"
    lock = "tzdata==1 \\\n    --hash=sha256:aa\n" + pinned + "uvicorn==3\n"
    (checkout / "deploy" / "requirements.lock").write_text(lock, "utf-8")
    write_program(checkout / "uv", "echo an old one without dependency groups\n")
    write_program(checkout / ".venv" / "bin" / "python", 'printf "%s|" "$@"\n')
    found = bash(SOURCED + 'find_uv; echo "$uv"', checkout, PATH=f"{checkout}:{BARE_PATH}")
    assert found.stdout == f"{checkout}/.venv/bin/uv\n"
    assert "|--require-hashes|" in found.stderr
    assert (checkout / ".venv" / ".muniment" / "uv.txt").read_text("utf-8") == pinned


def test_no_usable_python_is_said_plainly(checkout: Path) -> None:
    done = bash("deploy/scripts/serve", checkout)
    assert done.returncode == 1
    assert "error: no Python 3.11 or newer among: /nowhere" in done.stderr
