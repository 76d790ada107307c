"""What a signed head of a tree says: origin, size and root, as C2SP tlog-checkpoint has it.

Source: C2SP tlog-checkpoint (2026-07), "Note text".
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from dataclasses import dataclass

from muniment_services.proof.merkle import HASH_BYTES

_TEXT = re.compile(r"([^\n]+)\n(0|[1-9]\d{0,18})\n([A-Za-z0-9+/]{43}=)\n((?:[^\n]+\n)*)", re.ASCII)


class CheckpointInvalid(Exception):
    """A note's text is not a checkpoint."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The head of one tree. root: 32 bytes. extensions: further lines; ours have none."""

    origin: str
    size: int
    root: bytes
    extensions: str = ""

    @property
    def text(self) -> str:
        """What is signed."""
        assert len(self.root) == HASH_BYTES
        root = b64encode(self.root).decode()
        return f"{self.origin}\n{self.size}\n{root}\n{self.extensions}"


def parse(text: str) -> Checkpoint:
    """The checkpoint in a note's text. Raises CheckpointInvalid."""
    found = _TEXT.fullmatch(text)
    if found is None:
        raise CheckpointInvalid("its text is not origin, size and root, each on a line")
    origin, size, root, extensions = found.groups()
    checkpoint = Checkpoint(origin, int(size), b64decode(root), extensions)
    if checkpoint.text != text:
        raise CheckpointInvalid("its root is not in canonical base64")
    return checkpoint
