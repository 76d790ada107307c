"""Who calls: each request's principal, or the refusal that tells how to become one.

Without an issuer everyone who reaches the (loopback) listener is the local user. With one, a
request says who it is from by a bearer token (an issuer's, or one of muniment's own, told by its
prefix), by a DPoP-bound one, or by the cookie of a browser's session.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from muniment_auth.authenticate import Authenticator
from muniment_auth.credentials import CredentialError, CrossSiteRefused
from muniment_auth.errors import (
    AuthError,
    InsufficientScope,
    ProviderUnavailable,
    Unauthenticated,
)
from muniment_auth.issuers import Issuer
from muniment_auth.principal import Principal
from muniment_auth.sessions import SESSION_COOKIE
from muniment_auth.tokens import TOKEN_PREFIX
from muniment_services.api.errors import ApiError
from muniment_services.api.own_credentials import by_session, by_token

if TYPE_CHECKING:
    from muniment_services.api.services import Services

METADATA_PATH = "/.well-known/oauth-protected-resource"

OWN_TOKEN = TOKEN_PREFIX.encode()

HOW = "send a token as `Authorization: Bearer …` (for MLflow's client: MLFLOW_TRACKING_TOKEN)"
HOW_BY_BROWSER = f"{HOW}, or sign in at /login"
PLUGIN_HINT = (
    ". MLFLOW_TRACKING_AUTH=muniment does nothing where the package muniment-client is not "
    "installed: install it"
)
"""For MLflow's client, which passes over a plugin that it has not got."""


class Callers(Protocol):
    """Knows callers by their requests."""

    def known(self, headers: Mapping[bytes, bytes]) -> Principal | None:
        """A caller whose credential was verified before, at once; None: ask `identify`."""

    async def identify(self, method: str, path: str, headers: Mapping[bytes, bytes]) -> Principal:
        """The caller. Raises ApiError: 401, or 503 while an identity provider cannot be asked."""

    def issuers(self) -> Sequence[Issuer]:
        """Those whose tokens prove who calls; none: nobody has to prove anything."""

    def open(self, services: Services) -> None:
        """Take muniment's own tokens and sessions too, from now on."""

    async def close(self) -> None:
        """Release connections to identity providers."""


class LocalCallers:
    """Everyone is the local user."""

    def __init__(self, principal: Principal) -> None:
        self._principal = principal

    def known(self, headers: Mapping[bytes, bytes]) -> Principal | None:
        """The local user."""
        return self._principal

    async def identify(self, method: str, path: str, headers: Mapping[bytes, bytes]) -> Principal:
        """The local user."""
        return self._principal

    def issuers(self) -> Sequence[Issuer]:
        """None."""
        return ()

    def open(self, services: Services) -> None:
        """Nobody needs any."""

    async def close(self) -> None:
        """There is nothing to release."""


class SignedInCallers:
    """Everyone proves who they are, to one of the issuers."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator
        self._services: Services | None = None

    def open(self, services: Services) -> None:
        """Take muniment's own tokens and sessions too, from now on; fetch the issuers' keys."""
        self._services = services
        self._authenticator.start()

    def known(self, headers: Mapping[bytes, bytes]) -> Principal | None:
        """Whoever presents a bearer token that was verified lately."""
        given = headers.get(b"authorization")
        return None if given is None else self._authenticator.known(given)

    async def identify(self, method: str, path: str, headers: Mapping[bytes, bytes]) -> Principal:
        """Whoever the request's credential proves. Raises ApiError."""
        origin = origin_of(headers)
        try:
            return await self._identified(method, f"{origin}{path}", headers)
        except AuthError as error:
            raise refused(error, origin) from None
        except CrossSiteRefused as error:
            raise ApiError("PERMISSION_DENIED", str(error)) from None
        except CredentialError as error:
            raise refused(Unauthenticated(str(error).rstrip(".")), origin) from None

    def issuers(self) -> Sequence[Issuer]:
        """Those that the settings name."""
        return self._authenticator.issuers

    async def close(self) -> None:
        """Release connections to identity providers."""
        await self._authenticator.close()

    async def _identified(self, method: str, url: str, headers: Mapping[bytes, bytes]) -> Principal:
        given = headers.get(b"authorization")
        if given is None:
            return await self._by_session(method, headers)
        if given[:7].lower() == b"bearer " and given[7:].startswith(OWN_TOKEN):
            return await by_token(self._started(), given[7:].decode("latin-1"))
        proof = headers.get(b"dpop")
        return await self._authenticator.authenticate(
            given.decode("latin-1"),
            None if proof is None else proof.decode("latin-1"),
            method,
            url,
        )

    async def _by_session(self, method: str, headers: Mapping[bytes, bytes]) -> Principal:
        cookies = headers.get(b"cookie", b"").decode("latin-1")
        if SESSION_COOKIE not in cookies:
            agent = headers.get(b"user-agent", b"")
            lacks_plugin = agent.startswith(b"mlflow-") and b"muniment-client" not in agent
            hint = PLUGIN_HINT if lacks_plugin else ""
            raise Unauthenticated(self._how() + hint, error=None)
        found = await by_session(self._started(), method, headers)
        if found is None:
            raise Unauthenticated(self._how(), error=None)
        return found

    def _how(self) -> str:
        by_browser = any(issuer.client_id is not None for issuer in self.issuers())
        return HOW_BY_BROWSER if by_browser else HOW

    def _started(self) -> Services:
        if self._services is None:
            raise ProviderUnavailable("The server is starting; try again.")
        return self._services


def refused(error: AuthError, origin: str) -> ApiError:
    """A refusal with what a client needs to find its way. origin: how it reached us.

    Source: RFC 6750, section 3; RFC 9728, section 5.1.
    """
    if isinstance(error, ProviderUnavailable):
        retry = (b"retry-after", str(error.retry_after_s).encode())
        return ApiError("TEMPORARILY_UNAVAILABLE", error.description, (retry,))
    challenge = (b"www-authenticate", error.challenge(f"{origin}{METADATA_PATH}").encode())
    if isinstance(error, InsufficientScope):
        return ApiError("PERMISSION_DENIED", f"Not let in: {error.description}.", (challenge,))
    return ApiError("UNAUTHENTICATED", f"Not signed in: {error.description}.", (challenge,))


def origin_of(headers: Mapping[bytes, bytes]) -> str:
    """Scheme and host by which the client reached this server, or the proxy before it."""
    host = headers.get(b"host", b"localhost").decode("latin-1")
    scheme = headers.get(b"x-forwarded-proto", b"http").partition(b",")[0].strip()
    return f"{scheme.decode('latin-1')}://{host}"
