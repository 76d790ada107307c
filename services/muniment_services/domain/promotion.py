"""Reviewed promotions: asking for one, approving, rejecting and cancelling it; comments.

A request, its approvals and the move are events of the model's own history. The last approval that
is needed *is* the move: one event, so that the two cannot come apart, and whatever happens between
decides by the log's order. Conditions are decided on the source run as it is when the approval is
decided; what it was then stands in the event.
Source of the protocol: Databricks' workspace model registry, transition requests.
"""

from __future__ import annotations

from collections.abc import Sequence

from muniment_schemas import events as e
from muniment_schemas.promotion_events import ALIAS, STAGE
from muniment_services.domain.access import state_of
from muniment_services.domain.approvals import RIGHTS_MAX, Case
from muniment_services.domain.commands import (
    GROUP_OF,
    AggregateKey,
    Command,
    Context,
    Gives,
    World,
)
from muniment_services.domain.errors import (
    AlreadyExists,
    Invalid,
    NotAllowedNow,
    NotFound,
    ReviewRequired,
    SeenOtherwise,
)
from muniment_services.domain.limits import check_length, stated
from muniment_services.domain.promotion_evidence import FileDigests, evidence_of, fingerprint
from muniment_services.domain.promotion_guard import (
    authors_of,
    decided_under,
    is_current,
    origins_of_move,
    origins_of_version,
    others,
    proven,
    refusal,
    require_archivable,
    source_run,
)
from muniment_services.domain.promotion_policy import Rule, in_force
from muniment_services.domain.registered_model import (
    KIND as MODEL,
)
from muniment_services.domain.registered_model import (
    ModelCommand,
    ModelVersion,
    RegisteredModel,
    envelope,
    require_version,
)
from muniment_services.domain.registry_names import (
    ACTIVE_STAGES,
    check_new_alias,
    stage_of,
)
from muniment_services.domain.review import Comment, Hand, Request, Target, hand_of

COMMENT_CHARS_MAX = 10_000
REQUESTS_OPEN_MAX = 100
REQUESTS_OF_ONE_MAX = 20
"""Of one requester, who shall not use up what all have."""
COMMENTS_OF_ONE_MAX = 100
"""On one version, by one author."""
COMMENT_PLACE = "-"
"""Between the model's id and what tells its comments apart."""

NO_RULE = Rule((), 1, (), False, False, (), (), False)
"""What holds where no policy is in force: one approval, by whoever may approve."""


class ReviewCommand(ModelCommand, frozen=True, kw_only=True):
    """A command about a request. stage: the target as callers name it, a stage or `@ALIAS`."""

    version: str
    stage: str
    comment: str | None = None


class RequestTransition(ReviewCommand, frozen=True, kw_only=True):
    """Ask that a version be promoted."""


class CancelRequest(ReviewCommand, frozen=True, kw_only=True):
    """Take one's own request back. creator: who made it, if the caller says so."""

    creator: str | None = None


class RejectRequest(ReviewCommand, frozen=True, kw_only=True):
    """Turn a request down."""

    def further_needs(self, world: World) -> tuple[AggregateKey, ...]:
        """What the version comes from: who made it has no say."""
        return origins_of_version(world, self.name, self.version)


class ApproveRequest(ReviewCommand, frozen=True, kw_only=True):
    """Approve a request.

    files: digests of the version's files, as evidence; None: not gathered. evidence_sha256: of the
    evidence that the caller looked at, in hex; None: it does not say.
    """

    archive_others: bool = False
    files: FileDigests | None = None
    evidence_sha256: str | None = None

    def further_needs(self, world: World) -> tuple[AggregateKey, ...]:
        """What the version comes from, and those that it may archive."""
        return origins_of_move(world, self.name, self.version, self.stage, self.archive_others)


class AddComment(ModelCommand, frozen=True, kw_only=True):
    """Comment on a version."""

    version: str
    text: str


class UpdateComment(Command, frozen=True, kw_only=True):
    """Change one's own comment."""

    comment_id: str
    text: str


class DeleteComment(Command, frozen=True, kw_only=True):
    """Delete a comment: one's own, or as_manager of the model any."""

    comment_id: str
    as_manager: bool = False


def target_of(stage: str) -> Target:
    """The target that a caller names. Raises Invalid."""
    if stage.startswith("@"):
        check_new_alias(stage[1:])
        return Target(ALIAS, stage[1:])
    return Target(STAGE, stage_of(stage))


def request(world: World, command: RequestTransition, context: Context) -> e.TransitionRequested:
    """Raises Invalid, NotFound, AlreadyExists, ReviewRequired for a reason that is missing."""
    target, comment = target_of(command.stage), _comment(command.comment)
    model, version = require_version(world, command.name, command.version)
    if is_current(model, version, target):
        raise Invalid(f"Version {version.version} is {target.shown} already.")
    if model.review.request(version.version, target) is not None:
        raise AlreadyExists(
            f"There is an open request already for version {version.version} of {model.name} to "
            f"become {target.shown}."
        )
    if len(model.review.requests) >= REQUESTS_OPEN_MAX:
        raise Invalid(f"A model has at most {REQUESTS_OPEN_MAX} open requests.")
    me = context.actor.principal_id
    if sum(open_.requester == me for open_ in model.review.requests) >= REQUESTS_OF_ONE_MAX:
        raise Invalid(
            f"One requester has at most {REQUESTS_OF_ONE_MAX} open requests for a model. Cancel "
            "one first."
        )
    _require_comment(in_force(world, model, target) or NO_RULE, comment)
    return e.TransitionRequested(
        envelope=envelope(context, e.TransitionRequested, model),
        version=version.version,
        target_kind=target.kind,
        target=target.name,
        comment=comment,
    )


def cancel(world: World, command: CancelRequest, context: Context) -> e.TransitionRequestCancelled:
    """Raises Invalid, NotFound."""
    comment = _comment(command.comment)
    model, version, found = _open(world, command)
    me = context.actor.principal_id
    if found.requester != me or command.creator not in (None, "", me):
        raise NotFound(_no_request(model, version, found.target) + " of this caller's.")
    return e.TransitionRequestCancelled(
        envelope=envelope(context, e.TransitionRequestCancelled, model),
        version=version.version,
        target_kind=found.target.kind,
        target=found.target.name,
        comment=comment,
    )


def reject(world: World, command: RejectRequest, context: Context) -> e.TransitionRequestRejected:
    """Whose approval could not count may not reject either. Raises Invalid, NotFound,
    ReviewRequired."""
    comment = _comment(command.comment)
    model, version, found = _open(world, command)
    files = FileDigests(location=version.storage_location)
    case = case_of(world, model, found, files, context.now_ms, context.gives)
    rights = context.rights(model, found.target)[:RIGHTS_MAX]
    if reason := case.barred(hand_of(context.actor), rights):
        raise ReviewRequired(f"This caller has no say in this request: {reason}.")
    return e.TransitionRequestRejected(
        envelope=envelope(context, e.TransitionRequestRejected, model),
        version=version.version,
        target_kind=found.target.kind,
        target=found.target.name,
        requester=found.requester,
        comment=comment,
    )


def approve(world: World, command: ApproveRequest, context: Context) -> e.TransitionApproved:
    """One event, which moves the version if it is the last approval that is needed.

    Raises Invalid, NotFound, NotAllowedNow, ReviewRequired for what a policy asks for besides,
    SeenOtherwise.
    """
    comment = _comment(command.comment)
    model, version, found = _open(world, command)
    target = found.target
    rule = in_force(world, model, target) or NO_RULE
    if command.archive_others and (target.kind != STAGE or target.name not in ACTIVE_STAGES):
        raise NotAllowedNow(
            f"An approval cannot archive other versions, because {target.shown} is not an active "
            f"stage. Active stages are {list(ACTIVE_STAGES)}."
        )
    if command.files is not None and command.files.location != version.storage_location:
        raise Invalid("The version was replaced while it was approved. Look at it again.")
    files = command.files or FileDigests(location=version.storage_location)
    case = case_of(world, model, found, files, context.now_ms, context.gives)
    if command.evidence_sha256 not in (None, case.evidence_sha256.hex()):
        raise SeenOtherwise(
            f"What version {version.version} of {model.name} rests on is another than "
            "'evidence_sha256' says. Ask transition-requests/list for what it is now, and look at "
            "it again."
        )
    standing, void = case.weighed()
    rights = context.rights(model, target)[:RIGHTS_MAX]
    groups = _checked_approver(case, standing, rights, context)
    _require_comment(rule, comment)
    run = source_run(world, version)
    of_run = proven(world, version, run)
    if lacking := rule.unmet(version, of_run, context.holds):
        raise ReviewRequired(refusal(model, target, rule, lacking))
    me = hand_of(context.actor)
    given = len(standing) + (not any(one.same_hand(me) for one in standing))
    needed = max(rule.approvals, 1)
    completes = given >= needed
    archived = others(model, version, target.name) if command.archive_others and completes else ()
    require_archivable(world, model, archived, context, comment)
    return e.TransitionApproved(
        envelope=envelope(context, e.TransitionApproved, model),
        version=version.version,
        target_kind=target.kind,
        target=target.name,
        requester=found.requester,
        comment=comment,
        groups=groups,
        approvals_needed=needed,
        approvals_given=given,
        completes=completes,
        from_stage=version.stage if target.kind == STAGE else None,
        previous_version=model.aliases.get(target.name) if target.kind == ALIAS else None,
        archived=archived,
        evidence=evidence_of(files, rule, version, run, of_run is not None, context),
        decided_under=decided_under(world, model, target, bool(archived)),
        rights=rights,
        access_version=state_of(world).version,
        not_counted=tuple(one for one in void if one.approver != context.actor.principal_id),
    )


def case_of(
    world: World,
    model: RegisteredModel,
    request: Request,
    files: FileDigests,
    now_ms: int,
    gives: Gives,
) -> Case:
    """A request as it stands now. files: the version's, whose origins must have been loaded."""
    version = model.versions[request.version]
    run = source_run(world, version)
    rule = in_force(world, model, request.target) or NO_RULE
    return Case(
        world=world,
        model=model,
        request=request,
        rule=rule,
        authors=authors_of(world, version),
        evidence_sha256=fingerprint(files, rule, version, run),
        now_ms=now_ms,
        gives=gives,
    )


def add_comment(world: World, command: AddComment, context: Context) -> e.VersionCommentAdded:
    """Raises Invalid, NotFound."""
    text = _comment(command.text)
    if text is None:
        raise Invalid("A comment is not empty.")
    model, version = require_version(world, command.name, command.version)
    made = (context.actor.principal_id, version.version)
    mine = sum((c.author, c.version) == made for c in model.review.comments.values())
    if mine >= COMMENTS_OF_ONE_MAX:
        raise Invalid(f"One author has at most {COMMENTS_OF_ONE_MAX} comments on a version.")
    return e.VersionCommentAdded(
        envelope=envelope(context, e.VersionCommentAdded, model),
        version=version.version,
        comment_id=f"{model.model_id}{COMMENT_PLACE}{context.new_id(context.now_ms)}",
        text=text,
    )


def update_comment(
    world: World, command: UpdateComment, context: Context
) -> e.VersionCommentUpdated | None:
    """None when it says so already. Raises Invalid, NotFound, ReviewRequired for another's."""
    text = _comment(command.text)
    if text is None:
        raise Invalid("A comment is not empty.")
    model, found = _own_comment(world, command.comment_id, context)
    if found.text == text:
        return None
    return e.VersionCommentUpdated(
        envelope=envelope(context, e.VersionCommentUpdated, model),
        version=found.version,
        comment_id=found.comment_id,
        text=text,
        previous_text=found.text,
    )


def delete_comment(
    world: World, command: DeleteComment, context: Context
) -> e.VersionCommentDeleted:
    """Raises NotFound, ReviewRequired for another's, unless as the model's manager."""
    if command.as_manager:
        model, found = _required_comment(world, command.comment_id)
    else:
        model, found = _own_comment(world, command.comment_id, context)
    return e.VersionCommentDeleted(
        envelope=envelope(context, e.VersionCommentDeleted, model),
        version=found.version,
        comment_id=found.comment_id,
        previous_text=found.text,
    )


def comment_of(world: World, comment_id: str) -> tuple[RegisteredModel, Comment] | None:
    """A comment and the model that it is on, which its id begins with."""
    model = world.get(MODEL, comment_id.partition(COMMENT_PLACE)[0])
    if not isinstance(model, RegisteredModel) or comment_id not in model.review.comments:
        return None
    return model, model.review.comments[comment_id]


def _required_comment(world: World, comment_id: str) -> tuple[RegisteredModel, Comment]:
    found = comment_of(world, comment_id)
    if found is None:
        raise NotFound(f"There is no comment with id={comment_id}")
    return found


def _own_comment(
    world: World, comment_id: str, context: Context
) -> tuple[RegisteredModel, Comment]:
    found = _required_comment(world, comment_id)
    if found[1].author != context.actor.principal_id:
        raise ReviewRequired("A comment is changed by whoever wrote it, and by nobody else.")
    return found


def _open(world: World, command: ReviewCommand) -> tuple[RegisteredModel, ModelVersion, Request]:
    target = target_of(command.stage)
    model, version = require_version(world, command.name, command.version)
    found = model.review.request(version.version, target)
    if found is None:
        raise NotFound(_no_request(model, version, target) + ".")
    return model, version, found


def _no_request(model: RegisteredModel, version: ModelVersion, target: Target) -> str:
    return (
        f"There is no open request for version {version.version} of {model.name} to become "
        f"{target.shown}"
    )


def _checked_approver(
    case: Case, standing: Sequence[Hand], rights: Sequence[str], context: Context
) -> tuple[str, ...]:
    """The approver's groups that count. Raises ReviewRequired when its approval does not."""
    me, rule = hand_of(context.actor), case.rule
    reason = case.why_not(me, rights)
    if reason is not None:
        raise ReviewRequired(f"This approval does not count: {reason}.")
    groups = rule.asked_groups(context.group_names)
    if not rule.counts(groups):
        wanted = " and ".join(" or ".join(sorted(names)) for names in rule.group_sets)
        whose = "" if context.bare_groups else f", groups being named NAME{GROUP_OF}ISSUER"
        raise ReviewRequired(f"This approval does not count: it takes a member of {wanted}{whose}.")
    # Again counts where the policy has changed since: if the first does not, or is enough by now.
    if any(one.same_hand(me) for one in standing) and len(standing) < rule.approvals:
        raise ReviewRequired("This approval does not count: this caller has approved already.")
    return groups


def _comment(text: str | None) -> str | None:
    check_length("comment", text or "", COMMENT_CHARS_MAX)
    return stated(text)


def _require_comment(rule: Rule, comment: str | None) -> None:
    if rule.required_comment and comment is None:
        raise ReviewRequired(f"The policy {', '.join(rule.names)} asks for a comment.")
