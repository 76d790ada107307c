"""What was true at a moment: access, and runs.

Neither has a table of its past. Both are folded from their own events when somebody asks: the
access aggregate is small, and a run's events are its own, so that no table has to be kept, and no
write has to pay, for what is asked for rarely. The registry has its past in validity intervals
(`muniment_projections.registry.then`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from muniment_projections.search.predicate import Predicate, one_of
from muniment_schemas import events as e
from muniment_schemas.envelope import CATALOG, RUNS
from muniment_services.domain.access import EMPTY, AccessState
from muniment_services.domain.access import KIND as ACCESS
from muniment_services.domain.experiment import KIND as EXPERIMENT
from muniment_services.domain.experiment import Experiment, effective_lifecycle
from muniment_services.domain.run import KIND as RUN
from muniment_services.domain.run import Run
from muniment_services.reports.moment import Moment
from muniment_services.reports.report import Place
from muniment_services.reports.sources import CLOCKS_DIFFER_MS, Sources

ACCESS_EVENTS = tuple(kind.__name__ for kind in e.EVENT_TYPES if kind.AGGREGATE == ACCESS)

GRANT, ROLE, ENDED = "grant", "role", "ended"


@dataclass(frozen=True, slots=True)
class AccessThen:
    """Access at a moment. last: the last event about a grant, a role or an ended ownership until
    then, by kind (GRANT, ROLE, ENDED) and id, name, or `KIND:ID`; it made what stands."""

    state: AccessState
    last: Mapping[tuple[str, str], Place]

    @property
    def roles(self) -> dict[str, tuple[str, ...]]:
        """The defined roles, each with its permissions."""
        return {name: role.permissions for name, role in self.state.roles.items()}


def access_at(sources: Sources, moment: Moment) -> AccessThen:
    """Roles, grants and ended ownerships as they stood. Raises what `Sources.replay` raises."""
    state: AccessState = EMPTY
    last: dict[tuple[str, str], Place] = {}
    for step in sources.replay(CATALOG, one_of("t.type", ACCESS_EVENTS), until=moment):
        state, event = step.after, step.event
        match event:
            case e.GrantMade() | e.GrantRevoked():
                last[GRANT, event.grant.grant_id] = step.place
            case e.RoleDefined() | e.RoleRemoved():
                last[ROLE, event.name] = step.place
            case e.OwnershipEnded():
                last[ENDED, f"{event.resource_kind}:{event.resource_id}"] = step.place
    return AccessThen(state, last)


@dataclass(frozen=True, slots=True)
class RunThen:
    """A run at a moment. lifecycle: its effective stage. last: the last event that counts."""

    run: Run
    lifecycle: str
    last: Place


def run_at(sources: Sources, run_id: str, moment: Moment) -> RunThen | None:
    """A run with its params, tags and latest metrics as they were; None: there was none yet.

    Raises Invalid for one of more than `sources.EVENTS_MAX` events.
    """
    found = None
    for step in sources.replay(RUNS, *_of_run(run_id), until=moment):
        found = step
    if found is None:
        return None
    run: Run = found.after
    experiment = _experiment_at(sources, run.experiment_id, moment)
    lifecycle = effective_lifecycle(run.lifecycle, run.lifecycle_changed_at_ms, experiment)
    return RunThen(run, lifecycle, found.place)


def _of_run(run_id: str) -> tuple[Predicate, ...]:
    # An id begins with when it was made (UUIDv7): what is older need not be looked at.
    made_ms = int(run_id[:12], 16) if len(run_id) == 32 else 0
    return (
        Predicate("t.at_ms >= ?", (made_ms - CLOCKS_DIFFER_MS,)),
        Predicate("t.resource_kind = ? AND t.resource_id = ?", (RUN, run_id)),
    )


def _experiment_at(sources: Sources, experiment_id: str, moment: Moment) -> Experiment | None:
    found: Experiment | None = None
    of = Predicate("t.resource_kind = ? AND t.resource_id = ?", (EXPERIMENT, experiment_id))
    for step in sources.replay(CATALOG, of, until=moment):
        found = step.after
    return found
