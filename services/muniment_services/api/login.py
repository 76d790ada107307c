"""Login by browser: to an identity provider, back with a session, and out again.

What always holds: every login makes a new session, and the one that the browser had before ends; a
browser is sent nowhere but to the provider and to paths of this server.
"""

from __future__ import annotations

import dataclasses
from urllib.parse import parse_qsl, urlsplit

from muniment_auth import sessions, tokens
from muniment_auth.code_flow import (
    ANSWER_CHARS_MAX,
    LoginRefused,
    LoginUnknown,
    ProviderUnreachable,
    SignedIn,
)
from muniment_auth.credentials import CredentialError, CrossSiteRefused
from muniment_auth.permissions import Permission as P
from muniment_auth.principal import Principal
from muniment_auth.sessions import LOGIN_COOKIE, SESSION_COOKIE
from muniment_schemas.credential_events import SESSION
from muniment_services.api import login_pages as pages
from muniment_services.api import wire
from muniment_services.api.issuing import Wish, issue, refuse_delegated
from muniment_services.api.routes import Answer, Call, Headers, Route
from muniment_services.authority import Denied
from muniment_services.domain.credential import KIND, Credential, RevokeCredential, of_principal
from muniment_services.domain.errors import NotFound
from muniment_services.domain.limits import SESSION_GRACE_MS, SESSION_LIFE_MS
from muniment_services.write import Caller

RETURN_TO_DEFAULT = "/api/v1/whoami"
"""Where a browser is sent after its login when it asked for nothing else."""

SESSIONS_KEPT_MAX = 20
"""Browsers of one principal that are logged in at once; the longest logged in is logged out."""

NOBODY_LOGS_IN = (
    "Nobody can log in here by browser: start the server with --login-client, its own client id at "
    "the identity provider (client_id in [[issuers]])."
)

_FORM = "application/x-www-form-urlencoded"


async def log_in(call: Call) -> Answer:
    """GET /login: on to the identity provider, or a page to choose one.

    issuer: its name. return_to: path of this server to come back to.
    """
    browser = call.services.browser
    if browser is None or not browser.flow.issuers:
        return pages.problem(NOBODY_LOGS_IN, 404)
    query = dict(_pairs(call.query))
    return_to = query.get("return_to") or RETURN_TO_DEFAULT
    if not sessions.local_path(return_to):
        return pages.problem("return_to must be a path of this server.", 400)
    names = list(browser.flow.issuers)
    name = query.get("issuer") or (names[0] if len(names) == 1 else None)
    if name is None:
        return pages.choose(names, return_to)
    if name not in browser.flow.issuers:
        return pages.problem("There is no such identity provider here.", 404)
    try:
        url, login = await browser.flow.begin(name, return_to)
    except LoginRefused as refused:
        return _refusal(call, refused)
    return pages.redirect(url, _cookies(browser.cookies.set(login)))


async def come_back(call: Call) -> Answer:
    """GET /login/callback: the provider's answer; a new session, and on to `return_to`."""
    browser = call.services.browser
    if browser is None:
        return pages.problem(NOBODY_LOGS_IN, 404)
    pairs = _pairs(call.query) if len(call.query) <= ANSWER_CHARS_MAX else []
    answer = dict(pairs)
    login = browser.cookies.get(_cookie_header(call), call.services.now_ms())
    try:
        if len(answer) != len(pairs):
            raise LoginUnknown("This answer says the same thing twice.")
        signed_in = await browser.flow.finish(login, answer)
    except LoginRefused as refused:
        return _refusal(call, refused)
    assert login is not None
    gone = sessions.clear(LOGIN_COOKIE)
    try:
        cookie = await _begin_session(call, signed_in)
    except Denied as denied:
        return pages.problem(f"Not logged in: {denied.reason}.", 403, _cookies(gone))
    headers = (*_cookies(cookie, gone), (b"referrer-policy", b"no-referrer"))
    return pages.redirect(login.return_to, headers)


async def ask_log_out(call: Call) -> Answer:
    """GET /logout: a form, since a link must not be able to log anybody out."""
    principal = _session(call, "GET", b"")
    secret = _secret(call)
    if principal is None or secret is None:
        return pages.logged_out()
    named = await call.services.identities.named(principal)
    url = await _end_session_url(call, principal)
    leads_to = None
    if url is not None:
        parts = urlsplit(url)
        leads_to = f"{parts.scheme}://{parts.netloc}"
    return pages.log_out(named.name, sessions.csrf_token(secret), leads_to)


async def log_out(call: Call) -> Answer:
    """POST /logout: the session ends here at once; the answer leads to the provider's own logout.

    A form is sent on to it; others get `{"end_session_url"}`, null where there is none.
    """
    form = (call.content_type or "").partition(";")[0].strip() == _FORM
    given = dict(_pairs(call.body)).get("csrf_token", "") if form else ""
    csrf = given.encode() or call.headers.get(sessions.CSRF_HEADER, b"")
    try:
        principal = _session(call, "POST", csrf)
    except CrossSiteRefused as refused:
        return pages.problem(str(refused), 403)
    cleared = _cookies(sessions.clear(SESSION_COOKIE))
    url = None
    if principal is not None and principal.token_id is not None:
        await _revoke(call, _as(call.caller, principal), principal.token_id, "logout")
        url = await _end_session_url(call, principal)
    if not form:
        body = wire.encode({"end_session_url": url})
        return Answer(body, headers=(*pages.NO_STORE, *cleared))
    return pages.logged_out(cleared) if url is None else pages.redirect(url, cleared)


async def _begin_session(call: Call, signed_in: SignedIn) -> str:
    # The Set-Cookie value of a new session. What this browser had before ends. Raises Denied.
    principal = dataclasses.replace(signed_in.principal, auth_method=SESSION, token_id=None)
    refuse_delegated(principal.actor)
    services, caller = call.services, _as(call.caller, principal)
    await services.identities.register_once(principal, anew=True)
    await services.identities.note_sign_in(principal)
    await services.caught_up()
    await _end_old_session(call, caller)
    await _make_room(call, caller, principal)
    life_ms = SESSION_GRACE_MS if signed_in.renewal is None else SESSION_LIFE_MS
    wish = Wish(
        kind=SESSION,
        name="browser",
        expires_at_ms=services.now_ms() + life_ms,
        scopes=principal.scopes,
        renewal=signed_in.renewal,
    )
    secret, _ = await issue(services.writer, caller, principal, wish, None)
    return sessions.set_session(secret, life_ms // 1000)


async def _end_old_session(call: Call, caller: Caller) -> None:
    secret = _secret(call)
    found = None if secret is None else call.services.fold.state.get(KIND, secret.id)
    if not isinstance(found, Credential) or secret is None:
        return
    # Its id alone, which is no secret, must not be enough to end a session.
    if found.credential_kind == SESSION and secret.fits(found.secret_sha256):
        await _revoke(call, caller, found.credential_id, "a new login in the same browser")


async def _make_room(call: Call, caller: Caller, principal: Principal) -> None:
    now_ms = call.services.now_ms()
    mine = [
        found
        for found in of_principal(call.services.fold.state, principal.id)
        if found.credential_kind == SESSION
    ]
    live = [found for found in mine if found.is_live(now_ms)]
    for found in mine:
        if not found.is_live(now_ms):
            await _revoke(call, caller, found.credential_id, "expired")
    for found in live[: max(0, len(live) - SESSIONS_KEPT_MAX + 1)]:
        await _revoke(call, caller, found.credential_id, "too many sessions")


async def _revoke(call: Call, caller: Caller, credential_id: str, reason: str) -> None:
    command = RevokeCredential(credential_id=credential_id, reason=reason)
    try:
        await call.services.writer.submit(caller, command, lambda _: b"")
    except NotFound:
        return  # Another request has just ended it.


async def _end_session_url(call: Call, principal: Principal) -> str | None:
    browser = call.services.browser
    if browser is None:
        return None
    try:
        return await browser.flow.end_session_url(principal.issuer, f"{browser.public_url}/logout")
    except LoginRefused:
        return None  # The session has ended here all the same.


def _session(call: Call, method: str, csrf: bytes) -> Principal | None:
    """Whose session it is; None for none, and for one that has ended. Raises CrossSiteRefused."""
    credentials = call.services.credentials
    cookies, now_ms = _cookie_header(call), call.services.now_ms()
    try:
        return credentials.session_of(cookies, method, call.headers, now_ms, csrf)
    except CrossSiteRefused:
        raise
    except CredentialError:
        return None


def _secret(call: Call) -> tokens.Secret | None:
    return sessions.session_secret(_cookie_header(call))


def _as(caller: Caller, principal: Principal) -> Caller:
    return dataclasses.replace(
        caller,
        actor=principal.actor,
        groups=principal.groups,
        claims=principal.claims,
        idempotency_key=None,
        request=b"",
    )


def _refusal(call: Call, refused: LoginRefused) -> Answer:
    call.authority.refusal = str(refused)
    status = 502 if isinstance(refused, ProviderUnreachable) else 400
    return pages.problem(str(refused), status, _cookies(sessions.clear(LOGIN_COOKIE)))


def _cookies(*values: str) -> Headers:
    return tuple((b"set-cookie", value.encode("ascii")) for value in values)


def _cookie_header(call: Call) -> str:
    return call.headers.get(b"cookie", b"").decode("latin-1")


def _pairs(query: bytes) -> list[tuple[str, str]]:
    return parse_qsl(query.decode("latin-1"), keep_blank_values=True, errors="replace")


ROUTES = (
    Route("GET", "/login", P.PUBLIC, log_in),
    Route("GET", "/login/callback", P.PUBLIC, come_back),
    Route("GET", "/logout", P.PUBLIC, ask_log_out),
    Route("POST", "/logout", P.PUBLIC, log_out),
)
