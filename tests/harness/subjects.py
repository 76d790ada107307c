"""What clients race on: what they may ask of an object next, and what an answer says of it.

A subject proposes requests and reads answers into (object, call, reply) as the models of
`sequential` know them. What it remembers (numbers, ids) are hints for the next proposal, nothing
that a check relies on; any thread may call it.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from harness.histories import OK, Call, Model, Reply
from harness.sequential import (
    INVALID,
    Experiments,
    ModelView,
    Pairs,
    Param,
    Registry,
    Tag,
    VersionView,
)

Json = dict[str, Any]
Told = tuple[str, Call, Reply]
"""What an answer tells: of which object, by which call, and what."""

ALIASES = ("champion", "challenger")
KEYS = ("k1", "k2")
ACTIVE_STAGES = ("Staging", "Production")
STAGES = ("None", *ACTIVE_STAGES, "Archived")
SOURCE = "s3://bucket/model"
PARAM_RACERS = 14
"""Calls that race for one param before the next is begun."""

_FIRST_VALUE = re.compile(r"was already logged with value='([^']*)'")


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request of MLflow's API. writes: the object and the call, None for a read."""

    method: str
    path: str
    fields: Mapping[str, Any]
    writes: tuple[str, Call] | None
    read: Callable[[int, Json], Sequence[Told]]


class Subject(Protocol):
    """Something to race on."""

    asked: int

    def propose(self, chance: random.Random, text: str) -> Request:
        """The next request. text: a value that nobody else writes."""

    def models(self) -> Mapping[str, Model]:
        """The sequential model of each object that was touched."""


def refusal(answer: Json) -> Reply:
    """The reply of an answer that is not 200."""
    code = str(answer["error_code"])
    first = _FIRST_VALUE.search(str(answer.get("message", "")))
    return Reply(code, first.group(1) if first and code == INVALID.code else None)


def _one(
    subject: str, call: Call, value: Callable[[Json], Any]
) -> Callable[[int, Json], list[Told]]:
    def read(status: int, answer: Json) -> list[Told]:
        return [(subject, call, Reply(OK, value(answer)) if status == 200 else refusal(answer))]

    return read


def _nothing(_: Json) -> None:
    return None


def _pairs(answer: Json) -> Pairs:
    return frozenset((tag["key"], tag["value"]) for tag in answer.get("tags", ()))


def model_shown(answer: Json) -> ModelView:
    """The view of a registered model's JSON."""
    shown = answer["registered_model"]
    return ModelView(
        name=shown["name"],
        description=shown.get("description") or "",
        tags=_pairs(shown),
        aliases=frozenset((a["alias"], int(a["version"])) for a in shown.get("aliases", ())),
        latest=frozenset(
            (v["current_stage"], int(v["version"])) for v in shown.get("latest_versions", ())
        ),
    )


def version_shown(answer: Json) -> VersionView:
    """The view of a model version's JSON."""
    shown = answer["model_version"]
    return VersionView(
        number=int(shown["version"]),
        stage=shown["current_stage"],
        description=shown.get("description") or "",
        tags=_pairs(shown),
        aliases=frozenset(shown.get("aliases", ())),
    )


_MODEL = "registered-models"
_VERSION = "model-versions"
# name -> method, path, the fields of the arguments after the name, what the answer shows, weight
_Show = Callable[[Json], Any]
_REGISTRY: Final[Mapping[str, tuple[str, str, tuple[str, ...], _Show, int]]] = {
    "create_model": ("POST", f"{_MODEL}/create", (), model_shown, 8),
    "delete_model": ("DELETE", f"{_MODEL}/delete", (), _nothing, 1),
    "rename_model": ("POST", f"{_MODEL}/rename", ("new_name",), model_shown, 4),
    "get_model": ("GET", f"{_MODEL}/get", (), model_shown, 14),
    "describe_model": ("PATCH", f"{_MODEL}/update", ("description",), model_shown, 4),
    "set_model_tag": ("POST", f"{_MODEL}/set-tag", ("key", "value"), _nothing, 4),
    "delete_model_tag": ("DELETE", f"{_MODEL}/delete-tag", ("key",), _nothing, 2),
    "set_alias": ("POST", f"{_MODEL}/alias", ("alias", "version"), _nothing, 8),
    "delete_alias": ("DELETE", f"{_MODEL}/alias", ("alias",), _nothing, 3),
    "get_alias": ("GET", f"{_MODEL}/alias", ("alias",), version_shown, 8),
    "create_version": ("POST", f"{_VERSION}/create", (), version_shown, 10),
    "get_version": ("GET", f"{_VERSION}/get", ("version",), version_shown, 8),
    "transition": (
        "POST",
        f"{_VERSION}/transition-stage",
        ("version", "stage", "archive_existing_versions"),
        version_shown,
        10,
    ),
    "describe_version": (
        "PATCH",
        f"{_VERSION}/update",
        ("version", "description"),
        version_shown,
        4,
    ),
    "set_version_tag": ("POST", f"{_VERSION}/set-tag", ("version", "key", "value"), _nothing, 4),
    "delete_version_tag": ("DELETE", f"{_VERSION}/delete-tag", ("version", "key"), _nothing, 2),
    "delete_version": ("DELETE", f"{_VERSION}/delete", ("version",), _nothing, 2),
}
_NAMES = tuple(_REGISTRY)
_WEIGHTS = tuple(entry[-1] for entry in _REGISTRY.values())


@dataclass
class RegistrySubject:
    """Two names that registered models are created under, renamed between and deleted from."""

    name: str
    asked: int = 0
    highest: int = 1

    def propose(self, chance: random.Random, text: str) -> Request:
        """Any call of the registry."""
        self.asked += 1
        names = [f"{self.name}-a", f"{self.name}-b"]
        chance.shuffle(names)
        what = "create_model" if self.asked <= 8 else chance.choices(_NAMES, _WEIGHTS)[0]
        method, path, fields, show, _ = _REGISTRY[what]
        stage = chance.choice(STAGES)
        values = {
            "new_name": chance.choice((names[1], names[1], names[1], names[0])),
            "description": text,
            "key": chance.choice(KEYS),
            "value": text,
            "alias": chance.choice(ALIASES),
            "version": max(1, self.highest + 1 - int(chance.expovariate(0.5))),
            "stage": stage,
            "archive_existing_versions": stage in ACTIVE_STAGES and chance.random() < 0.6,
        }
        args = tuple(values[field] for field in fields)
        call = Call(what, (names[0], *args))
        body: Json = {"name": names[0], **{field: values[field] for field in fields}}
        if "version" in body:
            body["version"] = str(body["version"])
        if what == "create_version":
            body["source"] = SOURCE
        reading = _one(self.name, call, lambda answer: self._shown(show, answer))
        return Request(method, path, body, None if method == "GET" else (self.name, call), reading)

    def _shown(self, show: _Show, answer: Json) -> Any:
        view = show(answer)
        if isinstance(view, VersionView):
            self.highest = max(self.highest, view.number)
        return view

    def models(self) -> Mapping[str, Model]:
        """One object: both names, since a rename touches both."""
        return {self.name: Registry()}


@dataclass
class ExperimentSubject:
    """One name that experiments are created under and renamed away from."""

    name: str
    asked: int = 0
    ids: list[str] = field(default_factory=list)
    _numbers: Any = field(default_factory=itertools.count)

    def propose(self, chance: random.Random, _: str) -> Request:
        """Creations and reads of the name, changes of those that had it."""
        self.asked += 1
        ids = self.ids[-4:]
        known = chance.choice(ids) if ids else None
        turn = chance.random()
        if known is None or turn < 0.25:
            return self._create()
        if turn < 0.55:
            return self._get()
        if turn < 0.8:
            back = chance.random() < 0.3
            new_name = self.name if back else f"{self.name}-was-{next(self._numbers)}"
            return self._change("rename_experiment", "update", known, new_name)
        what = chance.choice(("delete", "restore", "restore"))
        return self._change(f"{what}_experiment", what, known)

    def _create(self) -> Request:
        call = Call("create_experiment", (self.name,))
        read = _one(self.name, call, lambda answer: self._met(str(answer["experiment_id"])))
        fields = {"name": self.name}
        return Request("POST", "experiments/create", fields, (self.name, call), read)

    def _get(self) -> Request:
        call = Call("get_by_name", (self.name,))

        def shown(answer: Json) -> tuple[str, str]:
            found = answer["experiment"]
            assert found["name"] == self.name, "another experiment than was asked for"
            return self._met(str(found["experiment_id"])), str(found["lifecycle_stage"])

        read = _one(self.name, call, shown)
        fields = {"experiment_name": self.name}
        return Request("GET", "experiments/get-by-name", fields, None, read)

    def _change(self, what: str, path: str, known: str, *new_name: str) -> Request:
        call = Call(what, (known, *new_name))
        fields = {"experiment_id": known, **({"new_name": new_name[0]} if new_name else {})}
        read = _one(self.name, call, _nothing)
        return Request("POST", f"experiments/{path}", fields, (self.name, call), read)

    def _met(self, experiment_id: str) -> str:
        if experiment_id not in self.ids:
            self.ids.append(experiment_id)
        return experiment_id

    def models(self) -> Mapping[str, Model]:
        """One object: the name with all that had it."""
        return {self.name: Experiments()}


@dataclass
class RunSubject:
    """A run whose params are raced for, one after the other, and whose tags are set and removed."""

    run_id: str
    asked: int = 0

    def propose(self, chance: random.Random, text: str) -> Request:
        """A param's value, a tag, or a read of the run."""
        self.asked += 1
        turn = chance.random()
        key = f"p{self.asked // PARAM_RACERS}"
        if turn < 0.4:
            value = chance.choice((text, "same"))
            return self._write("param", key, "log_param", "runs/log-parameter", value)
        tag = chance.choice(KEYS)
        if turn < 0.6:
            return self._write("tag", tag, "set_tag", "runs/set-tag", text)
        if turn < 0.7:
            return self._write("tag", tag, "delete_tag", "runs/delete-tag")
        return self._get(key)

    def _write(self, kind: str, key: str, name: str, path: str, *value: str) -> Request:
        subject, call = self._object(kind, key), Call(name, value)
        fields = {"run_id": self.run_id, "key": key, **({"value": value[0]} if value else {})}
        return Request("POST", path, fields, (subject, call), _one(subject, call, _nothing))

    def _get(self, param: str) -> Request:
        def read(status: int, answer: Json) -> list[Told]:
            assert status == 200, f"the run is gone: {answer}"
            data = answer["run"]["data"]
            params = {pair["key"]: pair["value"] for pair in data.get("params", ())}
            tags = {pair["key"]: pair["value"] for pair in data.get("tags", ())}
            told = [
                (self._object("tag", key), Call("get_tag", ()), Reply(OK, tags.get(key)))
                for key in KEYS
            ]
            value = Reply(OK, params.get(param))
            return [(self._object("param", param), Call("get_param", ()), value), *told]

        return Request("GET", "runs/get", {"run_id": self.run_id}, None, read)

    def _object(self, kind: str, key: str) -> str:
        return f"run {self.run_id} {kind} {key}"

    def models(self) -> Mapping[str, Model]:
        """Each param and each tag is an object of its own."""
        params = {
            self._object("param", f"p{number}"): Param()
            for number in range(self.asked // PARAM_RACERS + 1)
        }
        return {**params, **{self._object("tag", key): Tag() for key in KEYS}}
