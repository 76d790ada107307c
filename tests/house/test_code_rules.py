"""What the server's code never does: swallow errors, print, keep module state, import MLflow."""

import ast

import pytest

from house.sources import CODE_FOLDERS, Source, dotted, parse, sources

# path -> why everything must be caught there: the edge of a process, thread or task.
PROCESS_EDGES: dict[str, str] = {
    "services/muniment_services/api/app.py": "the start's task: its failure ends the process",
    "services/muniment_services/state.py": "one history: it stands still, and is told",
    "services/muniment_services/api/gateway.py": "every request is answered in MLflow's shape",
    "services/muniment_services/fold.py": "the fold's task: its failure stops it and is told",
    "services/muniment_services/rebuilder.py": "the rebuild's task: the old projections serve on",
    "services/muniment_services/snapshotter.py": "the snapshot's task: the server serves on",
    "projections/muniment_projections/runner.py": "the writer's task: its failure is told",
}

# The command line talks to a person.
PRINTERS = (
    "services/muniment_services/__main__.py",
    "services/muniment_services/cli/",
    "services/client/muniment_client/command.py",
    # A notebook is a terminal too: login() shows the code to type.
    "services/client/muniment_client/__init__.py",
)

# path -> why it imports MLflow. Code named here runs in a process of its own, as a client.
MLFLOW_CLIENTS: dict[str, str] = {
    "services/muniment_services/cli/demo.py": "the demo's runs are logged by a real client",
    "services/client/muniment_client/provider.py": "a plugin of MLflow's client",
}

MUTABLE_DISPLAYS = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
MUTABLE_TYPES = {
    "list", "dict", "set", "bytearray", "defaultdict", "deque", "Counter", "OrderedDict",
    "ContextVar", "local",
}  # fmt: skip
READ_ONLY_ANNOTATIONS = {"Final", "Mapping", "Sequence", "Collection", "Set", "Iterable"}


def broad_handlers(source: Source) -> list[str]:
    """Handlers that catch everything and do not raise it again."""
    found = []
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.ExceptHandler):
            continue
        caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        broad = any(
            kind is None or dotted(kind).split(".")[-1] in {"Exception", "BaseException"}
            for kind in caught
        )
        last = node.body[-1]
        if broad and not (isinstance(last, ast.Raise) and last.exc is None):
            found.append(source.place(node))
    return found


def prints(source: Source) -> list[str]:
    return [
        source.place(node)
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call) and dotted(node.func) == "print"
    ]


def is_mutable(value: ast.expr | None) -> bool:
    if isinstance(value, ast.Call):
        return dotted(value.func).split(".")[-1] in MUTABLE_TYPES
    return isinstance(value, MUTABLE_DISPLAYS)


def is_read_only(annotation: ast.expr) -> bool:
    """Whether the type checker refuses changes: Final, or a read-only collection type."""
    outer = annotation.value if isinstance(annotation, ast.Subscript) else annotation
    return dotted(outer).split(".")[-1] in READ_ONLY_ANNOTATIONS


def module_state(source: Source) -> list[str]:
    """Mutable values bound at module level, and functions that rebind module names."""
    found = [source.place(node) for node in ast.walk(source.tree) if isinstance(node, ast.Global)]
    for node in source.tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")]):
                continue
            case ast.Assign(value=value) if is_mutable(value):
                found.append(source.place(node))
            case ast.AnnAssign(value=value, annotation=annotation) if is_mutable(value):
                if not is_read_only(annotation):
                    found.append(source.place(node))
            case _:
                continue
    return found


def mlflow_imports(source: Source) -> list[str]:
    found = []
    for node in ast.walk(source.tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        if any(name.split(".")[0] == "mlflow" for name in names):
            assert isinstance(node, ast.Import | ast.ImportFrom)
            found.append(source.place(node))
    return found


def test_everything_is_caught_at_process_edges_only() -> None:
    found = {place for source in sources(*CODE_FOLDERS) for place in broad_handlers(source)}
    strays = {place for place in found if place.rpartition(":")[0] not in PROCESS_EDGES}
    assert not strays, "catch what you can handle, or name the edge and its reason"
    needless = PROCESS_EDGES.keys() - {place.rpartition(":")[0] for place in found}
    assert not needless, "these edges catch no such thing any more"


def test_only_the_command_line_prints() -> None:
    code = [source for source in sources(*CODE_FOLDERS) if not source.path.startswith(PRINTERS)]
    assert [place for source in code for place in prints(source)] == []


def test_no_module_keeps_mutable_state() -> None:
    found = [place for source in sources(*CODE_FOLDERS) for place in module_state(source)]
    assert found == [], "annotate constants Final, Mapping or Sequence; pass state in"


def test_the_server_imports_nothing_of_mlflow() -> None:
    importing = {source.path for source in sources(*CODE_FOLDERS) if mlflow_imports(source)}
    assert importing == set(MLFLOW_CLIENTS)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("try:\n    f()\nexcept Exception:\n    g()\n", 1),
        ("try:\n    f()\nexcept (OSError, BaseException) as e:\n    g(e)\n", 1),
        ("try:\n    f()\nexcept:\n    g()\n", 1),
        ("try:\n    f()\nexcept Exception:\n    g()\n    raise\n", 0),
        ("try:\n    f()\nexcept OSError:\n    g()\n", 0),
    ],
)
def test_a_broad_handler_is_seen(text: str, lines: int) -> None:
    assert len(broad_handlers(parse("x.py", text))) == lines


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("seen = {}\n", 1),
        ("SEEN: dict[str, int] = {}\n", 1),
        ("seen = collections.defaultdict(list)\n", 1),
        ("def f():\n    global seen\n    seen = 1\n", 1),
        ("NAMES: Final = {'a': 1}\n", 0),
        ("NAMES: Mapping[str, int] = {'a': 1}\n", 0),
        ("NAMES = ('a', 'b')\n__all__ = ['f']\n", 0),
        ("def f():\n    seen = {}\n    return seen\n", 0),
    ],
)
def test_module_state_is_seen(text: str, lines: int) -> None:
    assert len(module_state(parse("x.py", text))) == lines


def test_an_import_of_mlflow_is_seen_wherever_it_stands() -> None:
    text = "import mlflow.tracking\ndef f():\n    from mlflow import log_param\nimport mlflowless\n"
    assert mlflow_imports(parse("x.py", text)) == ["x.py:1", "x.py:3"]
