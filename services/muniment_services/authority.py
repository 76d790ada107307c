"""What one request may do: the caller's access, the permission its route names, and what it asked.

Everything that looks at state on a caller's behalf goes through an `Authority`. A `View` of the
state lacks what the caller may not read, so every decision and every answer about it is the one
that there would be if it did not exist. `check` says whether a command may change its targets.
`visible` is the same rule as SQL, for lists. A request that asked none of these is not answered
(`asked`): no handler is open by having been forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from muniment_auth import visibility
from muniment_auth.permissions import Permission as P
from muniment_auth.policy import Access
from muniment_auth.resources import NO_ATTRIBUTES, SERVER, Attributes, Resource
from muniment_projections.search.predicate import TRUE, Predicate, all_of
from muniment_schemas.envelope import WORKSPACE_DEFAULT
from muniment_services.domain import experiment, logged_model, registered_model, run, trace
from muniment_services.domain.commands import State
from muniment_services.domain.deciders import NAMED_KINDS
from muniment_services.domain.errors import Quarantined
from muniment_services.domain.registry_names import PROMPT_TAG, is_prompt
from muniment_services.state import CurrentState

READS: Mapping[str, P] = MappingProxyType(
    {
        experiment.KIND: P.EXPERIMENT_READ,
        run.KIND: P.RUN_READ,
        logged_model.KIND: P.LOGGED_MODEL_READ,
        trace.KIND: P.TRACE_READ,
        registered_model.KIND: P.MODEL_READ,
    }
)
"""Kind of aggregate to the permission that lets a caller know of one."""


_IS_PROMPT = f"coalesce(lower(m.tags['{PROMPT_TAG}']) = 'true', FALSE)"
"""`is_prompt` in SQL. The column of that name is MLflow's, which asks for `true` to the letter."""

KIND_OF_RESOURCE: Mapping[str, str] = MappingProxyType(
    {"model": registered_model.KIND, "prompt": registered_model.KIND}
)
"""What the trail calls a resource, where that is not the policy's word."""

TOUCHED_NAMED_MAX = 20
"""Things that the trail names of one call; it counts the others."""

VERSION_DIGITS_MAX = 10
"""Versions with so many digits are none that anything ever had."""

Touched = tuple[str, str, str, int | None]
"""Kind, id, name and version of a thing that a call is about; empty or None where not known."""


class Denied(Exception):
    """The caller may not do this. reason: in words, for the caller; nothing was changed."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Need:
    """One thing that a command asks for: a permission (None: the route's) on a resource.

    exists: False where the thing is about to be made, or the caller chose its id: it cannot be
    said not to exist, so a refusal says that it is one.
    """

    resource: Resource
    permission: P | None = None
    attributes: Attributes = NO_ATTRIBUTES
    exists: bool = True


class Authority:
    """One request's. permission: what its route names.

    isolated: whether there are workspaces, so that those of others are hidden from everyone.

    For the trail it also keeps what it was asked about (`touched`, and how often in all; `version`
    of a registered model), whether the request led to an event (`recorded`), whether something was
    hidden from the caller that it asked for (`hid`), and why it was refused where no error says so
    (`refusal`).
    """

    __slots__ = (
        "_access", "_now_ms", "_touched", "asked", "hid", "isolated", "permission", "recorded",
        "refusal", "touched_total", "version", "workspace",
    )  # fmt: skip

    def __init__(
        self,
        access: Callable[[], Access],
        permission: P,
        now_ms: Callable[[], int],
        workspace: str = WORKSPACE_DEFAULT,
        isolated: bool = False,
    ) -> None:
        self._access = access
        self.permission = permission
        self.workspace = workspace
        self.isolated = isolated
        self.asked = False
        self.recorded = False
        self.hid = False
        self.refusal: str | None = None
        self.touched_total = 0
        self.version: int | None = None
        self._touched: dict[tuple[str, str, str], None] = {}
        self._now_ms = now_ms

    @property
    def access(self) -> Access:
        """What the caller holds by the state that is folded now."""
        return self._access()

    @property
    def touched(self) -> Iterable[Touched]:
        """What the request is about, in the order in which it came up."""
        model = registered_model.KIND
        return ((*key, self.version if key[0] == model else None) for key in self._touched)

    def touch(self, kind: str, aggregate_id: str = "", name: str = "") -> None:
        """Note what the request is about."""
        key = (kind, aggregate_id, name)
        if key in self._touched:
            return
        self.touched_total += 1
        if len(self._touched) < TOUCHED_NAMED_MAX:
            self._touched[key] = None

    def about_version(self, number: str) -> None:
        """Note which version of a registered model the request is about; other texts are none."""
        if number.isdecimal() and len(number) < VERSION_DIGITS_MAX:
            self.version = int(number)

    def _touch_resource(self, resource: Resource) -> None:
        if resource is not SERVER:
            kind = KIND_OF_RESOURCE.get(resource.kind, resource.kind)
            self.touch(kind, resource.id, resource.name)

    def require(self, resource: Resource, attributes: Attributes = NO_ATTRIBUTES) -> None:
        """Raise Denied unless the caller holds the route's permission on a resource."""
        self.asked = True
        self._touch_resource(resource)
        decision = self.access.decide(self.permission, resource, attributes, self._now_ms())
        if not decision.allowed:
            raise Denied(decision.reason)

    def allows(
        self,
        resource: Resource,
        permission: P | None = None,
        attributes: Attributes = NO_ATTRIBUTES,
    ) -> bool:
        """Whether the caller holds a permission (the route's, if none is named) on a resource."""
        self.asked = True
        self._touch_resource(resource)
        wanted = permission or self.permission
        return self.access.decide(wanted, resource, attributes, self._now_ms()).allowed

    def rights(
        self, resource: Resource, permission: P, attributes: Attributes = NO_ATTRIBUTES
    ) -> tuple[str, ...]:
        """All that the caller holds a permission on a resource by (`Access.rights`)."""
        self.asked = True
        return self.access.rights(permission, resource, attributes, self._now_ms())

    def reaches(self, workspace: str) -> bool:
        """Whether the caller may know of a workspace: the default one, or where it holds some."""
        self.asked = True
        return workspace == WORKSPACE_DEFAULT or self.access.reaches(workspace, self._now_ms())

    def check(self, needs: Iterable[Need]) -> bool:
        """Whether a command may go on to be decided on what the caller may see.

        False when one of its targets is hidden: the decision will not find it, and must not lead to
        an event. Raises Denied for what the caller knows of, but may not do.
        """
        self.asked = True
        now_ms, all_seen = self._now_ms(), True
        for need in needs:
            self._touch_resource(need.resource)
            permission = need.permission or self.permission
            decision = self.access.decide(permission, need.resource, need.attributes, now_ms)
            if decision.allowed:
                continue
            if not need.exists or self._knows(need.resource, now_ms):
                raise Denied(decision.reason)
            self.hid = True
            all_seen = False
        return all_seen

    def view(self, state: CurrentState) -> View:
        """The state as far as the caller may know of it; for commands, which `check` decides on."""
        self.asked = True
        return View(state, self)

    def reading(self, state: CurrentState) -> View:
        """The same for an answer: what is shown needs the route's permission."""
        self.asked = True
        return View(state, self, reading=True)

    def may_know(self, state: CurrentState, kind: str, found: State) -> bool:
        """Whether the caller may know of an aggregate."""
        resource = resource_of(state, kind, found)
        if resource is None:
            return True
        now_ms = self._now_ms()
        access = self.access
        # The route's permission first: whoever calls it mostly holds that one. Files of versions
        # are asked on their model too, but who may read files knows of no model by it.
        of_files = kind == registered_model.KIND and self.permission is P.ARTIFACT_READ
        if not of_files and access.decide(self.permission, resource, now_ms=now_ms).allowed:
            return True
        return access.decide(READS[kind], resource, NO_ATTRIBUTES, now_ms).allowed

    def may(self, state: CurrentState, kind: str, found: State) -> bool:
        """Whether the caller holds the route's permission on an aggregate."""
        if self.access.unlimited:
            return True
        resource = resource_of(state, kind, found)
        return resource is None or self.allows(resource)

    @property
    def reads_all(self) -> bool:
        """Whether nothing at all is hidden from the caller."""
        self.asked = True
        return not self.isolated and self.access.unlimited

    def knows(self, state: CurrentState, kind: str, aggregate_id: str) -> bool:
        """Whether there is such an aggregate, and the caller may know of it."""
        return View(state, self).get(kind, aggregate_id) is not None

    def may_read(self, state: CurrentState, kind: str, aggregate_id: str) -> bool:
        """Whether there is such an aggregate, and the caller may be answered about it."""
        found = state.get(kind, aggregate_id)
        return (
            found is not None
            and in_workspace(state, found, self.workspace)
            and self.may(state, kind, found)
        )

    def visible_experiments(self) -> Predicate:
        """Which rows of a table `t` with an experiment_id the caller may see: a condition."""
        self.asked = True
        columns = visibility.Columns(
            id="e.experiment_id", name="e.name", owner="e.created_by", workspace="e.workspace"
        )
        return self._within(("experiment",), columns, "t.experiment_id", "experiments AS e")

    def visible_models(self) -> Predicate:
        """Which rows of a table `t` with a model_id of a registered model the caller may see."""
        self.asked = True
        columns = visibility.Columns(
            id="m.model_id",
            name="m.name",
            owner="m.created_by",
            workspace="m.workspace",
            is_prompt=_IS_PROMPT,
        )
        return self._within(("model", "prompt"), columns, "t.model_id", "registered_models AS m")

    def _within(
        self,
        kinds: tuple[str, ...],
        columns: visibility.Columns,
        column: str,
        source: str,
    ) -> Predicate:
        if self.access.unlimited:
            allowed = TRUE
        else:
            now_ms = self._now_ms()
            held = visibility.visible(self.access, self.permission, kinds, columns, now_ms)
            allowed = Predicate(*held)
        if self.isolated:
            here = Predicate(f"{columns.workspace} = ?", (self.workspace,))
            allowed = all_of([here, allowed])
        if allowed == TRUE:
            return TRUE
        sql = f"{column} IN (SELECT {columns.id} FROM {source} WHERE {allowed.sql})"
        return Predicate(sql, allowed.parameters)

    def _knows(self, resource: Resource, now_ms: int) -> bool:
        return self.access.any(resource, now_ms)


class View:
    """Current state as one caller may see it: the `World` of its decisions and answers."""

    __slots__ = ("_authority", "_reading", "_state")

    def __init__(self, state: CurrentState, authority: Authority, reading: bool = False) -> None:
        self._state = state
        self._authority = authority
        self._reading = reading

    def get(self, kind: str, aggregate_id: str) -> State | None:
        """One aggregate; None also when the caller may not know of it.

        In an answer, raises Denied about what the caller may know of, but not in this way, and
        Quarantined about what cannot be followed now.
        """
        found = self._state.get(kind, aggregate_id)
        self._touch(kind, aggregate_id, "", found)
        return self._told(kind, self._shown_or_hidden(kind, found), aggregate_id)

    def named(self, kind: str, name: str) -> State | None:
        """The holder of a name, unless the caller may not know of it. Raises what `get` raises."""
        aggregate_id = self._state.names.get((kind, self._authority.workspace, name), "")
        taken = self.taken(kind, name)
        self._touch(kind, aggregate_id, name, taken)
        return self._told(kind, self._shown_or_hidden(kind, taken), aggregate_id)

    def taken(self, kind: str, name: str) -> State | None:
        """The holder of a name, whoever asks."""
        return self._state.named(kind, name, self._authority.workspace)

    def known(self, kind: str, aggregate_id: str) -> State | None:
        """One aggregate, whoever asks: for what has to be true, not for what is told."""
        return self._state.get(kind, aggregate_id)

    def of_kind(self, kind: str) -> Iterable[State]:
        """All catalog aggregates of one kind that the caller may know of."""
        found = self._state.of_kind(kind)
        return (state for state in found if self._shown(kind, state) is not None)

    def known_of_kind(self, kind: str) -> Iterable[State]:
        """All catalog aggregates of one kind, whoever asks and from wherever."""
        return self._state.of_kind(kind)

    def versions_of_files(self, owner: str) -> Iterable[tuple[str, int]]:
        """Versions whose files are in a thing's folder, whoever asks."""
        return self._state.versions_of_files(owner)

    def next_experiment_id(self) -> str:
        """The smallest number above all experiment ids in use."""
        return self._state.next_experiment_id()

    def _touch(self, kind: str, aggregate_id: str, name: str, found: State | None) -> None:
        if kind in READS:
            if not name and found is not None and kind in NAMED_KINDS:
                known: Any = found
                name = known.name
            self._authority.touch(kind, aggregate_id, name)

    def _shown_or_hidden(self, kind: str, found: State | None) -> State | None:
        shown = self._shown(kind, found)
        if shown is None and found is not None:
            self._authority.hid = True
        return shown

    def _shown(self, kind: str, found: State | None) -> State | None:
        authority = self._authority
        if found is None or kind not in READS:
            return found
        if authority.isolated and not in_workspace(self._state, found, authority.workspace):
            return None
        if authority.access.unlimited:
            return found
        if not authority.may_know(self._state, kind, found):
            return None
        return found

    def _told(self, kind: str, found: State | None, aggregate_id: str) -> State | None:
        if found is None or not self._reading or kind not in READS:
            return found
        if not self._authority.may(self._state, kind, found):
            raise Denied(f"this needs {self._authority.permission} on it")
        if (kind, aggregate_id) in self._state.quarantine:
            raise Quarantined(kind, aggregate_id)
        return found


def in_workspace(state: CurrentState, found: State, workspace: str) -> bool:
    """Whether an aggregate belongs to a workspace: itself, or by its experiment."""
    known: Any = found
    own = getattr(known, "workspace", None)
    if own is not None:
        return bool(own == workspace)
    experiment_id = getattr(known, "experiment_id", "")
    of_experiment: Any = state.get(experiment.KIND, experiment_id) if experiment_id else None
    return of_experiment is None or bool(of_experiment.workspace == workspace)


def resource_of(state: CurrentState, kind: str, found: State) -> Resource | None:
    """What permissions on an aggregate are asked on; None for one that belongs to nothing."""
    known: Any = found
    match kind:
        case experiment.KIND:
            return of_experiment(known)
        case registered_model.KIND:
            return of_model(known)
        case run.KIND | logged_model.KIND | trace.KIND:
            above: Any = state.get(experiment.KIND, known.experiment_id)
            return None if above is None else of_experiment(above)
    return None


def of_experiment(found: experiment.Experiment) -> Resource:
    """An experiment as a resource."""
    return Resource(
        kind="experiment",
        id=found.experiment_id,
        name=found.name,
        owner=found.created_by,
        workspace=found.workspace,
    )


def of_model(found: registered_model.RegisteredModel) -> Resource:
    """A registered model or prompt as a resource."""
    return Resource(
        kind="prompt" if is_prompt(found.tags) else "model",
        id=found.model_id,
        name=found.name,
        owner=found.created_by,
        workspace=found.workspace,
    )
