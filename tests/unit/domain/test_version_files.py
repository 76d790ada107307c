"""Where a version's files are, how versions are found by them, and when they stay as they are."""

from __future__ import annotations

from typing import Any

import pytest

from harness.world import TestWorld
from muniment_services.domain.artifact_changes import RecordDeletion, RecordUpload
from muniment_services.domain.errors import ReviewRequired
from muniment_services.domain.experiment import CreateExperiment
from muniment_services.domain.model_version import (
    CreateModelVersion,
    DeleteModelVersion,
    TransitionStage,
)
from muniment_services.domain.promotion import ApproveRequest, RequestTransition
from muniment_services.domain.promotion_policy import RemovePromotionPolicy, SetPromotionPolicy
from muniment_services.domain.registered_model import RegisteredModel, require
from muniment_services.domain.registry_life import (
    CreateRegisteredModel,
    DeleteAlias,
    DeleteRegisteredModel,
    SetAlias,
)
from muniment_services.domain.run_life import CreateRun
from muniment_services.domain.version_files import folder_of
from muniment_services.state import CurrentState


class Shelf:
    """The model m, with a version for each source that is named, of a run's files."""

    def __init__(self) -> None:
        self.world = TestWorld()
        root = "mlflow-artifacts:"
        create = CreateExperiment(name="e", artifact_location=None, artifact_root=root)
        self.world.do(create)
        run = CreateRun(experiment_id="1", name="r", user_id="u", start_time_ms=1)
        self.run_id = str(self.world.do(run).run_id)  # type: ignore[union-attr]
        self.folder = f"1/{self.run_id}/artifacts"
        self.world.do(CreateRegisteredModel(name="m"))

    def version(self, source: str) -> None:
        self.world.do(CreateModelVersion(name="m", source=source, run_id=self.run_id))

    @property
    def model(self) -> RegisteredModel:
        return require(self.world.state, "m")

    def policy(self, **fields: Any) -> None:
        chosen = {"workspace": "*", "pattern": "m", **fields}
        self.world.do(SetPromotionPolicy(policy="p", **chosen))

    def review(self, stage: str) -> None:
        """Version 1 gets to a stage or alias by an approval."""
        self.world.do(RequestTransition(name="m", version="1", stage=stage), "asker")
        self.world.do(ApproveRequest(name="m", version="1", stage=stage), "approver")

    def upload(self, path: str, replaces: bool = True) -> None:
        command = RecordUpload(path=path, size_bytes=1, sha256=b"s" * 32, replaces=replaces)
        self.world.decide(command)

    def refused(self, path: str, replaces: bool = True) -> bool:
        try:
            self.upload(path, replaces)
        except ReviewRequired:
            return True
        return False


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.mark.parametrize(
    "spelling",
    [
        "runs:/{run}/m",
        "mlflow-artifacts:/1/{run}/artifacts/m",
        "mlflow-artifacts:/1/{hex}/artifacts/m",
    ],
)
def test_a_folder_is_found_however_the_source_is_spelled(shelf: Shelf, spelling: str) -> None:
    spelled = "".join(f"%{ord(c):02x}" for c in shelf.run_id)
    shelf.version(spelling.format(run=shelf.run_id, hex=spelled))
    [version] = shelf.model.versions.values()
    assert folder_of(shelf.world.state, version) == f"{shelf.folder}/m"
    found = list(shelf.world.state.versions_of_files(shelf.run_id))
    assert found == [(shelf.model.model_id, 1)]
    shelf.world.do(TransitionStage(name="m", version="1", stage="Production"))
    shelf.policy(stages=("Production",))
    assert not shelf.refused(f"{shelf.folder}/m/f"), "nobody approved it"
    shelf.world.do(TransitionStage(name="m", version="1", stage="Staging"))
    shelf.review("Production")
    assert shelf.refused(f"{shelf.folder}/m/f")
    assert shelf.refused(f"{shelf.folder}/m")
    assert not shelf.refused(f"{shelf.folder}/mm/f")
    assert not shelf.refused(f"{shelf.folder}/f")


def test_files_kept_elsewhere_are_nobodys_here(shelf: Shelf) -> None:
    shelf.version("s3://b/x")
    [version] = shelf.model.versions.values()
    assert folder_of(shelf.world.state, version) is None
    assert list(shelf.world.state.versions_of_files(shelf.run_id)) == []


def test_they_stay_while_an_alias_stands_and_the_policy_does(shelf: Shelf) -> None:
    shelf.version(f"runs:/{shelf.run_id}/m")
    path = f"{shelf.folder}/m/f"
    shelf.policy(aliases=("champion",))
    shelf.world.do(SetAlias(name="m", alias="other", version="1"))
    assert not shelf.refused(path)
    shelf.review("@champion")
    assert shelf.refused(path)
    assert shelf.refused(path, replaces=False)
    with pytest.raises(ReviewRequired, match="version 1 of m, which is @champion by the policy p"):
        shelf.upload(path)
    for above in (path, f"{shelf.folder}/m", shelf.folder, f"1/{shelf.run_id}", "1"):
        with pytest.raises(ReviewRequired):
            shelf.world.decide(RecordDeletion(owner=shelf.run_id, path=above, files=1))
    shelf.world.do(RemovePromotionPolicy(policy="p"))
    assert not shelf.refused(path)
    shelf.policy(aliases=("champion",))
    assert shelf.refused(path)
    shelf.world.do(DeleteAlias(name="m", alias="champion"))
    assert shelf.model.reviewed == ()
    assert not shelf.refused(path)


def test_a_whole_run_goes_on_logging(shelf: Shelf) -> None:
    shelf.version(f"runs:/{shelf.run_id}")
    shelf.policy(stages=("Production",))
    shelf.review("Production")
    assert shelf.refused(f"{shelf.folder}/f")
    assert not shelf.refused(f"{shelf.folder}/f", replaces=False)
    with pytest.raises(ReviewRequired):
        shelf.world.decide(RecordDeletion(owner=shelf.run_id, path=shelf.folder, files=1))


def test_versions_are_forgotten_with_their_deletion_and_found_after_a_restart(
    shelf: Shelf,
) -> None:
    for _ in range(2):
        shelf.version(f"runs:/{shelf.run_id}/m")
    model_id = shelf.model.model_id
    shelf.world.do(DeleteModelVersion(name="m", version="1"))
    state = shelf.world.state
    assert list(state.versions_of_files(shelf.run_id)) == [(model_id, 2)]
    again, restored = CurrentState(catalog=dict(state.catalog)), CurrentState()
    restored.restore(state.catalog)
    for other in (again, restored):
        assert list(other.versions_of_files(shelf.run_id)) == [(model_id, 2)]
    shelf.world.do(DeleteRegisteredModel(name="m"))
    assert list(state.versions_of_files(shelf.run_id)) == []
