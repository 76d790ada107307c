"""Settings are documented where people look: in the README and in their descriptions."""

from __future__ import annotations

import re

from house.sources import ROOT
from muniment_services.config import Settings

README = (ROOT / "README.md").read_text("utf-8")


def test_the_readme_lists_every_setting_with_its_default() -> None:
    table = README.partition("## Settings")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \|([^|]*)\|", table, re.MULTILINE))
    assert rows.keys() == Settings.model_fields.keys()
    for name, field in Settings.model_fields.items():
        default = field.get_default()
        shown = str(default).lower() if isinstance(default, bool) else str(default)
        documented = rows[name].strip().strip("`").removeprefix("./")
        assert documented == ("" if default in ((), None) else shown), name


def test_every_setting_says_what_it_is() -> None:
    assert all(field.description for field in Settings.model_fields.values())
