"""Login at an identity provider by the authorization code flow: our side, as a client.

authlib makes the requests and reads the answers; verifying the ID token is the authenticator's.
Source: OpenID Connect Core 3.1, RFC 7636 (PKCE, S256), RFC 9207 (iss in the answer), RFC 9700,
OpenID Connect Core 12 (refresh tokens), OpenID Connect RP-Initiated Logout 1.0.

    LoginRefused
    ├── LoginUnknown        no login is under way, it took too long, or the answer is another one's
    ├── LoginEnded          the provider does not renew it: the login is over there
    ├── ProviderRefused     the provider said no, or nothing that can be used
    └── ProviderUnreachable the provider does not answer
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlencode, urlsplit

from authlib.integrations.base_client import OAuthError  # type: ignore[import-untyped]
from authlib.integrations.httpx_client import AsyncOAuth2Client  # type: ignore[import-untyped]
from httpx2 import AsyncBaseTransport, HTTPError

from muniment_auth.principal import Principal
from muniment_auth.sessions import LOGIN_LIFE_MS, Login, Renewal

PROVIDER_S = 10.0
"""The provider's token endpoint answers within so long."""

ANSWER_CHARS_MAX = 16_384
"""Longest query that a provider's answer may have."""

STATE_BYTES = 32
REFRESH_TOKEN_CHARS_MAX = 16_384
"""Longest refresh token that is kept."""

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class LoginRefused(Exception):
    """The login cannot go on. The message is for the person in front of the browser."""


class LoginUnknown(LoginRefused):
    """The answer belongs to no login of this browser."""


class LoginEnded(LoginRefused):
    """The identity provider has ended the login, and renews it no more."""


class ProviderRefused(LoginRefused):
    """The identity provider refused, or its answer is not as it must be."""


class ProviderUnreachable(LoginRefused):
    """The identity provider does not answer."""


class LoginIssuer(Protocol):
    """What a login needs to know of an identity provider."""

    @property
    def name(self) -> str:
        """What people choose it by, and what stands in /login?issuer=."""

    @property
    def url(self) -> str:
        """Its `iss`."""

    @property
    def client_id(self) -> str | None:
        """Our id there; None: nobody logs in by it."""

    @property
    def client_secret(self) -> str | None:
        """Our secret there; None for a public client."""

    @property
    def login_scope(self) -> str:
        """What a login asks for."""


class Provider(Protocol):
    """What verifies. `Authenticator` is one."""

    async def metadata(self, issuer_name: str) -> Mapping[str, Any]:
        """The issuer's discovery document."""

    async def verify_id_token(
        self, issuer_name: str, token: str, nonce: str, renewed: bool = False
    ) -> Principal:
        """The principal of an ID token that was issued to us for this nonce.

        renewed: with a refresh token, so that it need not repeat the nonce.
        """


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Who logged in, and what that is renewed with; None: the provider does not renew it."""

    principal: Principal
    renewal: Renewal | None


class CodeFlow:
    """Begins logins and finishes them.

    redirect_uri: where the provider sends the browser back to; known to it beforehand.
    random: so many random bytes. refusals: what the provider raises where it refuses or does not
    answer. transport: of the calls to token endpoints, in tests.
    """

    def __init__(
        self,
        provider: Provider,
        issuers: Mapping[str, LoginIssuer],
        redirect_uri: str,
        now_ms: Callable[[], int],
        random: Callable[[int], bytes],
        refusals: tuple[type[Exception], ...] = (),
        transport: AsyncBaseTransport | None = None,
    ) -> None:
        """issuers: by name, those that people can log in by."""
        self.issuers = issuers
        self._provider = provider
        self._redirect_uri = redirect_uri
        self._now_ms = now_ms
        self._random = random
        self._refusals = refusals
        self._transport = transport

    async def begin(self, issuer_name: str, return_to: str) -> tuple[str, Login]:
        """Where to send the browser, and what it has to keep until it comes back.

        Raises LoginRefused.
        """
        issuer = self.issuers[issuer_name]
        metadata = await self._metadata(issuer)
        login = Login(
            issuer=issuer_name,
            state=self._random(STATE_BYTES).hex(),
            nonce=self._random(STATE_BYTES).hex(),
            verifier=self._random(STATE_BYTES).hex(),
            return_to=return_to,
            expires_at_ms=self._now_ms() + LOGIN_LIFE_MS,
        )
        async with self._client(issuer, metadata) as client:
            url, _ = client.create_authorization_url(
                endpoint(metadata, "authorization_endpoint", issuer),
                state=login.state,
                code_verifier=login.verifier,
                nonce=login.nonce,
            )
        return str(url), login

    async def finish(self, login: Login | None, answer: Mapping[str, str]) -> SignedIn:
        """Who logged in, after the provider has sent the browser back.

        login: what the browser kept; None when it kept nothing that counts. answer: the query's
        parameters. Raises LoginRefused.
        """
        if login is None or login.issuer not in self.issuers:
            raise LoginUnknown("No login is under way in this browser, or it took too long.")
        if not hmac.compare_digest(login.state.encode(), answer.get("state", "").encode()):
            raise LoginUnknown("This answer belongs to another login.")
        issuer = self.issuers[login.issuer]
        metadata = await self._metadata(issuer)
        _check_sender(answer, issuer, metadata)
        if "error" in answer:
            raise ProviderRefused(_refusal(issuer, answer))
        if not answer.get("code"):
            raise ProviderRefused(f"{issuer.name} sent no code.")
        token = await self._exchange(issuer, metadata, answer["code"], login.verifier)
        principal = await self._verified(issuer, token, login.nonce)
        return SignedIn(principal, _renewal(token, login.nonce))

    async def renew(self, issuer_url: str, renewal: Renewal) -> SignedIn:
        """Who is logged in now, as the provider says it anew.

        Raises LoginEnded when it is over there, another LoginRefused when that cannot be found out.
        """
        issuer = self._issuer(issuer_url)
        if issuer is None:
            raise LoginEnded("Nobody logs in by this identity provider any more.")
        metadata = await self._metadata(issuer)
        try:
            token = await self._ask(
                issuer,
                metadata,
                grant_type="refresh_token",
                refresh_token=renewal.refresh_token,
            )
        except _Refusal as refusal:
            kind = LoginEnded if refusal.error == "invalid_grant" else ProviderRefused
            said = printable(refusal.error)
            raise kind(f"{issuer.name} does not renew the login: {said}.") from None
        principal = await self._verified(issuer, token, renewal.nonce, renewed=True)
        # A provider that sends no new refresh token means the old one to be used again.
        return SignedIn(principal, _renewal(token, renewal.nonce) or renewal)

    async def _verified(
        self, issuer: LoginIssuer, token: Mapping[str, Any], nonce: str, renewed: bool = False
    ) -> Principal:
        id_token = token.get("id_token")
        if not isinstance(id_token, str):
            raise ProviderRefused(f"{issuer.name} gave no ID token; it must allow scope openid.")
        try:
            return await self._provider.verify_id_token(issuer.name, id_token, nonce, renewed)
        except self._refusals as error:
            raise ProviderRefused(
                f"The ID token of {issuer.name} does not count: {error}"
            ) from error

    async def end_session_url(self, issuer_url: str, return_to: str) -> str | None:
        """Where a browser logs out at the provider too; None when that is not offered.

        return_to: where the provider may send the browser afterwards. Raises LoginRefused.
        """
        found = self._issuer(issuer_url)
        if found is None:
            return None
        metadata = await self._metadata(found)
        if not metadata.get("end_session_endpoint"):
            return None
        url = endpoint(metadata, "end_session_endpoint", found)
        query = {"client_id": found.client_id or "", "post_logout_redirect_uri": return_to}
        return f"{url}{'&' if urlsplit(url).query else '?'}{urlencode(query)}"

    def _issuer(self, url: str) -> LoginIssuer | None:
        return next((issuer for issuer in self.issuers.values() if issuer.url == url), None)

    async def _metadata(self, issuer: LoginIssuer) -> Mapping[str, Any]:
        try:
            return await self._provider.metadata(issuer.name)
        except self._refusals as error:
            raise ProviderUnreachable(f"{issuer.name} cannot be asked: {error}") from error

    async def _exchange(
        self, issuer: LoginIssuer, metadata: Mapping[str, Any], code: str, verifier: str
    ) -> Mapping[str, Any]:
        try:
            return await self._ask(
                issuer,
                metadata,
                grant_type="authorization_code",
                code=code,
                code_verifier=verifier,
            )
        except _Refusal as refusal:
            said = printable(refusal.error)
            raise ProviderRefused(f"{issuer.name} does not take its code: {said}.") from None

    async def _ask(
        self, issuer: LoginIssuer, metadata: Mapping[str, Any], **form: str
    ) -> Mapping[str, Any]:
        """The token endpoint's answer. Raises _Refusal, LoginRefused."""
        url = endpoint(metadata, "token_endpoint", issuer)
        try:
            async with self._client(issuer, metadata) as client:
                token = await client.fetch_token(url, **form)
        except OAuthError as error:
            raise _Refusal(str(error.error)) from None
        except HTTPError as error:
            reason = type(error).__name__
            raise ProviderUnreachable(f"{issuer.name} does not answer ({reason}).") from None
        except ValueError:
            raise ProviderRefused(f"{issuer.name} gave no answer that is one.") from None
        assert isinstance(token, Mapping)
        return token

    def _client(self, issuer: LoginIssuer, metadata: Mapping[str, Any]) -> AsyncOAuth2Client:
        return AsyncOAuth2Client(
            client_id=issuer.client_id,
            client_secret=issuer.client_secret,
            token_endpoint_auth_method=_auth_method(issuer, metadata),
            scope=issuer.login_scope,
            redirect_uri=self._redirect_uri,
            code_challenge_method="S256",
            timeout=PROVIDER_S,
            follow_redirects=False,
            **({} if self._transport is None else {"transport": self._transport}),
        )


class _Refusal(Exception):
    """The token endpoint said no. error: a code of RFC 6749, 5.2."""

    def __init__(self, error: str) -> None:
        super().__init__(error)
        self.error = error


def _renewal(token: Mapping[str, Any], nonce: str) -> Renewal | None:
    given = token.get("refresh_token")
    if not isinstance(given, str) or not 0 < len(given) <= REFRESH_TOKEN_CHARS_MAX:
        return None
    return Renewal(given, nonce)


def endpoint(metadata: Mapping[str, Any], name: str, issuer: LoginIssuer) -> str:
    """An endpoint of the discovery document. Raises ProviderRefused.

    It is https, unless the issuer itself is a plain one on this machine (for trying out).
    """
    found = metadata.get(name)
    parts = urlsplit(found) if isinstance(found, str) else urlsplit("")
    plain = urlsplit(issuer.url).scheme == "http" and parts.hostname in LOOPBACK
    if not parts.hostname or (parts.scheme != "https" and not (parts.scheme == "http" and plain)):
        raise ProviderRefused(f"{issuer.name} tells no {name} that can be used.")
    assert isinstance(found, str)
    return found


def printable(text: str, chars_max: int = 200) -> str:
    """What a provider says, as it may be shown: short, on one line."""
    return "".join(c if c.isprintable() else " " for c in text[:chars_max])


def _auth_method(issuer: LoginIssuer, metadata: Mapping[str, Any]) -> str:
    if issuer.client_secret is None:
        return "none"
    offered = metadata.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
    return "client_secret_basic" if "client_secret_basic" in offered else "client_secret_post"


def _check_sender(
    answer: Mapping[str, str], issuer: LoginIssuer, metadata: Mapping[str, Any]
) -> None:
    # RFC 9207: a provider that says who it is in its answers cannot be taken for another one.
    told = answer.get("iss")
    must = metadata.get("authorization_response_iss_parameter_supported") is True
    if (told is None and must) or (told is not None and told != issuer.url):
        raise ProviderRefused(f"The answer does not come from {issuer.name}.")


def _refusal(issuer: LoginIssuer, answer: Mapping[str, str]) -> str:
    words = printable(answer.get("error_description", ""))
    return f"{issuer.name} refuses the login: {printable(answer['error'])}. {words}".strip()
