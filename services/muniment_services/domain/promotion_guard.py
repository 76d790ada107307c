"""What policies ask of a move, whichever call makes it: checked when it is decided, and once more
when it is folded.

A move is an event of its model, a policy has a history of its own, so `expected_version` does not
see a policy that comes between the two. Events of moves therefore name the policies that they were
decided under (`decided_under`), approvals also the state of access (`access_version`); if it is
another where the event stands in the log, it is void, on every replica alike, and its command is
decided anew. What another topic says (the source run's metrics) is checked when the move is decided
only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from muniment_schemas import events as e
from muniment_schemas.promotion_events import ALIAS, STAGE
from muniment_services.domain.access import state_of
from muniment_services.domain.commands import AggregateKey, Context, State, World
from muniment_services.domain.errors import Invalid, ReviewRequired, Void
from muniment_services.domain.limits import shown
from muniment_services.domain.logged_model import KIND as LOGGED_MODEL
from muniment_services.domain.logged_model import LoggedModel
from muniment_services.domain.promotion_policy import Rule, all_in_force, escapes, in_force
from muniment_services.domain.registered_model import KIND as MODEL
from muniment_services.domain.registered_model import ModelVersion, RegisteredModel, reached
from muniment_services.domain.registry_names import ARCHIVED, version_number
from muniment_services.domain.registry_source import is_within
from muniment_services.domain.review import Hand, Target
from muniment_services.domain.run import KIND as RUN
from muniment_services.domain.run import Run
from muniment_services.domain.version_files import owners_of_files

ARCHIVE = Target(STAGE, ARCHIVED)

Moved = e.StageTransitioned | e.AliasSet | e.TransitionApproved


def origins_of_version(world: World, name: str, version: str) -> tuple[AggregateKey, ...]:
    """What a version comes from; nothing if there is no such version."""
    model: Any = world.named(MODEL, name)
    try:
        of = None if model is None else model.versions.get(version_number(version))
    except Invalid:
        return ()
    return () if of is None else origins_of(of)


def origins_of(version: ModelVersion) -> tuple[AggregateKey, ...]:
    """The run and the logged models that a version comes from, by what it says and its files."""
    named = ((RUN, version.run_id), (LOGGED_MODEL, version.logged_model_id))
    found = [(kind, origin) for kind, origin in named if origin]
    return tuple(dict.fromkeys([*found, *owners_of_files(version)]))


def origins_of_move(
    world: World, name: str, version: str, stage: str, archive_others: bool
) -> tuple[AggregateKey, ...]:
    """The same for a move to a stage, and of the versions there that it may archive."""
    model: Any = world.named(MODEL, name)
    there = model.versions.values() if model is not None and archive_others else ()
    numbers = [version, *(str(v.version) for v in there if v.stage.lower() == stage.lower())]
    return tuple(key for number in numbers for key in origins_of_version(world, name, number))


def source_run(world: World, version: ModelVersion) -> Run | None:
    """The run that a version comes from, whoever asks; it must have been loaded."""
    found = world.known(RUN, version.run_id) if version.run_id else None
    assert found is None or isinstance(found, Run)
    return found


def authors_of(world: World, version: ModelVersion) -> tuple[tuple[str, Hand], ...]:
    """All who had a hand in what a version is, each with words for what it is: whoever registered
    it and what it was copied from, and who made the run and the logged model that it comes from.

    What it comes from must have been loaded.
    """
    found = [("the author of the version", version.author)]
    found += [("the author of a version that it was copied from", h) for h in version.copied_from]
    for kind, origin in origins_of(version):
        known: Any = world.known(kind, origin)
        if isinstance(known, Run) and known.created_by:
            found.append(("the author of its run", Hand(known.created_by)))
        elif isinstance(known, LoggedModel) and known.created_by:
            hand = Hand(known.created_by, known.created_through)
            found.append(("whoever made its logged model", hand))
    return tuple(found)


def proven(world: World, version: ModelVersion, run: Run | None) -> Run | None:
    """The run that a version names, if the version's files are that run's.

    Whoever registers a version names a run with it. That a condition is true of some run says
    nothing of files that come from elsewhere.
    """
    if run is None:
        return None
    place = version.storage_location
    if any(is_within(place, root) for root in (run.artifact_uri, f"runs:/{run.run_id}")):
        return run
    made: Any = None
    if version.logged_model_id:
        made = world.known(LOGGED_MODEL, version.logged_model_id)
    # Whoever may read a run may make a logged model elsewhere that names it.
    if made is None or (made.source_run_id, made.experiment_id) != (run.run_id, run.experiment_id):
        return None
    return run if is_within(place, made.artifact_uri) else None


def is_current(model: RegisteredModel, version: ModelVersion, target: Target) -> bool:
    """Whether a version is there already."""
    if target.kind == ALIAS:
        return model.aliases.get(target.name) == version.version
    return version.stage == target.name


def others(
    model: RegisteredModel, version: ModelVersion, stage: str
) -> tuple[e.ArchivedVersion, ...]:
    """The other versions in a stage."""
    return tuple(
        e.ArchivedVersion(version=other.version, from_stage=other.stage)
        for other in model.versions.values()
        if other.stage == stage and other.version != version.version
    )


def require_unguarded(
    world: World,
    model: RegisteredModel,
    version: ModelVersion,
    target: Target,
    context: Context,
    comment: str | None = None,
) -> None:
    """Raise ReviewRequired when a policy asks for more than a plain call gives.

    comment: None where no reason is given.
    """
    rule = in_force(world, model, target)
    if rule is None or is_current(model, version, target):
        return
    run = proven(world, version, source_run(world, version))
    lacking = rule.unmet(version, run, context.holds)
    if rule.required_comment and comment is None:
        lacking.insert(0, "a comment")
    if rule.approvals > 0:
        approvals = "1 approval" if rule.approvals == 1 else f"{rule.approvals} approvals"
        lacking.insert(0, f"{approvals} of a transition request")
    if lacking:
        raise ReviewRequired(refusal(model, target, rule, lacking))


def require_archivable(
    world: World,
    model: RegisteredModel,
    archived: Sequence[e.ArchivedVersion],
    context: Context,
    comment: str | None = None,
) -> None:
    """Raise ReviewRequired when a policy guards the stage that a move brings other versions to."""
    for other in archived:
        version = model.versions[other.version]
        require_unguarded(world, model, version, ARCHIVE, context, comment)


def require_unpinned(world: World, model: RegisteredModel, version: ModelVersion, key: str) -> None:
    """Raise ReviewRequired when a tag is part of what a version was promoted for, and stays."""
    for target in reached(model, version):
        rule = in_force(world, model, target)
        if rule is not None and rule.pins(key):
            raise ReviewRequired(
                f"Version {version.version} of {model.name} is {target.shown} by the policy "
                f"{', '.join(rule.names)}, among other things for its tag {shown(key)}, which "
                "stays as it is while it is. Register another version, or take this one out of "
                f"{target.shown} first."
            )


def refusal(model: RegisteredModel, target: Target, rule: Rule, lacking: list[str]) -> str:
    """What is missing for a move, and how to ask for it."""
    return (
        f"A version of {model.name} becomes {target.shown} by the policy {', '.join(rule.names)} "
        f"only. What is missing: {'; '.join(lacking)}. Ask for it by POST "
        f'/api/2.0/mlflow/transition-requests/create with name, version and stage "{target.shown}".'
    )


def decided_under(
    world: World, model: RegisteredModel, target: Target, archives: bool
) -> e.DecidedUnder:
    """The policies that are in force for a move, and for what it archives."""
    targets = (target, ARCHIVE) if archives else (target,)
    found = (policy for each in targets for policy in all_in_force(world, model, each))
    return e.DecidedUnder(policy_events=tuple(sorted({policy.event_id for policy in found})))


def check_policies(world: World, before: State | None, event: Moved) -> None:
    """Raise Void when other policies are in force than those that the move was decided under.

    An event of a release that did not take them down counts as it always did.
    """
    if event.decided_under is None or not isinstance(before, RegisteredModel):
        return
    match event:
        case e.AliasSet():
            target, archives = Target(ALIAS, event.alias), False
        case e.StageTransitioned():
            target, archives = Target(STAGE, event.to_stage), bool(event.archived)
        case e.TransitionApproved():
            target, archives = Target(event.target_kind, event.target), bool(event.archived)
    if event.decided_under != decided_under(world, before, target, archives):
        raise Void("the promotion policies have changed")
    seen = event.access_version if isinstance(event, e.TransitionApproved) else None
    if seen not in (None, state_of(world).version):
        raise Void("access has changed")


def check_name(world: World, before: State | None, event: e.RegisteredModelRenamed) -> None:
    """Raise Void when a policy has come that the new name would escape from, or bring under."""
    if isinstance(before, RegisteredModel) and escapes(world, before, event.name):
        raise Void("the promotion policies have changed")
