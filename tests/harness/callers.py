"""Callers that go on and on, each on its own connection, while something happens to the server."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

CALL_S_MAX = 30.0
PAUSE_S = 0.01
"""Between two calls of one caller: a load, and a core left for whom it is put on."""

ENDED_WITHIN_S = 60.0


@dataclass(slots=True)
class Heard:
    """What callers were answered: how many times well, and everything else."""

    good: int = 0
    bad: list[str] = field(default_factory=list)


@contextmanager
def calling(requests: Sequence[httpx.Request]) -> Iterator[Heard]:
    """Each request again and again by a caller of its own, until the end."""
    heard, lock, over = Heard(), threading.Lock(), threading.Event()

    def call(request: httpx.Request) -> None:
        with httpx.Client(timeout=CALL_S_MAX) as http:
            while not over.is_set():
                try:
                    answer = http.send(request)
                    bad = None if answer.status_code == 200 else answer.text
                except httpx.HTTPError as error:
                    bad = repr(error)
                with lock:
                    if bad is None:
                        heard.good += 1
                    else:
                        heard.bad.append(bad)
                time.sleep(PAUSE_S)

    threads = [threading.Thread(target=call, args=(request,)) for request in requests]
    for thread in threads:
        thread.start()
    try:
        yield heard
    finally:
        over.set()
        for thread in threads:
            thread.join(ENDED_WITHIN_S)
