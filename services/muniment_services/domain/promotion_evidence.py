"""What an approval rests on, taken down with it: bounded, and whole by a digest where it is cut."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import msgspec

from muniment_schemas import events as e
from muniment_services.domain.commands import Context
from muniment_services.domain.latest import Metric
from muniment_services.domain.promotion_policy import Rule
from muniment_services.domain.registered_model import ModelVersion
from muniment_services.domain.run import Run

COMMIT_TAG = "mlflow.source.git.commit"
METRICS_MAX = 1000
"""Metric values in the evidence of one approval: those that conditions name first."""

OF_WHO_STARTED_IT = frozenset({"actor_id", "user_id"})
"""Claims of CI jobs that say which person started them. Evidence lives for ever in clear, so they
are left out; the job itself is told by its other claims."""


class FileDigests(msgspec.Struct, frozen=True, kw_only=True):
    """The files of a version, as they were gathered before the approval was decided.

    location: the version's, of which they were gathered. by_path: SHA-256 (hex), of so many as are
    listed. total: how many there are. sha256: over all of them, a line `HEX  PATH` each, by path;
    None where nothing is kept by this server.
    """

    location: str
    by_path: Mapping[str, str] = MappingProxyType({})
    total: int = 0
    sha256: bytes | None = None


def evidence_of(
    files: FileDigests,
    rule: Rule,
    version: ModelVersion,
    run: Run | None,
    proven: bool,
    context: Context,
) -> e.Evidence:
    """The evidence of an approval. run: the one that the version names, if there is one; proven:
    whether the version's files are that run's."""
    metrics = {} if run is None else run.metrics
    datasets = () if run is None else run.datasets
    return e.Evidence(
        policies=rule.names,
        conditions=rule.conditions,
        run_id=version.run_id or None,
        metrics=_chosen(metrics, rule.conditions),
        datasets={d.name: d.digest for d in datasets},
        artifacts=dict(files.by_path),
        artifacts_total=files.total,
        source_commit=_commit(run),
        tags=version.tags,
        claims={n: values for n, values in context.claims.items() if n not in OF_WHO_STARTED_IT},
        metrics_total=len(metrics),
        dataset_digests=tuple(e.DatasetDigest(name=d.name, digest=d.digest) for d in datasets),
        artifacts_sha256=files.sha256,
        proven=proven,
        sha256=fingerprint(files, rule, version, run),
    )


def fingerprint(files: FileDigests, rule: Rule, version: ModelVersion, run: Run | None) -> bytes:
    """SHA-256 over all that an approval must rest on to count; its form: `Evidence.sha256`."""
    metrics = {} if run is None else run.metrics
    datasets = () if run is None else run.datasets
    form: dict[str, object] = {
        "run_id": version.run_id or None,
        "location": version.storage_location,
        "files": None if files.sha256 is None else files.sha256.hex(),
        "files_total": files.total,
        "source_commit": _commit(run),
        "metrics": {key: metric.value.hex() for key, metric in metrics.items()},
        "datasets": sorted((d.name, d.digest) for d in datasets),
    }
    if pinned := {key: value for key, value in version.tags.items() if rule.pins(key)}:
        form["tags"] = pinned
    text = json.dumps(form, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).digest()


def _commit(run: Run | None) -> str | None:
    return None if run is None else run.tags.get(COMMIT_TAG)


def _chosen(metrics: Mapping[str, Metric], conditions: Sequence[str]) -> dict[str, float]:
    keys = list(metrics)
    if len(keys) > METRICS_MAX:
        # A condition holds each name that it asks for as it is written; what stands in it by
        # chance (a letter) is mostly shorter.
        named = {key for key in keys if any(key in text for text in conditions)}
        keys.sort(key=lambda key: (-len(key) if key in named else 1, key))
    return {key: metrics[key].value for key in keys[:METRICS_MAX]}
