"""Browser sessions kept true: what the identity provider says of who is logged in is asked anew.

A session says what its provider said at most SESSION_RENEWED_MS ago. Where the provider cannot be
asked, what it said last counts for SESSION_GRACE_MS; where it has ended the login, the session ends
here. What always holds: one question at a time per session on each server, and no request waits for
one longer than PROVIDER_S.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from muniment_auth.code_flow import PROVIDER_S, LoginEnded, LoginRefused, SignedIn
from muniment_auth.credentials import CredentialExpired
from muniment_auth.errors import ProviderUnavailable
from muniment_auth.sessions import Renewal, open_renewal, seal_renewal
from muniment_auth.tokens import Secret
from muniment_schemas.credential_events import SESSION
from muniment_schemas.envelope import WORKSPACE_DEFAULT, Actor
from muniment_services.domain.commands import Command
from muniment_services.domain.credential import KIND, Credential, RenewSession, RevokeCredential
from muniment_services.domain.errors import NotFound
from muniment_services.domain.limits import SESSION_GRACE_MS, SESSION_RENEWED_MS
from muniment_services.domain.principal import SignIn
from muniment_services.identities import sign_in_of
from muniment_services.log.base import LogError
from muniment_services.write import Caller

if TYPE_CHECKING:
    from collections.abc import Callable

    from muniment_services.api.services import Services

AGAIN_MS = 30_000
"""After a question that was not answered, the next one of that session waits for so long."""

OTHERS_S = 1.0
"""When the provider says that a login is over, another server gets so long to know better."""

ENDED = "the identity provider has ended the login"

_log = structlog.get_logger("muniment.auth")


class Renewals:
    """Which sessions are being asked about, and which must not be yet. Lives on one event loop."""

    def __init__(self, random: Callable[[int], bytes]) -> None:
        """random: so many random bytes."""
        self._random = random
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._not_before_ms: dict[str, int] = {}

    async def keep_true(self, services: Services, secret: Secret) -> None:
        """See that the session says what its provider says now, as far as that can be found out.

        secret: of a session that was just found good. Raises CredentialExpired when the session
        has ended, ProviderUnavailable when what is known is too old to count.
        """
        found = _session(services, secret)
        now_ms = services.now_ms()
        if now_ms < found.said.vouched_at_ms + SESSION_RENEWED_MS:
            return
        renewal = None if services.browser is None else _renewal(found, secret)
        if renewal is not None and now_ms >= self._not_before_ms.get(found.credential_id, 0):
            await self._ask_once(services, secret, found, renewal)
            found = _session(services, secret)
        if now_ms < found.said.vouched_at_ms + SESSION_GRACE_MS:
            return
        if renewal is None:
            raise CredentialExpired(found.credential_id)
        raise ProviderUnavailable(
            "the identity provider cannot be asked whether this login still counts; try again, or "
            "sign in again",
            AGAIN_MS // 1000,
        )

    async def _ask_once(
        self, services: Services, secret: Secret, found: Credential, renewal: Renewal
    ) -> None:
        credential_id = found.credential_id
        task = self._under_way.get(credential_id)
        if task is None:
            task = asyncio.create_task(self._ask(services, secret, found, renewal))
            self._under_way[credential_id] = task
            task.add_done_callback(lambda _: self._under_way.pop(credential_id))
        # The answer is for all who wait, and a refresh token that is used up must be replaced.
        await asyncio.shield(task)

    async def _ask(
        self, services: Services, secret: Secret, found: Credential, renewal: Renewal
    ) -> None:
        assert services.browser is not None
        try:
            async with asyncio.timeout(PROVIDER_S):
                signed_in = await services.browser.flow.renew(found.issuer, renewal)
            await self._renewed(services, secret, found, signed_in)
        except LoginEnded:
            await _ended(services, found)
        except (LoginRefused, LogError, TimeoutError) as error:
            now_ms = services.now_ms()
            waiting = {i: at_ms for i, at_ms in self._not_before_ms.items() if at_ms > now_ms}
            self._not_before_ms = {**waiting, found.credential_id: now_ms + AGAIN_MS}
            _log.warning(
                "a session was not renewed",
                session=found.credential_id,
                reason=str(error) or "the identity provider does not answer in time",
            )

    async def _renewed(
        self, services: Services, secret: Secret, found: Credential, signed_in: SignedIn
    ) -> None:
        principal, renewal = signed_in.principal, signed_in.renewal
        said = sign_in_of(principal)
        if principal.id != found.principal_id or said is None or renewal is None:
            raise LoginEnded("The identity provider answers about somebody else.")
        sealed = seal_renewal(secret, renewal, self._random)
        await _submit(services, found, _renewing(found, said, sealed))
        await services.identities.note_sign_in(principal)


def _session(services: Services, secret: Secret) -> Credential:
    found = services.fold.state.get(KIND, secret.id)
    if not isinstance(found, Credential) or found.revoked_at_ms is not None:
        raise CredentialExpired(secret.id)
    return found


def _renewal(found: Credential, secret: Secret) -> Renewal | None:
    sealed = found.renewal_sealed
    return None if sealed is None else open_renewal(secret, sealed)


def _renewing(found: Credential, said: SignIn, sealed: bytes) -> RenewSession:
    return RenewSession(credential_id=found.credential_id, sign_in=said, renewal_sealed=sealed)


async def _ended(services: Services, found: Credential) -> None:
    # Where each refresh token is good once, another server may have just used this one up.
    await asyncio.sleep(OTHERS_S)
    await services.caught_up()
    now = services.fold.state.get(KIND, found.credential_id)
    if isinstance(now, Credential) and now.version == found.version:
        await _submit(
            services, found, RevokeCredential(credential_id=found.credential_id, reason=ENDED)
        )


async def _submit(services: Services, found: Credential, command: Command) -> None:
    actor = Actor(
        principal_id=found.principal_id,
        client_id=found.client_id,
        auth_method=SESSION,
        token_id=found.credential_id,
    )
    caller = Caller(actor=actor, request_id="session renewal", workspace=WORKSPACE_DEFAULT)
    try:
        await services.writer.submit(caller, command, lambda _: b"")
    except NotFound:
        return  # It has just been ended by a request.
