"""Merkle trees as RFC 6962 has them: hashes, proofs, and the verification of proofs.

Whoever makes a proof gives a `Node`: a function that tells the hash of the full subtree of
2**level leaves which begins at leaf index * 2**level. Whoever verifies needs nothing but the proof.
Source: RFC 6962, section 2.1; RFC 9162, sections 2.1.3.2 and 2.1.4.2 (verification).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()

Node = Callable[[int, int], bytes]
"""(level, index) to the hash of a full subtree."""


class ProofInvalid(Exception):
    """A proof does not lead to the root that it should lead to."""


class Peaks:
    """A growing tree of which only the roots of its full subtrees are kept."""

    def __init__(self) -> None:
        self.size = 0
        self._peaks: list[bytes] = []

    def append(self, leaf: bytes) -> None:
        """Add a leaf by its hash."""
        found, size = leaf, self.size
        while size & 1:
            found = node_hash(self._peaks.pop(), found)
            size >>= 1
        self._peaks.append(found)
        self.size += 1

    def root(self) -> bytes:
        """The root over all leaves so far."""
        if not self._peaks:
            return EMPTY_ROOT
        found = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            found = node_hash(peak, found)
        return found


def leaf_hash(leaf: bytes) -> bytes:
    """The hash of a leaf's content."""
    return sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash over two subtrees."""
    return sha256(b"\x01" + left + right).digest()


def full_root(hashes: Sequence[bytes]) -> bytes:
    """The root over a power of two of hashes."""
    level = hashes
    while len(level) > 1:
        pairs = iter(level)
        level = [
            sha256(b"\x01" + left + right).digest()
            for left, right in zip(pairs, pairs, strict=True)
        ]
    return level[0]


def split(size: int) -> int:
    """The largest power of two that is less than `size`, which is at least 2."""
    return 1 << (size - 1).bit_length() - 1


def subtree(begin: int, end: int, node: Node) -> bytes:
    """MTH(D[begin:end]) of a subtree of the tree: RFC 6962's recursion never asks for another."""
    size = end - begin
    if size & (size - 1) == 0:
        level = size.bit_length() - 1
        return node(level, begin >> level)
    middle = begin + split(size)
    return node_hash(subtree(begin, middle, node), subtree(middle, end, node))


def root(size: int, node: Node) -> bytes:
    """The root of the tree over the first `size` leaves."""
    return subtree(0, size, node) if size else EMPTY_ROOT


def inclusion_proof(index: int, size: int, node: Node) -> list[bytes]:
    """PATH(index, D[0:size]), the leaf's sibling first. 0 <= index < size."""
    assert 0 <= index < size, f"no leaf {index} in a tree of {size}"
    path = []
    begin, end = 0, size
    while end - begin > 1:
        middle = begin + split(end - begin)
        if index < middle:
            path.append(subtree(middle, end, node))
            end = middle
        else:
            path.append(subtree(begin, middle, node))
            begin = middle
    return path[::-1]


def consistency_proof(old: int, new: int, node: Node) -> list[bytes]:
    """PROOF(old, D[0:new]). 0 < old <= new; empty when they are equal."""
    assert 0 < old <= new, f"no proof from {old} to {new}"
    path = []
    begin, end, whole = 0, new, True
    while old != end:
        middle = begin + split(end - begin)
        if old <= middle:
            path.append(subtree(middle, end, node))
            end = middle
        else:
            path.append(subtree(begin, middle, node))
            begin, whole = middle, False
    if not whole:
        path.append(subtree(begin, end, node))
    return path[::-1]


def range_proof(begin: int, end: int, size: int, node: Node) -> list[bytes]:
    """What leads from the leaves of [begin, end) to the root: that they are these, and all of them.

    The hashes of the subtrees beside the range, from left to right. 0 <= begin < end <= size.
    """
    assert 0 <= begin < end <= size, f"no range [{begin}, {end}) in a tree of {size}"
    return list(beside(range(begin, end), size, node))


def beside(offsets: Sequence[int], size: int, node: Node) -> Iterator[bytes]:
    """What leads from the leaves at some offsets to the root, each subtree told once.

    The hashes of the largest subtrees that hold none of them, from left to right. offsets: rising,
    in [0, size).
    """
    return _beside(offsets, 0, len(offsets), 0, size, node)


def _beside(
    offsets: Sequence[int], first: int, last: int, low: int, high: int, node: Node
) -> Iterator[bytes]:
    # offsets[first:last] are those that lie in [low, high).
    if last - first == high - low:
        return
    if first == last:
        yield subtree(low, high, node)
        return
    middle = low + split(high - low)
    cut = bisect_left(offsets, middle, first, last)
    yield from _beside(offsets, first, cut, low, middle, node)
    yield from _beside(offsets, cut, last, middle, high, node)


def peaks(size: int, node: Node) -> list[bytes]:
    """The roots of the full subtrees that `size` leaves are made of, the largest first."""
    found, begin = [], 0
    for level in reversed(range(size.bit_length())):
        if size >> level & 1:
            found.append(node(level, begin >> level))
            begin += 1 << level
    return found


def verify_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], expected: bytes
) -> None:
    """Raise ProofInvalid unless the leaf of this hash is at `index` of the tree of this root."""
    if not 0 <= index < size:
        raise ProofInvalid(f"a tree of {size} has no leaf {index}")
    place, last, found = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise ProofInvalid("the inclusion proof is too long")
        if place & 1 or place == last:
            found = node_hash(sibling, found)
            while place & 1 == 0 and place:
                place, last = place >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        place, last = place >> 1, last >> 1
    if last or found != expected:
        raise ProofInvalid(f"leaf {index} is not in the tree of {size} as the proof says")


def verify_consistency(
    old: int, new: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes
) -> None:
    """Raise ProofInvalid unless the tree of `new` leaves extends the one of `old`, 0 <= old."""
    if not 0 <= old <= new:
        raise ProofInvalid(f"a tree of {new} does not extend one of {old}")
    if old in (0, new):
        same = old_root == (new_root if old else EMPTY_ROOT)
        if proof or not same:
            raise ProofInvalid(f"the root at {old} is another")
        return
    hashes = list(proof)
    if old & (old - 1) == 0:
        hashes.insert(0, old_root)
    if not hashes:
        raise ProofInvalid("the consistency proof is empty")
    place, last = old - 1, new - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    found_old = found_new = hashes[0]
    for sibling in hashes[1:]:
        if last == 0:
            raise ProofInvalid("the consistency proof is too long")
        if place & 1 or place == last:
            found_old = node_hash(sibling, found_old)
            found_new = node_hash(sibling, found_new)
            while place & 1 == 0 and place:
                place, last = place >> 1, last >> 1
        else:
            found_new = node_hash(found_new, sibling)
        place, last = place >> 1, last >> 1
    if last or found_old != old_root or found_new != new_root:
        raise ProofInvalid(f"the tree of {new} does not extend the one of {old}")


def verify_range(
    leaves: Sequence[bytes], begin: int, size: int, proof: Sequence[bytes], expected: bytes
) -> None:
    """Raise ProofInvalid unless the leaves of these hashes are all that is in [begin, begin+n)."""
    end = begin + len(leaves)
    if not 0 <= begin < end <= size:
        raise ProofInvalid(f"a tree of {size} has no range [{begin}, {end})")
    beside = iter(proof)

    def hash_of(low: int, high: int) -> bytes:
        if high <= begin or end <= low:
            return next(beside)
        if high - low == 1:
            return leaves[low - begin]
        middle = low + split(high - low)
        return node_hash(hash_of(low, middle), hash_of(middle, high))

    try:
        found = hash_of(0, size)
    except StopIteration:
        raise ProofInvalid("the range proof is too short") from None
    if found != expected or next(beside, None) is not None:
        raise ProofInvalid(f"[{begin}, {end}) is not what the tree of {size} has there")
