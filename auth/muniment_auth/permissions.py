"""Permissions: a verb on a kind of resource. Every route names one; roles bundle them."""

from __future__ import annotations

from enum import StrEnum


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
