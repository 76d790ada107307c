"""Runs: life, params, tags, metrics, inputs and outputs, with MLflow's rules and words."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.world import TestWorld
from muniment_schemas import events as e
from muniment_schemas.columns import pack
from muniment_services.domain.errors import Invalid, NotFound
from muniment_services.domain.experiment import (
    CreateExperiment,
    DeleteExperiment,
    RestoreExperiment,
)
from muniment_services.domain.latest import LOOP_POINTS_MAX, Metric, merge_latest
from muniment_services.domain.logged_model import CreateLoggedModel, LoggedModel
from muniment_services.domain.run import Run, lifecycle_of
from muniment_services.domain.run_data import DeleteRunTag, LogBatch, LogInputs, LogOutputs
from muniment_services.domain.run_life import CreateRun, DeleteRun, RestoreRun, UpdateRun


def started(world: TestWorld, name: str = "r", **more: object) -> Run:
    if world.state.get("experiment", "1") is None:
        world.do(CreateExperiment(name="e", artifact_location=None, artifact_root="root:"))
    command = CreateRun(
        experiment_id="1",
        name=name,
        user_id="ana",
        start_time_ms=1_600_000_000_000,
        **more,  # type: ignore[arg-type]
    )
    made = world.do(command)
    assert isinstance(made, Run)
    return made


def run_of(world: TestWorld, run_id: str) -> Run:
    found = world.state.get("run", run_id)
    assert isinstance(found, Run)
    return found


def test_a_run_has_an_id_that_sorts_by_its_start() -> None:
    made = started(TestWorld())
    assert int(made.run_id[:12], 16) == 1_600_000_000_000
    assert made.artifact_uri == f"root:/1/{made.run_id}/artifacts"
    assert (made.status, made.user_id, made.lifecycle) == ("RUNNING", "ana", "active")
    assert made.tags == {"mlflow.runName": "r"}


def test_names_come_from_the_call_the_tag_or_are_made_up() -> None:
    world = TestWorld()
    assert started(world, "").name.count("-") == 2
    assert started(world, "", tags=(("mlflow.runName", "tagged"),)).name == "tagged"
    with pytest.raises(Invalid) as raised:
        started(world, "one", tags=(("mlflow.runName", "other"),))
    assert raised.value.message == (
        "Both 'run_name' argument and 'mlflow.runName' tag are specified, but with different "
        "values (run_name='one', mlflow.runName='other')."
    )


def test_tag_and_name_follow_each_other() -> None:
    world = TestWorld()
    made = started(world)
    world.do(LogBatch(run_id=made.run_id, tags=(("mlflow.runName", "by tag"),)))
    assert run_of(world, made.run_id).name == "by tag"
    world.do(UpdateRun(run_id=made.run_id, name="by name"))
    assert run_of(world, made.run_id).tags["mlflow.runName"] == "by name"


def test_update_takes_known_statuses_and_leaves_the_rest() -> None:
    world = TestWorld()
    made = started(world)
    ended = world.do(UpdateRun(run_id=made.run_id, status="FINISHED", end_time_ms=5))
    assert isinstance(ended, Run)
    assert (ended.status, ended.end_time_ms, ended.name) == ("FINISHED", 5, "r")
    assert world.decide(UpdateRun(run_id=made.run_id, status="NONSENSE")) is None
    assert world.decide(UpdateRun(run_id=made.run_id, name="")) is None


def test_params_keep_their_first_value() -> None:
    world = TestWorld()
    made = started(world)
    world.do(LogBatch(run_id=made.run_id, params=(("a", "1"),)))
    assert world.do(LogBatch(run_id=made.run_id, params=(("a", "1"),))) is not None
    with pytest.raises(Invalid) as single:
        world.do(LogBatch(run_id=made.run_id, params=(("a", "2"),), paths=False))
    assert single.value.message == (
        "Changing param values is not allowed. Param with key='a' was already logged with "
        f"value='1' for run ID='{made.run_id}'. Attempted logging new value '2'."
    )
    with pytest.raises(Invalid) as batch:
        world.do(LogBatch(run_id=made.run_id, params=(("b", "0"), ("a", "2"))))
    assert batch.value.message == (
        "Changing param values is not allowed. Params were already logged='[{'key': 'a', "
        f"'old_value': '1', 'new_value': '2'}}]' for run ID='{made.run_id}'."
    )
    assert run_of(world, made.run_id).params == {"a": "1"}


def test_of_two_racing_params_the_first_in_the_log_wins_and_the_other_is_void() -> None:
    world = TestWorld()
    made = started(world)
    first = world.decide(LogBatch(run_id=made.run_id, params=(("a", "1"),)))
    second = world.decide(LogBatch(run_id=made.run_id, params=(("a", "2"), ("b", "1"))))
    assert first is not None
    assert second is not None
    world.fold(first)
    folded = world.state.fold(world.record(second), second)
    assert folded.void == "param 'a' has another value already"
    assert run_of(world, made.run_id).params == {"a": "1"}


def test_long_values_are_cut_and_long_keys_refused() -> None:
    world = TestWorld()
    made = started(world)
    world.do(LogBatch(run_id=made.run_id, params=(("p", "x" * 7000),), tags=(("t", "y" * 9000),)))
    run = run_of(world, made.run_id)
    assert (len(run.params["p"]), len(run.tags["t"])) == (6000, 8000)
    for batch, message in (
        (
            {"params": (("k" * 251, "v"),)},
            "'Param key' exceeds the maximum length of 250 characters",
        ),
        (
            {"tags": (("k" * 251, "v"),)},
            "'tags[0].key' exceeds the maximum length of 250 characters",
        ),
        (
            {"metrics": pack(["k" * 251], [1.0], [1], [0])},
            "'Metric name' exceeds the maximum length",
        ),
    ):
        with pytest.raises(Invalid) as raised:
            world.do(LogBatch(run_id=made.run_id, **batch))
        assert raised.value.message.startswith(message)


@pytest.mark.parametrize(
    "key", ["a//b", "/a", "../a", "a/../b", ".", "..", "a/", "a!b", "a\tb", "ü?"]
)
def test_keys_that_are_no_names_are_refused(key: str) -> None:
    world = TestWorld()
    made = started(world)
    with pytest.raises(Invalid, match=r"Invalid value .* for parameter"):
        world.do(LogBatch(run_id=made.run_id, params=((key, "v"),)))


@pytest.mark.parametrize("key", ["a", "a/b", "a.b", "val-loss:1", "ünï code", "a_b", "...x/y", "0"])
def test_keys_that_are_names_pass(key: str) -> None:
    world = TestWorld()
    made = started(world)
    if key == "...x/y":
        with pytest.raises(Invalid):
            world.do(LogBatch(run_id=made.run_id, params=((key, "v"),)))
        return
    world.do(LogBatch(run_id=made.run_id, params=((key, "v"),)))
    assert run_of(world, made.run_id).params == {key: "v"}


def test_batches_have_limits_and_no_repeated_params() -> None:
    world = TestWorld()
    made = started(world)
    many = tuple((f"k{i}", "v") for i in range(101))
    with pytest.raises(Invalid, match=r"at most 100 params\. Got 101 params"):
        world.do(LogBatch(run_id=made.run_id, params=many))
    with pytest.raises(Invalid, match=r"at most 1000 metrics, params, and tags\. Got 1001"):
        world.do(
            LogBatch(
                run_id=made.run_id,
                params=many[:1],
                metrics=pack(["m"] * 1000, [0.0] * 1000, [0] * 1000, list(range(1000))),
            )
        )
    with pytest.raises(Invalid, match=r"Duplicate parameter keys have been submitted: \['d'\]"):
        world.do(LogBatch(run_id=made.run_id, params=(("d", "1"), ("d", "1"))))
    assert world.decide(LogBatch(run_id=made.run_id)) is None


def test_deleted_runs_refuse_every_write_and_can_be_restored() -> None:
    world = TestWorld()
    made = started(world)
    world.do(DeleteRun(run_id=made.run_id))
    assert world.decide(DeleteRun(run_id=made.run_id)) is None
    for command in (
        LogBatch(run_id=made.run_id, params=(("a", "1"),)),
        UpdateRun(run_id=made.run_id, name="x"),
        DeleteRunTag(run_id=made.run_id, key="mlflow.runName"),
        LogInputs(run_id=made.run_id, models=("m-1",)),
        LogOutputs(run_id=made.run_id, models=(e.ModelOutput(model_id="m-1", step=0),)),
    ):
        with pytest.raises(Invalid) as raised:
            world.do(command)
        assert raised.value.message == (
            f"The run {made.run_id} must be in the 'active' state. Current state is deleted."
        )
    world.do(RestoreRun(run_id=made.run_id))
    assert world.decide(RestoreRun(run_id=made.run_id)) is None
    world.do(LogBatch(run_id=made.run_id, params=(("a", "1"),)))


def test_runs_go_and_come_with_their_experiment() -> None:
    world = TestWorld()
    kept, deleted = started(world), started(world)
    world.do(DeleteRun(run_id=deleted.run_id))
    world.do(DeleteExperiment(experiment_id="1"))
    assert lifecycle_of(world.state, run_of(world, kept.run_id)) == "deleted"
    with pytest.raises(Invalid, match=r"The experiment 1 must be in the 'active' state"):
        started(world)
    world.do(RestoreExperiment(experiment_id="1"))
    assert lifecycle_of(world.state, run_of(world, kept.run_id)) == "active"
    assert lifecycle_of(world.state, run_of(world, deleted.run_id)) == "active"


def test_unknown_runs_are_not_found() -> None:
    with pytest.raises(NotFound, match="Run with id=nope not found"):
        TestWorld().do(LogBatch(run_id="nope", tags=(("a", "b"),)))


def test_tags_are_removed_once() -> None:
    world = TestWorld()
    made = started(world)
    world.do(LogBatch(run_id=made.run_id, tags=(("a", "b"),)))
    world.do(DeleteRunTag(run_id=made.run_id, key="a"))
    with pytest.raises(NotFound) as raised:
        world.do(DeleteRunTag(run_id=made.run_id, key="a"))
    assert raised.value.message == f"No tag with name: a in run with id {made.run_id}"


def dataset(name: str, digest: str = "d") -> e.DatasetInput:
    return e.DatasetInput(name=name, digest=digest, source_type="local", source="s", tags={})


def test_inputs_and_outputs_are_sets() -> None:
    world = TestWorld()
    made = started(world)
    world.do(LogInputs(run_id=made.run_id, datasets=(dataset("a"), dataset("b")), models=("m-1",)))
    world.do(LogInputs(run_id=made.run_id, datasets=(dataset("a"), dataset("a", "e"))))
    world.do(LogOutputs(run_id=made.run_id, models=(e.ModelOutput(model_id="m-2", step=3),)))
    again = LogOutputs(run_id=made.run_id, models=(e.ModelOutput(model_id="m-2", step=3),))
    assert world.decide(again) is None
    run = run_of(world, made.run_id)
    assert [(d.name, d.digest) for d in run.datasets] == [("a", "d"), ("b", "d"), ("a", "e")]
    assert run.model_inputs == ("m-1",)
    assert run.model_outputs == (e.ModelOutput(model_id="m-2", step=3),)


def latest_by_definition(points: list[tuple[str, float, int, int]]) -> dict[str, Metric]:
    """The rule, written down once more without any cleverness."""
    found: dict[str, Metric] = {}
    for key, value, timestamp, step in points:
        new = Metric(value, timestamp, step)
        old = found.get(key)
        if old is None or _rank(new) >= _rank(old):
            found[key] = new
    return found


def _rank(metric: Metric) -> tuple[int, int, float]:
    return metric.step, metric.timestamp_ms, 0.0 if math.isnan(metric.value) else metric.value


small = st.integers(-3, 3)
values = st.sampled_from([0.0, 1.0, -1.0, math.nan, math.inf, -math.inf])
some_points = st.lists(
    st.tuples(st.sampled_from("abc"), values, st.integers(0, 3), small),
    min_size=1,
    max_size=4 * LOOP_POINTS_MAX,
)


@given(some_points, st.integers(0, 100))
def test_latest_is_the_greatest_step_then_time_then_value(
    points: list[tuple[str, float, int, int]], cut: int
) -> None:
    merged: dict[str, Metric] = {}
    for part in (points[:cut], points[cut:]):
        if part:
            merged = merge_latest(
                merged, pack(*(list(column) for column in zip(*part, strict=True)))
            )
    expected = latest_by_definition(points)
    assert {k: _rank(m) for k, m in merged.items()} == {k: _rank(m) for k, m in expected.items()}


def test_an_empty_name_in_the_tag_leaves_the_name() -> None:
    world = TestWorld()
    made = started(world, "kept")
    world.do(LogBatch(run_id=made.run_id, tags=(("mlflow.runName", ""),)))
    assert run_of(world, made.run_id).name == "kept"
    assert run_of(world, made.run_id).tags["mlflow.runName"] == ""


def test_a_run_starts_with_each_tag_once() -> None:
    with pytest.raises(Invalid, match="Tag 'k' is given more than once"):
        started(TestWorld(), tags=(("k", "1"), ("k", "1")))


def test_metrics_of_a_model_need_the_model() -> None:
    world = TestWorld()
    made = started(world)
    context = e.MetricContext(model_id="m-nope", dataset_name=None, dataset_digest=None)
    command = LogBatch(run_id=made.run_id, metrics=pack(["a"], [1.0], [1], [0], [context]))
    assert command.needs() == (("run", made.run_id), ("logged_model", "m-nope"))
    with pytest.raises(Invalid, match="Logged model 'm-nope'"):
        world.do(command)
    model = world.do(
        CreateLoggedModel(experiment_id="1", name="m", model_type="", source_run_id="")
    )
    assert isinstance(model, LoggedModel)
    context = e.MetricContext(model_id=model.model_id, dataset_name=None, dataset_digest=None)
    world.do(LogBatch(run_id=made.run_id, metrics=pack(["a"], [1.0], [1], [0], [context])))
    assert run_of(world, made.run_id).metrics["a"].value == 1.0
