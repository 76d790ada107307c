"""Go programs that know nothing of us verify our trees: Tessera's fsck, Go's note and tlog."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.server import Server, running_muniment

pytestmark = pytest.mark.slow

TOOLS = Path(__file__).resolve().parents[2] / ".cache" / "tools" / "bin"
EXPERIMENTS = 600
WITHIN_S = 20.0
RUN_S_MAX = 120.0


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url) as answer:
        return bytes(answer.read())


def create(server: Server, name: str) -> None:
    request = urllib.request.Request(
        f"{server.url}/api/2.0/mlflow/experiments/create",
        json.dumps({"name": name}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200


def size(server: Server) -> int:
    listed = json.loads(fetch(f"{server.url}/log/"))["logs"]
    return next(int(log["size"]) for log in listed if log["topic"] == "catalog")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose catalog has whole tiles, partial ones and two levels."""
    with running_muniment(tmp_path_factory.mktemp("proved") / "data") as found:
        for number in range(EXPERIMENTS):
            create(found, f"e{number}")
        deadline = time.monotonic() + WITHIN_S
        while size(found) < EXPERIMENTS and time.monotonic() < deadline:
            time.sleep(0.1)
        yield found


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = TOOLS / program
    assert path.exists(), f"{program} is not there; run deploy/scripts/tools {program}"
    return subprocess.run(
        [str(path), *arguments], capture_output=True, text=True, timeout=RUN_S_MAX, check=False
    )


@pytest.mark.parametrize("tree", ["catalog/0", "checkpoints/0"])
def test_fsck_of_tessera_accepts_our_tiles(server: Server, tmp_path: Path, tree: str) -> None:
    key = tmp_path / "vkey"
    key.write_bytes(fetch(f"{server.url}/log/{tree}/vkey"))
    address = ("-storage_url", f"{server.url}/log/{tree}/", "-public_key", str(key))
    done = run("fsck", "-ui=false", "-logtostderr", *address)
    assert "Successfully fsck'd log" in done.stderr, done.stderr
    assert "fsck failed" not in done.stderr


def test_fsck_refuses_a_tree_under_another_key(server: Server, tmp_path: Path) -> None:
    key = tmp_path / "vkey"
    key.write_bytes(fetch(f"{server.url}/log/checkpoints/0/vkey"))
    address = ("-storage_url", f"{server.url}/log/catalog/0/", "-public_key", str(key))
    assert "fsck failed" in run("fsck", "-ui=false", "-logtostderr", *address).stderr


def test_go_verifies_heads_tiles_and_proofs(server: Server) -> None:
    earlier, before = ("1", "255", "256", "257", "512", "600"), size(server)
    done = run("proof-check", server.url, "catalog", "0", *earlier)
    assert done.returncode == 0, done.stderr
    assert before <= int(done.stdout) <= size(server)


def test_addresses_and_headers_are_as_specified(server: Server) -> None:
    base = f"{server.url}/log/catalog/0"
    with urllib.request.urlopen(f"{base}/checkpoint") as answer:
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert answer.headers["Cache-Control"] == "no-cache"
    with urllib.request.urlopen(f"{base}/tile/0/000") as answer:
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert "immutable" in answer.headers["Cache-Control"]
        assert len(answer.read()) == 8_192
    for absent in ("tile/0/003", "tile/0/002.p/255", "tile/1/000", "tile/2/000.p/1", "tile/x"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            fetch(f"{base}/{absent}")
