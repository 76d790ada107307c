"""Which witnesses cosign heads, and how many of them it takes: a policy as C2SP tlog-policy has it.

    witness ana  witness.example/ana+1c5b…+BK…  https://witness.example/
    witness ben  …
    witness cleo …
    group ours 2 ana ben cleo
    quorum ours

Source: C2SP tlog-policy (2026-07). Lines about logs are read over: the log is this one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from muniment_services.proof import note
from muniment_services.proof.note import Kind, NoteInvalid, VerifierKey

NONE = "none"
"""The quorum that asks for no cosignature."""

MEMBERS_MAX = 100
"""Witnesses and groups of one policy; C2SP asks for at least 32 of each."""


class PolicyInvalid(Exception):
    """A policy cannot be read; the message names the line."""


@dataclass(frozen=True, slots=True)
class WitnessAt:
    """A witness. url: its submission prefix."""

    name: str
    key: VerifierKey
    url: str


@dataclass(frozen=True, slots=True)
class Policy:
    """groups: by name, how many of which members it takes. quorum: a witness's or group's name."""

    witnesses: Mapping[str, WitnessAt]
    groups: Mapping[str, tuple[int, tuple[str, ...]]]
    quorum: str

    def met(self, cosigned: Collection[str]) -> bool:
        """Whether cosignatures of these witnesses are enough."""
        return self.quorum == NONE or self._holds(self.quorum, cosigned)

    def _holds(self, name: str, cosigned: Collection[str]) -> bool:
        if name in self.witnesses:
            return name in cosigned
        needed, members = self.groups[name]
        return sum(self._holds(member, cosigned) for member in members) >= needed


def parse(text: str) -> Policy:
    """A policy from its file. Raises PolicyInvalid."""
    witnesses: dict[str, WitnessAt] = {}
    groups: dict[str, tuple[int, tuple[str, ...]]] = {}
    quorum: str | None = None
    free: set[str] = set()
    for number, words in _lines(text):
        try:
            match words:
                case ["log", _] | ["log", _, _]:
                    continue
                case ["witness", name, vkey, url]:
                    _refuse_taken(name, witnesses, groups)
                    witnesses[name] = _witness(name, vkey, url, witnesses)
                    free.add(name)
                case ["group", name, needed, *members] if members:
                    _refuse_taken(name, witnesses, groups)
                    groups[name] = _group(needed, members, free)
                    free -= set(members)
                    free.add(name)
                case ["quorum", name] if quorum is None:
                    if name != NONE and name not in witnesses and name not in groups:
                        raise PolicyInvalid(f"there is no {name} above it")
                    quorum = name
                case _:
                    raise PolicyInvalid(
                        "it is none of: witness NAME VKEY URL; group NAME all|any|K NAME…; quorum "
                        "NAME, once"
                    )
        except (PolicyInvalid, NoteInvalid) as error:
            raise PolicyInvalid(f"line {number}: {error}") from None
    if quorum is None or len(witnesses) + len(groups) > MEMBERS_MAX:
        raise PolicyInvalid(f"it has one line `quorum`, and at most {MEMBERS_MAX} names")
    return Policy(witnesses, groups, quorum)


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(text.split("\n"), 1):
        words = line.replace("\t", " ").split(" ")
        words = [word for word in words if word]
        if words and not words[0].startswith("#"):
            yield number, words


def _refuse_taken(name: str, *taken: Collection[str]) -> None:
    if name == NONE or any(name in names for names in taken):
        raise PolicyInvalid(f"the name {name} is taken")


def _witness(name: str, vkey: str, url: str, known: Mapping[str, WitnessAt]) -> WitnessAt:
    key = note.verifier_key(vkey)
    if key.kind is Kind.ED25519:
        raise PolicyInvalid(f"the key of {name} is for notes, not for cosignatures (type 04 or 06)")
    if any(key.public_key == other.key.public_key for other in known.values()):
        raise PolicyInvalid(f"{name} has the key of another witness")
    if not url.startswith(("http://", "https://")):
        raise PolicyInvalid(f"{name} has no URL that begins with http:// or https://")
    return WitnessAt(name, key, url.rstrip("/"))


def _group(needed: str, members: list[str], free: Collection[str]) -> tuple[int, tuple[str, ...]]:
    if len(set(members)) < len(members) or not set(members) <= set(free):
        raise PolicyInvalid("its members are above it, and each is in one group once")
    words = {"any": 1, "all": len(members)}
    count = int(needed) if needed.isdecimal() and needed.isascii() else words.get(needed, 0)
    if not 1 <= count <= len(members):
        raise PolicyInvalid(f"it takes all, any, or 1 to {len(members)} of its members")
    return count, tuple(members)
