"""What can go wrong between a client and its server's identity provider.

    ClientError
    ├── NotConfigured     the environment or the server does not say what is needed
    ├── LoginNeeded       nobody is signed in here, or the sign-in has ended
    ├── LoginFailed       a sign-in was begun and did not come to its end
    ├── Refused           an OAuth endpoint, or the server itself, said no
    ├── Unreachable       no answer, or only faults, within the bounded attempts
    └── CacheUnusable     the folder of the stored sign-ins cannot be read, written or locked

MLflow shows these as the end of one of its own messages, so each is one sentence or two that say
what to run. None carries a token or a secret, and what others wrote stands in them as plain text:
a terminal shows them.
"""

from __future__ import annotations

SHOWN_CHARS_MAX = 300


def plain(text: str) -> str:
    """Somebody else's text for a terminal: one line without control characters, and not long."""
    shown = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(shown.split())[:SHOWN_CHARS_MAX]


class ClientError(Exception):
    """Base of all errors of this package."""


class NotConfigured(ClientError):
    """Something that only the user or the server's operator can supply is missing."""


class LoginNeeded(ClientError):
    """The call needs a signed-in user; the message names the command."""

    def __init__(self, server: str, reason: str) -> None:
        super().__init__(f"{reason} Run `muniment-client login {server}`.")
        self.server = server


class LoginFailed(ClientError):
    """The sign-in was denied, timed out or came back changed."""


class Refused(ClientError):
    """An endpoint answered with an OAuth error."""

    def __init__(self, where: str, error: str, description: str = "", remedy: str = "") -> None:
        words = f"{where} refused: {plain(error)}"
        words += f" ({plain(description)})." if description else "."
        super().__init__(f"{words} {remedy}".rstrip())
        self.where = where
        self.error = error
        self.description = description


class Unreachable(ClientError):
    """No usable answer came from a URL."""

    def __init__(self, url: str, reason: str, attempts: int) -> None:
        times = "once" if attempts == 1 else f"{attempts} times"
        super().__init__(f"{url} gave no usable answer ({reason}; asked {times}).")
        self.url = url


class CacheUnusable(ClientError):
    """The stored sign-ins cannot be used."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(
            f"{path}: {reason}. MUNIMENT_CLIENT_CACHE names another folder for the sign-ins."
        )
