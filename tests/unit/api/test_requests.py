"""Parameters of requests: what is understood, what is refused, and in which words."""

from __future__ import annotations

import math

import pytest

from muniment_services.api.errors import ApiError
from muniment_services.api.requests import (
    LIST_ITEMS_MAX,
    TAG_FIELDS,
    Field,
    Fields,
    from_body,
    from_json,
    from_query,
)

FIELDS: Fields = (
    Field("run_id", required=True),
    Field("run_uuid"),
    Field("value", "double"),
    Field("step", "int"),
    Field("max_results", "int", checked=False),
    Field("size", "int", most=10, nullable=False),
    Field("view", "enum", numbers=("", "ACTIVE", "DELETED")),
    Field("whole", "any"),
    Field("flag", "bool"),
    Field("ids", repeated=True),
    Field("dataset_name"),
    Field("tags", "message", repeated=True, fields=TAG_FIELDS),
)
SEE = "See the API docs for more information about request parameters."


def read(text: str | bytes) -> dict[str, object]:
    body = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    return from_json(body, FIELDS)


def refusal(text: str | bytes) -> str:
    with pytest.raises(ApiError) as raised:
        read(text)
    assert raised.value.error_code == "INVALID_PARAMETER_VALUE"
    return raised.value.message


def wrong(value: str, name: str, kind: str) -> str:
    return (
        f"Invalid value {value} for parameter '{name}' supplied:  "
        f"Hint: Value was of type '{kind}'. {SEE}"
    )


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1", 1.0),
        ("true", 1.0),
        ('"1.5"', 1.5),
        ('" 5 "', 5.0),
        ("1e400", math.inf),
        ("-1e400", -math.inf),
        ("Infinity", math.inf),
        ("-Infinity", -math.inf),
        ('"inf"', math.inf),
        ('"-Infinity"', -math.inf),
        ("1" + "0" * 400, math.inf),
        ("-1" + "0" * 400, -math.inf),
    ],
)
def test_numbers_are_taken_as_they_are_meant(written: str, value: float) -> None:
    assert read(f'{{"run_id": "r", "value": {written}}}')["value"] == value


@pytest.mark.parametrize("written", ["NaN", '"NaN"', '"nan"'])
def test_nan_is_nan_bare_or_quoted(written: str) -> None:
    found = read(f'{{"run_id": "r", "value": {written}}}')["value"]
    assert isinstance(found, float)
    assert math.isnan(found)


@pytest.mark.parametrize(
    ("written", "value"),
    [("5", 5), ("5.0", 5), ("2.9", 2), ("-2.9", -2), ('"-8"', -8), ("1e3", 1000), ('" 7"', 7)],
)
def test_integers_are_cut_toward_zero_and_may_be_quoted(written: str, value: int) -> None:
    assert read(f'{{"run_id": "r", "step": {written}}}')["step"] == value


@pytest.mark.parametrize(
    ("field", "written", "shown", "kind"),
    [
        ("step", '"1.5"', '"1.5"', "str"),
        ("step", "true", "true", "bool"),
        ("step", "[]", "[]", "list"),
        ("step", "9223372036854775808", "9223372036854775808", "int"),
        ("step", "NaN", "NaN", "float"),
        ("step", "1e400", "Infinity", "float"),
        ("value", '"x"', '"x"', "str"),
        ("value", '{"a": 1}', '{"a":1}', "dict"),
        ("dataset_name", "5", "5", "int"),
        ("dataset_name", '"\\ud800"', '"\\ud800"', "str"),
        ("whole", '{"a": ["\\ud800"]}', '{"a":["\\ud800"]}', "dict"),
        ("flag", "1", "1", "int"),
        ("ids", '"x"', '"x"', "str"),
        ("ids", "[5]", "[5]", "list"),
        ("view", "[]", "[]", "list"),
        ("view", "7", "7", "int"),
        ("size", "11", "11", "int"),
        ("size", "null", "null", "NoneType"),
        ("tags", "{}", "{}", "dict"),
    ],
)
def test_what_cannot_be_understood_is_refused(
    field: str, written: str, shown: str, kind: str
) -> None:
    assert refusal(f'{{"run_id": "r", "{field}": {written}}}') == wrong(shown, field, kind)


def test_a_refusal_names_the_place_in_a_list() -> None:
    tags = '[{"key": "a"}, {"key": "b", "value": 5}]'
    assert refusal(f'{{"run_id": "r", "tags": {tags}}}') == wrong("5", "tags[1].value", "int")
    assert refusal('{"run_id": "r", "tags": [null]}') == wrong("null", "tags[0]", "NoneType")


def test_a_long_value_is_shown_in_part() -> None:
    assert len(refusal(f'{{"run_id": "r", "step": "{"x" * 100_000}"}}')) < 3000


def test_unchecked_values_of_another_type_are_absent() -> None:
    assert read('{"run_id": "r", "max_results": "x"}') == {"run_id": "r"}


@pytest.mark.parametrize(("written", "name"), [("2", "DELETED"), ('"2"', "DELETED"), ('"X"', "X")])
def test_enums_may_be_written_as_numbers(written: str, name: str) -> None:
    assert read(f'{{"run_id": "r", "view": {written}}}')["view"] == name


def test_required_fields_are_asked_for_in_order() -> None:
    expected = f"Missing value for required parameter 'run_id'. {SEE}"
    for body in (
        "",
        "{}",
        "null",
        '{"run_id": ""}',
        '{"runId": "r", "step": "x"}',
        "{",
        "[" * 9999,
    ):
        assert refusal(body) == expected


def test_run_uuid_stands_for_an_absent_run_id() -> None:
    assert read('{"run_uuid": "u"}') == {"run_uuid": "u"}
    assert "Missing value" in refusal('{"run_id": "", "run_uuid": "u"}')


@pytest.mark.parametrize("body", ["[]", "5", "true", '"x"', '"[]"', '"5"'])
def test_a_body_that_is_no_object_is_refused(body: str) -> None:
    assert refusal(body) == "The request body must be a JSON object."


def test_bodies_may_have_a_byte_order_mark_or_be_encoded_twice() -> None:
    assert read(b'\xef\xbb\xbf{"run_id": "r"}') == {"run_id": "r"}
    assert read('"{\\"run_id\\": \\"r\\"}"') == {"run_id": "r"}


def test_names_may_be_in_camel_case_but_not_twice() -> None:
    assert read('{"run_id": "r", "datasetName": "d"}')["dataset_name"] == "d"
    assert refusal('{"run_id": "r", "datasetName": "d", "dataset_name": null}') == (
        "Request specifies both 'dataset_name' and 'datasetName'; provide only one of them."
    )


@pytest.mark.parametrize(
    ("content_type", "taken"),
    [
        ("application/json", True),
        ("application/json; charset=utf-8", True),
        ("APPLICATION/JSON", False),
        ("text/plain", False),
        ("", False),
        (None, False),
    ],
)
def test_bodies_must_say_that_they_are_json(content_type: str | None, taken: bool) -> None:
    if taken:
        assert from_body(b'{"run_id": "r"}', content_type, FIELDS) == {"run_id": "r"}
    else:
        with pytest.raises(ApiError, match=r"^Bad Request\. Content-Type "):
            from_body(b'{"run_id": "r"}', content_type, FIELDS)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (b"run_id=r&run_id=s", {"run_id": "r"}),
        (b"run_id=r&ids=a&ids=b", {"run_id": "r", "ids": ["a", "b"]}),
        (b"run_id=a+b%2Bc&", {"run_id": "a b+c"}),
        (b"run_id=%ff%C3%A9", {"run_id": "%FFé"}),
        (b"run_id=\xc3\xa9\xff", {"run_id": "é%FF"}),
        (b"run_id=r&flag=True&step=5", {"run_id": "r", "flag": True, "step": 5}),
    ],
)
def test_queries_are_read_by_field(query: bytes, expected: dict[str, object]) -> None:
    assert from_query(query, FIELDS) == expected


def test_a_query_must_say_true_or_false() -> None:
    with pytest.raises(ApiError, match=r"^Invalid boolean value: 1, must be 'true' or 'false'\.$"):
        from_query(b"run_id=r&flag=1", FIELDS)


def test_a_body_that_is_no_utf8_counts_as_no_json() -> None:
    assert "Missing value for required parameter 'run_id'" in refusal(b'{"run_id": "\xff\xfe"}')


def test_lists_have_a_limit() -> None:
    ids = ",".join(['"1"'] * (LIST_ITEMS_MAX + 1))
    assert f"it may have {LIST_ITEMS_MAX}" in refusal(f'{{"run_id": "a", "ids": [{ids}]}}')
