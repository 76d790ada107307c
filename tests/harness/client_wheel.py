"""muniment-client as users install it: its wheel, built and unpacked into a folder of its own."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2] / "services" / "client"
BUILT_WITHIN_S = 120


def build(folder: Path) -> Path:
    """The wheel, in a folder that holds nothing else."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, timeout=BUILT_WITHIN_S)
    (built,) = folder.glob("*.whl")
    return built


def unpack(wheel: Path, folder: Path) -> Path:
    """The folder, as `pip install --no-deps --target` leaves it."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder
