"""A person's machine, or a job's: muniment-client, MLflow's client, and where sign-ins are kept."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.server import process_environment
from harness.training import Jobs

ENDED_WITHIN_S = 60.0
SWEPT = ("ACTIONS_", "SSH_CONNECTION", "CI", "DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
PAGE = re.compile(r"http://\S+(?:user_code=[A-Z-]+|/auth\?\S+)")
"""The page of the identity provider that a person has to open."""


@dataclass(slots=True)
class SigningIn:
    """A sign-in under way. page: what a person has to open. told: what was said at its end."""

    page: str
    told: str = ""


class Laptop:
    """One machine: sign-ins of one server are shared by all that runs on it."""

    def __init__(self, folder: Path, installed: Path, server: str) -> None:
        """folder: the machine's own. installed: the folder with muniment-client."""
        folder.mkdir(exist_ok=True)
        self.sign_ins = folder / "sign-ins"
        self._folder = folder
        self._server = server
        self._variables = {
            "PYTHONPATH": os.pathsep.join(filter(None, [str(installed), os.getenv("PYTHONPATH")])),
            "HOME": str(folder),
            "MUNIMENT_CLIENT_CACHE": str(self.sign_ins),
            "MLFLOW_TRACKING_AUTH": "muniment",
            # The client signs what goes to the server that MLflow is set to, and to no other.
            "MLFLOW_TRACKING_URI": server,
        }

    def run(self, *words: str, **variables: str) -> str:
        """What a command of muniment-client prints; AssertionError when it fails."""
        process = self._begin(words, variables)
        out, err = process.communicate(timeout=ENDED_WITHIN_S)
        assert process.returncode == 0, err
        return out

    def who(self, **variables: str) -> dict[str, Any]:
        """Whom the server takes this machine's token for."""
        found = json.loads(self.run("whoami", self._server, **variables))
        assert isinstance(found, dict)
        return found

    def stored(self) -> dict[str, Any]:
        """The one sign-in, as it is kept."""
        (path,) = self.sign_ins.glob("*.json")
        found = json.loads(path.read_text("utf-8"))
        assert isinstance(found, dict)
        return found

    @contextmanager
    def signing_in(self, how: str) -> Iterator[SigningIn]:
        """A sign-in; within, the person has to open its page and grant it. how: --device, …"""
        # The browser of whoever runs the tests stays closed.
        process = self._begin(("login", self._server, how), {"BROWSER": "true"})
        try:
            signing = SigningIn(_page(process))
            yield signing
            _, signing.told = process.communicate(timeout=ENDED_WITHIN_S)
            assert process.returncode == 0, signing.told
        finally:
            process.kill()
            process.communicate()

    def jobs(self, *names: str, **variables: str) -> Jobs:
        """Training jobs on this machine, one for each experiment named."""
        return Jobs(self._server, names, **self._variables, **variables)

    def _begin(self, words: tuple[str, ...], variables: dict[str, str]) -> subprocess.Popen[str]:
        kept = {k: v for k, v in process_environment().items() if not k.startswith(SWEPT)}
        return subprocess.Popen(
            [sys.executable, "-m", "muniment_client", *words],
            env=kept | self._variables | variables,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def _page(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    told = ""
    for line in process.stderr:
        told += line
        if found := PAGE.search(line):
            return found[0]
    raise AssertionError(f"no page to sign in at: {told}")
