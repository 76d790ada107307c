"""`muniment audit reports`, `report` and `diff` against a running server."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator

import httpx
import pytest

from harness.server import Server, running_muniment
from muniment_services.reports.run import QUESTIONS
from unit.cli.conftest import Call


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_muniment(tmp_path_factory.mktemp("reports") / "data") as running:
        with httpx.Client(base_url=f"{running.url}/api/2.0/mlflow/") as http:
            for path, body in (
                ("registered-models/create", {"name": "fraud"}),
                ("model-versions/create", {"name": "fraud", "source": "s3://b/x"}),
                (
                    "model-versions/transition-stage",
                    {"name": "fraud", "version": "1", "stage": "Production",
                     "archive_existing_versions": False},
                ),
            ):  # fmt: skip
                assert http.post(path, json=body).status_code == 200, path
        yield running


def test_the_catalogue_tells_every_report_and_what_it_takes(call: Call, server: Server) -> None:
    told = call("audit", "reports", "--url", server.url)
    for question in QUESTIONS.values():
        assert f"{question.name}  {question.text}" in told.lines
        for parameter in question.parameters:
            assert f"--{parameter.name}" in told.out
    listed = json.loads(call("audit", "reports", "--json", "--url", server.url).out)
    assert [one["name"] for one in listed] == list(QUESTIONS)


def test_a_report_in_each_form(call: Call, server: Server) -> None:
    asked = ("audit", "report", "promotions", "--model", "fraud", "--url", server.url)
    found = json.loads(call(*asked).out)
    assert [row["version"] for row in found["rows"]] == [1]
    assert found["verdict"].startswith("1 move;")
    text = call(*asked, "--format", "text")
    assert text.lines[:2] == [found["question"], found["verdict"]]
    assert "Production" in text.out
    (row,) = csv.DictReader(io.StringIO(call(*asked, "--format", "csv").out))
    assert (row["target"], row["event"]) == ("Production", found["rows"][0]["event"])
    from_then = call(*asked, "--from", found["rows"][0]["at"], "--version", "1")
    assert len(json.loads(from_then.out)["rows"]) == 1


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (("promotions",), "needs model"),
        (("promotions", "--model", "fraud", "--color", "red"), "has no parameter 'color'"),
        (("gossip",), "There is no report 'gossip'; there are promotions"),
    ],
)
def test_a_wrong_question_is_one_line(
    call: Call, server: Server, asked: tuple[str, ...], words: str
) -> None:
    told = call("audit", "report", *asked, "--url", server.url)
    assert (told.status, words in told.err, len(told.err.splitlines())) == (1, True, 1)


def test_what_changed(call: Call, server: Server) -> None:
    told = call("audit", "diff", "--from", "2026-01-01", "--url", server.url)
    changes = json.loads(told.out)["changes"]
    assert [(one["what"], one["after"]) for one in changes] == [
        ("model", "fraud"), ("version", "1"), ("stage", "Production"),
    ]  # fmt: skip
    nothing = call("audit", "diff", "--from", changes[-1]["event"], "--url", server.url)
    assert json.loads(nothing.out)["changes"] == []
