"""Every test can fail: it asserts, expects an error, or calls something that checks."""

import ast

import pytest

from house.sources import TEST_FOLDER, Function, dotted, functions, parse, sources

CHECKING_CALLS = ("assert", "check", "expect", "verify", "fail")
EXPECTING = {"pytest.raises", "pytest.warns", "raises", "warns"}


def can_fail(test: Function) -> bool:
    for node in ast.walk(test):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            name = dotted(node.func)
            if name in EXPECTING or name.split(".")[-1].lstrip("_").startswith(CHECKING_CALLS):
                return True
    return False


def test_every_test_can_fail() -> None:
    idle = [
        f"{source.place(function)} {function.name}"
        for source in sources(TEST_FOLDER)
        for function in functions(source.tree)
        if function.name.startswith("test_") and not can_fail(function)
    ]
    assert idle == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("def test_x():\n    run()\n", False),
        ("def test_x():\n    assert run()\n", True),
        ("def test_x():\n    with pytest.raises(OSError):\n        run()\n", True),
        ("def test_x(server):\n    server.check_equal(1)\n", True),
    ],
)
def test_an_idle_test_is_seen(text: str, expected: bool) -> None:
    (test,) = functions(parse("x.py", text).tree)
    assert can_fail(test) is expected
