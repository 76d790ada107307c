"""Where a model version's files may come from, and where a source leads.

A source is a URI that clients will later read with the server's help, so it must not name files
that the caller has no claim to: a run's artifacts only with that run's id, a logged model only with
its id, no local path outside them, no `..` in any spelling, no host that the server would have to
connect to. Nothing here looks at a disk: paths are compared as text.
Source: MLflow 3.17, answers of its server to model-versions/create.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, replace
from typing import NoReturn
from urllib.parse import SplitResult, unquote, unquote_plus, urlsplit

from muniment_services.domain import logged_model as logged_models
from muniment_services.domain import run as runs
from muniment_services.domain.commands import World
from muniment_services.domain.errors import Invalid, NotAllowedNow, NotFound
from muniment_services.domain.registered_model import (
    latest_versions,
    require,
    require_alias,
    require_version,
)
from muniment_services.domain.registry_names import is_prompt, stage_of
from muniment_services.domain.review import Hand

PROMPT_SOURCES = frozenset({"dummy-source", "prompt-template"})
"""What clients send as the source of a prompt's version, which has no files."""

HOST_SCHEMES = frozenset(
    {"ftp", "sftp", "hdfs", "viewfs", "http", "https", "mlflow-artifacts", "r2", "b2", "abfss"}
)
"""Schemes whose URI names the host to connect to."""

AUTHORS_MAX = 100
"""Authors that a copy of versions remembers."""

_PROXY_ROUTE = ("api", "2.0", "mlflow-artifacts", "artifacts")


@dataclass(frozen=True, slots=True)
class Origin:
    """A source with the run and the logged model that it belongs to, as far as they are known.

    authors: who registered the versions that it is a copy of, the last first.
    """

    source: str
    run_id: str
    model_id: str
    authors: tuple[Hand, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelUri:
    """What a `models:/` URI names: a logged model, or a registered one's version in some way.

    With only a name it is the newest version.
    """

    model_id: str | None = None
    name: str = ""
    version: str | None = None
    stage: str | None = None
    alias: str | None = None


def check_prompt_source(source: str) -> None:
    """Raise Invalid unless it is what stands for a prompt's missing files."""
    if source not in PROMPT_SOURCES:
        raise Invalid(
            f"Invalid prompt source: '{source}'. Prompt sources must use an MLflow placeholder."
        )


def check(world: World, source: str, run_id: str | None, model_id: str | None) -> Origin:
    """Check a source against the ids sent with it (None: not sent) and resolve version URIs.

    Raises Invalid, or NotFound and NotAllowedNow where a `models:/` URI leads nowhere.
    """
    _check_host(source)
    origin = _resolved(world, source, run_id, model_id)
    if origin.model_id:
        _check_model_source(world, origin)
    else:
        _check_run_source(world, origin)
    return origin


def model_named_by(source: str) -> str | None:
    """The registered model that a source takes its files from. Raises Invalid for a bad URI."""
    if _split(source).scheme != "models":
        return None
    return _parse(source).name or None


def named_of_run(source: str) -> tuple[str, str, str] | None:
    """The run of a `runs:/RUN/NAME/PATH` source, the name, and the path below; None for others.

    Clients take NAME for a logged model of the run as well as for a folder of its files.
    """
    split = urlsplit(source)
    if split.scheme != "runs":
        return None
    run_id, _, below = split.path.lstrip("/").partition("/")
    name, _, path = below.partition("/")
    return run_id, name, path.strip("/")


def locate(world: World, origin: Origin, of_run: str | None) -> tuple[str, Origin]:
    """The place of a checked source's files, and the origin with what is known by now.

    of_run: the logged model that a `runs:/` source leads to. What it leads to later is another
    matter: the place is where this one's files are.
    Raises NotFound or NotAllowedNow when the logged model does not exist.
    """
    if _split(origin.source).scheme != "models":
        if not origin.model_id:
            return _of_run(world, origin, of_run)
        found = logged_models.require_active(world, origin.model_id)
        return origin.source, _with_run(origin, found)
    uri = _parse(origin.source)
    if uri.model_id is None:
        assert uri.version is not None
        _, version = require_version(world, uri.name, uri.version)
        return version.storage_location, origin
    try:
        found = logged_models.require_active(world, uri.model_id)
    except NotFound as error:
        raise NotAllowedNow(
            "Unable to fetch model from model URI source artifact location "
            f"'{origin.source}'.Error: {error.message}"
        ) from None
    return found.artifact_uri, _with_run(origin, found)


def _of_run(world: World, origin: Origin, model_id: str | None) -> tuple[str, Origin]:
    named = named_of_run(origin.source)
    found = None if model_id is None else world.get(logged_models.KIND, model_id)
    if named is None or not isinstance(found, logged_models.LoggedModel):
        return origin.source, origin
    place = f"{found.artifact_uri.rstrip('/')}/{named[2]}".rstrip("/")
    return place, replace(origin, model_id=found.model_id)


def _with_run(origin: Origin, model: logged_models.LoggedModel) -> Origin:
    return replace(origin, run_id=origin.run_id or model.source_run_id)


def _check_host(source: str) -> None:
    split = _split(source)
    scheme = split.scheme
    if scheme not in HOST_SCHEMES or (scheme == "mlflow-artifacts" and not split.netloc):
        return
    raise Invalid(
        f"'source' cannot use the '{scheme}' scheme: the '{scheme}' scheme addresses a host other "
        "than the tracking server's configured artifact storage, so the server would connect to "
        "the host named in the URI. Set the MLFLOW_ALLOWED_HOST_ADDRESSED_ARTIFACT_SCHEMES "
        "environment variable on the server to allow it."
    )


def _resolved(world: World, source: str, run_id: str | None, model_id: str | None) -> Origin:
    origin = Origin(source, run_id or "", model_id or "")
    split = _split(source)
    if split.scheme != "models":
        return origin
    if split.netloc:
        raise Invalid(
            f"Invalid model version source: '{source}'. Registered model sources must use the "
            "active model registry."
        )
    uri = _parse(source)
    if uri.model_id is not None:
        return origin
    if is_prompt(require(world, uri.name).tags):
        raise Invalid(
            f"Invalid model version source: '{source}'. Prompt versions cannot be used as model "
            "version sources."
        )
    _, version = require_version(world, uri.name, _number(world, uri))
    # A version does not pass its logged model on, so a model_id never fits one.
    if (run_id is not None and run_id != version.run_id) or model_id:
        raise Invalid(
            f"Invalid model version source: '{source}'. The run_id and model_id request parameters "
            "must match the referenced model version."
        )
    authors = tuple(dict.fromkeys((version.author, *version.copied_from)))
    if len(authors) > AUTHORS_MAX:
        raise Invalid(
            f"'{source}' is a copy of copies by {AUTHORS_MAX} people. Register its files anew."
        )
    return Origin(f"models:/{uri.name}/{version.version}", version.run_id, "", authors)


def _number(world: World, uri: ModelUri) -> str:
    if uri.version is not None:
        return uri.version
    if uri.alias is not None:
        return str(require_alias(world, uri.name, uri.alias).version)
    wanted = None if uri.stage is None else stage_of(uri.stage)
    found = [
        version.version
        for version in latest_versions(require(world, uri.name))
        if wanted is None or version.stage == wanted
    ]
    if not found:
        of_stage = "" if uri.stage is None else f" and stage '{uri.stage}'"
        raise NotAllowedNow(f"No versions of model with name '{uri.name}'{of_stage} found")
    return str(max(found))


def _check_run_source(world: World, origin: Origin) -> None:
    source, split = origin.source, _split(origin.source)
    if _is_local(source, split):
        root = _run_artifacts(world, origin) if origin.run_id else None
        _check_local(origin.source, root, "run_id")
        return
    _check_path(source)
    if split.scheme == "runs":
        of_run = split.path.lstrip("/").partition("/")[0]
        if split.netloc or not origin.run_id or of_run != origin.run_id:
            _refuse(source, "run_id")
        _run_artifacts(world, origin)
    if split.scheme == "models" and (split.netloc or _parse(source).model_id is not None):
        _refuse(source, "model_id")
    if is_proxied(source) and not (
        origin.run_id and is_within(source, _run_artifacts(world, origin))
    ):
        _refuse(source, "run_id")


def _check_model_source(world: World, origin: Origin) -> None:
    source, split = origin.source, _split(origin.source)
    if _is_local(source, split):
        _check_local(source, _model_artifacts(world, origin), "model_id")
        return
    _check_path(source)
    if split.scheme == "models" and _parse(source).model_id not in (None, origin.model_id):
        _refuse(source, "model_id")
    if split.scheme == "runs":
        _refuse(source, "model_id")
    if is_proxied(source) and not is_within(source, _model_artifacts(world, origin)):
        _refuse(source, "model_id")


def _run_artifacts(world: World, origin: Origin) -> str:
    found = world.get(runs.KIND, origin.run_id)
    if found is None:
        _refuse(origin.source, "run_id")
    assert isinstance(found, runs.Run)
    return found.artifact_uri


def _model_artifacts(world: World, origin: Origin) -> str:
    try:
        return logged_models.require_active(world, origin.model_id).artifact_uri
    except NotFound:
        _refuse(origin.source, "model_id")


def _check_local(source: str, root: str | None, id_name: str) -> None:
    if root is not None and _is_local(root, _split(root)) and _is_in_folder(source, root):
        return
    raise Invalid(
        f"Invalid model version source: '{source}'. To use a local path as a model version source, "
        f"the {id_name} request parameter has to be specified and the local path has to be "
        f"contained within the artifact directory of the run specified by the {id_name}."
    )


def _check_path(source: str) -> None:
    # The path must be absolute and its own normal form, in whatever spelling.
    text = source
    while (plain := unquote_plus(text)) != text:
        text = plain
    path = re.sub(r"/+", "/", _split(text).path.rstrip("/"))
    if (
        "\x00" in path
        or ".." in text.split("/")
        or not path.startswith("/")
        or posixpath.normpath(path) != path
    ):
        raise Invalid(
            f"Invalid model version source: '{source}'. If supplying a source as an http, https, "
            "local file path, ftp, objectstore, or mlflow-artifacts uri, an absolute path must be "
            "provided without relative path references present. Please provide an absolute path."
        )


def _parse(source: str) -> ModelUri:
    # Raises Invalid for what is no proper models:/ URI.
    path = source.partition(":")[2].partition("?")[0]
    parts = path.lstrip("/").split("/")
    name, suffix = parts[0], parts[-1]
    if not path.startswith("/") or len(parts) > 2 or not name.strip() or not suffix.strip():
        _refuse(source, "model_id")
    if len(parts) == 1:
        base, at, alias = name.rpartition("@")
        if not at:
            return ModelUri(model_id=name)
        if not alias.strip():
            _refuse(source, "model_id")
        return ModelUri(name=base, alias=alias)
    if suffix.isdigit():
        return ModelUri(name=name, version=suffix)
    if suffix.lower() == "latest":
        return ModelUri(name=name)
    return ModelUri(name=name, stage=suffix)


def _refuse(source: str, id_name: str) -> NoReturn:
    raise Invalid(
        f"Invalid model version source: '{source}'. The {id_name} request parameter must identify "
        "the resource that contains the source."
    )


def _split(uri: str) -> SplitResult:
    try:
        return urlsplit(uri)
    except ValueError as error:
        raise Invalid(f"Invalid model version source: '{uri}'. {error}.") from None


def _is_local(source: str, split: SplitResult) -> bool:
    if split.scheme == "file" and split.hostname not in (None, "", ".", "localhost", "127.0.0.1"):
        raise Invalid(
            f"Invalid model version source: '{source}'. A file: URI must not name another host."
        )
    return split.scheme in ("", "file")


def _is_in_folder(source: str, root: str) -> bool:
    within, path = _local_path(root), _local_path(source)
    return path == within or path.startswith(within.rstrip("/") + "/")


def _local_path(uri: str) -> str:
    split = _split(uri)
    path = split.path if split.scheme == "file" else uri
    return posixpath.normpath(unquote(path))


def is_proxied(source: str) -> bool:
    """Whether a source names files by this server's artifact proxy. Raises Invalid."""
    scheme, _, parts = _normal_parts(source)
    if scheme == "mlflow-artifacts":
        return True
    width = len(_PROXY_ROUTE)
    return scheme in ("http", "https") and any(
        parts[place : place + width] == _PROXY_ROUTE for place in range(len(parts) - width + 1)
    )


def is_within(source: str, root: str) -> bool:
    """Whether a place of files lies in another, however both are spelled. Raises Invalid."""
    if _is_local(source, _split(source)):
        return _is_local(root, _split(root)) and _is_in_folder(source, root)
    scheme, host, parts = _normal_parts(source)
    root_scheme, root_host, root_parts = _normal_parts(root)
    return (
        (scheme, host) == (root_scheme, root_host)
        and bool(root_parts)
        and parts[: len(root_parts)] == root_parts
    )


def _normal_parts(uri: str) -> tuple[str, str, tuple[str, ...]]:
    split = _split(uri)
    parts = tuple(_unquoted(part) for part in split.path.split("/") if part)
    return split.scheme.lower(), split.netloc.lower(), parts


def _unquoted(text: str) -> str:
    while (plain := unquote(text)) != text:
        text = plain
    return text
