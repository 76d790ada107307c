"""Files under 500 lines, functions up to 70: past that, a thing usually does two things."""

import pytest

from house.sources import CODE_FOLDERS, TEST_FOLDER, Function, functions, parse, sources

FILE_LINES_MAX = 499
FUNCTION_LINES_MAX = 70

# "path" or "path::function" -> why it reads better long. An entry that is not needed fails.
LONG_ON_PURPOSE: dict[str, str] = {}


def lines_of(function: Function) -> int:
    assert function.end_lineno is not None
    return function.end_lineno - function.lineno + 1


def too_long() -> set[str]:
    found = set()
    for source in sources(*CODE_FOLDERS, TEST_FOLDER):
        if len(source.text.splitlines()) > FILE_LINES_MAX:
            found.add(source.path)
        found |= {
            f"{source.path}::{function.name}"
            for function in functions(source.tree)
            if lines_of(function) > FUNCTION_LINES_MAX
        }
    return found


def test_no_file_and_no_function_is_too_long() -> None:
    assert too_long() == set(LONG_ON_PURPOSE)


@pytest.mark.parametrize(("body_lines", "expected"), [(69, 70), (70, 71)])
def test_a_function_is_measured_from_def_to_its_last_line(body_lines: int, expected: int) -> None:
    source = parse("x.py", "@decorated\ndef f():\n" + "    pass\n" * body_lines + "\n\nx = 1\n")
    assert [lines_of(function) for function in functions(source.tree)] == [expected]
