"""The few pages of the login: HTML without scripts, under a policy that allows none."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from html import escape
from urllib.parse import urlencode

from muniment_services.api.routes import Answer, Headers

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:28rem;margin:15vh auto;padding:0 1rem}"
    "a,button{display:block;box-sizing:border-box;width:100%;margin:.75rem 0;padding:.7rem 1rem;"
    "border:1px solid #555;border-radius:.4rem;font:inherit;text-align:center;color:inherit;"
    "background:transparent;text-decoration:none;cursor:pointer}"
    ":root{color-scheme:light dark}"
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

NO_STORE: Headers = ((b"cache-control", b"no-store"),)


def choose(names: Iterable[str], return_to: str) -> Answer:
    """The identity providers to log in by."""
    links = "".join(
        f'<a href="/login?{escape(urlencode({"issuer": name, "return_to": return_to}))}">'
        f"Log in with {escape(name)}</a>"
        for name in names
    )
    return _page("Log in", links)


def problem(message: str, status: int, headers: Headers = ()) -> Answer:
    """Why a login did not come about, and how to try again."""
    return _page(
        "That did not work",
        f'<p>{escape(message)}</p><a href="/login">Log in</a>',
        status,
        headers,
    )


def log_out(name: str, csrf_token: str, leads_to: str | None) -> Answer:
    """The form that ends a session. leads_to: origin of the provider that it goes on to."""
    form = (
        f"<p>You are logged in as {escape(name)}.</p>"
        '<form method="post" action="/logout">'
        f'<input type="hidden" name="csrf_token" value="{escape(csrf_token)}">'
        "<button>Log out</button></form>"
    )
    return _page("Log out", form, leads_to=leads_to)


def logged_out(headers: Headers = ()) -> Answer:
    """The session has ended, or there was none."""
    return _page("Logged out", '<a href="/login">Log in</a>', headers=headers)


def redirect(url: str, headers: Headers = ()) -> Answer:
    """Send the browser elsewhere, with GET."""
    location = ((b"location", url.encode("ascii")),)
    return Answer(b"", 303, "text/plain; charset=utf-8", (*location, *NO_STORE, *headers))


def _page(
    title: str,
    content: str,
    status: int = 200,
    headers: Headers = (),
    leads_to: str | None = None,
) -> Answer:
    html = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)} · '
        'muniment</title><meta name="viewport" content="width=device-width">'
        f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>{content}</body></html>"
    )
    # Browsers hold what a form leads to against form-action as well, redirects included.
    targets = "'self'" if leads_to is None else f"'self' {leads_to}"
    policy = (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action {targets}; "
        "base-uri 'none'; frame-ancestors 'none'"
    )
    # With no-referrer browsers would send `Origin: null` from the form.
    return Answer(
        html.encode(),
        status,
        "text/html; charset=utf-8",
        (
            *NO_STORE,
            (b"content-security-policy", policy.encode("latin-1")),
            (b"referrer-policy", b"same-origin"),
            *headers,
        ),
    )
