"""What a bucket's service can refuse, and what a start finds out: clear words within seconds."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from harness.object_store import (
    ObjectStoreServer,
    minio_binary,
    running_minio,
    running_moto,
)
from harness.server import free_port
from muniment_services.api.downloads import refused
from muniment_services.artifacts import objects
from muniment_services.artifacts.base import ABANDONED_S, Overtaken, StoreUnavailable
from muniment_services.artifacts.failures import NO_ACCESS, NO_ANSWER, NO_BUCKET
from muniment_services.artifacts.objects import CHECK, FILES, KEPT, ObjectArtifacts
from muniment_services.artifacts.opening import open_artifacts
from muniment_services.artifacts.place import folder_of, open_bucket
from muniment_services.config import ConfigError, Settings

WITHIN_S = 20.0
SERVERS = {"moto": running_moto} | ({"minio": running_minio} if minio_binary() else {})


@pytest.fixture(scope="module", params=SERVERS)
def s3(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ObjectStoreServer]:
    with (
        SERVERS[request.param](tmp_path_factory.mktemp("s3")) as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server


def new_bucket(s3: ObjectStoreServer) -> str:
    return s3.make_bucket(f"b-{uuid.uuid4().hex}")


async def body(content: bytes) -> AsyncIterator[bytes]:
    yield content


def failed_start(where: str) -> str:
    began = time.monotonic()
    with pytest.raises(StoreUnavailable) as failed:
        asyncio.run(open_artifacts(Settings(artifacts=where)).start())
    assert time.monotonic() - began < WITHIN_S
    return str(failed.value)


def test_a_bucket_that_is_not_there(s3: ObjectStoreServer) -> None:
    told = failed_start("s3://no-such-bucket/prefix")
    assert told.startswith("s3://no-such-bucket/prefix: the artifact store cannot be used")
    assert NO_BUCKET in told
    assert "Make the bucket" in told


def test_an_endpoint_that_nobody_listens_at(
    s3: ObjectStoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    assert NO_ANSWER in failed_start("s3://bucket")


def test_an_endpoint_that_never_answers(
    s3: ObjectStoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "CHECK_S", 2)
    where = new_bucket(s3)
    s3.freeze()
    try:
        told = failed_start(where)
    finally:
        s3.thaw()
    assert "no answer within" in told


@pytest.mark.slow  # moto takes any key, so this needs MinIO: deploy/scripts/tools
@pytest.mark.parametrize("variable", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_a_wrong_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    with running_minio(tmp_path) as minio:
        where = new_bucket(minio)
        for name, value in minio.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv(variable, "wrong-but-long-enough")
        told = failed_start(where)
    assert NO_ACCESS in told
    assert "InvalidAccessKeyId" in told or "SignatureDoesNotMatch" in told
    assert "wrong-but" not in told


def test_a_bucket_that_goes_away_is_a_503(s3: ObjectStoreServer) -> None:
    async def run() -> None:
        store = ObjectArtifacts(open_bucket("s3://gone-bucket"), "gone")
        attempts: list[Callable[[], object]] = [
            lambda: store.put("f", body(b"1")),
            lambda: store.get("f"),
            lambda: store.list("f"),
            lambda: store.delete("f"),
        ]
        for attempt in attempts:
            with pytest.raises(StoreUnavailable, match=NO_BUCKET) as failed:
                await attempt()  # type: ignore[misc]
            answer = refused(failed.value)
            assert answer.error_code == "TEMPORARILY_UNAVAILABLE"
            assert dict(answer.headers)[b"retry-after"]

    asyncio.run(run())


def test_a_start_removes_only_what_is_old(s3: ObjectStoreServer) -> None:
    where = new_bucket(s3)
    later = time.time() + ABANDONED_S + 60

    def keys() -> set[str]:
        listed = open_bucket(where).list().collect()
        return {meta["path"].partition("/")[0] for meta in listed}

    async def run() -> None:
        first = ObjectArtifacts(open_bucket(where), where)
        await first.put("f", body(b"1"))
        assert await first.keep("f") is not None
        await ObjectArtifacts(open_bucket(where), where).start()
        assert keys() == {FILES, KEPT}
        await ObjectArtifacts(open_bucket(where), where, now_s=lambda: later).start()
        assert keys() == {FILES}
        parts = ObjectArtifacts(open_bucket(where), where, transient=True, now_s=lambda: later)
        await parts.start()
        assert CHECK not in keys()
        assert keys() == set()

    asyncio.run(run())


def test_what_is_too_large_to_be_copied_passes_through(
    s3: ObjectStoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "COPY_BYTES_MAX", 10)

    async def run() -> None:
        store = ObjectArtifacts(open_bucket(new_bucket(s3)), "bucket")
        content = b"eleven bytes"
        await store.put("f", body(content))
        kept = await store.keep("f")
        await store.put("f", body(b"other"))
        await store.restore("f", kept)
        opened = await store.get("f")
        assert b"".join([chunk async for chunk in opened.chunks]) == content

    asyncio.run(run())


@pytest.mark.parametrize("where", ["s3://", "ftp://somewhere/else", "s4://bucket"])
def test_places_that_are_none(where: str) -> None:
    with pytest.raises(ConfigError, match="no place to keep files"):
        folder_of(where)


def test_a_place_that_lacks_its_account_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(ConfigError, match=r"az://container/prefix cannot be used: .*Account"):
        open_artifacts(Settings(artifacts="az://container/prefix"))


def test_an_upload_that_was_overtaken_is_to_be_repeated() -> None:
    answer = refused(Overtaken("f", "another server has removed the file"))
    assert answer.message.endswith("another server has removed the file. Upload the file again.")
