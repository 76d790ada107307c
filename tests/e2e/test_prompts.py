"""Prompts: registered models by another name, kept apart from the models."""

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException


def test_a_prompt_has_versions_aliases_and_tags(unique: str) -> None:
    first = mlflow.genai.register_prompt(
        unique, "Hello {{name}}", commit_message="first", tags={"tone": "warm"}
    )
    second = mlflow.genai.register_prompt(unique, "Grüße, {{name}}, from {{place}}")
    assert (first.version, second.version) == (1, 2)
    assert first.commit_message == "first"
    read = mlflow.genai.load_prompt(unique, version=1)
    assert read.template == "Hello {{name}}"
    assert read.tags == {"tone": "warm"}
    assert mlflow.genai.load_prompt(f"prompts:/{unique}/2").format(name="Ana", place="Graz") == (
        "Grüße, Ana, from Graz"
    )
    mlflow.genai.set_prompt_alias(unique, "live", 1)
    assert mlflow.genai.load_prompt(f"prompts:/{unique}@live").version == 1
    mlflow.genai.set_prompt_alias(unique, "live", 2)
    by_alias = mlflow.genai.load_prompt(f"prompts:/{unique}@live", cache_ttl_seconds=0)
    assert by_alias.version == 2
    mlflow.genai.delete_prompt_alias(unique, "live")
    mlflow.genai.set_prompt_tag(unique, "owner", "ana")
    assert mlflow.genai.get_prompt_tags(unique)["owner"] == "ana"


def test_a_chat_prompt_keeps_its_messages(unique: str) -> None:
    messages = [
        {"role": "system", "content": "You are {{kind}}."},
        {"role": "user", "content": "{{question}}"},
    ]
    mlflow.genai.register_prompt(unique, messages)
    read = mlflow.genai.load_prompt(unique, version=1)
    assert read.template == messages
    assert read.format(kind="brief", question="Why?")[1] == {"role": "user", "content": "Why?"}


def test_prompts_and_models_do_not_mix(client: MlflowClient, unique: str) -> None:
    mlflow.genai.register_prompt(f"{unique}-prompt", "text")
    client.create_registered_model(f"{unique}-model")
    mine = f"name LIKE '{unique}-%'"
    assert [model.name for model in client.search_registered_models(mine)] == [f"{unique}-model"]
    prompts = mlflow.genai.search_prompts(mine)
    assert [prompt.name for prompt in prompts] == [f"{unique}-prompt"]
    with pytest.raises(MlflowException, match="already taken by a prompt") as taken:
        client.create_registered_model(f"{unique}-prompt")
    assert taken.value.error_code == "RESOURCE_ALREADY_EXISTS"
    assert mlflow.genai.load_prompt(f"{unique}-prompt", version=9, allow_missing=True) is None
