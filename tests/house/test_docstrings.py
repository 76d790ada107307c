"""Every module says what it is for; every public function and class says what it promises."""

import ast

from house.sources import CODE_FOLDERS, TEST_FOLDER, Function, Source, dotted, sources


def test_every_module_has_a_docstring() -> None:
    missing = [
        source.path
        for source in sources(*CODE_FOLDERS, TEST_FOLDER)
        # An empty __init__.py makes a folder a package and has nothing to say.
        if source.tree.body and not ast.get_docstring(source.tree)
    ]
    assert missing == []


def is_overload(node: Function | ast.ClassDef) -> bool:
    return any(dotted(decorator).endswith("overload") for decorator in node.decorator_list)


def undocumented(source: Source) -> list[str]:
    """Public top-level functions and classes without a docstring."""
    return [
        f"{source.place(node)} {node.name}"
        for node in source.tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not is_overload(node)
        and not ast.get_docstring(node)
    ]


def test_every_public_function_and_class_has_a_docstring() -> None:
    missing = [place for source in sources(*CODE_FOLDERS) for place in undocumented(source)]
    assert missing == []
