"""Clients that race on the same few objects over several servers, and the history they leave.

Each request goes to a server by chance, over plain HTTP, once; what comes of it is known (200, or a
refusal of MLflow's), known not to have been tried (nobody listened, 429), or unknown (timed out,
reset, 502 to 504). Some writes carry an Idempotency-Key: they are repeated, on any server, until
the outcome is known, and count as one operation from the first try to the last answer.

Every write carries a traceparent of its own, which the log keeps with its event.
"""

from __future__ import annotations

import http.client
import itertools
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

from harness.histories import Call, Model, Operation
from harness.subjects import (
    ExperimentSubject,
    Json,
    RegistrySubject,
    Request,
    RunSubject,
    Subject,
)

API = "/api/2.0/mlflow/"
CLIENTS = 8
CALL_S = 12.0
"""Seconds that a client waits for an answer. Servers give up earlier and say so."""
HASTY_SHARE = 0.02
"""Requests whose client goes away before it can have an answer, or just when it comes."""
HASTY_S_MAX = 0.03
KEYED_SHARE = 0.3
REPEAT_S_MAX = 60.0
PAUSE_S = 0.02
UNKNOWN = frozenset({502, 503, 504})
NOT_TRIED = 429
ASKED_EACH: Mapping[type, int] = {RegistrySubject: 260, ExperimentSubject: 120, RunSubject: 280}
"""Requests on one subject before another takes its place: what bounds the cost of a check."""
LIVE: Mapping[type, int] = {RegistrySubject: 3, ExperimentSubject: 1, RunSubject: 2}
"""Subjects of each kind that are raced on at a time."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A write that was tried at least once. acknowledged: whether it was answered with 200."""

    traceparent: str
    call: Call
    acknowledged: bool


class Unreachable(Exception):
    """Nobody listens: the request was not sent."""


class Link:
    """One client's connections to all servers."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = list(urls)
        self._connections: dict[str, http.client.HTTPConnection] = {}

    def ask(
        self, url: str, request: Request, headers: Mapping[str, str], timeout_s: float = CALL_S
    ) -> tuple[int, Json, http.client.HTTPMessage]:
        """Status, JSON and headers. Raises Unreachable, OSError or HTTPException."""
        connection = self._connections.get(url)
        if connection is None or connection.sock is None:
            connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=CALL_S)
            try:
                connection.connect()
            except ConnectionRefusedError:
                raise Unreachable(url) from None
            self._connections[url] = connection
        assert connection.sock is not None, "it is connected"
        connection.sock.settimeout(timeout_s)
        path, body = API + request.path, None
        if request.method == "GET":
            path += "?" + urlencode(request.fields)
        else:
            body = json.dumps(request.fields)
        try:
            connection.request(
                request.method, path, body, {"Content-Type": "application/json", **headers}
            )
            response = connection.getresponse()
            content = response.read()
        except BaseException:
            connection.close()
            del self._connections[url]
            raise
        return response.status, json.loads(content), response.headers

    def close(self) -> None:
        """Close all connections."""
        for connection in self._connections.values():
            connection.close()


class Arena:
    """The subjects that are raced on now, and all there were. Any thread may ask."""

    def __init__(self, seed: int) -> None:
        self._lock = threading.Lock()
        self._chance = random.Random(seed)
        self._prefix = f"race-{seed:08x}"
        self._numbers = itertools.count()
        self._live: dict[tuple[type, int], Subject] = {}
        self._making: set[tuple[type, int]] = set()
        self.subjects: list[Subject] = []

    def pick(self, runs: RunMaker) -> Subject:
        """A subject that has not had its share; a new one takes the place of one that has."""
        while True:
            with self._lock:
                kind = self._chance.choices(tuple(LIVE), (11, 3, 6))[0]
                place = kind, self._chance.randrange(LIVE[kind])
                live = self._live.get(place)
                if live is not None and live.asked < ASKED_EACH[kind]:
                    return live
                if place in self._making:
                    continue  # another client is at it, and may have to wait for a server
                self._making.add(place)
                name = f"{self._prefix}-{next(self._numbers)}"
            subject = RunSubject(runs.make(name)) if kind is RunSubject else kind(name)
            with self._lock:
                self._making.remove(place)
                self._live[place] = subject
                self.subjects.append(subject)
            return subject

    def models(self) -> dict[str, Model]:
        """The sequential model of every object."""
        return {
            name: model for subject in self.subjects for name, model in subject.models().items()
        }


class RunMaker:
    """Creates runs to race on, by a key, so that a repeat makes no second one."""

    def __init__(self, link: Link, urls: Sequence[str]) -> None:
        self._link = link
        self._urls = urls

    def make(self, name: str) -> str:
        """The id of a new run. Raises TimeoutError when no server makes one."""
        fields = {"experiment_id": "0", "run_name": name, "start_time": 1}
        request = Request("POST", "runs/create", fields, None, lambda *_: ())
        deadline = time.monotonic() + REPEAT_S_MAX
        for url in itertools.cycle(self._urls):
            try:
                status, answer, _ = self._link.ask(url, request, {"Idempotency-Key": name})
                if status == 200:
                    return str(answer["run"]["info"]["run_id"])
            except (Unreachable, OSError, http.client.HTTPException):
                pass  # the next server, until the deadline
            if time.monotonic() > deadline:
                raise TimeoutError(f"no server has made the run {name}")
            time.sleep(PAUSE_S)
        raise AssertionError("a cycle does not end")


@dataclass
class Racer(threading.Thread):
    """One client. What went wrong beyond the expected is in `failures`."""

    number: int
    urls: Sequence[str]
    arena: Arena
    seed: int
    race: Race
    history: list[Operation] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    answered_ns: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(daemon=True, name=f"racer-{self.number}")
        self._chance = random.Random(f"{self.seed}-{self.number}")
        self._link = Link(self.urls)
        self._runs = RunMaker(self._link, self.urls)
        self._writes = itertools.count()

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        """Ask until told to stop; an error that is not foreseen ends this client and is kept."""
        try:
            while not self.race.stopping.is_set():
                subject = self.arena.pick(self._runs)
                text = f"c{self.number}-{next(self._writes)}"
                self._ask(subject.propose(self._chance, text))
        except Exception as error:  # noqa: BLE001
            # The edge of this thread: kept for the test, which fails by it.
            self.failures.append(f"{self.name} ended: {error!r}")
        finally:
            self._link.close()

    def _ask(self, request: Request) -> None:
        trace = (
            f"00-{self.seed & 0xFFFFFFFF:08x}{self.number:08x}{next(self._writes):016x}-{1:016x}-01"
        )
        headers = {"traceparent": trace}
        keyed = request.writes is not None and self._chance.random() < KEYED_SHARE
        if keyed:
            headers["Idempotency-Key"] = trace
        began = time.monotonic()
        invoked_ns = first_ns = time.monotonic_ns()
        tried = False
        while True:
            outcome = self._try(request, headers)
            now_ns = time.monotonic_ns()
            if not isinstance(outcome, str):
                break
            self.outcomes[outcome] += 1
            tried = tried or outcome == "unknown"
            if not keyed or time.monotonic() - began > REPEAT_S_MAX:
                self._note_unknown(request, trace, tried, first_ns)
                time.sleep(PAUSE_S)
                return
            time.sleep(PAUSE_S)
            invoked_ns = time.monotonic_ns()
        status, answer = outcome
        if request.writes is not None:
            self.sent.append(Sent(trace, request.writes[1], status == 200))
        if tried and status != 200:
            # An earlier try is still on its way, perhaps, and this answer is of the last one.
            self._note_unknown(request, trace, tried, first_ns)
        elif tried:
            invoked_ns = first_ns
        self._note(request, status, answer, invoked_ns, now_ns)

    def _try(self, request: Request, headers: Mapping[str, str]) -> tuple[int, Json] | str:
        url = self._chance.choice(self.urls)
        hasty = self._chance.random() < HASTY_SHARE
        timeout_s = self._chance.uniform(0, HASTY_S_MAX) if hasty else CALL_S
        try:
            status, answer, given = self._link.ask(url, request, headers, timeout_s)
        except Unreachable:
            return "not tried"
        except (OSError, http.client.HTTPException):
            return "unknown"
        if status in UNKNOWN:
            return "unknown"
        if status == NOT_TRIED:
            return "not tried"
        if answer.get("error_code") == "INTERNAL_ERROR":
            self.failures.append(f"{request.path} {request.fields}: {status} {answer}")
            return "unknown"
        if given.get("Muniment-Stale") is not None:
            return "stale"
        return status, answer

    def _note(
        self, request: Request, status: int, answer: Json, invoked_ns: int, returned_ns: int
    ) -> None:
        self.outcomes["known"] += 1
        self.answered_ns.append(returned_ns)
        for subject, call, reply in request.read(status, answer):
            self.history.append(Operation(subject, call, self.name, invoked_ns, returned_ns, reply))

    def _note_unknown(self, request: Request, trace: str, tried: bool, invoked_ns: int) -> None:
        if request.writes is None or not tried:
            return
        subject, call = request.writes
        self.sent.append(Sent(trace, call, acknowledged=False))
        self.history.append(Operation(subject, call, self.name, invoked_ns, None, None))


class Race:
    """CLIENTS at work on servers. `known` counts operations whose outcome is known."""

    def __init__(self, urls: Sequence[str], seed: int, clients: int = CLIENTS) -> None:
        self.stopping = threading.Event()
        self.arena = Arena(seed)
        self.racers = [Racer(n, list(urls), self.arena, seed, self) for n in range(clients)]

    def start(self) -> None:
        """Begin."""
        for racer in self.racers:
            racer.start()

    @property
    def known(self) -> int:
        """Operations with a known outcome so far."""
        return sum(racer.outcomes["known"] for racer in self.racers)

    def await_known(self, count: int, seconds_max: float) -> None:
        """Wait for so many operations. Raises TimeoutError; AssertionError when a client died."""
        deadline = time.monotonic() + seconds_max
        while self.known < count:
            dead = [r for r in self.racers if not r.is_alive()]
            assert not dead, self.failures
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.known} of {count} operations in {seconds_max:g} s")
            time.sleep(0.05)

    def stop(self) -> None:
        """End all clients; each finishes the request that it is at."""
        self.stopping.set()
        for racer in self.racers:
            racer.join(REPEAT_S_MAX + 2 * CALL_S)
            assert not racer.is_alive(), f"{racer.name} does not come back"

    @property
    def failures(self) -> list[str]:
        """What no fault explains."""
        return [failure for racer in self.racers for failure in racer.failures]

    @property
    def history(self) -> list[Operation]:
        """All operations."""
        return [operation for racer in self.racers for operation in racer.history]

    @property
    def sent(self) -> list[Sent]:
        """All writes that a server may have seen."""
        return [sent for racer in self.racers for sent in racer.sent]

    @property
    def outcomes(self) -> Counter[str]:
        """How many requests ended how."""
        return sum((racer.outcomes for racer in self.racers), Counter[str]())

    def longest_silence_s(self) -> float:
        """The longest time in which nobody got a known answer."""
        times: list[int] = sorted(t for racer in self.racers for t in racer.answered_ns)
        gaps: list[Any] = [b - a for a, b in itertools.pairwise(times)]
        return max(gaps, default=0) / 1e9
