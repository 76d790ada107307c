"""The tools that what is deployed is checked by. One that is not there is a failure."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / ".cache" / "tools" / "bin"
RUN_S_MAX = 120

Tool = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def tool() -> Tool:
    """Runs a tool by its name, in a folder below deploy/; gives what it said and its status."""

    def run(name: str, *arguments: str, folder: str = ".") -> subprocess.CompletedProcess[str]:
        program = TOOLS / name
        if not program.exists():
            raise FileNotFoundError(f"{name} is not there; run deploy/scripts/tools")
        return subprocess.run(
            [str(program), *arguments],
            cwd=ROOT / "deploy" / folder,
            capture_output=True,
            text=True,
            timeout=RUN_S_MAX,
            check=False,
        )

    return run
