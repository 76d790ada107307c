"""What the house rules look at: the checkout's folders and its Python files, parsed.

Holds no rule itself. Reads files only; never imports what it reads.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CODE_FOLDERS = ("services", "projections", "auth", "schemas")
TEST_FOLDER = "tests"

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Source:
    """One Python file: its path from the checkout with forward slashes, its text, its tree."""

    path: str
    text: str
    tree: ast.Module

    def place(self, node: ast.stmt | ast.expr | ast.excepthandler) -> str:
        """`path:line` of a node, as editors and terminals link it."""
        return f"{self.path}:{node.lineno}"


def sources(*folders: str) -> list[Source]:
    """All Python files under these top-level folders, sorted by path."""
    paths = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return [parse(path.relative_to(ROOT).as_posix(), path.read_text("utf-8")) for path in paths]


def parse(path: str, text: str) -> Source:
    """A Source of a text. Raises SyntaxError when it is not Python."""
    return Source(path, text, ast.parse(text, path))


def functions(tree: ast.AST) -> Iterator[Function]:
    """Every function and method in a tree, nested ones included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def dotted(node: ast.expr) -> str:
    """`a.b.c` of a name or attribute, the empty string of anything else."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=attr):
            return f"{dotted(value)}.{attr}"
        case _:
            return ""
