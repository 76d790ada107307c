"""Databricks' own SDK, unmodified, with this server as its workspace registry."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator

import pytest
import requests
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import NotFound, PermissionDenied
from databricks.sdk.service import ml
from databricks.sdk.service.ml import ModelRegistryAPI


@pytest.fixture
def registry(tracking_uri: str) -> ModelRegistryAPI:
    return WorkspaceClient(host=tracking_uri, token="unused", auth_type="pat").model_registry


@pytest.fixture
def name(registry: ModelRegistryAPI) -> Iterator[str]:
    """A model with one version."""
    made = f"sdk-{uuid.uuid4().hex[:8]}"
    created = registry.create_model(made, description="d", tags=[ml.ModelTag("team", "x")])
    assert created.registered_model is not None
    version = registry.create_model_version(made, "s3://bucket/model", description="v")
    assert version.model_version is not None
    assert version.model_version.version == "1"
    yield made
    registry.delete_model(made)


def test_models_and_versions(registry: ModelRegistryAPI, name: str) -> None:
    found = registry.get_model(name).registered_model_databricks
    assert found is not None
    assert (found.name, found.description) == (name, "d")
    assert name in {model.name for model in registry.list_models()}
    assert [m.name for m in registry.search_models(filter=f"name = '{name}'")] == [name]
    registry.update_model(name, description="changed")
    registry.set_model_tag(name, "k", "v")
    registry.delete_model_tag(name, "k")
    registry.set_model_version_tag(name, "1", "k", "v")
    registry.delete_model_version_tag(name, "1", "k")
    registry.update_model_version(name, "1", description="better")
    version = registry.get_model_version(name, "1").model_version
    assert version is not None
    assert version.description == "better"
    assert registry.get_model_version_download_uri(name, "1").artifact_uri == "s3://bucket/model"
    listed = list(registry.search_model_versions(filter=f"name = '{name}'"))
    assert [version.version for version in listed] == ["1"]
    assert [v.version for v in registry.get_latest_versions(name)] == ["1"]


def test_a_request_is_made_approved_and_applied(registry: ModelRegistryAPI, name: str) -> None:
    made = registry.create_transition_request(name, "1", "Production", comment="please").request
    assert made is not None
    assert made.to_stage == "Production"
    [opened] = registry.list_transition_requests(name, "1")
    assert opened.comment == "please"
    assert opened.activity_type == ml.ActivityType.REQUESTED_TRANSITION
    done = registry.approve_transition_request(name, "1", "Production", False, comment="ok")
    assert done.activity is not None
    assert done.activity.activity_type == ml.ActivityType.APPROVED_REQUEST
    version = registry.get_model_version(name, "1").model_version
    assert version is not None
    assert version.current_stage == "Production"
    assert list(registry.list_transition_requests(name, "1")) == []


def test_a_request_is_rejected_or_taken_back(registry: ModelRegistryAPI, name: str) -> None:
    registry.create_transition_request(name, "1", "Staging")
    rejected = registry.reject_transition_request(name, "1", "Staging", comment="no").activity
    assert rejected is not None
    assert rejected.activity_type == ml.ActivityType.REJECTED_REQUEST
    made = registry.create_transition_request(name, "1", "Staging").request
    assert made is not None
    assert made.user_id is not None
    registry.delete_transition_request(name, "1", "Staging", made.user_id)
    with pytest.raises(NotFound):
        registry.approve_transition_request(name, "1", "Staging", False)


def test_a_plain_transition_and_comments(registry: ModelRegistryAPI, name: str) -> None:
    moved = registry.transition_stage(name, "1", "Staging", False, comment="go")
    assert moved.model_version_databricks is not None
    assert moved.model_version_databricks.current_stage == "Staging"
    comment = registry.create_comment(name, "1", "looks good").comment
    assert comment is not None
    assert comment.id is not None
    changed = registry.update_comment(comment.id, "looks very good").comment
    assert changed is not None
    assert changed.comment == "looks very good"
    registry.delete_comment(comment.id)
    with pytest.raises(NotFound):
        registry.delete_comment(comment.id)


def test_what_is_asked_for_is_told_with_the_version(registry: ModelRegistryAPI, name: str) -> None:
    registry.create_transition_request(name, "1", "Production", comment="please")
    moved = registry.transition_stage(name, "1", "Staging", False).model_version_databricks
    assert moved is not None
    assert moved.open_requests is not None
    [asked] = moved.open_requests
    assert (asked.to_stage, asked.comment, asked.user_id) == (
        "Production",
        "please",
        moved.user_id,
    )
    assert asked.from_stage == "Staging"
    assert moved.permission_level == ml.PermissionLevel.CAN_MANAGE
    found = registry.get_model(name).registered_model_databricks
    assert found is not None
    assert found.permission_level == ml.PermissionLevel.CAN_MANAGE
    assert found.latest_versions is not None
    assert [v.user_id for v in found.latest_versions] == [moved.user_id]


def test_lists_are_paged_by_the_sdk(registry: ModelRegistryAPI, name: str) -> None:
    registry.create_model_version(name, "s3://bucket/other")
    models = registry.list_models(max_results=1)
    assert name in {model.name for model in models}
    found = registry.search_model_versions(filter=f"name = '{name}'", max_results=1)
    assert {version.version for version in found} == {"1", "2"}
    renamed = registry.rename_model(name, new_name=f"{name}-renamed").registered_model
    assert renamed is not None
    assert renamed.name == f"{name}-renamed"
    registry.rename_model(f"{name}-renamed", new_name=name)


def test_versions_and_models_are_deleted(registry: ModelRegistryAPI, name: str) -> None:
    registry.create_model_version(name, "s3://bucket/other")
    registry.delete_model_version(name, "2")
    with pytest.raises(NotFound):
        registry.get_model_version(name, "2")


def test_a_policy_is_told_by_the_sdk_too(
    registry: ModelRegistryAPI, name: str, tracking_uri: str
) -> None:
    url = f"{tracking_uri}/api/v1/policies/promotion/{name}"
    body = json.dumps({"pattern": name, "stages": ["Production"]})
    given = {"content-type": "application/json"}
    assert requests.put(url, body, headers=given, timeout=10).status_code == 200
    try:
        with pytest.raises(PermissionDenied, match="1 approval"):
            registry.transition_stage(name, "1", "Production", False)
    finally:
        assert requests.delete(url, timeout=10).status_code == 200
