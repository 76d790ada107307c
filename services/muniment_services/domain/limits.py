"""Limits and rules of names, with MLflow's messages.

Source: MLflow 3.17 REST API documentation and the answers of its server.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Sequence

from muniment_services.domain.errors import Invalid

KEY_CHARS_MAX = 250
PARAM_VALUE_CHARS_MAX = 6000
TAG_VALUE_CHARS_MAX = 8000
EXPERIMENT_NAME_CHARS_MAX = 500
EXPERIMENT_TAG_VALUE_CHARS_MAX = 20_000
ARTIFACT_LOCATION_CHARS_MAX = 2048
REGISTRY_TAG_VALUE_CHARS_MAX = 100_000
BATCH_METRICS_MAX = 1000
BATCH_PARAMS_MAX = 100
BATCH_TAGS_MAX = 100
BATCH_ENTITIES_MAX = 1000
DATASET_NAME_CHARS_MAX = 500
DATASET_DIGEST_CHARS_MAX = 36
DATASET_SCHEMA_CHARS_MAX = 1_048_575
DATASET_SOURCE_CHARS_MAX = 65_535
DATASET_PROFILE_CHARS_MAX = 16_777_215
INPUT_TAG_KEY_CHARS_MAX = 255
INPUT_TAG_VALUE_CHARS_MAX = 500
GRANTS_MAX = 10_000
GRANTS_OF_MAKER_MAX = 1000
"""Of one who is no admin, so that nobody uses up what all share."""
GRANT_SUBJECT_CHARS_MAX = 500
GRANT_ISSUER_CHARS_MAX = 2048
GRANT_CLAIMS_MAX = 20
GRANT_CLAIM_CHARS_MAX = 1000
GRANT_PATTERN_CHARS_MAX = 500
GRANT_PATTERN_WILDCARDS_MAX = 4
GRANT_CONDITIONS_MAX = 50
GRANT_COMMENT_CHARS_MAX = 1000
ROLES_MAX = 200
ROLE_NAME_CHARS_MAX = 64
ROLE_DESCRIPTION_CHARS_MAX = 1000
OWNERSHIPS_ENDED_MAX = 100_000
WORKSPACE_CHARS_MAX = 63
INT64_MAX = 2**63 - 1
INT64_MIN = -(2**63)
SHOWN_CHARS_MAX = 2000
CREDENTIAL_NAME_CHARS_MAX = 100
CREDENTIAL_DESCRIPTION_CHARS_MAX = 1000
CREDENTIAL_REASON_CHARS_MAX = 500
CREDENTIAL_SCOPES_MAX = 50
CREDENTIALS_LIVE_MAX = 100
"""Tokens of one principal that are in force at once; sessions are counted by themselves."""
DAY_MS = 24 * 3600 * 1000
TOKEN_LIFE_DAYS_MAX = 366
TOKEN_LIFE_DAYS_DEFAULT = 90
SESSION_LIFE_MS = 12 * 3600 * 1000
"""Longest that a browser stays logged in, however often its session is renewed."""
SESSION_RENEWED_MS = 5 * 60 * 1000
"""What the provider said of who is logged in is asked for anew when it is so old."""
SESSION_GRACE_MS = 3600 * 1000
"""It counts for so long where it cannot be asked for: the provider is down, or does not renew."""
SIGN_IN_NOTED_MS = DAY_MS
"""A sign-in that says nothing new is noted when the last one is so old."""

_KEY = re.compile(r"[/\w.\- :]*")
_BAD_CHARACTERS = (
    "Names may only contain alphanumerics, underscores (_), dashes (-), periods (.), "
    "spaces ( ), colon(:) and slashes (/)."
)


def shown(value: object) -> str:
    """A value as messages show it: JSON in ASCII, cut when it is long."""
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    except RecursionError:
        return "(nested too deeply)"
    return text if len(text) <= SHOWN_CHARS_MAX else text[:SHOWN_CHARS_MAX] + "..."


def invalid_value(path: str, value: object, hint: str = "") -> Invalid:
    """MLflow's wording for a bad value; `value` is shown as JSON."""
    ending = f": {hint}" if hint else "."
    return Invalid(f"Invalid value {shown(value)} for parameter '{path}' supplied{ending}")


def too_long(path: str, chars_max: int) -> Invalid:
    """MLflow's wording for a value over its length limit."""
    return Invalid(f"'{path}' exceeds the maximum length of {chars_max} characters")


def unique_tags(tags: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Tags given at a creation, by key. Raises Invalid when a key is given twice."""
    by_key: dict[str, str] = {}
    for key, value in tags:
        if key in by_key:
            raise Invalid(f"Tag {key!r} is given more than once.")
        by_key[key] = value
    return by_key


def check_length(path: str, value: str, chars_max: int) -> None:
    """Raise Invalid when a text is too long."""
    if len(value) > chars_max:
        raise too_long(path, chars_max)


def stated(text: str | None) -> str | None:
    """A reason or comment as it was given; None for one that is missing or blank."""
    return text if text and text.strip() else None


def check_key(key: str, path: str) -> None:
    """Raise Invalid unless a metric, param or tag key is one that MLflow takes.

    Keys may be used as file names: letters, digits and `_ - . : / space` only, and the key must be
    its own normal form as a relative path.
    """
    if _KEY.fullmatch(key) is None and not _key_and_newline(key):
        raise invalid_value(path, key, _BAD_CHARACTERS)
    if "/" not in key and "." not in key and key:
        return
    normal = posixpath.normpath(key)
    if normal != key or normal == "." or normal.startswith(("..", "/")):
        raise invalid_value(
            path,
            key,
            "Names may be treated as files in certain cases, and must not resolve to other names"
            f" when treated as such. This name would resolve to {normal!r}",
        )


def _key_and_newline(key: str) -> bool:
    # MLflow matches with `$`, which lets one trailing newline pass.
    return key.endswith("\n") and _KEY.fullmatch(key[:-1]) is not None
