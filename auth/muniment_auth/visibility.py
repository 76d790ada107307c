"""The policy as SQL: which rows of a list a principal may see, as part of the query itself.

`Access.decide` and this say the same; a property test holds them equal. Values are always bound,
never text. Time is that of the question: what has expired by then is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from muniment_auth.permissions import AIMED, Permission, kinds_of
from muniment_auth.policy import Access, Rule
from muniment_auth.resources import ended_key
from muniment_schemas.access_events import ANYTHING, ID_PREFIX
from muniment_schemas.envelope import WORKSPACE_DEFAULT

Bound = str | list[str]
Sql = tuple[str, tuple[Bound, ...]]
"""A condition and the values of its `?`, in order."""

TRUE: Sql = ("TRUE", ())
FALSE: Sql = ("FALSE", ())

MARKS_MAX = 100
"""Values that an IN list names one by one; longer ones are bound as one list."""

ESCAPE = "\\"


@dataclass(frozen=True, slots=True)
class Columns:
    """Where a query has what the policy looks at, as SQL of ours.

    owner: None when there is no such column; then nobody owns anything. workspace: None when all
    rows are in the default one. is_prompt: needed where models and prompts share a table.
    """

    name: str
    id: str
    owner: str | None = None
    workspace: str | None = None
    is_prompt: str | None = None


def visible(
    access: Access, permission: Permission, kinds: Sequence[str], columns: Columns, now_ms: int
) -> Sql:
    """The condition that a row is one on which the permission is held.

    kinds: what the rows are: `experiment`; or `model`, `prompt` or both, told apart by is_prompt.
    A permission that conditions narrow to stages or aliases counts as held only without them.
    """
    assert set(kinds) <= {"experiment", "model", "prompt"}
    rules = [
        rule
        for rule in access.rules(permission, now_ms)
        if not (rule.staged and permission in AIMED)
    ]
    held = [
        TRUE if access.unlimited else _held(access, permission, kind, rules, columns)
        for kind in kinds
    ]
    if columns.is_prompt is None or "experiment" in kinds:
        assert len(kinds) == 1, "rows of two kinds, and nothing tells them apart"
        return held[0]
    if len(kinds) > 1 and held[0] == held[1]:
        return held[0]
    return _any(
        _all((columns.is_prompt if kind == "prompt" else f"NOT {columns.is_prompt}", ()), condition)
        for kind, condition in zip(kinds, held, strict=True)
    )


def _held(
    access: Access, permission: Permission, kind: str, rules: Iterable[Rule], columns: Columns
) -> Sql:
    if kind not in kinds_of(permission):
        return FALSE
    by_workspace: dict[str, list[Rule]] = {}
    for rule in rules:
        if rule.kind in (ANYTHING, kind):
            by_workspace.setdefault(rule.workspace, []).append(rule)
    parts = [
        _all(_in_workspace(workspace, columns), _named(some, columns))
        for workspace, some in by_workspace.items()
    ]
    if permission in access.owned(kind):
        parts.append(_owned(access, kind, columns))
    return _any(parts)


def _in_workspace(workspace: str, columns: Columns) -> Sql:
    if workspace == ANYTHING:
        return TRUE
    if columns.workspace is None:
        return TRUE if workspace == WORKSPACE_DEFAULT else FALSE
    return f"{columns.workspace} = ?", (workspace,)


def _named(rules: Iterable[Rule], columns: Columns) -> Sql:
    patterns = {rule.pattern for rule in rules}
    if ANYTHING in patterns:
        return TRUE
    ids = sorted(p.removeprefix(ID_PREFIX) for p in patterns if p.startswith(ID_PREFIX))
    names = sorted(p for p in patterns if not p.startswith(ID_PREFIX))
    wide = [name for name in names if ANYTHING in name]
    parts = [
        _one_of(columns.name, [name for name in names if ANYTHING not in name]),
        _one_of(columns.id, ids),
        *((f"{columns.name} LIKE ? ESCAPE '{ESCAPE}'", (_like(name),)) for name in wide),
    ]
    return _any(parts)


def _owned(access: Access, kind: str, columns: Columns) -> Sql:
    if columns.owner is None or access.principal is None:
        return FALSE
    owner: Sql = (f"{columns.owner} IS NOT DISTINCT FROM ?", (str(access.principal.id),))
    ended_kind, _ = ended_key(kind, "")
    ended = sorted(resource_id for of_kind, resource_id in access.ended if of_kind == ended_kind)
    if not ended:
        return owner
    inside, values = _one_of(columns.id, ended)
    return _all(owner, (f"NOT ({inside})", values))


def _like(pattern: str) -> str:
    escaped = pattern
    for special in (ESCAPE, "%", "_"):
        escaped = escaped.replace(special, ESCAPE + special)
    return escaped.replace(ANYTHING, "%")


def _one_of(column: str, values: list[str]) -> Sql:
    if not values:
        return FALSE
    if len(values) > MARKS_MAX:
        return f"{column} IN (SELECT unnest(?::VARCHAR[]))", (values,)
    return f"{column} IN ({', '.join('?' * len(values))})", tuple(values)


def _any(parts: Iterable[Sql]) -> Sql:
    kept = [part for part in parts if part != FALSE]
    if TRUE in kept:
        return TRUE
    return _joined(" OR ", kept) if kept else FALSE


def _all(*parts: Sql) -> Sql:
    kept = [part for part in parts if part != TRUE]
    if FALSE in kept:
        return FALSE
    return _joined(" AND ", kept) if kept else TRUE


def _joined(word: str, parts: list[Sql]) -> Sql:
    if len(parts) == 1:
        return parts[0]
    text = word.join(f"({sql})" for sql, _ in parts)
    return text, tuple(value for _, values in parts for value in values)
