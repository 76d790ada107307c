"""Request parameters: from JSON bodies and query strings to typed values, by MLflow's rules.

MLflow reads JSON the protobuf way (numbers may be quoted, integers may be written 5.0, unknown
fields are ignored) and checks types afterwards only if that failed. `parse` does the same for a
table of `Field`s, one table per route.
Source: MLflow 3.17 server answers; ProtoJSON mapping.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

import msgspec

from muniment_services.api.errors import ApiError
from muniment_services.domain.limits import INT64_MAX, INT64_MIN

_SEE = " See the API docs for more information about request parameters."


@dataclass(frozen=True, slots=True)
class Field:
    """One parameter of a route.

    kind: string, int, double, bool, enum, any (JSON as it is), or message (with `fields`).
    checked: MLflow validates its type itself, with a message of its own, when parsing failed.
    most: (largest integer, message) that MLflow checks in the same place.
    """

    name: str
    kind: str = "string"
    required: bool = False
    repeated: bool = False
    fields: tuple[Field, ...] = ()
    checked: bool = True
    most: tuple[int, str] | None = None


Fields = tuple[Field, ...]


class _Mismatch(Exception):
    """A value does not have its field's type."""


def from_body(body: bytes, content_type: str | None, fields: Fields) -> dict[str, Any]:
    """Typed parameters of a JSON body; absent and null fields are absent.

    Malformed JSON and an empty body count as `{}`. Raises ApiError.
    """
    check_content_type(content_type)
    return parse(_json_object(body), fields)


def check_content_type(content_type: str | None) -> None:
    """Raise ApiError unless the content type is JSON."""
    if content_type is None:
        raise ApiError("INVALID_PARAMETER_VALUE", "Bad Request. Content-Type header is missing.")
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise ApiError(
            "INVALID_PARAMETER_VALUE",
            "Bad Request. Content-Type must be one of ['application/json'].",
        )


def from_query(query: bytes, fields: Fields) -> dict[str, Any]:
    """Typed parameters of a query string; repeated fields repeat the key. Raises ApiError."""
    given = parse_qs(query.decode("latin-1"), keep_blank_values=True)
    data: dict[str, Any] = {}
    for field in fields:
        values = given.get(field.name)
        if values is None:
            continue
        if field.repeated:
            data[field.name] = values
        elif field.kind == "bool":
            data[field.name] = _query_bool(values[0])
        else:
            data[field.name] = values[0]
    return parse(data, fields)


def parse(data: Mapping[str, Any], fields: Fields) -> dict[str, Any]:
    """Typed values of `data` by field name. Raises ApiError with MLflow's message."""
    values, clean = _message(data, fields)
    for field in fields:
        _validate(field, data, clean)
    return values


def missing(path: str) -> ApiError:
    """MLflow's wording for an absent nested parameter (`metrics[0].key`)."""
    return ApiError(
        "INVALID_PARAMETER_VALUE", f"Missing value for required parameter '{path}'.{_SEE}"
    )


def _json_object(body: bytes) -> Mapping[str, Any]:
    try:
        data = msgspec.json.decode(body) if body else {}
        if isinstance(data, str):
            data = msgspec.json.decode(data)
    except msgspec.DecodeError:
        return {}
    return data if isinstance(data, dict) else {}


def _query_bool(value: str) -> bool:
    if value.lower() not in ("true", "false"):
        raise ApiError(
            "INVALID_PARAMETER_VALUE",
            f"Invalid boolean value: {value}, must be 'true' or 'false'.",
        )
    return value.lower() == "true"


def _message(data: Mapping[str, Any], fields: Fields) -> tuple[dict[str, Any], bool]:
    values: dict[str, Any] = {}
    clean = True
    for field in fields:
        raw = data.get(field.name)
        if raw is None:
            raw = data.get(_camel(field.name))
        if raw is None:
            continue
        try:
            value = _repeated(raw, field) if field.repeated else _single(raw, field)
        except _Mismatch:
            clean = False
            continue
        if value is not None:
            values[field.name] = value
    return values, clean


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.title() for part in rest)


def _repeated(raw: Any, field: Field) -> list[Any]:
    if not isinstance(raw, list):
        raise _Mismatch
    return [_single(item, field) for item in raw]


def _single(raw: Any, field: Field) -> Any:
    match field.kind:
        case "string":
            if not isinstance(raw, str):
                raise _Mismatch
            return raw
        case "int":
            return _integer(raw)
        case "double":
            return _double(raw)
        case "bool":
            if not isinstance(raw, bool):
                raise _Mismatch
            return raw
        case "message":
            if not isinstance(raw, dict):
                raise _Mismatch
            values, clean = _message(raw, field.fields)
            if not clean:
                raise _Mismatch
            return values
        case "enum":
            return raw if isinstance(raw, str) else None
    return raw


def _integer(raw: Any) -> int:
    if isinstance(raw, bool) or not isinstance(raw, (int, float, str)):
        raise _Mismatch
    try:
        value = int(raw) if not isinstance(raw, str) or _is_integer(raw) else int(float(raw))
    except (ValueError, OverflowError):
        raise _Mismatch from None
    if not INT64_MIN <= value <= INT64_MAX:
        raise _Mismatch
    return value


def _is_integer(text: str) -> bool:
    return text.lstrip("-").isdigit()


def _double(raw: Any) -> float:
    if not isinstance(raw, (bool, int, float, str)):
        raise _Mismatch
    try:
        return float(raw)
    except OverflowError:
        return math.inf if str(raw)[0] != "-" else -math.inf
    except ValueError:
        raise _Mismatch from None


def _validate(field: Field, data: Mapping[str, Any], clean: bool) -> None:
    raw = data.get(field.name)
    if field.name == "run_id" and raw is None:
        raw = data.get("run_uuid")
    if field.required and (raw is None or raw == ""):
        raise missing(field.name)
    if field.name not in data:
        return
    if field.checked and not clean and not _has_type(raw, field):
        raise _wrong_type(field.name, raw)
    if field.most is not None and raw is not None and int(raw) > field.most[0]:
        raise ApiError("INVALID_PARAMETER_VALUE", field.most[1] + _SEE)


def _has_type(raw: Any, field: Field) -> bool:
    if field.repeated:
        strings = field.kind != "string" or all(isinstance(x, str) for x in raw or ())
        return isinstance(raw, list) and strings
    match field.kind:
        case "string":
            return isinstance(raw, str)
        case "int":
            return _converts(raw, int)
        case "double":
            return _converts(raw, float)
        case "bool":
            return isinstance(raw, bool)
    return True


def _converts(raw: Any, to: type[int] | type[float]) -> bool:
    try:
        to(raw)
    except (ValueError, TypeError, OverflowError):
        return False
    return True


def _wrong_type(name: str, raw: Any) -> ApiError:
    shown = msgspec.json.encode(raw).decode()
    return ApiError(
        "INVALID_PARAMETER_VALUE",
        f"Invalid value {shown} for parameter '{name}' supplied: "
        f" Hint: Value was of type '{type(raw).__name__}'.{_SEE}",
    )


def pairs(items: Sequence[Mapping[str, Any]] | None) -> tuple[tuple[str, str], ...]:
    """A repeated {key, value} message as pairs; absent parts are empty texts."""
    return tuple((item.get("key", ""), item.get("value", "")) for item in items or ())


TAG_FIELDS: Fields = (Field("key"), Field("value"))
"""Fields of every {key, value} message."""
