"""Every route for every role: what is decided is what the table says, and nothing else.

Each built-in role is granted to one person on everything of its kinds. Then every route that there
is gets called as each of them. A call that the role's permissions do not cover answers 403; one
that they do cover is answered by its handler, whatever it says of the (empty) request.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from harness.signed_in import MLFLOW, Served, served
from muniment_auth.permissions import ROLES, Permission
from muniment_services.api.app import ROUTES
from muniment_services.api.routes import Route

OWNED = ROLES["manager"]
"""What everybody holds on what they make: so the door cannot refuse it before it knows on what."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("data"), workspaces=True) as running:
        for role in ROLES:
            running.grant(role, role, "*", "*")
        run = running.ask("admin", "POST", f"{MLFLOW}runs/create", {"experiment_id": "0"})
        running.folder = f"0/{run.json()['run']['info']['run_id']}/artifacts"
        yield running


def call(server: Served, who: str | None, route: Route) -> tuple[int, str]:
    """Status and text of the answer to an all but empty request, on a file of a run's."""
    folder = server.folder
    path = re.sub(r"\{\w+\}", "1", route.path.replace("{path:path}", f"{folder}/x"))
    path = re.sub(r"\{\w+:path\}", "1", path)
    body: dict[str, str] | None = {} if route.method in ("POST", "PUT", "PATCH", "DELETE") else None
    if path.endswith("mlflow-artifacts/artifacts"):
        path += f"?path={folder}"
    if "/mpu/" in path:
        body = {"path": "x"}
    answer = server.ask(who, route.method, path, body)
    return answer.status_code, answer.text


@pytest.mark.parametrize("route", ROUTES, ids=lambda r: f"{r.method} {r.path}")
def test_without_a_token_only_what_is_public_answers(server: Served, route: Route) -> None:
    status, text = call(server, None, route)
    if route.permission is Permission.PUBLIC:
        assert "UNAUTHENTICATED" not in text
    else:
        assert status == 401, text
        assert "UNAUTHENTICATED" in text


@pytest.mark.parametrize("path", ["/nope", "/api/2.0/mlflow/nope", "/docs", "/openapi.json", "/"])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "TRACE", "DELETE"])
def test_unknown_paths_tell_nothing_without_a_token(server: Served, method: str, path: str) -> None:
    answer = server.ask(None, method, path)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer resource_metadata=")
    assert server.ask("viewer", method, path).status_code in (404, 405)


NOTHING_TOLD = ("{}", '{"traces_deleted":0}', "", '{"grants":[]}')


def tells_nothing(text: str) -> bool:
    """Whether an answer is that of somebody to whom there is nothing. It may say of what moment."""
    return text in NOTHING_TOLD or text.endswith('"models":[]}')


DESTRUCTIVE = ("/api/v1/projections/rebuild", "/api/v1/snapshots")

ENDLESS = "/api/v1/audit/stream"


@pytest.mark.parametrize("role", ROLES)
def test_a_role_gets_through_where_it_may_and_nowhere_else(server: Served, role: str) -> None:
    held = ROLES[role]
    wrong = []
    for route in ROUTES:
        permission = route.permission
        if route.path == ENDLESS and permission in held:
            continue  # Its answer has no end (tests/unit/api/test_audit.py reads it).
        if permission in (Permission.PUBLIC, Permission.SELF_USE) or route.path in DESTRUCTIVE:
            continue
        status, text = call(server, role, route)
        assert status not in (401, 500, 503), f"{route}: {text}"
        refused = status >= 400 and "PERMISSION_DENIED" in text
        if permission in held:
            if refused:
                wrong.append(f"{role} is refused {route.method} {route.path}: {text}")
        elif permission not in OWNED and not refused:
            wrong.append(f"{role} is let into {route.method} {route.path}: {text}")
        elif permission not in held and status < 400 and not tells_nothing(text):
            wrong.append(f"{role} is told by {route.method} {route.path}: {text}")
    assert wrong == []
