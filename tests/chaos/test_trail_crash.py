"""A server killed under reads and writes: what was answered is in the log, each call once."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from harness.server import running_muniment
from muniment_schemas.codec import Codec
from muniment_schemas.ids import Offset
from muniment_schemas.subjects import Schemas
from muniment_services.fold import FOLDED_TOPICS
from muniment_services.log.base import TopicPartition
from muniment_services.log.embedded import EmbeddedLog

KILLS = 4
CALLERS = 4
LOAD_S = 1.5
API = "/api/2.0/mlflow/"


@dataclass
class Caller(threading.Thread):
    """Reads, searches, writes and is refused, and notes the request ids of what was answered."""

    url: str
    stopping: threading.Event
    answered: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        """Call until told to stop."""
        place = 0
        while not self.stopping.is_set():
            try:
                connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=20)
                while not self.stopping.is_set():
                    place += 1
                    self._call(connection, place)
            except (OSError, http.client.HTTPException):
                time.sleep(0.01)

    def _call(self, connection: http.client.HTTPConnection, place: int) -> None:
        method, path, body = (
            ("GET", "experiments/get?experiment_id=0", None),
            ("GET", "experiments/get?experiment_id=99", None),
            ("POST", "runs/create", {"experiment_id": "0"}),
            ("POST", "experiments/search", {"max_results": 5}),
        )[place % 4]
        content = None if body is None else json.dumps(body)
        connection.request(method, API + path, content, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        request_id = answer.headers["x-request-id"]
        answer.read()
        if answer.status != 503:
            self.answered.append(request_id)


def recorded(data_dir: Path) -> Counter[str]:
    """How many events each request has left, over all topics."""
    found: Counter[str] = Counter()
    codec = Codec(Schemas.load())

    async def read() -> None:
        log = EmbeddedLog(data_dir / "log.sqlite", read_only=True)
        await log.start()
        for at, end in (await log.end_offsets()).items():
            if at.topic in FOLDED_TOPICS:
                found.update(request_ids(log, codec, at, end))
        await log.close()

    asyncio.run(read())
    return found


def request_ids(log: EmbeddedLog, codec: Codec, at: TopicPartition, end: Offset) -> list[str]:
    """The request of every event of a topic-partition."""
    ids: list[str] = []
    while len(ids) < end:
        ids += [
            codec.decode(record.value).envelope.request_id
            for record in log.read(at, Offset(len(ids)))
        ]
    return ids


@pytest.mark.slow
def test_every_call_that_was_answered_is_in_the_log_once(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with running_muniment(data_dir) as server:
        stopping = threading.Event()
        callers = [Caller(server.url, stopping) for _ in range(CALLERS)]
        for caller in callers:
            caller.start()
        for _ in range(KILLS):
            time.sleep(LOAD_S)
            server.kill()
            server.start()
        stopping.set()
        for caller in callers:
            caller.join(30)
    answered = [request_id for caller in callers for request_id in caller.answered]
    assert len(answered) > KILLS * CALLERS
    found = recorded(data_dir)
    assert [one for one in answered if found[one] != 1] == []
