"""What one request may know and do: views of the state, and what is asked of the policy."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.world import TestWorld
from muniment_auth.permissions import Permission
from muniment_auth.policy import EVERYTHING, NOBODY, Access
from muniment_schemas.ids import Offset
from muniment_services.authority import Authority, Denied, Need, View, of_experiment
from muniment_services.domain import experiment
from muniment_services.domain.errors import Quarantined
from muniment_services.domain.experiment import CreateExperiment, Experiment
from muniment_services.log.base import TopicPartition
from muniment_services.state import Stopped

ROOT = "mlflow-artifacts:"


def authority(access: Access, permission: Permission = Permission.EXPERIMENT_READ) -> Authority:
    return Authority(lambda: access, permission, lambda: 0)


@pytest.fixture
def world() -> TestWorld:
    made = TestWorld()
    made.do(CreateExperiment(name="a", artifact_location=None, artifact_root=ROOT))
    return made


def found(view: View) -> list[object]:
    return [view.get(experiment.KIND, "1"), view.named(experiment.KIND, "a")]


def test_what_may_not_be_read_is_not_there(world: TestWorld) -> None:
    assert found(authority(NOBODY).reading(world.state)) == [None, None]
    assert found(authority(NOBODY).view(world.state)) == [None, None]
    seen = found(authority(EVERYTHING).reading(world.state))
    assert all(isinstance(one, Experiment) for one in seen)


def test_a_name_is_taken_whoever_asks(world: TestWorld) -> None:
    hidden = authority(NOBODY).view(world.state)
    assert hidden.taken(experiment.KIND, "a") is not None
    assert hidden.known(experiment.KIND, "1") is not None
    assert list(hidden.of_kind(experiment.KIND)) == []
    assert len(list(hidden.known_of_kind(experiment.KIND))) == 1


def test_what_is_in_quarantine_is_not_told(world: TestWorld) -> None:
    stopped = Stopped(TopicPartition("catalog", 0), Offset(7), "ExperimentRenamed", "unknown")
    world.state.quarantine[(experiment.KIND, "1")] = stopped
    view = authority(EVERYTHING).reading(world.state)
    with pytest.raises(Quarantined):
        view.get(experiment.KIND, "1")
    with pytest.raises(Quarantined):
        view.named(experiment.KIND, "a")
    assert found(authority(EVERYTHING).view(world.state)) != [None, None], "the writer says so"


def test_a_need_that_is_hidden_is_no_refusal_but_lets_nothing_happen(world: TestWorld) -> None:
    state = world.state.get(experiment.KIND, "1")
    assert isinstance(state, Experiment)
    need = Need(of_experiment(state))
    assert authority(EVERYTHING).check([need])
    assert not authority(NOBODY).check([need])
    with pytest.raises(Denied):
        authority(NOBODY).check([Need(of_experiment(state), exists=False)])


def test_who_asked_is_remembered(world: TestWorld) -> None:
    asks: list[Callable[[Authority], object]] = [
        lambda a: a.reading(world.state),
        lambda a: a.view(world.state),
        lambda a: a.check([]),
        lambda a: a.visible_experiments(),
        lambda a: a.visible_models(),
        lambda a: a.reads_all,
    ]
    for ask in asks:
        asking = authority(EVERYTHING)
        assert not asking.asked
        ask(asking)
        assert asking.asked
