#!/usr/bin/env python3
"""Verifies a pack of events with their proofs. Needs Python 3.9 and nothing else.

    python verifier.py [PACK] [--head FILE]... [--vkey KEY]... [--witness KEY]... [--quorum N]

PACK: the unpacked folder; this file's own, if not given. --head: a signed head that you kept: what
it covers must be in the pack's tree unchanged. --vkey: a verifier key of the log, from elsewhere.
Without either you trust the keys in the pack. --witness: the key of a witness; each head must be
cosigned by all of those that you name, or by N of them.

T-P is a topic and a partition, as catalog-0; bytes in JSON are base64:
    manifest         a note (C2SP signed-note) of LOG/pack: a line "SHA-256  NAME" per other file
    report.json, report.html, schemas/    what was asked and answered; what events are written with
    keys/sets.json   [{"number": 1, "keys": [{"kind", "public_key"}], "endorsement": NOTE}, …]
    heads/T-P        the signed head that all is proved against (C2SP tlog-checkpoint)
    proofs/T-P.json  {"ranges": [[begin, end], …], "proof": [roots of the subtrees beside them],
                      "consistency": [{"old", "peaks": [those of the first `old`], "proof"}]}
    events/T-P.jsonl a line per record of the ranges: {"offset", "timestamp_ms", "headers": [[NAME,
                      BYTES], …], "key", "value"}; a withheld value is null, beside "value_sha256"

Proved: keys are endorsed by those before them; such keys, none older than what you hold, signed
manifest and heads; the records of each range are all that the tree has there; earlier heads are of
this tree; the report's events are among the records, with their ids, types and times. Only claimed
by the server: that the report says rightly what they mean, and that no other event belongs in it.
Source: RFC 6962, RFC 8032; C2SP signed-note, tlog-checkpoint, tlog-cosignature (2026-07).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from base64 import b64decode, b64encode
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from hashlib import sha256, sha512
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

FAULTS = (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RuntimeError)
ED25519, COSIGNATURE = b"\1", b"\4"
WORD = re.compile(rb"[!-~]{1,255}")
P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
Point = tuple[int, int, int, int]
Nodes = dict[tuple[int, int], bytes]
Told = dict[int, list[Any]]
Texts = Sequence[str]


class Refused(ValueError):
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


def _add(p: Point, q: Point) -> Point:
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % P, (p[1] + p[0]) * (q[1] + q[0]) % P
    c, d = 2 * p[3] * q[3] * D % P, 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def _times(n: int, p: Point) -> Point:
    found = _times(n >> 1, _add(p, p)) if n else (0, 1, 1, 0)
    return _add(found, p) if n & 1 else found


def _point(raw: bytes) -> Point | None:
    y = int.from_bytes(raw, "little")
    sign, y = y >> 255, y & ((1 << 255) - 1)
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    x = x if (x * x - square) % P == 0 else x * pow(2, (P - 1) // 4, P) % P
    if y >= P or (x * x - square) % P or (not x and sign):
        return None
    x = P - x if x & 1 != sign else x
    return x, y, 1, x * y % P


BASE = _point((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def ed25519_verifies(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether a signature of 64 bytes is by the key of 32 bytes (RFC 8032, 5.1)."""
    a, r, s = _point(public_key), _point(signature[:32]), int.from_bytes(signature[32:], "little")
    if a is None or r is None or BASE is None or s >= L or len(public_key + signature) != 96:
        return False
    k = int.from_bytes(sha512(signature[:32] + public_key + message).digest(), "little") % L
    left, right = _times(s, BASE), _add(r, _times(k, a))
    return not any((left[i] * right[2] - right[i] * left[2]) % P for i in (0, 1))


def key_of(vkey: str) -> tuple[bytes, str]:
    """Key, with its kind before it, and name of a verifier key (C2SP signed-note)."""
    return raw_of(vkey.strip().split("+", 2)[2]), vkey.split("+")[0]


def opened(note: str, name: str, keys: Iterable[bytes], least: int = 1) -> tuple[str, set[bytes]]:
    """A note's text, and those of some keys that signed it under a name: so many at least."""
    text, _, lines = note.rpartition("\n\n")
    text, signers = text + "\n", set[bytes]()
    require(lines.endswith("\n"), "a note ends with a newline")
    for line in lines[:-1].split("\n"):
        dash, signer, coded = line.split(" ")
        require(dash == "—", "a signature line cannot be read")
        raw = raw_of(coded)
        for key in keys if signer == name else ():
            if raw[:4] == sha256(f"{name}\n".encode() + key).digest()[:4]:
                signature, message = raw[4:], text.encode()
                if key[:1] == COSIGNATURE:
                    time, signature = int.from_bytes(signature[:8], "big"), signature[8:]
                    message = b"cosignature/v1\ntime %d\n" % time + message
                verifies = ed25519_verifies(key[1:], message, signature)
                require(verifies, f"the signature by {name} is not of this text")
                signers.add(key)
    require(len(signers) >= least, f"{name} is not signed by a key of this log")
    return text, signers


def checkpoint(note: str, keys: Iterable[bytes]) -> tuple[str, int, bytes]:
    """(origin, size, root) of a signed head."""
    origin = note.partition("\n")[0]
    text, _ = opened(note, origin, keys)
    _, size, root, end = text.split("\n")
    require(size == str(int(size)) and not end, f"the head of {origin} is none")
    return origin, int(size), raw_of(root)


def trusted_keys(sets: Sequence[Any]) -> list[bytes]:
    """The Ed25519 keys of all sets, after each was found endorsed by the one before it."""
    keys: list[bytes] = []
    for number, one in enumerate(sets, 1):
        require(one["number"] == number, f"set {number} of keys is missing")
        require(one["keys"][0]["kind"] == 1, f"set {number} does not begin with Ed25519")
        key = ED25519 + raw_of(one["keys"][0]["public_key"])
        origin = one["endorsement"].partition("\n")[0]
        text, signers = opened(one["endorsement"], origin, [*keys[-1:], key])
        wanted = (origin, number, key[1:].hex(), keys[-1][1:].hex() if keys else "none", "")
        require(text == "\n".join(map(str, wanted)), f"set {number} is of other keys")
        require(signers == {*keys[-1:], key}, f"set {number} of keys is not endorsed")
        keys.append(key)
    return keys


def root_beside(nodes: Nodes, size: int, proof: Iterable[bytes]) -> bytes:
    """The root (RFC 6962, 2.1) that subtrees, by begin and end, and those beside them lead to."""
    begins, beside = sorted(begin for begin, _ in nodes), iter(proof)

    def walk(low: int, high: int, first: int, last: int) -> bytes:
        if first == last or (low, high) in nodes:
            return next(beside, b"") if first == last else nodes[low, high]
        middle = low + (1 << (high - low - 1).bit_length() - 1)
        cut = bisect_left(begins, middle, first, last)
        both = walk(low, middle, first, cut) + walk(middle, high, cut, last)
        return sha256(b"\x01" + both).digest()

    found = walk(0, size, 0, len(begins))
    require(next(beside, None) is None, "a proof is too long")
    return found


def statement(place: str, event: Any) -> bytes:
    """A record's leaf: what its hash in the tree is over."""
    headers = {name: raw_of(value) for name, value in event["headers"]}
    found = (headers.get(name, b"") for name in ("ce_id", "ce_type"))
    words = [word.decode() if WORD.fullmatch(word) else "" for word in found]
    value, key = event["value"], sha256(raw_of(event["key"])).hexdigest()
    digest = event["value_sha256"] if value is None else sha256(raw_of(value)).hexdigest()
    lines = ("muniment/1", place, event["offset"], *words, event["timestamp_ms"], key, digest)
    return "".join(f"{line}\n" for line in lines).encode()


def verify_tree(pack: Path, place: str, head: tuple[int, bytes], kept: Iterable[Any]) -> Told:
    """One tree of a pack: [id, type, time] of its records by offset. kept: earlier heads."""
    name, (size, root) = place.replace("/", "-"), head
    proofs = json.loads((pack / "proofs" / f"{name}.json").read_text("utf-8"))
    ranges = [range(begin, end) for begin, end in proofs["ranges"]]
    require(all(0 <= one.start < one.stop <= size for one in ranges), f"{place} has no such range")
    leaves, told = Nodes(), Told()
    with (pack / "events" / f"{name}.jsonl").open(encoding="utf-8") as lines:
        for at, event in zip(chain(*ranges), map(json.loads, lines)):  # noqa: B905
            require(event["offset"] == at, f"{place} has another record than {at} of its ranges")
            leaf = statement(place, event)
            leaves[at, at + 1] = sha256(b"\x00" + leaf).digest()
            told[at] = [*leaf.decode().split("\n")[3:5], event["timestamp_ms"]]
        more = lines.read(1)
    require(len(told) == sum(map(len, ranges)) and not more, f"{place} has other records than that")
    found = root_beside(leaves, size, map(raw_of, proofs["proof"]))
    require(found == root, f"the records of {place} are not what was signed")
    proved = {one["old"]: one for one in proofs["consistency"]}
    for old, old_root in kept:
        if old == size and old_root == root:
            continue
        require(old in proved, f"nothing in the pack leads from your head of {place} at {old}")
        ends = list(accumulate(1 << bit for bit in range(63, -1, -1) if old >> bit & 1))
        peaks = dict(zip(zip([0, *ends], ends), map(raw_of, proved[old]["peaks"])))  # noqa: B905
        found = root_beside(peaks, size, map(raw_of, proved[old]["proof"]))
        same = (root_beside(peaks, old, ()), found) == (old_root, root)
        require(same, f"your head of {place} at {old} is not of this tree")
    return told


def listed(pack: Path, log: str, keys: list[bytes]) -> list[str]:
    """The names in a signed manifest, whose files are there as it says, and no others."""
    text, _ = opened((pack / "manifest").read_bytes().decode(), f"{log}/pack", keys)
    first, *lines = text.splitlines()
    require(first == f"{log}/pack", "the manifest is of something else")
    files = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    there = {path.relative_to(pack).as_posix() for path in pack.rglob("*") if not path.is_dir()}
    odd = sorted(there ^ {*files, "manifest"})
    require(not odd, f"in the pack or in its manifest, but not in both: {', '.join(odd[:5])}")
    for name, digest in files.items():
        found = sha256((pack / name).read_bytes()).hexdigest()
        require(found == digest, f"{name} is not what the manifest says")
    return sorted(files)


def verify_report(report: Any, told: dict[str, Told]) -> None:
    """That a report is about the pack's events. told: of each tree, what `verify_tree` told."""
    cited = {(f"{topic}/{partition}", at) for topic, partition, at in report["evidence"]}
    packed = {(place, at) for place, found in told.items() for at in found}
    require(cited <= packed, "the report cites events that are not in the pack")
    require(report["complete"] or cited == packed, "the pack has events that its report omits")
    for row in report["rows"]:
        if {"topic", "partition", "offset", "event_id", "type", "at_ms"} <= row.keys():
            found = told[f"{row['topic']}/{row['partition']}"].get(row["offset"])
            holds = found == [row["event_id"], row["type"], row["at_ms"]]
            require(holds, f"the report's {row['event_id']} is another event")


def verify(
    pack: Path, heads: Texts = (), vkeys: Texts = (), witnesses: Texts = (), quorum: int = 0
) -> list[str]:
    """Verify a pack. heads, vkeys, witnesses: as the options give them. Returns lines to show."""
    sets = json.loads((pack / "keys" / "sets.json").read_text("utf-8"))
    keys, needed = trusted_keys(sets), quorum or len(witnesses)
    require(needed >= 0, "a quorum is a number of witnesses")
    told, lines, who = dict[str, Told](), list[str](), dict(map(key_of, witnesses))
    require({key[:1] for key in who} <= {COSIGNATURE}, "witnesses have keys of type 04 here")
    require(all(key_of(v)[0] in keys for v in vkeys), "the key that you hold is another log's")
    log = sets[0]["endorsement"].partition("\n")[0].rpartition("/")[0]
    kept = [checkpoint(note, keys) for note in heads]
    held = [keys.index(key_of(v)[0]) for v in vkeys]
    held += [keys.index(k) for n in heads for k in opened(n, n.partition("\n")[0], keys)[1]]
    keys = keys[max(held, default=0) :]  # Those from before what you hold may have been stolen.
    for name in (files := listed(pack, log, keys)):
        if name.startswith("heads/"):
            note, place = (pack / name).read_bytes().decode(), "/".join(name[6:].rsplit("-", 1))
            origin, size, root = checkpoint(note, keys)
            require(origin == f"{log}/{place}", f"the head of {place} is of {origin}")
            seen = sum(len(opened(note, name, [key], 0)[1]) for key, name in who.items())
            require(seen >= needed, f"{seen} witnesses cosigned the head of {place}, not {needed}")
            earlier = [one[1:] for one in kept if one[0] == origin]
            told[place] = verify_tree(pack, place, (size, root), earlier)
            lines.append(f"{place}: {len(told[place])} events are in the signed tree of {size}")
    strange = {origin for origin, *_ in kept} - {f"{log}/{place}" for place in told}
    require(not strange, f"you hold a head of {strange}, of which the pack has nothing")
    verify_report(json.loads((pack / "report.json").read_text("utf-8")), told)
    lines.append(f"{len(files)} files are as the manifest says, which {log} signed")
    own = ["the keys are those in the pack: hold a head or a key from elsewhere (--help)"]
    return lines if held else lines + own


def main() -> None:
    """The command line."""
    plain = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("pack", type=Path, nargs="?", default=Path(__file__).resolve().parent)
    parser.add_argument("--head", type=Path, action="append", default=[])
    parser.add_argument("--vkey", action="append", default=[])
    parser.add_argument("--witness", action="append", default=[])
    parser.add_argument("--quorum", type=int, default=0)
    ask = parser.parse_args()
    try:
        heads = [path.read_bytes().decode() for path in ask.head]
        told = verify(ask.pack, heads, ask.vkey, ask.witness, ask.quorum)
    except FAULTS as error:
        sys.exit(f"DOES NOT HOLD: {error if isinstance(error, Refused) else repr(error)}")
    sys.stdout.write("\n".join([*told, "OK, all holds", ""]))


if __name__ == "__main__":
    main()
