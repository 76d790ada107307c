"""The auditor's questions about a year that a script played, checked against what it did."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

import pytest

from harness.signed_in import MLFLOW
from harness.year import COMMIT_ONE, DATASET, Year, ms, scripted_year
from muniment_schemas import events as e
from muniment_schemas.envelope import Actor
from muniment_services.log.base import NewRecord, TopicPartition
from muniment_services.reports.question import Question
from muniment_services.reports.report import ReportTooSlow
from muniment_services.reports.run import QUESTIONS, run_report
from muniment_services.write import record_of

REPORTS = "/api/v1/audit/reports"


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Year]:
    with scripted_year(tmp_path_factory.mktemp("data")) as played:
        yield played


def ask(year: Year, name: str, **parameters: str) -> dict[str, Any]:
    """A report, whose rows rest on events that it names."""
    answer = year.server.ask("eva", "GET", f"{REPORTS}/{name}", params=parameters)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    assert found["question"] == QUESTIONS[name].text
    assert {"event" in row for row in found["rows"]} <= {True} or name == "completeness"
    assert {row["event"] for row in found["rows"] if "event" in row} <= set(found["evidence"])
    assert not found["truncated"]
    return found


def some(found: dict[str, Any], *columns: str) -> list[tuple[Any, ...]]:
    """Some columns of the rows."""
    return [tuple(row.get(column) for column in columns) for row in found["rows"]]


def test_promotions_tell_who_when_on_what_and_approved_by_whom(year: Year) -> None:
    found = ask(year, "promotions", model="fraud")
    ana, bob, cid, gil = (year.id(who) for who in ("ana", "bob", "cid", "gil"))
    assert some(found, "version", "target", "how", "moved_by", "requester", "approvers") == [
        (1, "Production", "direct", bob, None, None),
        (2, "Production", "approved", cid, ana, f"{bob}, {cid}"),
        (3, "Production", "approved", ana, ana, ana),
        (3, "@champion", "approved", gil, ana, gil),
    ]
    second = found["rows"][1]
    assert second["at"].startswith("2025-03-14T")
    assert second["requested_at"].startswith("2025-03-12T")
    assert (second["policies"], second["conditions"]) == ("fraud", "metrics.auc > 0.8")
    assert (second["metrics"], second["datasets"]) == ("auc=0.9", f"{DATASET}@d2")
    assert (second["run"], second["comment"]) == (year.runs["second"], "ok")
    assert second["event"] == year.places["second in production"]
    asked_for, once = year.places["second asked for"], year.places["second approved once"]
    assert {asked_for, once} <= set(found["evidence"])
    assert "asked for by ana and approved by gil" in found["verdict"]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"version": "2"}, [2]),
        ({"target": "@champion"}, [3]),
        ({"target": "Archived"}, []),
        ({"from": "2025-03-01", "to": "2025-04-05"}, [2]),
        ({"to": "2025-02-01T00:00:00Z"}, [1]),
    ],
)
def test_promotions_are_narrowed(
    year: Year, parameters: dict[str, str], expected: list[int]
) -> None:
    found = ask(year, "promotions", model="fraud", **parameters)
    assert [row["version"] for row in found["rows"]] == expected


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("2025-01-12", set()),
        ("2025-02-01", {("fraud", 1)}),
        ("2025-03-14", {("fraud", 1)}),
        ("2025-03-15", {("fraud", 2)}),
        ("2025-06-01T12:00:00+02:00", {("fraud", 3), ("churn", 1)}),
        (str(ms("2025-06-01")), {("fraud", 3), ("churn", 1)}),
        ("first in production", {("fraud", 1)}),
        ("second approved once", {("fraud", 1)}),
        ("second in production", {("fraud", 2)}),
        ("now", {("fraud", 3)}),
    ],
)
def test_production_at_a_moment(year: Year, at: str, expected: set[tuple[str, int]]) -> None:
    found = ask(year, "production-at", at=year.places.get(at, at))
    assert set(some(found, "model", "version")) == expected
    assert len(found["rows"]) == len(expected)


def test_an_alias_at_a_moment(year: Year) -> None:
    before = ask(year, "production-at", target="@champion", at="2025-07-31")
    after = ask(year, "production-at", target="@champion", model="fraud")
    assert before["rows"] == []
    assert some(after, "version", "moved_by", "event") == [
        (3, year.id("gil"), year.places["champion"])
    ]


def test_readers_are_those_who_read_the_model_and_its_files(year: Year) -> None:
    found = ask(year, "readers", model="fraud", to="2025-03-01")
    dan = year.id("dan")
    assert some(found, "actor", "action", "version") == [
        (dan, "model.read", 1),
        (dan, "artifact.read", None),
    ]
    assert found["rows"][1]["resource"].endswith("/artifacts/model/MLmodel")
    assert found["names"] == {dan: "erased"}
    assert "read fraud 2 times, 1 of them its files" in found["verdict"]
    assert ask(year, "readers", model="churn")["verdict"].startswith("Nobody")
    second = ask(year, "readers", model="fraud", version="2")
    assert {row.get("version") for row in second["rows"]} == {None}


def test_refusals_by_person_and_by_thing(year: Year) -> None:
    dan = year.id("dan")
    assert some(ask(year, "refusals", principal="mallory"), "action", "resource", "status") == [
        ("model.read", "registered_model/fraud", 404)
    ]
    of_dan = ask(year, "refusals", principal=dan)
    assert some(of_dan, "action", "status") == [("model.promote", 403), ("model.delete", 403)]
    assert [row["at"][:10] for row in of_dan["rows"]] == ["2025-02-01", "2025-06-02"]
    on = ask(year, "refusals", resource="models/fraud/2")
    assert some(on, "actor", "action") == [(year.id("bob"), "model.promote")]
    assert "2 approvals" in on["rows"][0]["reason"]


def test_nobody_is_silently_nobody(year: Year) -> None:
    answer = year.server.ask("eva", "GET", f"{REPORTS}/refusals", params={"principal": "dan"})
    assert (answer.status_code, "erased" in answer.json()["message"]) == (404, True)


def test_a_credential_with_its_life(year: Year) -> None:
    found = ask(year, "credential", credential=year.facts["token"])
    assert some(found, "action", "outcome") == [("model.read", "allowed")] * 3 + [
        ("model.delete", "denied")
    ]
    assert "did 4 things, 1 of them refused" in found["verdict"]
    made, revoked = found["findings"]
    assert "made by erased at 2025-06-01T" in made
    assert "revoked by erased at 2025-06-20T" in revoked
    assert len(found["evidence"]) == 6
    of_person = ask(year, "credential", principal="fay")
    assert {row["actor"] for row in of_person["rows"]} == {year.id("fay")}
    assert {"model.create", "model.transition", "model.delete"} <= {
        row["action"] for row in of_person["rows"]
    }


def test_coincidences_are_found_and_others_are_not(year: Year) -> None:
    found = ask(year, "coincidences")
    ana, third = year.id("ana"), year.places["third in production"]
    by_approver = [row for row in found["rows"] if row["role"] == "approver"]
    assert {(row["version"], row["who"], row["event"]) for row in by_approver} == {(3, ana, third)}
    assert {row["also_role"] for row in by_approver} == {
        "requester", "author of the version", "author of its run",
    }  # fmt: skip
    assert "1 of 3 approved moves had an approver" in found["verdict"]
    nothing = ask(year, "coincidences", model="churn")
    assert nothing["rows"] == []


def test_what_stood_in_production_without_the_approval_it_needs(year: Year) -> None:
    found = ask(year, "unapproved")
    assert some(found, "model", "version", "given", "needed", "moved_by", "event") == [
        ("fraud", 1, 0, 2, year.id("bob"), year.places["first in production"])
    ]
    assert found["rows"][0]["asked_since"].startswith("2025-03-01T")
    assert year.places["policy"] in found["evidence"]
    assert found["findings"] == [
        "1 more got there without an approval while no policy asked for one."
    ]
    at = [ask(year, "unapproved", at=day)["rows"] for day in ("2025-02-15", "2025-03-05", "now")]
    assert [len(rows) for rows in at] == [0, 1, 0]


@pytest.mark.parametrize(
    ("target", "at", "expected"),
    [
        ("Production", "2025-02-01", {"bob", "cid"}),
        ("Production", "2025-05-01", {"bob", "cid", "ana"}),
        ("Production", "2025-07-05", {"bob", "cid", "ana", "gil"}),
        ("Production", "2025-07-15", {"cid", "ana", "gil"}),
        ("Production", "now", {"cid", "ana"}),
        ("@champion", "2025-07-05", {"bob", "ana", "gil"}),
    ],
)
def test_promoters_at_a_moment(year: Year, target: str, at: str, expected: set[str]) -> None:
    found = ask(year, "promoters-at", model="fraud", target=target, at=at)
    granted = [row for row in found["rows"] if row["holder"] != "owner"]
    admin = year.id("admin")
    assert {row["principal"] for row in granted} == {year.id(who) for who in expected}
    assert {row["granted_by"] for row in granted} == {admin}
    (owner,) = [row for row in found["rows"] if row["holder"] == "owner"]
    assert owner["principal"] == year.id("ana")
    under_policy = [text for text in found["findings"] if text.startswith("The policy fraud")]
    assert len(under_policy) == (at != "2025-02-01")


def test_uses_of_a_dataset_and_of_a_commit(year: Year) -> None:
    found = ask(year, "uses", dataset=DATASET)
    runs = [row["id"] for row in found["rows"] if row["what"] == "run"]
    assert runs == [year.runs[name] for name in ("first", "second", "third")]
    versions = [row["version"] for row in found["rows"] if row["what"] == "version"]
    assert versions == [1, 2, 3]
    moved = [(row["version"], row["target"]) for row in found["rows"] if row["what"] == "move"]
    assert moved == [
        (1, "Production"), (2, "Production"), (3, "Production"), (3, "@champion"),
    ]  # fmt: skip
    one = ask(year, "uses", dataset=DATASET, digest="d1")
    of_commit = ask(year, "uses", commit=COMMIT_ONE[:6])
    for told in (one, of_commit):
        assert [row["version"] for row in told["rows"] if row["what"] == "version"] == [1]
    assert ask(year, "uses", commit="nothing")["rows"] == []


def test_the_trail_is_complete_up_to_the_end_offsets(year: Year) -> None:
    found = ask(year, "completeness")
    assert "is complete" in found["verdict"], found
    services = year.services
    ends = year.server.loop.run_until_complete(services.fold.log.end_offsets())
    rows = {row["log"]: row for row in found["rows"]}
    catalog = rows["catalog/0"]
    assert catalog["end"] == catalog["covered"] == found["as_of"]["catalog/0"]
    assert {str(at) for at in ends} == set(rows)
    assert sum(row.get("missing", 0) for row in found["rows"]) == 0


def test_what_is_missing_from_the_trail_is_told(year: Year) -> None:
    store = year.services.runner.store
    where = "topic = 'catalog' AND \"offset\" = 7"

    def change(sql: str) -> None:
        store.read(lambda connection: connection.execute(sql))

    change(f"CREATE TABLE set_aside AS SELECT * FROM audit_events WHERE {where}")
    change(f"DELETE FROM audit_events WHERE {where}")
    try:
        found = ask(year, "completeness")
        assert found["verdict"].startswith("The trail is not complete: 1 are not in its table")
        assert {row["log"] for row in found["rows"] if row.get("missing")} == {"catalog/0"}
    finally:
        change("INSERT INTO audit_events SELECT * FROM set_aside")
        change("DROP TABLE set_aside")
    assert "is complete" in ask(year, "completeness")["verdict"]


def test_a_report_is_as_csv_with_names(year: Year) -> None:
    query = {"model": "fraud", "format": "csv"}
    answer = year.server.ask("eva", "GET", f"{REPORTS}/promotions", params=query)
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.headers["muniment-verdict"].startswith("4 moves")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["approvers_name"] for row in rows] == ["", "bob, cid", "ana", "gil"]
    assert [row["target"] for row in rows][-1] == "'@champion"


def test_a_name_puts_nothing_into_the_answers_head(year: Year) -> None:
    name = "fräud\r\nset-cookie"
    made = year.server.ask("fay", "POST", f"{MLFLOW}registered-models/create", {"name": name})
    assert made.status_code == 200, made.text
    query = {"model": name, "format": "csv"}
    answer = year.server.ask("eva", "GET", f"{REPORTS}/promotions", params=query)
    assert (answer.status_code, "set-cookie" in answer.headers) == (200, False)
    assert "fr?ud??set" in answer.headers["muniment-verdict"]


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("nothing", 404, "there are promotions"),
        ("promotions", 400, "needs model"),
        ("promotions?model=none", 404, "was ever called"),
        ("promotions?model=fraud&color=red", 400, "has no parameter 'color'"),
        ("promotions?model=fraud&version=x", 400, "no number of a version"),
        ("promotions?model=fraud&target=Prod", 400, "is no stage"),
        ("promotions?model=fraud&from=yesterday", 400, "is no time"),
        ("production-at?at=catalog/0/999999", 404, "has no event"),
        ("credential", 400, "needs one of credential, client, principal"),
        ("promotions?model=fraud&format=xml", 400, "format is one of"),
    ],
)
def test_wrong_questions_are_told_what_to_do(
    year: Year, path: str, status: int, words: str
) -> None:
    answer = year.server.ask("eva", "GET", f"{REPORTS}/{path}")
    assert (answer.status_code, words in answer.json()["message"]) == (status, True), answer.text


def test_reports_are_for_auditors_and_in_the_trail_themselves(year: Year) -> None:
    for path in ("", "/promotions?model=fraud"):
        assert year.server.ask("dan", "GET", REPORTS + path).status_code == 403
    year.server.ask("eva", "GET", f"{REPORTS}/refusals", params={"principal": "mallory"})
    asked = ask(year, "credential", principal="eva")["rows"]
    assert {row["action"] for row in asked} == {"audit.read"}
    listed = year.server.ask("eva", "GET", REPORTS).json()["reports"]
    assert {one["name"] for one in listed} == set(QUESTIONS)


def test_rows_beyond_the_limit_are_said_to_be_missing(
    year: Year, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("calls", "promotions", "standing", "rights", "lineage"):
        monkeypatch.setattr(f"muniment_services.reports.{module}.ROWS_MAX", 2)
    loop, services = year.server.loop, year.services
    found = loop.run_until_complete(run_report(services, "promotions", {"model": "fraud"}))
    assert (len(found.rows), found.truncated) == (2, True)
    assert "4 moves" in found.verdict
    assert str(max(found.evidence)) == year.places["second in production"]


def test_a_report_that_takes_too_long_is_given_up(
    year: Year, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muniment_services.reports.run.TIME_S_MAX", 0.05)

    def endless(sources: Any, _: Any) -> Any:
        return sources.connection.execute(
            "SELECT count(*) FROM range(10000000) a, range(10000000) b"
        ).fetchall()

    monkeypatch.setattr(
        "muniment_services.reports.run.QUESTIONS",
        {"slow": Question("slow", "How long?", (), (), endless)},
    )
    with pytest.raises(ReportTooSlow):
        year.server.loop.run_until_complete(run_report(year.services, "slow", {}))
    monkeypatch.undo()
    assert ask(year, "production-at")["rows"]


def test_a_version_of_which_the_table_says_too_little_is_found_by_its_event(year: Year) -> None:
    year.do("ana", "registered-models/create", {"name": "fraud-large"})
    tags = [{"key": f"k{number}", "value": "v" * 4000} for number in range(20)]
    body = {"name": "fraud-large", "run_id": year.runs["first"], "tags": tags}
    year.do("ana", "model-versions/create", {**body, "source": f"runs:/{year.runs['first']}/model"})
    other = {"name": "fraud-large", "source": "s3://elsewhere/m", "tags": tags}
    year.do("ana", "model-versions/create", other)
    found = ask(year, "uses", commit=COMMIT_ONE)
    versions = [(row["name"], row["version"]) for row in found["rows"] if row["what"] == "version"]
    assert versions == [("fraud", 1), ("fraud-large", 1)]


def append(year: Year, record: NewRecord) -> None:
    """A record that no request led to."""

    async def appended() -> None:
        await year.services.fold.log.append(record)

    year.server.loop.run_until_complete(appended())


def test_faults_of_the_trail_are_told(year: Year) -> None:
    services = year.services
    ask(year, "completeness")
    year.clock.at_ms -= 3_600_000
    ask(year, "completeness")
    year.clock.at_ms += 7_200_000
    skewed = ask(year, "completeness")
    assert "is complete" in skewed["verdict"]
    # Heads that were signed meanwhile may have gone back as well; what was asked did in any case.
    (told,) = [text for text in skewed["findings"] if "Recorded times of access/" in text]
    (row,) = [r for r in skewed["rows"] if "back_ms" in r and r["log"].startswith("access/")]
    assert row["back_ms"] > 3_599_000
    assert told.startswith(f"Recorded times of {row['log']} go back by 3")
    assert any(place.startswith(row["log"]) for place in skewed["evidence"])

    actor = Actor(principal_id="system", auth_method="system")
    gap = e.TrailGap(
        envelope=services.trail.envelope(e.TrailGap, "trail", actor, "trail"),
        lost=3,
        first_at_ms=ms("2025-05-05"),
        last_at_ms=ms("2025-05-06"),
        reason="the disk was full",
    )
    append(year, record_of(gap, services.codec, services.fold.log))
    lost = ask(year, "completeness")
    assert lost["verdict"] == (
        "The trail is not complete: 3 calls were answered that are not in the log."
    )
    assert "between 2025-05-05T00:00:00.000Z and 2025-05-06" in lost["findings"][0]

    headers = (("ce_id", b"x"), ("ce_type", b"Unheard"), ("ce_subject", b"run/strange"))
    at = TopicPartition("runs", 0)
    append(year, NewRecord(at, b"strange", b"no Avro", headers, year.clock()))
    stopped = ask(year, "completeness")
    assert "1 are in quarantine" in stopped["verdict"]
    (row,) = [row for row in stopped["rows"] if row.get("quarantined")]
    assert (row["log"], row["void"], row["missing"]) == ("runs/0", 1, 0)
    assert f"runs/0/{row['end'] - 1}" in stopped["evidence"]
