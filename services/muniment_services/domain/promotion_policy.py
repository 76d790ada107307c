"""Promotion policies: what it takes to bring a version of some models to a stage or an alias.

Policies are found by the model's name and the target. Where several are in force, all of them must
be met: the most approvals that any asks for, every exclusion, every tag, every condition. A policy
counts from the moment it is in the log, for requests too that were made before.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from muniment_schemas import events as e
from muniment_schemas.patterns import matches
from muniment_schemas.promotion_events import ALIAS, STAGE
from muniment_services.domain.commands import AggregateKey, Command, Context, State, World
from muniment_services.domain.errors import Invalid, NotFound
from muniment_services.domain.limits import check_length, shown, stated
from muniment_services.domain.registered_model import ModelVersion, RegisteredModel
from muniment_services.domain.registry_names import (
    PROMPT_RUNS_TAG,
    PROMPT_TAG_PREFIXES,
    check_new_alias,
    stage_of,
)
from muniment_services.domain.review import Hand, Target
from muniment_services.domain.run import Run

KIND = "promotion_policy"
APPROVALS_MAX = 20
NAME_CHARS_MAX = 100
PATTERN_CHARS_MAX = 256
LISTED_MAX = 50
"""Stages, aliases, groups or tags of one policy."""


class PromotionPolicy(State, frozen=True, kw_only=True):
    """One policy. Its `name` is its id; what the fields mean: `PromotionPolicySet`.

    event_id: of the event that it is as it stands by.
    """

    policy: str
    workspace: str
    pattern: str
    stages: tuple[str, ...]
    aliases: tuple[str, ...]
    approvals: int
    approver_groups: tuple[str, ...]
    exclude_requester: bool
    exclude_author: bool
    required_tags: tuple[str, ...]
    condition: str | None
    required_comment: bool
    set_by: str
    set_at_ms: int
    event_id: str


class SetPromotionPolicy(Command, frozen=True, kw_only=True):
    """Lay down a policy, or change it."""

    policy: str
    workspace: str
    pattern: str
    stages: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    approvals: int = 1
    approver_groups: tuple[str, ...] = ()
    exclude_requester: bool = True
    exclude_author: bool = True
    required_tags: tuple[str, ...] = ()
    condition: str | None = None
    required_comment: bool = False

    def serial(self) -> AggregateKey:
        """One history."""
        return (KIND, self.policy)


class RemovePromotionPolicy(Command, frozen=True, kw_only=True):
    """Remove a policy."""

    policy: str
    reason: str | None = None

    def serial(self) -> AggregateKey:
        """One history."""
        return (KIND, self.policy)


def set_policy(
    world: World, command: SetPromotionPolicy, context: Context
) -> e.PromotionPolicySet | None:
    """None when it says so already. Raises Invalid. The condition was read before."""
    stages = _checked(command)
    before = world.get(KIND, command.policy)
    assert before is None or isinstance(before, PromotionPolicy)
    if before is not None and before.workspace != command.workspace:
        raise Invalid(
            f"The policy {shown(command.policy)} guards models of the workspace "
            f"{shown(before.workspace)}, which would be left without it. Remove it there first, or "
            "choose another name."
        )
    asked: dict[str, Any] = {name: getattr(command, name) for name in _FIELDS}
    asked |= {"stages": stages, "condition": command.condition or None}
    event = e.PromotionPolicySet(
        envelope=context.envelope(
            e.PromotionPolicySet,
            command.policy,
            expected_version=0 if before is None else before.version,
        ),
        **asked,
    )
    if before is not None and _content(before) == _content(event):
        return None
    return event


def remove_policy(
    world: World, command: RemovePromotionPolicy, context: Context
) -> e.PromotionPolicyRemoved:
    """Raises NotFound."""
    before = world.get(KIND, command.policy)
    if before is None:
        raise NotFound(f"There is no promotion policy {shown(command.policy)}.")
    return e.PromotionPolicyRemoved(
        envelope=context.envelope(
            e.PromotionPolicyRemoved, command.policy, expected_version=before.version
        ),
        reason=stated(command.reason),
    )


def evolve(state: PromotionPolicy | None, event: e.Event) -> PromotionPolicy | None:
    """The policy behind an event; None when it was removed."""
    if isinstance(event, e.PromotionPolicyRemoved):
        return None
    assert isinstance(event, e.PromotionPolicySet)
    fields = {name: getattr(event, name) for name in _FIELDS}
    return PromotionPolicy(
        version=1 if state is None else state.version + 1,
        policy=event.envelope.aggregate_id,
        set_by=event.envelope.actor.principal_id,
        set_at_ms=event.envelope.recorded_at_ms,
        event_id=event.envelope.event_id,
        **fields,
    )


_FIELDS = tuple(name for name in e.PromotionPolicySet.__struct_fields__ if name != "envelope")


def _content(policy: PromotionPolicy | e.PromotionPolicySet) -> list[object]:
    return [getattr(policy, name) for name in _FIELDS]


def _checked(command: SetPromotionPolicy) -> tuple[str, ...]:
    """The stages as they are written. Raises Invalid."""
    check_length("policy", command.policy, NAME_CHARS_MAX)
    check_length("pattern", command.pattern, PATTERN_CHARS_MAX)
    if not command.policy.strip() or "/" in command.policy:
        raise Invalid("A policy has a name, without '/'.")
    if not command.pattern:
        raise Invalid("A policy has a pattern of model names; `*` for all.")
    if not command.stages and not command.aliases:
        raise Invalid("A policy guards at least one stage or alias.")
    if not 0 <= command.approvals <= APPROVALS_MAX:
        raise Invalid(f"A policy asks for 0 to {APPROVALS_MAX} approvals.")
    if command.approver_groups and not command.approvals:
        raise Invalid("A policy that names approver_groups asks for at least one approval.")
    lists = (command.stages, command.aliases, command.approver_groups, command.required_tags)
    if any(len(listed) > LISTED_MAX for listed in lists):
        raise Invalid(f"A policy lists at most {LISTED_MAX} stages, aliases, groups or tags.")
    for tag in command.required_tags:
        key, equals, value = tag.partition("=")
        if not key.strip() or (equals and not value.strip()):
            raise Invalid(f"A required tag is KEY or KEY=VALUE, neither blank; not {shown(tag)}.")
    for alias in command.aliases:
        check_new_alias(alias)
    return tuple(stage_of(stage) for stage in command.stages)


@dataclass(frozen=True, slots=True)
class Rule:
    """All policies in force for one model and target, as one. names: theirs, sorted."""

    names: tuple[str, ...]
    approvals: int
    group_sets: tuple[frozenset[str], ...]
    exclude_requester: bool
    exclude_author: bool
    required_tags: tuple[str, ...]
    conditions: tuple[str, ...]
    required_comment: bool

    def unmet(
        self, version: ModelVersion, run: Run | None, holds: Callable[[str, Run], bool]
    ) -> list[str]:
        """What the version itself lacks, in words."""
        lacking = [
            f"the tag {tag} on the version"
            for tag in self.required_tags
            if not _has_tag(version, tag)
        ]
        for condition in self.conditions:
            if run is None:
                lacking.append(
                    "a source run whose artifacts the version has, and of which "
                    f"`{condition}` is true"
                )
            elif not holds(condition, run):
                lacking.append(f"a source run of which `{condition}` is true")
        return lacking

    def pins(self, key: str) -> bool:
        """Whether a version's tag of this key is part of what it is promoted for."""
        if key.startswith(PROMPT_TAG_PREFIXES):
            return key != PROMPT_RUNS_TAG
        return any(tag.partition("=")[0] == key for tag in self.required_tags)

    def asked_groups(self, groups: frozenset[str]) -> tuple[str, ...]:
        """Those of an approver's groups that count here, sorted."""
        asked = frozenset[str]().union(*self.group_sets)
        return tuple(sorted(groups & asked))

    def counts(self, groups: Sequence[str]) -> bool:
        """Whether an approval by a member of these groups counts."""
        return all(wanted & set(groups) for wanted in self.group_sets)

    def why_not(
        self, approver: Hand, authors: Sequence[tuple[str, Hand]], requester: Hand
    ) -> str | None:
        """Why a principal may not approve, itself or through another; None: it may.

        authors: of the version, each with words for what it is.
        """
        if self.exclude_requester and approver.same_hand(requester):
            return "whoever asks for a promotion may not approve it"
        if self.exclude_author:
            for words, author in authors:
                if approver.same_hand(author):
                    return f"{words} may not approve its promotion"
        return None


def in_force(world: World, model: RegisteredModel, target: Target) -> Rule | None:
    """What policies ask for to bring a version of a model to a target; None: nothing."""
    found = all_in_force(world, model, target)
    if not found:
        return None
    return Rule(
        names=tuple(policy.policy for policy in found),
        approvals=max(policy.approvals for policy in found),
        group_sets=tuple(frozenset(p.approver_groups) for p in found if p.approver_groups),
        exclude_requester=any(policy.exclude_requester for policy in found),
        exclude_author=any(policy.exclude_author for policy in found),
        required_tags=tuple(dict.fromkeys(tag for p in found for tag in p.required_tags)),
        conditions=tuple(dict.fromkeys(p.condition for p in found if p.condition)),
        required_comment=any(policy.required_comment for policy in found),
    )


def all_in_force(world: World, model: RegisteredModel, target: Target) -> list[PromotionPolicy]:
    """The policies that are in force for a model and a target, by name."""
    return all_concerning(world, model.name, model.workspace, target)


def all_concerning(
    world: World, name: str, workspace: str, target: Target | None = None
) -> list[PromotionPolicy]:
    """The policies for models of a name, to one target or to any, by name."""
    found = [
        policy
        for policy in _all(world)
        if concerns(policy, name, workspace) and (target is None or guards(policy, target))
    ]
    return sorted(found, key=lambda policy: policy.policy)


def escapes(world: World, model: RegisteredModel, new_name: str) -> tuple[str, ...]:
    """Policies that another name would get round: it takes the model out of them, or names by it
    what is promoted already, which whoever loads that name would get unasked."""
    found = []
    for policy in _all(world):
        before = concerns(policy, model.name, model.workspace)
        after = concerns(policy, new_name, model.workspace)
        if (before and not after) or ((before or after) and _reached(policy, model)):
            found.append(policy.policy)
    return tuple(sorted(found))


def _reached(policy: PromotionPolicy, model: RegisteredModel) -> bool:
    stages = {version.stage for version in model.versions.values()}
    if stages & set(policy.stages):
        return True
    return any(guards(policy, Target(ALIAS, alias)) for alias in model.aliases)


def _all(world: World) -> list[PromotionPolicy]:
    return [policy for policy in world.of_kind(KIND) if isinstance(policy, PromotionPolicy)]


def concerns(policy: PromotionPolicy, name: str, workspace: str) -> bool:
    """Whether a policy is about models of a name."""
    return policy.workspace in ("*", workspace) and matches(policy.pattern, name)


def guards(policy: PromotionPolicy, target: Target) -> bool:
    """Whether a policy is about moves to a target."""
    if target.kind == STAGE:
        return target.name in policy.stages
    return _as_read(target.name) in {_as_read(alias) for alias in policy.aliases}


def _as_read(alias: str) -> str:
    """What people take an alias for: another spelling of a guarded one is taken for that."""
    return unicodedata.normalize("NFKC", alias).casefold().strip()


def asked_by(policy: PromotionPolicy) -> list[str]:
    """What a policy asks for, in words."""
    asked = [_approvals(policy)] if policy.approvals else []
    if policy.required_comment:
        asked.append("a comment")
    asked.extend(f"the tag {tag} on the version" for tag in policy.required_tags)
    if policy.condition:
        asked.append(
            "a source run whose artifacts the version has, and of which "
            f"`{policy.condition}` is true"
        )
    return asked


def _approvals(policy: PromotionPolicy) -> str:
    noun = "approval" if policy.approvals == 1 else "approvals"
    asked = f"{policy.approvals} {noun} of a transition request"
    if policy.approver_groups:
        asked += f", from {' or '.join(policy.approver_groups)}"
    if policy.exclude_requester:
        asked += ", not by the requester"
    if policy.exclude_author:
        asked += ", not by the version's author"
    return asked


def _has_tag(version: ModelVersion, wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    given = version.tags.get(key, "")
    return given == value if equals else bool(given.strip())


def builtins(policy: PromotionPolicy) -> dict[str, object]:
    """A policy as plain values, for answers."""
    fields: dict[str, object] = msgspec.to_builtins(policy)
    fields["name"] = fields.pop("policy")
    del fields["version"]
    return fields
