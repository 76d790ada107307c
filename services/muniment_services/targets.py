"""What each command acts on: which permission on which resources it needs.

One table. `None` as a permission is the one that the route names, so that a command may serve
several routes (an upload through the artifact proxy, a multipart one). A command that is not
entered here cannot be submitted by anybody but the server itself (`tests/house/test_targets.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from muniment_auth.permissions import Permission as P
from muniment_auth.resources import NO_ATTRIBUTES, SERVER, Attributes, Resource
from muniment_schemas.access_events import ANYTHING
from muniment_services.approvers import attributes_of
from muniment_services.authority import Need, of_model, resource_of
from muniment_services.domain import (
    access,
    artifact,
    artifact_changes,
    assessment_data,
    credential,
    experiment,
    hold,
    logged_model,
    model_version,
    principal,
    promotion,
    promotion_policy,
    registered_model,
    registry_life,
    registry_source,
    run,
    run_data,
    run_life,
    trace,
    trace_data,
    workspace,
)
from muniment_services.domain.commands import Command
from muniment_services.domain.errors import DomainError
from muniment_services.domain.registry_names import (
    ACTIVE_STAGES,
    is_prompt,
    stage_of,
    version_number,
)
from muniment_services.state import CurrentState

NOWHERE = Resource("experiment", workspace=ANYTHING)
"""What a run or logged model that is not there is asked on: only grants on all experiments of all
workspaces count, from whose holders none is hidden."""

Targets = Callable[[CurrentState, Any, str], Iterator[Need]]
"""(state, command, workspace) to what the command needs."""


def needs_of(state: CurrentState, command: Command, workspace: str) -> Iterator[Need]:
    """What a command needs. Its own targets are in memory (`Command.needs`). Raises KeyError."""
    return TARGETS[type(command)](state, command, workspace)


Keys = Callable[[Any], Iterable[str]]
"""A command to the keys of the tags that it changes."""


def _no_keys(_: Any) -> Iterable[str]:
    return ()


def _on(kind: str, field: str, keys: Keys = _no_keys) -> Targets:
    """The aggregate that a field of the command names by id, and the tags that are changed."""

    def targets(state: CurrentState, command: Command, workspace: str) -> Iterator[Need]:
        yield from _tagging(_existing(state, kind, getattr(command, field)), keys(command))

    return targets


def _tagging(needs: Iterable[Need], keys: Iterable[str]) -> Iterator[Need]:
    """What is needed, and the same for each tag that is changed by it: grants may be for some."""
    changed = [Attributes(tag_key=key) for key in keys]
    for need in needs:
        yield need
        yield from (replace(need, attributes=attributes) for attributes in changed)


def _key(command: Any) -> Iterable[str]:
    return (command.key,)


def _keys(command: Any) -> Iterable[str]:
    """Of a command whose `tags` are pairs, or a mapping."""
    return dict(command.tags)


def _existing(
    state: CurrentState, kind: str, aggregate_id: str, permission: P | None = None
) -> Iterator[Need]:
    found = state.get(kind, aggregate_id) if aggregate_id else None
    resource = None if found is None else resource_of(state, kind, found)
    if resource is not None:
        yield Need(resource, permission)


def _named(
    state: CurrentState,
    kind: str,
    aggregate_id: str | None,
    workspace: str,
    permission: P | None = None,
) -> Iterator[Need]:
    """The same for what a command names beside its target, and what need not be there.

    That it is not there must not be told from its being hidden.
    """
    if not aggregate_id:
        return
    found = state.get(kind, aggregate_id)
    resource = None if found is None else resource_of(state, kind, found)
    if resource is None or resource.workspace != workspace:
        resource = NOWHERE
    yield Need(resource, permission)


def _chosen(
    state: CurrentState, kind: str, aggregate_id: str, permission: P | None = None
) -> Iterator[Need]:
    """The same for an id that callers make up: somebody else's must not be written into."""
    for need in _existing(state, kind, aggregate_id, permission):
        yield Need(need.resource, permission, exists=False)


def _model(
    state: CurrentState, name: str, workspace: str
) -> registered_model.RegisteredModel | None:
    found = state.named(registered_model.KIND, name, workspace)
    assert found is None or isinstance(found, registered_model.RegisteredModel)
    return found


def _on_model(attributes: Callable[[Any], Attributes] = lambda _: NO_ATTRIBUTES) -> Targets:
    def targets(state: CurrentState, command: Any, workspace: str) -> Iterator[Need]:
        found = _model(state, command.name, workspace)
        if found is not None:
            yield Need(of_model(found), attributes=attributes(command))

    return targets


def _new_model(name: str, tags: Mapping[str, str], workspace: str) -> Need:
    kind = "prompt" if is_prompt(tags) else "model"
    made = Resource(kind=kind, id="", name=name, owner="", workspace=workspace)
    return Need(made, P.MODEL_CREATE, exists=False)


def _new_experiment(name: str, workspace: str) -> Need:
    made = Resource(kind="experiment", id="", name=name, owner="", workspace=workspace)
    return Need(made, P.EXPERIMENT_CREATE, exists=False)


def _create_experiment(
    _: CurrentState, command: experiment.CreateExperiment, workspace: str
) -> Iterator[Need]:
    yield from _tagging((_new_experiment(command.name, workspace),), _keys(command))


def _rename_experiment(
    state: CurrentState, command: experiment.RenameExperiment, workspace: str
) -> Iterator[Need]:
    # Grants go by name: another name needs what making a thing of that name would.
    for need in _existing(state, experiment.KIND, command.experiment_id):
        yield need
        if need.resource.name != command.name:
            yield _new_experiment(command.name, workspace)


def _create_model(
    _: CurrentState, command: registry_life.CreateRegisteredModel, workspace: str
) -> Iterator[Need]:
    made = _new_model(command.name, dict(command.tags), workspace)
    yield from _tagging((made,), _keys(command))


def _rename_model(
    state: CurrentState, command: registry_life.RenameRegisteredModel, workspace: str
) -> Iterator[Need]:
    found = _model(state, command.name, workspace)
    if found is not None:
        yield Need(of_model(found))
        if command.new_name != command.name:
            yield _new_model(command.new_name, found.tags, workspace)


def _create_version(
    state: CurrentState, command: model_version.CreateModelVersion, workspace: str
) -> Iterator[Need]:
    """The model, and reading what its files are taken from: its readers will read them by it."""
    found = _model(state, command.name, workspace)
    if found is not None:
        yield from _tagging((Need(of_model(found)),), _keys(command))
    yield from _named(state, run.KIND, command.run_id, workspace, P.RUN_READ)
    if _is_kept_here(command.source):
        yield from _named(state, run.KIND, command.run_id, workspace, P.ARTIFACT_READ)
    for permission in (P.LOGGED_MODEL_READ, P.ARTIFACT_READ):
        yield from _named(state, logged_model.KIND, command.logged_model_id, workspace, permission)
    origin = _source_model(state, command.source, workspace)
    if origin is not None:
        yield Need(of_model(origin), P.MODEL_READ)
        yield Need(of_model(origin), P.ARTIFACT_READ)


def _is_kept_here(source: str) -> bool:
    try:
        of_run = registry_source.named_of_run(source) is not None
        return of_run or registry_source.is_proxied(source)
    except (DomainError, ValueError):
        return False  # The decision says what is wrong with it.


def _source_model(
    state: CurrentState, source: str, workspace: str
) -> registered_model.RegisteredModel | None:
    try:
        name = registry_source.model_named_by(source)
    except DomainError:
        return None  # The decision says what is wrong with it.
    return None if name is None else _model(state, name, workspace)


def _stage(command: Any) -> Attributes:
    try:
        return Attributes(stage=stage_of(command.stage))
    except DomainError:
        return Attributes(stage=command.stage)


def _moved(aimed: Callable[[Any], Attributes]) -> Targets:
    """The model, for the stage or alias that a version is brought to, and the stage that it leaves.

    A condition on stages binds both ends: who may promote to Staging takes nothing out of
    Production.
    """

    def targets(state: CurrentState, command: Any, workspace: str) -> Iterator[Need]:
        found = _model(state, command.name, workspace)
        if found is None:
            return
        asked = aimed(command)
        yield Need(of_model(found), attributes=asked)
        left = _stage_of_version(found, command.version)
        if asked.stage is not None and left in ACTIVE_STAGES and left != asked.stage:
            yield Need(of_model(found), attributes=Attributes(stage=left))

    return targets


def _stage_of_version(model: registered_model.RegisteredModel, version: str) -> str | None:
    try:
        found = model.versions.get(version_number(version))
    except DomainError:
        return None  # The decision says what is wrong with it.
    return None if found is None else found.stage


def _alias(command: Any) -> Attributes:
    return Attributes(alias=command.alias)


def _tag(command: Any) -> Attributes:
    return Attributes(tag_key=command.key)


def _promotion(command: promotion.ReviewCommand) -> Attributes:
    try:
        target = promotion.target_of(command.stage)
    except DomainError:
        return Attributes(stage=command.stage)
    return attributes_of(target)


def _comment(
    state: CurrentState, command: promotion.UpdateComment | promotion.DeleteComment, _: str
) -> Iterator[Need]:
    found = promotion.comment_of(state, command.comment_id)
    if found is None:
        return
    manages = isinstance(command, promotion.DeleteComment) and command.as_manager
    yield Need(of_model(found[0]), P.MODEL_DELETE if manages else None)


def _on_server(_: CurrentState, __: Command, ___: str) -> Iterator[Need]:
    """What binds everybody is the admins'."""
    yield Need(SERVER, exists=False)


def _nothing_further(_: CurrentState, __: Command, ___: str) -> Iterator[Need]:
    """What a command that was allowed entails."""
    return iter(())


def _create_logged_model(
    state: CurrentState, command: logged_model.CreateLoggedModel, workspace: str
) -> Iterator[Need]:
    yield from _tagging(_existing(state, experiment.KIND, command.experiment_id), _keys(command))
    yield from _named(state, run.KIND, command.source_run_id, workspace, P.RUN_READ)


def _log_batch(state: CurrentState, command: run_data.LogBatch, _: str) -> Iterator[Need]:
    """The run with its tags, and the logged models that points are of."""
    yield from _tagging(_existing(state, run.KIND, command.run_id), _keys(command))
    if command.metrics is not None:
        models = {context.model_id for context in command.metrics.contexts}
        for model_id in models - {None}:
            yield from _existing(state, logged_model.KIND, model_id or "", P.LOGGED_MODEL_WRITE)


def _trace_of_experiment(keys: Keys) -> Targets:
    def targets(state: CurrentState, command: Any, _: str) -> Iterator[Need]:
        changed = keys(command)
        yield from _tagging(_chosen(state, trace.KIND, command.trace_id), changed)
        yield from _tagging(_existing(state, experiment.KIND, command.experiment_id), changed)

    return targets


def _span_keys(command: trace_data.LogSpans) -> Iterable[str]:
    return command.summary.tags


def _link_trace(
    state: CurrentState, command: trace_data.LinkTraceToRun, workspace: str
) -> Iterator[Need]:
    yield from _chosen(state, trace.KIND, command.trace_id)
    yield from _named(state, run.KIND, command.run_id, workspace)


def _file(state: CurrentState, command: artifact_changes.RecordUpload, _: str) -> Iterator[Need]:
    yield from of_path(state, command.path)


def _files(state: CurrentState, command: artifact_changes.RecordDeletion, _: str) -> Iterator[Need]:
    yield from of_path(state, command.path)


def of_path(state: CurrentState, path: str) -> Iterator[Need]:
    """What a file belongs to by its path: the experiments of the runs, logged models and traces in
    whose folders it is. Whatever is in no such folder is the server's.

    The owners must be in memory (`artifact.owners`).
    """
    owned = False
    for kind, owner in artifact.owners(path):
        found: Any = state.get(kind, owner)
        if found is None or not artifact.is_below(path, artifact_root(state, kind, found)):
            continue
        resource = resource_of(state, kind, found)
        if resource is not None:
            owned = True
            yield Need(resource, exists=False)
    if not owned:
        yield Need(SERVER, P.SERVER_ADMIN, exists=False)


def artifact_root(state: CurrentState, kind: str, found: Any) -> str:
    """The folder of a run's, logged model's or trace's files, as a URI; "" if it has none here."""
    if kind != trace.KIND:
        return str(found.artifact_uri)
    above: Any = state.get(experiment.KIND, found.experiment_id)
    return "" if above is None else trace_data.artifacts_of(above, found.trace_id)


TARGETS: Mapping[type[Command], Targets] = MappingProxyType(
    {
        promotion.RequestTransition: _on_model(_promotion),
        promotion.CancelRequest: _on_model(_promotion),
        promotion.RejectRequest: _on_model(_promotion),
        promotion.ApproveRequest: _moved(_promotion),
        promotion.AddComment: _on_model(),
        promotion.UpdateComment: _comment,
        promotion.DeleteComment: _comment,
        promotion_policy.SetPromotionPolicy: _on_server,
        promotion_policy.RemovePromotionPolicy: _on_server,
        principal.ErasePrincipal: _on_server,
        hold.PlaceHold: _on_server,
        hold.ReleaseHold: _on_server,
        credential.IssueCredential: _nothing_further,
        credential.RevokeCredential: _nothing_further,
        access.DefineRole: _nothing_further,
        access.RemoveRole: _nothing_further,
        access.MakeGrant: _nothing_further,
        access.RevokeGrant: _nothing_further,
        access.EndOwnership: _nothing_further,
        workspace.CreateWorkspace: _on_server,
        workspace.UpdateWorkspace: _on_server,
        workspace.DeleteWorkspace: _on_server,
        experiment.CreateExperiment: _create_experiment,
        experiment.RenameExperiment: _rename_experiment,
        experiment.DeleteExperiment: _on(experiment.KIND, "experiment_id"),
        experiment.RestoreExperiment: _on(experiment.KIND, "experiment_id"),
        experiment.SetExperimentTag: _on(experiment.KIND, "experiment_id", _key),
        experiment.DeleteExperimentTag: _on(experiment.KIND, "experiment_id", _key),
        registry_life.CreateRegisteredModel: _create_model,
        registry_life.UpdateRegisteredModel: _on_model(),
        registry_life.RenameRegisteredModel: _rename_model,
        registry_life.DeleteRegisteredModel: _on_model(),
        registry_life.SetRegisteredModelTag: _on_model(_tag),
        registry_life.DeleteRegisteredModelTag: _on_model(_tag),
        registry_life.SetAlias: _on_model(_alias),
        registry_life.DeleteAlias: _on_model(_alias),
        model_version.CreateModelVersion: _create_version,
        model_version.UpdateModelVersion: _on_model(),
        model_version.TransitionStage: _moved(_stage),
        model_version.DeleteModelVersion: _on_model(),
        model_version.SetModelVersionTag: _on_model(_tag),
        model_version.DeleteModelVersionTag: _on_model(_tag),
        model_version.NoteRegistration: _nothing_further,
        run_life.CreateRun: _on(experiment.KIND, "experiment_id", _keys),
        run_life.UpdateRun: _on(run.KIND, "run_id"),
        run_life.DeleteRun: _on(run.KIND, "run_id"),
        run_life.RestoreRun: _on(run.KIND, "run_id"),
        run_data.LogBatch: _log_batch,
        run_data.DeleteRunTag: _on(run.KIND, "run_id", _key),
        run_data.LogInputs: _on(run.KIND, "run_id"),
        run_data.LogOutputs: _on(run.KIND, "run_id"),
        artifact_changes.RecordUpload: _file,
        artifact_changes.RecordDeletion: _files,
        logged_model.CreateLoggedModel: _create_logged_model,
        logged_model.FinalizeLoggedModel: _on(logged_model.KIND, "model_id"),
        logged_model.DeleteLoggedModel: _on(logged_model.KIND, "model_id"),
        logged_model.SetLoggedModelTags: _on(logged_model.KIND, "model_id", _keys),
        logged_model.DeleteLoggedModelTag: _on(logged_model.KIND, "model_id", _key),
        logged_model.LogLoggedModelParams: _on(logged_model.KIND, "model_id"),
        trace_data.StartTrace: _trace_of_experiment(_keys),
        trace_data.BeginTrace: _on(experiment.KIND, "experiment_id", _keys),
        trace_data.EndTrace: _on(trace.KIND, "trace_id", _keys),
        trace_data.LogSpans: _trace_of_experiment(_span_keys),
        trace_data.SetTraceTag: _on(trace.KIND, "trace_id", _key),
        trace_data.DeleteTraceTag: _on(trace.KIND, "trace_id", _key),
        trace_data.DeleteTrace: _on(trace.KIND, "trace_id"),
        trace_data.LinkTraceToRun: _link_trace,
        trace_data.LinkPrompts: _on(trace.KIND, "trace_id"),
        assessment_data.CreateAssessment: _on(trace.KIND, "trace_id"),
        assessment_data.UpdateAssessment: _on(trace.KIND, "trace_id"),
        assessment_data.DeleteAssessment: _on(trace.KIND, "trace_id"),
    }
)
