"""One of many processes that log to one experiment at once: runs, params, tags and points.

    python tests/harness/swarm_worker.py URI EXPERIMENT_ID WORKER RUNS BATCHES POINTS_PER_BATCH

It waits for a line on its standard input, so that all begin together, and prints the ids of its runs.
"""

import sys

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

FIRST_MS = 1_700_000_000_000


def log_run(
    client: MlflowClient, experiment_id: str, name: str, batches: int, points: int
) -> str:
    """One run with `batches` batches of `points` points, logged point by point as well."""
    run_id = str(client.create_run(experiment_id, run_name=name).info.run_id)
    client.log_param(run_id, "name", name)
    for batch in range(batches):
        steps = range(batch * points, (batch + 1) * points)
        client.log_batch(
            run_id,
            metrics=[Metric("loss", step / 7, FIRST_MS + step, step) for step in steps],
            params=[Param(f"batch-{batch}", name)],
            tags=[RunTag("batches", str(batch + 1))],
        )
        client.log_metric(run_id, "single", float(batch), timestamp=FIRST_MS + batch, step=batch)
    client.set_terminated(run_id)
    return run_id


def main() -> None:
    """Say that the client is ready, wait for the start, log, print one run id a line."""
    uri, experiment_id, worker = sys.argv[1:4]
    runs, batches, points = map(int, sys.argv[4:7])
    client = MlflowClient(uri)
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(runs):
        print(log_run(client, experiment_id, f"worker-{worker}-{number}", batches, points))


if __name__ == "__main__":
    main()
