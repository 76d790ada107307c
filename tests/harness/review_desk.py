"""A registered model whose versions are asked for and decided on, by people of several names."""

from __future__ import annotations

from typing import Any

import pytest

from harness.world import TestWorld
from muniment_schemas import events as e
from muniment_schemas.columns import pack
from muniment_services.domain.commands import Command
from muniment_services.domain.errors import (
    ReviewRequired,
)
from muniment_services.domain.experiment import CreateExperiment
from muniment_services.domain.model_version import (
    CreateModelVersion,
)
from muniment_services.domain.promotion import (
    ApproveRequest,
    RequestTransition,
)
from muniment_services.domain.promotion_policy import SetPromotionPolicy
from muniment_services.domain.registered_model import RegisteredModel, require
from muniment_services.domain.registry_life import (
    CreateRegisteredModel,
)
from muniment_services.domain.review import Request
from muniment_services.domain.run_data import LogBatch
from muniment_services.domain.run_life import CreateRun


class Desk:
    """The model m, whose versions ana registers and asks for; others decide."""

    def __init__(self) -> None:
        self.world = TestWorld()
        self.do("ana", CreateRegisteredModel(name="m"))
        self.version()
        self.version()

    def do(self, who: str, command: Command, *groups: str) -> Any:
        return self.world.do(command, who, *groups)

    def version(self, run_id: str | None = None) -> None:
        self.do(
            "ana",
            CreateModelVersion(
                name="m", source=f"runs:/{run_id}/m" if run_id else "s3://b/x", run_id=run_id
            ),
        )

    def run(self, loss: float) -> str:
        create = CreateExperiment(name="e", artifact_location=None, artifact_root="r:")
        self.do("ana", create)
        made = self.do(
            "ana", CreateRun(experiment_id="1", name="r", user_id="ana", start_time_ms=1)
        )
        points = pack(["loss"], [loss], [1], [1])
        self.do("ana", LogBatch(run_id=made.run_id, metrics=points))
        return str(made.run_id)

    def policy(self, name: str = "p", **fields: Any) -> None:
        chosen = {"workspace": "default", "pattern": "m", "stages": ("Production",), **fields}
        self.do("root", SetPromotionPolicy(policy=name, **chosen))

    def ask(self, version: str = "1", stage: str = "Production", **more: Any) -> None:
        self.do("ana", RequestTransition(name="m", version=version, stage=stage, **more))

    def approve(self, who: str, *groups: str, **more: Any) -> e.TransitionApproved:
        event = self.approval(who, *groups, **more)
        self.world.fold(event)
        return event

    def approval(self, who: str, *groups: str, **more: Any) -> e.TransitionApproved:
        """The event, not folded yet."""
        chosen = {"name": "m", "version": "1", "stage": "Production", **more}
        event = self.world.decide(ApproveRequest(**chosen), who, *groups)
        assert isinstance(event, e.TransitionApproved)
        return event

    def refused(self, who: str, *groups: str, **more: Any) -> str:
        with pytest.raises(ReviewRequired) as refusal:
            self.approval(who, *groups, **more)
        return refusal.value.message

    @property
    def model(self) -> RegisteredModel:
        return require(self.world.state, "m")

    @property
    def open(self) -> list[tuple[int, str]]:
        return [(r.version, r.target.shown) for r in self.requests]

    @property
    def requests(self) -> tuple[Request, ...]:
        return self.model.review.requests

    def stage(self, version: int = 1) -> str:
        return self.model.versions[version].stage
