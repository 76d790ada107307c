"""Sources of model versions: which are refused and why, where the others lead."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from harness.world import TestWorld
from muniment_services.domain.errors import DomainError, Invalid, NotAllowedNow, NotFound
from muniment_services.domain.experiment import CreateExperiment
from muniment_services.domain.logged_model import (
    CreateLoggedModel,
    DeleteLoggedModel,
    LoggedModel,
)
from muniment_services.domain.model_version import CreateModelVersion, TransitionStage
from muniment_services.domain.registered_model import ModelVersion, RegisteredModel
from muniment_services.domain.registry_life import CreateRegisteredModel, SetAlias
from muniment_services.domain.run import Run
from muniment_services.domain.run_life import CreateRun

UNKNOWN = "0" * 32
PROMPT = (("mlflow.prompt.is_prompt", "true"),)
NOT_ABSOLUTE = "an absolute path must be provided without relative path references present."
NOT_THE_RUNS = "The run_id request parameter must identify the resource that contains the source."
NOT_THE_MODELS = "The model_id request parameter must identify the resource that contains"
LOCAL = "To use a local path as a model version source, the run_id request parameter has to be"
OTHER_HOST = "scheme addresses a host other than the tracking server's configured artifact storage"


@dataclass
class Place:
    """A world with a run, a logged model, a model with three versions, and a prompt."""

    world: TestWorld
    run: Run
    model: LoggedModel

    def filled(self, text: str) -> str:
        return text.replace("RUN", self.run.run_id).replace("LM", self.model.model_id)

    def create(
        self, source: str, run_id: str | None = None, model_id: str | None = None, name: str = "m"
    ) -> ModelVersion:
        made = self.world.do(
            CreateModelVersion(
                name=name,
                source=self.filled(source),
                run_id=None if run_id is None else self.filled(run_id),
                logged_model_id=None if model_id is None else self.filled(model_id),
            )
        )
        assert isinstance(made, RegisteredModel)
        return made.versions[made.last_version]


@pytest.fixture
def place() -> Place:
    return at("mlflow-artifacts:/1")


def at(location: str) -> Place:
    world = TestWorld()
    world.do(CreateExperiment(name="e", artifact_location=location, artifact_root="unused:"))
    run = world.do(CreateRun(experiment_id="1", name="r", user_id="", start_time_ms=1))
    assert isinstance(run, Run)
    model = world.do(CreateLoggedModel(experiment_id="1", name="lm", source_run_id=run.run_id))
    assert isinstance(model, LoggedModel)
    world.do(CreateRegisteredModel(name="m"))
    found = Place(world, run, model)
    found.create("runs:/RUN/model", run_id="RUN")
    found.create("models:/LM", model_id="LM")
    found.create("s3://b/3")
    world.do(SetAlias(name="m", alias="best", version="1"))
    world.do(TransitionStage(name="m", version="2", stage="Production"))
    world.do(CreateRegisteredModel(name="p", tags=PROMPT))
    return found


@pytest.mark.parametrize(
    ("source", "run_id", "model_id"),
    [
        ("s3://bucket/a b/ü", None, None),
        ("s3://bucket/x#frag", None, None),
        ("s3://bucket/x/", None, None),
        ("s3://bucket//x", None, None),
        ("s3://bucket/a?x=../y", None, None),
        ("dbfs:/x", None, None),
        ("wasbs://c@a.blob.core.windows.net/x", None, None),
        ("s3://b/x", UNKNOWN, None),
        ("runs:/RUN/model", "RUN", None),
        ("runs:/RUN", "RUN", None),
        ("mlflow-artifacts:/1/RUN/artifacts/model", "RUN", None),
        ("mlflow-artifacts:/1/RUN/%61rtifacts/model", "RUN", None),
        ("models:/LM", None, "LM"),
        ("mlflow-artifacts:/1/models/LM/artifacts", None, "LM"),
    ],
)
def test_sources_that_are_taken(
    place: Place, source: str, run_id: str | None, model_id: str | None
) -> None:
    made = place.create(source, run_id, model_id)
    assert made.source == place.filled(source)
    assert made.logged_model_id == (place.model.model_id if model_id else None)


@pytest.mark.parametrize(
    ("source", "run_id", "model_id", "words"),
    [
        ("runs:/RUN/model", None, None, NOT_THE_RUNS),
        (f"runs:/{UNKNOWN}/model", "RUN", None, NOT_THE_RUNS),
        ("runs://host/RUN", "RUN", None, NOT_THE_RUNS),
        ("runs:/", "RUN", None, NOT_ABSOLUTE),
        ("runs:/RUN/model", "RUN", "LM", NOT_THE_MODELS),
        ("s3://bucket/../x", None, None, NOT_ABSOLUTE),
        ("s3://bucket/%2e%2e/x", None, None, NOT_ABSOLUTE),
        ("s3://bucket/%252e%252e/x", None, None, NOT_ABSOLUTE),
        ("s3://bucket/./x", None, None, NOT_ABSOLUTE),
        ("s3://bucket/a%00b", None, None, NOT_ABSOLUTE),
        ("s3://bucket", None, None, NOT_ABSOLUTE),
        ("s3:x", None, None, NOT_ABSOLUTE),
        ("s3://bucket/../x", None, "LM", NOT_ABSOLUTE),
        ("mlflow-artifacts:/a/../b", None, None, NOT_ABSOLUTE),
        ("mlflow-artifacts:/x", None, None, NOT_THE_RUNS),
        ("mlflow-artifacts:/1/RUN/artifactsX", "RUN", None, NOT_THE_RUNS),
        ("mlflow-artifacts:/1/RUN/artifacts", UNKNOWN, None, NOT_THE_RUNS),
        ("mlflow-artifacts:/1/RUN/artifacts", None, "LM", NOT_THE_MODELS),
        ("mlflow-artifacts:/1/models/LM/artifacts", None, "m-x", NOT_THE_MODELS),
        ("mlflow-artifacts://example.test/a", None, None, OTHER_HOST),
        ("http://example.test/model", None, None, OTHER_HOST),
        ("HTTPS://example.test/model", None, None, OTHER_HOST),
        ("hdfs://h/x", None, None, OTHER_HOST),
        ("http://[x", None, None, "Invalid model version source"),
        ("/tmp/x", None, None, LOCAL),
        ("/tmp/x", "RUN", None, LOCAL),
        ("file:///tmp/x", None, None, LOCAL),
        ("../x", None, None, LOCAL),
        ("x/y", None, "LM", "the model_id request parameter has to be specified"),
        ("file://remote/x", "RUN", None, "must not name another host"),
        ("models:/LM", None, None, NOT_THE_MODELS),
        ("models:/LM", None, "m-x", NOT_THE_MODELS),
        ("models:/m", None, None, NOT_THE_MODELS),
        ("models:/m/1/x", None, None, NOT_THE_MODELS),
        ("models:/m@", None, None, NOT_THE_MODELS),
        ("models:x", None, None, NOT_THE_MODELS),
        ("models://host/m/1", None, None, "must use the active model registry."),
        ("models:/m/1", UNKNOWN, None, "must match the referenced model version."),
        ("models:/m/1", None, "LM", "must match the referenced model version."),
        ("models:/m/Nope", None, None, "Invalid Model Version stage: Nope."),
        ("models:/m@nope", None, None, "Registered model alias nope not found."),
        ("models:/p/1", None, None, "Prompt versions cannot be used as model version sources."),
    ],
)
def test_sources_that_are_refused(
    place: Place, source: str, run_id: str | None, model_id: str | None, words: str
) -> None:
    with pytest.raises(Invalid) as refused:
        place.create(source, run_id, model_id)
    assert words in refused.value.message


@pytest.mark.parametrize(
    ("source", "model_id", "kind", "words"),
    [
        ("models:/m/99", None, NotFound, "Model Version (name=m, version=99) not found"),
        ("models:/nope/1", None, NotFound, "Registered Model with name=nope not found"),
        (
            "models:/m/Staging",
            None,
            NotAllowedNow,
            "No versions of model with name 'm' and stage 'Staging' found",
        ),
        (
            "models:/m-x",
            "m-x",
            NotAllowedNow,
            "Unable to fetch model from model URI source artifact location 'models:/m-x'."
            "Error: Logged model with ID 'm-x' not found.",
        ),
        ("s3://b/x", "m-x", NotFound, "Logged model with ID 'm-x' not found."),
    ],
)
def test_sources_that_lead_nowhere(
    place: Place, source: str, model_id: str | None, kind: type[DomainError], words: str
) -> None:
    with pytest.raises(kind) as refused:
        place.create(source, None, model_id)
    assert refused.value.message == words


@pytest.mark.parametrize(
    ("source", "resolved"),
    [
        ("models:/m/1", "models:/m/1"),
        ("models:/m/01", "models:/m/1"),
        ("models:/m@best", "models:/m/1"),
        ("models:/m/production", "models:/m/2"),
        ("models:/m/latest", "models:/m/3"),
        ("models:/m@latest", "models:/m/3"),
    ],
)
def test_a_version_as_source_is_named_by_number(place: Place, source: str, resolved: str) -> None:
    assert place.create(source).source == resolved


def test_a_copy_has_the_originals_files_and_run(place: Place) -> None:
    place.world.do(CreateRegisteredModel(name="copy"))
    first = place.create("models:/m/1", name="copy")
    second = place.create("models:/copy/1", place.run.run_id, name="copy")
    assert first.storage_location == second.storage_location == place.filled("runs:/RUN/model")
    assert first.run_id == second.run_id == place.run.run_id


def test_a_logged_models_files_are_where_it_keeps_them(place: Place) -> None:
    made = place.create("models:/LM", model_id="LM")
    assert made.storage_location == place.model.artifact_uri
    assert made.run_id == place.run.run_id, "the run that logged it"
    assert place.create("models:/LM", "other", "LM").run_id == "other"
    assert place.create("s3://b/x", model_id="LM").run_id == place.run.run_id


def test_a_deleted_logged_model_cannot_be_registered(place: Place) -> None:
    place.world.do(DeleteLoggedModel(model_id=place.model.model_id))
    with pytest.raises(NotAllowedNow, match=r"not found\.$"):
        place.create("models:/LM", model_id="LM")


@pytest.mark.parametrize(
    ("source", "allowed"),
    [
        ("/data/e/RUN/artifacts/model", True),
        ("file:///data/e/RUN/artifacts", True),
        ("/data/e/RUN/artifacts/../artifacts/x", True),
        ("/data/e/RUN/artifacts/../x", False),
        ("/data/e/RUN/artifactsX", False),
        ("/data/e/RUN/artifacts/%2e%2e/x", False),
        ("data/e/RUN/artifacts", False),
    ],
)
def test_local_files_must_be_those_of_the_run(source: str, allowed: bool) -> None:
    place = at("file:///data/e")
    if allowed:
        assert place.create(source, "RUN").source == place.filled(source)
        return
    with pytest.raises(Invalid):
        place.create(source, "RUN")


@pytest.mark.parametrize("source", ["dummy-source", "prompt-template"])
def test_a_prompts_source_is_a_placeholder(place: Place, source: str) -> None:
    made = place.world.do(CreateModelVersion(name="p", source=source, tags=PROMPT))
    assert isinstance(made, RegisteredModel)
    assert made.versions[1].source == source
    with pytest.raises(Invalid, match="Prompt sources must use an MLflow placeholder"):
        place.world.do(CreateModelVersion(name="p", source="s3://b/x", tags=PROMPT))


def test_a_commands_needs_are_the_run_and_the_logged_model() -> None:
    command = CreateModelVersion(name="m", source="s", run_id="r", logged_model_id="m-1")
    assert command.needs() == (("run", "r"), ("logged_model", "m-1"))
    assert command.registers_logged_model
    assert CreateModelVersion(name="m", source="s", run_id="").needs() == ()
    prompt = CreateModelVersion(name="p", source="s", logged_model_id="m-1", tags=PROMPT)
    assert not prompt.registers_logged_model
