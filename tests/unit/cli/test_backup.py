"""`muniment backup` on a data folder: made, added to, checked, damaged, restored."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from muniment_auth.principal import local_principal
from muniment_schemas.ids import PrincipalId
from muniment_services import bootstrap
from muniment_services.backup import create, sealing
from muniment_services.config import Settings
from muniment_services.domain.principal import ErasePrincipal, PrincipalState
from muniment_services.domain.run_data import LogBatch
from muniment_services.write import Caller
from unit.cli.conftest import ACTOR, FILE, FILES, Call

PASSPHRASE = "correct horse"


@pytest.fixture(autouse=True)
def passphrase(monkeypatch: pytest.MonkeyPatch) -> None:
    """What seals the keys, quickly; small segments, so that there are several."""
    monkeypatch.setattr(sealing, "SCRYPT_N", 2)
    monkeypatch.setenv("MUNIMENT_BACKUP_PASSPHRASE", PASSPHRASE)
    monkeypatch.setattr(create, "SEGMENT_BYTES", 4_000)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where backups are kept."""
    return tmp_path / "backups"


def more_events(data_dir: Path, run_id: str, count: int) -> None:
    """Log to a run, as a server would."""

    async def run() -> None:
        caller = Caller(actor=ACTOR, request_id="r", workspace="default")
        async with bootstrap.services(Settings(data_dir=data_dir, proof=False)) as services:
            for n in range(count):
                batch = LogBatch(run_id=run_id, params=((f"p{n}", "x" * 200),))
                await services.writer.submit(caller, batch, lambda _: b"")

    asyncio.run(run())


def made(call: Call, data_dir: Path, place: Path, *more: object) -> dict[str, object]:
    """Make a backup; what it tells."""
    ended = call("backup", "create", "--to", place, "--data-dir", data_dir, "--json", *more)
    assert ended.status == 0, ended.err
    told: dict[str, object] = json.loads(ended.lines[-1])
    return told


def files_of(place: Path) -> dict[Path, bytes]:
    """All files of a place."""
    return {p: p.read_bytes() for p in place.rglob("*") if p.is_file()}


def test_a_backup_is_made_listed_checked_and_restored(
    call: Call, data_dir: Path, place: Path, tmp_path: Path
) -> None:
    first = made(call, data_dir, place)
    assert (first["files"], first["new_files"], first["missing"]) == (1, 1, [])
    assert first["events"] == first["new_events"]
    (listed,) = [json.loads(line) for line in call("backup", "list", place, "--json").lines]
    assert (listed["name"], listed["events"]) == (first["name"], first["events"])
    assert call("backup", "verify", place).out.startswith("all is well")
    target = tmp_path / "restored"
    restored = call("backup", "restore", place, "--data-dir", target)
    assert restored.status == 0, restored.err
    assert "all was compared" in restored.out
    assert [p.read_bytes() for p in (target / FILES).rglob("a.txt")] == [FILE]
    keys = {p.name: p.read_bytes() for p in (data_dir / "keys").iterdir()}
    assert {p.name: p.read_bytes() for p in (target / "keys").iterdir()} == keys != {}
    assert all((target / "keys" / name).stat().st_mode & 0o777 == 0o600 for name in keys)
    assert call("verify", "--data-dir", target).status == 0
    again = call("backup", "restore", place, "--data-dir", target)
    assert again.status == 0, again.err


def test_no_key_stands_in_a_backup_in_clear(call: Call, data_dir: Path, place: Path) -> None:
    made(call, data_dir, place)
    keys = [p.read_bytes() for p in (data_dir / "keys").iterdir()]
    for content in files_of(place).values():
        assert not any(key in content or key.hex().encode() in content for key in keys)
    shutil.rmtree(place)
    assert made(call, data_dir, place, "--without-keys")["keys"] is None
    assert not (place / "keys").exists()


def test_the_next_backup_takes_only_what_is_new(
    call: Call, data_dir: Path, run_id: str, place: Path
) -> None:
    more_events(data_dir, run_id, 50)
    first = made(call, data_dir, place)
    before = files_of(place)
    more_events(data_dir, run_id, 100)
    second = made(call, data_dir, place)
    after = files_of(place)
    assert before.items() <= after.items(), "what an earlier backup names is not touched"
    assert (second["new_files"], second["new_events"]) == (0, 100)
    old = sorted(p for p in before if p.suffix == ".zst" and p.parent.name.startswith("runs"))
    new = sorted(p for p in after if p not in before and p.parent == old[0].parent)
    assert len(old) > 2
    assert [p.name[:15] >= old[-1].name[:15] for p in new] == [True] * len(new)
    for name in (first["name"], second["name"]):
        assert call("backup", "verify", place, "--backup", name).status == 0
    assert made(call, data_dir, place)["new_events"] == 0


def test_a_backup_that_was_broken_off_is_gone_on_with(
    call: Call, data_dir: Path, run_id: str, place: Path
) -> None:
    more_events(data_dir, run_id, 50)
    made(call, data_dir, place)
    (manifest,) = (place / "backups").iterdir()
    manifest.unlink()
    before = files_of(place)
    made(call, data_dir, place)
    written = [p for p in files_of(place) if p not in before]
    assert [p.parent.name for p in written] == ["backups"]
    assert call("backup", "verify", place).status == 0


def damages(place: Path) -> Iterator[tuple[Path, str]]:
    files = sorted(p for p in place.rglob("*") if p.is_file())
    yield from zip(files, itertools.cycle(("flip", "cut", "gone")))


def test_every_damage_to_every_file_is_found(call: Call, data_dir: Path, place: Path) -> None:
    made(call, data_dir, place)
    tried = 0
    for path, kind in damages(place):
        content = path.read_bytes()
        if kind == "gone":
            path.unlink()
        elif kind == "cut":
            path.write_bytes(content[: len(content) // 2])
        else:
            middle = len(content) // 2
            path.write_bytes(
                content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
            )
        ended = call("backup", "verify", place)
        assert ended.status == 1, (path, kind, ended.out)
        path.write_bytes(content)
        tried += 1
    assert tried > 8
    assert call("backup", "verify", place).status == 0


def test_a_damaged_backup_is_not_restored(
    call: Call, data_dir: Path, place: Path, tmp_path: Path
) -> None:
    made(call, data_dir, place)
    (artifact,) = (place / "artifacts" / "files").iterdir()
    artifact.write_bytes(b"WHAT was logged")
    ended = call("backup", "restore", place, "--data-dir", tmp_path / "r")
    assert (ended.status, "is not what was stored" in ended.err) == (1, True)
    assert not list((tmp_path / "r" / FILES).rglob("a.txt"))


def test_what_the_server_had_not_is_told(call: Call, data_dir: Path, place: Path) -> None:
    (file,) = (data_dir / FILES).rglob("a.txt")
    file.write_bytes(b"x")
    create_ = call("backup", "create", "--to", place, "--data-dir", data_dir)
    assert create_.status == 1
    assert "1 files were not as the log says" in create_.err
    assert "the server had it not" in call("backup", "verify", place).out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("verify", "nowhere"), "there is no folder nowhere"),
        (("list", "ftp://x"), "ftp://x is no place to keep files"),
        (("create", "--to", "b", "--data-dir", "nowhere"), "there is no log in nowhere"),
        (("restore", "{place}", "--backup", "zzz", "--data-dir", "r"), "no backup"),
        (("restore", "{place}", "--data-dir", "{data_dir}"), "the log there"),
        (("create", "--to", "{place}", "--passphrase-file", "{other}"), "another passphrase"),
        (("restore", "{place}", "--passphrase-file", "{other}"), "another passphrase"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    call: Call, data_dir: Path, run_id: str, place: Path, arguments: tuple[str, ...], told: str
) -> None:
    made(call, data_dir, place)
    more_events(data_dir, run_id, 3)
    other = place.parent / "other"
    other.write_text("another\n")
    named = {"place": place, "data_dir": data_dir, "other": other}
    filled = [argument.format(**named) for argument in arguments]
    if "--passphrase-file" in filled:
        filled += ["--data-dir", str(data_dir if filled[0] == "create" else place.parent / "r")]
    ended = call("backup", *filled)
    assert ended.status in (1, 2)
    assert told in ended.err
    assert ended.err.count("\n") == 1


def test_keys_need_a_passphrase(
    call: Call, data_dir: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MUNIMENT_BACKUP_PASSPHRASE")
    ended = call("backup", "create", "--to", place, "--data-dir", data_dir)
    assert (ended.status, "--without-keys" in ended.err) == (2, True)
    monkeypatch.setenv("MUNIMENT_BACKUP_PASSPHRASE", PASSPHRASE)
    made(call, data_dir, place)
    monkeypatch.delenv("MUNIMENT_BACKUP_PASSPHRASE")
    assert call("backup", "verify", place).status == 0
    ended = call("backup", "restore", place, "--data-dir", place.parent / "r")
    assert (ended.status, "the keys are sealed" in ended.err) == (2, True)


def test_a_log_that_went_on_from_a_copy_is_refused(
    call: Call, data_dir: Path, run_id: str, place: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(data_dir, tmp_path / "copy"))
    more_events(data_dir, run_id, 60)
    made(call, data_dir, place)
    at = ("--data-dir", copy, "--to", place)
    assert "before what backups" in call("backup", "create", *at).err
    more_events(copy, run_id, 61)
    assert "is another one in" in call("backup", "create", *at).err


ANNA = dataclasses.replace(local_principal("x"), id=PrincipalId("anna"), name="Anna")


def erased(data_dir: Path) -> str:
    """Register Anna and erase her; the id of her key, which the file system has lost."""

    async def run() -> str:
        caller = Caller(actor=ACTOR, request_id="r", workspace="default")
        async with bootstrap.services(Settings(data_dir=data_dir, proof=False)) as services:
            found = services.fold.state.get("principal", "anna")
            assert isinstance(found, PrincipalState)
            order = ErasePrincipal(principal_id="anna", reason="request 17")
            await services.writer.submit(caller, order, lambda _: b"")
            await services.erasures.finish()
            return found.key_id

    return asyncio.run(run())


def registered(data_dir: Path) -> None:
    """Have Anna noted."""

    async def run() -> None:
        async with bootstrap.services(Settings(data_dir=data_dir, proof=False)) as services:
            await services.identities.register_once(ANNA)

    asyncio.run(run())


def test_an_erased_key_leaves_the_place_and_does_not_come_back(
    call: Call, data_dir: Path, place: Path, tmp_path: Path
) -> None:
    registered(data_dir)
    first = made(call, data_dir, place)
    key_id = erased(data_dir)
    kept = place / "keys" / f"{key_id}.sealed"
    sealed = kept.read_bytes()
    made(call, data_dir, place)
    assert not kept.exists()
    old = ("--backup", first["name"])
    assert call("backup", "verify", place, *old).status == 0
    # Whoever kept a copy of the place does not bring it back with this one either.
    for content in (None, sealed):
        if content is not None:
            kept.write_bytes(content)
        target = tmp_path / f"restored-{content is None}"
        restored = call("backup", "restore", place, *old, "--data-dir", target)
        assert restored.status == 0, restored.err
        assert (target / "keys").is_dir()
        assert not (target / "keys" / key_id).exists()
