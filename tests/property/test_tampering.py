"""What is changed in a log, whoever holds an earlier head finds it; honest ones are believed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from harness.packed import packed
from harness.proved import CATALOG, RUNS, append, keyring, proved, signed
from harness.tampering import WAYS, Forger
from muniment_services.proof import verifier
from muniment_services.proof.note import Kind, VerifierKey
from muniment_services.proof.signing import SoftKey

FEW = 300
MANY = 10_000


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A pack of a whole log, and heads of it that an auditor kept when it was smaller."""
    folder = tmp_path_factory.mktemp("site")
    kept: list[str] = []

    async def main() -> None:
        async with proved(folder) as prover:
            await append(prover, CATALOG, 11)
            await append(prover, RUNS, 24)
            await signed(prover, CATALOG, 11)
            await signed(prover, RUNS, 24)
            for at in (CATALOG, RUNS):
                head = prover.forest.served(at)
                assert head is not None
                kept.append(head.raw.decode())
            await prover.rotate()
            await append(prover, CATALOG, 8)
            await append(prover, RUNS, 13)
            await signed(prover, CATALOG, 19)
            await signed(prover, RUNS, 37)
            kept_sizes = {CATALOG: [11], RUNS: [24]}
            await packed(prover, folder / "pack", {CATALOG: range(19), RUNS: range(37)}, kept_sizes)
            some = {CATALOG: [3, 4, 9], RUNS: [30, 32, 36]}
            await packed(prover, folder / "some", some, kept_sizes)

    asyncio.run(main())
    return folder, kept


def key_of(folder: Path, number: int) -> SoftKey:
    """The key of a set of the log's."""
    keys = keyring(folder / "keys").find(number)
    assert keys is not None
    (key,) = keys
    assert isinstance(key, SoftKey)
    return key


def insider_of(folder: Path) -> SoftKey:
    """The key of the log in use."""
    return key_of(folder, 2)


def vkey_of(folder: Path, number: int) -> str:
    """The same as an auditor holds it."""
    key = key_of(folder, number)
    return VerifierKey("log/catalog/0", Kind.ED25519, key.public_key).vkey


def found(pack: Path, kept: list[str]) -> bool:
    """Whether the verifier refuses a pack."""
    try:
        verifier.verify(pack, kept)
    except verifier.FAULTS:
        return True
    return False


@pytest.mark.parametrize("name", ["pack", "some"])
def test_an_honest_pack_is_believed(site: tuple[Path, list[str]], name: str) -> None:
    folder, kept = site
    told = verifier.verify(folder / name, kept)
    counts = {"pack": (19, 37), "some": (3, 3)}[name]
    assert told[:2] == [
        f"catalog/0: {counts[0]} events are in the signed tree of 19",
        f"runs/0: {counts[1]} events are in the signed tree of 37",
    ]
    assert len(told) == 3
    assert "hold a head" in verifier.verify(folder / name)[-1]


@pytest.mark.parametrize(("begin", "end"), [
    pytest.param(0, FEW, id="few"),
    pytest.param(FEW, FEW + MANY, id="many", marks=pytest.mark.slow),
])  # fmt: skip
def test_every_change_is_found(
    site: tuple[Path, list[str]], tmp_path: Path, begin: int, end: int
) -> None:
    folder, kept = site
    ways = set()
    insider = insider_of(folder)
    for seed in range(begin, end):
        forger = Forger(folder / "pack", seed, insider)
        pack = forger.fresh(tmp_path / "pack")
        way = forger.change(pack)
        ways.add(way.partition(" catalog")[0].partition(" runs")[0])
        assert found(pack, kept), f"seed {seed}: {way}"
    assert ways == set(WAYS)


@pytest.mark.parametrize("size", [37, 10**15, 10**30])
@pytest.mark.parametrize(
    "ranges", [[[0, 10**15]], [[0, 10**30]], [[-1, 37]], [[5, 5]], [[0, 37]] * 2]
)
def test_what_an_insider_may_ask_of_a_verifier_costs_it_nothing(
    site: tuple[Path, list[str]], tmp_path: Path, size: int, ranges: list[list[int]]
) -> None:
    folder, _ = site
    forger = Forger(folder / "pack", 1, insider_of(folder))
    pack = forger.fresh(tmp_path / "pack")
    forger.claim(pack, "runs-0", size, ranges)
    with pytest.raises(verifier.FAULTS):
        verifier.verify(pack)
    (pack / "report.json").write_text("[" * 100_000)
    forger.relist(pack)
    assert found(pack, [])


def test_whoever_holds_a_key_is_told_no_history_of_keys_that_it_did_not_have(
    site: tuple[Path, list[str]], tmp_path: Path
) -> None:
    folder, kept = site
    forger = Forger(folder / "pack", MANY, insider_of(folder))
    held = vkey_of(folder, 2)
    assert verifier.verify(folder / "pack", kept, [held])
    pack = forger.fresh(tmp_path / "pack")
    forger.graft(pack)
    for keys in ([held], []):
        with pytest.raises(verifier.Refused, match="set 2 is of other keys"):
            verifier.verify(pack, [], keys)


def test_a_key_that_was_followed_signs_nothing_for_who_holds_the_next(
    site: tuple[Path, list[str]], tmp_path: Path
) -> None:
    """It may be why there is a next one that somebody else got it."""
    folder, _ = site
    forger = Forger(folder / "pack", 1, insider_of(folder))
    pack = forger.fresh(tmp_path / "pack")
    forger.sign_all(pack, key_of(folder, 1))
    with pytest.raises(verifier.Refused, match="is not signed by a key"):
        verifier.verify(pack, [], [vkey_of(folder, 2)])


def test_the_verifier_stands_alone(site: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder, kept = site
    head = tmp_path / "head"
    head.write_text(kept[0])
    script = folder / "pack" / "verifier.py"
    command = [sys.executable, "-I", "-S", str(script), str(folder / "pack"), "--head", str(head)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("OK, all holds\n")
    assert len(script.read_text().splitlines()) < 300
    head.write_text(kept[0].replace("\n11\n", "\n12\n"))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("DOES NOT HOLD: ")
