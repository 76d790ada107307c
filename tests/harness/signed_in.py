"""A server that asks who calls, and an identity provider that says so; both in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from harness.begun import begun
from harness.tokens import AUDIENCE, Provider, reached
from muniment_auth.authenticate import Authenticator
from muniment_auth.principal import principal_id
from muniment_services import bootstrap
from muniment_services.api.app import build
from muniment_services.api.callers import SignedInCallers
from muniment_services.api.gateway import Gateway
from muniment_services.api.hosts import HostCheck
from muniment_services.config import Settings

ADMINS = "admins"
MLFLOW = "/api/2.0/mlflow/"
GRANTS = "/api/v1/access/grants"


class Served:
    """The server. `ask` sends a request as somebody and waits for the answer."""

    def __init__(self, gateway: Gateway, provider: Provider, loop: asyncio.AbstractEventLoop):
        self.gateway = gateway
        self.provider = provider
        self.loop = loop
        self._http = httpx.AsyncClient(
            transport=httpx.ASGITransport(gateway), base_url="http://localhost:5000"
        )
        self.folder = ""
        """Of a run's artifacts, once a test has made one."""
        self._tokens: dict[tuple[str, tuple[str, ...]], str] = {}

    def token(self, who: str, *groups: str) -> str:
        """The token of a person; the same one each time."""
        if (who, groups) not in self._tokens:
            made = self.provider.token(sub=who, groups=list(groups))
            self._tokens[(who, groups)] = made
        return self._tokens[(who, groups)]

    def ask(
        self, who: str | None, method: str, path: str, json: Any = None, **options: Any
    ) -> httpx.Response:
        """The answer. who: a name, `admin` (in the admins' group), or None for no token at all."""
        headers = dict(options.pop("headers", {}))
        if who is not None:
            groups = (ADMINS,) if who == "admin" else ()
            headers["authorization"] = f"Bearer {self.token(who, *groups)}"
        if json is not None:
            options["json"] = json
        return self.loop.run_until_complete(
            self._http.request(method, path, headers=headers, **options)
        )

    def grant(self, who: str, role: str, kind: str, pattern: str, **more: Any) -> str:
        """Give a person a role, as an admin; the grant's id."""
        body = {
            "subject_kind": "principal",
            "subject": principal_id(self.provider.url, who),
            "role": role,
            "resource_kind": kind,
            "pattern": pattern,
            **more,
        }
        if kind in ("server", "*"):
            body.setdefault("workspace", "*")
        answer = self.ask("admin", "POST", GRANTS, body)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["grant"]["grant_id"])


@contextmanager
def served(data_dir: Path, *beside: Provider, **settings: Any) -> Iterator[Served]:
    """A running server with an issuer, in whose group ADMINS the admins are, and others beside."""
    provider = Provider("keycloak")
    providers = (provider, *beside)
    authenticator = Authenticator([one.issuer() for one in providers], reached(*providers))
    chosen = Settings(
        data_dir=begun(data_dir),
        issuer=provider.url,
        audience=AUDIENCE,
        admin_group=ADMINS,
        **settings,
    )
    gateway = build(
        lambda: bootstrap.services(chosen, verifier=authenticator),
        HostCheck(()),
        SignedInCallers(authenticator),
        workspaces_on=chosen.workspaces,
    )
    loop = asyncio.new_event_loop()
    ending = asyncio.Event()
    began = False

    async def receive() -> dict[str, str]:
        nonlocal began
        if not began:
            began = True
            return {"type": "lifespan.startup"}
        await ending.wait()
        return {"type": "lifespan.shutdown"}

    async def send(_: Any) -> None:
        return None

    async def start() -> asyncio.Task[None]:
        task = asyncio.ensure_future(gateway({"type": "lifespan"}, receive, send))
        while gateway.services is None and gateway.startup.failure is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        return task

    task = loop.run_until_complete(start())
    assert gateway.startup.failure is None, gateway.startup.failure
    try:
        yield Served(gateway, provider, loop)
    finally:
        ending.set()
        loop.run_until_complete(task)
        loop.close()
