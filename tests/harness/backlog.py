"""A log that is long before anyone reads it: events appended to Kafka without a server."""

from __future__ import annotations

import asyncio
import random

from harness.kafka_home import Home
from muniment_schemas.columns import pack
from muniment_schemas.envelope import WORKSPACE_DEFAULT, Actor
from muniment_schemas.events import BatchLogged
from muniment_services import bootstrap
from muniment_services.clock import now_ms
from muniment_services.config import Settings
from muniment_services.domain.commands import Context
from muniment_services.domain.run_life import CreateRun, create
from muniment_services.log import opening
from muniment_services.log.base import EventLog
from muniment_services.state import CurrentState
from muniment_services.write import record_of

AT_ONCE = 5_000
POINTS = 20


def fill(home: Home, state: CurrentState, runs: int, batches: int) -> list[str]:
    """Append runs of so many batches of POINTS points each; gives the run ids.

    state: has the Default experiment, which a server made.
    """
    return asyncio.run(_fill(home, state, runs, batches))


async def _fill(home: Home, state: CurrentState, runs: int, batches: int) -> list[str]:
    log: EventLog = opening.open_log(
        Settings(
            log="kafka", kafka_bootstrap=tuple(home.bootstrap.split(",")), kafka_prefix=home.prefix
        )
    )
    await log.start()
    codec, chance = bootstrap.codec(log), random.Random(3)
    context = Context(
        now_ms=now_ms(),
        random=chance.randbytes,
        actor=Actor(principal_id="filler", auth_method="local"),
        request_id="fill",
        workspace=WORKSPACE_DEFAULT,
    )
    run_ids = []
    appended = []
    for number in range(runs):
        start = CreateRun(experiment_id="0", name=f"r{number}", user_id="u", start_time_ms=number)
        created = create(state, start, context)
        run_id = created.envelope.aggregate_id
        run_ids.append(run_id)
        appended.append(log.append(record_of(created, codec, log)))
        for batch in range(batches):
            steps = [batch * POINTS + place for place in range(POINTS)]
            values = [step / 3 for step in steps]
            logged = BatchLogged(
                envelope=context.envelope(BatchLogged, run_id),
                params={},
                tags={},
                metrics=pack(["loss"] * POINTS, values, steps, steps),
            )
            appended.append(log.append(record_of(logged, codec, log)))
        if len(appended) >= AT_ONCE:
            await asyncio.gather(*appended)
            appended = []
    await asyncio.gather(*appended)
    await log.close()
    return run_ids
