"""Request parameters: from JSON bodies and query strings to typed values, by MLflow's rules.

MLflow reads JSON the protobuf way: numbers may be quoted, unknown fields are ignored, a field may
be spelt in camelCase. `parse` does the same for a table of `Field`s, one table per route. Where a
value does not fit its field, MLflow goes on without it and without the fields behind it; here what
can be understood is taken as it was meant (2.9 as an integer is 2, "nan" is NaN), and what cannot
is refused, in MLflow's words for a wrong type. Nothing that was sent is lost in silence.
Source: MLflow 3.17 server answers; ProtoJSON mapping.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as data_field
from typing import Any, TypeVar
from urllib.parse import parse_qs

import msgspec

from muniment_services.api.errors import ApiError
from muniment_services.domain.errors import Invalid
from muniment_services.domain.limits import INT64_MAX, INT64_MIN, shown

T = TypeVar("T")

_SEE = " See the API docs for more information about request parameters."
_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")


@dataclass(frozen=True, slots=True)
class Field:
    """One parameter of a route.

    kind: string, int, double, bool, enum, any (JSON as it is), or message (with `fields`).
    checked: a value of another type is refused. Off for optional ones where MLflow does without
    such a value and nothing is lost by it: page tokens, views, sizes of pages.
    nullable: null means absent. most: the largest integer that is taken.
    numbers: an enum's names by number, which may stand in their place; empty for none.
    """

    name: str
    kind: str = "string"
    required: bool = False
    repeated: bool = False
    fields: tuple[Field, ...] = ()
    checked: bool = True
    nullable: bool = True
    most: int | None = None
    numbers: tuple[str, ...] = ()
    camel: str = data_field(init=False, default="")

    def __post_init__(self) -> None:
        """Work out the second spelling once."""
        first, *rest = self.name.split("_")
        object.__setattr__(self, "camel", first + "".join(p[:1].upper() + p[1:] for p in rest))


Fields = tuple[Field, ...]

LIST_ITEMS_MAX = 100_000
"""Items of one list parameter, such as the experiments of a search."""


class _Mismatch(Exception):
    """A value does not have its field's type. place: where below the field, like `[0].key`."""

    def __init__(self, value: Any, place: str = "") -> None:
        super().__init__(place)
        self.value = value
        self.place = place


def from_body(body: bytes, content_type: str | None, fields: Fields) -> dict[str, Any]:
    """Typed parameters of a JSON body; absent and null fields are absent.

    Malformed JSON and an empty body count as `{}`. Raises ApiError.
    """
    check_content_type(content_type)
    return from_json(body, fields)


def from_json(body: bytes, fields: Fields) -> dict[str, Any]:
    """`from_body` where MLflow does not look at the content type."""
    return parse(_json_object(body), fields)


def struct_from_body(body: bytes, content_type: str | None, kind: type[T]) -> T:
    """A JSON body of muniment's own API as a struct. Raises ApiError, Invalid."""
    check_content_type(content_type)
    refuse_two_values(body)
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"The request body cannot be read: {error}") from None


def check_content_type(content_type: str | None) -> None:
    """Raise ApiError unless the content type is JSON."""
    if content_type is None:
        raise ApiError("INVALID_PARAMETER_VALUE", "Bad Request. Content-Type header is missing.")
    if content_type.partition(";")[0] != "application/json":
        raise ApiError(
            "INVALID_PARAMETER_VALUE",
            "Bad Request. Content-Type must be one of ['application/json'].",
        )


def from_query(query: bytes, fields: Fields) -> dict[str, Any]:
    """Typed parameters of a query string; repeated fields repeat the key. Raises ApiError."""
    given = parse_qs(
        query.decode("utf-8", "surrogateescape"), keep_blank_values=True, errors="surrogateescape"
    )
    data: dict[str, Any] = {}
    for field in fields:
        values = given.get(field.name)
        if values is None:
            continue
        if field.repeated:
            data[field.name] = [_query_text(value) for value in values]
        elif field.kind == "bool":
            data[field.name] = _query_bool(values[0])
        else:
            data[field.name] = _query_text(values[0])
    return parse(data, fields)


def parse(data: Mapping[str, Any], fields: Fields) -> dict[str, Any]:
    """Typed values of `data` by field name. Raises ApiError with MLflow's message."""
    _refuse_two_spellings(data, fields)
    values: dict[str, Any] = {}
    for field in fields:
        raw = _raw(data, field)
        _validate(field, data)
        try:
            if raw is not None:
                values[field.name] = _value(raw, field)
            elif not field.nullable and field.name in data:
                raise _Mismatch(None)
        except _Mismatch as mismatch:
            if field.checked or field.required:
                raise _wrong_type(field.name + mismatch.place, mismatch.value) from None
        if field.most is not None and values.get(field.name, 0) > field.most:
            raise _wrong_type(field.name, raw)
    return values


def missing(path: str) -> ApiError:
    """MLflow's wording for an absent nested parameter (`metrics[0].key`)."""
    return ApiError(
        "INVALID_PARAMETER_VALUE", f"Missing value for required parameter '{path}'.{_SEE}"
    )


def _json_object(body: bytes) -> Mapping[str, Any]:
    data = _decode(body) if body else None
    if isinstance(data, str):  # older clients encode twice
        data = _decode(data.encode("utf-8", "surrogatepass"))
        if data is None:
            raise _no_object()
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise _no_object()
    return data


def refuse_two_values(body: bytes) -> None:
    """Raise Invalid for two different values under one name: what checks a request before us may
    have read the other one (RFC 8259, section 4)."""
    try:
        json.loads(body, object_pairs_hook=_with_one_value)
    except (ValueError, RecursionError):
        return  # Whoever reads it says so.


def _with_one_value(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    for name, value in pairs if len(found) < len(pairs) else ():
        if found[name] != value:
            raise Invalid(f"The request body has {shown(name)} twice, with different values.")
    return found


def _decode(body: bytes) -> Any:
    """The JSON value, or None for what is no JSON.

    The second decoder knows what the first does not: NaN, Infinity, 1e400, lone surrogates, a byte
    order mark.
    """
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _no_object() -> ApiError:
    return ApiError("INVALID_PARAMETER_VALUE", "The request body must be a JSON object.")


def _query_text(value: str) -> str:
    # Bytes that are no UTF-8 stay percent-encoded, as in MLflow.
    return _ESCAPED_BYTE.sub(lambda match: f"%{ord(match[0]) - 0xDC00:02X}", value)


def _query_bool(value: str) -> bool:
    if value.lower() not in ("true", "false"):
        raise ApiError(
            "INVALID_PARAMETER_VALUE",
            f"Invalid boolean value: {_query_text(value)}, must be 'true' or 'false'.",
        )
    return value.lower() == "true"


def _refuse_two_spellings(data: Mapping[str, Any], fields: Fields) -> None:
    for field in fields:
        if field.camel != field.name and field.camel in data and field.name in data:
            raise ApiError(
                "INVALID_PARAMETER_VALUE",
                f"Request specifies both '{field.name}' and '{field.camel}'; provide only one of "
                "them.",
            )


def _raw(data: Mapping[str, Any], field: Field) -> Any:
    raw = data.get(field.name)
    return data.get(field.camel) if raw is None else raw


def _validate(field: Field, data: Mapping[str, Any]) -> None:
    if not field.required:
        return
    raw = data.get(field.name)
    if field.name == "run_id" and raw is None:
        raw = data.get("run_uuid")
    if raw is None or raw == "":
        raise missing(field.name)


def _value(raw: Any, field: Field) -> Any:
    if not field.repeated:
        return _single(raw, field)
    if not isinstance(raw, list):
        raise _Mismatch(raw)
    if len(raw) > LIST_ITEMS_MAX:
        raise ApiError(
            "INVALID_PARAMETER_VALUE",
            f"Parameter '{field.name}' has {len(raw)} items; it may have {LIST_ITEMS_MAX}.",
        )
    items = []
    for index, item in enumerate(raw):
        try:
            items.append(_single(item, field))
        except _Mismatch as mismatch:
            if field.kind != "message":
                raise _Mismatch(raw) from None
            raise _Mismatch(mismatch.value, f"[{index}]{mismatch.place}") from None
    return items


def _message(raw: Any, fields: Fields) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise _Mismatch(raw)
    _refuse_two_spellings(raw, fields)
    values: dict[str, Any] = {}
    for field in fields:
        given = _raw(raw, field)
        if given is None:
            continue
        try:
            values[field.name] = _value(given, field)
        except _Mismatch as mismatch:
            raise _Mismatch(mismatch.value, f".{field.name}{mismatch.place}") from None
    return values


def _single(raw: Any, field: Field) -> Any:
    match field.kind:
        case "string":
            return _text(raw)
        case "int":
            return _integer(raw)
        case "double":
            return _double(raw)
        case "bool":
            if not isinstance(raw, bool):
                raise _Mismatch(raw)
            return raw
        case "message":
            return _message(raw, field.fields)
        case "enum":
            return _enum(raw, field.numbers)
    _check_encodable(raw)
    return raw


def _text(raw: Any) -> str:
    if not isinstance(raw, str):
        raise _Mismatch(raw)
    if not raw.isascii():
        _check_encodable(raw)
    return raw


def _check_encodable(raw: Any) -> None:
    # A lone surrogate is no character: no UTF-8 encodes it, so it could not be kept.
    try:
        msgspec.json.encode(raw)
    except (UnicodeEncodeError, RecursionError):
        raise _Mismatch(raw) from None


def _enum(raw: Any, numbers: tuple[str, ...]) -> str:
    if isinstance(raw, str) and not (numbers and raw.isdecimal()):
        return _text(raw)
    number = _integer(raw)
    if not 0 <= number < len(numbers):
        raise _Mismatch(raw)
    return numbers[number]


def _integer(raw: Any) -> int:
    if isinstance(raw, bool) or not isinstance(raw, (int, float, str)):
        raise _Mismatch(raw)
    try:
        value = int(raw)
    except (ValueError, OverflowError):
        raise _Mismatch(raw) from None
    if not INT64_MIN <= value <= INT64_MAX:
        raise _Mismatch(raw)
    return value


def _double(raw: Any) -> float:
    if not isinstance(raw, (bool, int, float, str)):
        raise _Mismatch(raw)
    try:
        return float(raw)
    except OverflowError:
        # An integer beyond the largest double; texts and literals give infinity by themselves.
        return math.copysign(math.inf, 1 if isinstance(raw, int) and raw > 0 else -1)
    except ValueError:
        raise _Mismatch(raw) from None


def _wrong_type(name: str, raw: Any) -> ApiError:
    return ApiError(
        "INVALID_PARAMETER_VALUE",
        f"Invalid value {shown(raw)} for parameter '{name}' supplied: "
        f" Hint: Value was of type '{type(raw).__name__}'.{_SEE}",
    )


def pairs(items: Sequence[Mapping[str, Any]] | None) -> tuple[tuple[str, str], ...]:
    """A repeated {key, value} message as pairs; absent parts are empty texts."""
    return tuple((item.get("key", ""), item.get("value", "")) for item in items or ())


TAG_FIELDS: Fields = (Field("key"), Field("value"))
"""Fields of every {key, value} message."""
