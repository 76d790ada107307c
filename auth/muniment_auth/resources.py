"""What a permission is asked on, and patterns of names.

Runs, traces, logged models and their files are decided on their experiment; versions, aliases and
stages on their model. `*` is the only wildcard of a pattern and stands for any characters, none
included; a pattern that begins with `id:` means one thing by its id.
"""

from __future__ import annotations

import msgspec

from muniment_schemas.access_events import ANYTHING, ID_PREFIX
from muniment_schemas.patterns import matches


class Resource(msgspec.Struct, frozen=True, gc=False):
    """One thing. kind: experiment, model, prompt or server.

    id: empty for what is about to be created. owner: principal id of its creator, if it has one.
    """

    kind: str
    id: str = ""
    name: str = ""
    owner: str | None = None
    workspace: str = "default"


class Attributes(msgspec.Struct, frozen=True, gc=False):
    """What an action is about, besides the thing: a transition's target, an alias, a tag's key."""

    stage: str | None = None
    alias: str | None = None
    tag_key: str | None = None


SERVER = Resource("server", workspace=ANYTHING)
"""The server itself, its trail and its access rules: above all workspaces, so that only grants for
all workspaces count."""

NO_ATTRIBUTES = Attributes()


def ended_key(kind: str, resource_id: str) -> tuple[str, str]:
    """What an ended ownership is remembered by: a prompt is a model, and can become one again."""
    return ("model" if kind == "prompt" else kind, resource_id)


def covers(pattern: str, resource: Resource) -> bool:
    """Whether a grant's pattern means the resource."""
    if pattern.startswith(ID_PREFIX):
        return resource.id != "" and pattern == ID_PREFIX + resource.id
    return matches(pattern, resource.name)


def subsumes(pattern: str, other: str, target: Resource | None = None) -> bool:
    """Whether `pattern` covers all that `other` can ever cover.

    target: what `other` means, if it is one thing by id: a pattern of names covers it by its name.
    """
    if other.startswith(ID_PREFIX) and pattern != ANYTHING:
        if pattern == other:
            return True
        named = target is not None and other == ID_PREFIX + target.id
        return (
            named
            and target is not None
            and not pattern.startswith(ID_PREFIX)
            and matches(pattern, target.name)
        )
    return not pattern.startswith(ID_PREFIX) and matches(pattern, other)
