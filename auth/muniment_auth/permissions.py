"""Permissions: a verb on a kind of resource. Every route names one; roles bundle them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType

from muniment_schemas.access_events import BUILT_IN_ROLES


class Permission(StrEnum):
    """What a call needs, as `resource:verb`, sorted."""

    ACCESS_GRANT = "access:grant"
    ACCESS_READ = "access:read"
    ARTIFACT_DELETE = "artifact:delete"
    ARTIFACT_READ = "artifact:read"
    ARTIFACT_WRITE = "artifact:write"
    AUDIT_READ = "audit:read"
    EXPERIMENT_CREATE = "experiment:create"
    EXPERIMENT_DELETE = "experiment:delete"
    EXPERIMENT_READ = "experiment:read"
    EXPERIMENT_WRITE = "experiment:write"
    LOGGED_MODEL_DELETE = "logged_model:delete"
    LOGGED_MODEL_READ = "logged_model:read"
    LOGGED_MODEL_WRITE = "logged_model:write"
    MODEL_APPROVE = "model:approve"
    MODEL_CREATE = "model:create"
    MODEL_DELETE = "model:delete"
    MODEL_PROMOTE = "model:promote"
    MODEL_READ = "model:read"
    MODEL_REQUEST = "model:request"
    MODEL_WRITE = "model:write"
    PUBLIC = "public:read"
    RUN_DELETE = "run:delete"
    RUN_READ = "run:read"
    RUN_WRITE = "run:write"
    SELF_USE = "self:use"
    SERVER_ADMIN = "server:admin"
    SERVER_READ = "server:read"
    TRACE_DELETE = "trace:delete"
    TRACE_READ = "trace:read"
    TRACE_WRITE = "trace:write"


_P = Permission

UNGRANTED = frozenset({_P.PUBLIC, _P.SELF_USE})
"""What nobody has to be granted: the first anybody has, the second whoever is signed in."""

GRANTABLE = frozenset(Permission) - UNGRANTED

PROMOTING = frozenset({_P.MODEL_APPROVE, _P.MODEL_PROMOTE, _P.MODEL_REQUEST})
"""Those that a condition on stages or aliases is about."""

AIMED = PROMOTING - {_P.MODEL_REQUEST}
"""Those of them that are never without a stage or alias: who may request may comment as well."""

Permissions = frozenset[Permission]

_VIEWER = frozenset(
    {
        _P.ARTIFACT_READ,
        _P.EXPERIMENT_READ,
        _P.LOGGED_MODEL_READ,
        _P.MODEL_READ,
        _P.RUN_READ,
        _P.TRACE_READ,
    }
)

_EDITOR = _VIEWER | {
    _P.ARTIFACT_DELETE,
    _P.ARTIFACT_WRITE,
    _P.EXPERIMENT_CREATE,
    _P.EXPERIMENT_WRITE,
    _P.LOGGED_MODEL_DELETE,
    _P.LOGGED_MODEL_WRITE,
    _P.MODEL_CREATE,
    _P.MODEL_REQUEST,
    _P.MODEL_WRITE,
    _P.RUN_DELETE,
    _P.RUN_WRITE,
    _P.TRACE_DELETE,
    _P.TRACE_WRITE,
}

ROLES: Mapping[str, Permissions] = MappingProxyType(
    {
        "viewer": _VIEWER,
        "logger": frozenset(
            {
                _P.ARTIFACT_READ,  # `log_table` appends to what it reads.
                _P.ARTIFACT_WRITE,
                _P.EXPERIMENT_READ,
                _P.LOGGED_MODEL_READ,  # `log_model` reads what it has just created.
                _P.LOGGED_MODEL_WRITE,
                _P.RUN_READ,
                _P.RUN_WRITE,
                _P.TRACE_WRITE,
            }
        ),
        "editor": _EDITOR,
        "approver": _VIEWER | PROMOTING,
        "manager": _EDITOR
        | PROMOTING
        | {_P.ACCESS_GRANT, _P.ACCESS_READ, _P.EXPERIMENT_DELETE, _P.MODEL_DELETE},
        "auditor": frozenset(p for p in GRANTABLE if p.endswith(":read")),
        "admin": GRANTABLE,
    }
)
"""The built-in roles. Others are defined by operators, and are events."""

assert tuple(ROLES) == BUILT_IN_ROLES

ROLE_TEXTS: Mapping[str, str] = MappingProxyType(
    {
        "viewer": "Sees experiments, runs, traces, models and their files.",
        "logger": "Writes runs, traces, logged models and their files; for jobs. No registry.",
        "editor": "Sees, creates and changes; does not promote, approve, grant or delete for good.",
        "approver": "Sees; promotes models, and answers requests to.",
        "manager": "Does everything to a thing, deleting it and granting on it included.",
        "auditor": "Reads everything, the trail and all grants included; changes nothing.",
        "admin": "Everything.",
    }
)

_ON_EXPERIMENT = frozenset({"experiment"})
_ON_MODEL = frozenset({"model", "prompt"})
_ON_SERVER = frozenset({"server"})
_ON_ALL = _ON_EXPERIMENT | _ON_MODEL | _ON_SERVER
_KINDS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "access": _ON_ALL,
        "artifact": _ON_EXPERIMENT | _ON_MODEL,
        "audit": _ON_ALL,
        "experiment": _ON_EXPERIMENT,
        "logged_model": _ON_EXPERIMENT,
        "model": _ON_MODEL,
        "run": _ON_EXPERIMENT,
        "server": _ON_SERVER,
        "trace": _ON_EXPERIMENT,
    }
)


def kinds_of(permission: Permission) -> frozenset[str]:
    """The kinds of resource that a permission is asked on; on others it is never held."""
    return _KINDS_OF[permission]


def known(names: Iterable[str]) -> Permissions:
    """Those names that are permissions which can be granted.

    A role may name one that a newer release knows, or an older one knew: it gives nothing here.
    """
    return frozenset(p for name in names if (p := _BY_NAME.get(name)) is not None)


def unknown(names: Iterable[str]) -> list[str]:
    """Those names that no role can hold."""
    return [name for name in names if name not in _BY_NAME]


_KINDS_OF: Mapping[str, frozenset[str]] = MappingProxyType(
    {p: _KINDS.get(p.partition(":")[0], frozenset()) for p in Permission}
)
_BY_NAME: Mapping[str, Permission] = MappingProxyType({str(p): p for p in GRANTABLE})
