"""`muniment verify`: is the log whole, and are projections and artifacts what it says?"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from muniment_services.cli.options import (
    AsJson,
    Config,
    DataDir,
    LogOptions,
    settings_with_log,
)
from muniment_services.cli.terminal import CliError, Meter, mendable, write, write_json
from muniment_services.cli.verify_pack import kept_head_at, verify_pack
from muniment_services.clock import now_ms

if TYPE_CHECKING:
    from muniment_projections.digest import Digests
    from muniment_projections.store import Store
    from muniment_services.config import Settings
    from muniment_services.log.base import EventLog
    from muniment_services.proof.line import Head
    from muniment_services.proof.remote import Witnesses
    from muniment_services.rebuild import Ends
    from muniment_services.verify import Findings, FoldCheck

DIGESTS_PATH = "/api/v1/projections/digests"

app = App(name="verify", help_epilogue="")


@dataclass(slots=True)
class Report:
    """What was checked, for printing. None: was not checked."""

    records: int
    partitions: int
    schemas: int
    heads: int
    fold: dict[str, Any] | None = None
    tables: Mapping[str, int] | None = None
    artifacts: dict[str, int] | None = None
    notes: list[str] = field(default_factory=list)


@app.default
def verify(
    *,
    data_dir: DataDir = None,
    projections: Annotated[bool, Parameter(help="Compare the projections with a rebuild.")] = True,
    artifacts: Annotated[bool, Parameter(help="Compare the files with what was recorded.")] = True,
    head: Annotated[
        list[Path] | None,
        Parameter(
            negative="",
            help="File with a signed head from before, which the log must extend; can be repeated. "
            "[default: none]",
        ),
    ] = None,
    url: Annotated[
        str | None,
        Parameter(help="Verify the trees and heads that a server serves, and nothing else."),
    ] = None,
    pack: Annotated[
        Path | None,
        Parameter(help="Verify an evidence pack, a zip or its folder, and nothing else."),
    ] = None,
    vkey: Annotated[
        list[str] | None,
        Parameter(
            negative="",
            help="Verifier key of the log, from elsewhere, that a pack must be signed under; can "
            "be repeated. [default: none]",
        ),
    ] = None,
    witness: Annotated[
        list[str] | None,
        Parameter(
            negative="",
            help="Verifier key of a witness that cosigned the heads of a server or a pack; can be "
            "repeated. [default: none]",
        ),
    ] = None,
    quorum: Annotated[
        int | None,
        Parameter(help="How many of them it takes. [default: all]"),
    ] = None,
    json: AsJson = False,
    config: Config = None,
    log_options: LogOptions | None = None,
) -> None:
    """Check, print what was found, and exit with status 1 when anything is wrong."""
    from muniment_services.verify import Findings

    if url is None and pack is None and (witness or quorum is not None or vkey):
        raise CliError("--witness, --quorum and --vkey are about a server (--url) or a --pack", 2)
    if pack is not None:
        verify_pack(pack, head or (), vkey or (), _witnesses(witness, quorum), json)
        return
    findings = Findings()
    kept = [kept_head_at(path) for path in head or ()]
    if url is not None:
        _verify_server(url, kept, _witnesses(witness, quorum), findings, json)
        _refuse(findings)
        return
    with mendable():
        settings = settings_with_log(data_dir, config, log_options)
        report = asyncio.run(_verify(settings, findings, projections, artifacts, json, kept))
        (_print_json if json else _print)(report, findings)
    _refuse(findings)


def _refuse(findings: Findings) -> None:
    if findings.count:
        raise CliError(f"{findings.count} finding{'s' if findings.count > 1 else ''}; see above.")


def _witnesses(vkeys: Sequence[str] | None, quorum: int | None) -> Witnesses:
    from muniment_services.proof.note import Kind, NoteInvalid, verifier_key
    from muniment_services.proof.remote import Witnesses

    try:
        keys = [verifier_key(vkey) for vkey in vkeys or ()]
    except NoteInvalid as error:
        raise CliError(f"--witness: {error}", 2) from None
    if any(key.kind is Kind.ED25519 for key in keys):
        raise CliError("--witness is the key of a log's heads, not of a witness", 2)
    needed = len(keys) if quorum is None else quorum
    if quorum is not None and not keys:
        raise CliError("--quorum is of witnesses; name them by --witness", 2)
    if not min(1, len(keys)) <= needed <= len(keys):
        raise CliError(f"--quorum is 1 to {len(keys)}, as many as there are witnesses", 2)
    return Witnesses(tuple(keys), needed)


def _verify_server(
    url: str, kept: Sequence[Head], witnesses: Witnesses, findings: Findings, as_json: bool
) -> None:
    from muniment_services.cli.client import Client
    from muniment_services.proof.remote import verify as verify_trees

    client = Client(url)
    trees = []

    def fetch(path: str) -> bytes:
        return client.fetch(path)[0]

    for found in verify_trees(client.call("GET", "/log/")["logs"], fetch, kept, witnesses):
        trees.append({"topic": found.at.topic, "partition": found.at.partition, "size": found.size})
        for what in found.wrong:
            findings.add(found.at, what)
        if not as_json:
            write(f"tree         {found.at}: {found.size:,} records under a signed head")
    if as_json:
        told = [asdict(finding) for finding in findings.kept]
        write_json({"ok": findings.count == 0, "trees": trees, "findings": told})
    else:
        _print_findings(findings)


async def _verify(
    settings: Settings,
    findings: Findings,
    projections: bool,
    artifacts: bool,
    as_json: bool,
    kept: Sequence[Head],
) -> Report:
    from muniment_services import bootstrap
    from muniment_services.log import opening
    from muniment_services.proof.head_check import HeadCheck
    from muniment_services.verify import FoldCheck, LogCheck

    found = _digests(settings) if projections else None
    log = opening.open_log(settings, read_only=True)
    await log.start()
    ends = await log.end_offsets()
    codec = bootstrap.codec(log)
    heads = HeadCheck(log, codec, kept)
    for where, what in heads.read_line(ends):
        findings.add(where, what)
    check = LogCheck(log, codec, findings, now_ms(), heads.take)
    with Meter("reading the log", as_json) as meter:
        meter.show(0, sum(ends.values()))
        check.run(ends, meter.add)
    for at, what in heads.findings():
        findings.add(at, what)
    report = Report(check.records, len(ends), check.schemas, heads.compared)
    if not check.readable:
        report.notes.append("nothing was folded, since the log cannot be read whole")
        return report
    with tempfile.TemporaryDirectory(prefix="muniment-verify-") as folder:
        scratch = bootstrap.projections_store(Path(folder) / "scratch.duckdb", settings)
        fold = FoldCheck(log, codec, scratch, findings)
        _fold(fold, found, ends, report, as_json)
        if projections and found is None:
            report.notes.append("there are no projections yet; the next start builds them")
        if artifacts:
            await _check_artifacts(settings, log, fold, scratch, findings, report)
        scratch.close()
    await log.close()
    return report


def _fold(
    fold: FoldCheck, found: Digests | None, ends: Ends, report: Report, as_json: bool
) -> None:
    with Meter("folding", as_json) as meter:
        meter.show(0, sum(ends.values()))
        if found is not None:
            report.tables = fold.compare(found, ends, meter.add)
        fold.run(ends, meter.add)
    report.fold = {"applied": fold.applied, "void": dict(fold.void)}


def _digests(settings: Settings) -> Digests | None:
    import duckdb
    import msgspec

    from muniment_projections.digest import Digests, digests
    from muniment_services import instance
    from muniment_services.cli.client import Client
    from muniment_services.projection_files import newest

    server = instance.find(settings.data_dir)
    if server is not None and instance.runs(server.pid):
        return msgspec.convert(Client(server.url).call("GET", DIGESTS_PATH), Digests)
    path = newest(settings.data_dir)
    if path is None:
        return None
    with duckdb.connect(str(path), read_only=True) as connection:
        return digests(connection)


async def _check_artifacts(
    settings: Settings,
    log: EventLog,
    fold: FoldCheck,
    scratch: Store,
    findings: Findings,
    report: Report,
) -> None:
    from muniment_services.artifacts.opening import open_artifacts
    from muniment_services.artifacts.verify import UNRECORDED, verify_artifacts

    store = open_artifacts(settings).store

    async def differing() -> set[tuple[str, str]]:
        cursor = scratch.read(lambda connection: connection)
        return {(item.path, item.kind) async for item in verify_artifacts(store, cursor)}

    found = await differing()
    if any(kind != UNRECORDED for _, kind in found):
        # A server may have stored files meanwhile: what differs must differ from the newest events.
        fold.run(await log.end_offsets(), lambda _: None)
        found &= await differing()
    unrecorded = [path for path, kind in found if kind == UNRECORDED]
    for path, kind in sorted(found):
        if kind != UNRECORDED:
            findings.add(f"artifacts/{path}", f"the file is {kind}")
    report.artifacts = {"unrecorded": len(unrecorded)}


def _print(report: Report, findings: Findings) -> None:
    write(
        f"log          {report.records:,} records in {report.partitions} partitions, "
        f"{report.schemas} schemas"
    )
    write(f"heads        {report.heads:,} signed heads compared with the log's records")
    if report.fold is not None:
        void = report.fold["void"]
        write(f"fold         {report.fold['applied']:,} applied, {sum(void.values()):,} void")
        for reason, count in void.items():
            write(f"               {count:,} void: {reason}")
    if report.tables is not None:
        rows = ", ".join(f"{name} {count:,}" for name, count in report.tables.items())
        write(f"projections  compared with a rebuild, rows: {rows}")
    if report.artifacts is not None:
        rest = report.artifacts["unrecorded"]
        more = f"; {rest} that no event records, as a crash leaves them" if rest else ""
        write(f"artifacts    compared with what was recorded{more}")
    for note in report.notes:
        write(f"note         {note}")
    _print_findings(findings)


def _print_findings(findings: Findings) -> None:
    for finding in findings.kept:
        write(f"WRONG        {finding.where}: {finding.what}")
    if findings.count > len(findings.kept):
        write(f"WRONG        and {findings.count - len(findings.kept)} more")
    if not findings.count:
        write("all is well")


def _print_json(report: Report, findings: Findings) -> None:
    kept = [asdict(finding) for finding in findings.kept]
    write_json(
        {"ok": findings.count == 0, **asdict(report), "findings": kept, "count": findings.count}
    )
