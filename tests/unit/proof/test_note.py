"""Signed notes and checkpoints: C2SP's own examples byte for byte, and all that is refused."""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from muniment_services.proof import checkpoint, note
from muniment_services.proof.checkpoint import Checkpoint, CheckpointInvalid
from muniment_services.proof.note import Kind, Note, NoteInvalid, Signature, VerifierKey

EXAMPLE_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
EXAMPLE = (
    "This is an example message.\n\n— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONn"
    "cAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
).encode()
HEAD = Checkpoint("example.com/behind-the-sofa", 20852163, bytes(range(32)))


class Key:
    """A signing key in memory."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self._key = (
            MLDSA44PrivateKey.generate() if kind is Kind.ML_DSA_44 else Ed25519PrivateKey.generate()
        )
        self.public_key = self._key.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)


def signed(kind: Kind, text: str = HEAD.text, name: str = "example.com/x") -> tuple[bytes, str]:
    key = Key(kind)
    verifier = VerifierKey(name, kind, key.public_key)
    return Note(text, (verifier.sign(key, text, 1_679_315_147),)).encode(), verifier.vkey


def test_the_example_of_the_specification() -> None:
    key = note.verifier_key(EXAMPLE_KEY)
    assert key.vkey == EXAMPLE_KEY
    opened = note.opened(EXAMPLE, [key])
    assert opened.text == "This is an example message.\n"
    assert opened.encode() == EXAMPLE


@pytest.mark.parametrize("kind", list(Kind))
def test_what_is_signed_verifies_and_nothing_else(kind: Kind) -> None:
    raw, vkey = signed(kind)
    key = note.verifier_key(vkey)
    opened = note.opened(raw, [key])
    other = replace(HEAD, size=HEAD.size + 1)
    with pytest.raises(NoteInvalid, match="not of this text"):
        note.opened(Note(other.text, opened.signatures).encode(), [key])
    (line,) = opened.signatures
    for at in (0, 7, 8, 40, len(line.signature) - 1):
        flipped = bytearray(line.signature)
        flipped[at] ^= 1
        with pytest.raises(NoteInvalid):
            note.opened(Note(HEAD.text, (replace(line, signature=bytes(flipped)),)).encode(), [key])


def test_signatures_with_a_time_are_not_good_for_another_kind() -> None:
    raw, vkey = signed(Kind.COSIGNATURE)
    key = note.verifier_key(vkey)
    plain = VerifierKey(key.name, Kind.ED25519, key.public_key)
    (line,) = note.parse(raw).signatures
    claimed = Signature(plain.name, plain.key_id, line.signature[8:])
    with pytest.raises(NoteInvalid):
        note.opened(Note(HEAD.text, (claimed,)).encode(), [plain])
    timeless = replace(line, signature=bytes(8) + line.signature[8:])
    assert not key.verifies(HEAD.text, timeless)


def test_unknown_signatures_are_passed_over_but_one_must_be_known() -> None:
    raw, vkey = signed(Kind.ED25519)
    other, other_vkey = signed(Kind.ED25519, name="example.com/y")
    both = Note(HEAD.text, note.parse(raw).signatures + note.parse(other).signatures)
    key = note.verifier_key(vkey)
    assert note.signers_of(both, [key]) == [key]
    assert note.signers_of(both, [key, note.verifier_key(other_vkey)])[1].name == "example.com/y"
    with pytest.raises(NoteInvalid, match="no signature"):
        note.opened(raw, [note.verifier_key(other_vkey)])


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"text\n",
        b"text\n\n",
        b"text\n\n\n",
        EXAMPLE[:-1],
        EXAMPLE.replace(b"\n\n", b"\n"),
        EXAMPLE.replace(b"message", b"mess\rage"),
        EXAMPLE.replace(b"message", b"mess\xffage"),
        EXAMPLE.replace("—".encode(), b"-"),
        EXAMPLE.replace(b"foo ", b"foo  "),
        EXAMPLE.replace(b"foo ", b"f+o "),
        EXAMPLE.replace(b"Uw2QO", b"Uw2Q!"),
        "text\n\n— name AAAA\n".encode(),
        EXAMPLE + EXAMPLE.splitlines(keepends=True)[-1] * 100,
        b"x" * 1_000_001,
    ],
)
def test_what_is_no_note(raw: bytes) -> None:
    with pytest.raises(NoteInvalid):
        note.parse(raw)


def test_a_text_may_have_empty_lines() -> None:
    raw, vkey = signed(Kind.ED25519, "first\n\nsecond\n")
    assert note.opened(raw, [note.verifier_key(vkey)]).text == "first\n\nsecond\n"


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "name",
        "name+12345678",
        EXAMPLE_KEY.replace("530d903a", "530d903b"),
        EXAMPLE_KEY.replace("foo", "bar"),
        EXAMPLE_KEY[:-4],
        "example.com/foo+530d903a+" + b64encode(b"\x09" + bytes(32)).decode(),
        "example.com/foo+530d903a+!!!!",
    ],
)
def test_what_is_no_verifier_key(vkey: str) -> None:
    with pytest.raises(NoteInvalid):
        note.verifier_key(vkey)


def test_a_checkpoint_is_three_lines() -> None:
    root = b64encode(bytes(range(32))).decode()
    assert HEAD.text == f"example.com/behind-the-sofa\n20852163\n{root}\n"
    assert checkpoint.parse(HEAD.text) == HEAD
    extended = f"{HEAD.text}more\n"
    assert checkpoint.parse(extended).extensions == "more\n"
    assert checkpoint.parse(extended).text == extended


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("20852163", "020852163"),
        ("20852163", "-1"),
        ("20852163", "2e7"),
        ("20852163", "99999999999999999999"),
        ("20852163", "٣"),
        ("example.com/behind-the-sofa", ""),
        ("=\n", "\n"),
        ("=\n", "=\n\n"),
        ("8=\n", "9=\n"),
        ("AAEC", "AA!C"),
    ],
)
def test_what_is_no_checkpoint(old: str, new: str) -> None:
    assert old in HEAD.text
    with pytest.raises(CheckpointInvalid):
        checkpoint.parse(HEAD.text.replace(old, new))


def test_key_ids_are_as_specified() -> None:
    key = note.verifier_key(EXAMPLE_KEY)
    assert key.key_id.hex() == "530d903a"
    assert b64decode(EXAMPLE_KEY.rpartition("+")[2])[1:] == key.public_key
