"""A server with witnesses: what it serves, and what it says of them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from harness.door import Door
from harness.proved import until
from harness.witnesses import listening, nobody, witness
from muniment_services import bootstrap
from muniment_services.config import ConfigError, Settings
from muniment_services.log.base import TopicPartition
from muniment_services.proof import cosigner, note

CATALOG = TopicPartition("catalog", 0)
CHECKPOINT = "/log/catalog/0/checkpoint"


async def log_key(data_dir: Path) -> note.VerifierKey:
    """The key of a new log."""
    async with bootstrap.services(Settings(data_dir=data_dir)) as services:
        prover = services.prover
        assert prover is not None
        await until(lambda: prover.forest.served(CATALOG) is not None, prover)
        door = Door(services, bootstrap.local_user())
        answer = await door.ask("GET", "/log/catalog/0/vkey")
        assert not answer.header("muniment-quorum")
        return note.verifier_key(answer.body.decode())


def test_cosigned_heads_are_served_where_enough_witnesses_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cosigner, "ROUND_S", 0.1)

    async def main() -> None:
        key = await log_key(tmp_path / "data")
        one = witness(tmp_path / "w1", [key], "w.example/1")
        down = witness(tmp_path / "w2", [key], "w.example/2")
        file = tmp_path / "policy"
        async with listening(one) as (url,):
            file.write_text(
                f"witness one {one.key.vkey} {url}\nwitness down {down.key.vkey} {nobody()}\n"
                "group both 1 one down\nquorum both\n"
            )
            settings = Settings(data_dir=tmp_path / "data", witness_policy=file)
            async with bootstrap.services(settings) as services:
                door = Door(services, bootstrap.local_user())
                asked = services.cosigner
                assert asked is not None
                await until(lambda: asked.cosigned(CATALOG) is not None)
                answer = await door.ask("GET", CHECKPOINT)
                assert answer.header("muniment-quorum") == "met"
                signers = note.signers_of(note.parse(answer.body), [key, one.key, down.key])
                assert signers == [key, one.key]
                health = (await door.ask("GET", "/api/v1/health")).json
                (told,) = [c for c in health["checks"] if c["name"] == "witnesses"]
                assert told["status"] == "green"
                monkeypatch.setattr(cosigner, "BEHIND_S_MAX", 0.0)
                file.unlink()
        strict = tmp_path / "strict"
        strict.write_text(f"witness one {one.key.vkey} {url}\nquorum one\n")
        settings = Settings(data_dir=tmp_path / "data", witness_policy=strict)
        async with bootstrap.services(settings) as services:
            door = Door(services, bootstrap.local_user())
            prover = services.prover
            assert prover is not None
            await until(lambda: prover.forest.served(CATALOG) is not None, prover)
            answer = await door.ask("GET", CHECKPOINT)
            assert (answer.status, answer.header("muniment-quorum")) == (200, "unmet")
            found = services.cosigner
            assert found is not None
            await until(lambda: found.problems["one"] is not None)
            health = await door.ask("GET", "/api/v1/health")
            (told,) = [c for c in health.json["checks"] if c["status"] == "red"]
            assert (health.status, told["name"]) == (503, "witnesses")
            assert "too few witnesses cosign" in told["message"]
            created = await door.ask("POST", "/api/2.0/mlflow/experiments/create", {"name": "e"})
            assert created.status == 200, "nothing waits for witnesses"

    asyncio.run(main())


def test_a_policy_that_cannot_be_read_ends_the_start(tmp_path: Path) -> None:
    file = tmp_path / "policy"
    file.write_text("quorum nobody\n")

    async def start(path: Path) -> None:
        async with bootstrap.services(Settings(data_dir=tmp_path / "d", witness_policy=path)):
            raise AssertionError("it started")

    with pytest.raises(ConfigError, match="line 1: there is no nobody"):
        asyncio.run(start(file))
    with pytest.raises(ConfigError, match="No such file"):
        asyncio.run(start(tmp_path / "none"))
