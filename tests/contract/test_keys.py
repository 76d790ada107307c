"""Where keys are kept: what every place promises, held against a folder and against S3."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.object_store import ObjectStoreServer, running_moto
from harness.provider import FakeIssuer, FakeProvider
from muniment_auth.identity import (
    KEY_BYTES,
    FolderKeys,
    IdentityForgotten,
    IdentityKeys,
    KeyPlace,
    KeysUnavailable,
    seal,
    shared_key,
    unseal,
)
from muniment_auth.principal import local_principal
from muniment_services import bootstrap
from muniment_services.api.services import BrowserLogin
from muniment_services.artifacts.place import open_bucket
from muniment_services.browser_login import open_browser_login
from muniment_services.clock import now_ms
from muniment_services.config import ConfigError, Settings
from muniment_services.keys import BucketKeys, open_keys

RACERS = 12


@pytest.fixture(scope="module", params=["folder", "s3"])
def bucket_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ObjectStoreServer | None]:
    """A running S3, or None for folders."""
    if request.param == "folder":
        yield None
        return
    with (
        running_moto(tmp_path_factory.mktemp("s3")) as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture
def where(bucket_server: ObjectStoreServer | None, tmp_path: Path) -> str:
    """A place for keys, as the setting names it."""
    if bucket_server is None:
        return str(tmp_path / "shared" / "keys")
    return bucket_server.make_bucket(f"b-{uuid.uuid4().hex}") + "/muniment/keys"


@pytest.fixture
def place(where: str, tmp_path: Path) -> KeyPlace:
    return opened(where, tmp_path)


def opened(where: str, tmp_path: Path) -> KeyPlace:
    return open_keys(Settings(data_dir=tmp_path, keys=where))


def test_what_is_put_is_there_for_whoever_opens_the_same_place(
    place: KeyPlace, where: str, tmp_path: Path
) -> None:
    assert place.get("a") is None
    assert place.put_new("a", b"\x00one\xff")
    assert place.get("a") == opened(where, tmp_path).get("a") == b"\x00one\xff"


def test_what_is_removed_is_gone_for_all(place: KeyPlace, where: str, tmp_path: Path) -> None:
    assert place.names() == []
    place.remove("none")
    for name in ("b", "a"):
        assert place.put_new(name, name.encode())
    assert opened(where, tmp_path).names() == ["a", "b"]
    place.remove("a")
    assert opened(where, tmp_path).names() == ["b"]
    assert place.get("a") is None
    assert place.get("b") == b"b"


def test_what_a_crash_left_of_making_a_key_goes_with_it(tmp_path: Path) -> None:
    place = FolderKeys(tmp_path / "keys")
    assert place.put_new("a", b"key")
    (tmp_path / "keys" / ".a.0123").write_bytes(b"key")
    place.remove("a")
    assert list((tmp_path / "keys").iterdir()) == []


def test_a_key_is_never_overwritten(place: KeyPlace) -> None:
    assert place.put_new("a", b"one")
    assert not place.put_new("a", b"two")
    assert place.get("a") == b"one"


def test_of_racing_writers_one_wins_and_everybody_reads_its_key(where: str, tmp_path: Path) -> None:
    start = threading.Barrier(RACERS)

    def race(_: int) -> bytes:
        mine = opened(where, tmp_path)
        start.wait()
        return shared_key(mine, "login-cookies", os.urandom)

    with ThreadPoolExecutor(RACERS) as threads:
        keys = set(threads.map(race, range(RACERS)))
    assert len(keys) == 1
    assert keys == {opened(where, tmp_path).get("login-cookies")}


def test_keys_of_principals_are_found_by_their_ids_until_they_are_destroyed(
    place: KeyPlace,
) -> None:
    keys = IdentityKeys(place)
    (one, key), (other, _) = keys.create(), keys.create()
    assert one != other
    assert keys.get(one) == key
    assert len(key) == KEY_BYTES
    with pytest.raises(IdentityForgotten):
        keys.get("0" * 32)
    anna = local_principal("anna")
    sealed = seal(anna, key, os.urandom)
    assert b"anna" not in sealed
    assert unseal(anna.id, sealed, keys.get(one))["name"] == "anna"
    with pytest.raises(ValueError):
        unseal(anna.id, sealed, keys.get(other))


def test_an_id_that_is_taken_is_not_used_again(place: KeyPlace) -> None:
    chance = iter([b"\x01" * 16, b"a" * 32, b"\x01" * 16, b"b" * 32, b"\x02" * 16, b"c" * 32])
    keys = IdentityKeys(place)
    random = lambda _: next(chance)  # noqa: E731
    assert keys.create(random) == ("01" * 16, b"a" * 32)
    assert keys.create(random) == ("02" * 16, b"c" * 32)
    assert keys.get("01" * 16) == b"a" * 32


def test_a_shared_key_of_another_length_is_no_key(place: KeyPlace) -> None:
    place.put_new("login-cookies", b"short")
    with pytest.raises(KeysUnavailable, match="5 bytes"):
        shared_key(place, "login-cookies")


def test_two_replicas_know_each_others_principals(where: str, tmp_path: Path) -> None:
    # The second one has nothing but the log and the place of the keys.
    async def named(folder: Path) -> str:
        async with bootstrap.services(Settings(data_dir=folder, keys=where)) as services:
            await services.identities.register_once(local_principal("somebody"))
            found = await services.identities.identity(local_principal("somebody").id)
            assert found is not None
            return found.name

    folder = tmp_path / "data"
    assert asyncio.run(named(folder)) == "somebody"
    assert not (folder / "keys").exists()
    (folder / "projections.duckdb").unlink(missing_ok=True)
    assert asyncio.run(named(folder)) == "somebody"


@pytest.mark.parametrize("bucket_server", ["s3"], indirect=True)
@pytest.mark.usefixtures("bucket_server")
def test_a_bucket_that_is_not_there_is_told() -> None:
    keys = BucketKeys(open_bucket("s3://no-such-bucket/keys"), "s3://no-such-bucket/keys")
    with pytest.raises(KeysUnavailable, match="s3://no-such-bucket/keys"):
        keys.put_new("a", b"one")
    with pytest.raises(KeysUnavailable):
        keys.get("a")


def test_a_folder_of_keys_is_for_its_user_only_and_holds_nothing_unfinished(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "keys"
    place = FolderKeys(folder)
    place.put_new("a", b"one")
    place.put_new("a", b"two")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "a").stat().st_mode) == 0o600
    assert [file.name for file in folder.iterdir()] == ["a"]


def test_a_folder_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    place = FolderKeys(tmp_path / "file")
    with pytest.raises(KeysUnavailable, match="file"):
        place.put_new("a", b"one")
    with pytest.raises(KeysUnavailable):
        place.get("a")


def test_keys_of_an_older_release_are_read(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / ("a" * 32)).write_bytes(b"k" * KEY_BYTES)
    keys = IdentityKeys(open_keys(Settings(data_dir=tmp_path)))
    assert keys.get("a" * 32) == b"k" * KEY_BYTES


@pytest.mark.parametrize("where", ["ftp://x/y", "s3://", "http://x"])
def test_what_is_no_place(tmp_path: Path, where: str) -> None:
    with pytest.raises(ConfigError):
        open_keys(Settings(data_dir=tmp_path, keys=where))


def test_a_login_that_one_replica_began_is_opened_by_another(where: str, tmp_path: Path) -> None:
    async def replica() -> BrowserLogin | None:
        provider = FakeProvider({"corp": FakeIssuer("corp", "https://id.example")})
        without = FakeIssuer("ci", "https://ci.example", client_id=None)
        return await open_browser_login(
            provider,
            [*provider.issuers.values(), without],
            "https://muniment.example/",
            opened(where, tmp_path),
            now_ms,
            os.urandom,
        )

    async def both() -> None:
        one, other = await asyncio.gather(replica(), replica())
        assert one is not None
        assert other is not None
        assert list(one.flow.issuers) == ["corp"]
        url, login = await one.flow.begin("corp", "/x")
        assert "redirect_uri=https%3A%2F%2Fmuniment.example%2Flogin%2Fcallback&" in url
        cookie = one.cookies.set(login).partition(";")[0]
        assert other.cookies.get(cookie, now_ms()) == login

    asyncio.run(both())


def test_without_a_client_id_nobody_logs_in_by_browser(tmp_path: Path) -> None:
    issuer = FakeIssuer("ci", "https://ci.example", client_id=None)
    opening = open_browser_login(
        FakeProvider({"ci": issuer}),
        [issuer],
        "https://muniment.example",
        FolderKeys(tmp_path / "keys"),
        now_ms,
        os.urandom,
    )
    assert asyncio.run(opening) is None
    assert not (tmp_path / "keys").exists()
