"""The top level is fixed, and the README's tree has a line for each code folder."""

import re
from fnmatch import fnmatch

from house.sources import CODE_FOLDERS, ROOT

TOP_LEVEL = {"pyproject.toml", "README.md", "tests", "deploy", *CODE_FOLDERS}


def ignored_patterns() -> list[str]:
    """The names that git ignores (the file has plain names and suffix globs only)."""
    lines = (ROOT / ".gitignore").read_text("utf-8").splitlines()
    return [line.strip("/") for line in lines if line and not line.startswith("#")]


def test_the_top_level_holds_the_agreed_names_and_no_other() -> None:
    patterns = ignored_patterns()
    found = {
        path.name
        for path in ROOT.iterdir()
        if not path.name.startswith(".")
        and not any(fnmatch(path.name, pattern) for pattern in patterns)
    }
    assert found == TOP_LEVEL


def test_each_code_folder_holds_one_package_named_after_it() -> None:
    for folder in CODE_FOLDERS:
        packages = {path.parent.name for path in (ROOT / folder).glob("*/__init__.py")}
        # services/client is a distribution of its own: what users load into their training process.
        assert packages == {f"muniment_{folder}"}, folder
        assert not list((ROOT / folder).glob("*.py")), f"{folder}: modules belong in the package"


def code_folders() -> set[str]:
    """Names of the folders that the README's tree should show: all of the code, tests by kind."""
    kinds = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir()}
    folders = {path.parent for top in CODE_FOLDERS for path in (ROOT / top).rglob("*.py")}
    return {f.name for f in folders if "__pycache__" not in f.parts} | kinds - {"__pycache__"}


def test_the_readme_tree_names_every_code_folder() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    drawn = "\n".join(re.findall(r"^```[^\n]*\n(.*?)^```", readme, re.MULTILINE | re.DOTALL))
    missing = {name for name in code_folders() if not re.search(rf"\b{name}/", drawn)}
    assert not missing, "the tree in README.md lacks these folders"
