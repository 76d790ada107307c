"""A pack of a whole small log, and seeded ways to change what it says."""

from __future__ import annotations

import json
import shutil
from base64 import b64decode, b64encode
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

from muniment_services.proof import merkle, note, verifier
from muniment_services.proof.note import Kind, Note, VerifierKey
from muniment_services.proof.signing import SoftKey, endorse, seal

NAMES = ("catalog-0", "runs-0")
OF_THE_LOG = (
    "flip", "delete", "insert", "reorder", "truncate", "fork", "keys", "log and tree", "bytes",
    "citation",
)  # fmt: skip
"""What an insider, who has the key that signs manifests, is found at too."""

OF_THE_PACK = ("report", "page", "schema", "manifest", "added", "removed", "renamed")
"""What only the manifest tells: whoever has no key is found at it."""

WAYS = OF_THE_LOG + OF_THE_PACK


class Forger:
    """Changes packs: as an outsider, or as an insider who signs the manifest anew."""

    def __init__(self, honest: Path, seed: int, insider: SoftKey) -> None:
        """insider: the key of the log in use."""
        self._honest = honest
        self._random = Random(seed)
        self._insider = insider

    def change(self, pack: Path) -> str:
        """Change a pack in one way, chosen by the seed; returns which."""
        way = self._random.choice(WAYS)
        name = self._random.choice(NAMES)
        lines = self._lines(pack, name)
        own = getattr(self, f"_{way.replace(' ', '_')}")(pack, name, lines)
        signer = own or self._random.choice((None, self._insider))
        if way in OF_THE_PACK:
            signer = None
        told = self._random.random() < 0.8
        if way != "manifest" and (pack / "manifest").exists() and (signer is not None or told):
            self._list(pack, signer)
        return f"{way} {name}{' by an insider' if signer is self._insider else ''}"

    def claim(self, pack: Path, name: str, size: int, ranges: list[list[int]]) -> None:
        """As an insider, say that a tree has another size, and the pack other ranges of it."""
        path = pack / "proofs" / f"{name}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"ranges": ranges}))
        head = pack / "heads" / name
        origin, _, root, *_ = head.read_text().split("\n")
        head.write_bytes(seal(origin, f"{size}\n{root}\n", self._insider))
        self.relist(pack)

    def graft(self, pack: Path) -> None:
        """Without any key of the log: put own keys before those that it has, and sign with them."""
        key = SoftKey(Kind.ED25519, self._random.randbytes(32))
        path = pack / "keys" / "sets.json"
        sets = json.loads(path.read_text())
        endorsed = note.parse(sets[1]["endorsement"].encode())
        origin = endorsed.text.partition("\n")[0]
        own = VerifierKey(origin, Kind.ED25519, key.public_key).sign(key, endorsed.text, 0)
        grafted = Note(endorsed.text, (*endorsed.signatures, own))
        sets[1]["endorsement"] = grafted.encode().decode()
        sets[0]["keys"][0]["public_key"] = b64encode(key.public_key).decode()
        sets[0]["endorsement"] = endorse(origin, 1, [key], None)
        path.write_text(json.dumps(sets))
        self.sign_all(pack, key)

    def sign_all(self, pack: Path, key: SoftKey) -> None:
        """Another history, all of it signed with a key."""
        for name in NAMES:
            self._resign(pack, name, self._lines(pack, name), whose=key)
        self._list(pack, key)

    def relist(self, pack: Path) -> None:
        """As an insider, sign a manifest of what is there now."""
        self._list(pack, self._insider)

    def _list(self, pack: Path, signer: SoftKey | None) -> None:
        """Have the manifest name what is there now; signer: None leaves the old signature."""
        path = pack / "manifest"
        before = path.read_text()
        origin = before.partition("\n")[0]
        files = sorted(p for p in pack.rglob("*") if p.is_file() and p != path)
        digests = [(sha256(p.read_bytes()).hexdigest(), p.relative_to(pack)) for p in files]
        text = "".join([f"{origin}\n", *(f"{digest}  {name}\n" for digest, name in digests)])
        if signer is None:
            path.write_text(f"{text}\n{before.rpartition(chr(10) * 2)[2]}")
            return
        signature = VerifierKey(origin, Kind.ED25519, signer.public_key).sign(signer, text, 0)
        path.write_bytes(Note(text, (signature,)).encode())

    def _lines(self, pack: Path, name: str) -> list[Any]:
        text = (pack / "events" / f"{name}.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def _store(self, pack: Path, name: str, lines: list[Any]) -> None:
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (pack / "events" / f"{name}.jsonl").write_text(text)

    def _altered(self, line: Any) -> Any:
        line = json.loads(json.dumps(line))
        field = self._random.choice(("key", "value", "timestamp_ms", "offset", "id", "type"))
        if field in ("key", "value"):
            raw = bytearray(b64decode(line[field]) or b"\0")
            raw[self._random.randrange(len(raw))] ^= 1 << self._random.randrange(8)
            line[field] = b64encode(raw).decode()
        elif field in ("id", "type"):
            line["headers"][field == "type"][1] = b64encode(
                b"%d" % self._random.getrandbits(32)
            ).decode()
        else:
            line[field] += self._random.choice((-1, 1, 1000))
        return line

    def _flip(self, pack: Path, name: str, lines: list[Any]) -> None:
        at = self._random.randrange(len(lines))
        lines[at] = self._altered(lines[at])
        self._store(pack, name, lines)

    def _delete(self, pack: Path, name: str, lines: list[Any]) -> None:
        del lines[self._random.randrange(len(lines))]
        if self._random.random() < 0.5:  # And number what is left anew.
            for offset, line in enumerate(lines):
                line["offset"] = offset
        self._store(pack, name, lines)

    def _insert(self, pack: Path, name: str, lines: list[Any]) -> None:
        at = self._random.randrange(len(lines) + 1)
        lines.insert(at, self._altered(self._random.choice(lines)))
        for offset, line in enumerate(lines):
            line["offset"] = offset
        self._store(pack, name, lines)

    def _reorder(self, pack: Path, name: str, lines: list[Any]) -> None:
        one, other = self._random.sample(range(len(lines)), 2)
        lines[one], lines[other] = lines[other], lines[one]
        if self._random.random() < 0.5:
            lines[one]["offset"], lines[other]["offset"] = one, other
        self._store(pack, name, lines)

    def _truncate(self, pack: Path, name: str, lines: list[Any]) -> None:
        kept = self._random.randrange(1, len(lines))
        self._store(pack, name, lines[:kept])
        if self._random.random() < 0.5:  # And say that no more was asked for.
            path = pack / "proofs" / f"{name}.json"
            proofs = json.loads(path.read_text())
            proofs["ranges"][0][1] = kept
            path.write_text(json.dumps(proofs))

    def _fork(self, pack: Path, name: str, lines: list[Any]) -> SoftKey:
        """Another head, signed by the log's key, or by one that the log's did not endorse."""
        key = self._insider
        if self._random.random() < 0.5:
            key = self._own_keys(pack, endorsed=False)
        self._resign(pack, name, lines, whose=key)
        return self._random.choice((key, self._insider))

    def _keys(self, pack: Path, name: str, lines: list[Any]) -> SoftKey:
        """Other keys in the place of the log's; all heads signed by them, the events honest."""
        key = self._own_keys(pack, endorsed=True)
        for other in NAMES:
            self._resign(pack, other, self._lines(pack, other), whose=key, alter=False)
        return key

    def _log_and_tree(self, pack: Path, name: str, lines: list[Any]) -> SoftKey:
        """Another log, its tree and all keys, consistent in themselves."""
        key = self._own_keys(pack, endorsed=True)
        for other in NAMES:
            self._resign(pack, other, self._lines(pack, other), whose=key, alter=other == name)
        return key

    def _bytes(self, pack: Path, name: str, lines: list[Any]) -> None:
        """A byte of a head, a proof or the keys."""
        proof = pack / "proofs" / f"{name}.json"
        self._flip_in(
            self._random.choice((pack / "heads" / name, proof, pack / "keys" / "sets.json"))
        )

    def _flip_in(self, path: Path) -> None:
        raw = bytearray(path.read_bytes())
        raw[self._random.randrange(len(raw))] ^= 1 << self._random.randrange(8)
        path.write_bytes(raw)

    def _citation(self, pack: Path, name: str, lines: list[Any]) -> None:
        """What the report says of which events it rests on."""
        path = pack / "report.json"
        report = json.loads(path.read_text())
        row = self._random.choice(report["rows"])
        cited = self._random.choice(report["evidence"])
        match self._random.choice(("row", "omitted", "invented")):
            case "row":
                row[self._random.choice(("event_id", "type", "at_ms"))] = "7 o'clock"
            case "omitted":
                report["evidence"].remove(cited)
            case "invented":
                report["evidence"].append([*cited[:2], 1_000])
        path.write_text(json.dumps(report))

    def _report(self, pack: Path, name: str, lines: list[Any]) -> None:
        path = pack / "report.json"
        report = json.loads(path.read_text())
        field = self._random.choice(("verdict", "question", "claimed", "made_by"))
        path.write_text(json.dumps(report | {field: "nothing of note"}))

    def _page(self, pack: Path, name: str, lines: list[Any]) -> None:
        self._flip_in(pack / "report.html")

    def _schema(self, pack: Path, name: str, lines: list[Any]) -> None:
        self._flip_in(self._random.choice(sorted((pack / "schemas").iterdir())))

    def _manifest(self, pack: Path, name: str, lines: list[Any]) -> None:
        self._flip_in(pack / "manifest")

    def _added(self, pack: Path, name: str, lines: list[Any]) -> None:
        folder = self._random.choice(("", "heads", "schemas", "events"))
        (pack / folder / "more.html").write_text("<p>A better report.")

    def _removed(self, pack: Path, name: str, lines: list[Any]) -> None:
        self._random.choice(sorted(p for p in pack.rglob("*") if p.is_file())).unlink()

    def _renamed(self, pack: Path, name: str, lines: list[Any]) -> None:
        path = self._random.choice(sorted(p for p in pack.rglob("*") if p.is_file()))
        path.rename(path.with_name("better" + path.name))

    def _own_keys(self, pack: Path, endorsed: bool) -> SoftKey:
        key = SoftKey(Kind.ED25519, self._random.randbytes(32))
        path = pack / "keys" / "sets.json"
        sets = json.loads(path.read_text())
        origin = sets[0]["endorsement"].partition("\n")[0]
        sets = [] if endorsed else sets
        number = len(sets) + 1
        sets.append(
            {
                "number": number,
                "keys": [{"kind": 1, "public_key": b64encode(key.public_key).decode()}],
                "endorsement": endorse(origin, number, [key], None),
            }
        )
        path.write_text(json.dumps(sets))
        return key

    def _resign(
        self, pack: Path, name: str, lines: list[Any], whose: SoftKey, alter: bool = True
    ) -> None:
        if alter:
            at = self._random.randrange(len(lines))
            offset = lines[at]["offset"]
            lines[at] = self._altered(lines[at]) | {"offset": offset}
            lines[at]["timestamp_ms"] += 7
            self._store(pack, name, lines)
        place = "/".join(name.rsplit("-", 1))
        leaves = [merkle.leaf_hash(verifier.statement(place, line)) for line in lines]
        origin = (pack / "heads" / name).read_text().partition("\n")[0]
        peaks = merkle.Peaks()
        for leaf in leaves:
            peaks.append(leaf)
        root = b64encode(peaks.root()).decode()
        text = f"{origin}\n{len(lines)}\n{root}\n"
        signature = VerifierKey(origin, Kind.ED25519, whose.public_key).sign(whose, text, 0)
        (pack / "heads" / name).write_bytes(Note(text, (signature,)).encode())

    def fresh(self, pack: Path) -> Path:
        """An honest pack at a path."""
        shutil.rmtree(pack, ignore_errors=True)
        shutil.copytree(self._honest, pack)
        return pack
