"""Many processes that log to one experiment at once: runs, params, tags and points.

The processes are forked from a server process that has imported MLflow once and has no threads, so
that fifty clients cost one import; a barrier lets all of them begin together.
"""

import multiprocessing
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

FIRST_MS = 1_700_000_000_000
STARTED_WITHIN_S = 120.0
DONE_WITHIN_S = 240.0


@dataclass(frozen=True, slots=True)
class Load:
    """What each process logs: `runs` runs of `batches` batches of `points` points of one metric."""

    uri: str
    experiment_id: str
    runs: int
    batches: int
    points: int


def swarm(load: Load, processes: int) -> list[list[str]]:
    """Log the load from each of so many processes at once; gives the run ids by process.

    Raises EOFError when a process ended by an exception, which stands on standard error then, and
    TimeoutError when one does not come back.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mlflow", "mlflow.tracking.client"])
    start = context.Barrier(processes)
    with ExitStack() as stack:
        receivers = []
        for worker in range(processes):
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_log_load, args=(load, worker, start, sender))
            process.start()
            sender.close()  # ours; the pipe ends when the process does
            stack.callback(process.join)
            stack.callback(process.terminate)
            receivers.append(stack.enter_context(receiver))
        return [_received(receiver) for receiver in receivers]


def _received(receiver: Connection) -> list[str]:
    if not receiver.poll(DONE_WITHIN_S):
        raise TimeoutError(f"a process of the swarm said nothing for {DONE_WITHIN_S:g} s")
    run_ids: list[str] = receiver.recv()
    return run_ids


def _log_load(load: Load, worker: int, start: Barrier, sender: Connection) -> None:
    client = MlflowClient(load.uri)
    start.wait(STARTED_WITHIN_S)
    names = [f"worker-{worker}-{number}" for number in range(load.runs)]
    sender.send([_log_run(client, load, name) for name in names])


def _log_run(client: MlflowClient, load: Load, name: str) -> str:
    run_id = str(client.create_run(load.experiment_id, run_name=name).info.run_id)
    client.log_param(run_id, "name", name)
    for batch in range(load.batches):
        steps = range(batch * load.points, (batch + 1) * load.points)
        client.log_batch(
            run_id,
            metrics=[Metric("loss", step / 7, FIRST_MS + step, step) for step in steps],
            params=[Param(f"batch-{batch}", name)],
            tags=[RunTag("batches", str(batch + 1))],
        )
        client.log_metric(run_id, "single", float(batch), timestamp=FIRST_MS + batch, step=batch)
    client.set_terminated(run_id)
    return run_id
