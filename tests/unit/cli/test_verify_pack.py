"""`muniment verify --pack`: it believes honest packs, and says of others what is wrong."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from harness.packed import packed
from muniment_services import bootstrap
from muniment_services.config import Settings
from muniment_services.log.base import TopicPartition
from muniment_services.proof import pack as packs
from muniment_services.proof.note import Kind, VerifierKey
from muniment_services.proof.signing import NAME, SoftKey, seal
from unit.cli.conftest import Call

CATALOG = TopicPartition("catalog", 0)
WITNESS = VerifierKey("w.example/1", Kind.COSIGNATURE, bytes(range(32))).vkey
OF_A_LOG = VerifierKey("log", Kind.ED25519, bytes(range(32))).vkey
LAST = 3
"""Events of the catalog that the pack has: those at its end."""


@pytest.fixture(scope="module")
def made(filled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `pack`, `pack.zip`, `head` that was signed before, and the log's `key`."""
    folder = tmp_path_factory.mktemp("made")
    data_dir = Path(shutil.copytree(filled, folder / "data"))

    async def main() -> None:
        async with bootstrap.services(Settings(data_dir=data_dir)) as services:
            prover = services.prover
            assert prover is not None
            size = prover.forest.trees[CATALOG].size
            while not (head := prover.forest.served(CATALOG)) or head.size < size or not size:
                await asyncio.sleep(0.05)
                size = prover.forest.trees[CATALOG].size
            (folder / "head").write_bytes(head.raw)
            offsets = {CATALOG: range(size - LAST, size)}
            await packed(
                prover, folder / "pack", offsets, {CATALOG: [head.size]}, log=prover.origin
            )

    asyncio.run(main())
    (folder / "key").write_bytes((data_dir / "keys" / f"{NAME}-1").read_bytes())
    return folder


@pytest.fixture
def pack(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(made / "pack", tmp_path / "pack"))


def resigned(made: Path, pack: Path) -> None:
    """Sign the manifest anew, as whoever has the log's key can."""
    manifest = pack / "manifest"
    origin = manifest.read_text().partition("\n")[0]
    files = sorted(path for path in pack.rglob("*") if path.is_file() and path != manifest)
    lines = [f"{sha256(p.read_bytes()).hexdigest()}  {p.relative_to(pack)}\n" for p in files]
    key = SoftKey(Kind.ED25519, (made / "key").read_bytes())
    manifest.write_bytes(seal(origin, "".join(lines), key))


def test_an_honest_pack_is_believed_as_a_zip_and_as_a_folder(call: Call, made: Path) -> None:
    for name in ("pack", "pack.zip"):
        ended = call("verify", "--pack", made / name, "--head", made / "head")
        assert (ended.status, ended.lines[-1]) == (0, "OK, all holds"), ended.err
        assert f"catalog/0: {LAST} events are in the signed tree" in ended.lines[0]
        assert ended.lines[-2] == f"{LAST} events are what their schemas and the report say"
    told = json.loads(call("verify", "--pack", made / "pack.zip", "--json").out)
    assert told["ok"]
    assert any("keys are those in the pack" in line for line in told["told"])


def test_a_key_from_elsewhere_must_be_the_logs(call: Call, made: Path) -> None:
    key = SoftKey(Kind.ED25519, (made / "key").read_bytes())
    ours = VerifierKey("log", Kind.ED25519, key.public_key)
    ended = call("verify", "--pack", made / "pack", "--vkey", ours.vkey)
    assert (ended.status, "keys are those in the pack" in ended.out) == (0, False)
    theirs = VerifierKey("log", Kind.ED25519, bytes(32))
    ended = call("verify", "--pack", made / "pack", "--vkey", theirs.vkey)
    assert (ended.status, "another log's" in ended.err) == (1, True)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--witness", "w"), "about a server"),
        (("--pack", "p", "--quorum", "1"), "name them by --witness"),
        (("--pack", "p", "--witness", "w"), "is not a verifier key"),
        (("--pack", "p", "--witness", WITNESS, "--quorum", "2"), "1 to 1"),
        (("--pack", "p", "--witness", WITNESS, "--quorum", "0"), "1 to 1"),
        (("--pack", "p", "--witness", OF_A_LOG), "not of a witness"),
    ],
)
def test_what_witnesses_cannot_be_asked(call: Call, options: tuple[str, ...], says: str) -> None:
    ended = call("verify", *options)
    assert (ended.status, says in ended.err) == (2, True), ended.err


def test_a_pack_lacks_cosignatures(call: Call, made: Path) -> None:
    ended = call("verify", "--pack", made / "pack", "--witness", WITNESS)
    assert (ended.status, "0 witnesses cosigned the head of" in ended.err) == (1, True)


def alter_schema(pack: Path) -> str:
    path = next(p for p in sorted((pack / "schemas").iterdir()) if p.suffix == ".avsc")
    raw = json.loads(path.read_text())
    raw["fields"][-1]["name"] = "renamed"
    path.write_text(json.dumps(raw))
    return "is not the schema that events name"


def alter_actor(pack: Path) -> str:
    path = pack / "report.json"
    report = json.loads(path.read_text())
    report["rows"][0]["actor"] = "somebody-else"
    path.write_text(json.dumps(report))
    return "names another actor than the event"


def alter_value(pack: Path) -> str:
    def change(event: Any) -> None:
        event["value"] = event["value"][:-8] + "AAAA" + event["value"][-4:]

    return _with_event(pack, change)


def withhold_wrongly(pack: Path) -> str:
    return _with_event(pack, lambda e: e.update(value=None, value_sha256="00" * 32))


def _with_event(pack: Path, change: Callable[[Any], None]) -> str:
    path = pack / "events" / "catalog-0.jsonl"
    first, *rest = map(json.loads, path.read_text().splitlines())
    change(first)
    path.write_text("".join(json.dumps(event) + "\n" for event in (first, *rest)))
    return "the records of catalog/0 are not what was signed"


@pytest.mark.parametrize("alter", [alter_schema, alter_actor, alter_value, withhold_wrongly])
def test_whoever_has_the_key_is_found_too(
    call: Call, made: Path, pack: Path, alter: Callable[[Path], str]
) -> None:
    says = alter(pack)
    ended = call("verify", "--pack", pack)
    assert (ended.status, "is not what the manifest says" in ended.err) == (1, True)
    resigned(made, pack)
    ended = call("verify", "--pack", pack, "--json")
    assert ended.status == 1
    assert says in ended.err
    assert not json.loads(ended.out)["ok"]


def test_what_is_no_pack_is_told(
    call: Call, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes((made / "pack.zip").read_bytes()[:-100])
    assert "cannot be unpacked" in call("verify", "--pack", path).err
    assert "cannot be unpacked" in call("verify", "--pack", tmp_path / "nowhere.zip").err
    with ZipFile(path, "w") as zip_file:
        zip_file.writestr("manifest", "a")
        with pytest.warns(UserWarning, match="Duplicate name"):
            zip_file.writestr("manifest", "b")
    assert "two files of one name" in call("verify", "--pack", path).err
    with ZipFile(path, "w") as zip_file:
        zip_file.writestr("../manifest", "a")
    ended = call("verify", "--pack", path)
    assert (ended.status, "DOES NOT HOLD" in ended.err) == (1, True)
    assert not (tmp_path / "manifest").exists()
    monkeypatch.setattr(packs, "BYTES_MAX", 100)
    assert "it is no pack" in call("verify", "--pack", made / "pack.zip").err
