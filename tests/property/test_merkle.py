"""Trees, proofs and tiles of any size against RFC 6962's definition, written down as it stands."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muniment_services.proof import merkle, verifier
from muniment_services.proof.merkle import ProofInvalid
from muniment_services.proof.tree import Tree

SIZE_MAX = 700
LEAVES = [merkle.leaf_hash(str(number).encode()) for number in range(SIZE_MAX)]

sizes = st.integers(1, SIZE_MAX)


def mth(leaves: list[bytes]) -> bytes:
    """RFC 6962, 2.1: the Merkle Tree Hash."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = max(2**i for i in range(20) if 2**i < len(leaves))
    return sha256(b"\x01" + mth(leaves[:k]) + mth(leaves[k:])).digest()


def path(m: int, leaves: list[bytes]) -> list[bytes]:
    """RFC 6962, 2.1.1: PATH."""
    if len(leaves) == 1:
        return []
    k = max(2**i for i in range(20) if 2**i < len(leaves))
    if m < k:
        return [*path(m, leaves[:k]), mth(leaves[k:])]
    return [*path(m - k, leaves[k:]), mth(leaves[:k])]


def subproof(m: int, leaves: list[bytes], whole: bool) -> list[bytes]:
    """RFC 6962, 2.1.2: SUBPROOF."""
    if m == len(leaves):
        return [] if whole else [mth(leaves)]
    k = max(2**i for i in range(20) if 2**i < len(leaves))
    if m <= k:
        return [*subproof(m, leaves[:k], whole), mth(leaves[k:])]
    return [*subproof(m - k, leaves[k:], False), mth(leaves[:k])]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    found = Tree(tmp_path_factory.mktemp("tree"))
    found.append(LEAVES)
    return found


@given(size=sizes, data=st.data())
def test_inclusion(tree: Tree, size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    proof = merkle.inclusion_proof(index, size, tree.node)
    assert proof == path(index, LEAVES[:size])
    root = mth(LEAVES[:size])
    assert tree.root(size) == root
    merkle.verify_inclusion(LEAVES[index], index, size, proof, root)
    elsewhere = data.draw(st.integers(0, size))
    if elsewhere != index:
        with pytest.raises(ProofInvalid):
            merkle.verify_inclusion(LEAVES[index], elsewhere, size, proof, root)


@given(new=sizes, data=st.data())
def test_consistency(tree: Tree, new: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(1, new))
    proof = merkle.consistency_proof(old, new, tree.node)
    assert proof == subproof(old, LEAVES[:new], True)
    roots = mth(LEAVES[:old]), mth(LEAVES[:new])
    merkle.verify_consistency(old, new, proof, *roots)
    if proof:
        wrong = list(proof)
        wrong[data.draw(st.integers(0, len(proof) - 1))] = bytes(32)
        with pytest.raises(ProofInvalid):
            merkle.verify_consistency(old, new, wrong, *roots)
    with pytest.raises(ProofInvalid):
        merkle.verify_consistency(old, new, proof, bytes(32), roots[1])


@given(size=sizes, data=st.data())
def test_ranges(tree: Tree, size: int, data: st.DataObject) -> None:
    begin = data.draw(st.integers(0, size - 1))
    end = data.draw(st.integers(begin + 1, size))
    proof = merkle.range_proof(begin, end, size, tree.node)
    root = mth(LEAVES[:size])
    merkle.verify_range(LEAVES[begin:end], begin, size, proof, root)
    gone = data.draw(st.integers(begin, end - 1))
    with pytest.raises(ProofInvalid):
        merkle.verify_range(LEAVES[begin:gone] + LEAVES[gone + 1 : end], begin, size, proof, root)


@given(size=sizes, data=st.data())
def test_leaves_anywhere_lead_to_the_root_with_what_is_beside_them(
    tree: Tree, size: int, data: st.DataObject
) -> None:
    offsets = sorted(data.draw(st.sets(st.integers(0, size - 1), max_size=40)))
    proof = list(merkle.beside(offsets, size, tree.node))
    root = mth(LEAVES[:size])
    nodes = {(at, at + 1): LEAVES[at] for at in offsets}
    assert verifier.root_beside(nodes, size, proof) == root
    singly = {step for at in offsets for step in merkle.inclusion_proof(at, size, tree.node)}
    assert not offsets or set(proof) <= singly, "no more is told than by a proof of each"
    assert len(set(proof)) == len(proof), "and nothing twice"
    if offsets:
        moved = {(at, at + 1): LEAVES[(at + 1) % SIZE_MAX] for at in offsets}
        assert verifier.root_beside(moved, size, proof) != root


@given(new=sizes, data=st.data())
def test_peaks_lead_to_the_root_of_an_older_tree(tree: Tree, new: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(1, new))
    peaks = merkle.peaks(old, tree.node)
    assert len(peaks) == old.bit_count()
    found = peaks[-1]
    for peak in reversed(peaks[:-1]):
        found = merkle.node_hash(peak, found)
    assert found == mth(LEAVES[:old])


@settings(max_examples=30, deadline=None)
@given(batches=st.lists(st.integers(0, 300), max_size=8), reopen=st.integers(0, 7))
def test_a_tree_is_its_leaves_however_they_came(batches: list[int], reopen: int) -> None:
    with TemporaryDirectory() as folder:
        tree, fed = Tree(Path(folder)), 0
        for turn, count in enumerate(batches):
            if turn == reopen:
                tree.close()
                tree = Tree(Path(folder))
                assert tree.size == fed // 256 * 256
                tree.append(LEAVES[tree.size : fed])
            batch = LEAVES[fed : fed + count]
            tree.append(batch)
            fed += len(batch)
        assert tree.size == fed
        assert tree.root(fed) == mth(LEAVES[:fed])
        tree.close()
