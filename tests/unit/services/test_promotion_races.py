"""Policies and moves that race on one log: no move stands behind a policy that forbids it."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from muniment_schemas import events as e
from muniment_schemas.envelope import CATALOG, Event
from muniment_schemas.ids import Offset
from muniment_services.api.services import Services
from muniment_services.domain.commands import Command
from muniment_services.domain.errors import DomainError
from muniment_services.domain.model_version import CreateModelVersion, TransitionStage
from muniment_services.domain.promotion import ApproveRequest, RequestTransition
from muniment_services.domain.promotion_policy import SetPromotionPolicy
from muniment_services.domain.registered_model import RegisteredModel
from muniment_services.domain.registry_life import CreateRegisteredModel, SetAlias
from muniment_services.log.base import TopicPartition
from muniment_services.write import Caller
from unit.services.test_write import caller, run

ROUNDS = 12
GUARDED: dict[str, Any] = {"workspace": "*", "stages": ("Production",), "aliases": ("champion",)}


def nothing(_: object) -> bytes:
    return b""


async def submit(services: Services, command: Command, who: str = "tester") -> None:
    asked: Caller = caller()
    actor = dataclasses.replace(asked, actor=type(asked.actor)(principal_id=who, auth_method="x"))
    await services.writer.submit(actor, command, nothing)


def recorded(services: Services, model_id: str) -> list[Event]:
    """The catalog's events on a model and on policies, in log order."""
    at = TopicPartition(CATALOG, 0)
    end = services.fold.state.next_offsets[at]
    log, codec = services.fold.log, services.writer._codec
    events = [codec.decode(r.value) for r in log.read(at, Offset(0), int(end))]
    return [x for x in events if x.AGGREGATE == "promotion_policy" or _on(x, model_id)]


def _on(event: Event, model_id: str) -> bool:
    return event.envelope.aggregate_id == model_id


@pytest.mark.parametrize("kind", ["stage", "alias"])
def test_a_plain_move_comes_before_the_policy_or_not_at_all(tmp_path: Path, kind: str) -> None:
    async def test(services: Services) -> None:
        for number in range(ROUNDS):
            name = f"m{number}"
            await submit(services, CreateRegisteredModel(name=name))
            await submit(services, CreateModelVersion(name=name, source="s3://b/x"))
            move: Command = TransitionStage(name=name, version="1", stage="Production")
            if kind == "alias":
                move = SetAlias(name=name, alias="champion", version="1")
            policy = SetPromotionPolicy(policy=name, pattern=name, **GUARDED)
            tasks = [submit(services, one) for one in ((move, policy), (policy, move))[number % 2]]
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(r is None or isinstance(r, DomainError) for r in results), results
            model = services.fold.state.named("registered_model", name)
            assert isinstance(model, RegisteredModel)
            events = recorded(services, model.model_id)
            moved = [
                i for i, x in enumerate(events) if isinstance(x, (e.StageTransitioned, e.AliasSet))
            ]
            laid = [
                i
                for i, x in enumerate(events)
                if isinstance(x, e.PromotionPolicySet) and x.pattern == name
            ]
            there = model.versions[1].stage == "Production" or bool(model.aliases)
            assert there == any(place < laid[0] for place in moved)

    run(tmp_path, test)


def test_two_approvers_at_once_are_two_approvals(tmp_path: Path) -> None:
    async def test(services: Services) -> None:
        await submit(services, SetPromotionPolicy(policy="p", pattern="*", approvals=2, **GUARDED))
        for number in range(ROUNDS):
            name = f"m{number}"
            about: dict[str, Any] = {"name": name, "version": "1", "stage": "Production"}
            await submit(services, CreateRegisteredModel(name=name))
            await submit(services, CreateModelVersion(name=name, source="s3://b/x"))
            await submit(services, RequestTransition(**about))
            tries = [
                submit(services, ApproveRequest(**about), who) for who in ("bob", "cid", "bob")
            ]
            results = await asyncio.gather(*tries, return_exceptions=True)
            assert sum(isinstance(r, DomainError) for r in results) == 1, results
            model = services.fold.state.named("registered_model", name)
            assert isinstance(model, RegisteredModel)
            assert model.versions[1].stage == "Production"
            assert model.review.requests == ()

    run(tmp_path, test)


def test_what_was_decided_stands_after_a_restart(tmp_path: Path) -> None:
    states: list[object] = []

    async def fill(services: Services) -> None:
        await submit(services, CreateRegisteredModel(name="m"))
        await submit(services, CreateModelVersion(name="m", source="s3://b/x"))
        await submit(services, SetPromotionPolicy(policy="p", pattern="m", approvals=2, **GUARDED))
        about: dict[str, Any] = {"name": "m", "version": "1", "stage": "Production"}
        await submit(services, RequestTransition(**about))
        await submit(services, ApproveRequest(**about), "bob")
        states.append(services.fold.state.catalog)

    async def look(services: Services) -> None:
        assert services.fold.state.catalog == states[0]
        about: dict[str, Any] = {"name": "m", "version": "1", "stage": "Production"}
        with pytest.raises(DomainError, match="already"):
            await submit(services, ApproveRequest(**about), "bob")
        await submit(services, ApproveRequest(**about), "cid")
        model = services.fold.state.named("registered_model", "m")
        assert isinstance(model, RegisteredModel)
        assert model.versions[1].stage == "Production"

    run(tmp_path, fill)
    run(tmp_path, look)
