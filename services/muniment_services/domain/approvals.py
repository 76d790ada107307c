"""What an approval is worth: who gave it, by what right, and on what evidence.

Every approval of an open request is looked at anew whenever another one is decided. It counts while
it is of what the version rests on now, by a principal that may still approve. Under a policy the
right to approve must besides come from the server's administration: neither whoever asks, nor the
author of the version or of its run, nor whoever made the model has a say in who approves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from muniment_schemas import events as e
from muniment_schemas.access_events import GRANT_PREFIX, OWNER
from muniment_services.domain.access import GrantRecord, granted, state_of
from muniment_services.domain.commands import Gives, World
from muniment_services.domain.promotion_policy import Rule
from muniment_services.domain.registered_model import RegisteredModel
from muniment_services.domain.review import Approval, Hand, Request

RIGHTS_MAX = 100
"""Rights that an approval is remembered by."""

NO_RIGHT = "nothing that its giver could approve by is in force any more"
EVIDENCE_CHANGED = (
    "what the version rests on (metrics, files, tags, datasets, commit) has changed since"
)
OTHER_GROUPS = "its giver is in none of the groups that are asked for"
SAME_HAND = "another approval is by the same hand"


@dataclass(frozen=True, slots=True)
class Case:
    """An open request, and all that its approvals are held against.

    authors: of the version. evidence_sha256: of what it rests on now.
    """

    world: World
    model: RegisteredModel
    request: Request
    rule: Rule
    authors: Sequence[tuple[str, Hand]]
    evidence_sha256: bytes
    now_ms: int
    gives: Gives

    def weighed(self) -> tuple[tuple[Hand, ...], tuple[e.VoidApproval, ...]]:
        """Whose approvals count, each hand once; and those that do not, with the reason."""
        counted: list[Hand] = []
        void: list[e.VoidApproval] = []
        for approval in self.request.approvals:
            reason = self._why_void(approval)
            if reason is None and any(approval.given_by.same_hand(hand) for hand in counted):
                reason = SAME_HAND
            if reason is None:
                counted.append(approval.given_by)
            else:
                void.append(e.VoidApproval(approver=approval.approver, reason=reason))
        return tuple(counted), tuple(void)

    def why_not(self, approver: Hand, rights: Sequence[str]) -> str | None:
        """Why a principal may not approve by these rights; None: it may."""
        reason = self.rule.why_not(approver, self.authors, self.request.asked_by)
        return self.barred(approver, rights) if reason is None else reason

    def barred(self, approver: Hand, rights: Sequence[str]) -> str | None:
        """Why none of these rights gives a principal a say in the request; None: one does."""
        held = [right for right in rights if self._is_in_force(right, approver)]
        if not held:
            return NO_RIGHT
        if not self.rule.names:
            return None
        concerned = (("whoever asks for the promotion", self.request.asked_by), *self.authors)
        barred = [barrier(self.world, self.model, right, concerned) for right in held]
        return barred[0] if all(barred) else None

    def _why_void(self, approval: Approval) -> str | None:
        if not self.rule.counts(approval.groups):
            return OTHER_GROUPS
        if approval.evidence_sha256 != self.evidence_sha256:
            return EVIDENCE_CHANGED
        return self.why_not(approval.given_by, approval.rights)

    def _is_in_force(self, right: str, approver: Hand) -> bool:
        state = state_of(self.world)
        if right == OWNER:
            made_it = self.model.created_by == approver.principal_id
            return made_it and ("model", self.model.model_id) not in state.ended
        if not right.startswith(GRANT_PREFIX):
            return True  # The configuration gives it, and nothing in the log takes it back.
        record = granted(state, right)
        target = self.request.target
        return record is not None and self.gives(
            self.world, record.grant, self.model, target, self.now_ms
        )


def barrier(
    world: World, model: RegisteredModel, right: str, concerned: Sequence[tuple[str, Hand]]
) -> str | None:
    """Why a right to approve does not count under a policy; None: it does.

    concerned: those who have no say in who approves, each with words for what it is.
    """
    if right == OWNER:
        return "having made the model gives no say in its promotion; an administrator has to"
    record = granted(state_of(world), right)
    if record is None:
        return None
    if _is_of_owner(record, model):
        return _by_whom(record, "whoever made the model")
    for words, hand in concerned:
        if any(maker.same_hand(hand) for maker in record.makers):
            return _by_whom(record, words)
    return None


def _is_of_owner(record: GrantRecord, model: RegisteredModel) -> bool:
    # Whoever administers the server gives by that, also where it made the model.
    makers = record.behind if record.by_admin else record.makers
    owner = Hand(model.created_by)
    return record.root == OWNER or any(maker.same_hand(owner) for maker in makers)


def _by_whom(record: GrantRecord, words: str) -> str:
    return (
        f"the right to approve comes from the grant {record.grant.grant_id} only, which {words} "
        "has made or given the right to make; an administrator has to revoke it and grant it anew"
    )
