"""`muniment backup`: copies of log, artifacts and keys, made beside a server, checked, restored."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from muniment_services.cli import backup_help as help
from muniment_services.cli.options import (
    AsJson,
    Config,
    DataDir,
    LogOptions,
    settings_of,
    settings_with_log,
)
from muniment_services.cli.terminal import CliError, Meter, mendable, write, write_json
from muniment_services.clock import now_ms

if TYPE_CHECKING:
    from muniment_auth.identity import KeyPlace
    from muniment_services.backup.base import Backups, Manifest
    from muniment_services.backup.create import Made
    from muniment_services.backup.sealing import Sealer
    from muniment_services.config import Settings
    from muniment_services.verify import Findings

USAGE_STATUS = 2
PASSPHRASE = "MUNIMENT_BACKUP_PASSPHRASE"

Place = Annotated[str, Parameter(help="Folder, or s3://, gs:// or az://BUCKET/PREFIX.")]
PassphraseFile = Annotated[
    Path | None,
    Parameter(help=f"File whose first line is the passphrase. [default: {PASSPHRASE}]"),
]
WithoutKeys = Annotated[
    bool, Parameter(negative="", show_default=False, help="Leave the keys out.")
]
Chosen = Annotated[
    str | None, Parameter(name="--backup", help="Name, or its beginning. [default: the newest]")
]

app = App(name="backup", help_epilogue="", help_format="plaintext")


@app.command(help=help.BACKUP_CREATE, help_epilogue="")
def create(
    *,
    to: Annotated[str, Parameter(help="Folder, or s3://, gs:// or az://BUCKET/PREFIX.")],
    data_dir: DataDir = None,
    without_keys: WithoutKeys = False,
    passphrase_file: PassphraseFile = None,
    json: AsJson = False,
    config: Config = None,
    log_options: LogOptions | None = None,
) -> None:
    """Make a backup; exit status 1 when files were not as the log says."""
    with mendable():
        settings = settings_with_log(data_dir, config, log_options)
        passphrase = None if without_keys else _passphrase(passphrase_file)
        if not without_keys and passphrase is None:
            raise CliError(
                f"no passphrase seals the keys: give {PASSPHRASE} or --passphrase-file, or leave "
                "them out by --without-keys.",
                USAGE_STATUS,
            )
        made = asyncio.run(_create(settings, to, passphrase, json))
    _told(made, to, json)
    if made.manifest.missing:
        raise CliError(
            f"{len(made.manifest.missing)} files were not as the log says, the first of them "
            f"{made.manifest.missing[0]}; `muniment verify` tells what is wrong with them."
        )


async def _create(settings: Settings, to: str, passphrase: str | None, as_json: bool) -> Made:
    from muniment_services import bootstrap
    from muniment_services.artifacts.opening import open_artifacts
    from muniment_services.backup.base import open_backups
    from muniment_services.backup.create import Maker
    from muniment_services.keys import open_keys
    from muniment_services.log import opening
    from muniment_services.release import release

    backups = open_backups(to, make=True)
    sealer = _sealer(backups, passphrase)
    keys = None if sealer is None else (open_keys(settings), sealer)
    log = opening.open_log(settings, read_only=True)
    await log.start()
    try:
        codec, store = bootstrap.codec(log), open_artifacts(settings).store
        maker = Maker(backups, log, codec, store, keys, release(), now_ms)
        with (
            Meter("copying the log", as_json) as events,
            Meter("copying files", as_json, unit="files") as files,
        ):
            return await maker.run(events.show, files.show)
    finally:
        await log.close()


def _told(made: Made, to: str, as_json: bool) -> None:
    manifest = made.manifest
    if as_json:
        write_json(
            {
                "name": made.name,
                "events": sum(manifest.ends().values()),
                "new_events": made.new_records,
                "files": len(manifest.artifacts),
                "new_files": made.new_files,
                "keys": None if manifest.keys is None else len(manifest.keys),
                "missing": list(manifest.missing),
            }
        )
        return
    write(
        f"made backup {made.name} in {to}: {sum(manifest.ends().values()):,} events "
        f"({made.new_records:,} new), {len(manifest.artifacts):,} files ({made.new_files:,} new), "
        + ("no keys" if manifest.keys is None else f"{len(manifest.keys):,} keys")
    )


@app.command(name="list", help=help.BACKUP_LIST, help_epilogue="")
def list_backups(place: Place, /, *, json: AsJson = False) -> None:
    """Print the backups of a place, the newest first."""
    from muniment_services.backup.base import open_backups

    with mendable():
        backups = open_backups(place, make=False)
        for name in backups.names():
            manifest = backups.named(name)
            made = datetime.fromtimestamp(manifest.created_at_ms / 1000, UTC)
            events, files = sum(manifest.ends().values()), len(manifest.artifacts)
            if json:
                write_json(
                    {
                        "name": name,
                        "created_at_ms": manifest.created_at_ms,
                        "log_id": manifest.log_id,
                        "muniment_version": manifest.muniment_version,
                        "events": events,
                        "files": files,
                        "keys": None if manifest.keys is None else len(manifest.keys),
                    }
                )
                continue
            write(f"{name}  {made:%Y-%m-%d %H:%M:%S} UTC  {events:,} events  {files:,} files")


@app.command(help=help.BACKUP_VERIFY, help_epilogue="")
def verify(
    place: Place,
    /,
    *,
    backup: Chosen = None,
    passphrase_file: PassphraseFile = None,
    json: AsJson = False,
) -> None:
    """Check a backup, print what was found; exit status 1 when anything is wrong."""
    from muniment_services.backup.base import open_backups
    from muniment_services.verify import Findings

    findings = Findings()
    with mendable():
        backups = open_backups(place, make=False)
        manifest = backups.manifest(backup)
        sealer = _sealer(backups, _passphrase(passphrase_file))
        asyncio.run(_verify(backups, manifest, sealer, findings, json))
    _report(manifest, findings, json)
    if findings.count:
        raise CliError(f"{findings.count} finding{'s' if findings.count > 1 else ''}; see above.")


async def _verify(
    backups: Backups, manifest: Manifest, sealer: Sealer | None, findings: Findings, as_json: bool
) -> None:
    from muniment_services import bootstrap
    from muniment_services.backup.check import BackupCheck
    from muniment_services.backup.segments import BackedUpLog

    check, log = BackupCheck(backups, manifest, findings), BackedUpLog(backups, manifest)
    with Meter("reading the log", as_json) as meter:
        meter.show(0, sum(manifest.ends().values()))
        await asyncio.to_thread(check.check_log, log, bootstrap.codec(log), now_ms(), meter.add)
    with Meter("reading files", as_json, unit="files") as meter:
        meter.show(0, len({file.sha256 for file in manifest.artifacts}))
        await check.check_files(meter.add)
    await asyncio.to_thread(check.check_keys, sealer, backups.erased(manifest))


def _report(manifest: Manifest, findings: Findings, as_json: bool) -> None:
    events, files = sum(manifest.ends().values()), len(manifest.artifacts)
    if as_json:
        found = [{"where": f.where, "what": f.what} for f in findings.kept]
        ok, count = not findings.count, findings.count
        write_json({"ok": ok, "events": events, "files": files, "findings": found, "count": count})
        return
    for finding in findings.kept:
        write(f"WRONG        {finding.where}: {finding.what}")
    if not findings.count:
        keys = "no keys" if manifest.keys is None else f"{len(manifest.keys):,} keys"
        write(f"all is well: {events:,} events, {files:,} files, {keys}")


@app.command(help=help.BACKUP_RESTORE, help_epilogue="")
def restore(
    place: Place,
    /,
    *,
    data_dir: DataDir = None,
    backup: Chosen = None,
    without_keys: WithoutKeys = False,
    passphrase_file: PassphraseFile = None,
    json: AsJson = False,
    config: Config = None,
    log_options: LogOptions | None = None,
) -> None:
    """Restore a backup into places that are empty."""
    from muniment_services.backup.base import open_backups
    from muniment_services.instance import held
    from muniment_services.keys import open_keys

    with mendable():
        settings = settings_of(data_dir, config, log_options)
        backups = open_backups(place, make=False)
        manifest = backups.manifest(backup)
        keys: tuple[KeyPlace, Sealer] | None = None
        if manifest.keys is not None and not without_keys:
            sealer = _sealer(backups, _passphrase(passphrase_file))
            if sealer is None:
                raise CliError(
                    f"the keys are sealed: give {PASSPHRASE} or --passphrase-file, or leave them "
                    "out by --without-keys; nobody will be known by name then.",
                    USAGE_STATUS,
                )
            keys = (open_keys(settings), sealer)
        with held(settings.data_dir):
            found = asyncio.run(_restore(settings, backups, manifest, keys, json))
    if json:
        write_json(found)
        return
    told = "no keys" if found["keys"] is None else f"{found['keys']:,} keys"
    write(
        f"restored {found['events']:,} events (SHA-256 {found['sha256']}), {found['files']:,} "
        f"files, {told}; all was compared. `muniment verify` checks it once more."
    )


async def _restore(
    settings: Settings,
    backups: Backups,
    manifest: Manifest,
    keys: tuple[KeyPlace, Sealer] | None,
    as_json: bool,
) -> dict[str, Any]:
    from muniment_services.artifacts.opening import open_artifacts
    from muniment_services.backup.restore import Restorer
    from muniment_services.log import opening

    restorer, artifacts = Restorer(backups, manifest), open_artifacts(settings)
    target = opening.open_log(
        settings.model_copy(update={"runs_partitions": manifest.partitions["runs"]})
    )
    await target.start()
    try:
        await artifacts.start()
        await restorer.refuse_unless_empty(target, artifacts.store)
        files = len(manifest.artifacts) - len(manifest.missing)
        with Meter("restoring files", as_json, unit="files") as meter:
            meter.show(0, files)
            await restorer.restore_files(artifacts.store, meter.add)
        restored = None
        if keys is not None:
            erased = backups.erased(manifest)
            restored = await asyncio.to_thread(restorer.restore_keys, *keys, erased)
        with Meter("restoring the log", as_json) as copying, Meter("comparing", as_json) as reading:
            copying.show(0, sum(manifest.ends().values()))
            reading.show(0, sum(manifest.ends().values()))
            copied = await restorer.restore_log(target, copying.add, reading.add)
    finally:
        await target.close()
    return {"events": copied.records, "sha256": copied.sha256, "files": files, "keys": restored}


def _passphrase(file: Path | None) -> str | None:
    if file is not None:
        lines = file.read_text("utf-8").splitlines()
        return lines[0] if lines and lines[0] else None
    return os.environ.get(PASSPHRASE) or None


def _sealer(backups: Backups, passphrase: str | None) -> Sealer | None:
    from muniment_services.backup.sealing import sealer_of

    return None if passphrase is None else sealer_of(backups, passphrase, os.urandom)
