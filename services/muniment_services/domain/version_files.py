"""Where the files of a registered version are, as far as this server keeps them, and when they stay
as they are.

A version that got to a stage or an alias by an approval under a promotion policy got there by what
its files were. Nobody changes them while it is there and a policy guards it: neither replaces, nor
adds, nor removes any. It is checked when a change is decided, by what the catalog says then.

What somebody moves without anybody's approval is not sealed: it may be files of others. To a
version that is all artifacts of a run, files may still be added.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from muniment_services.domain.artifact import checked_path, owners, path_of
from muniment_services.domain.commands import AggregateKey, World
from muniment_services.domain.errors import Invalid, ReviewRequired
from muniment_services.domain.promotion_policy import all_concerning, all_in_force
from muniment_services.domain.registered_model import KIND as MODEL
from muniment_services.domain.registered_model import ModelVersion, RegisteredModel, reached
from muniment_services.domain.run import KIND as RUN
from muniment_services.domain.run import Run


def folder_of(world: World, version: ModelVersion) -> str | None:
    """The path of a version's files below the artifact root; None: they are kept elsewhere.

    The run that a `runs:/` location names must have been loaded.
    """
    try:
        return path_of(place_of(world, version))
    except Invalid:
        return None


def place_of(world: World, version: ModelVersion) -> str:
    """The URI of a version's files; of a `runs:/` location, of that run's folder.

    Raises Invalid. The run must have been loaded; a location of one that there is not stays.
    """
    of_run = _of_run(version)
    run = None if of_run is None else world.known(RUN, of_run[0])
    if of_run is None or not isinstance(run, Run):
        return version.storage_location
    return f"{run.artifact_uri.rstrip('/')}/{of_run[1]}".rstrip("/")


def place_told(world: World, model: RegisteredModel, version: ModelVersion) -> str:
    """Where clients are to load a version from: by its location, as MLflow's server says it.

    Clients load `runs:/RUN/NAME` also from any logged model of that name that the run has by then.
    Of a model that a policy is about they are sent to the files that approvals rest on.
    Raises Invalid.
    """
    if not all_concerning(world, model.name, model.workspace):
        return version.storage_location
    return place_of(world, version)


def owners_of_files(version: ModelVersion) -> Iterator[AggregateKey]:
    """The runs and logged models in whose folders a version's files are."""
    try:
        of_run = _of_run(version)
        if of_run is not None:
            yield RUN, of_run[0]
        else:
            yield from owners(path_of(version.storage_location))
    except Invalid:
        return


def require_unsealed(world: World, owned_by: Iterable[str], path: str, adds: bool = False) -> None:
    """Raise ReviewRequired when the files at or below a path are, or hold, those of a version that
    stays as it is.

    owned_by: ids of what they belong to, which must have been loaded. adds: whether there is no
    such file yet.
    """
    for owner in owned_by:
        for model_id, number in world.versions_of_files(owner):
            model = world.known(MODEL, model_id)
            assert isinstance(model, RegisteredModel)
            version = model.versions[number]
            folder = folder_of(world, version)
            if folder is None or not _overlap(folder, path):
                continue
            if adds and _is_whole_run(world, owner, folder):
                continue
            for target in reached(model, version):
                if (number, target) not in model.reviewed:
                    continue
                if policies := all_in_force(world, model, target):
                    # Who may not know of the model is not told which it is.
                    shown = world.get(MODEL, model_id)
                    whose, ask = f"version {number} of {model.name}", ""
                    if shown is None:
                        whose, ask = "a model", " An administrator of this server knows which."
                    raise ReviewRequired(
                        f"These files are those of {whose}, which is {target.shown} by the policy "
                        f"{', '.join(policy.policy for policy in policies)}; they stay as they are "
                        "while it is. Log other files to another run or folder and register them "
                        f"as a new version, or take this one out of {target.shown} first.{ask}"
                    )


def _of_run(version: ModelVersion) -> tuple[str, str] | None:
    """The run and the path below its artifacts that a `runs:/` location names."""
    split = urlsplit(version.storage_location)
    if split.scheme != "runs":
        return None
    run_id, _, path = split.path.lstrip("/").partition("/")
    return run_id, checked_path(path)


def _is_whole_run(world: World, owner: str, folder: str) -> bool:
    run = world.known(RUN, owner)
    return isinstance(run, Run) and path_of(run.artifact_uri) == folder


def _overlap(folder: str, path: str) -> bool:
    return f"{folder}/".startswith(f"{path}/") or f"{path}/".startswith(f"{folder}/")
