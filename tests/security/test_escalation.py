"""Ways to more than one was given: each is tried, and leads nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from harness.signed_in import GRANTS, MLFLOW, Served, served
from muniment_auth.principal import principal_id

V3 = "/api/3.0/mlflow/"
NUMBERS = count()
PROXY = "/api/2.0/mlflow-artifacts/artifacts/"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`eve` may edit experiments and models named `eve-*`, nothing else; `admin` has `secret`."""
    with served(tmp_path_factory.mktemp("data")) as running:
        running.grant("eve", "editor", "experiment", "eve-*")
        running.grant("eve", "editor", "model", "eve-*")
        yield running


class World:
    """What there is: an experiment, a run, a model of the admin's, and the same of eve's."""

    def __init__(self, server: Served, tmp: str) -> None:
        self.server = server
        self.secret = self.experiment("admin", f"secret-{tmp}")
        self.own = self.experiment("eve", f"eve-{tmp}")
        self.secret_run, self.own_run = self.run("admin", self.secret), self.run("eve", self.own)
        self.secret_model, self.own_model = f"secret-{tmp}", f"eve-{tmp}"
        for who, model, run, of in (
            ("admin", self.secret_model, self.secret_run, self.secret),
            ("eve", self.own_model, self.own_run, self.own),
        ):
            self.ok(who, "POST", "registered-models/create", {"name": model})
            path = f"{of}/{run}/artifacts/m/MLmodel"
            assert server.ask(who, "PUT", PROXY + path, content=b"x").status_code == 200
            source = f"mlflow-artifacts:/{of}/{run}/artifacts/m"
            version = {"name": model, "source": source, "run_id": run}
            self.ok(who, "POST", "model-versions/create", version)

    def experiment(self, who: str, name: str) -> str:
        return str(self.ok(who, "POST", "experiments/create", {"name": name})["experiment_id"])

    def run(self, who: str, experiment_id: str) -> str:
        made = self.ok(who, "POST", "runs/create", {"experiment_id": experiment_id})
        return str(made["run"]["info"]["run_id"])

    def ok(self, who: str, method: str, path: str, body: Any = None) -> dict[str, Any]:
        answer = self.server.ask(who, method, MLFLOW + path, body)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def eve(self, method: str, path: str, body: Any = None, **options: Any) -> httpx.Response:
        whole = path if path.startswith("/") else MLFLOW + path
        return self.server.ask("eve", method, whole, body, **options)


@pytest.fixture
def world(server: Served) -> World:
    return World(server, str(next(NUMBERS)))


def refused(answer: httpx.Response) -> bool:
    """Whether it says no, in one of the ways that there are; never with a fault of ours."""
    assert answer.status_code != 500, answer.text
    return answer.status_code in (400, 403, 404)


def me(server: Served) -> str:
    return principal_id(server.provider.url, "eve")


@pytest.mark.parametrize(
    "grant",
    [
        {"role": "admin", "resource_kind": "*", "pattern": "*", "workspace": "*"},
        {"role": "admin", "resource_kind": "server", "pattern": "*", "workspace": "*"},
        {"role": "manager", "resource_kind": "experiment", "pattern": "eve-*"},
        {"role": "manager", "resource_kind": "model", "pattern": "*"},
        {"role": "viewer", "resource_kind": "experiment", "pattern": "secret-*"},
        {"role": "editor", "resource_kind": "experiment", "pattern": "*"},
        {"role": "approver", "resource_kind": "model", "pattern": "eve-*"},
    ],
)
def test_nobody_grants_oneself_what_one_has_not(
    world: World, server: Served, grant: dict[str, str]
) -> None:
    answer = world.eve(
        "POST", GRANTS, {"subject_kind": "principal", "subject": me(server), **grant}
    )
    assert answer.status_code == 403, answer.text
    everyone = world.eve("POST", GRANTS, {"subject_kind": "everyone", **grant})
    assert everyone.status_code == 403


def test_nobody_defines_a_role_to_have_more(world: World) -> None:
    body = {"permissions": ["server:admin"]}
    assert world.eve("PUT", "/api/v1/access/roles/mine", body).status_code == 403
    assert world.eve("PUT", "/api/v1/access/roles/editor", body).status_code == 403


def test_the_creator_of_a_thing_manages_that_thing_alone(world: World, server: Served) -> None:
    ben = principal_id(server.provider.url, "ben")
    share = {"subject_kind": "principal", "subject": ben, "role": "viewer"}
    own = {**share, "resource_kind": "experiment", "pattern": f"id:{world.own}"}
    assert world.eve("POST", GRANTS, own).status_code == 200
    others = {**share, "resource_kind": "experiment", "pattern": f"id:{world.secret}"}
    assert world.eve("POST", GRANTS, others).status_code in (403, 404)


def test_a_thing_is_not_renamed_into_a_pattern(world: World, server: Served) -> None:
    rename = {"experiment_id": world.own, "new_name": f"secret-taken-{world.own}"}
    assert world.eve("POST", "experiments/update", rename).status_code == 403
    model = {"name": world.own_model, "new_name": f"secret-taken-{world.own}"}
    assert world.eve("POST", "registered-models/rename", model).status_code == 403
    back = {"experiment_id": world.secret, "new_name": f"eve-stolen-{world.own}"}
    assert refused(world.eve("POST", "experiments/update", back))
    stolen = {"name": world.secret_model, "new_name": f"eve-stolen-{world.own}"}
    assert refused(world.eve("POST", "registered-models/rename", stolen))


@pytest.mark.parametrize(
    "source", ["models:/{secret}/1", "models:/{secret}@a", "models:/{secret}/None"]
)
def test_a_version_is_not_copied_out_of_a_model_that_one_may_not_read(
    world: World, source: str
) -> None:
    version = {"name": world.own_model, "source": source.format(secret=world.secret_model)}
    answer = world.eve("POST", "model-versions/create", version)
    assert refused(answer)
    assert world.secret_run not in answer.text


def test_a_version_is_not_made_of_a_run_that_one_may_not_read(world: World) -> None:
    source = f"mlflow-artifacts:/{world.secret}/{world.secret_run}/artifacts/m"
    for version in (
        {"name": world.own_model, "source": source, "run_id": world.secret_run},
        {"name": world.own_model, "source": source, "run_id": world.own_run},
        {
            "name": world.own_model,
            "source": f"runs:/{world.secret_run}/m",
            "run_id": world.secret_run,
        },
        {"name": world.own_model, "source": "s3://bucket/x", "run_id": world.secret_run},
    ):
        assert refused(world.eve("POST", "model-versions/create", version)), version


@pytest.mark.parametrize(
    "path",
    [
        "{secret}/{secret_run}/artifacts/m/MLmodel",
        "{secret}/{secret_run}/artifacts",
        "{own}/{own_run}/artifacts/../../../{secret}/{secret_run}/artifacts/m/MLmodel",
        "{own}/{own_run}/artifacts/%2e%2e/%2e%2e/%2e%2e/{secret}/{secret_run}/artifacts/m/MLmodel",
        "{own_run}/{secret}/{secret_run}/artifacts/m/MLmodel",
        "{secret}/{secret_run}",
        "{secret}",
        "{own}/./../{secret}/{secret_run}/artifacts/m/MLmodel",
        "./{secret}/{secret_run}/artifacts/m/MLmodel",
        "{own}//{secret_run}/artifacts/m/MLmodel",
        "{secret}/{own_run}/artifacts/m/MLmodel",
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
def test_files_of_others_are_reached_by_no_path(world: World, method: str, path: str) -> None:
    named = path.format(**vars(world))
    answer = world.eve(method, PROXY + named, **({"content": b"y"} if method == "PUT" else {}))
    assert refused(answer), answer.text
    kept = world.server.ask(
        "admin", "GET", f"{PROXY}{world.secret}/{world.secret_run}/artifacts/m/MLmodel"
    )
    assert (kept.status_code, kept.text) == (200, "x")


@pytest.mark.parametrize("folder", ["{secret}", "{secret}/{secret_run}/artifacts", "", "."])
def test_folders_of_others_are_not_listed(world: World, folder: str) -> None:
    answer = world.eve("GET", f"{PROXY[:-1]}?path={folder.format(**vars(world))}")
    assert refused(answer)
    assert world.secret_run not in answer.text.replace(folder.format(**vars(world)), "")


def test_an_upload_in_parts_ends_in_nobody_elses_folder(world: World) -> None:
    folder = f"{world.secret}/{world.secret_run}/artifacts"
    mpu = "/api/2.0/mlflow-artifacts/mpu/"
    assert (
        world.eve("POST", f"{mpu}create/{folder}", {"path": "x", "num_parts": 1}).status_code == 403
    )
    own = world.eve(
        "POST", f"{mpu}create/{world.own}/{world.own_run}/artifacts", {"path": "x", "num_parts": 1}
    ).json()
    part = own["credentials"][0]
    assert part["headers"]["Authorization"].startswith("Bearer ")
    target = part["url"].partition(":5000")[2]
    assert world.server.ask(None, "PUT", target, content=b"z").status_code == 401
    tag = world.eve("PUT", target, content=b"z").headers["etag"]
    whole = {"path": "x", "upload_id": own["upload_id"], "parts": [{"part_number": 1, "etag": tag}]}
    assert refused(world.eve("POST", f"{mpu}complete/{folder}", whole))


def test_trace_ids_of_others_are_not_written_into(world: World) -> None:
    trace_id = "tr-" + "ab" * 16

    def info(experiment_id: str) -> dict[str, Any]:
        place = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment_id}}
        started = {
            "trace_id": trace_id,
            "trace_location": place,
            "request_time": "2026-01-01T00:00:00Z",
            "state": "OK",
            "tags": {"of": experiment_id},
        }
        return {"trace": {"trace_info": started}}

    made = world.server.ask("admin", "POST", f"{V3}traces", info(world.secret))
    assert made.status_code == 200, made.text
    for method, path, body in (
        ("POST", f"{V3}traces", info(world.own)),
        ("GET", f"{V3}traces/{trace_id}", None),
        ("GET", f"{V3}traces/get?trace_id={trace_id}", None),
        ("PATCH", f"{V3}traces/{trace_id}/tags", {"key": "a", "value": "b"}),
        ("POST", f"{V3}traces/{trace_id}/assessments", {"assessment": {
            "assessment_name": "x", "feedback": {"value": True}, "source": {"source_type": "HUMAN"},
        }}),
        ("POST", f"{MLFLOW}traces/link-to-run", {"trace_ids": [trace_id], "run_id": world.own_run}),
        ("POST", f"{MLFLOW}traces/link-prompts", {
            "trace_id": trace_id, "prompt_versions": [{"name": "p", "version": "1"}],
        }),
    ):  # fmt: skip
        assert refused(world.eve(method, path, body)), path
    gone = world.eve(
        "POST",
        "traces/delete-traces",
        {"experiment_id": world.secret, "request_ids": [trace_id]},
    )
    assert gone.json().get("traces_deleted", 0) == 0
    batch = world.eve("GET", f"{V3}traces/batchGet?trace_ids={trace_id}")
    assert trace_id not in batch.text
    still = world.server.ask("admin", "GET", f"{V3}traces/{trace_id}").json()["trace"]["trace_info"]
    assert still["tags"]["of"] == world.secret


def test_batch_calls_tell_of_ones_own_only(world: World) -> None:
    for who in ("admin", "eve"):
        run = world.secret_run if who == "admin" else world.own_run
        point = {"run_id": run, "key": "loss", "value": 1.0, "timestamp": 1}
        world.ok(who, "POST", "runs/log-metric", point)
    runs = f"run_ids={world.own_run}&run_ids={world.secret_run}"
    found = world.eve("GET", f"metrics/get-history-bulk-interval?{runs}&metric_key=loss").json()
    assert {point["run_id"] for point in found["metrics"]} == {world.own_run}
    bulk = runs.replace("run_ids", "run_id")
    found = world.eve(
        "GET", f"/ajax-api/2.0/mlflow/metrics/get-history-bulk?{bulk}&metric_key=loss"
    )
    assert {point["run_id"] for point in found.json()["metrics"]} == {world.own_run}
    both = {"experiment_ids": [world.secret, world.own]}
    found = world.eve("POST", "runs/search", both).json()
    assert [run["info"]["run_id"] for run in found["runs"]] == [world.own_run]
    ids = [world.secret]
    assert world.eve("POST", "runs/search", {"experiment_ids": ids}).json() == {}


def test_points_of_a_model_of_others_are_not_logged(world: World) -> None:
    made = world.server.ask(
        "admin", "POST", f"{MLFLOW}logged-models", {"experiment_id": world.secret, "name": "m"}
    ).json()["model"]["info"]["model_id"]
    point = {"run_id": world.own_run, "key": "k", "value": 1.0, "timestamp": 1, "model_id": made}
    assert refused(world.eve("POST", "runs/log-metric", point))
    assert refused(world.eve("GET", f"logged-models/{made}"))
    assert refused(world.eve("PATCH", f"logged-models/{made}/tags", {"tags": [{"key": "a"}]}))


def test_what_is_hidden_is_answered_like_what_is_not_there(world: World) -> None:
    def both(path: str, hidden: str, missing: str, method: str = "GET", body: Any = None) -> None:
        texts = []
        for name in (hidden, missing):
            made = {k: v.format(name) for k, v in body.items()} if body else None
            answer = world.eve(method, path.format(name), made)
            texts.append((answer.status_code, answer.text.replace(name, "X")))
        assert texts[0] == texts[1], path

    both("experiments/get?experiment_id={}", world.secret, "999999")
    both("experiments/get-by-name?experiment_name={}", f"{world.secret_model}", "missing-thing")
    both("runs/get?run_id={}", world.secret_run, "0" * 32)
    both("artifacts/list?run_id={}", world.secret_run, "0" * 32)
    both("metrics/get-history?run_id={}&metric_key=a", world.secret_run, "0" * 32)
    both("registered-models/get?name={}", world.secret_model, "missing-thing")
    both("model-versions/get?name={}&version=1", world.secret_model, "missing-thing")
    both("model-versions/get-download-uri?name={}&version=1", world.secret_model, "missing-thing")
    both("registered-models/alias?name={}&alias=a", world.secret_model, "missing-thing")
    both("/api/v1/models/{}/versions/1/timeline", world.secret_model, "missing-thing")
    both("/api/v1/models/{}/state?as_of_ms=99999999999999", world.secret_model, "missing-thing")
    both("runs/update", world.secret_run, "0" * 32, "POST", {"run_id": "{}"})
    both("runs/delete", world.secret_run, "0" * 32, "POST", {"run_id": "{}"})
    both("runs/set-tag", world.secret_run, "0" * 32, "POST", {"run_id": "{}", "key": "a"})
    both("experiments/delete", world.secret, "999999", "POST", {"experiment_id": "{}"})
    both("registered-models/delete", world.secret_model, "missing", "DELETE", {"name": "{}"})


def test_the_last_admin_stays(tmp_path: Path) -> None:
    with served(tmp_path) as running:
        given = running.grant("root", "admin", "*", "*")
        answer = running.ask("root", "DELETE", f"{GRANTS}/{given}")
        assert answer.status_code == 200, "the configuration names admins still"


def test_a_grant_that_was_revoked_counts_no_more(server: Served) -> None:
    given = server.grant("zoe", "viewer", "experiment", "*")
    assert server.ask("zoe", "GET", f"{MLFLOW}experiments/get?experiment_id=0").status_code == 200
    assert server.ask("admin", "DELETE", f"{GRANTS}/{given}").status_code == 200
    assert server.ask("zoe", "GET", f"{MLFLOW}experiments/get?experiment_id=0").status_code == 404


def test_a_token_does_not_outgrow_who_made_it(server: Served) -> None:
    made = server.ask("eve", "POST", "/api/v1/tokens", {"name": "narrow", "scopes": ["run:read"]})
    assert made.status_code == 200, made.text
    secret = made.json()["secret"]
    carried = {"authorization": f"Bearer {secret}"}

    def by_token(method: str, path: str, body: Any = None) -> httpx.Response:
        return server.ask(None, method, path, body, headers=carried)

    assert by_token("GET", "/api/v1/whoami").json()["auth_method"] == "token"
    create = {"name": "eve-by-token"}
    assert by_token("POST", f"{MLFLOW}experiments/create", create).status_code == 403
    wider = {"name": "wide", "scopes": ["run:*"]}
    assert by_token("POST", "/api/v1/tokens", wider).status_code == 403
    longer = {"name": "long", "scopes": ["run:read"], "life_days": 300}
    assert by_token("POST", "/api/v1/tokens", longer).status_code == 403
    token_id = made.json()["token"]["id"]
    assert server.ask("eve", "DELETE", f"/api/v1/tokens/{token_id}").status_code == 200
    assert by_token("GET", "/api/v1/whoami").status_code == 401


def test_whoever_acts_for_another_cannot_get_rid_of_that_by_a_token(server: Served) -> None:
    server.grant("bob", "admin", "*", "*")
    acting = {"authorization": f"Bearer {server.provider.token(sub='bob', act={'sub': 'eve'})}"}
    assert server.ask(None, "GET", "/api/v1/whoami", headers=acting).status_code == 200
    for path in ("/api/v1/tokens", "/api/v1/service-tokens"):
        refused = server.ask(None, "POST", path, {"name": "laundered"}, headers=acting)
        assert refused.status_code == 403
        assert "acts for another" in refused.json()["message"]
        assert server.ask("bob", "POST", path, {"name": "own"}).status_code == 200
    listed = server.ask("admin", "GET", "/api/v1/tokens?all=true").json()["tokens"]
    assert "laundered" not in [token["name"] for token in listed]


def test_only_admins_get_the_tokens_of_a_service(server: Served) -> None:
    """Whoever got one would hold all that was ever granted to the service."""
    server.grant("helper", "manager", "server", "*")
    made = server.ask("helper", "POST", "/api/v1/service-tokens", {"name": "deployer"})
    assert made.status_code == 403
    assert server.ask("admin", "POST", "/api/v1/service-tokens", {"name": "d"}).status_code == 200


def test_a_service_token_makes_no_tokens_and_says_who_got_it(server: Served) -> None:
    made = server.ask("admin", "POST", "/api/v1/service-tokens", {"name": "rotating"}).json()
    carried = {"authorization": f"Bearer {made['secret']}"}
    for path in ("/api/v1/tokens", "/api/v1/service-tokens"):
        answer = server.ask(None, "POST", path, {"name": "x"}, headers=carried)
        assert answer.status_code == 403


def test_a_limited_token_of_a_provider_makes_none_that_outlives_it(server: Served) -> None:
    def by(*scopes: str) -> Any:
        token = server.provider.token(sub="eve", scope=" ".join(f"muniment:{s}" for s in scopes))
        headers = {"authorization": f"Bearer {token}"}
        return server.ask(None, "POST", "/api/v1/tokens", {"name": "x"}, headers=headers)

    refused = by("run:*")
    assert refused.status_code == 403
    assert "muniment:self:use" in refused.json()["message"]
    assert by("run:*", "self:use").status_code == 200
    token = server.provider.token(sub="admin", scope="muniment:run:*")
    headers = {"authorization": f"Bearer {token}"}
    path = "/api/2.0/mlflow/experiments/get?experiment_id=0"
    answer = server.ask(None, "GET", path, headers=headers)
    assert "this credential is not made for experiment:read" in answer.json()["message"]


def test_a_token_of_a_token_ends_with_it_at_the_latest(server: Served) -> None:
    first = server.ask("eve", "POST", "/api/v1/tokens", {"name": "first", "life_days": 2}).json()
    carried = {"authorization": f"Bearer {first['secret']}"}
    made = server.ask(None, "POST", "/api/v1/tokens", {"name": "second"}, headers=carried)
    assert made.json()["token"]["expires_at_ms"] == first["token"]["expires_at_ms"]
    longer = {"name": "third", "life_days": 3}
    refused = server.ask(None, "POST", "/api/v1/tokens", longer, headers=carried)
    assert refused.status_code == 403
