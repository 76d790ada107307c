"""Somebody who must not be let in any more: all that was given here ends by one command."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.signed_in import GRANTS, MLFLOW, Served, served
from muniment_auth.principal import principal_id

CREATE = f"{MLFLOW}experiments/create"
PRINCIPALS = "/api/v1/access/principals"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("cut-off")) as found:
        yield found


def id_of(server: Served, who: str) -> str:
    return str(principal_id(server.provider.url, who))


def test_tokens_and_grants_end_at_once(server: Served) -> None:
    first = server.grant("mallory", "editor", "experiment", "m-*")
    second = server.grant("mallory", "admin", "*", "*")
    made = server.ask("mallory", "POST", "/api/v1/tokens", {"name": "laptop"}).json()
    job = server.ask("mallory", "POST", "/api/v1/service-tokens", {"name": "job"}).json()
    own = {"authorization": f"Bearer {made['secret']}"}
    assert server.ask(None, "POST", CREATE, {"name": "m-1"}, headers=own).status_code == 200

    path = f"{PRINCIPALS}/{id_of(server, 'mallory')}?reason=left"
    done = server.ask("admin", "DELETE", path)
    assert done.status_code == 200, done.text
    assert done.json()["credentials"] == [made["token"]["id"]]
    assert sorted(done.json()["grants"]) == sorted([first, second])
    assert done.json()["left"] == [f"the token {job['token']['id']} of job, which it made"]

    assert server.ask(None, "POST", CREATE, {"name": "m-2"}, headers=own).status_code == 401
    assert server.ask("mallory", "POST", CREATE, {"name": "m-2"}).status_code == 403
    listed = server.ask("admin", "GET", f"{GRANTS}?principal={id_of(server, 'mallory')}").json()
    assert listed["grants"] == []
    again = server.ask("admin", "DELETE", path).json()
    assert (again["credentials"], again["grants"]) == ([], [])


def test_only_admins_cut_anybody_off_and_only_whom_there_is(server: Served) -> None:
    server.grant("manager", "manager", "experiment", "*")
    path = f"{PRINCIPALS}/{id_of(server, 'admin')}"
    assert server.ask("manager", "DELETE", path).status_code == 403
    assert server.ask("admin", "DELETE", f"{PRINCIPALS}/{'0' * 32}").status_code == 404


@pytest.mark.parametrize(
    ("holder", "said"),
    [
        ({"subject_kind": "group", "subject": "ml", "issuer": "https://other.test"}, "kc.test"),
        ({"subject_kind": "group", "subject": "ml", "issuer": "{url}/"}, "exactly as written"),
        ({"subject_kind": "principal", "subject": "ana@corp.test"}, "32 hex digits"),
    ],
)
def test_a_grant_that_nobody_could_hold_is_refused(
    server: Served, holder: dict[str, str], said: str
) -> None:
    given = {k: v.replace("{url}", server.provider.url) for k, v in holder.items()}
    body = {"role": "viewer", "resource_kind": "experiment", "pattern": "x", **given}
    refused = server.ask("admin", "POST", GRANTS, body)
    assert refused.status_code == 400
    assert said in refused.json()["message"]


def test_a_request_that_says_two_things_is_refused(server: Served) -> None:
    token = f"Bearer {server.token('admin', 'admins')}"
    path = f"{MLFLOW}experiments/search"
    for name, one, other in (
        ("Authorization", token, "Bearer other"),
        ("X-MLFLOW-WORKSPACE", "a", "b"),
    ):
        base = [] if name == "Authorization" else [("Authorization", token)]
        for values in ((one, other), (other, one)):
            headers = [*base, *((name, value) for value in values)]
            answer = raw(server, path, headers)
            assert answer == 400, name
    same = [("Authorization", token)] * 2
    assert raw(server, path, [*same, ("Accept", "a"), ("Accept", "b")]) == 200


def test_a_body_that_says_two_things_is_refused(server: Served) -> None:
    def status(who: str, method: str, path: str, body: str) -> int:
        headers = {"content-type": "application/json"}
        return server.ask(who, method, path, content=body.encode(), headers=headers).status_code

    for what in ("create", "approve", "reject"):
        body = '{"name": "m", "version": "1", "stage": "Staging", "stage": "Production"}'
        assert status("admin", "POST", f"{MLFLOW}transition-requests/{what}", body) == 400
    mlflows = '{"name": "twice-a", "name": "twice-b"}'  # The last one counts there.
    assert status("admin", "POST", CREATE, mlflows) == 200
    policy = '{"pattern": "x", "approvals": 2, "stages": ["Production"], "approvals": 0}'
    assert status("admin", "PUT", "/api/v1/policies/promotion/twice", policy) == 400


def raw(server: Served, path: str, headers: list[tuple[str, str]]) -> int:
    """Status of an answer to a request with exactly these headers."""
    asked = server._http.post(path, json={"max_results": 1}, headers=headers)
    return server.loop.run_until_complete(asked).status_code


def test_mlflow_without_the_plugin_hears_of_it(server: Served) -> None:
    def message(agent: str) -> str:
        headers = {"user-agent": agent}
        answer = server.ask(None, "GET", f"{MLFLOW}experiments/search", headers=headers)
        assert answer.status_code == 401
        return str(answer.json()["message"])

    assert "install it" in message("mlflow-python-client/3.17.0")
    assert "install it" not in message("mlflow-python-client/3.17.0 muniment-client/1.0")
    assert "install it" not in message("curl/8")


def test_databricks_sdk_hears_that_this_is_no_databricks(server: Served) -> None:
    answer = server.ask(None, "GET", "/.well-known/databricks-config")
    assert answer.status_code == 404
    assert server.ask(None, "GET", "/.well-known/other").status_code == 401
