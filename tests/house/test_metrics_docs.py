"""The README tells every metric, in the words with which Prometheus is told of it."""

from __future__ import annotations

import re

from house.sources import ROOT
from muniment_services.metrics import NAMES

README = (ROOT / "README.md").read_text("utf-8")


def test_the_readme_lists_every_metric_with_its_meaning() -> None:
    table = README.partition("## Metrics")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \|$", table, re.MULTILINE)
    assert dict(rows) == dict(NAMES)
    assert [name for name, _ in rows] == list(NAMES), "in the order in which they are declared"
