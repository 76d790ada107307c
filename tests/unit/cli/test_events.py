"""`muniment events`: which events, in which order, and how they read."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from muniment_services.cli.event_lines import printable, time_text
from muniment_services.cli.selection import Since, since
from muniment_services.cli.terminal import BrokenOff, CliError
from unit.cli.conftest import Call

BY_ANNA = {"ExperimentCreated", "RunCreated", "BatchLogged", "RunUpdated", "ArtifactUploaded"}
NOW_MS = 1_700_000_000_000


def parsed(lines: Sequence[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines]


def test_an_event_is_one_line_that_says_what_happened(
    call: Call, data_dir: Path, run_id: str
) -> None:
    lines = call("events", "--data-dir", data_dir, "--topic", "runs").lines
    assert [line.split()[2] for line in lines] == [
        "RunCreated",
        "BatchLogged",
        "RunUpdated",
        "ArtifactUploaded",
    ]
    assert all(run_id in line and "anna" in line for line in lines)
    assert 'name="first run"' in lines[0]
    assert "lr=0.1 rmse=0.43 gap=nan" in lines[1]
    assert lines[1].endswith("(3 points)")
    assert "status=FINISHED" in lines[2]


def test_values_cannot_play_tricks_with_the_terminal(call: Call, data_dir: Path) -> None:
    shown = call("events", "--data-dir", data_dir)
    assert "\x1b" not in shown.out
    assert r"#team=x\u001b[31m" in shown.out


def test_json_holds_everything(call: Call, data_dir: Path, run_id: str) -> None:
    called = call("events", "--data-dir", data_dir, "--json", "--type", "batchlogged")
    (event,) = parsed(called.lines)
    assert (event["topic"], event["key"], event["schema"]) == ("runs", run_id, "BatchLogged.v2")
    assert event["envelope"]["actor"]["principal_id"] == "anna"
    assert event["headers"]["ce_subject"] == f"run/{run_id}"
    assert event["params"] == {"lr": "0.1"}
    assert event["metrics"] == [
        {"key": "rmse", "value": 0.5, "timestamp_ms": 7, "step": 1},
        {"key": "rmse", "value": 0.43, "timestamp_ms": 8, "step": 2},
        {"key": "gap", "value": "NaN", "timestamp_ms": 9, "step": 3},
    ]


def test_bytes_are_hex(call: Call, data_dir: Path) -> None:
    called = call("events", "--data-dir", data_dir, "--json", "--type", "PrincipalRegistered")
    assert len(bytes.fromhex(parsed(called.lines)[0]["identity_sealed"])) > 16


def test_history_is_merged_by_time_and_complete(call: Call, data_dir: Path) -> None:
    events = parsed(call("events", "--data-dir", data_dir, "--json").lines)
    times = [event["timestamp_ms"] for event in events]
    assert times == sorted(times)
    with sqlite3.connect(data_dir / "log.sqlite") as connection:
        assert len(events) == connection.execute("SELECT count(*) FROM record").fetchone()[0]


@pytest.mark.parametrize(
    ("conditions", "types"),
    [
        (["--type", "RunCreated", "--type", "RunUpdated"], {"RunCreated", "RunUpdated"}),
        (["--aggregate", "experiment/1"], {"ExperimentCreated"}),
        (["--topic", "runs", "--type", "ExperimentCreated"], set()),
        (["--actor", "ann"], BY_ANNA),
        (["--token", "annas-token"], BY_ANNA),
        (["--token", "annas"], set()),
        (["--since", "1w", "--type", "RunCreated"], {"RunCreated"}),
        (["--since", "2199-01-01"], set()),
        (["--topic", "runs", "--since", "2"], {"RunUpdated", "ArtifactUploaded"}),
    ],
)
def test_conditions(call: Call, data_dir: Path, conditions: list[str], types: set[str]) -> None:
    called = call("events", "--data-dir", data_dir, "--json", *conditions)
    assert {event["envelope"]["type"] for event in parsed(called.lines)} == types


def test_an_id_alone_is_enough(call: Call, data_dir: Path, run_id: str) -> None:
    assert len(call("events", "--data-dir", data_dir, "--aggregate", run_id).lines) == 4


def test_the_limit_ends_it_also_when_following(call: Call, data_dir: Path) -> None:
    assert len(call("events", "--data-dir", data_dir, "-n", "2", "--follow").lines) == 2


def test_an_unreadable_record_is_shown_as_such(call: Call, data_dir: Path) -> None:
    with sqlite3.connect(data_dir / "log.sqlite") as connection:
        connection.execute("UPDATE record SET value = x'00ff' WHERE rowid = 3")
    text, data = (call("events", "--data-dir", data_dir, *more) for more in ([], ["--json"]))
    assert text.status == 0
    assert sum("(unreadable)" in line for line in text.lines) == 1
    (broken,) = [event for event in parsed(data.lines) if "error" in event]
    assert broken["value"] == "00ff"


def test_a_closed_pipe_ends_it_quietly(
    call: Call, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_: str) -> None:
        raise BrokenOff

    ended = []
    monkeypatch.setattr("muniment_services.cli.events.write", gone)
    monkeypatch.setattr("muniment_services.cli.main._end_quietly", lambda: ended.append(True))
    assert call("events", "--data-dir", data_dir).err == ""
    assert ended == [True]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, Since(offset=0)),  # type: ignore[arg-type]
        ("12", Since(offset=12)),  # type: ignore[arg-type]
        ("90s", Since(at_ms=NOW_MS - 90_000)),
        ("2h", Since(at_ms=NOW_MS - 7_200_000)),
        ("1970-01-02", Since(at_ms=86_400_000)),
        ("1970-01-01T00:00:01.5", Since(at_ms=1500)),
        ("1970-01-01T01:00:00+01:00", Since(at_ms=0)),
    ],
)
def test_since(text: str | None, expected: Since) -> None:
    assert since(text, NOW_MS) == expected


def test_an_unknown_topic_is_named_with_those_that_are(call: Call, data_dir: Path) -> None:
    ended = call("events", "--data-dir", data_dir, "--topic", "run")
    assert ended.status == 2
    assert "catalog, runs" in ended.err


def test_since_refuses_the_rest() -> None:
    with pytest.raises(CliError, match="neither an offset"):
        since("2026-13-01", NOW_MS)


def test_times_and_texts() -> None:
    assert time_text(1500) == "1970-01-01T00:00:01.500Z"
    assert time_text(2**62) == str(2**62)
    assert printable("é\n\x7f") == r"\u00e9\n\u007f"
    assert printable("é") == "é"
