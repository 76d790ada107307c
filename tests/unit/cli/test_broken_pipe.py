"""Output that nobody reads any more (`muniment whoami | head -1`) is no error."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SERVER = "from muniment_services.cli.main import main; main()"
CLIENT = """
from muniment_client import command
command._whoami = lambda *_: print("anna")
sys.exit(command.main(["whoami", "http://127.0.0.1:1"]))
"""


@pytest.mark.parametrize("program", [SERVER, CLIENT], ids=["muniment", "muniment-client"])
def test_a_reader_that_has_gone_ends_the_command_quietly(program: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    ended = subprocess.run(
        [sys.executable, "-c", f"import sys\n{program}", "version"],
        stdout=writing,
        stderr=subprocess.PIPE,
        env=environment,
        timeout=60,
        check=False,
    )
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (0, b"")
