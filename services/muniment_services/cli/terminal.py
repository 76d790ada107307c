"""What all commands share: errors for people, output that may be cut off, progress on long work."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

TELL_S = 2.0
"""Without a terminal, progress is one line every so many seconds."""


class CliError(Exception):
    """What the user can mend: the message says what is wrong and what to do."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


class BrokenOff(Exception):
    """Nobody reads our output any more."""


@contextmanager
def mendable() -> Iterator[None]:
    """Turns the errors of settings, log, projections, artifacts and files into CliErrors."""
    import duckdb
    import structlog

    from muniment_auth.identity import KeysUnavailable
    from muniment_projections.store import StoreError
    from muniment_services.artifacts.base import ArtifactError
    from muniment_services.config import ConfigError
    from muniment_services.instance import FolderInUse
    from muniment_services.log.base import LogError

    if not structlog.is_configured():
        # What is worth a word on the way is none of the results.
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    try:
        yield
    except BrokenPipeError:
        raise BrokenOff from None
    except duckdb.Error as error:
        raise CliError(f"the projections cannot be used: {_line(error)}") from error
    except (
        ConfigError,
        FolderInUse,
        LogError,
        StoreError,
        ArtifactError,
        KeysUnavailable,
        OSError,
    ) as error:
        raise CliError(_line(error)) from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def write(text: str) -> None:
    """One line to standard output. Raises BrokenOff when nobody reads it."""
    try:
        sys.stdout.write(text + "\n")
    except BrokenPipeError:
        raise BrokenOff from None


def flush() -> None:
    """Hand on what was written. Raises BrokenOff when nobody reads it."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise BrokenOff from None


def write_json(value: Mapping[str, Any]) -> None:
    """One JSON object on a line of its own."""
    write(json.dumps(value, ensure_ascii=False, allow_nan=False))


class Meter:
    """Progress of long work, mostly in events: a bar on a terminal, else lines, or JSON.

    Shown on standard error, JSON on standard output, so that results can be piped.
    """

    def __init__(
        self,
        what: str,
        as_json: bool,
        clock: Callable[[], float] = time.monotonic,
        unit: str = "events",
    ) -> None:
        """what: the work, as the bar names it. clock: seconds. unit: what is counted."""
        self._what = what
        self._unit = unit
        self._as_json = as_json
        self._clock = clock
        self._began = self._told = clock()
        self._bar: Any = None
        self.events = 0
        self.total = 0

    def __enter__(self) -> Meter:
        if not self._as_json and sys.stderr.isatty():
            self._bar = _bar(self._what)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    @property
    def per_s(self) -> float:
        """Events a second since the beginning."""
        return self.events / max(self._clock() - self._began, 1e-9)

    @property
    def seconds(self) -> float:
        """Seconds since the beginning."""
        return self._clock() - self._began

    def add(self, events: int) -> None:
        """So many more events are done."""
        self.show(self.events + events, self.total)

    def show(self, events: int, total: int) -> None:
        """So many events of so many are done."""
        self.events, self.total = events, max(total, events)
        if self._bar is not None:
            speed = f"{self.per_s:,.0f} {self._unit}/s"
            self._bar.update(self._bar.task_ids[0], completed=events, total=self.total, speed=speed)
        elif self._clock() - self._told >= TELL_S:
            self._told = self._clock()
            self._tell()

    def _tell(self) -> None:
        left_s = (self.total - self.events) / max(self.per_s, 1e-9)
        if self._as_json:
            speed, left = round(self.per_s), round(left_s, 1)
            write_json(
                {
                    "phase": self._what,
                    self._unit: self.events,
                    "total": self.total,
                    f"{self._unit}_per_s": speed,
                    "left_s": left,
                }
            )
            flush()
            return
        print(
            f"{self._what}: {self.events:,} of {self.total:,} {self._unit}, "
            f"{self.per_s:,.0f} {self._unit}/s, {left_s:,.0f} s left",
            file=sys.stderr,
            flush=True,
        )


def _bar(what: str) -> Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    bar.add_task(what, total=None, speed="")
    return bar
