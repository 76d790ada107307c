"""The compliance map claims nothing untested: each row names tests, and each of them exists."""

from __future__ import annotations

import re

import pytest

from house.sources import ROOT, TEST_FOLDER, functions, sources

PAGE = ROOT / "deploy" / "compliance.md"
TEXTS = {
    "EU AI Act": ("Art. 12", "Art. 19", "Art. 26(6)"),
    "21 CFR": (*(f"11.10({letter})" for letter in "abcdefghijk"), "11.50"),
    "SOC 2": ("CC6", "CC7", "CC8"),
    "ISO/IEC 42001": ("A.6.2.8",),
}
OPERATORS = "the operator's"

_TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def rows() -> list[list[str]]:
    """Cells of the rows of all tables, their heads left out."""
    lines = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [row for row in cells if row[0] != "requirement" and not set(row[0]) <= {"-"}]


def known_tests() -> set[tuple[str, str]]:
    return {
        (source.path, function.name)
        for source in sources(TEST_FOLDER)
        for function in functions(source.tree)
    }


def test_every_named_test_exists() -> None:
    named = set(_TEST.findall(PAGE.read_text("utf-8")))
    assert len(named) > 20
    assert named - known_tests() == set()


def test_every_row_names_tests_or_says_that_it_is_the_operators() -> None:
    for row in rows():
        assert len(row) == 4, row
        requirement, fulfilled, tests, duty = row
        assert _TEST.search(tests) or (tests == "none" and OPERATORS in fulfilled), requirement
        assert duty, requirement


@pytest.mark.parametrize(("text", "parts"), TEXTS.items())
def test_every_text_is_mapped_whole(text: str, parts: tuple[str, ...]) -> None:
    page = PAGE.read_text("utf-8")
    assert text in page
    heads = " ".join(row[0] for row in rows())
    assert [part for part in parts if part not in heads] == []
