"""The prover at work: heads in one line, starts, rotation, replicas, and logs that were changed."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from harness.memory_log import Stored
from harness.proved import (
    CATALOG,
    CODEC,
    HEADS,
    RUNS,
    append,
    keyring,
    proved,
    signed,
    size_of,
    until,
)
from muniment_schemas.events import HeadsSigned, SigningKeyAdded
from muniment_services.proof import note
from muniment_services.proof.forest import leaves_of
from muniment_services.proof.merkle import full_root, node_hash
from muniment_services.proof.note import Kind, VerifierKey
from muniment_services.proof.prover import LOOK_S, Prover
from muniment_services.proof.signing import NotSigned

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def events_of(stored: Stored) -> list[object]:
    return [CODEC.decode(record.value) for record in stored[HEADS]]


async def quiet(prover: Prover) -> None:
    """Several times as long as a head takes."""
    await asyncio.sleep(2.0)
    assert prover.problem is None


async def test_heads_are_of_the_log_and_end_when_nothing_comes(tmp_path: Path) -> None:
    stored: Stored = {}
    async with proved(tmp_path, stored) as prover:
        await append(prover, CATALOG, 3)
        await append(prover, RUNS, 300)
        await signed(prover, RUNS, 300)
        await signed(prover, CATALOG, 3)
        head = prover.forest.served(CATALOG)
        assert head is not None
        first, second, third = leaves_of(stored[CATALOG])
        assert head.root == node_hash(full_root([first, second]), third)
        opened = note.opened(head.raw, prover.verifier_keys(CATALOG))
        assert opened.text.startswith("log.test/catalog/0\n3\n")
        count = len(stored[HEADS])
        await quiet(prover)
        assert len(stored[HEADS]) <= count + 1, "heads lead to heads"
    kinds = [type(event) for event in events_of(stored)]
    assert kinds[0] is SigningKeyAdded
    assert set(kinds[1:]) == {HeadsSigned}


@pytest.mark.parametrize("lost", [None, "line.json", "runs-0", "."])
async def test_a_start_goes_on_with_or_without_its_cache(tmp_path: Path, lost: str | None) -> None:
    stored: Stored = {}
    async with proved(tmp_path, stored) as prover:
        await append(prover, RUNS, 600)
        await signed(prover, RUNS, 600)
        folder = prover.forest.folder
    if lost is not None:
        path = folder / lost
        path.unlink() if path.is_file() else shutil.rmtree(path)
    async with proved(tmp_path, stored) as prover:
        await append(prover, RUNS, 7)
        await signed(prover, RUNS, 607)
        assert prover.problem is None
        assert len(prover.forest.line.key_sets) == 1


async def test_a_damaged_cache_is_made_anew(tmp_path: Path) -> None:
    stored: Stored = {}
    async with proved(tmp_path, stored) as prover:
        await append(prover, RUNS, 600)
        await signed(prover, RUNS, 600)
        folder = prover.forest.folder
    with (folder / "runs-0" / "0").open("r+b") as file:
        file.write(b"\xff" * 32)
    async with proved(tmp_path, stored) as prover:
        await append(prover, RUNS, 1)
        await signed(prover, RUNS, 601)
        assert prover.problem is None


@pytest.mark.parametrize("cache", [True, False])
async def test_a_changed_log_is_not_signed_any_more(tmp_path: Path, cache: bool) -> None:
    stored: Stored = {}
    async with proved(tmp_path, stored) as prover:
        await append(prover, CATALOG, 9)
        await signed(prover, CATALOG, 9)
        folder = prover.forest.folder
    stored[CATALOG][4] = replace(stored[CATALOG][4], value=b"another")
    if not cache:
        shutil.rmtree(folder)
    async with proved(tmp_path, stored) as prover:
        await until(lambda: prover.failure is not None)
        assert "has another root than the log" in (prover.problem or "")
        heads = len(stored[HEADS])
        await append(prover, RUNS, 1)
        await asyncio.sleep(1.5)
        assert len(stored[HEADS]) == heads


async def test_a_log_that_has_lost_its_end_is_not_signed_any_more(tmp_path: Path) -> None:
    stored: Stored = {}
    async with proved(tmp_path, stored) as prover:
        await append(prover, CATALOG, 9)
        await signed(prover, CATALOG, 9)
    del stored[CATALOG][7:]
    async with proved(tmp_path, stored) as prover:
        await until(lambda: prover.failure is not None)
        assert "covers more than the log has" in (prover.problem or "")


def signers(prover: Prover) -> list[VerifierKey]:
    """Which of all keys that there were signed the head that is served."""
    head = prover.forest.served(CATALOG)
    assert head is not None
    return list(note.signers_of(note.parse(head.raw), prover.verifier_keys(CATALOG)))


async def test_new_keys_are_endorsed_used_and_signed(tmp_path: Path) -> None:
    stored: Stored = {}
    async with proved(tmp_path, stored) as prover:
        await append(prover, CATALOG, 1)
        await signed(prover, CATALOG, 1)
        assert await prover.rotate() == 2
        await until(lambda: len(prover.forest.line.key_sets) == 2, prover)
        rotated = len(stored[HEADS])
        await until(lambda: size_of(prover, HEADS) >= rotated, prover)
        # A tree that does not grow is signed anew, so that the key that is served verifies it.
        await until(lambda: signers(prover) == prover.verifier_keys(CATALOG)[1:], prover)
        await append(prover, CATALOG, 1)
        await signed(prover, CATALOG, 2)
        old, new = prover.verifier_keys(CATALOG)
        assert signers(prover) == [new]
    async with proved(tmp_path, stored) as prover:
        await append(prover, CATALOG, 1)
        await signed(prover, CATALOG, 3)
        assert prover.verifier_keys(CATALOG) == [old, new]


async def test_only_who_signs_heads_seals_anything(tmp_path: Path) -> None:
    async with proved(tmp_path) as prover:
        with pytest.raises(NotSigned, match="No key is in use yet"):
            await prover.seal("pack", "what it says\n")
        await append(prover, CATALOG, 1)
        await signed(prover, CATALOG, 1)
        raw = await prover.seal("pack", "what it says\n")
        (key,) = prover.forest.line.keys_of("log.test/pack")
        assert note.opened(raw, [key]).text == "log.test/pack\nwhat it says\n"
        prover.failure = "the log was changed"
        with pytest.raises(NotSigned, match="the log was changed"):
            await prover.seal("pack", "what it says\n")


async def test_a_head_can_have_a_second_signature(tmp_path: Path) -> None:
    keys = keyring(tmp_path / "keys", Kind.ED25519, Kind.ML_DSA_44)
    async with proved(tmp_path, keys=keys) as prover:
        await append(prover, CATALOG, 1)
        await signed(prover, CATALOG, 1)
        head = prover.forest.served(CATALOG)
        assert head is not None
        signers = note.signers_of(note.parse(head.raw), prover.verifier_keys(CATALOG))
        assert [key.kind for key in signers] == [Kind.ED25519, Kind.ML_DSA_44]


async def test_a_replica_with_other_keys_does_not_sign(tmp_path: Path) -> None:
    stored: Stored = {}
    async with proved(tmp_path / "one", stored) as prover:
        await append(prover, CATALOG, 1)
        await signed(prover, CATALOG, 1)
    folder = tmp_path / "two" / "keys"
    folder.mkdir(parents=True, mode=0o700)
    (folder / "log-signing-key-1").write_bytes(bytes(32))
    (folder / "log-signing-key-1").chmod(0o600)
    async with proved(tmp_path / "two", stored) as prover:
        await append(prover, CATALOG, 1)
        await until(lambda: prover.trouble is not None)
        for _ in range(20):  # It stays said, although most looks come too early to sign.
            assert "All replicas need the same keys" in (prover.problem or "")
            await asyncio.sleep(LOOK_S)
        assert prover.failure is None


async def test_a_key_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    stored: Stored = {}
    async with proved(tmp_path, stored) as prover:
        await append(prover, CATALOG, 1)
        await signed(prover, CATALOG, 1)
    (tmp_path / "keys" / "log-signing-key-1").chmod(0o640)
    async with proved(tmp_path, stored) as prover:
        await append(prover, CATALOG, 1)
        await until(lambda: prover.trouble is not None)
        assert "chmod 600" in (prover.problem or "")
        (tmp_path / "keys" / "log-signing-key-1").chmod(0o600)
        await signed(prover, CATALOG, 2)
        assert prover.problem is None


async def test_a_head_of_another_log_stops_signing(tmp_path: Path) -> None:
    stored: Stored = {}
    async with proved(tmp_path, stored) as prover:
        await append(prover, CATALOG, 3)
        await signed(prover, CATALOG, 3)
    other: Stored = {}
    async with proved(tmp_path, other) as prover:  # The same keys and cache, a fork of the log.
        await until(lambda: prover.failure is not None)
        assert "covers more than the log has" in (prover.problem or "")
