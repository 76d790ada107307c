"""Legal holds: what they cover stays, whoever asks, until they are released."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.world import TestWorld
from muniment_schemas import events as e
from muniment_services.domain import hold
from muniment_services.domain.artifact_changes import RecordDeletion, RecordUpload
from muniment_services.domain.commands import Command
from muniment_services.domain.errors import AlreadyExists, Held, Invalid, NotFound
from muniment_services.domain.experiment import (
    CreateExperiment,
    DeleteExperiment,
    Experiment,
    RenameExperiment,
)
from muniment_services.domain.hold import Hold, PlaceHold, ReleaseHold
from muniment_services.domain.logged_model import CreateLoggedModel, DeleteLoggedModel, LoggedModel
from muniment_services.domain.model_version import CreateModelVersion, DeleteModelVersion
from muniment_services.domain.principal import ErasePrincipal, RegisterPrincipal
from muniment_services.domain.registry_life import (
    CreateRegisteredModel,
    DeleteRegisteredModel,
    RenameRegisteredModel,
)
from muniment_services.domain.run import Run
from muniment_services.domain.run_life import CreateRun, DeleteRun, UpdateRun
from muniment_services.domain.trace_data import DeleteTrace, StartTrace

TRACE = "tr-" + "a" * 32


class Given:
    """A world with one thing of each kind, made by tester."""

    def __init__(self) -> None:
        self.world = TestWorld()
        root = "mlflow-artifacts:"
        made = self.world.do(
            CreateExperiment(name="credit", artifact_location=None, artifact_root=root)
        )
        assert isinstance(made, Experiment)
        self.experiment_id = made.experiment_id
        run = self.world.do(
            CreateRun(experiment_id="1", name="r", user_id="u", start_time_ms=self.world.now_ms)
        )
        assert isinstance(run, Run)
        self.run_id = run.run_id
        logged = self.world.do(CreateLoggedModel(experiment_id="1", name="l"))
        assert isinstance(logged, LoggedModel)
        self.logged_id = logged.model_id
        self.world.do(
            StartTrace(
                trace_id=TRACE,
                experiment_id="1",
                request_time_ms=self.world.now_ms,
                metadata={},
                tags={},
            )
        )
        self.world.do(CreateRegisteredModel(name="fraud-eu"))
        self.world.do(CreateModelVersion(name="fraud-eu", source="s3://b/1", run_id=self.run_id))
        register = RegisterPrincipal(
            principal_id="tester", principal_kind="user", key_id="k1", identity_sealed=b"s"
        )
        self.world.do(register)

    def files(self) -> str:
        return f"1/{self.run_id}/artifacts/model.bin"


def takings(given: Given) -> dict[str, Command]:
    """A command of each kind that would take something away."""
    return {
        "model": DeleteRegisteredModel(name="fraud-eu"),
        "rename": RenameRegisteredModel(name="fraud-eu", new_name="x"),
        "version": DeleteModelVersion(name="fraud-eu", version="1"),
        "experiment": DeleteExperiment(experiment_id="1"),
        "rename experiment": RenameExperiment(experiment_id="1", name="x"),
        "run": DeleteRun(run_id=given.run_id),
        "rename run": UpdateRun(run_id=given.run_id, name="x"),
        "logged model": DeleteLoggedModel(model_id=given.logged_id),
        "trace": DeleteTrace(experiment_id="1", trace_id=TRACE),
        "file": RecordDeletion(owner=given.run_id, path=given.files(), files=1),
        "folder": RecordDeletion(owner=given.run_id, path="1", files=1),
        "other content": RecordUpload(
            path=given.files(), size_bytes=1, sha256=b"b" * 32, previous_sha256=b"a" * 32
        ),
        "person": ErasePrincipal(principal_id="tester", reason="asked"),
    }


ALL = {
    "model", "rename", "version", "experiment", "rename experiment", "run", "logged model", "trace",
    "rename run", "file", "folder", "other content", "person",
}  # fmt: skip
OF_MODEL = ALL - {"rename experiment", "logged model", "trace"}
OF_EXPERIMENT = ALL - {"model", "rename", "version"}


def is_refused(given: Given, command: Command) -> bool:
    try:
        given.world.decide(command)
    except Held as error:
        told = error.message
    else:
        return False
    assert "legal hold case-1" in told
    assert "muniment hold release case-1" in told
    return True


def refused(given: Given) -> set[str]:
    return {name for name, command in takings(given).items() if is_refused(given, command)}


def placed(given: Given, **conditions: object) -> None:
    command = PlaceHold(hold="case-1", reason="case", workspace="default", **conditions)  # type: ignore[arg-type]
    assert isinstance(given.world.do(command), Hold)


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({"models": "*", "experiments": "*"}, ALL),
        ({"models": "fraud-*"}, OF_MODEL),
        ({"experiments": "cred*"}, OF_EXPERIMENT),
        ({"principal_id": "tester"}, ALL),
        ({"from_ms": 0}, ALL),
        ({"until_ms": 9_000_000_000_000}, ALL),
        ({"models": "other"}, set()),
        ({"principal_id": "somebody"}, set()),
        ({"models": "fraud-*", "principal_id": "somebody"}, set()),
        ({"models": "fraud-*", "principal_id": "tester"}, OF_MODEL),
        ({"experiments": "*", "until_ms": 5}, set()),
        ({"models": "*", "from_ms": 9_000_000_000_000}, set()),
    ],
)
def test_what_a_hold_covers_stays(conditions: dict[str, object], expected: set[str]) -> None:
    given = Given()
    assert refused(given) == set()
    placed(given, **conditions)
    assert refused(given) == expected
    given.world.do(ReleaseHold(hold="case-1", reason="closed"))
    assert refused(given) == set()
    assert given.world.state.get(hold.KIND, "case-1") is None


def test_a_hold_of_another_workspace_covers_nothing_here() -> None:
    given = Given()
    given.world.do(PlaceHold(hold="case-1", reason="r", workspace="other", models="*"))
    assert refused(given) == set()
    given.world.do(PlaceHold(hold="case-2", reason="r", workspace="*", models="*"))
    with pytest.raises(Held):
        given.world.decide(DeleteRegisteredModel(name="fraud-eu"))


def test_the_same_content_may_be_stored_again_and_new_files_too() -> None:
    given = Given()
    placed(given, experiments="*")
    again = RecordUpload(
        path=given.files(), size_bytes=1, sha256=b"a" * 32, previous_sha256=b"a" * 32
    )
    assert given.world.decide(again) is not None
    new = RecordUpload(path=given.files() + "2", size_bytes=1, sha256=b"a" * 32)
    assert given.world.decide(new) is not None


@pytest.mark.parametrize("name", ["model", "version", "experiment", "person"])
def test_what_was_decided_before_a_hold_came_into_the_log_is_void(name: str) -> None:
    given = Given()
    event = given.world.decide(takings(given)[name])
    assert event is not None
    placed(given, models="*", experiments="*")
    folded = given.world.state.fold(given.world.record(event), event)
    assert folded.void == "a legal hold came first"


def wrong(**changes: object) -> Callable[[], PlaceHold]:
    fields: dict[str, object] = {"hold": "h", "reason": "r", "workspace": "default", "models": "*"}
    return lambda: PlaceHold(**fields | changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "command",
    [
        wrong(hold="a b"),
        wrong(hold=""),
        wrong(reason=" "),
        wrong(reason="x" * 1_001),
        wrong(models=None),
        wrong(models="x" * 300),
        wrong(from_ms=5, until_ms=5),
    ],
)
def test_a_hold_that_says_nothing_or_too_much_is_refused(command: Callable[[], PlaceHold]) -> None:
    with pytest.raises(Invalid):
        TestWorld().decide(command())


def test_holds_have_names_of_their_own() -> None:
    given = Given()
    placed(given, models="*")
    with pytest.raises(AlreadyExists):
        placed(given, models="*")
    with pytest.raises(NotFound):
        given.world.decide(ReleaseHold(hold="none", reason="r"))
    assert [type(event).__name__ for event in given.world.events[-1:]] == [e.HoldPlaced.__name__]
