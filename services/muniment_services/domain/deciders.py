"""Which function decides which command, and which evolves which kind of aggregate.

A new command or aggregate is entered here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from muniment_schemas.envelope import Event
from muniment_services.domain import (
    artifact,
    assessment_data,
    experiment,
    logged_model,
    model_version,
    principal,
    registered_model,
    registry_life,
    run,
    run_data,
    run_life,
    schema,
    schema_id,
    trace,
    trace_data,
)
from muniment_services.domain.commands import Command, Context, State, World

Decide = Callable[[World, Any, Context], Event | None]
Evolve = Callable[[Any, Event], State | None]

DECIDERS: Mapping[type[Command], Decide] = MappingProxyType(
    {
        principal.RegisterPrincipal: principal.register,
        schema.PublishSchema: schema.publish,
        schema_id.RegisterSchema: schema_id.register,
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
        artifact.RecordUpload: artifact.record_upload,
        artifact.RecordDeletion: artifact.record_deletion,
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
        experiment.KIND: experiment.evolve,
        principal.KIND: principal.evolve,
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
        experiment.KIND: experiment.Experiment,
        principal.KIND: principal.PrincipalState,
        schema.KIND: schema.PublishedSchema,
        schema_id.KIND: schema_id.SchemaId,
        registered_model.KIND: registered_model.RegisteredModel,
        run.KIND: run.Run,
        logged_model.KIND: logged_model.LoggedModel,
        trace.KIND: trace.Trace,
    }
)
"""Aggregate kind to its state, for reading documents back."""

NAMED_KINDS = frozenset({experiment.KIND, registered_model.KIND})
"""Kinds whose `name` is unique within the kind."""
