"""Events of reviewed promotions: requests, decisions, comments, and the policies that bind them.

Requests and decisions are events of the registered model, so that one history holds request,
approval and the move itself. What each field means stands in `avro/`.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from muniment_schemas.catalog_events import ArchivedVersion, DecidedUnder
from muniment_schemas.envelope import CATALOG, Event

STAGE = "stage"
ALIAS = "alias"


class TransitionRequested(Event, frozen=True, kw_only=True):
    """Somebody asked that a version be moved to a stage, or an alias be pointed at it."""

    TOPIC: ClassVar[str] = CATALOG
    AGGREGATE: ClassVar[str] = "registered_model"
    version: int
    target_kind: str
    target: str
    comment: str | None = None


class TransitionRequestCancelled(Event, frozen=True, kw_only=True):
    """Whoever made a request took it back."""

    TOPIC: ClassVar[str] = CATALOG
    AGGREGATE: ClassVar[str] = "registered_model"
    version: int
    target_kind: str
    target: str
    comment: str | None = None


class TransitionRequestRejected(Event, frozen=True, kw_only=True):
    """A request was turned down."""

    TOPIC: ClassVar[str] = CATALOG
    AGGREGATE: ClassVar[str] = "registered_model"
    version: int
    target_kind: str
    target: str
    requester: str
    comment: str | None = None


class DatasetDigest(msgspec.Struct, frozen=True, kw_only=True):
    """A dataset of the source run."""

    name: str
    digest: str


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What an approval rests on, as it was when it was given."""

    policies: tuple[str, ...]
    conditions: tuple[str, ...]
    run_id: str | None = None
    metrics: dict[str, float]
    datasets: dict[str, str]
    artifacts: dict[str, str]
    artifacts_total: int
    source_commit: str | None = None
    tags: dict[str, str]
    claims: dict[str, tuple[str, ...]]
    metrics_total: int | None = None
    dataset_digests: tuple[DatasetDigest, ...] = ()
    artifacts_sha256: bytes | None = None
    proven: bool | None = None
    sha256: bytes | None = None


class VoidApproval(msgspec.Struct, frozen=True, kw_only=True):
    """An earlier approval that does not count, and why."""

    approver: str
    reason: str


class TransitionApproved(Event, frozen=True, kw_only=True):
    """A request was approved; with the last approval that it needs, the version moves as well.

    archived: what the move archives besides. groups: the approver's that policies ask for. rights:
    by what it may approve.
    """

    TOPIC: ClassVar[str] = CATALOG
    AGGREGATE: ClassVar[str] = "registered_model"
    version: int
    target_kind: str
    target: str
    requester: str
    comment: str | None = None
    groups: tuple[str, ...]
    approvals_needed: int
    approvals_given: int
    completes: bool
    from_stage: str | None = None
    previous_version: int | None = None
    archived: tuple[ArchivedVersion, ...]
    evidence: Evidence
    decided_under: DecidedUnder | None = None
    rights: tuple[str, ...] = ()
    access_version: int | None = None
    not_counted: tuple[VoidApproval, ...] = ()


class VersionCommentAdded(Event, frozen=True, kw_only=True):
    """Somebody commented on a version."""

    TOPIC: ClassVar[str] = CATALOG
    AGGREGATE: ClassVar[str] = "registered_model"
    version: int
    comment_id: str
    text: str


class VersionCommentUpdated(Event, frozen=True, kw_only=True):
    """A comment on a version was changed by its author."""

    TOPIC: ClassVar[str] = CATALOG
    AGGREGATE: ClassVar[str] = "registered_model"
    version: int
    comment_id: str
    text: str
    previous_text: str


class VersionCommentDeleted(Event, frozen=True, kw_only=True):
    """A comment on a version was deleted by its author."""

    TOPIC: ClassVar[str] = CATALOG
    AGGREGATE: ClassVar[str] = "registered_model"
    version: int
    comment_id: str
    previous_text: str


class PromotionPolicySet(Event, frozen=True, kw_only=True):
    """What promotions of some models need was laid down, or changed."""

    TOPIC: ClassVar[str] = CATALOG
    AGGREGATE: ClassVar[str] = "promotion_policy"
    workspace: str
    pattern: str
    stages: tuple[str, ...]
    aliases: tuple[str, ...]
    approvals: int
    approver_groups: tuple[str, ...]
    exclude_requester: bool
    exclude_author: bool
    required_tags: tuple[str, ...]
    condition: str | None = None
    required_comment: bool


class PromotionPolicyRemoved(Event, frozen=True, kw_only=True):
    """A policy was removed."""

    TOPIC: ClassVar[str] = CATALOG
    AGGREGATE: ClassVar[str] = "promotion_policy"
    reason: str | None = None
