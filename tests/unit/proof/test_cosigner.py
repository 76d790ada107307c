"""Cosigning with three witnesses, of which one is down and one lies; nothing waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from harness.packed import packed
from harness.proved import CATALOG, append, proved, signed, until
from harness.witnesses import Liar, listening, nobody, witness
from muniment_services.log.base import NewRecord
from muniment_services.proof import cosigner as cosigning
from muniment_services.proof import note, policy, verifier
from muniment_services.proof.cosigner import Cosigner
from muniment_services.proof.note import VerifierKey
from muniment_services.proof.prover import Prover
from muniment_services.proof.remote import Witnesses
from muniment_services.proof.witness import Witness

pytestmark = pytest.mark.anyio

NAMES = ("honest", "other", "third")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cosigning, "ROUND_S", 0.1)


async def key_of(prover: Prover) -> VerifierKey:
    """The log's key, once it has signed."""
    await append(prover, CATALOG, 5)
    await signed(prover, CATALOG, 5)
    (key,) = prover.verifier_keys(CATALOG)
    return key


def asked(witnesses: Sequence[Witness], urls: Sequence[str], needed: int) -> policy.Policy:
    """A policy of some witnesses, so many of which are needed."""
    lines = [
        f"witness {name} {one.key.vkey} {url}\n"
        for name, one, url in zip(NAMES, witnesses, urls, strict=False)
    ]
    group = f"group all-of-them {needed} {' '.join(NAMES[: len(witnesses)])}\n"
    return policy.parse("".join([*lines, group, "quorum all-of-them\n"]))


@asynccontextmanager
async def cosigned(prover: Prover, chosen: policy.Policy) -> AsyncIterator[Cosigner]:
    found = Cosigner(prover.forest, chosen)
    found.start()
    try:
        yield found
    finally:
        await found.close()


async def test_one_is_down_and_one_lies_and_the_third_is_enough(tmp_path: Path) -> None:
    async with proved(tmp_path) as prover:
        log = await key_of(prover)
        honest = witness(tmp_path / "w1", [log], "w.example/1")
        down = witness(tmp_path / "w2", [log], "w.example/2")
        liar = witness(tmp_path / "w3", [log], "w.example/3", Liar)
        async with listening(honest, liar) as (one, three):
            chosen = asked([honest, down, liar], [one, nobody(), three], 1)
            async with cosigned(prover, chosen) as found:
                await until(lambda: found.cosigned(CATALOG) is not None)
                head = found.cosigned(CATALOG)
                assert head is not None
                keys = [log, honest.key, down.key, liar.key]
                signers = note.signers_of(note.parse(head.raw), keys)
                assert signers == [log, honest.key]
                assert found.shown(CATALOG) == head
                await until(lambda: all(found.problems[name] for name in ("other", "third")))
                assert "cannot be reached" in (found.problems["other"] or "")
                assert "is not of our head" in (found.problems["third"] or "")
                assert cosigning.states(found) == {"honest": True, "other": False, "third": False}
                assert found.problem is None, "enough cosign"
                await append(prover, CATALOG, 4)
                await until(lambda: (h := found.cosigned(CATALOG)) is not None and h.size == 9)
                for quorum, problem in ((1, False), (2, True)):
                    told = Witnesses(tuple(keys[1:]), quorum).problem(found.shown(CATALOG) or head)
                    assert (told is not None) == problem


async def test_heads_without_enough_cosignatures_are_served_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cosigning, "BEHIND_S_MAX", 0.5)
    async with proved(tmp_path) as prover:
        log = await key_of(prover)
        honest = witness(tmp_path / "w1", [log], "w.example/1")
        down = witness(tmp_path / "w2", [log], "w.example/2")
        async with listening(honest) as (one,):
            chosen = asked([honest, down], [one, nobody()], 2)
            async with cosigned(prover, chosen) as found:
                await until(lambda: found.problem is not None)
                assert found.problem is not None
                assert "too few witnesses" in found.problem
                assert "other: http" in found.problem
                assert found.cosigned(CATALOG) is None
                assert found.shown(CATALOG) == prover.forest.served(CATALOG)
            assert prover.problem is None


async def test_a_witness_that_saw_another_history_does_not_cosign(tmp_path: Path) -> None:
    async with proved(tmp_path / "a") as prover, proved(tmp_path / "b") as forked:
        log = await key_of(prover)
        await forked.log.append(NewRecord(CATALOG, b"key", b"another history", (), 1))
        await append(forked, CATALOG, 6)
        await signed(forked, CATALOG, 7)
        assert forked.verifier_keys(CATALOG) == [log], "the same keys sign both"
        seen = witness(tmp_path / "w", [log])
        async with listening(seen) as (url,):
            chosen = asked([seen], [url], 1)
            async with cosigned(prover, chosen) as found:
                await until(lambda: found.cosigned(CATALOG) is not None)
            async with cosigned(forked, chosen) as found:
                await until(lambda: found.problems["honest"] is not None)
                assert "it answers 422 for" in (found.problems["honest"] or "")
                assert found.cosigned(CATALOG) is None


async def test_packs_have_cosigned_heads(tmp_path: Path) -> None:
    async with proved(tmp_path) as prover:
        log = await key_of(prover)
        two = [witness(tmp_path / name, [log], f"w.example/{name}") for name in NAMES[:2]]
        async with listening(*two) as urls, cosigned(prover, asked(two, urls, 2)) as found:
            await append(prover, CATALOG, 5)
            await packed(prover, tmp_path / "pack", {CATALOG: [2, 9]}, cosigner=found)
        keys = [one.key.vkey for one in two]
        verifier.verify(tmp_path / "pack", (), (), keys)
        stranger = witness(tmp_path / "s", [log], "w.example/s").key.vkey
        verifier.verify(tmp_path / "pack", (), (), [*keys, stranger], 2)
        with pytest.raises(verifier.Refused, match="2 witnesses cosigned the head of"):
            verifier.verify(tmp_path / "pack", (), (), [*keys, stranger])
        with pytest.raises(verifier.Refused, match="0 witnesses"):
            verifier.verify(tmp_path / "pack", (), (), (), 1)
        with pytest.raises(verifier.Refused, match="type 04"):
            verifier.verify(tmp_path / "pack", (), (), [log.vkey])


async def test_a_slow_witness_delays_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cosigning, "ANSWER_S_MAX", 0.5)
    async with proved(tmp_path) as prover:
        log = await key_of(prover)
        honest = witness(tmp_path / "w1", [log], "w.example/1")
        mute = await asyncio.start_server(lambda *_: asyncio.sleep(60), "127.0.0.1", 0)
        port = mute.sockets[0].getsockname()[1]
        slow = witness(tmp_path / "w2", [log], "w.example/2")
        async with listening(honest) as (one,):
            chosen = asked([honest, slow], [one, f"http://127.0.0.1:{port}"], 1)
            async with cosigned(prover, chosen) as found:
                await until(lambda: found.cosigned(CATALOG) is not None)
                await append(prover, CATALOG, 2)
                await signed(prover, CATALOG, 7)
                await until(lambda: (h := found.cosigned(CATALOG)) is not None and h.size == 7)
                await until(lambda: found.problems["other"] is not None)
                assert "cannot be reached" in (found.problems["other"] or "")
        mute.close()
