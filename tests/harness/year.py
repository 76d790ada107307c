"""A year of a team's history, played through the server's own front door at times of a script.

What happened is written down as it happens, from the answers and the log's ends, so that whoever
asks the trail later can be checked against it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from harness.signed_in import MLFLOW, Served, served
from muniment_auth.principal import principal_id
from muniment_services import bootstrap
from muniment_services.api import gateway
from muniment_services.api.services import Services
from muniment_services.log.base import TopicPartition

COMMIT_ONE, COMMIT_TWO = "4f2a9c" + "0" * 34, "77b1d0" + "1" * 34
DATASET = "transactions"
CATALOG = TopicPartition("catalog", 0)
POLICIES = "/api/v1/policies/promotion/"
TOKENS = "/api/v1/tokens"


def ms(text: str) -> int:
    """A time of the script, in UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


class ScriptClock:
    """The servers' clock: it stands where the script puts it, and moves on by a millisecond."""

    def __init__(self) -> None:
        self.at_ms = ms("2025-01-01")

    def __call__(self) -> int:
        self.at_ms += 1
        return self.at_ms


@dataclass
class Year:
    """The server after the year, and what happened in it."""

    server: Served
    clock: ScriptClock
    places: dict[str, str] = field(default_factory=dict)
    """Step of the script to the place of the last event of the catalog that it led to."""
    times: dict[str, int] = field(default_factory=dict)
    """Step of the script to when it was over."""
    runs: dict[str, str] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    """Ids that were given out."""

    def id(self, who: str) -> str:
        """A person's principal id."""
        return principal_id(self.server.provider.url, who)

    @property
    def services(self) -> Services:
        """What the server consists of."""
        found = self.server.gateway.services
        assert found is not None
        return found

    def begin(self, day: str) -> None:
        """Go to a day."""
        assert ms(day) > self.clock.at_ms
        self.clock.at_ms = ms(day)

    def over(self, step: str) -> None:
        """Note that a step is over, and where it was in the log."""
        ends = self.server.loop.run_until_complete(self.services.fold.log.end_offsets())
        self.places[step] = f"catalog/0/{ends[CATALOG] - 1}"
        self.times[step] = self.clock.at_ms

    def do(self, who: str, path: str, body: Any, method: str = "POST") -> dict[str, Any]:
        """A call that succeeds."""
        answer = self.server.ask(who, method, path if path.startswith("/") else MLFLOW + path, body)
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert isinstance(found, dict)
        return found

    def refused(self, who: str, path: str, body: Any, method: str = "POST") -> None:
        """A call that does not."""
        answer = self.server.ask(who, method, path if path.startswith("/") else MLFLOW + path, body)
        assert answer.status_code in (401, 403, 404), answer.text

    def get(self, who: str, path: str) -> dict[str, Any]:
        """A read that succeeds."""
        return self.do(who, path, None, "GET")

    def train(self, who: str, name: str, commit: str, digest: str) -> str:
        """A run with a commit, a dataset, a metric and a file; its id."""
        made = self.do(
            who,
            "runs/create",
            {
                "experiment_id": self.facts["experiment"],
                "run_name": name,
                "tags": [{"key": "mlflow.source.git.commit", "value": commit}],
            },
        )
        run_id = str(made["run"]["info"]["run_id"])
        dataset = {"name": DATASET, "digest": digest, "source_type": "s3", "source": "s3://b/x"}
        self.do(who, "runs/log-inputs", {"run_id": run_id, "datasets": [{"dataset": dataset}]})
        point = {"run_id": run_id, "key": "auc", "value": 0.9, "timestamp": 1}
        self.do(who, "runs/log-metric", point)
        self.runs[name] = run_id
        folder = f"{self.facts['experiment']}/{run_id}/artifacts/model"
        stored = self.server.ask(
            who, "PUT", f"/api/2.0/mlflow-artifacts/artifacts/{folder}/MLmodel", content=b"flavors:"
        )
        assert stored.status_code == 200, stored.text
        return run_id

    def register(self, who: str, model: str, run_id: str) -> str:
        """A version of a run's model; its number."""
        body = {"name": model, "source": f"runs:/{run_id}/model", "run_id": run_id}
        return str(self.do(who, "model-versions/create", body)["model_version"]["version"])

    def review(self, who: str, what: str, version: str, stage: str, **more: Any) -> None:
        """Ask for a promotion of fraud (create), approve or reject it."""
        body = {"name": "fraud", "version": version, "stage": stage, **more}
        if what == "approve":
            body.setdefault("archive_existing_versions", False)
        self.do(who, f"transition-requests/{what}", body)


@contextmanager
def scripted_year(folder: Path) -> Iterator[Year]:
    """The server of a year that is over."""
    clock = ScriptClock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bootstrap, "now_ms", clock)
        patch.setattr(gateway, "now_ms", clock)
        with served(folder) as server:
            year = Year(server, clock)
            for act in (_winter, _policy, _spring, _summer, _autumn):
                act(year)
            yield year


def _winter(year: Year) -> None:
    """Rights, a first model, a promotion before there is a policy, reads and refusals."""
    year.begin("2025-01-02")
    grant = year.server.grant
    year.facts["ana edits"] = grant("ana", "editor", "model", "fraud*")
    grant("ana", "editor", "experiment", "*")
    year.facts["bob approves"] = grant("bob", "approver", "model", "fraud*")
    year.facts["cid approves"] = grant("cid", "approver", "model", "fraud*", stages=["Production"])
    grant("dan", "viewer", "model", "fraud")
    grant("eva", "auditor", "*", "*")
    year.over("rights")
    year.begin("2025-01-10")
    made = year.do("ana", "experiments/create", {"name": "detect"})
    year.facts["experiment"] = str(made["experiment_id"])
    run_id = year.train("ana", "first", COMMIT_ONE, "d1")
    year.do("ana", "registered-models/create", {"name": "fraud"})
    assert year.register("ana", "fraud", run_id) == "1"
    year.over("first version")
    year.begin("2025-01-15")
    move = {
        "name": "fraud",
        "version": "1",
        "stage": "Production",
        "archive_existing_versions": False,
    }
    year.do("bob", "model-versions/transition-stage", move)
    year.over("first in production")
    year.begin("2025-02-01")
    year.get("dan", "model-versions/get?name=fraud&version=1")
    place = f"{year.facts['experiment']}/{run_id}/artifacts/model/MLmodel"
    got = year.server.ask("dan", "GET", f"/api/2.0/mlflow-artifacts/artifacts/{place}")
    assert got.status_code == 200, got.text
    year.refused("mallory", "model-versions/get?name=fraud&version=1", None, "GET")
    year.refused("dan", "model-versions/transition-stage", {**move, "stage": "Archived"})
    year.over("reads")


def _policy(year: Year) -> None:
    """A policy that asks for two approvals, and a version that gets them."""
    year.begin("2025-03-01")
    policy = {
        "pattern": "fraud*",
        "stages": ["Production"],
        "aliases": ["champion"],
        "approvals": 2,
        "condition": "metrics.auc > 0.8",
    }
    year.do("admin", f"{POLICIES}fraud", policy, "PUT")
    year.over("policy")
    year.begin("2025-03-10")
    run_id = year.train("ana", "second", COMMIT_TWO, "d2")
    assert year.register("ana", "fraud", run_id) == "2"
    year.refused(
        "bob",
        "model-versions/transition-stage",
        {"name": "fraud", "version": "2", "stage": "Production", "archive_existing_versions": True},
    )
    year.begin("2025-03-12")
    year.review("ana", "create", "2", "Production", comment="better on recent data")
    year.over("second asked for")
    year.begin("2025-03-13")
    year.review("bob", "approve", "2", "Production")
    year.over("second approved once")
    year.begin("2025-03-14")
    year.review("cid", "approve", "2", "Production", archive_existing_versions=True, comment="ok")
    year.over("second in production")


def _spring(year: Year) -> None:
    """A policy that lets one person stand on both sides, and one who does; a model without one."""
    year.begin("2025-04-01")
    policy = {
        "pattern": "fraud*",
        "stages": ["Production"],
        "aliases": ["champion"],
        "approvals": 1,
        "exclude_requester": False,
        "exclude_author": False,
    }
    year.do("admin", f"{POLICIES}fraud", policy, "PUT")
    year.facts["ana approves"] = year.server.grant("ana", "approver", "model", "fraud")
    year.over("policy relaxed")
    year.begin("2025-04-05")
    run_id = year.train("ana", "third", COMMIT_TWO, "d2")
    assert year.register("ana", "fraud", run_id) == "3"
    year.review("ana", "create", "3", "Production")
    year.review("ana", "approve", "3", "Production", archive_existing_versions=True)
    year.over("third in production")
    year.begin("2025-05-01")
    year.server.grant("fay", "editor", "model", "*")
    year.server.grant("fay", "editor", "experiment", "*")
    year.do("fay", "registered-models/create", {"name": "churn"})
    body = {"name": "churn", "source": "s3://elsewhere/churn"}
    year.do("fay", "model-versions/create", body)
    move = {
        "name": "churn",
        "version": "1",
        "stage": "Production",
        "archive_existing_versions": False,
    }
    year.do("fay", "model-versions/transition-stage", move)
    year.over("churn in production")


def _summer(year: Year) -> None:
    """A token's life, a right that is taken back and one that ends, an alias, an erasure."""
    year.begin("2025-06-01")
    ends_ms = ms("2025-07-01")
    made = year.do("dan", TOKENS, {"name": "nightly", "expires_at_ms": ends_ms})
    token = made["secret"]
    year.facts["token"] = str(made["token"]["id"])
    year.begin("2025-06-02")
    with_token = {"headers": {"authorization": f"Bearer {token}"}}
    read = "registered-models/get?name=fraud"
    for _ in range(3):
        answer = year.server.ask(None, "GET", MLFLOW + read, **with_token)
        assert answer.status_code == 200, answer.text
    answer = year.server.ask(
        None, "DELETE", f"{MLFLOW}registered-models/delete", {"name": "fraud"}, **with_token
    )
    assert answer.status_code == 403, answer.text
    year.begin("2025-06-20")
    year.do("dan", f"{TOKENS}/{year.facts['token']}", None, "DELETE")
    year.over("token")
    year.begin("2025-07-01")
    year.server.grant("gil", "approver", "model", "fraud", expires_at_ms=ms("2025-08-15"))
    year.begin("2025-07-10")
    path = f"/api/v1/access/grants/{year.facts['bob approves']}?reason=moved"
    year.do("admin", path, None, "DELETE")
    year.over("bob revoked")
    year.begin("2025-08-01")
    year.review("ana", "create", "3", "@champion")
    year.review("gil", "approve", "3", "@champion")
    year.over("champion")
    year.begin("2025-09-01")
    path = f"/api/v1/privacy/principals/{year.id('dan')}/erasure"
    year.do("admin", path, {"reason": "request 17"})
    year.over("erasure")


def _autumn(year: Year) -> None:
    """What is deleted, and made again under the same name."""
    year.begin("2025-10-01")
    year.do("ana", "model-versions/delete", {"name": "fraud", "version": "1"}, "DELETE")
    year.over("first deleted")
    year.begin("2025-10-10")
    year.do("fay", "registered-models/delete", {"name": "churn"}, "DELETE")
    year.begin("2025-10-15")
    year.do("fay", "registered-models/create", {"name": "churn"})
    year.over("churn again")
    year.begin("2025-12-31")
