"""Searches of the five entities beside runs, on small tables with the columns that they need."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pytest

from muniment_projections.base import Connection
from muniment_projections.search.entities.base import Entity
from muniment_projections.search.entities.experiments import EXPERIMENTS
from muniment_projections.search.entities.logged_models import (
    LOGGED_MODELS,
    on_datasets,
    order_item,
)
from muniment_projections.search.entities.registry import MODEL_VERSIONS, REGISTERED_MODELS
from muniment_projections.search.entities.traces import TRACES
from muniment_projections.search.errors import PageTokenInvalid, SearchError
from muniment_projections.search.page import Search, search
from muniment_projections.search.predicate import Predicate

TABLES = """
CREATE TABLE experiments AS SELECT * FROM (VALUES
    ('0', 'Default', 10, 10, MAP {'team': 'a'}), ('2', 'beta', 20, 90, MAP {'team': 'B'}),
    ('10', 'Beta', 20, 50, MAP {})
) AS v(experiment_id, name, created_at_ms, updated_at_ms, tags);
CREATE TABLE registered_models AS SELECT * FROM (VALUES
    ('b', 1, 5, MAP {'x': '1'}, false), ('a', 2, 5, MAP {'x': '2'}, false),
    ('p', 3, 9, MAP {'mlflow.prompt.is_prompt': 'true', 'x': '1'}, true)
) AS v(name, created_at_ms, updated_at_ms, tags, is_prompt);
CREATE TABLE model_versions AS SELECT * FROM (VALUES
    ('a', 1, 'runs:/r1/m', 'r1', 1, 7), ('a', 2, 'runs:/r2/m', 'r2', 2, 7),
    ('b', 1, 's3', NULL, 3, 8)
) AS v(name, version, source, run_id, created_at_ms, updated_at_ms),
(SELECT MAP {'k': 'v'} AS tags, false AS is_prompt);
CREATE TABLE logged_models AS SELECT * FROM (VALUES
    ('m-1', 'a', 'sklearn', 'LOGGED_MODEL_READY', 1, MAP {'lr': '0.1'}),
    ('m-2', 'b', NULL, 'LOGGED_MODEL_PENDING', 2, MAP {}),
    ('m-3', 'c', NULL, 'LOGGED_MODEL_READY', 3, MAP {})
) AS v(model_id, name, model_type, status, created_at_ms, params),
(SELECT '0' AS experiment_id, NULL::VARCHAR AS source_run_id, 0 AS updated_at_ms,
        MAP {'t': 'v'} AS tags);
CREATE TABLE model_points AS SELECT * FROM (VALUES
    ('m-1', 'r', 'auc', 1, 10, 0.5::DOUBLE, 'train', 'd1'),
    ('m-1', 'r', 'auc', 1, 20, 0.9, 'test', 'd2'),
    ('m-2', 'r', 'auc', 1, 10, 0.7, 'test', 'd3'), ('m-2', 'r', 'auc', 2, 10, 'NaN', 'train', 'd1')
) AS v(model_id, run_id, key, step, timestamp_ms, value, dataset_name, dataset_digest);
CREATE TABLE traces AS SELECT * FROM (VALUES
    ('tr-1', 10, 5, 'OK', 'c1', MAP {'mlflow.traceName': 'chat', 'k': 'v'},
     MAP {'mlflow.sourceRun': 'r1'}, []::VARCHAR[], ['p/1'],
     [{'kind': 'feedback', 'name': 'q', 'value': '"good"', 'number': NULL::DOUBLE,
       'valid': true}]),
    ('tr-2', 20, NULL, 'ERROR', NULL, MAP {}, MAP {}, ['r1'], []::VARCHAR[],
     [{'kind': 'feedback', 'name': 'q', 'value': '0.8', 'number': 0.8::DOUBLE, 'valid': true},
      {'kind': 'issue', 'name': 'i-1', 'value': 'null', 'number': NULL::DOUBLE, 'valid': true}]),
    ('tr-3', 30, 9, 'OK', NULL, MAP {'mlflow.traceName': 'Chat'}, MAP {'s': 'x'}, [], [],
     [{'kind': 'feedback', 'name': 'q', 'value': '0.2', 'number': 0.2::DOUBLE, 'valid': false}])
) AS v(trace_id, request_time_ms, execution_duration_ms, state, client_request_id, tags, metadata,
       run_ids, prompts, assessments), (SELECT '0' AS experiment_id);
CREATE TABLE trace_spans AS SELECT * FROM (VALUES
    ('tr-1', 'llm', 'LLM', 'OK', '{"model": "\\"gpt-4\\""}'),
    ('tr-1', 'tool', 'TOOL', 'ERROR', '{"text": "hello"}'),
    ('tr-2', 'tool', 'TOOL', 'OK', '{}')
) AS v(trace_id, name, type, status, content);
"""

DOCUMENTS = {
    "experiments": "experiment_id",
    "registered_models": "name",
    "model_versions": "name || version",
    "logged_models": "model_id",
    "traces": "trace_id",
}
"""What stands for each row's document, so that pages are easy to read."""


@pytest.fixture(scope="module")
def connection() -> Iterator[Connection]:
    with duckdb.connect(":memory:") as opened:
        opened.execute(TABLES)
        for table, document in DOCUMENTS.items():
            opened.execute(f"ALTER TABLE {table} ADD COLUMN document BLOB")
            opened.execute(f"UPDATE {table} SET document = ({document})::BLOB")
        yield opened


def found(connection: Connection, entity: Entity, text: str = "", *order_by: str) -> list[str]:
    page = search(connection, entity, Search(filter=text, order_by=order_by))
    return [document.decode() for document in page.documents]


def test_experiments_by_default_come_newest_first_then_by_number(connection: Connection) -> None:
    assert found(connection, EXPERIMENTS) == ["2", "10", "0"]
    assert found(connection, EXPERIMENTS, "", "name") == ["10", "0", "2"]
    assert found(connection, EXPERIMENTS, "", "attribute.experiment_id ASC") == ["0", "2", "10"]
    assert found(connection, EXPERIMENTS, "", "creation_time") == ["0", "10", "2"]


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("name LIKE 'b%'", ["2"]),
        ("name ILIKE 'b%'", ["2", "10"]),
        ("experiment_id IN ('10', '007', '0')", ["10", "0"]),
        ("experiment_id != '2'", ["10", "0"]),
        ("creation_time >= 20 AND last_update_time < 90", ["10"]),
        ("tags.team != 'a'", ["2"]),
        ("tag.team IS NULL", ["10"]),
    ],
)
def test_experiments(connection: Connection, text: str, ids: list[str]) -> None:
    assert found(connection, EXPERIMENTS, text) == ids


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ["a", "b"]),
        ("name IN ('b', 'p')", ["b"]),
        ("tags.x = '1'", ["b"]),
        ("tags.`mlflow.prompt.is_prompt` = 'true'", ["p"]),
        ("tags.`mlflow.prompt.is_prompt` = 'True' AND tags.x = '1'", []),
        ("tags.`mlflow.prompt.is_prompt` != 'true'", ["a", "b"]),
        ("tags.`mlflow.prompt.is_prompt` = 'false' AND tags.x = '1'", ["b"]),
    ],
)
def test_registered_models_without_prompts_unless_asked_for(
    connection: Connection, text: str, names: list[str]
) -> None:
    assert found(connection, REGISTERED_MODELS, text) == names


def test_orders_of_registered_models_and_versions(connection: Connection) -> None:
    assert found(connection, REGISTERED_MODELS, "", "timestamp DESC", "name DESC") == ["b", "a"]
    assert found(connection, MODEL_VERSIONS) == ["b1", "a2", "a1"]
    assert found(connection, MODEL_VERSIONS, "", "version_number") == ["a1", "b1", "a2"]
    assert found(connection, MODEL_VERSIONS, "", "creation_timestamp DESC") == ["b1", "a2", "a1"]


@pytest.mark.parametrize(
    ("text", "versions"),
    [
        ("name = 'a'", ["a2", "a1"]),
        ("version_number > 1", ["a2"]),
        ("version_number = '1'", ["b1", "a1"]),
        ("run_id IN ('r1', 'r2')", ["a2", "a1"]),
        ("run_id != 'r1'", ["a2"]),
        ("source_path LIKE 'runs:%'", ["a2", "a1"]),
        ("tags.k = 'v' AND name != 'a'", ["b1"]),
    ],
)
def test_model_versions(connection: Connection, text: str, versions: list[str]) -> None:
    assert found(connection, MODEL_VERSIONS, text) == versions


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("", ["m-3", "m-2", "m-1"]),
        ("attributes.name != 'b'", ["m-3", "m-1"]),
        ("status = 'READY' AND model_type = 'sklearn'", ["m-1"]),
        ("params.lr = '0.1' AND tags.t LIKE 'v'", ["m-1"]),
        ("metrics.auc > 0.6", ["m-2", "m-1"]),
        ("metrics.auc < 0.6", ["m-1"]),
        ("name IN ('a', 'c') AND creation_timestamp >= 2", ["m-3"]),
    ],
)
def test_logged_models(connection: Connection, text: str, ids: list[str]) -> None:
    assert found(connection, LOGGED_MODELS, text) == ids


def test_logged_models_narrowed_to_datasets(connection: Connection) -> None:
    assert found(connection, on_datasets((("test", None),)), "metrics.auc > 0.6") == ["m-2", "m-1"]
    assert found(connection, on_datasets((("test", "d2"),)), "metrics.auc > 0.6") == ["m-1"]
    assert found(connection, on_datasets((("train", None),)), "metrics.auc > 0.6") == []
    assert found(connection, on_datasets((("test", "d3"),))) == ["m-2"]


def test_logged_models_order_by_latest_metric_nan_then_missing_last(connection: Connection) -> None:
    for ascending in (True, False):
        by_latest = order_item("metrics.auc", ascending)
        assert found(connection, LOGGED_MODELS, "", by_latest) == ["m-1", "m-2", "m-3"]
    on_test = order_item("metrics.auc", True, "test")
    assert found(connection, LOGGED_MODELS, "", on_test) == ["m-2", "m-1", "m-3"]
    twice = (order_item("name"), order_item("name", False))
    assert found(connection, LOGGED_MODELS, "", *twice) == ["m-1", "m-2", "m-3"]


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("", ["tr-3", "tr-2", "tr-1"]),
        ("status = 'OK' AND timestamp > 10", ["tr-3"]),
        ("trace.end_time_ms < 21", ["tr-2", "tr-1"]),
        ("execution_time != 5", ["tr-3"]),
        ("name RLIKE '^[cC]hat$'", ["tr-3", "tr-1"]),
        ("name = 'chat'", ["tr-1"]),
        ("tag.name != 'chat'", ["tr-3"]),
        ("run_id = 'r1'", ["tr-2", "tr-1"]),
        ("run_id != 'x'", ["tr-1"]),
        ("metadata.s IS NOT NULL", ["tr-3"]),
        ("tags.k IS NULL", ["tr-3", "tr-2"]),
        ("request_id IN ('tr-1', 'tr-9')", ["tr-1"]),
        ("client_request_id = 'c1'", ["tr-1"]),
        ("prompt = 'p/1'", ["tr-1"]),
        ("issue.id = 'i-1'", ["tr-2"]),
        ("feedback.q = 'good'", ["tr-1"]),
        ("feedback.q != 'good'", ["tr-2"]),
        ("feedback.q > 0.1", ["tr-2"]),
        ("feedback.q IS NULL", ["tr-3"]),
        ("expectation.q IS NOT NULL", []),
        ("span.type = 'TOOL' AND span.status = 'OK'", ["tr-2"]),
        ("span.type = 'TOOL' AND span.status = 'ERROR'", ["tr-1"]),
        ("span.attributes.model LIKE '%gpt%'", ["tr-1"]),
        ("trace.text LIKE '%hello%'", ["tr-1"]),
    ],
)
def test_traces(connection: Connection, text: str, ids: list[str]) -> None:
    assert found(connection, TRACES, text) == ids


def test_orders_of_traces(connection: Connection) -> None:
    assert found(connection, TRACES, "", "execution_time_ms DESC") == ["tr-3", "tr-1", "tr-2"]
    assert found(connection, TRACES, "", "name") == ["tr-3", "tr-1", "tr-2"]
    assert found(connection, TRACES, "", "metadata.s", "request_id") == ["tr-3", "tr-1", "tr-2"]
    assert found(connection, TRACES, "", "experiment_id", "status") == ["tr-2", "tr-3", "tr-1"]


def test_a_pattern_that_cannot_be_read_is_the_callers_mistake(connection: Connection) -> None:
    with pytest.raises(SearchError, match="Invalid regular expression in filter string"):
        found(connection, TRACES, "name RLIKE '('")


def test_scope_and_visibility_narrow_and_the_token_knows_the_scope(connection: Connection) -> None:
    scope = Predicate("t.created_at_ms = ?", (20,))
    wanted = Search(scope=scope, context=("20",), max_results=1)
    first = search(connection, EXPERIMENTS, wanted)
    assert (first.documents, first.extra) == ([b"2"], [()])
    rest = Search(scope=scope, context=("20",), page_token=first.next_page_token)
    assert search(connection, EXPERIMENTS, rest).documents == [b"10"]
    hidden = Predicate("t.experiment_id != ?", ("10",))
    unseen = Search(scope=scope, context=("20",), page_token=first.next_page_token, visible=hidden)
    assert search(connection, EXPERIMENTS, unseen).documents == []
    with pytest.raises(PageTokenInvalid, match="Invalid page token"):
        search(connection, EXPERIMENTS, Search(page_token=first.next_page_token))


def test_an_empty_page_has_a_token_that_begins_at_the_same_place(connection: Connection) -> None:
    empty = search(connection, EXPERIMENTS, Search(max_results=0))
    assert empty.documents == []
    whole = search(connection, EXPERIMENTS, Search(page_token=empty.next_page_token))
    assert whole.documents == [b"2", b"10", b"0"]
    assert whole.next_page_token is None
