"""Where the process is between its start and its end: what probes and log lines tell of it.

    starting -> restoring -> catching up -> serving -> draining

A replica listens from the first moment, answers what it can, and is ready in `serving` only. All of
this is about one process; nothing of it is in the log.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import msgspec
import structlog

PROGRESS_S = 1.0
"""Catching up is silent so long, and then tells every so often how far it is."""

STARTING = "starting"
RESTORING = "restoring a snapshot"
CATCHING_UP = "catching up"
SERVING = "serving"
DRAINING = "draining"

_log = structlog.get_logger("muniment.start")


class Stopped(Exception):
    """The process is told to end while it is still starting."""


class Progress(msgspec.Struct, frozen=True):
    """How far the start is. events, total: of the log, folded and to be folded in this phase."""

    phase: str
    events: int
    total: int
    events_per_s: int
    left_s: float | None


class Startup:
    """Told by whoever starts the process, in any thread; asked by probes, on the event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """clock: seconds, monotonic."""
        self.phase = STARTING
        self.failure: Exception | None = None
        """Why the start failed, if it did."""
        self.on_serving: Callable[[], None] = _nobody
        """Called once, when all is there and before probes say so."""
        self.on_failure: Callable[[], None] = _nobody
        """Called when the start has failed."""
        self._clock = clock
        self._began = self._told = clock()
        self._done = 0
        self._total = 0
        self._stopping = threading.Event()

    @property
    def is_serving(self) -> bool:
        """Whether the start is over and the end has not begun."""
        return self.phase == SERVING

    @property
    def is_stopping(self) -> bool:
        """Whether what was started is being stopped."""
        return self._stopping.is_set()

    @property
    def progress(self) -> Progress:
        """How far the present phase is."""
        passed_s = max(self._clock() - self._began, 1e-9)
        speed = self._done / passed_s
        left_s = round((self._total - self._done) / speed, 1) if speed else None
        return Progress(self.phase, self._done, self._total, round(speed), left_s)

    def enter(self, phase: str, total: int = 0) -> None:
        """Begin a phase. total: events that it will fold. Raises Stopped."""
        self._refuse_to_go_on()
        self.phase = phase
        self._began = self._told = self._clock()
        self._done, self._total = 0, total

    def serve(self) -> None:
        """The start is over. Raises Stopped."""
        self._refuse_to_go_on()
        self.on_serving()
        self.enter(SERVING)

    def fail(self, error: Exception) -> None:
        """The start has failed, or what it started has."""
        self.failure = error
        self.on_failure()

    def advance(self, events: int) -> None:
        """So many more events are folded; logged now and then. Raises Stopped."""
        self._refuse_to_go_on()
        self._done += events
        now = self._clock()
        if now - self._told < PROGRESS_S:
            return
        self._told = now
        found = self.progress
        _log.info(
            "projections catch up with the log",
            events=found.events,
            total=found.total,
            events_per_s=found.events_per_s,
            left_s=found.left_s,
        )

    def stop(self) -> None:
        """Make a start that is under way end at its next step."""
        self._stopping.set()

    def _refuse_to_go_on(self) -> None:
        if self._stopping.is_set():
            raise Stopped("the server is told to stop while it is starting")


def _nobody() -> None:
    """Nobody wants to know."""
