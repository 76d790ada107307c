"""`deploy/scripts/tools` makes a tool once for each pin, also when it is called twice at once."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from house.sources import ROOT

RUN_S_MAX = 120

GO = """#!/bin/sh
sleep 0.2
echo "$2" >>"$GOBIN/../built"
printf '#!/bin/sh\\n' >"$GOBIN/helm"
chmod +x "$GOBIN/helm"
"""
"""Instead of Go: builds nothing, and notes what it was asked for."""


class Checkout:
    """A folder with the script, and Go that only pretends."""

    def __init__(self, folder: Path) -> None:
        self.tools = folder / ".cache" / "tools"
        self.script = folder / "deploy" / "scripts" / "tools"
        self.script.parent.mkdir(parents=True)
        for name in ("tools", "environment.sh"):
            shutil.copy(ROOT / "deploy" / "scripts" / name, self.script.parent)
        go = folder / "programs" / "go"
        go.parent.mkdir()
        go.write_text(GO, "utf-8")
        go.chmod(0o755)
        self._environment = os.environ | {"PATH": f"{go.parent}:{os.environ['PATH']}"}

    def install_helm(self, calls: int = 1) -> None:
        """Call the script for helm, so often at once."""
        running = [
            subprocess.Popen([self.script, "helm"], env=self._environment) for _ in range(calls)
        ]
        assert [process.wait(RUN_S_MAX) for process in running] == [0] * calls

    def pin_helm(self, version: str) -> None:
        """Have the script ask for another version."""
        lines = self.script.read_text("utf-8").splitlines(keepends=True)
        pinned = [f"helm_version={version}\n" if li.startswith("helm_v") else li for li in lines]
        self.script.write_text("".join(pinned), "utf-8")

    def built(self) -> list[str]:
        """The versions that were built."""
        path = self.tools / "built"
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        return [line.rpartition("@")[2] for line in lines]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_a_tool_is_made_again_when_its_pin_changes_and_only_then(checkout: Checkout) -> None:
    for version in ("v1", "v1", "v2", "v2"):
        checkout.pin_helm(version)
        checkout.install_helm()
    assert checkout.built() == ["v1", "v2"]


def test_two_calls_at_once_make_it_once(checkout: Checkout) -> None:
    checkout.pin_helm("v1")
    checkout.install_helm(calls=2)
    assert checkout.built() == ["v1"]


def test_a_tool_without_a_stamp_is_made_and_one_that_a_person_linked_is_kept(
    checkout: Checkout,
) -> None:
    checkout.pin_helm("v1")
    helm = checkout.tools / "bin" / "helm"
    helm.parent.mkdir(parents=True)
    helm.symlink_to("/bin/true")
    checkout.install_helm()
    assert checkout.built() == []
    helm.unlink()
    shutil.copy("/bin/true", helm)
    checkout.install_helm()
    assert checkout.built() == ["v1"]
