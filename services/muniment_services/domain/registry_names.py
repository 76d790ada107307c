"""Names, numbers, stages, aliases and tags of the registry: what is allowed, in MLflow's words.

Source: MLflow 3.17 REST API documentation and the answers of its server.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from muniment_services.domain.errors import Invalid
from muniment_services.domain.limits import (
    KEY_CHARS_MAX,
    REGISTRY_TAG_VALUE_CHARS_MAX,
    check_key,
    check_length,
    invalid_value,
)

ALIAS_CHARS_MAX = 255
LATEST = "latest"
"""The alias that always means the newest version; no one can set it."""

NONE = "None"
STAGING = "Staging"
PRODUCTION = "Production"
ARCHIVED = "Archived"
STAGES = (NONE, STAGING, PRODUCTION, ARCHIVED)
ACTIVE_STAGES = (STAGING, PRODUCTION)
"""The stages whose other versions a transition may archive."""

PROMPT_TAG = "mlflow.prompt.is_prompt"
PROMPT_TEXT_TAG = "mlflow.prompt.text"
PROMPT_RUNS_TAG = "mlflow.prompt.associatedRunIds"
"""Where a prompt was used; clients go on writing it."""
PROMPT_TAG_PREFIXES = ("mlflow.prompt.", "_mlflow_prompt_")
"""What a prompt's version says is in tags: its text, type, response format and model's settings.

Source: MLflow 3.17, `mlflow/prompt/constants.py`.
"""

# Both match with `$`, as MLflow does, which lets one trailing newline pass.
_ALIAS = re.compile(r"^[\w\-]*$")
_VERSION_ALIAS = re.compile(r"^[vV]\d+$")


def missing(parameter: str) -> Invalid:
    """MLflow's wording for a blank name."""
    return Invalid(f"Missing value for required parameter '{parameter}'.")


def check_model_name(name: str) -> None:
    """Raise Invalid unless it can be the name of a registered model."""
    if not name.strip():
        raise missing("name")
    if "/" in name or ":" in name:
        raise Invalid(f"Invalid model name '{name}'. Names cannot contain '/' or ':'.")
    if name == "." or name.startswith(".."):
        raise invalid_value(
            "name",
            name,
            "Names may be treated as files in certain cases, and must not resolve to other names"
            f" when treated as such. This name would resolve to {name!r}",
        )


def check_new_name(name: str) -> None:
    """Raise Invalid unless a model can be renamed to it."""
    if not name.strip():
        raise missing("new_name")
    check_model_name(name)


def version_number(text: str) -> int:
    """The number that a request names a version by. Raises Invalid."""
    try:
        return int(text)
    except ValueError:
        raise Invalid(f"Parameter 'version' must be an integer, got '{text}'.") from None


def stage_of(text: str) -> str:
    """The stage that a request names, in any case. Raises Invalid."""
    for stage in STAGES:
        if stage.lower() == text.lower():
            return stage
    raise Invalid(f"Invalid Model Version stage: {text}. Value must be one of {', '.join(STAGES)}.")


def check_alias(alias: str) -> None:
    """Raise Invalid unless it can be looked up as an alias."""
    if not alias:
        raise Invalid("Registered model alias name cannot be empty.")
    if _ALIAS.match(alias) is None:
        raise Invalid(
            f"Invalid alias name: '{alias}'. "
            "Names may only contain alphanumerics, underscores (_), and dashes (-)."
        )
    check_length("Registered model alias name", alias, ALIAS_CHARS_MAX)


def check_new_alias(alias: str) -> None:
    """Raise Invalid unless an alias of that name can be set."""
    check_alias(alias)
    if alias.lower() == LATEST:
        raise Invalid("'latest' alias name (case insensitive) is reserved.")
    if _VERSION_ALIAS.match(alias) is not None:
        raise Invalid(f"Version alias name '{alias}' is reserved.")


def check_model_tag(key: str, value: str) -> None:
    """Raise Invalid for a bad key or a value that is too long."""
    check_key(key, "key")
    check_length("key", key, KEY_CHARS_MAX)
    check_length("value", value, REGISTRY_TAG_VALUE_CHARS_MAX)


def check_version_tag(key: str, value: str) -> None:
    """The same for a version's tag; a prompt's text has a message of its own."""
    check_key(key, "key")
    check_length("key", key, KEY_CHARS_MAX)
    if key == PROMPT_TEXT_TAG and len(value) > REGISTRY_TAG_VALUE_CHARS_MAX:
        raise Invalid(
            f"Prompt text exceeds max length of {REGISTRY_TAG_VALUE_CHARS_MAX} characters."
        )
    check_length("value", value, REGISTRY_TAG_VALUE_CHARS_MAX)


def is_prompt(tags: Mapping[str, str]) -> bool:
    """Whether tags make a registered model or a version a prompt."""
    return tags.get(PROMPT_TAG, "").lower() == "true"
