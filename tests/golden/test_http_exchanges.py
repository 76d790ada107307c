"""Our server answers each recorded call as MLflow's own server did.

`tests/golden/http/README.md` tells the format; `python tests/harness/exchanges.py replay` is the
same comparison for the command line.
"""

import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from golden.http.answers import Answer, UnboundName, differences, fill, fold
from harness import exchanges
from harness.server import running_muniment

NOW_MS = 1_750_000_000_000
RUN_ID = "00112233445566778899aabbccddeeff"
STEPS_MIN = 2_000  # fewer means that a scenario file was lost


@pytest.fixture(scope="module")
def server_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if uri := os.environ.get("MUNIMENT_E2E_URI"):
        yield uri
        return
    with running_muniment(tmp_path_factory.mktemp("exchanges") / "data") as server:
        yield server.url


@pytest.mark.parametrize("scenario", exchanges.scenario_names())
def test_our_answers_are_mlflows(scenario: str, server_uri: str) -> None:
    failures = exchanges.replay(
        scenario,
        server_uri,
        prefix="wire-" + secrets.token_hex(4),
        clock=lambda: time.time_ns() // 1_000_000,
    )
    assert not failures, "\n".join(map(str, failures))


def test_the_corpus_is_whole() -> None:
    scenarios = [exchanges.load(name) for name in exchanges.scenario_names()]
    steps = [step for scenario in scenarios for step in scenario.steps]
    assert len(steps) >= STEPS_MIN
    assert all(step.answer is not None for step in steps)
    assert all(bool(step.differs) == (step.ours is not None) for step in steps)


@pytest.mark.parametrize("scenario", exchanges.scenario_names())
def test_files_are_as_record_writes_them(
    scenario: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = exchanges.SCENARIOS / f"{scenario}.json"
    loaded = exchanges.load(scenario)
    monkeypatch.setattr(exchanges, "SCENARIOS", tmp_path)
    exchanges.write(scenario, loaded)
    assert (tmp_path / source.name).read_bytes() == source.read_bytes()


def compared(wanted: Any, actual: Any, key: str = "") -> list[str]:
    names = {"P": "wire-1", "run": RUN_ID}
    return differences(Answer(200, json=wanted), Answer(200, json=actual), names, NOW_MS, key)


@pytest.mark.parametrize(
    ("wanted", "actual"),
    [
        ({"a": 1}, {"a": 1.0}),
        ({"id": "${run}"}, {"id": RUN_ID}),
        ({"m": "run ${run} of ${P}-x"}, {"m": f"run {RUN_ID} of wire-1-x"}),
        ({"t": "${any:time}"}, {"t": NOW_MS - 5}),
        ({"n": "${any:nan}"}, {"n": float("nan")}),
        ({"n": "${any:run-name}"}, {"n": "bold-owl-12"}),
        ({"m": "keys are '{'a', 'b'}'"}, {"m": "keys are '{'b', 'a'}'"}),
        ({"tags": [{"key": "a"}, {"key": "b"}]}, {"tags": [{"key": "b"}, {"key": "a"}]}),
        ({"aliases": ["a", "b"]}, {"aliases": ["b", "a"]}),
        ({"error_code": "X"}, {"error_code": "X", "sqlstate": "KAM00", "error_class": "Y"}),
        ({"v": "${a*60}"}, {"v": "a" * 60}),
    ],
)
def test_what_agrees(wanted: Any, actual: Any) -> None:
    assert compared(wanted, actual) == []


@pytest.mark.parametrize(
    ("wanted", "actual", "where"),
    [
        ({"a": 1}, {"a": "1"}, "a"),
        ({"a": 1}, {"a": True}, "a"),
        ({"a": ""}, {}, "a"),
        ({}, {"a": ""}, "a"),
        ({"a": {"b": [1, 2]}}, {"a": {"b": [2, 1]}}, "a.b[0]"),
        ({"a": [1]}, {"a": [1, 1]}, "a"),
        ({"t": "${any:time}"}, {"t": 5}, "t"),
        ({"t": "${any:time}"}, {"t": str(NOW_MS)}, "t"),
        ({"id": "${any:hex32}"}, {"id": "x"}, "id"),
        ({"metrics": [{"key": "m", "value": 1}, {"key": "m", "value": 2}]},
         {"metrics": [{"key": "m", "value": 2}, {"key": "m", "value": 1}]}, "metrics[0].value"),
        ({"m": "a.c"}, {"m": "abc"}, "m"),
    ],
)  # fmt: skip
def test_what_differs_is_named(wanted: Any, actual: Any, where: str) -> None:
    found = compared(wanted, actual)
    assert found
    assert found[0].startswith(f"{where}: ")


def test_a_picked_part_is_ordered_as_its_field() -> None:
    wanted, actual = [{"key": "a"}, {"key": "b"}], [{"key": "b"}, {"key": "a"}]
    assert compared(wanted, actual, key="tags") == []
    assert compared(wanted, actual) != []


def test_status_and_headers_are_compared() -> None:
    wanted = Answer(200, type="text/plain", text="x")
    found = differences(wanted, Answer(201, type="text/html", text="x"), {}, NOW_MS)
    assert [each.split(":")[0] for each in found] == ["status", "type"]


def test_a_status_only_answer_compares_the_status_alone() -> None:
    assert differences(Answer(404), Answer(404, json={"a": 1}), {}, NOW_MS) == []
    assert differences(Answer(404), Answer(400, json={"a": 1}), {}, NOW_MS) != []


def test_folding_and_filling_are_inverse() -> None:
    names = {"P": "wire-1x2y", "run": RUN_ID, "exp": "7"}
    answer = {
        "experiment_id": "7",
        "version": "7",
        "artifact_uri": f"mlflow-artifacts:/7/{RUN_ID}/artifacts",
        "message": "No Experiment with id=7 exists in 17 of wire-1x2y",
        "long": "v" * 6000,
    }
    folded = fold(answer, names, NOW_MS)
    assert folded == {
        "experiment_id": "${exp}",
        "version": "7",
        "artifact_uri": "mlflow-artifacts:/${exp}/${run}/artifacts",
        "message": "No Experiment with id=${exp} exists in 17 of ${P}",
        "long": "${v*6000}",
    }
    assert fill(folded, names) == answer


def test_a_name_that_was_never_saved_is_an_error() -> None:
    with pytest.raises(UnboundName, match="nope"):
        fill({"a": "${nope}"}, {"P": "x"})
    assert compared({"a": "${nope}"}, {"a": 1}) == ["`nope` was not saved by an earlier step"]


def test_templates_of_lists() -> None:
    template = {"$repeat": 3, "item": {"key": "m${i}", "value": "${i}"}}
    assert fill(template, {"P": "x"}) == [{"key": f"m{i}", "value": i} for i in range(3)]


def test_unknown_fields_in_a_scenario_are_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="expects"):
        msgspec.json.decode(b'{"do": "GET /", "expects": 1}', type=exchanges.Step)
