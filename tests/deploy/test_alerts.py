"""Alerts fire when they should, speak of metrics that there are, and are in the runbook."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
import yaml

from house.sources import ROOT
from muniment_services.metrics import NAMES

if TYPE_CHECKING:
    from deploy.conftest import Tool

FOLDER = ROOT / "deploy" / "dashboards"
FROM_THE_CLIENT_LIBRARY = {"process_resident_memory_bytes"}
RUNBOOK = (ROOT / "deploy" / "runbook.md").read_text("utf-8")


def alerts() -> list[dict[str, str]]:
    rules = yaml.safe_load((FOLDER / "alerts.yaml").read_text("utf-8"))
    return [rule for group in rules["groups"] for rule in group["rules"]]


def metrics_of(expression: str) -> set[str]:
    found = re.findall(r"\b(?:muniment|process)_[a-z_]+", expression)
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in found}


@pytest.mark.slow
def test_promtool_takes_the_rules_and_they_fire_when_they_should(tool: Tool) -> None:
    checked = tool("promtool", "check", "rules", "alerts.yaml", folder="dashboards")
    assert checked.returncode == 0, checked.stderr
    tested = tool("promtool", "test", "rules", "alerts_test.yaml", folder="dashboards")
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_each_alert_is_tried_both_ways() -> None:
    tests = yaml.safe_load((FOLDER / "alerts_test.yaml").read_text("utf-8"))["tests"]
    tried = [case for test in tests for case in test["alert_rule_test"]]
    names = {rule["alert"] for rule in alerts()}
    assert {case["alertname"] for case in tried if case["exp_alerts"]} == names
    assert {case["alertname"] for case in tried if not case["exp_alerts"]} == names


def test_rules_and_dashboard_speak_of_metrics_that_there_are() -> None:
    board = json.loads((FOLDER / "muniment.json").read_text("utf-8"))
    expressions = [rule["expr"] for rule in alerts()]
    expressions += [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    used = set().union(*map(metrics_of, expressions))
    assert used <= NAMES.keys() | FROM_THE_CLIENT_LIBRARY
    assert NAMES.keys() <= used, "a metric that nobody looks at"
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_each_alert_has_its_section_in_the_runbook_and_each_section_its_alert() -> None:
    section = RUNBOOK.partition("## Alerts")[2].partition("\n## ")[0]
    headings = re.findall(r"^### (\w+)$", section, re.MULTILINE)
    assert headings == sorted(headings, key=headings.index)
    assert set(headings) == {rule["alert"] for rule in alerts()}
    for rule in alerts():
        assert rule["annotations"]["runbook_url"] == f"runbook.md#{rule['alert'].lower()}"  # type: ignore[index]
    for text in re.split(r"^### ", section, flags=re.MULTILINE)[1:]:
        assert all(f"**{part}**" in text for part in ("Means", "Do", "Over")), text.split()[0]
