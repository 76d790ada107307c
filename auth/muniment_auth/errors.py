"""Why a caller is not let in.

AuthError
├── Unauthenticated        401: what was presented proves nothing; the challenge says what would
├── InsufficientScope      403: it proves who calls, and carries too little scope for this server
└── ProviderUnavailable    503: whether it proves anything cannot be found out now
"""

from __future__ import annotations

import re

# RFC 6750, 3: what error_description may not consist of.
_NOT_IN_DESCRIPTION = re.compile(r"[^\x20-\x21\x23-\x5b\x5d-\x7e]")

RETRY_AFTER_S = 5


class AuthError(Exception):
    """A refusal. description: for the caller; it never repeats what was presented.

    status: of HTTP. error: a code of RFC 6750 or RFC 9449; None when nothing was presented (RFC
    6750, 3.1). retry_after_s: when trying again may help.
    """

    status: int
    error: str | None
    retry_after_s: int | None = None
    scheme = "Bearer"
    algorithms: tuple[str, ...] = ()

    def __init__(self, description: str) -> None:
        super().__init__(description)
        self.description = description

    def challenge(self, metadata_url: str) -> str:
        """The WWW-Authenticate value. metadata_url: where RFC 9728 metadata are."""
        parts = [("resource_metadata", metadata_url)]
        if self.error is not None:
            parts += [("error", self.error), ("error_description", self.description)]
        if self.algorithms:
            parts.append(("algs", " ".join(self.algorithms)))
        told = (f'{name}="{_NOT_IN_DESCRIPTION.sub("?", value)}"' for name, value in parts)
        return f"{self.scheme} {', '.join(told)}"


class Unauthenticated(AuthError):
    """scheme, algorithms: what to present it by, when a DPoP proof is missing or wrong."""

    status = 401

    def __init__(
        self,
        description: str,
        error: str | None = "invalid_token",
        scheme: str = "Bearer",
        algorithms: tuple[str, ...] = (),
    ) -> None:
        super().__init__(description)
        self.error = error
        self.scheme = scheme
        self.algorithms = algorithms


class InsufficientScope(AuthError):
    """The token is good, but not for what this server asks of all tokens of its issuer."""

    status = 403
    error = "insufficient_scope"


class ProviderUnavailable(AuthError):
    """The identity provider does not answer, and nothing that is known decides it."""

    status = 503
    error = "temporarily_unavailable"

    def __init__(self, description: str, retry_after_s: int = RETRY_AFTER_S) -> None:
        super().__init__(description)
        self.retry_after_s = retry_after_s
