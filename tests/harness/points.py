"""Writers whose every write is made once and can be found again, for counting what a fault loses.

Each point that is logged is unique (run, key, step), and a refused or broken call is not repeated.
So the acknowledged points must be in the log and in the answers, once; the others at most once; and
there is nothing else.
"""

from __future__ import annotations

import http.client
import itertools
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from harness.ledger import Entry, Point, logged_points

WRITERS = 6
CALL_S = 30.0
"""Longer than a server may take to say that it cannot: who hangs is found out."""
WRITES_PER_RUN = 150
BATCH_POINTS = 10
PAUSE_S = 0.01
JOINED_WITHIN_S = CALL_S + 5.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """A write that was not acknowledged. status: 0 when the connection broke."""

    at_s: float
    took_s: float
    status: int
    retry_after: str | None
    said: str


@dataclass
class Writer(threading.Thread):
    """Creates runs and logs to them, on any of the servers, and notes what was acknowledged."""

    urls: Sequence[str]
    key: str
    stopping: threading.Event
    pause_s: float = 0.0
    acknowledged: dict[Point, float] = field(default_factory=dict)
    attempted: set[Point] = field(default_factory=set)
    runs: list[str] = field(default_factory=list)
    answered_s: list[float] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    failure: str | None = None

    def __post_init__(self) -> None:
        super().__init__(daemon=True, name=self.key)
        self._chance = random.Random(self.key)
        self._connections: dict[str, http.client.HTTPConnection] = {}

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        """Write until told to stop."""
        try:
            run_id, left = None, 0
            for step in itertools.count(1):
                if self.stopping.is_set():
                    return
                if run_id is None or left == 0:
                    run_id, left = self._create(), WRITES_PER_RUN
                if run_id is not None:
                    self._log(run_id, step)
                    left -= 1
                time.sleep(self.pause_s)
        except Exception as error:  # noqa: BLE001
            # The edge of this thread: kept for the test, which fails by it.
            self.failure = f"{self.key} ended: {error!r}"

    def _create(self) -> str | None:
        answer = self._post("runs/create", {"experiment_id": "0", "start_time": 1})
        if answer is None:
            return None
        run_id = str(answer["run"]["info"]["run_id"])
        self.runs.append(run_id)
        return run_id

    def _log(self, run_id: str, step: int) -> None:
        if step % 5:
            written = {(run_id, self.key, step)}
            path, body = "runs/log-metric", {"run_id": run_id, **_metric(self.key, step)}
        else:
            written = {(run_id, f"{self.key}-batch-{i}", step) for i in range(BATCH_POINTS)}
            metrics = [_metric(key, step) for _, key, step in written]
            path, body = "runs/log-batch", {"run_id": run_id, "metrics": metrics}
        self.attempted |= written
        if self._post(path, body) is not None:
            self.acknowledged.update(dict.fromkeys(written, time.monotonic()))

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        began = time.monotonic()
        status, retry_after, answer = self._answer(path, json.dumps(body))
        now = time.monotonic()
        if status == 200:
            self.answered_s.append(now)
            parsed: dict[str, Any] = json.loads(answer)
            return parsed
        said = answer.decode(errors="replace")[:300]
        self.refusals.append(Refusal(began, now - began, status, retry_after, said))
        time.sleep(PAUSE_S)
        return None

    def _answer(self, path: str, body: str) -> tuple[int, str | None, bytes]:
        url = self._chance.choice(self.urls)
        connection = self._connections.get(url)
        if connection is None:
            connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=CALL_S)
            self._connections[url] = connection
        try:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", f"/api/2.0/mlflow/{path}", body, headers)
            response = connection.getresponse()
            return response.status, response.headers.get("Retry-After"), response.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            del self._connections[url]
            return 0, None, repr(error).encode()


def _metric(key: str, step: int) -> dict[str, Any]:
    return {"key": key, "value": step / 4, "timestamp": 7, "step": step}


class Load:
    """Writers at work, and what they know."""

    def __init__(self, writers: Sequence[Writer]) -> None:
        self.writers = list(writers)

    def start(self) -> None:
        """Begin."""
        for writer in self.writers:
            writer.start()

    def stop(self) -> None:
        """End all writers; each finishes the write that it is at."""
        for writer in self.writers:
            writer.stopping.set()
        for writer in self.writers:
            writer.join(JOINED_WITHIN_S)
            assert not writer.is_alive(), f"{writer.name} hangs in a write"
            assert writer.failure is None, writer.failure

    def joined(self, other: Load) -> Load:
        """What both know."""
        return Load([*self.writers, *other.writers])

    @property
    def acknowledged(self) -> set[Point]:
        """Points whose write was answered 200."""
        return self.acknowledged_since(0.0)

    def acknowledged_since(self, at_s: float) -> set[Point]:
        """Points whose write was answered 200 after a time of the monotonic clock."""
        answered = [item for writer in self.writers for item in list(writer.acknowledged.items())]
        return {point for point, answered_s in answered if answered_s > at_s}

    @property
    def attempted(self) -> set[Point]:
        """Points of all writes."""
        return set().union(*(writer.attempted.copy() for writer in self.writers))

    @property
    def runs(self) -> list[str]:
        """Runs whose creation was acknowledged."""
        return [run_id for writer in self.writers for run_id in list(writer.runs)]

    @property
    def answered_s(self) -> list[float]:
        """When writes were acknowledged, sorted."""
        return sorted(at for writer in self.writers for at in list(writer.answered_s))

    @property
    def refusals(self) -> list[Refusal]:
        """Every write that was not acknowledged."""
        return [refusal for writer in self.writers for refusal in list(writer.refusals)]

    def longest_stall_s(self) -> float:
        """The longest time between two acknowledgements."""
        return max((b - a for a, b in itertools.pairwise(self.answered_s)), default=0.0)

    def await_acknowledged(self, more: int, within_s: float) -> float:
        """Wait for so many further acknowledged writes; gives the seconds until the first one."""
        began = time.monotonic()
        while True:
            new = [at for at in self.answered_s if at > began]
            if len(new) >= more:
                return new[0] - began
            if time.monotonic() - began > within_s:
                last = [f"{r.status} {r.said}" for r in self.refusals[-3:]]
                raise TimeoutError(f"{len(new)} of {more} writes in {within_s:g} s; last: {last}")
            time.sleep(0.02)


@contextmanager
def writing(
    urls: Sequence[str], writers: int = WRITERS, pause_s: float = 0.0, name: str = "w"
) -> Iterator[Load]:
    """Writers at work until the end of the block."""
    stopping = threading.Event()
    load = Load([Writer(urls, f"{name}{n}", stopping, pause_s) for n in range(writers)])
    load.start()
    try:
        yield load
    finally:
        load.stop()


def check_counted(load: Load, entries: Iterable[Entry], url: str) -> dict[str, int]:
    """Every acknowledged write is in the log once, others at most once, and the API says the same.

    Gives the counts. Raises AssertionError.
    """
    seen, created = logged_points(entries)
    acknowledged, attempted = load.acknowledged, load.attempted
    assert acknowledged, "the writers got nothing through"
    missing = acknowledged - seen.keys()
    assert not missing, (
        f"{len(missing)} acknowledged points are not in the log: {sorted(missing)[:3]}"
    )
    assert not seen.keys() - attempted, "the log has points that nobody wrote"
    doubled = [point for point, times in seen.items() if times > 1]
    assert not doubled, f"{len(doubled)} points stand in the log twice: {doubled[:3]}"
    assert {created[run_id] for run_id in load.runs} == {1}
    shown = _answered(load, url)
    assert shown.keys() == seen.keys(), (
        f"{len(seen.keys() - shown.keys())} points of the log are not answered, "
        f"{len(shown.keys() - seen.keys())} answered points are not in the log"
    )
    assert max(shown.values()) == 1, "a point is answered twice"
    return {
        "acknowledged": len(acknowledged),
        "attempted": len(attempted),
        "logged": len(seen),
        "refused": len(load.refusals),
    }


def _answered(load: Load, url: str) -> Counter[Point]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    found: Counter[Point] = Counter()
    keys: dict[str, set[str]] = {}
    for run_id, key, _ in load.attempted:
        keys.setdefault(run_id, set()).add(key)
    for run_id, theirs in keys.items():
        for key in theirs:
            path = f"/api/2.0/mlflow/metrics/get-history?run_id={run_id}&metric_key={key}"
            connection.request("GET", path)
            response = connection.getresponse()
            answer = json.loads(response.read())
            assert response.status == 200, f"{path}: {response.status} {answer}"
            found.update((run_id, key, point["step"]) for point in answer.get("metrics", ()))
    connection.close()
    return found
