"""Data folders on which a server has started before: a start on one has nothing to write.

A first start publishes every schema, which takes three times as long as all else that it does.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from muniment_services import bootstrap
from muniment_services.config import Settings


def begun(folder: Path) -> Path:
    """The folder, in which a server was started and stopped once, unless something is in it."""
    if not folder.exists() or not any(folder.iterdir()):
        shutil.copytree(_first().name, folder, dirs_exist_ok=True)
    return folder


@cache
def _first() -> tempfile.TemporaryDirectory[str]:
    made = tempfile.TemporaryDirectory(prefix="muniment-begun-")

    async def start() -> None:
        async with bootstrap.services(Settings(data_dir=Path(made.name))):
            pass

    # In a thread, since the caller may have an event loop of its own.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, start()).result()
    return made
