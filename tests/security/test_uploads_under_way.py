"""A right that ends while a file is still being sent: the file that was there stays."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from harness.signed_in import ADMINS, GRANTS, MLFLOW, Served, served

FILES = "/api/2.0/mlflow-artifacts/artifacts/"
EXPIRES_MS = 1500


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("data")) as running:
        running.grant("ana", "editor", "experiment", "*")
        yield running


def folder_of_run(server: Served) -> str:
    made = server.ask("ana", "POST", f"{MLFLOW}runs/create", {"experiment_id": "0"})
    run_id = made.json()["run"]["info"]["run_id"]
    return f"{FILES}0/{run_id}/artifacts/"


@pytest.mark.parametrize("end", ["revoked", "expired"])
def test_who_loses_the_right_before_the_last_byte_changes_nothing(server: Served, end: str) -> None:
    folder = folder_of_run(server)
    old, new = f"{folder}model", f"{folder}other"
    assert server.ask("ana", "PUT", old, content=b"good").status_code == 200
    told = server.ask("ana", "GET", old).headers["etag"]
    assert told == f'"{hashlib.sha256(b"good").hexdigest()}"'

    for path in (old, new):
        ends = {"expires_at_ms": int(time.time() * 1000) + EXPIRES_MS} if end == "expired" else {}
        grant = server.grant("acc", "editor", "experiment", "*", **ends)
        admin = {"authorization": f"Bearer {server.token('admin', ADMINS)}"}

        async def slow(grant: str = grant, admin: dict[str, str] = admin) -> AsyncIterator[bytes]:
            yield b"ev"
            if end == "revoked":
                gone = await server._http.request("DELETE", f"{GRANTS}/{grant}", headers=admin)
                assert gone.status_code == 200
            else:
                await asyncio.sleep(EXPIRES_MS / 1000)
            yield b"il"

        assert server.ask("acc", "PUT", path, content=slow()).status_code == 403

    found = server.ask("ana", "GET", old)
    assert (found.content, found.headers["etag"]) == (b"good", told)
    assert server.ask("ana", "GET", new).status_code == 404
