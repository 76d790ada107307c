"""Packs of a proved log in memory, unpacked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from muniment_schemas.ids import Offset
from muniment_services.log.base import TopicPartition
from muniment_services.proof.cosigner import Cosigner
from muniment_services.proof.pack import Pack, Wanted, covering, fill
from muniment_services.proof.pack_report import Asked, Page, write_report
from muniment_services.proof.prover import Prover

COLUMNS = ("topic", "partition", "offset", "event_id", "type", "at_ms")


def rows(prover: Prover, at: TopicPartition, offsets: Sequence[int]) -> list[dict[str, Any]]:
    """A row per record, as the trail has them."""
    found = []
    for offset in offsets:
        (record,) = prover.log.read(at, Offset(offset), 1)
        headers = dict(record.headers)
        event_id, kind = headers["ce_id"].decode(), headers["ce_type"].decode()
        told = (at.topic, at.partition, offset, event_id, kind, record.timestamp_ms)
        found.append(dict(zip(COLUMNS, told, strict=True)))
    return found


async def pages(
    prover: Prover, offsets: Mapping[TopicPartition, Sequence[int]]
) -> AsyncIterator[Page]:
    """A page per tree."""
    for at, wanted in offsets.items():
        yield Page(rows(prover, at, wanted), [(at.topic, at.partition, one) for one in wanted])


def asked(ends: Mapping[TopicPartition, int], **more: Any) -> Asked:
    """A question."""
    told: dict[str, Any] = {"name": "query", "question": "What was tested?", "verdict": None}
    told |= {
        "complete": False,
        "parameters": {"q": "tested"},
        "log": "log.test",
        "by": {"id": "ana"},
        "at_ms": 1,
    }
    return Asked(**(told | {"columns": COLUMNS, "ends": ends} | more))


async def packed(
    prover: Prover,
    folder: Path,
    offsets: Mapping[TopicPartition, Sequence[int]],
    earlier: Mapping[TopicPartition, Sequence[int]] | None = None,
    cosigner: Cosigner | None = None,
    **more: Any,
) -> str:
    """Make a pack and unpack it into a folder; returns the SHA-256 of its manifest."""
    ends = {at: max(found, default=0) + 1 for at, found in offsets.items()}
    for at, sizes in (earlier or {}).items():
        ends[at] = max(ends.get(at, 0), *sizes)
    heads = await covering(prover, ends, cosigner)
    path = folder.with_suffix(".zip")
    with path.open("w+b") as file:
        pack = Pack(file)
        found = await write_report(pack, asked(ends, **more), heads, pages(prover, offsets))
        digest = await fill(pack, prover, heads, Wanted(found, earlier or {}))
    with ZipFile(path) as opened:
        opened.extractall(folder)
    return digest
