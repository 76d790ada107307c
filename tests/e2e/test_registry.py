"""The model registry: versions, stages, aliases, and loading a model by what it is for."""

from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException, RestException

from harness.forest import Data, Trained, log_forest, make_data

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # stages are deprecated, and used


@pytest.fixture(scope="module")
def data() -> Data:
    """The rows that the models of this file learn from."""
    return make_data(seed=5)


@pytest.fixture(scope="module")
def forests(tracking_uri: str, data: Data) -> tuple[Trained, Trained]:
    """Two models that predict differently, logged once for this file."""
    mlflow.set_experiment("registry journeys")
    small = log_forest(data, n_estimators=2, max_depth=2)
    return small, log_forest(data, n_estimators=10, max_depth=5)


def register(forest: Trained, name: str) -> ModelVersion:
    """Register the forest's logged model as the next version of `name`."""
    return mlflow.register_model(forest.info.model_uri, name)


def stages_of(client: MlflowClient, name: str) -> dict[str, str]:
    """The current stage of each version of a model."""
    found = client.search_model_versions(f"name = '{name}'")
    return {str(version.version): str(version.current_stage) for version in found}


def test_a_model_walks_through_its_stages(
    client: MlflowClient, unique: str, forests: tuple[Trained, Trained], data: Data
) -> None:
    small, large = forests
    first, second = register(small, unique), register(large, unique)
    assert [str(v.version) for v in (first, second)] == ["1", "2"]
    assert first.status == "READY"
    assert stages_of(client, unique) == {"1": "None", "2": "None"}
    for stage in ("Staging", "Production"):
        moved = client.transition_model_version_stage(unique, "1", stage)
        assert moved.current_stage == stage
    by_stage = mlflow.pyfunc.load_model(f"models:/{unique}/Production")
    np.testing.assert_array_equal(by_stage.predict(data.test), small.model.predict(data.test))

    client.transition_model_version_stage(unique, "2", "staging")
    client.transition_model_version_stage(unique, "2", "Production", archive_existing_versions=True)
    assert stages_of(client, unique) == {"1": "Archived", "2": "Production"}
    by_stage = mlflow.sklearn.load_model(f"models:/{unique}/Production")
    np.testing.assert_array_equal(by_stage.predict(data.test), large.model.predict(data.test))
    by_version = mlflow.pyfunc.load_model(f"models:/{unique}/1")
    np.testing.assert_array_equal(by_version.predict(data.test), small.model.predict(data.test))
    latest = client.get_latest_versions(unique, ["Production", "Archived", "Staging"])
    assert {v.current_stage: str(v.version) for v in latest} == {"Production": "2", "Archived": "1"}


def test_stages_refuse_what_makes_no_sense(
    client: MlflowClient, unique: str, forests: tuple[Trained, Trained]
) -> None:
    register(forests[0], unique)
    with pytest.raises(MlflowException, match="Invalid Model Version stage: Nope") as unknown:
        client.transition_model_version_stage(unique, "1", "Nope")
    assert unknown.value.error_code == "INVALID_PARAMETER_VALUE"
    with pytest.raises(RestException, match="version=9") as missing:
        client.transition_model_version_stage(unique, "9", "Staging")
    assert missing.value.error_code == "RESOURCE_DOES_NOT_EXIST"
    with pytest.raises(MlflowException, match="stage 'Production'"):
        mlflow.pyfunc.load_model(f"models:/{unique}/Production")
    assert stages_of(client, unique) == {"1": "None"}


def test_an_alias_points_and_moves(
    client: MlflowClient, unique: str, forests: tuple[Trained, Trained], data: Data
) -> None:
    small, large = forests
    register(small, unique)
    register(large, unique)
    client.set_registered_model_alias(unique, "champion", "1")
    client.set_registered_model_alias(unique, "oldest", "1")
    assert sorted(client.get_model_version(unique, "1").aliases) == ["champion", "oldest"]
    client.set_registered_model_alias(unique, "champion", "2")
    assert str(client.get_model_version_by_alias(unique, "champion").version) == "2"
    assert client.get_model_version(unique, "1").aliases == ["oldest"]
    loaded = mlflow.pyfunc.load_model(f"models:/{unique}@champion")
    np.testing.assert_array_equal(loaded.predict(data.test), large.model.predict(data.test))
    assert client.get_registered_model(unique).aliases == {"champion": "2", "oldest": "1"}
    client.delete_registered_model_alias(unique, "champion")
    client.delete_registered_model_alias(unique, "champion")
    with pytest.raises(MlflowException, match="alias champion not found"):
        client.get_model_version_by_alias(unique, "champion")
    with pytest.raises(MlflowException, match="reserved"):
        client.set_registered_model_alias(unique, "latest", "1")
    client.delete_model_version(unique, "1")
    assert client.get_registered_model(unique).aliases == {}


def test_a_version_knows_where_it_comes_from(
    client: MlflowClient, unique: str, forests: tuple[Trained, Trained]
) -> None:
    trained = forests[0]
    by_run = mlflow.register_model(f"runs:/{trained.run_id}/model", unique, tags={"via": "run"})
    by_model = register(trained, unique)
    for version in (by_run, by_model):
        read = client.get_model_version(unique, version.version)
        assert read.run_id == trained.run_id
        assert read.source == f"models:/{trained.info.model_id}"
        assert read.creation_timestamp > 1_600_000_000_000
    assert client.get_model_version(unique, "1").tags == {"via": "run"}
    logged = client.get_logged_model(trained.info.model_id)
    assert unique in logged.tags["mlflow.modelVersions"]
    location = client.get_model_version_download_uri(unique, "2")
    assert trained.info.model_id in location
    local = Path(mlflow.artifacts.download_artifacts(f"models:/{unique}/1"))
    assert {"MLmodel", "model.skops", "registered_model_meta"} <= {p.name for p in local.iterdir()}


def test_log_model_registers_on_the_way(
    client: MlflowClient, experiment_id: str, unique: str, data: Data
) -> None:
    for expected in ("1", "2"):
        trained = log_forest(data, n_estimators=1, register_as=unique)
        assert str(trained.info.registered_model_version) == expected
    (latest,) = client.get_latest_versions(unique)
    assert str(latest.version) == "2"
    assert latest.run_id == trained.run_id


def test_a_model_is_described_tagged_and_renamed(
    client: MlflowClient, unique: str, forests: tuple[Trained, Trained], data: Data
) -> None:
    client.create_registered_model(unique, tags={"domain": "fraud"}, description="first words")
    register(forests[0], unique)
    client.update_registered_model(unique, "better words")
    client.set_registered_model_tag(unique, "owner", "ana")
    client.delete_registered_model_tag(unique, "domain")
    client.update_model_version(unique, "1", "version words")
    client.set_model_version_tag(unique, "1", "checked", "yes")
    client.set_model_version_tag(unique, "1", "checked", "twice")
    client.set_model_version_tag(unique, "1", "soon", "gone")
    client.delete_model_version_tag(unique, "1", "soon")
    client.set_registered_model_alias(unique, "here", "1")
    client.transition_model_version_stage(unique, "1", "Production")
    renamed = f"{unique}-renamed ü"
    client.rename_registered_model(unique, renamed)

    model = client.get_registered_model(renamed)
    assert (model.description, model.tags) == ("better words", {"owner": "ana"})
    assert model.last_updated_timestamp >= model.creation_timestamp
    assert model.aliases == {"here": "1"}
    version = client.get_model_version(renamed, "1")
    assert (version.description, version.tags) == ("version words", {"checked": "twice"})
    assert version.current_stage == "Production"
    with pytest.raises(RestException, match=f"Registered Model with name={unique} not found"):
        client.get_registered_model(unique)
    loaded = mlflow.pyfunc.load_model(f"models:/{renamed}@here")
    assert len(loaded.predict(data.test)) == len(data.test)


def test_names_are_taken_once_and_free_again(
    client: MlflowClient, unique: str, forests: tuple[Trained, Trained]
) -> None:
    client.create_registered_model(unique)
    with pytest.raises(RestException, match="already exists") as taken:
        client.create_registered_model(unique)
    assert taken.value.error_code == "RESOURCE_ALREADY_EXISTS"
    client.create_registered_model(f"{unique}-other")
    with pytest.raises(RestException, match="already exists"):
        client.rename_registered_model(f"{unique}-other", unique)
    register(forests[0], unique)
    register(forests[0], unique)
    client.delete_model_version(unique, "2")
    assert str(register(forests[0], unique).version) == "3", "a number is never used again"
    client.delete_registered_model(unique)
    with pytest.raises(RestException) as gone:
        client.get_registered_model(unique)
    assert gone.value.error_code == "RESOURCE_DOES_NOT_EXIST"
    assert client.search_model_versions(f"name = '{unique}'") == []
    assert str(register(forests[0], unique).version) == "1"
    for bad in ("a/b", "a:b", " "):
        with pytest.raises(MlflowException) as refused:
            client.create_registered_model(bad)
        assert refused.value.error_code == "INVALID_PARAMETER_VALUE"


def test_a_version_is_copied_to_another_model(
    client: MlflowClient, unique: str, forests: tuple[Trained, Trained], data: Data
) -> None:
    trained = forests[1]
    source, target = f"{unique}-staging", f"{unique}-prod"
    register(trained, source)
    client.set_model_version_tag(source, "1", "kept", "yes")
    copied = client.copy_model_version(f"models:/{source}/1", target)
    assert (copied.name, str(copied.version)) == (target, "1")
    assert copied.source == f"models:/{source}/1"
    assert copied.run_id == trained.run_id
    assert copied.tags == {"kept": "yes"}
    assert client.get_model_version_download_uri(target, "1") == (
        client.get_model_version_download_uri(source, "1")
    )
    again = client.copy_model_version(f"models:/{target}/1", target)
    assert str(again.version) == "2"
    loaded = mlflow.pyfunc.load_model(f"models:/{target}/2")
    np.testing.assert_array_equal(loaded.predict(data.test), trained.model.predict(data.test))


def test_models_are_searched_and_paged(client: MlflowClient, unique: str) -> None:
    names = [f"{unique}-{n:02}" for n in range(7)]
    for number, name in enumerate(names):
        client.create_registered_model(name, tags={"parity": str(number % 2)})
    mine = f"name LIKE '{unique}-%'"
    first = client.search_registered_models(mine, max_results=5)
    second = client.search_registered_models(mine, max_results=5, page_token=first.token)
    assert [model.name for model in [*first, *second]] == names
    assert not second.token
    newest = client.search_registered_models(mine, order_by=["name DESC"], max_results=2)
    assert [model.name for model in newest] == names[:-3:-1]
    odd = client.search_registered_models(f"{mine} AND tags.parity = '1'")
    assert [model.name for model in odd] == names[1::2]
    exact = mlflow.search_registered_models(filter_string=f"name = '{names[3]}'")
    assert [(model.name, model.tags) for model in exact] == [(names[3], {"parity": "1"})]


def test_versions_are_searched(
    client: MlflowClient, unique: str, forests: tuple[Trained, Trained]
) -> None:
    small, large = forests
    for trained in (small, large, small):
        register(trained, unique)
    client.set_model_version_tag(unique, "2", "good", "yes")
    mine = f"name = '{unique}'"

    def search(filter_string: str, order_by: list[str] | None = None) -> list[str]:
        found = client.search_model_versions(filter_string, order_by=order_by)
        return [str(version.version) for version in found if version.name == unique]

    assert search(mine, ["version_number ASC"]) == ["1", "2", "3"]
    assert search(f"{mine} AND tags.good = 'yes'") == ["2"]
    assert search(f"{mine} AND version_number > 1", ["version_number DESC"]) == ["3", "2"]
    assert sorted(search(f"run_id = '{small.run_id}'")) == ["1", "3"]
    assert sorted(search(f"{mine} AND run_id IN ('{large.run_id}')")) == ["2"]
    assert search(f"{mine} AND source_path = 'nowhere'") == []
