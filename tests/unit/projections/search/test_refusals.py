"""Filters, orders and values that MLflow refuses, with its messages; and odd ones that it takes."""

from __future__ import annotations

import pytest

from muniment_projections.search.entities.base import Entity
from muniment_projections.search.entities.experiments import EXPERIMENTS
from muniment_projections.search.entities.logged_models import LOGGED_MODELS, order_item
from muniment_projections.search.entities.registry import MODEL_VERSIONS, REGISTERED_MODELS
from muniment_projections.search.entities.runs import RUNS
from muniment_projections.search.entities.traces import TRACES
from muniment_projections.search.errors import SearchError
from muniment_projections.search.grammar import CLAUSES_MAX, FILTER_CHARACTERS_MAX
from muniment_projections.search.sql import compile_filter

RUN_KEYS = (
    "{'Created', 'Run Name', 'Run name', 'artifact_uri', 'created', 'end_time', 'run name', "
    "'run_id', 'run_name', 'start_time', 'status', 'user_id'}"
)
NUMERIC = "{'!=', '<', '<=', '=', '>', '>='}"
TEXT = "{'!=', '=', 'ILIKE', 'IN', 'LIKE', 'NOT IN'}"
KEYED = "{'!=', '=', 'ILIKE', 'IS NOT NULL', 'IS NULL', 'LIKE'}"
UNQUOTED = (
    "Parameter value is either not quoted or unidentified quote types used for string value x. "
    "Use either single or double quotes."
)
LIST = "While parsing a list in the query, expected"


def clauses(text: str) -> str:
    return f"Invalid clause(s) in filter string: {text}"


REFUSED: list[tuple[Entity, str, str]] = [
    (RUNS, "metrics.a > 1 or metrics.b > 2", clauses("'or'")),
    (RUNS, "not metrics.a > 1", clauses("'not'")),
    (RUNS, "(metrics.a > 1)", clauses("'(metrics.a > 1)'")),
    (RUNS, "metrics.a > 1 AND (params.b = 'x')", clauses("'(params.b = 'x')'")),
    (RUNS, "foo", clauses("'foo'")),
    (RUNS, "run_id = ", clauses("'run_id', '='")),
    (RUNS, "metrics.a BETWEEN 1 and 2", clauses("'metrics.a', 'BETWEEN', '1', '2'")),
    (RUNS, "metrics.a > 1,", clauses("','")),
    (RUNS, "status = 'x' -- c", clauses("'-- c'")),
    (RUNS, "metrics.a > +5", clauses("'metrics.a', '>', '+', '5'")),
    (RUNS, "attribute.run_id = 'a", clauses("'attribute.run_id', '=', ''', 'a'")),
    (RUNS, " ", "Invalid filter ' '. Could not be parsed."),
    (
        RUNS,
        "metrics.a > 1; metrics.b > 2",
        "Search filter contained multiple expression 'metrics.a > 1; metrics.b > 2'. "
        "Provide AND-ed expression list.",
    ),
    (
        RUNS,
        "metrics.a-b > 1",
        "Invalid comparison clause. Expected 'Identifier' found 'metrics.a-b'",
    ),
    (RUNS, "1 < metrics.a", "Invalid comparison clause. Expected 'Identifier' found '1'"),
    (
        RUNS,
        "x.a > 1",
        "Invalid entity type 'x'. "
        "Valid values are ['metric', 'parameter', 'tag', 'attribute', 'dataset']",
    ),
    (RUNS, "nope = 'x'", f"Invalid attribute key 'nope' specified. Valid keys are '{RUN_KEYS}'"),
    (
        RUNS,
        "dataset.x = 'a'",
        "Invalid dataset key 'x' specified. Valid keys are '{'context', 'digest', 'name'}'",
    ),
    (RUNS, "metrics.a = 'x'", "Expected numeric value type for metric. Found 'x'"),
    (RUNS, "metrics.a == 1", f"Invalid comparator '==' not one of '{NUMERIC}"),
    (RUNS, "params.a > 'x'", f"Invalid comparator '>' not one of '{KEYED}'"),
    (RUNS, "tags.a RLIKE 'x'", f"Invalid comparator 'RLIKE' not one of '{KEYED}"),
    (RUNS, "status > 'x'", f"Invalid comparator '>' not one of '{TEXT}'"),
    (RUNS, "start_time LIKE 1", f"Invalid comparator 'LIKE' not one of '{TEXT}"),
    (RUNS, "dataset.name > 'x'", f"Invalid comparator '>' not one of '{TEXT}"),
    (RUNS, "params.a = x", UNQUOTED),
    (
        RUNS,
        "params.a = 1",
        "Expected a quoted string value for parameter (e.g. 'my-value'). Got value 1",
    ),
    (
        RUNS,
        "params.a IN ('9', 'a')",
        "Expected a quoted string value for parameter (e.g. 'my-value'). Got value ('9', 'a')",
    ),
    (
        RUNS,
        "params.a = f(x)",
        "Expected a quoted string value for parameter (e.g. 'my-value'). Got value f(x)",
    ),
    (
        RUNS,
        "created = 'x'",
        "Expected numeric value type for numeric attribute: created. Found 'x'",
    ),
    (
        RUNS,
        "status IN ('a')",
        "Only ['run_id'] attributes support comparison with a list of quoted string values.",
    ),
    (RUNS, "run_id IN ()", f"{LIST} a non-empty list of string values, but got empty list"),
    (
        RUNS,
        "run_id IN (1)",
        f"{LIST} string value, punctuation, or whitespace, but got different type in list: (1,)",
    ),
    (RUNS, "run_id IN (a)", f"{LIST} a non-empty list of string values, but got ill-formed list."),
    (
        RUNS,
        "metrics.m IS NULL",
        "IS NULL / IS NOT NULL is only supported for tags and params, not for 'metric' 'm'",
    ),
    (EXPERIMENTS, "name = 'a' or name = 'b'", clauses("or")),
    (
        EXPERIMENTS,
        "attributes.name = 'x'",
        "Invalid entity type 'attributes'. Valid entity types are ('attribute', 'tag', 'tags')",
    ),
    (
        EXPERIMENTS,
        "name IN ('a')",
        "Only ['experiment_id'] attributes support comparison with a list of quoted string values.",
    ),
    (
        EXPERIMENTS,
        "experiment_id = 'abc'",
        "Invalid experiment ID 'abc'. Experiment ID must be a valid integer.",
    ),
    (
        EXPERIMENTS,
        "experiment_id LIKE '1%'",
        "Invalid comparator for experiment_id: LIKE",
    ),
    (EXPERIMENTS, "name like 'a'", f"Invalid comparator 'like' not one of '{TEXT}'"),
    (
        EXPERIMENTS,
        "creation_time > 1.5",
        "Invalid value for numeric attribute 'creation_time': '1.5'",
    ),
    (EXPERIMENTS, "tags.a > 'x'", "Invalid comparator for tag: >"),
    (
        EXPERIMENTS,
        "name IS NULL",
        "IS NULL / IS NOT NULL is only supported for tags, not for attribute 'name'",
    ),
    (
        REGISTERED_MODELS,
        "`name` = 'x'",
        "Invalid attribute key '`name`' specified. Valid keys are '{'name'}'",
    ),
    (REGISTERED_MODELS, "name > 'x'", "Invalid comparator for attribute: >"),
    (
        REGISTERED_MODELS,
        "name = 1",
        "Expected a quoted string value or a list of quoted string values for attributes. "
        "Got value 1",
    ),
    (
        MODEL_VERSIONS,
        "stage = 'Production'",
        "Invalid attribute key 'stage' specified. "
        "Valid keys are '{'name', 'run_id', 'source_path', 'version_number'}'",
    ),
    (
        MODEL_VERSIONS,
        "version_number = 1.5",
        "Invalid value for numeric attribute 'version_number': 1.5",
    ),
    (
        MODEL_VERSIONS,
        "version_number LIKE '1'",
        "Invalid comparator for attribute version_number: LIKE",
    ),
    (
        MODEL_VERSIONS,
        "name = 1",
        "Only the '{'creation_timestamp', 'last_updated_timestamp', 'version_number'}' attributes "
        "support comparison with numeric values.",
    ),
    (
        MODEL_VERSIONS,
        "source_path IN ('a')",
        "Only ['name', 'run_id'] attributes support comparison with a list of quoted string "
        "values.",
    ),
    (
        LOGGED_MODELS,
        "name = 'a' OR name = 'b'",
        "Invalid filter string: \"name = 'a' OR name = 'b'\". Expected a list of comparisons "
        "separated by 'AND' (e.g. 'metrics.loss > 0.1 AND params.lr = 0.01').",
    ),
    (
        LOGGED_MODELS,
        "metric.a > 1",
        "Invalid entity type: 'metric'. "
        "Expected one of ['attributes', 'metrics', 'params', 'tags'].",
    ),
    (
        LOGGED_MODELS,
        "params.a > '1'",
        "Invalid comparison operator for params.a: '>'. "
        "Expected one of ('=', '!=', 'LIKE', 'ILIKE', 'IN', 'NOT IN').",
    ),
    (
        LOGGED_MODELS,
        "metrics.a LIKE '1'",
        "Invalid comparison operator for metrics.a: 'LIKE'. "
        "Expected one of ('<', '<=', '>', '>=', '=', '!=').",
    ),
    (
        TRACES,
        "span.foo = 'x'",
        "Invalid span attribute 'foo'. "
        "Supported attributes: name, status, type, attributes.<attribute_name>.",
    ),
    (TRACES, "span.content = 'x'", "span.content comparator '=' not one of '{'ILIKE', 'LIKE'}'"),
    (TRACES, "issue.x = 'a'", "Invalid issue attribute 'x'. Supported attributes: id"),
    (
        TRACES,
        "feedback.q > 'x'",
        "Expected a numeric value for feedback when using comparator '>'. Got value 'x'",
    ),
    (
        TRACES,
        "prompt = 'p'",
        "Invalid prompts filter value 'p'. Expected format: prompt = \"name/version\"",
    ),
    (
        TRACES,
        "trace_id = 'x'",
        "Invalid attribute key 'trace_id' specified. Valid keys are '{'client_request_id', "
        "'end_time', 'end_time_ms', 'execution_time', 'execution_time_ms', 'name', 'prompt', "
        "'request_id', 'run_id', 'status', 'text', 'timestamp', 'timestamp_ms'}'",
    ),
]


@pytest.mark.parametrize(
    ("entity", "text", "message"), REFUSED, ids=[f"{e.name}:{t}" for e, t, _ in REFUSED]
)
def test_refused_with_mlflows_message(entity: Entity, text: str, message: str) -> None:
    with pytest.raises(SearchError) as refusal:
        compile_filter(entity, text)
    assert refusal.value.message == message
    assert not refusal.value.internal


@pytest.mark.parametrize(
    "text",
    [
        "",
        "metrics.a > 1 and",
        "and and metrics.a>1",
        "metrics.a > 1 metrics.b > 2",
        "params.a='x'and params.b='y'",
        "`metrics`.a > -1.5e3",
        "metrics.a > .5 AND metrics.a < 5.",
        'params."a b" = "c"',
        "params.`a``b` = 'it''s'",
        "tags.mlflow.user LIKE '%'",
        "tags.1a = 'x'",
        "metrics.ä > 1",
        "run_id NOT in ('a',)",
        "params.a is not null",
        "`run name` = 'x' AND \"Run Name\" = 'x'",
        "params.order = 'x' AND params.and = 'y'",
    ],
)
def test_taken_as_mlflow_takes_it(text: str) -> None:
    assert compile_filter(RUNS, text).sql


def test_values_are_bound_and_never_text() -> None:
    found = compile_filter(RUNS, "params.`k'; DROP` = 'v''); --' AND metrics.`\"m` > 7.25")
    assert found.parameters == ("k'; DROP", "v''); --", '"m', 7.25, '"m')
    assert "DROP" not in found.sql
    assert "7.25" not in found.sql


def test_limits_have_messages() -> None:
    with pytest.raises(SearchError, match=f"at most {CLAUSES_MAX} comparisons"):
        compile_filter(RUNS, " AND ".join(["metrics.a > 1"] * (CLAUSES_MAX + 1)))
    with pytest.raises(SearchError, match=f"at most {FILTER_CHARACTERS_MAX} characters"):
        compile_filter(RUNS, "x" * (FILTER_CHARACTERS_MAX + 1))
    with pytest.raises(SearchError, match="Error on parsing filter"):
        compile_filter(RUNS, "params.a = '\ud800'")


ORDER_KEYS = (
    "{'Created', 'artifact_uri', 'created', 'end_time', 'run_id', 'run_name', 'start_time', "
    "'status', 'user_id'}"
)


@pytest.mark.parametrize(
    ("entity", "order_by", "message"),
    [
        (RUNS, "metrics.m UP", "Invalid ordering key in order_by clause 'metrics.m UP'."),
        (RUNS, "", "Invalid order_by clause ''. Could not be parsed."),
        (RUNS, "a asc desc", "Invalid order_by clause 'a asc desc'. Could not be parsed."),
        (RUNS, "metrics.m, b", "Invalid order_by clause 'metrics.m, b'. Could not be parsed."),
        (RUNS, "nope", f"Invalid attribute key 'nope' specified. Valid keys are '{ORDER_KEYS}'"),
        (RUNS, "datasets.name", "Invalid identifier type 'dataset'"),
        (EXPERIMENTS, "tags.a", "Invalid order_by entity: tag"),
        (
            REGISTERED_MODELS,
            "creation_timestamp",
            "Invalid order by key 'creation_timestamp' specified. "
            "Valid keys are '{'name', 'timestamp'}'",
        ),
        (
            MODEL_VERSIONS,
            "stage",
            "Invalid attribute key 'stage' specified. Valid keys are '{'creation_timestamp', "
            "'last_updated_timestamp', 'name', 'version_number'}'",
        ),
        (
            LOGGED_MODELS,
            order_item("params.a"),
            "Invalid order by field name: params.a. Only metrics are supported.",
        ),
        (LOGGED_MODELS, order_item("nope"), "Invalid order by field name: nope"),
        (TRACES, "feedback.q", "Invalid identifier type 'feedback'"),
    ],
)
def test_orders_refused_with_mlflows_message(entity: Entity, order_by: str, message: str) -> None:
    with pytest.raises(SearchError) as refusal:
        entity.sort_keys([order_by])
    assert refusal.value.message == message


@pytest.mark.parametrize(
    ("entity", "order_by"),
    [
        (RUNS, ["metrics.m", "metrics.`m` DESC"]),
        (RUNS, ["created", "start_time"]),
        (REGISTERED_MODELS, ["timestamp", "last_updated_timestamp"]),
        (MODEL_VERSIONS, ["name", "attribute.name DESC"]),
        (TRACES, ["timestamp", "timestamp_ms DESC"]),
    ],
)
def test_duplicate_orders_are_mlflows_internal_error(entity: Entity, order_by: list[str]) -> None:
    with pytest.raises(SearchError) as refusal:
        entity.sort_keys(order_by)
    assert refusal.value.message == f"`order_by` contains duplicate fields: {order_by}"
    assert refusal.value.internal
