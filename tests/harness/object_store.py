"""Object stores as processes of their own: moto's S3 always, MinIO where its binary is.

moto answers as S3 does where nothing goes wrong; it looks at no signature and at no permission.
What depends on those is tested on MinIO, whose binary is looked for where MUNIMENT_TEST_MINIO says,
or where `deploy/scripts/tools` builds it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
from botocore.config import Config  # type: ignore[import-untyped]
from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

from harness.server import CHECKOUT, POLL_S, STOPPED_WITHIN_S, ServerFailed, free_port

READY_WITHIN_S = 60.0
KEY, SECRET, REGION = "muniment-test", "muniment-test-secret", "us-east-1"


@dataclass(frozen=True)
class ObjectStoreServer:
    """A running S3. environment: what a client of it is given."""

    url: str
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes]

    def make_bucket(self, name: str) -> str:
        """Make a bucket; gives its URL."""
        self._client().create_bucket(Bucket=name)
        return f"s3://{name}"

    def answers(self) -> bool:
        """Whether a signed call is served now. MinIO calls itself healthy too early."""
        try:
            self._client().list_buckets()
        except (BotoCoreError, ClientError):
            return False
        return True

    def _client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            region_name=REGION,
            config=Config(retries={"max_attempts": 1}, s3={"addressing_style": "path"}),
        )

    def freeze(self) -> None:
        """Connections are taken and nothing is answered any more."""
        os.killpg(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Answer again. Harmless when it does."""
        os.killpg(self.process.pid, signal.SIGCONT)


def minio_binary() -> Path | None:
    """Where MinIO's binary is, if it is anywhere."""
    path = Path(
        os.environ.get("MUNIMENT_TEST_MINIO", CHECKOUT / ".cache" / "tools" / "bin" / "minio")
    )
    return path if path.exists() else None


@contextmanager
def running_moto(folder: Path) -> Iterator[ObjectStoreServer]:
    """moto's S3, which keeps everything in memory; it is stopped at the end."""
    port = free_port()
    binary = Path(sys.executable).parent / "moto_server"
    command = [str(binary), "-H", "127.0.0.1", "-p", str(port)]
    with _running(command, port, {}, folder) as server:
        yield server


@contextmanager
def running_minio(folder: Path) -> Iterator[ObjectStoreServer]:
    """MinIO on a folder; it is stopped at the end."""
    port = free_port()
    binary = minio_binary()
    if binary is None:
        raise FileNotFoundError("MinIO is not built here; run deploy/scripts/tools")
    command = [str(binary), "server", "--address", f"127.0.0.1:{port}", str(folder / "d")]
    extra = {
        "MINIO_ROOT_USER": KEY,
        "MINIO_ROOT_PASSWORD": SECRET,
        "MINIO_CI_CD": "1",
        "MINIO_BROWSER": "off",
    }
    with _running(command, port, extra, folder) as server:
        yield server


@contextmanager
def _running(
    command: Sequence[str], port: int, extra: Mapping[str, str], folder: Path
) -> Iterator[ObjectStoreServer]:
    url = f"http://127.0.0.1:{port}"
    log_path = folder / f"{Path(command[0]).name}.log"
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | extra,
            start_new_session=True,
        )
    try:
        server = ObjectStoreServer(url, client_environment(url), process)
        deadline = time.monotonic() + READY_WITHIN_S
        while not server.answers():
            if process.poll() is not None or time.monotonic() > deadline:
                raise ServerFailed("no object store", command, log_path.read_text("utf-8"))
            time.sleep(POLL_S)
        yield server
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(STOPPED_WITHIN_S)


def client_environment(url: str) -> dict[str, str]:
    """What tells a client of S3 where it is and who calls."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": REGION,
    }
