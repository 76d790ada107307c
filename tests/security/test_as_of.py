"""The past of a scripted year: models, access and runs at a moment, and what changed in between.

At every event of the log, what is told as of it is the state that the fold had behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from harness.year import CATALOG, Year, ms, scripted_year
from muniment_projections.registry.then import model_at, models_at
from muniment_schemas.ids import Offset
from muniment_services.domain.access import state_of
from muniment_services.domain.registered_model import RegisteredModel, aliases_of
from muniment_services.log.base import partition_of
from muniment_services.reports import past
from muniment_services.reports.moment import Moment, moment_of
from muniment_services.reports.report import Place
from muniment_services.reports.run import answered
from muniment_services.reports.sources import Sources
from muniment_services.state import CurrentState
from muniment_services.unreadable import event_of

MODELS = "/api/v1/models"
ACCESS = "/api/v1/access/state"
DIFF = "/api/v1/audit/diff"


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Year]:
    with scripted_year(tmp_path_factory.mktemp("data")) as played:
        yield played


def ask(year: Year, path: str, who: str = "eva", **parameters: str) -> dict[str, Any]:
    answer = year.server.ask(who, "GET", path, params=parameters)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def stages(found: dict[str, Any]) -> dict[str, str]:
    return {one["version"]: one["stage"] for one in found["versions"]}


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("first version", {"1": "None"}),
        ("2025-02-01", {"1": "Production"}),
        ("second approved once", {"1": "Production", "2": "None"}),
        ("second in production", {"1": "Archived", "2": "Production"}),
        ("2025-12-31T00:00:00Z", {"2": "Archived", "3": "Production"}),
    ],
)
def test_a_model_at_a_moment(year: Year, at: str, expected: dict[str, str]) -> None:
    found = ask(year, f"{MODELS}/fraud/state", as_of=year.places.get(at, at))
    assert stages(found) == expected
    if at in year.places:
        assert found["as_of_place"] == year.places[at]
        same = ask(year, f"{MODELS}/fraud/state", as_of_ms=str(year.times[at]))
        assert stages(same) == expected


def test_the_models_that_there_were(year: Year) -> None:
    def named(**parameters: str) -> list[str]:
        return [one["name"] for one in ask(year, MODELS, **parameters)["models"]]

    assert named(as_of="2025-01-05") == []
    assert named(as_of="2025-02-01") == ["fraud"]
    assert named(as_of="2025-06-01") == ["churn", "fraud"]
    assert named(as_of="2025-10-12") == ["fraud"]
    assert named() == ["churn", "fraud"]
    page = ask(year, MODELS, as_of="2025-06-01", max_results="1")
    assert [one["name"] for one in page["models"]] == ["churn"]
    rest = ask(year, MODELS, as_of="2025-06-01", page_token=page["next_page_token"])
    assert [one["name"] for one in rest["models"]] == ["fraud"]
    assert "next_page_token" not in rest


def test_who_may_not_read_a_model_is_not_told_that_there_was_one(year: Year) -> None:
    seen = ask(year, MODELS, who="bob", as_of="2025-06-01")["models"]
    assert [one["name"] for one in seen] == []  # What bob could read was taken back in July.
    assert [one["name"] for one in ask(year, MODELS, who="ana", as_of="2025-06-01")["models"]] == [
        "fraud"
    ]
    hidden = year.server.ask("bob", "GET", f"{MODELS}/fraud/state", params={"as_of": "2025-06-01"})
    missing = year.server.ask("bob", "GET", f"{MODELS}/none/state", params={"as_of": "2025-06-01"})
    assert hidden.status_code == missing.status_code == 404
    assert hidden.json()["message"].replace("fraud", "none") == missing.json()["message"]


def test_access_at_a_moment(year: Year) -> None:
    bob = year.facts["bob approves"]

    def grants(**parameters: str) -> dict[str, Any]:
        return {one["grant_id"]: one for one in ask(year, ACCESS, **parameters)["grants"]}

    before, after = grants(as_of="2025-07-09"), grants(as_of="2025-07-11")
    assert before.keys() - after.keys() == {bob}
    assert before[bob]["granted_by"] == year.id("admin")
    assert before[bob]["event"].startswith("catalog/0/")
    of_gil = grants(as_of="2025-12-01", principal=year.id("gil"))
    assert [one["expired"] for one in of_gil.values()] == [True]
    assert grants(as_of="2025-01-01T12:00:00Z") == {}
    assert year.server.ask("bob", "GET", ACCESS).status_code == 403


def test_a_run_at_a_moment(year: Year) -> None:
    run_id = year.runs["first"]
    path = f"/api/v1/runs/{run_id}/state"
    now = ask(year, path, who="ana")
    assert now["run"]["data"]["metrics"][0]["value"] == 0.9
    topic, partition, last = now["event"].split("/")
    first = int(last) - 2  # Created, then the dataset, then the metric; files are others' events.
    early = ask(year, path, as_of=f"{topic}/{partition}/{first}")
    assert "metrics" not in early["run"]["data"]
    assert early["run"]["info"]["run_id"] == run_id
    too_early = year.server.ask("ana", "GET", path, params={"as_of": "2025-01-09"})
    assert too_early.status_code == 404
    assert year.server.ask("dan", "GET", path).status_code == 404
    by_place = year.server.ask("ana", "GET", path, params={"as_of": "runs/0/0"})
    assert (by_place.status_code, "ask by time" in by_place.json()["message"]) == (403, True)


def changes(year: Year, **parameters: str) -> list[tuple[Any, ...]]:
    found = ask(year, DIFF, **parameters)
    assert not found["truncated"]
    names = ("what", "of", "version", "before", "after", "event")
    return [tuple(one.get(name) for name in names) for one in found["changes"]]


def test_what_changed_between_two_times(year: Year) -> None:
    second = year.places["second in production"]
    assert changes(year, **{"from": "2025-03-11", "to": "2025-03-31"}) == [
        ("stage", "fraud", 1, "Production", "Archived", second),
        ("stage", "fraud", 2, "None", "Production", second),
    ]
    assert [one[:5] for one in changes(year, **{"from": "2025-07-05", "to": "2025-08-02"})] == [
        ("alias", "fraud", None, None, "@champion -> 3"),
        (
            "grant",
            year.facts["bob approves"],
            None,
            f"approver to principal:{year.id('bob')} on model:fraud*",
            None,
        ),
    ]


def test_what_is_as_it_was_is_no_change(year: Year) -> None:
    autumn = {"from": "2025-09-02", "to": "now", "model": "churn"}
    told = changes(year, **autumn)
    # The model of that name is another one now: the old one went, and a new one came.
    assert [(one[0], one[3], one[4]) for one in told if one[0] == "model"] == [
        ("model", "churn", None),
        ("model", None, "churn"),
    ]
    assert changes(year, **{"from": "2025-11-01", "to": "2025-12-01"}) == []
    place = year.places["champion"]
    assert changes(year, **{"from": place, "to": place}) == []
    backwards = year.server.ask(
        "eva", "GET", DIFF, params={"from": "2025-05-01", "to": "2025-04-01"}
    )
    assert backwards.status_code == 400


@pytest.mark.parametrize("as_of", ["2025-13-01", "catalog/0/x", "-5", "", "catalog/0/999999"])
def test_what_is_no_moment_is_refused(year: Year, as_of: str) -> None:
    answer = year.server.ask("eva", "GET", f"{MODELS}/fraud/state", params={"as_of": as_of})
    assert answer.status_code == (404 if as_of.endswith("999999") else 400), answer.text


def replayed(year: Year, topic: str) -> Iterator[tuple[Place, CurrentState]]:
    """The fold of all topics, after each record of one; the others come first, as they stand."""
    services = year.services
    state = CurrentState()
    ends = year.server.loop.run_until_complete(services.fold.log.end_offsets())
    for at in sorted(ends, key=lambda at: (at.topic == topic, at)):
        for record in services.fold.log.read(at, Offset(0)) if ends[at] else ():
            if at.topic in ("catalog", "runs"):
                state.fold(record, event_of(services.codec, record))
                if at.topic == topic:
                    yield Place(at.topic, at.partition, record.offset), state


def test_the_registry_and_access_as_of_every_event_are_what_the_fold_had(year: Year) -> None:
    expected = [
        (place, state_of(state), {m.name: m for m in state.of_kind("registered_model")})  # type: ignore[attr-defined]
        for place, state in replayed(year, CATALOG.topic)
    ]

    def check(sources: Sources) -> int:
        for place, access, models in expected:
            moment = moment_of(str(place), 0, sources.recorded_at)
            assert past.access_at(sources, moment).state == access
            named = models_at(sources.connection, moment.when, "default", "", 100)
            assert [name for _, name in named] == sorted(models)
            for name, model in models.items():
                found = model_at(sources.connection, name, moment.when)
                assert isinstance(model, RegisteredModel)
                assert found is not None
                assert [(v.version, v.stage, list(v.aliases)) for v in found.versions] == [
                    (v.version, v.stage, aliases_of(model, v.version))
                    for _, v in sorted(model.versions.items())
                ]
        return len(expected)

    assert year.server.loop.run_until_complete(answered(year.services, "check", check)) > 190


def test_runs_as_of_every_event_are_what_the_fold_had(year: Year) -> None:
    expected = [
        (place, {run_id: state.get("run", run_id) for run_id in year.runs.values()})
        for place, state in replayed(year, "runs")
    ]

    partitions = year.services.fold.log.partitions["runs"]

    def check(sources: Sources) -> int:
        checked = 0
        for place, runs in expected:
            moment = Moment(ms("2026-01-01"), place)
            for run_id, run in runs.items():
                if partition_of(run_id.encode(), partitions) != place.partition:
                    continue  # A place says nothing about other partitions but their time.
                found = past.run_at(sources, run_id, moment)
                assert (None if found is None else found.run) == run
                checked += found is not None
        return checked

    assert year.server.loop.run_until_complete(answered(year.services, "check", check)) > 9
