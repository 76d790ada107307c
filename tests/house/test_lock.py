"""The lock pins and hashes everything that pyproject.toml asks for, and names no index."""

import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from house.sources import ROOT

LOCK = ROOT / "deploy" / "requirements.lock"
PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;]+)", re.MULTILINE)


def requirements() -> Iterator[Requirement]:
    """Of the server and of all groups; groups that include groups need no second visit."""
    project: Mapping[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    groups = project["dependency-groups"].values()
    for lines in (project["project"]["dependencies"], project["build-system"]["requires"], *groups):
        yield from (Requirement(line) for line in lines if isinstance(line, str))


def test_every_requirement_is_pinned_within_its_bounds() -> None:
    pinned = defaultdict(set)
    for match in PIN.finditer(LOCK.read_text("utf-8")):
        pinned[canonicalize_name(match["name"])].add(match["version"])
    unmet = [
        str(requirement)
        for requirement in requirements()
        if not pinned[canonicalize_name(requirement.name)]
        or not all(v in requirement.specifier for v in pinned[canonicalize_name(requirement.name)])
    ]
    assert unmet == [], "run deploy/scripts/lock"


def test_every_pin_has_a_hash() -> None:
    entries = re.split(r"(?m)^(?=[A-Za-z0-9])", LOCK.read_text("utf-8"))[1:]
    assert entries
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []


def test_the_lock_holds_pins_and_nothing_else() -> None:
    """No address, no index or find-links option, no path, no editable."""
    line = re.compile(
        r"^(#.*|    # via .*|[A-Za-z0-9._-]+==[^/@]*|    --hash=sha256:[0-9a-f]{64}( \\)?)$"
    )
    text = LOCK.read_text("utf-8")
    assert [entry for entry in text.splitlines() if not line.match(entry)] == []
    assert "://" not in text
