"""Evidence packs as auditors get them: over HTTP, verified by the program that is in them."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import httpx
import pytest

from harness.signed_in import MLFLOW, Served, served
from muniment_schemas.ids import Offset
from muniment_services.api import audit_export
from muniment_services.log.base import TopicPartition
from muniment_services.proof import merkle
from muniment_services.proof import pack as packs
from muniment_services.proof.pack_events import verify_events
from muniment_services.proof.signing import NotSigned
from muniment_services.proof.verifier import verify
from muniment_services.reports.report import Column, Place, Report

EXPORT = "/api/v1/audit/export"
EVENTS = "/api/v1/audit/events"
CATALOG = TopicPartition("catalog", 0)
HOSTILE = "<script>alert('x')</script>"
FRAUD = {"q": "resource:models/fraud"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server on which models were made, and somebody has a token."""
    with served(tmp_path_factory.mktemp("data")) as running:
        running.grant("auditor", "auditor", "*", "*")
        for name in ("fraud", "churn", "fraud-2"):
            body = {"name": name, "description": HOSTILE}
            running.ask("admin", "POST", f"{MLFLOW}registered-models/create", body)
        update = {"name": "fraud", "description": "better"}
        running.ask("admin", "PATCH", f"{MLFLOW}registered-models/update", update)
        running.ask("admin", "POST", "/api/v1/tokens", {"name": "laptop", "days": 1})
        yield running


def exported(server: Served, body: dict[str, Any]) -> httpx.Response:
    answer = server.ask("auditor", "POST", EXPORT, body)
    assert answer.status_code == 200, answer.text
    return answer


def unpacked(answer: httpx.Response, folder: Path) -> Any:
    """Unpack an answer into a folder; returns the report."""
    with ZipFile(io.BytesIO(answer.content)) as opened:
        opened.extractall(folder)
    return json.loads((folder / "report.json").read_text())


def events(folder: Path, name: str) -> list[Any]:
    lines = (folder / "events" / f"{name}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_a_pack_is_the_answer_with_its_events_and_their_proofs(
    server: Served, tmp_path: Path
) -> None:
    answer = exported(server, FRAUD)
    assert answer.headers["content-type"] == "application/zip"
    assert len(answer.content) == int(answer.headers["content-length"])
    report = unpacked(answer, tmp_path)
    rows = server.ask("auditor", "GET", EVENTS, params=FRAUD | {"order": "asc"}).json()["events"]
    assert report["rows"] == rows
    assert [row["action"] for row in rows] == ["model.create", "model.update"]
    assert report["verdict"] == "2 events match."
    assert report["evidence"] == [["catalog", 0, row["offset"]] for row in rows]
    assert [event["offset"] for event in events(tmp_path, "catalog-0")] == [
        row["offset"] for row in rows
    ]
    asked_of = {(one["topic"], one["partition"]): one for one in report["asked_of"]}
    assert asked_of["catalog", 0]["end"] > rows[-1]["offset"]
    assert asked_of["catalog", 0]["head"] >= asked_of["catalog", 0]["end"]
    assert any(line.startswith("catalog/0: 2 events are") for line in verify(tmp_path))
    assert verify_events(tmp_path) == ["2 events are what their schemas and the report say"]
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(tmp_path / "verifier.py")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("OK, all holds\n")


def test_the_page_runs_nothing_that_a_client_chose(server: Served, tmp_path: Path) -> None:
    unpacked(exported(server, {"q": f'resource:models/fraud OR "{HOSTILE}"'}), tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(&#x27;x&#x27;)" in page
    assert "default-src 'none'" in page
    assert "http" not in page.replace('http-equiv="Content-Security-Policy"', "")


def test_the_export_is_in_the_trail_by_the_digest_of_its_manifest(server: Served) -> None:
    digest = exported(server, FRAUD).headers["muniment-pack"]
    asked = {"q": f"resource:packs/{digest}"}
    (told,) = server.ask("auditor", "GET", EVENTS, params=asked).json()["events"]
    assert (told["action"], told["outcome"], told["resource_id"]) == (
        "audit.export", "allowed", digest,
    )  # fmt: skip


def test_values_that_credentials_are_checked_by_stay_here(server: Served, tmp_path: Path) -> None:
    unpacked(exported(server, {"q": "type:CredentialIssued"}), tmp_path)
    (event,) = events(tmp_path, "catalog-0")
    assert event["value"] is None
    assert any(line.startswith("catalog/0: 1 events are") for line in verify(tmp_path))
    assert verify_events(tmp_path)[0].startswith("0 events")


def test_a_complete_pack_has_all_records_in_between(server: Served, tmp_path: Path) -> None:
    report = unpacked(exported(server, FRAUD | {"complete": True}), tmp_path)
    first, *_, last = (row["offset"] for row in report["rows"])
    offsets = [event["offset"] for event in events(tmp_path, "catalog-0")]
    assert offsets == list(range(first, last + 1))
    assert len(offsets) > len(report["rows"]) == 2
    assert report["complete"]
    verify(tmp_path)


def test_a_pack_leads_on_from_a_head_that_was_kept(server: Served, tmp_path: Path) -> None:
    kept = server.ask("auditor", "GET", "/log/catalog/0/checkpoint").text
    vkey = server.ask("auditor", "GET", "/log/catalog/0/vkey").text
    size = int(kept.split("\n")[1])
    more = {"name": f"after-{size}"}
    assert server.ask("admin", "POST", f"{MLFLOW}registered-models/create", more).status_code == 200
    report = unpacked(exported(server, FRAUD | {"earlier": [f"catalog/0/{size}"]}), tmp_path)
    assert next(one for one in report["asked_of"] if one["topic"] == "catalog")["head"] > size
    assert "keys are those in the pack" not in verify(tmp_path, [kept], [vkey])[-1]
    with pytest.raises(ValueError, match="another log's"):
        verify(tmp_path, [kept], ["log+00000000+AQAA"])


def test_a_ready_made_question_is_packed_with_what_its_answer_rests_on(
    server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answered(_: object, name: str, parameters: Mapping[str, str]) -> Report:
        return Report(
            name=name,
            question="Who made it?",
            parameters=parameters,
            as_of={("catalog", 0): 9, ("runs", 3): 0},
            verdict="Nobody & anybody.",
            findings=("A clock went back.",),
            notes="It is blind to the moon.",
            columns=(Column("who", "principal", "who"), Column("event", "event", "where")),
            rows=(("ana", "catalog/0/4"), (None, "catalog/0/7")),
            evidence=(Place("catalog", 0, 4), Place("catalog", 0, 7)),
            truncated=True,
            names={"ana": "Ana <A>"},
        )

    monkeypatch.setattr(audit_export, "run_report", answered)
    body = {"question": "makers", "parameter": ["model=fraud", "at=2026-01-01=x"]}
    answer = exported(server, body)
    assert "muniment-makers-" in answer.headers["content-disposition"]
    report = unpacked(answer, tmp_path)
    assert report["rows"] == [
        {"who": "ana", "event": "catalog/0/4"},
        {"who": None, "event": "catalog/0/7"},
    ]
    assert report["parameters"] == {"model": "fraud", "at": "2026-01-01=x"}
    assert [event["offset"] for event in events(tmp_path, "catalog-0")] == [4, 7]
    assert [(one["topic"], one["end"]) for one in report["asked_of"]] == [("catalog", 9)]
    page = (tmp_path / "report.html").read_text()
    for shown in (
        "Nobody &amp; anybody.",
        "A clock went back.",
        "cut at the server",
        "to the moon.",
        "Ana &lt;A",
    ):
        assert shown in page
    verify(tmp_path)


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({}, 400, "Say what to export"),
        ({"q": "", "question": "promotions"}, 400, "Say what to export"),
        ({"q": "nosuch:1"}, 400, "no field 'nosuch'"),
        ({"question": "nosuch"}, 404, "nosuch"),
        ({"question": "nosuch", "parameter": ["x"]}, 400, "NAME=VALUE"),
        ({"q": "", "earlier": ["catalog/0/99999"]}, 400, "has lost events"),
        ({"q": "", "earlier": ["catalog/0/0"]}, 400, "TOPIC/PARTITION/SIZE"),
        ({"q": "", "earlier": ["catalog/7/1"]}, 400, "TOPIC/PARTITION/SIZE"),
        ({"q": "", "earlier": ["catalog/0/1"] * 101}, 400, "100 kept heads"),
    ],
)
def test_what_cannot_be_exported_is_refused_in_words(
    server: Served, body: dict[str, Any], status: int, says: str
) -> None:
    answer = server.ask("auditor", "POST", EXPORT, body)
    assert (answer.status_code, says in answer.json()["message"]) == (status, True), answer.text


@pytest.mark.parametrize(
    ("limit", "says"), [("EVENTS_MAX", "More than 3 events"), ("BYTES_MAX", "narrow the time")]
)
def test_a_pack_has_limits(
    server: Served, monkeypatch: pytest.MonkeyPatch, limit: str, says: str
) -> None:
    monkeypatch.setattr(packs, limit, 3)
    monkeypatch.setattr("muniment_services.proof.pack_report.EVENTS_MAX", 3)
    answer = server.ask("auditor", "POST", EXPORT, {"q": "resource:models/*"})
    assert answer.status_code == 413, answer.text
    assert says in answer.json()["message"]


def test_only_so_many_packs_are_made_at_a_time(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert server.gateway.services is not None
    monkeypatch.setattr(server.gateway.services.exports, "_value", 0)
    answer = server.ask("auditor", "POST", EXPORT, FRAUD)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "15"), answer.text


def test_a_whole_range_counts_with_all_that_is_in_it(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packs, "EVENTS_MAX", 3)
    answer = server.ask("auditor", "POST", EXPORT, FRAUD)
    assert answer.status_code == 200
    answer = server.ask("auditor", "POST", EXPORT, FRAUD | {"complete": True})
    assert (answer.status_code, "more than 3 events" in answer.text) == (413, True)


def test_nothing_is_sealed_while_heads_are_not_signed(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert server.gateway.services is not None
    prover = server.gateway.services.prover
    assert prover is not None

    async def refuse(*_: object) -> bytes:
        raise NotSigned("the log was changed")

    monkeypatch.setattr(prover, "seal", refuse)
    answer = server.ask("auditor", "POST", EXPORT, FRAUD)
    assert (answer.status_code, "the log was changed" in answer.text) == (503, True)
    monkeypatch.setattr(packs, "HEADS_S_MAX", 0.2)
    monkeypatch.setattr(prover.forest, "served", lambda _: None)
    answer = server.ask("auditor", "POST", EXPORT, FRAUD)
    assert (answer.status_code, "No signed head covers" in answer.text) == (503, True)


@pytest.mark.parametrize("steps", [0, 1, 100])
def test_a_tree_that_is_not_of_the_log_is_not_exported(
    server: Served, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    assert server.gateway.services is not None
    prover, doubted = server.gateway.services.prover, list[TopicPartition]()
    monkeypatch.setattr(prover, "doubt", doubted.append)
    monkeypatch.setattr(merkle, "beside", lambda *_: iter([bytes(32)] * steps))
    answer = server.ask("auditor", "POST", EXPORT, FRAUD)
    assert (answer.status_code, "is not that of the log" in answer.text) == (503, True)
    assert doubted


def test_a_long_answer_is_read_page_by_page_and_shown_in_part(
    server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_export, "PAGE_ROWS", 7)
    monkeypatch.setattr("muniment_services.proof.pack_report.PAGE_ROWS_MAX", 10)
    report = unpacked(exported(server, {"q": "topic:catalog"}), tmp_path)
    assert server.gateway.services is not None
    log = server.gateway.services.fold.log
    end = server.loop.run_until_complete(log.end_offsets())[CATALOG]
    assert [row["offset"] for row in report["rows"]] == list(range(end))
    assert f"The first 10 of {end:,} rows" in (tmp_path / "report.html").read_text()
    assert len(log.read(CATALOG, Offset(0))) == len(events(tmp_path, "catalog-0"))
    verify(tmp_path)


@pytest.mark.parametrize(
    ("question", "parameters", "rows"),
    [
        ("promotions", ["model=fraud"], 0),
        ("readers", ["model=fraud"], 0),
        ("refusals", [], 0),
        ("promoters-at", ["model=fraud"], 1),
        ("completeness", [], 1),
    ],
)
def test_the_auditors_questions_are_packed(
    server: Served, tmp_path: Path, question: str, parameters: list[str], rows: int
) -> None:
    report = unpacked(exported(server, {"question": question, "parameter": parameters}), tmp_path)
    assert report["name"] == question
    assert len(report["rows"]) >= rows
    assert report["verdict"] in (tmp_path / "report.html").read_text().replace("&#x27;", "'")
    verify(tmp_path)
    verify_events(tmp_path)
