"""What MLflow's own client sends to the hot routes goes the fast way."""

from __future__ import annotations

from mlflow.entities import Metric, Param, RunTag
from mlflow.protos.service_pb2 import LogBatch, LogMetric, LogParam, SetTag
from mlflow.utils.proto_json_utils import message_to_json

from muniment_services.api.run_data import quick_batch, quick_metric, quick_pair


def test_a_batch() -> None:
    full = Metric(
        "a", 1.0, 5, 2, model_id="m-1", dataset_name="d", dataset_digest="1", run_id="run"
    )
    message = LogBatch(
        run_id="run",
        metrics=[full.to_proto(), Metric("b", 2.0, 6, 0).to_proto()],
        params=[Param("p", "1").to_proto()],
        tags=[RunTag("t", "").to_proto()],
    )
    command = quick_batch(message_to_json(message).encode())
    assert command is not None
    assert command.run_id == "run"
    assert (command.params, command.tags) == ((("p", "1"),), (("t", ""),))
    assert command.metrics is not None
    assert command.metrics.count == 2
    assert command.needs() == (("run", "run"), ("logged_model", "m-1"))


def test_one_metric() -> None:
    message = LogMetric(run_uuid="run", run_id="run", key="a", value=1.5, timestamp=3, step=0)
    command = quick_metric(message_to_json(message).encode())
    assert command is not None
    assert command.metrics is not None
    assert (command.run_id, command.metrics.keys) == ("run", ("a",))


def test_one_param_and_one_tag() -> None:
    for message in (
        LogParam(run_uuid="run", run_id="run", key="a", value="x"),
        SetTag(run_uuid="run", run_id="run", key="a", value="x"),
    ):
        assert quick_pair(message_to_json(message).encode()) == ("run", ("a", "x"))
