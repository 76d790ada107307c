"""Every event becomes one row, made of the event and of the states around it."""

from __future__ import annotations

import json
from typing import Any

import duckdb
import pytest

from muniment_projections.audit import tables
from muniment_projections.audit.actions import ACTIONS, of_call
from muniment_projections.audit.apply import AuditProjection
from muniment_projections.audit.changes import CHANGE_BYTES_MAX, changed
from muniment_projections.base import Folded
from muniment_schemas import events as e
from muniment_schemas.envelope import ACCESS, CATALOG, RUNS, Actor, Envelope
from muniment_services.domain import experiment
from muniment_services.domain.experiment import Experiment

ANA = Actor(principal_id="ana", auth_method="bearer", client_id="cli", delegation=("bot",))


def envelope(kind: type[e.Event], aggregate_id: str = "1") -> Envelope:
    return Envelope(
        event_id=f"{kind.__name__}-{aggregate_id}",
        type=kind.__name__,
        aggregate_kind=kind.AGGREGATE,
        aggregate_id=aggregate_id,
        actor=ANA,
        request_id="req",
        recorded_at_ms=1_700_000_000_000,
    )


def rows(*batch: Folded) -> list[dict[str, Any]]:
    connection = duckdb.connect()
    projection = AuditProjection()
    projection.create(connection)
    projection.apply(connection, batch)
    found = connection.execute('FROM audit_events ORDER BY topic, "offset"')
    names = [column[0] for column in found.description or ()]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def created(name: str = "churn", tags: dict[str, str] | None = None) -> Experiment:
    event = e.ExperimentCreated(
        envelope=envelope(e.ExperimentCreated), name=name, artifact_location="x", tags=tags or {}
    )
    return experiment.evolve(None, event)


def test_a_change_of_the_catalog_shows_what_was_and_what_is() -> None:
    before = created(tags={"team": "a", "kept": "k"})
    event = e.ExperimentTagSet(envelope=envelope(e.ExperimentTagSet), key="team", value="b")
    after = experiment.evolve(before, event)
    (row,) = rows(Folded(CATALOG, 0, 7, event, None, after, before=before))
    assert (row["type"], row["action"], row["outcome"]) == (
        "ExperimentTagSet",
        "experiment.tag",
        "success",
    )
    assert (row["actor"], row["client_id"], row["delegation"]) == ("ana", "cli", ["bot"])
    assert (row["resource_kind"], row["resource_id"]) == ("experiment", "1")
    assert row["resource_name"] == "churn"
    assert json.loads(row["before"]) == {"tags": {"team": "a"}}
    assert json.loads(row["after"]) == {"tags": {"team": "b"}}


def test_what_is_made_has_no_before() -> None:
    event = e.ExperimentCreated(
        envelope=envelope(e.ExperimentCreated), name="churn", artifact_location="x", tags={}
    )
    (row,) = rows(Folded(CATALOG, 0, 0, event, None, created()))
    assert row["before"] is None
    assert json.loads(row["after"])["name"] == "churn"


def test_a_void_event_has_a_row_that_says_so_and_changed_nothing() -> None:
    state = created()
    event = e.ExperimentTagSet(envelope=envelope(e.ExperimentTagSet), key="team", value="b")
    (row,) = rows(Folded(CATALOG, 0, 7, event, "too late", state, before=state))
    assert (row["outcome"], row["reason"]) == ("void", "too late")
    assert (row["before"], row["after"]) == (None, None)


def test_a_call_is_shown_with_all_that_it_touched() -> None:
    call = e.ApiCalled(
        envelope=envelope(e.ApiCalled, "ana"),
        method="GET",
        route="/api/2.0/mlflow/model-versions/get",
        permission="model:read",
        resources=(
            e.TouchedResource(kind="registered_model", id="m1", name="fraud", version=3),
            e.TouchedResource(kind="artifact", id="1/a/b"),
        ),
        resources_total=2,
        outcome="denied",
        reason="no",
        error_code="PERMISSION_DENIED",
        status=403,
        duration_us=12,
        bytes_in=1,
        bytes_out=2,
        level="metadata",
    )
    (row,) = rows(Folded(ACCESS, 2, 5, call, None, None))
    assert (row["topic"], row["partition"], row["offset"]) == (ACCESS, 2, 5)
    assert (row["action"], row["outcome"], row["reason"]) == ("model.read", "denied", "no")
    assert (row["resource_kind"], row["resource_id"]) == ("registered_model", "m1")
    assert (row["resource_name"], row["resource_version"]) == ("fraud", 3)
    assert row["touched"] == [
        "registered_model/m1",
        "registered_model/m1/3",
        "registered_model/fraud",
        "registered_model/fraud/3",
        "artifact/1/a/b",
    ]
    assert (row["status"], row["duration_us"], row["bytes_out"]) == (403, 12, 2)


def test_one_batch_may_hold_all_kinds_of_events() -> None:
    run = e.RunDeleted(envelope=envelope(e.RunDeleted, "r1"))
    gap = e.TrailGap(
        envelope=envelope(e.TrailGap), lost=3, first_at_ms=1, last_at_ms=2, reason="disk full"
    )
    upload = e.ArtifactUploaded(
        envelope=envelope(e.ArtifactUploaded), owner="r1", path="1/r1/x", size_bytes=1, sha256=b""
    )
    found = rows(
        Folded(RUNS, 0, 0, run, None, None),
        Folded(ACCESS, 0, 0, gap, None, None),
        Folded(RUNS, 1, 1, upload, None, None),
    )
    assert [row["action"] for row in found] == ["trail.gap", "run.delete", "artifact.upload"]
    assert found[0]["reason"] == "disk full"
    assert found[2]["resource_id"] == "1/r1/x"


def test_every_event_type_has_an_action() -> None:
    assert set(ACTIONS) == set(e.EVENT_TYPES) - {e.ApiCalled}


@pytest.mark.parametrize(
    ("route", "permission", "action"),
    [
        ("/api/2.0/mlflow/runs/search", "run:read", "run.read"),
        ("/login/callback", "public:read", "session.login"),
        ("/api/v1/audit/export", "audit:read", "audit.export"),
        (None, None, "call.unknown"),
    ],
)
def test_a_call_is_named_by_its_permission(
    route: str | None, permission: str | None, action: str
) -> None:
    assert of_call(route, permission) == action


def test_bytes_are_not_shown_and_large_changes_are_cut_openly() -> None:
    sealed = e.PrincipalRegistered(
        envelope=envelope(e.PrincipalRegistered),
        principal_kind="user",
        key_id="k",
        identity_sealed=b"secret",
    )
    _, after = changed(None, sealed)
    assert after is not None
    assert json.loads(after)["identity_sealed"] == "6 bytes"
    _, after = changed(None, created(tags={"t": "x" * CHANGE_BYTES_MAX}))
    assert after is not None
    assert json.loads(after)["truncated"] is True


def test_the_columns_of_the_statements_are_those_of_the_table() -> None:
    connection = duckdb.connect()
    connection.execute(tables.CREATE)
    found = [row[0] for row in connection.execute("DESCRIBE audit_events").fetchall()]
    assert sorted(found) == sorted(tables.OF_ANY + tables.OF_CHANGES + tables.OF_CALLS)
