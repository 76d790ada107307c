#!/usr/bin/env python3
"""Verifies a pack of events with their proofs. Needs Python 3.9 and nothing else.

    python verifier.py PACK [--head FILE]... [--vkey KEY]...

--head: a signed head that you kept; what it covers must be in the pack's tree unchanged. --vkey:
a verifier key of the log, from elsewhere. Without either you trust the keys in the pack.

A pack is a folder; T-P is a topic and a partition, as catalog-0; bytes in JSON are base64:
    keys/sets.json    [{"number": 1, "keys": [{"kind", "public_key"}], "endorsement": NOTE}, …]
    heads/T-P         the signed head that all is proved against (C2SP tlog-checkpoint)
    proofs/T-P.json   {"ranges": [{"begin", "end", "proof"}], "consistency": [{"old", "proof"}]}
    events/T-P.jsonl  a line per record of the ranges: {"offset": 10, "timestamp_ms": …,
                       "headers": [[NAME, BYTES], …], "key": BYTES, "value": BYTES}; a value that
                       was made unreadable is null, with "value_sha256" in hex beside it

What is checked: each set of keys is endorsed by the one before it; heads are signed by such a
key; the records of each range are all that the tree has there; earlier heads are of the same
tree. What is not: what the events mean.
Source: RFC 6962, RFC 8032, RFC 9162; C2SP signed-note, tlog-checkpoint (2026-07).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from hashlib import sha256, sha512
from pathlib import Path
from typing import Any

ED25519 = 1
WORD = re.compile(rb"[!-~]{1,255}")
P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
Point = tuple[int, int, int, int]


class Refused(Exception):
    """Something in the pack does not hold."""


def require(holds: object, what: str) -> None:
    """Raise Refused unless it holds."""
    if not holds:
        raise Refused(what)


def raw_of(text: str) -> bytes:
    """Bytes from base64, in its one canonical form."""
    found = b64decode(text, validate=True)
    require(b64encode(found).decode() == text, f"{text[:20]!r} is not canonical base64")
    return found


# Ed25519 (RFC 8032, 5.1), verification only.
def _add(p: Point, q: Point) -> Point:
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % P, (p[1] + p[0]) * (q[1] + q[0]) % P
    c, d = 2 * p[3] * q[3] * D % P, 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def _times(n: int, p: Point) -> Point:
    found = (0, 1, 1, 0)
    while n:
        if n & 1:
            found = _add(found, p)
        p, n = _add(p, p), n >> 1
    return found


def _point(raw: bytes) -> Point | None:
    y = int.from_bytes(raw, "little")
    sign, y = y >> 255, y & ((1 << 255) - 1)
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    if y >= P or (x * x - square) % P or (not x and sign):
        return None
    x = P - x if x & 1 != sign else x
    return x, y, 1, x * y % P


BASE = _point((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def ed25519_verifies(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether a signature of 64 bytes is by the key of 32 bytes."""
    if len(public_key) != 32 or len(signature) != 64:
        return False
    a, r, s = _point(public_key), _point(signature[:32]), int.from_bytes(signature[32:], "little")
    if a is None or r is None or BASE is None or s >= L:
        return False
    k = int.from_bytes(sha512(signature[:32] + public_key + message).digest(), "little") % L
    left, right = _times(s, BASE), _add(r, _times(k, a))
    return not any((left[i] * right[2] - right[i] * left[2]) % P for i in (0, 1))


def opened(note: str, public_keys: Iterable[bytes], name: str) -> tuple[str, list[bytes]]:
    """A note's text, which one of some keys must have signed under a name."""
    text, _, lines = note.rpartition("\n\n")
    text, signed = text + "\n", []
    require(lines.endswith("\n"), "a note ends with a newline")
    for line in lines[:-1].split("\n"):
        found = re.fullmatch("— ([^ +]+) ([A-Za-z0-9+/=]+)", line)
        if found is None:
            raise Refused("a signature line cannot be read")
        raw = raw_of(found[2])
        for key in public_keys:
            if found[1] == name and raw[:4] == sha256(f"{name}\n\1".encode() + key).digest()[:4]:
                verifies = ed25519_verifies(key, text.encode(), raw[4:])
                require(verifies, f"the signature by {name} is not of this text")
                signed.append(key)
    require(signed, f"{name} is not signed by a key of this log")
    return text, signed


def checkpoint(note: str, public_keys: Iterable[bytes]) -> tuple[str, int, bytes]:
    """(origin, size, root) of a signed head."""
    origin = note.partition("\n")[0]
    text, _ = opened(note, public_keys, origin)
    found = re.fullmatch(r"([^\n]+)\n(0|[1-9][0-9]{0,18})\n([A-Za-z0-9+/]{43}=)\n", text)
    if found is None:
        raise Refused(f"the head of {origin} is none")
    return origin, int(found[2]), raw_of(found[3])


def trusted_keys(sets: Sequence[Any]) -> list[bytes]:
    """The Ed25519 keys of all sets, after each was found endorsed by the one before it."""
    keys: list[bytes] = []
    for number, one in enumerate(sets, 1):
        require(one["number"] == number, f"set {number} of keys is missing")
        require(one["keys"][0]["kind"] == ED25519, f"set {number} does not begin with Ed25519")
        key = raw_of(one["keys"][0]["public_key"])
        origin = one["endorsement"].partition("\n")[0]
        text, signed = opened(one["endorsement"], [*keys[-1:], key], origin)
        require(text == f"{origin}\n{number}\n{key.hex()}\n", f"set {number} is of another key")
        require(set(signed) == {*keys[-1:], key}, f"set {number} of keys is not endorsed")
        keys.append(key)
    return keys


# Merkle trees (RFC 6962, 2.1).
def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash over two subtrees."""
    return sha256(b"\x01" + left + right).digest()


def root_of(hashes: Iterable[bytes]) -> bytes:
    """The root over leaves, given by their hashes."""
    peaks: list[bytes] = []
    for n, found in enumerate(hashes):
        while n & 1:
            found, n = node_hash(peaks.pop(), found), n >> 1
        peaks.append(found)
    found = peaks.pop() if peaks else sha256(b"").digest()
    while peaks:
        found = node_hash(peaks.pop(), found)
    return found


def range_root(leaves: Sequence[bytes], begin: int, size: int, proof: Iterable[bytes]) -> bytes:
    """The root that the leaves of a range and the hashes beside it lead to."""
    end, beside = begin + len(leaves), iter(proof)

    def walk(low: int, high: int) -> bytes:
        if high <= begin or end <= low:
            return next(beside)
        if begin <= low and high <= end:
            return root_of(leaves[low - begin : high - begin])
        middle = low + (
            1 << ((high - low - 1).bit_length() - 1)
        )  # RFC 6962: the largest power of two
        return node_hash(walk(low, middle), walk(middle, high))

    try:
        found = walk(0, size)
    except StopIteration:
        raise Refused("a range proof is too short") from None
    require(next(beside, None) is None, "a range proof is too long")
    return found


def consistent(old: int, new: int, proof: list[bytes], old_root: bytes, new_root: bytes) -> bool:
    """Whether a tree extends another (RFC 9162, 2.1.4.2)."""
    if old == new:
        return not proof and old_root == new_root
    proof = [old_root, *proof] if old & (old - 1) == 0 else proof
    if not 0 < old < new or not proof:
        return False
    fn, sn = old - 1, new - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = proof[0]
    for c in proof[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            fr, sr = node_hash(c, fr), node_hash(c, sr)
            while fn & 1 == 0 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = node_hash(sr, c)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and fr == old_root and sr == new_root


def statement(place: str, event: Any) -> bytes:
    """A record's leaf: what its hash in the tree is over."""
    headers = {name: raw_of(value) for name, value in event["headers"]}
    found = (headers.get(name, b"") for name in ("ce_id", "ce_type"))
    words = [word.decode() if WORD.fullmatch(word) else "" for word in found]
    value = event["value"]
    digest = event["value_sha256"] if value is None else sha256(raw_of(value)).hexdigest()
    digests = (sha256(raw_of(event["key"])).hexdigest(), digest)
    lines = ("muniment/1", place, event["offset"], *words, event["timestamp_ms"], *digests)
    return "".join(f"{line}\n" for line in lines).encode()


def verify_tree(pack: Path, name: str, keys: list[bytes], kept: Iterable[str]) -> tuple[int, int]:
    """One topic-partition of a pack; kept: notes of earlier heads of it. Returns (events, size)."""
    place = "/".join(name.rsplit("-", 1))
    origin, size, root = checkpoint((pack / "heads" / name).read_bytes().decode(), keys)
    require(origin.endswith(f"/{place}"), f"the head of {place} is of {origin}")
    proofs = json.loads((pack / "proofs" / f"{name}.json").read_text("utf-8"))
    with (pack / "events" / f"{name}.jsonl").open(encoding="utf-8") as lines:
        events = [json.loads(line) for line in lines]
    at, from_first = 0, list[bytes]()
    for one in proofs["ranges"]:
        begin, end = one["begin"], one["end"]
        require(0 <= begin < end <= size, f"{place} has no range [{begin}, {end})")
        part, at = events[at : at + end - begin], at + end - begin
        offsets = [event["offset"] for event in part]
        require(offsets == list(range(begin, end)), f"{place} lacks records of [{begin}, {end})")
        leaves = [sha256(b"\x00" + statement(place, event)).digest() for event in part]
        found = range_root(leaves, begin, size, [raw_of(step) for step in one["proof"]])
        require(found == root, f"{place} [{begin}, {end}) is not what was signed")
        from_first = from_first or (leaves if begin == 0 else [])
    require(at == len(events), f"{place} has records that no proof is for")
    proved = {one["old"]: [raw_of(s) for s in one["proof"]] for one in proofs["consistency"]}
    for note in kept:
        _, old, old_root = checkpoint(note, keys)
        if old <= len(from_first):
            holds = root_of(from_first[:old]) == old_root
        else:
            require(old <= size, f"the kept head of {place} covers more than the pack's: {old}")
            require(old == size or old in proved, f"no proof of {place} begins at {old}")
            holds = consistent(old, size, proved.get(old, []), old_root, root)
        require(holds, f"the kept head of {place} at {old} is not of this tree")
    return len(events), size


def verify(pack: Path, heads: Iterable[str] = (), vkeys: Iterable[str] = ()) -> list[str]:
    """Verify a pack. heads, vkeys: texts that were kept. Returns lines for people."""
    keys = trusted_keys(json.loads((pack / "keys" / "sets.json").read_text("utf-8")))
    for vkey in vkeys:
        raw = raw_of(vkey.strip().split("+", 2)[2])
        require(raw[1:] in keys, "the verifier key that you hold is none of this log")
    names = sorted(path.name for path in (pack / "heads").iterdir())
    for folder, suffix in (("proofs", ".json"), ("events", ".jsonl")):
        found = sorted(p.name for p in (pack / folder).iterdir())
        require(found == [name + suffix for name in names], f"{folder} do not match the heads")
    kept: dict[str, list[str]] = {name: [] for name in names}
    for note in heads:
        name = "-".join(note.partition("\n")[0].rsplit("/", 2)[-2:])
        require(name in kept, f"the pack has nothing of {name}, of which you hold a head")
        kept[name].append(note)
    told = []
    for name in names:
        count, size = verify_tree(pack, name, keys, kept[name])
        told.append(f"{name}: {count} events are in the signed tree of {size}")
    if not (heads or vkeys):
        told.append("the keys are those in the pack: hold a head or a key from elsewhere (--help)")
    return told


def main() -> None:
    """The command line."""
    plain = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("pack", type=Path)
    parser.add_argument("--head", type=Path, action="append", default=[])
    parser.add_argument("--vkey", action="append", default=[])
    asked = parser.parse_args()
    try:
        told = verify(asked.pack, [path.read_bytes().decode() for path in asked.head], asked.vkey)
    except (Refused, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        sys.exit(f"DOES NOT HOLD: {error if isinstance(error, Refused) else repr(error)}")
    sys.stdout.write("\n".join([*told, "all holds", ""]))


if __name__ == "__main__":
    main()
