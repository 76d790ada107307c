"""What is hidden is not told from what is not there: not by words, and not by the work it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, NamedTuple

import httpx
import pytest

from harness.signed_in import MLFLOW, Served, served
from muniment_projections.runner import Runner

V3 = "/api/3.0/mlflow/"
PROXY = "/api/2.0/mlflow-artifacts/artifacts"
NO_RUN, NO_MODEL, NO_TRACE = "0" * 32, f"m-{'1' * 32}", f"tr-{'2' * 32}"
HIDDEN_TRACE = f"tr-{'ab' * 16}"
NAMES = count()


class Hidden(NamedTuple):
    """The admin's, of which eve is told nothing."""

    experiment: str
    run: str
    logged_model: str


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`eve` may edit experiments and models named `eve-*`; `wide` reads and edits everything."""
    with served(tmp_path_factory.mktemp("data")) as running:
        for kind in ("experiment", "model", "prompt"):
            running.grant("eve", "editor", kind, "eve-*")
        running.grant("wide", "editor", "*", "*")
        yield running


def ok(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.fixture(scope="module")
def hidden(server: Served) -> Hidden:
    def make(path: str, body: Any) -> Any:
        return ok(server.ask("admin", "POST", path, body))

    experiment = make(f"{MLFLOW}experiments/create", {"name": "secret"})["experiment_id"]
    of_it = {"experiment_id": experiment}
    run = make(f"{MLFLOW}runs/create", of_it)["run"]["info"]["run_id"]
    model = make(f"{MLFLOW}logged-models", {**of_it, "name": "m"})["model"]["info"]["model_id"]
    place = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": of_it}
    info = {"trace_id": HIDDEN_TRACE, "trace_location": place, "state": "OK"}
    info["request_time"] = "2026-01-01T00:00:00Z"
    make(f"{V3}traces", {"trace": {"trace_info": info}})
    return Hidden(experiment, run, model)


@pytest.fixture(scope="module")
def own(server: Served) -> str:
    """An experiment of eve's."""
    made = server.ask("eve", "POST", f"{MLFLOW}experiments/create", {"name": "eve-own"})
    return str(ok(made)["experiment_id"])


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many reads of the projections there were, of states and for answers alike."""
    seen = 0
    read = Runner.read

    async def counted(self: Runner, query: Any) -> Any:
        nonlocal seen
        seen += 1
        return await read(self, query)

    monkeypatch.setattr(Runner, "read", counted)
    return lambda: seen


def asks(kind: str) -> Iterator[tuple[str, str, Any]]:
    """Every way to name one run, logged model or trace (`{}`): method, path, body."""
    ways: dict[str, list[tuple[str, str, Any]]] = {
        "run": [
            ("GET", f"{MLFLOW}runs/get?run_id={{}}", None),
            ("GET", f"{MLFLOW}artifacts/list?run_id={{}}", None),
            ("GET", f"{MLFLOW}metrics/get-history?run_id={{}}&metric_key=a", None),
            ("GET", f"{MLFLOW}metrics/get-history-bulk-interval?run_ids={{}}&metric_key=a", None),
            ("GET", "/get-artifact?run_id={}&path=x", None),
            ("GET", f"{PROXY}/0/{{}}/artifacts/x", None),
            ("GET", f"{PROXY}?path=0/{{}}/artifacts", None),
            ("POST", f"{MLFLOW}runs/update", {"run_id": "{}"}),
            ("POST", f"{MLFLOW}runs/delete", {"run_id": "{}"}),
            ("POST", f"{MLFLOW}runs/set-tag", {"run_id": "{}", "key": "a"}),
            ("POST", f"{MLFLOW}runs/delete-tag", {"run_id": "{}", "key": "a"}),
            ("POST", f"{MLFLOW}runs/log-batch", {"run_id": "{}"}),
            ("POST", f"{MLFLOW}runs/log-parameter", {"run_id": "{}", "key": "a", "value": "b"}),
            ("POST", f"{MLFLOW}runs/outputs", {"run_id": "{}", "models": [{"model_id": "m"}]}),
        ],
        "logged_model": [
            ("GET", f"{MLFLOW}logged-models/{{}}", None),
            ("GET", f"{MLFLOW}logged-models/{{}}/artifacts/directories", None),
            ("GET", f"{PROXY}/0/models/{{}}/artifacts/x", None),
            ("PATCH", f"{MLFLOW}logged-models/{{}}/tags", {"tags": [{"key": "a", "value": "b"}]}),
            ("DELETE", f"{MLFLOW}logged-models/{{}}", None),
        ],
        "trace": [
            ("GET", f"{V3}traces/{{}}", None),
            ("GET", f"{V3}traces/get?trace_id={{}}", None),
            ("GET", f"{V3}traces/batchGet?trace_ids={{}}", None),
            ("GET", f"{MLFLOW}traces/{{}}/info", None),
            ("GET", f"{V3}traces/{{}}/assessments/a", None),
            ("PATCH", f"{V3}traces/{{}}/tags", {"key": "a", "value": "b"}),
            ("DELETE", f"{V3}traces/{{}}/tags", {"key": "a"}),
        ],
    }  # fmt: skip
    yield from ways[kind]


@pytest.mark.parametrize(
    ("kind", "missing"), [("run", NO_RUN), ("logged_model", NO_MODEL), ("trace", NO_TRACE)]
)
def test_what_is_hidden_takes_the_work_that_what_is_missing_takes(
    server: Served, hidden: Hidden, reads: Callable[[], int], kind: str, missing: str
) -> None:
    there = HIDDEN_TRACE if kind == "trace" else getattr(hidden, kind)
    for method, path, body in asks(kind):
        took = []
        for name in (there, missing, there, missing):
            named = {k: v.format(name) if k.endswith("_id") else v for k, v in (body or {}).items()}
            before = reads()
            answer = server.ask("eve", method, path.format(name), named if body else None)
            text = answer.text.replace(name, "X")
            took.append((answer.status_code, text, reads() - before))
        assert len(set(took)) == 1, (path, took)
        assert took[0][-1] > 0, "what is missing was not looked for, so nothing is shown by this"


def test_what_may_be_seen_is_answered_from_memory(
    server: Served, hidden: Hidden, reads: Callable[[], int]
) -> None:
    path = f"{MLFLOW}runs/get?run_id={hidden.run}"
    ok(server.ask("wide", "GET", path))
    before = reads()
    ok(server.ask("wide", "GET", path))
    assert reads() == before


def naming(server: Served, who: str, experiment_id: str, run_id: str, model_id: str) -> list[Any]:
    """Answers to what names a run or logged model beside what it is about, ids taken out."""
    name = f"eve-{next(NAMES)}"
    ok(server.ask("admin", "POST", f"{MLFLOW}registered-models/create", {"name": name}))
    trace_id = f"tr-{next(NAMES):032x}"
    prompt = {"name": name, "source": "dummy-source", "tags": [
        {"key": "mlflow.prompt.is_prompt", "value": "true"}
    ]}  # fmt: skip
    version = {"name": name, "source": "s3://bucket/x"}
    ways: list[tuple[str, Any]] = [
        ("logged-models", {"experiment_id": experiment_id, "name": "m", "source_run_id": run_id}),
        ("model-versions/create", {**version, "run_id": run_id}),
        ("model-versions/create", {**version, "source": f"runs:/{run_id}/m", "run_id": run_id}),
        ("model-versions/create", {
            **version, "source": f"mlflow-artifacts:/1/{run_id}/artifacts/m", "run_id": run_id,
        }),
        ("model-versions/create", {**version, "model_id": model_id}),
        ("model-versions/create", {
            **version, "source": f"models:/{model_id}", "model_id": model_id,
        }),
        ("model-versions/create", {**prompt, "run_id": run_id}),
        ("model-versions/create", {**prompt, "model_id": model_id}),
        ("traces/link-to-run", {"trace_ids": [trace_id], "run_id": run_id}),
    ]  # fmt: skip
    answers = [server.ask(who, "POST", MLFLOW + path, body) for path, body in ways]
    return [
        (a.status_code, a.text.replace(run_id, "R").replace(model_id, "M").replace(name, "N"))
        for a in answers
    ]


def test_who_names_what_is_hidden_hears_what_is_said_of_what_is_missing(
    server: Served, hidden: Hidden, own: str
) -> None:
    told = naming(server, "eve", own, hidden.run, hidden.logged_model)
    assert told == naming(server, "eve", own, NO_RUN, NO_MODEL)
    # 500 is MLflow's answer to a models:/ source that is not there.
    assert all(status in (400, 403, 404, 500) for status, _ in told), told


def test_from_whom_nothing_is_hidden_may_name_the_runs_of_other_servers(
    server: Served, own: str
) -> None:
    told = naming(server, "wide", own, NO_RUN, NO_MODEL)
    assert [told[place][0] for place in (0, 1, 8)] == [200, 200, 200], told


def test_a_model_that_is_hidden_is_no_source(server: Served) -> None:
    for name in ("secret-model", "eve-copy"):
        ok(server.ask("admin", "POST", f"{MLFLOW}registered-models/create", {"name": name}))
    version = {"name": "secret-model", "source": "s3://bucket/x"}
    ok(server.ask("admin", "POST", f"{MLFLOW}model-versions/create", version))
    told = set()
    for name in ("secret-model", "nowhere-model"):
        copy = {"name": "eve-copy", "source": f"models:/{name}/1"}
        answer = server.ask("eve", "POST", f"{MLFLOW}model-versions/create", copy)
        told.add((answer.status_code, answer.text.replace(name, "X")))
    assert len(told) == 1


def test_a_prompt_is_one_in_lists_too_however_its_tag_is_written(server: Served) -> None:
    tags = [{"key": "mlflow.prompt.is_prompt", "value": "True"}]
    body = {"name": "loud-prompt", "tags": tags}
    ok(server.ask("admin", "POST", f"{MLFLOW}registered-models/create", body))
    server.grant("mia", "viewer", "model", "*")
    server.grant("pia", "viewer", "prompt", "*")
    for who, sees in (("mia", False), ("pia", True)):
        found = ok(server.ask(who, "GET", f"{MLFLOW}registered-models/search"))
        listed = {model["name"] for model in found.get("registered_models", ())}
        assert ("loud-prompt" in listed) is sees
        one = server.ask(who, "GET", f"{MLFLOW}registered-models/get?name=loud-prompt")
        assert (one.status_code == 200) is sees
