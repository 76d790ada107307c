"""An application, identity providers and browsers, for logins from end to end without a socket."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.begun import begun
from harness.door import PUBLIC_URL, Answered, Door
from harness.provider import FakeIssuer, FakeProvider, TokenRefused
from muniment_auth.code_flow import CodeFlow
from muniment_auth.sessions import LoginCookies
from muniment_schemas.credential_events import SESSION
from muniment_services import bootstrap
from muniment_services.api.services import BrowserLogin, Services
from muniment_services.clock import now_ms
from muniment_services.config import Settings
from muniment_services.domain.credential import KIND, Credential

CORP = FakeIssuer("corp", "https://id.example")
PARTNER = FakeIssuer("Partner & Co", "https://partner.example", client_secret="s3cret")
KEY = bytes(32)
ORIGIN = {"origin": PUBLIC_URL}


@dataclass
class Browser:
    """A browser: it keeps cookies and follows nothing by itself."""

    door: Door
    provider: FakeProvider
    cookies: dict[str, str] = field(default_factory=dict)

    async def ask(self, method: str, path: str, body: Any = None, **given: Any) -> Answered:
        """One request, with the cookies; those of the answer are kept."""
        headers = dict(given.pop("headers", {}))
        if self.cookies:
            headers["cookie"] = "; ".join(f"{k}={v}" for k, v in self.cookies.items())
        answer = await self.door.ask(method, path, body, headers=headers, **given)
        for set_cookie in answer.all("set-cookie"):
            name, _, value = set_cookie.partition(";")[0].partition("=")
            if value:
                self.cookies[name] = value
            else:
                self.cookies.pop(name, None)
        return answer

    async def log_in(self, **query: str) -> Answered:
        """The whole way; the answer of the callback."""
        begun = await self.ask("GET", "/login", query=query)
        assert begun.status == 303, begun.body
        back = self.provider.agree(begun.header("location"))
        return await self.ask("GET", "/login/callback", query=back)

    async def who(self) -> dict[str, Any]:
        """What whoami says, and its status."""
        answer = await self.ask("GET", "/api/v1/whoami")
        return {"status": answer.status, **answer.json}


@dataclass
class Stage:
    """A running application that one can log in to."""

    services: Services
    provider: FakeProvider

    def browser(self, cookies: dict[str, str] | None = None, now_ms: int | None = None) -> Browser:
        """A browser with these cookies, at this time."""
        door = Door(self.services, principal=None)
        return Browser(
            door if now_ms is None else door.at(now_ms), self.provider, dict(cookies or {})
        )

    def sessions(self) -> list[Credential]:
        """All sessions that the server has in memory."""
        return [
            found
            for found in self.services.fold.state.of_kind(KIND)
            if isinstance(found, Credential) and found.credential_kind == SESSION
        ]


def browser_login(provider: FakeProvider) -> BrowserLogin:
    """What an application needs so that one can log in at the provider."""
    flow = CodeFlow(
        provider,
        provider.issuers,
        f"{PUBLIC_URL}/login/callback",
        now_ms,
        os.urandom,
        (TokenRefused,),
        provider.transport,
    )
    return BrowserLogin(flow, LoginCookies(KEY, os.urandom), PUBLIC_URL)


def on_stage(folder: Path, test: Callable[[Stage], Awaitable[None]], *issuers: FakeIssuer) -> None:
    """Run a test on an application with these identity providers."""

    async def main() -> None:
        provider = FakeProvider({issuer.name: issuer for issuer in issuers or (CORP,)})
        async with bootstrap.services(Settings(data_dir=begun(folder))) as services:
            whole = dataclasses.replace(services, browser=browser_login(provider))
            await test(Stage(whole, provider))

    asyncio.run(main())
