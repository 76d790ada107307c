"""Artifacts: files of runs, logged models and traces, kept below one root.

Paths are relative, with `/` between their parts. What changes files: `artifact_changes`.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath, PureWindowsPath
from urllib.parse import unquote, urlparse, urlsplit, urlunparse

from muniment_services.domain.commands import AggregateKey
from muniment_services.domain.errors import Invalid

KIND = "artifact"

SCHEME = "mlflow-artifacts"
PROXY_PATH = "/mlflow-artifacts/artifacts/"
"""What stands before the artifact's path in an `http` location that this API serves."""

DECODINGS_MAX = 10
"""Times that a path is percent-decoded until it stays the same; deeper nesting is refused."""

OWNERS_MAX = 8
"""Ids in a path that are looked at: folders of one thing within those of another are rare."""

_OWNER = re.compile(r"(?:m-|tr-)?[0-9a-f]{32}")


def owner_of(path: str) -> str:
    """The run, logged model or trace that a file belongs to, else the first part of its path.

    It depends on the path alone, so that all events on a file are in one partition, in order.
    """
    parts = path.split("/")
    return next((part for part in parts if _OWNER.fullmatch(part)), parts[0])


def owners(path: str) -> tuple[AggregateKey, ...]:
    """The runs, logged models and traces whose ids stand in a path, at most OWNERS_MAX."""
    found = [part for part in path.split("/") if _OWNER.fullmatch(part)]
    return tuple((_kind_of(owner), owner) for owner in dict.fromkeys(found[:OWNERS_MAX]))


def _kind_of(owner: str) -> str:
    kinds = {"m-": "logged_model", "tr": "trace"}
    return kinds.get(owner[:2], "run")


def is_below(path: str, artifact_uri: str) -> bool:
    """Whether a path is a folder that an artifact URI names, or in it."""
    try:
        root = path_of(artifact_uri)
    except Invalid:
        return False
    return bool(root) and is_in_folder(path, root)


def is_in_folder(path: str, folder: str) -> bool:
    """Whether a checked path is a folder, or in it; all are in the root ("")."""
    return not folder or path == folder or path.startswith(f"{folder}/")


def checked_path(given: str) -> str:
    """A path from outside, decoded, with single slashes; "" is the root.

    Raises Invalid, with MLflow's message, for a path that could leave the root: absolute, with `..`
    or `#`, however often it is percent-encoded.
    """
    path = _escaped(_decoded(given))
    if "#" in path:
        raise Invalid("Invalid path")
    if urlparse(path).scheme == "file":
        path = unquote(urlparse(path).path)
    if given and not path.strip():
        raise Invalid("Invalid path")  # Blanks, which reading as a URL takes away.
    parts = path.split("/")
    cleaned = "/".join(part for part in parts if part)
    # Single slashes can make a network share of what was none.
    absolute = PurePosixPath(path).is_absolute() or any(
        PureWindowsPath(one).is_absolute() for one in (path, cleaned)
    )
    if ".." in parts or absolute:
        raise Invalid("Invalid path")
    if "." in parts:
        raise Invalid(
            f"Invalid artifact path: '{path}'. Names may be treated as files in certain cases, and "
            "must not resolve to other names when treated as such."
        )
    return cleaned


def file_path(given: str) -> str:
    """A checked path that names something below the root, for whatever reads or changes one file.

    Raises Invalid for the root itself: nobody may replace or remove everything by a blank name.
    """
    path = checked_path(given)
    if not path:
        raise Invalid("Invalid path")
    return path


def path_of(artifact_uri: str) -> str:
    """The path that a run's or model's artifact URI stands for.

    Raises Invalid when the URI is not one of this server's: clients reach such stores themselves.
    """
    path = _path_here(artifact_uri)
    if path is None:
        raise Invalid(
            f"The artifacts at '{artifact_uri}' are not kept by this server. Use an MLflow client "
            "that can reach that location itself."
        )
    return checked_path(path)


def is_here(artifact_uri: str) -> bool:
    """Whether an artifact URI is one of this server's, whatever path it has."""
    return _path_here(artifact_uri) is not None


def _path_here(artifact_uri: str) -> str | None:
    uri = urlsplit(artifact_uri)
    if uri.scheme == SCHEME:
        return uri.path.strip("/")
    if uri.scheme in ("http", "https") and PROXY_PATH in uri.path:
        return uri.path.partition(PROXY_PATH)[2].strip("/")
    return None


def below(folder: str, path: str) -> str:
    """`path` inside `folder`; either may be empty."""
    return f"{folder}/{path}".strip("/")


def _decoded(given: str) -> str:
    path = given
    for _ in range(DECODINGS_MAX):
        try:
            plain = urlunparse(urlparse(unquote(path)))
        except ValueError:
            break
        if plain == path:
            return path
        path = plain
    raise Invalid("Invalid path")


def _escaped(path: str) -> str:
    # Control characters, as MLflow keeps them: percent-encoded in the file's name.
    return "".join(f"%{ord(c):02x}" if ord(c) < 0x20 or ord(c) == 0x7F else c for c in path)
