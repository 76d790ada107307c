"""What every report is made of: its question, its parameters, and the function that answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from muniment_projections.audit.reports.rows import Span, models_called
from muniment_schemas.envelope import WORKSPACE_DEFAULT
from muniment_schemas.promotion_events import ALIAS, STAGE
from muniment_services.domain.errors import Invalid, NotFound
from muniment_services.domain.limits import shown
from muniment_services.domain.registry_names import STAGES
from muniment_services.domain.review import Target
from muniment_services.reports.moment import Moment, moment_of, time_ms_of
from muniment_services.reports.report import Cell, Column, Draft, Names, Parameter, Place
from muniment_services.reports.sources import Sources

FROM = Parameter("from", "only what was recorded at this time or later", kind="time")
TO = Parameter("to", "only what was recorded before this time", kind="time")
AT = Parameter("at", "the moment that is asked about", kind="time", default="now")
MODEL = Parameter("model", "a registered model by its name, then or now", required=True)
MODELS = Parameter("model", "registered models by name; `*` stands for any characters", default="*")
VERSION = Parameter("version", "of this version only")
WORKSPACE = Parameter("workspace", "where the models are", default=WORKSPACE_DEFAULT)
TARGET = Parameter("target", "a stage, or an alias as @NAME", default="Production")
ANY_TARGET = Parameter("target", "only to this stage, or this alias as @NAME")

AT_COLUMN = Column("at", "time", "when it was recorded")
EVENT_COLUMN = Column("event", "event", "where the event is in the log")


@dataclass(frozen=True, slots=True)
class Asked:
    """Parameters of one question. people: for each that names principals, the ids of those."""

    values: Mapping[str, str]
    people: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def text(self, name: str) -> str:
        """A parameter as it was given, or its default; empty when it has none."""
        return self.values.get(name, "")

    def moment(self, sources: Sources, name: str = "at") -> Moment:
        """A moment. Raises Invalid, NotFound."""
        return moment_of(self.text(name), sources.now_ms, sources.recorded_at)

    def span(self) -> Span:
        """What `from` and `to` ask for. Raises Invalid."""
        least, below = (self.text(name) for name in ("from", "to"))
        return Span(time_ms_of(least) if least else None, time_ms_of(below) if below else None)

    def version(self) -> int | None:
        """The number of a version. Raises Invalid."""
        text = self.text("version")
        if not text:
            return None
        if not (text.isascii() and text.isdecimal() and len(text) < 10):
            raise Invalid(f"{shown(text)} is no number of a version.")
        return int(text)

    def target(self) -> Target | None:
        """A stage or an alias. Raises Invalid."""
        text = self.text("target")
        if not text:
            return None
        if text.startswith("@"):
            return Target(ALIAS, text[1:])
        if text not in STAGES:
            raise Invalid(
                f"{shown(text)} is no stage ({', '.join(STAGES)}), and no alias as @NAME."
            )
        return Target(STAGE, text)

    @property
    def of_all_models(self) -> bool:
        """Whether no model is named."""
        return self.text("model") == MODELS.default

    @property
    def called(self) -> str:
        """The models that are asked about, in a sentence."""
        return "any model" if self.of_all_models else self.text("model")

    def models(self, sources: Sources) -> dict[str, tuple[str, ...]]:
        """The models that are asked about, living or gone: id to all names that each had.

        Raises NotFound when no model ever had the name.
        """
        name, workspace = self.text("model"), self.text("workspace")
        found = models_called(sources.connection, name, workspace)
        if not found and not self.of_all_models:
            raise NotFound(
                f"No registered model was ever called {shown(name)} in the workspace {workspace}."
            )
        return found


@dataclass(frozen=True, slots=True)
class Question:
    """One report. text: what it answers, as a sentence. notes: what it does not see."""

    name: str
    text: str
    parameters: tuple[Parameter, ...]
    columns: tuple[Column, ...]
    answer: Callable[[Sources, Asked], Draft]
    one_of: tuple[str, ...] = ()
    """Of these parameters at least one is needed."""
    notes: str = ""


def listed(values: Iterable[object]) -> str:
    """Several values in one cell."""
    return ", ".join(str(value) for value in values)


def people(ids: Iterable[str], names: Names) -> str:
    """Principals in a sentence."""
    return ", ".join(sorted(names(one) for one in set(ids))) or "nobody"


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def places_of(rows: Iterable[tuple[Cell, ...]]) -> set[Place]:
    """The places that end each row, as cells."""
    found = set()
    for row in rows:
        topic, partition, offset = str(row[-1]).rsplit("/", 2)
        found.add(Place(topic, int(partition), int(offset)))
    return found
