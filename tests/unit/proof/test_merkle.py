"""Merkle trees: the vectors that Certificate Transparency's implementations share, and refusals.

Source: google/certificate-transparency, merkletree/merkle_tree_test.cc (also in
transparency-dev/merkle and golang.org/x/mod/sumdb/tlog).
"""

from __future__ import annotations

import pytest

from muniment_services.proof import merkle
from muniment_services.proof.merkle import ProofInvalid

LEAVES = [
    bytes.fromhex(leaf)
    for leaf in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    bytes.fromhex(root)
    for root in (
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    )
]
INCLUSION = {
    (0, 8): (
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ),
    (5, 8): (
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ),
}
CONSISTENCY = {
    (1, 8): INCLUSION[(0, 8)],
    (6, 8): (
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ),
}
HASHES = [merkle.leaf_hash(leaf) for leaf in LEAVES]


def node(level: int, index: int) -> bytes:
    return merkle.full_root(HASHES[index << level : (index + 1) << level])


@pytest.mark.parametrize("size", range(9))
def test_roots(size: int) -> None:
    assert merkle.root(size, node) == ROOTS[size]


@pytest.mark.parametrize(("index", "size"), INCLUSION)
def test_inclusion_proofs(index: int, size: int) -> None:
    proof = merkle.inclusion_proof(index, size, node)
    assert [step.hex() for step in proof] == list(INCLUSION[index, size])
    merkle.verify_inclusion(HASHES[index], index, size, proof, ROOTS[size])


@pytest.mark.parametrize(("old", "new"), CONSISTENCY)
def test_consistency_proofs(old: int, new: int) -> None:
    proof = merkle.consistency_proof(old, new, node)
    assert [step.hex() for step in proof] == list(CONSISTENCY[old, new])
    merkle.verify_consistency(old, new, proof, ROOTS[old], ROOTS[new])


def test_a_tree_extends_itself_and_the_empty_one() -> None:
    merkle.verify_consistency(0, 8, [], merkle.EMPTY_ROOT, ROOTS[8])
    merkle.verify_consistency(8, 8, [], ROOTS[8], ROOTS[8])
    with pytest.raises(ProofInvalid):
        merkle.verify_consistency(8, 8, [], ROOTS[7], ROOTS[8])
    with pytest.raises(ProofInvalid):
        merkle.verify_consistency(0, 8, [], ROOTS[1], ROOTS[8])
    with pytest.raises(ProofInvalid):
        merkle.verify_consistency(8, 7, [], ROOTS[8], ROOTS[7])


def test_a_proof_of_another_length_is_refused() -> None:
    included = merkle.inclusion_proof(5, 8, node)
    consistent = merkle.consistency_proof(6, 8, node)
    ranged = merkle.range_proof(2, 5, 8, node)
    for wrong in (lambda p: p[:-1], lambda p: [*p, bytes(32)], lambda p: []):
        with pytest.raises(ProofInvalid):
            merkle.verify_inclusion(HASHES[5], 5, 8, wrong(included), ROOTS[8])
        with pytest.raises(ProofInvalid):
            merkle.verify_consistency(6, 8, wrong(consistent), ROOTS[6], ROOTS[8])
        with pytest.raises(ProofInvalid):
            merkle.verify_range(HASHES[2:5], 2, 8, wrong(ranged), ROOTS[8])


def test_a_range_tells_what_is_missing_or_moved() -> None:
    proof = merkle.range_proof(2, 5, 8, node)
    merkle.verify_range(HASHES[2:5], 2, 8, proof, ROOTS[8])
    for leaves, begin in (
        (HASHES[2:4], 2),
        (HASHES[2:6], 2),
        ([HASHES[3], HASHES[2], HASHES[4]], 2),
        (HASHES[2:5], 3),
        (HASHES[2:5], -1),
        ([], 2),
    ):
        with pytest.raises(ProofInvalid):
            merkle.verify_range(leaves, begin, 8, proof, ROOTS[8])
