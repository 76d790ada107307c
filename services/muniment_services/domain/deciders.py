"""Which function decides which command, and which evolves which kind of aggregate.

A new command or aggregate is entered here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from muniment_schemas.envelope import Event
from muniment_services.domain import experiment, principal, run, run_data, run_life, schema
from muniment_services.domain.commands import Command, Context, State, World

Decide = Callable[[World, Any, Context], Event | None]
Evolve = Callable[[Any, Event], State | None]

DECIDERS: Mapping[type[Command], Decide] = MappingProxyType(
    {
        principal.RegisterPrincipal: principal.register,
        schema.PublishSchema: schema.publish,
        experiment.CreateExperiment: experiment.create,
        experiment.RenameExperiment: experiment.rename,
        experiment.DeleteExperiment: experiment.delete,
        experiment.RestoreExperiment: experiment.restore,
        experiment.SetExperimentTag: experiment.set_tag,
        experiment.DeleteExperimentTag: experiment.delete_tag,
        run_life.CreateRun: run_life.create,
        run_life.UpdateRun: run_life.update,
        run_life.DeleteRun: run_life.delete,
        run_life.RestoreRun: run_life.restore,
        run_data.LogBatch: run_data.log_batch,
        run_data.DeleteRunTag: run_data.delete_tag,
        run_data.LogInputs: run_data.log_inputs,
        run_data.LogOutputs: run_data.log_outputs,
    }
)

EVOLVERS: Mapping[str, Evolve] = MappingProxyType(
    {
        experiment.KIND: experiment.evolve,
        principal.KIND: principal.evolve,
        schema.KIND: schema.evolve,
        run.KIND: run.evolve,
    }
)
"""Aggregate kind to its fold; None as a result means that the aggregate does not exist any more."""

STATES: Mapping[str, type[State]] = MappingProxyType(
    {
        experiment.KIND: experiment.Experiment,
        principal.KIND: principal.PrincipalState,
        schema.KIND: schema.PublishedSchema,
        run.KIND: run.Run,
    }
)
"""Aggregate kind to its state, for reading documents back."""

NAMED_KINDS = frozenset({experiment.KIND, "registered_model"})
"""Kinds whose `name` is unique within the kind."""
