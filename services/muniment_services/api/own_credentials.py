"""Who calls by one of our own tokens or sessions: the checks in memory, and one look at the log.

A token or session that another replica has just made is in the log before it is in this replica's
memory. So an unknown one is asked for again once all that is in the log now is folded; whoever asks
at the same time waits for the same look. What a session says of its principal is kept true.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from muniment_auth.credentials import CredentialUnknown
from muniment_auth.principal import Principal
from muniment_auth.sessions import session_secret
from muniment_services.api.services import Services
from muniment_services.domain.credential import KIND

T = TypeVar("T")


async def by_token(services: Services, text: str) -> Principal:
    """The principal of a token (`mnt_…`). Raises CredentialError, LogUnavailable."""
    return await _twice(
        services,
        lambda: services.credentials.authenticate_token(text, services.now_ms()),
    )


async def by_session(
    services: Services, method: str, headers: Mapping[bytes, bytes]
) -> Principal | None:
    """The principal of a session cookie; None without one.

    headers: of the request, names in lower case. Raises CredentialError, LogUnavailable, and
    ProviderUnavailable.
    """
    cookies = headers.get(b"cookie", b"").decode("latin-1")

    def check() -> Principal | None:
        now_ms = services.now_ms()
        return services.credentials.authenticate_session(cookies, method, headers, now_ms)

    found = await _twice(services, check)
    secret = session_secret(cookies)
    if found is None or secret is None:
        return found
    before = services.fold.state.get(KIND, secret.id)
    await services.renewals.keep_true(services, secret)
    return found if services.fold.state.get(KIND, secret.id) is before else check()


async def _twice(services: Services, check: Callable[[], T]) -> T:
    try:
        return check()
    except CredentialUnknown:
        await services.caught_up()
    return check()
