"""A witness answers as C2SP tlog-witness says, and never cosigns two histories of one log."""

from __future__ import annotations

import asyncio
import json
from hashlib import sha256
from pathlib import Path

import httpx
import pytest

from harness.witnesses import NOW_S, witness
from muniment_auth.identity import KeysUnavailable
from muniment_services.cli.terminal import CliError
from muniment_services.cli.witness import application, open_witness
from muniment_services.proof import merkle, note, verifier
from muniment_services.proof.checkpoint import Checkpoint
from muniment_services.proof.note import Kind, Note, VerifierKey
from muniment_services.proof.signing import SoftKey
from muniment_services.proof.tree import Tree
from muniment_services.proof.witness import (
    PROOF_LINES_MAX,
    SUBMISSION_BYTES_MAX,
    Submission,
    SubmissionInvalid,
    Witness,
    parse_submission,
)

ORIGIN = "log.test/catalog/0"
LOG = SoftKey(Kind.ED25519, b"l" * 32)
KEY = VerifierKey(ORIGIN, Kind.ED25519, LOG.public_key)
EXAMPLE = """\
old 20852014
PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=
jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=
5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=
/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=

example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
— example.com/behind-the-sofa opLqBQsREYCgu6xQkYQwJr9fo45a62DN9EdmHXnZdXNqlcVGlCum2Wks+49/V6267UEjw6QUXTS5Rovnzv++qbSzm9Q=
""".encode()  # noqa: E501
"""The specification's example of a request."""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    found = Tree(tmp_path_factory.mktemp("tree"))
    found.append([merkle.leaf_hash(b"%d" % number) for number in range(20)])
    return found


@pytest.fixture
def found(tmp_path: Path) -> Witness:
    return witness(tmp_path, [KEY])


def head(size: int, root: bytes, origin: str = ORIGIN, key: SoftKey = LOG) -> bytes:
    text = Checkpoint(origin, size, root).text
    signer = VerifierKey(origin, Kind.ED25519, key.public_key)
    return Note(text, (signer.sign(key, text, 0),)).encode()


def asked(tree: Tree, old: int, new: int, origin: str = ORIGIN) -> bytes:
    proof = merkle.consistency_proof(old, new, tree.node) if old else ()
    return Submission(old, proof, head(new, tree.root(new), origin)).encode()


def test_the_example_of_the_specification_is_read_and_written_byte_for_byte() -> None:
    read = parse_submission(EXAMPLE)
    assert (read.old, len(read.proof)) == (20852014, 4)
    assert note.parse(read.raw).text.startswith("example.com/behind-the-sofa\n20852163\n")
    assert read.encode() == EXAMPLE


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"old 1\n",
        EXAMPLE.replace(b"old 2", b"old 02"),
        EXAMPLE.replace(b"old ", b"new "),
        EXAMPLE.replace(b"old 20852014", b"old -1"),
        EXAMPLE.replace(b"PlRN", b"Pl N"),
        EXAMPLE.replace(b"aw=\n", b"aw==\n"),
        EXAMPLE.replace(b"PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=", b"PlRN"),
        EXAMPLE.replace(b"kaw=\n", b"kaw=\n" + b"A" * 43 + b"=\n" * (PROOF_LINES_MAX + 1)),
    ],
)
def test_what_is_no_request_is_not_read(body: bytes, found: Witness) -> None:
    with pytest.raises(SubmissionInvalid):
        parse_submission(body)
    assert found.add(body).status == 400


def test_a_log_is_cosigned_as_it_grows(found: Witness, tree: Tree, tmp_path: Path) -> None:
    for old, new in ((0, 3), (3, 3), (3, 4), (4, 17), (17, 20)):
        reply = found.add(asked(tree, old, new))
        assert reply.status == 200, reply.body
        raw = head(new, tree.root(new)) + reply.body
        assert note.signers_of(note.parse(raw), [found.key]) == [found.key]
        (line,) = note.signature_lines(reply.body.decode())
        assert int.from_bytes(line.signature[:8], "big") == NOW_S
        key, name = verifier.key_of(found.key.vkey)
        assert verifier.opened(raw.decode(), name, [key])[1] == {key}
    kept = found.checkpoint(sha256(ORIGIN.encode()).hexdigest())
    assert (kept.status, kept.body) == (200, raw)
    assert found.checkpoint("0" * 64).status == 404
    again = witness(tmp_path, [KEY])
    assert again.add(asked(tree, 17, 20)).status == 409
    assert again.add(asked(tree, 20, 20)).status == 200


def test_a_size_that_is_not_the_last_is_told(found: Witness, tree: Tree) -> None:
    reply = found.add(asked(tree, 2, 5))
    assert (reply.status, reply.body, reply.content_type) == (409, b"0\n", "text/x.tlog.size")
    assert found.add(asked(tree, 0, 5)).status == 200
    reply = found.add(asked(tree, 0, 5))
    assert (reply.status, reply.body, reply.content_type) == (409, b"5\n", "text/x.tlog.size")
    assert found.add(asked(tree, 4, 4)).status == 409


def test_another_history_is_not_cosigned(found: Witness, tree: Tree) -> None:
    assert found.add(asked(tree, 0, 5)).status == 200
    proof = merkle.consistency_proof(5, 9, tree.node)
    forks = [
        Submission(5, (), head(5, bytes(32))),
        Submission(5, proof, head(9, bytes(32))),
        Submission(5, proof[:-1], head(9, tree.root(9))),
        Submission(5, (), head(9, tree.root(9))),
        Submission(5, (*proof, bytes(32)), head(9, tree.root(9))),
        Submission(5, (bytes(32),), head(5, tree.root(5))),
    ]
    for fork in forks:
        assert found.add(fork.encode()).status == 422
    assert found.add(asked(tree, 5, 9)).status == 200, "what was refused has changed nothing"


def test_the_empty_tree(found: Witness, tree: Tree) -> None:
    assert found.add(Submission(0, (), head(0, bytes(32))).encode()).status == 422
    assert found.add(Submission(0, (), head(0, merkle.EMPTY_ROOT)).encode()).status == 200
    early = Submission(0, (bytes(32),), head(3, tree.root(3)))
    assert found.add(early.encode()).status == 422
    assert found.add(asked(tree, 0, 3)).status == 200


def test_only_known_logs_and_their_own_signatures_count(found: Witness, tree: Tree) -> None:
    assert found.add(asked(tree, 0, 3, "log.other/catalog/0")).status == 404
    for origin in ("log.test", "log.test/pack", "log.test/x/catalog/0", "log.test/catalog/x"):
        assert found.add(asked(tree, 0, 3, origin)).status == 404
    other = SoftKey(Kind.ED25519, b"o" * 32)
    theirs = head(3, tree.root(3), key=other)
    assert found.add(Submission(0, (), theirs).encode()).status == 403
    ours = head(3, tree.root(3))
    altered = ours.replace(b"\n3\n", b"\n4\n")
    assert found.add(Submission(0, (), altered).encode()).status == 403
    assert found.add(Submission(4, (), ours).encode()).status == 400
    both = ours + theirs.rpartition(b"\n\n")[2]
    reply = found.add(Submission(0, (), both).encode())
    assert reply.status == 200
    kept = found.checkpoint(sha256(ORIGIN.encode()).hexdigest()).body
    assert kept == ours + reply.body, "a signature that was not verified is not passed on"


def test_the_key_of_one_tree_stands_for_all_trees_of_its_log(found: Witness, tree: Tree) -> None:
    assert found.add(asked(tree, 0, 3, "log.test/runs/4")).status == 200
    assert found.add(asked(tree, 0, 4)).status == 200
    assert found.add(asked(tree, 3, 4, "log.test/runs/4")).status == 200


def test_over_http(found: Witness, tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    origin = sha256(ORIGIN.encode()).hexdigest()

    async def main() -> None:
        transport = httpx.ASGITransport(application(found))
        async with httpx.AsyncClient(transport=transport, base_url="http://w") as client:
            assert (await client.get(f"/{origin}/checkpoint")).status_code == 404
            answer = await client.post("/add-checkpoint", content=asked(tree, 0, 3))
            assert (answer.status_code, answer.text[:2]) == (200, "— ")
            answer = await client.post("/add-checkpoint", content=asked(tree, 0, 3))
            assert (answer.status_code, answer.text) == (409, "3\n")
            assert answer.headers["content-type"] == "text/x.tlog.size"
            kept = await client.get(f"/{origin}/checkpoint")
            assert note.signers_of(note.parse(kept.content), [found.key]) == [found.key]
            large = await client.post("/add-checkpoint", content=b"x" * (SUBMISSION_BYTES_MAX + 1))
            assert large.status_code == 413
            for method, path in (("GET", "/add-checkpoint"), ("POST", "/"), ("GET", "/x")):
                assert (await client.request(method, path)).status_code == 404

            def full(_: bytes) -> None:
                raise OSError(28, "No space left on device")

            monkeypatch.setattr(found, "add", full)
            answer = await client.post("/add-checkpoint", content=asked(tree, 3, 4))
            assert (answer.status_code, "cannot be kept" in answer.text) == (503, True)

    asyncio.run(main())


def test_a_folder_keeps_the_key_and_the_heads_of_its_witness(tmp_path: Path, tree: Tree) -> None:
    first = open_witness("w.example/1", [KEY.vkey], tmp_path)
    assert first.add(asked(tree, 0, 3)).status == 200
    again = open_witness("w.example/1", [KEY.vkey], tmp_path)
    assert again.key == first.key
    assert again.add(asked(tree, 0, 3)).body == b"3\n"
    (tmp_path / "witness.json").write_text('{"half')
    with pytest.raises(CliError, match="would cosign another history"):
        open_witness("w.example/1", [KEY.vkey], tmp_path)
    for name, vkey, says in (
        ("two words", KEY.vkey, "without spaces"),
        ("w+1", KEY.vkey, "without spaces"),
        ("w.example/1", "log", "--log-key"),
        ("w.example/1", first.key.vkey, "of a witness, not of a log"),
    ):
        with pytest.raises(CliError, match=says):
            open_witness(name, [vkey], tmp_path)
    (tmp_path / "witness-key").chmod(0o644)
    with pytest.raises(KeysUnavailable, match="chmod 600"):
        open_witness("w.example/1", [KEY.vkey], tmp_path)


def test_nothing_is_cosigned_that_cannot_be_kept(
    found: Witness, tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert found.add(asked(tree, 0, 3)).status == 200

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.replace", full)
        with pytest.raises(OSError, match="No space"):
            found.add(asked(tree, 3, 7))
    assert json.loads((tmp_path / "witness.json").read_text())[ORIGIN]["size"] == 3
    assert found.add(asked(tree, 3, 5)).status == 200
