"""Requests to handlers as the gateway makes them: authenticated by our own tokens and sessions."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from muniment_auth.credentials import CredentialError, CrossSiteRefused
from muniment_auth.permissions import Permission
from muniment_auth.policy import NOBODY as NOTHING
from muniment_auth.principal import NOBODY, Principal, local_principal
from muniment_schemas.envelope import WORKSPACE_DEFAULT
from muniment_services.api.app import ROUTES
from muniment_services.api.callers import LocalCallers
from muniment_services.api.errors import expected
from muniment_services.api.routes import Answer, Call, RouteTable
from muniment_services.api.services import Services
from muniment_services.authority import Authority
from muniment_services.metrics import Metrics
from muniment_services.startup import Startup
from muniment_services.write import Caller

HOST = "muniment.example"
PUBLIC_URL = f"https://{HOST}"
TABLE = RouteTable(ROUTES)


@dataclass(frozen=True)
class Answered:
    """What a request led to."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    def header(self, name: str) -> str:
        """The one value of a header; empty when there is none."""
        found = self.all(name)
        assert len(found) <= 1, found
        return found[0] if found else ""

    def all(self, name: str) -> list[str]:
        """All values of a header."""
        return [value for key, value in self.headers if key == name]


@dataclass
class Door:
    """Asks handlers. principal: who calls where neither token nor cookie says it."""

    services: Services
    principal: Principal | None = field(default_factory=lambda: local_principal("tester"))

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, str] | str = "",
        headers: Mapping[str, str] | None = None,
        token: str | None = None,
        key: str | None = None,
    ) -> Answered:
        """One request. body: JSON, or bytes as they are. key: an Idempotency-Key."""
        found = TABLE.find(method, path)
        assert found is not None, path
        route, params = found
        given = {"host": HOST, **(headers or {})}
        if token is not None:
            given["authorization"] = f"Bearer {token}"
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            given.setdefault("content-type", "application/json")
        encoded = {k.encode(): v.encode("latin-1") for k, v in given.items()}
        text = query if isinstance(query, str) else urlencode(query)
        try:
            principal = None
            if route.permission is not Permission.PUBLIC:
                principal = self._principal(method, encoded)
            call = self._call(
                principal,
                route.permission,
                method,
                params,
                text.encode(),
                encoded,
                body or b"",
                key,
            )
            answer = await route.handler(call)
        except CrossSiteRefused as refused:
            return Answered(403, (), json.dumps({"reason": refused.reason}).encode())
        except CredentialError as refused:
            return Answered(401, (), json.dumps({"reason": refused.reason}).encode())
        except Exception as error:
            refusal = expected(error)
            if refusal is None:
                raise
            answer = Answer(refusal.body, refusal.status, headers=refusal.headers)
        if isinstance(answer, bytes):
            answer = Answer(answer)
        assert isinstance(answer.body, bytes)
        told = tuple((name.decode(), value.decode()) for name, value in answer.headers)
        return Answered(answer.status, (("content-type", answer.content_type), *told), answer.body)

    def _principal(self, method: str, headers: Mapping[bytes, bytes]) -> Principal | None:
        now_ms = self.services.now_ms()
        bearer = headers.get(b"authorization", b"").decode("latin-1")
        if bearer:
            text = bearer.removeprefix("Bearer ")
            return self.services.credentials.authenticate_token(text, now_ms)
        cookies = headers.get(b"cookie", b"").decode("latin-1")
        found = self.services.credentials.authenticate_session(cookies, method, headers, now_ms)
        return found or self.principal

    def _call(
        self,
        principal: Principal | None,
        permission: Permission,
        method: str,
        params: Mapping[str, str],
        query: bytes,
        headers: Mapping[bytes, bytes],
        body: bytes,
        key: str | None,
    ) -> Call:
        who = principal or NOBODY
        access = NOTHING if principal is None else self.services.accesses.of(principal)
        authority = Authority(lambda: access, permission, self.services.now_ms)
        caller = Caller(
            actor=who.actor,
            request_id="r",
            workspace=WORKSPACE_DEFAULT,
            idempotency_key=key,
            authority=authority,
        )
        return Call(
            started=self.services,
            startup=Startup(),
            metrics=Metrics(),
            caller=caller,
            method=method,
            path_params=params,
            query=query,
            headers=headers,
            body=body,
            callers=LocalCallers(who),
            principal=who,
            authority=authority,
        )

    def at(self, now_ms: int) -> Door:
        """The same at another time."""
        return Door(dataclasses.replace(self.services, now_ms=lambda: now_ms), self.principal)
