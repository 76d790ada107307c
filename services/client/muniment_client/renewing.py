"""A token that is renewed in time, by one thread, while the others go on with what holds.

Renewal begins RENEW_BEFORE_S before the end (or in the last quarter of a short life). While the
old token still holds, a provider that is down costs little: one thread makes one attempt, and the
next one is made after PAUSE_S.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from muniment_client.cache import LOCK_WAIT_S_MAX
from muniment_client.claims import life_s as claimed_life_s
from muniment_client.errors import ClientError

RENEW_BEFORE_S = 60.0
RENEW_SHARE = 0.25
LIFE_S_DEFAULT = 300.0
"""When neither the answer nor the token says how long it lives."""
PAUSE_S = 15.0
"""As long as one attempt may take at a provider that hangs: it has half of one thread's time."""
YOUNG_S = 1.0
"""A token younger than this is not renewed because it was refused: the next one would be too."""


@dataclass(frozen=True, slots=True)
class Held:
    """A token and its life, in seconds since 1970."""

    token: str = field(repr=False)
    issued_at: float
    expires_at: float

    def is_due(self, now: float) -> bool:
        """Whether it should be renewed."""
        life = self.expires_at - self.issued_at
        return now >= self.expires_at - min(RENEW_BEFORE_S, life * RENEW_SHARE)


def held(token: str, now: float, life_s: object = None) -> Held:
    """A token that was just given: it ends when the answer or the token itself says so."""
    try:
        told = float(str(life_s))
    except ValueError:
        # A number by RFC 6749, though some write it as text, and many leave it out.
        told = 0.0
    return Held(token, now, now + (told if told > 0 else claimed_life_s(token) or LIFE_S_DEFAULT))


class Renewing:
    """Holds the current token of one source."""

    def __init__(
        self,
        fetch: Callable[[str | None, bool], Held],
        first: Held | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """fetch: gives a token other than the one it is told, which was refused (or None).

        It is also told whether it is urgent: if not, the old token holds, and one attempt is made.
        """
        self._fetch = fetch
        self._held = first
        self._clock = clock
        self._lock = threading.Lock()
        self._paused_until = 0.0
        self._failed: tuple[float, ClientError] | None = None

    def token(self) -> str:
        """A token that holds. Raises ClientError when none can be had."""
        current, now = self._held, self._clock()
        if current is None or now >= current.expires_at:
            return self._renew(current, None, urgent=True)
        if not current.is_due(now) or now < self._paused_until or self._lock.locked():
            return current.token
        try:
            return self._renew(current, None, urgent=False)
        except ClientError:
            # What is wrong is told when the token has ended, if it is still wrong then.
            self._paused_until = self._clock() + PAUSE_S
            return current.token

    def renew(self, refused: str) -> str | None:
        """Another token after the server has refused this one; None when there can be none."""
        current = self._held
        if current is not None and current.token == refused:
            if self._clock() - current.issued_at < YOUNG_S:
                return None
            return self._renew(current, refused, urgent=True)
        return self.token()

    def _renew(self, seen: Held | None, refused: str | None, *, urgent: bool) -> str:
        asked_at = time.monotonic()
        if not self._lock.acquire(timeout=LOCK_WAIT_S_MAX):
            raise ClientError("Another thread is still renewing the token.")
        try:
            current = self._held
            if current is None or current is seen:
                if self._failed is not None and self._failed[0] >= asked_at:
                    # Another thread has just tried in vain, while this one waited for it.
                    raise self._failed[1]
                current = self._held = self._fetch(refused, urgent)
            return current.token
        except ClientError as error:
            self._failed = (time.monotonic(), error)
            raise
        finally:
            self._lock.release()
