"""Which function decides which command, and which evolves which kind of aggregate.

A new command or aggregate is entered here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from muniment_schemas import events as e
from muniment_schemas.envelope import Event
from muniment_services.domain import (
    access,
    artifact_changes,
    assessment_data,
    credential,
    experiment,
    hold,
    logged_model,
    model_version,
    principal,
    promotion,
    promotion_guard,
    promotion_policy,
    registered_model,
    registry_life,
    run,
    run_data,
    run_life,
    schema,
    schema_id,
    trace,
    trace_data,
    workspace,
)
from muniment_services.domain.commands import Command, Context, State, World

Decide = Callable[[World, Any, Context], Event | None]
Evolve = Callable[[Any, Event], State | None]
Check = Callable[[World, State | None, Any], None]

DECIDERS: Mapping[type[Command], Decide] = MappingProxyType(
    {
        principal.RegisterPrincipal: principal.register,
        principal.NoteSignIn: principal.note_sign_in,
        principal.ErasePrincipal: principal.erase,
        hold.PlaceHold: hold.place,
        hold.ReleaseHold: hold.release,
        access.DefineRole: access.define_role,
        access.RemoveRole: access.remove_role,
        access.MakeGrant: access.make_grant,
        access.RevokeGrant: access.revoke_grant,
        access.EndOwnership: access.end_ownership,
        schema.PublishSchema: schema.publish,
        schema_id.RegisterSchema: schema_id.register,
        promotion.RequestTransition: promotion.request,
        promotion.CancelRequest: promotion.cancel,
        promotion.RejectRequest: promotion.reject,
        promotion.ApproveRequest: promotion.approve,
        promotion.AddComment: promotion.add_comment,
        promotion.UpdateComment: promotion.update_comment,
        promotion.DeleteComment: promotion.delete_comment,
        promotion_policy.SetPromotionPolicy: promotion_policy.set_policy,
        promotion_policy.RemovePromotionPolicy: promotion_policy.remove_policy,
        credential.IssueCredential: credential.issue,
        credential.RenewSession: credential.renew,
        credential.RevokeCredential: credential.revoke,
        workspace.CreateWorkspace: workspace.create,
        workspace.UpdateWorkspace: workspace.update,
        workspace.DeleteWorkspace: workspace.delete,
        experiment.CreateExperiment: experiment.create,
        experiment.RenameExperiment: experiment.rename,
        experiment.DeleteExperiment: experiment.delete,
        experiment.RestoreExperiment: experiment.restore,
        experiment.SetExperimentTag: experiment.set_tag,
        experiment.DeleteExperimentTag: experiment.delete_tag,
        registry_life.CreateRegisteredModel: registry_life.create,
        registry_life.UpdateRegisteredModel: registry_life.update,
        registry_life.RenameRegisteredModel: registry_life.rename,
        registry_life.DeleteRegisteredModel: registry_life.delete,
        registry_life.SetRegisteredModelTag: registry_life.set_tag,
        registry_life.DeleteRegisteredModelTag: registry_life.delete_tag,
        registry_life.SetAlias: registry_life.set_alias,
        registry_life.DeleteAlias: registry_life.delete_alias,
        model_version.CreateModelVersion: model_version.create,
        model_version.UpdateModelVersion: model_version.update,
        model_version.TransitionStage: model_version.transition,
        model_version.DeleteModelVersion: model_version.delete,
        model_version.SetModelVersionTag: model_version.set_tag,
        model_version.DeleteModelVersionTag: model_version.delete_tag,
        model_version.NoteRegistration: model_version.note_registration,
        run_life.CreateRun: run_life.create,
        run_life.UpdateRun: run_life.update,
        run_life.DeleteRun: run_life.delete,
        run_life.RestoreRun: run_life.restore,
        run_data.LogBatch: run_data.log_batch,
        run_data.DeleteRunTag: run_data.delete_tag,
        run_data.LogInputs: run_data.log_inputs,
        run_data.LogOutputs: run_data.log_outputs,
        artifact_changes.RecordUpload: artifact_changes.record_upload,
        artifact_changes.RecordDeletion: artifact_changes.record_deletion,
        logged_model.CreateLoggedModel: logged_model.create,
        logged_model.FinalizeLoggedModel: logged_model.finalize,
        logged_model.DeleteLoggedModel: logged_model.delete,
        logged_model.SetLoggedModelTags: logged_model.set_tags,
        logged_model.DeleteLoggedModelTag: logged_model.delete_tag,
        logged_model.LogLoggedModelParams: logged_model.log_params,
        trace_data.StartTrace: trace_data.start,
        trace_data.BeginTrace: trace_data.begin,
        trace_data.EndTrace: trace_data.end,
        trace_data.LogSpans: trace_data.log_spans,
        trace_data.SetTraceTag: trace_data.set_tag,
        trace_data.DeleteTraceTag: trace_data.delete_tag,
        trace_data.DeleteTrace: trace_data.delete,
        trace_data.LinkTraceToRun: trace_data.link_to_run,
        trace_data.LinkPrompts: trace_data.link_prompts,
        assessment_data.CreateAssessment: assessment_data.create,
        assessment_data.UpdateAssessment: assessment_data.update,
        assessment_data.DeleteAssessment: assessment_data.delete,
    }
)

EVOLVERS: Mapping[str, Evolve] = MappingProxyType(
    {
        access.KIND: access.evolve,
        promotion_policy.KIND: promotion_policy.evolve,
        credential.KIND: credential.evolve,
        workspace.KIND: workspace.evolve,
        experiment.KIND: experiment.evolve,
        principal.KIND: principal.evolve,
        hold.KIND: hold.evolve,
        schema.KIND: schema.evolve,
        schema_id.KIND: schema_id.evolve,
        registered_model.KIND: registered_model.evolve,
        run.KIND: run.evolve,
        logged_model.KIND: logged_model.evolve,
        trace.KIND: trace.evolve,
    }
)
"""Aggregate kind to its fold; None as a result means that the aggregate does not exist any more."""

STATES: Mapping[str, type[State]] = MappingProxyType(
    {
        access.KIND: access.AccessState,
        promotion_policy.KIND: promotion_policy.PromotionPolicy,
        credential.KIND: credential.Credential,
        workspace.KIND: workspace.Workspace,
        experiment.KIND: experiment.Experiment,
        principal.KIND: principal.PrincipalState,
        hold.KIND: hold.Hold,
        schema.KIND: schema.PublishedSchema,
        schema_id.KIND: schema_id.SchemaId,
        registered_model.KIND: registered_model.RegisteredModel,
        run.KIND: run.Run,
        logged_model.KIND: logged_model.LoggedModel,
        trace.KIND: trace.Trace,
    }
)
"""Aggregate kind to its state, for reading documents back."""

FOLD_CHECKS: Mapping[type[Event], Check] = MappingProxyType(
    {
        e.StageTransitioned: promotion_guard.check_policies,
        e.AliasSet: promotion_guard.check_policies,
        e.TransitionApproved: promotion_guard.check_policies,
        e.RegisteredModelRenamed: promotion_guard.check_name,
        e.RegisteredModelDeleted: hold.check_model_deleted,
        e.ModelVersionDeleted: hold.check_version_deleted,
        e.ExperimentDeleted: hold.check_experiment_deleted,
        e.PrincipalErased: hold.check_erased,
    }
)
"""Event type to what must hold besides its own history, by earlier records of the same partition:
given the world and the aggregate before the event, raises Void."""

NAMED_KINDS = frozenset({experiment.KIND, registered_model.KIND})
"""Kinds whose `name` is unique within the kind."""
