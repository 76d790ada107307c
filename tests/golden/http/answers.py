"""Answers as templates: how a recorded answer is written, filled in and compared.

`fold` turns a server's answer into a template, where everything that differs from run to run is a
placeholder; `fill` puts this run's values in; `differences` holds an answer against the template.
README.md beside this file names the placeholders. Nothing here sends or stores anything.
"""

import hashlib
import json
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

NEAR_NOW_MS = 600_000  # a number this close to the clock is a time the server took itself
REPEAT_FOLDED_MIN = 60  # a longer run of one character is written `${a*250}`
VALUE_SHOWN_CHARS = 300

Names = dict[str, Any]

_PLACEHOLDER = re.compile(r"\$\{([^{}]+)\}")
_REPEATED = re.compile(r"^(.+)\*(\d+)$", re.DOTALL)
_HEX32 = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")
_ISO_TIME = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")
_MILLISECONDS = re.compile(r"(?<!\d)1[6-9]\d{11}(?!\d)")
_RUN_NAME = re.compile(r"^[a-z]+-[a-z]+-\d{1,3}$")
_ONE_CHARACTER = re.compile(rf"(.)\1{{{REPEAT_FOLDED_MIN - 1},}}", re.DOTALL)
_PYTHON_SET = re.compile(r"\{('[^{}:]*')\}")
_BEFORE_ID = r"(?:(?<=[iI][dD][= ])|(?<=:/)|(?<=xperiment )|(?<=value )|(?<=['\"]))"
_DRIVER_TEXT = re.compile(r"\((?:sqlite3|raised as a result)[.\s].*", re.DOTALL)

# What a placeholder `${any:KIND}` of an answer stands for.
_KINDS: Mapping[str, str] = {
    "hex32": r"[0-9a-f]{32}",
    "sha256": r"[0-9a-f]{64}",
    "id": r"\d+",
    "iso-time": _ISO_TIME.pattern,
    "ms": r"\d{13}",
    "run-name": r"[a-z]+-[a-z]+-\d{1,3}",
    "token": r".+",
    "text": r".*",
}
# Lists that are sets or maps by meaning, and the fields that order them for comparison.
_UNORDERED: Mapping[str, Sequence[str]] = {
    "tags": ("key",),
    "params": ("key",),
    "metrics": ("key",),
    "aliases": ("alias",),
    "dataset_inputs": ("dataset.name", "dataset.digest"),
    "model_inputs": ("model_id",),
    "model_outputs": ("model_id",),
}
# Databricks extras that the server adds to every error; no client reads them.
_ERROR_EXTRAS = frozenset({"sqlstate", "error_class"})


class Answer(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One recorded answer; a body that is neither JSON nor text (an HTML error) is status only."""

    status: int
    type: str | msgspec.UnsetType = msgspec.UNSET
    disposition: str | msgspec.UnsetType = msgspec.UNSET
    json: Any = msgspec.UNSET
    text: str | msgspec.UnsetType = msgspec.UNSET


class UnboundName(Exception):
    """A step needs a value that an earlier, failed step should have saved."""


def fill(template: Any, names: Names) -> Any:
    """Put values in the place of placeholders, in keys too; a lone `${x}` keeps x's type.

    Raises UnboundName. `${any:…}` stays, for `differences` to match.
    """
    if isinstance(template, str):
        if (lone := _PLACEHOLDER.fullmatch(template)) is not None:
            return _value_of(lone[1], names)
        return _PLACEHOLDER.sub(lambda match: str(_value_of(match[1], names)), template)
    if isinstance(template, list):
        return [fill(item, names) for item in template]
    if isinstance(template, dict):
        if "$repeat" in template:
            item = template["item"]
            return [fill(item, {**names, "i": i}) for i in range(template["$repeat"])]
        return {fill(key, names): fill(item, names) for key, item in template.items()}
    return template


def _value_of(name: str, names: Names) -> Any:
    if name in names:
        return names[name]
    if name.startswith("any:"):
        return "${" + name + "}"
    if name.startswith("hex:"):
        # Ids that the client chooses (traces), new in each run; remembered, so answers fold back.
        digest = hashlib.md5(f"{names['P']}{name}".encode(), usedforsecurity=False)
        return names.setdefault(name, digest.hexdigest())
    if (repeated := _REPEATED.match(name)) is not None:
        return repeated[1] * int(repeated[2])
    raise UnboundName(name)


def fold(answer: Any, names: Names, now_ms: int, key: str = "") -> Any:
    """The inverse for recording: what differs from run to run becomes a placeholder again."""
    if isinstance(answer, dict):
        kept = {k: item for k, item in answer.items() if k not in _ERROR_EXTRAS}
        return {
            _fold_text(k, names, now_ms, ""): fold(item, names, now_ms, k)
            for k, item in kept.items()
        }
    if isinstance(answer, list):
        return [fold(item, names, now_ms, key) for item in answer]
    if isinstance(answer, str):
        return _fold_text(answer, names, now_ms, key)
    if isinstance(answer, float) and math.isnan(answer):
        return "${any:nan}"
    return "${any:time}" if isinstance(answer, int) and _is_near(answer, now_ms) else answer


def _fold_text(text: str, names: Names, now_ms: int, key: str) -> str:
    if key == "next_page_token" and text:
        return "${any:token}"
    if key == "experiment_id" and text.isdigit() and text != "0" and text not in names.values():
        return "${any:id}"
    if key in ("run_name", "name", "value") and _RUN_NAME.match(text):
        return "${any:run-name}"
    for name, value in sorted(names.items(), key=lambda pair: -len(str(pair[1]))):
        text = _fold_name(text, "${" + name + "}", str(value), key)
    text = _PYTHON_SET.sub(_sorted_set, text)
    text = _DRIVER_TEXT.sub("${any:text}", text)
    year = time.strftime("%Y-", time.gmtime(now_ms / 1000))
    text = _ISO_TIME.sub(lambda m: "${any:iso-time}" if m[0].startswith(year) else m[0], text)
    text = _MILLISECONDS.sub(lambda m: "${any:ms}" if _is_near(int(m[0]), now_ms) else m[0], text)
    text = _HEX32.sub("${any:hex32}", text)
    return _ONE_CHARACTER.sub(lambda m: f"${{{m[1]}*{len(m[0])}}}", text)


def _fold_name(text: str, placeholder: str, value: str, key: str) -> str:
    """Short values (experiment ids) are replaced only where an id can stand."""
    if len(value) >= 8:
        return text.replace(value, placeholder)
    if text == value:
        return placeholder if "experiment_id" in key else text
    return re.sub(rf"{_BEFORE_ID}{re.escape(value)}(?![\w.-])", lambda _: placeholder, text)


def _is_near(number: int, now_ms: int) -> bool:
    return abs(number - now_ms) < NEAR_NOW_MS


def _sorted_set(match: re.Match[str]) -> str:
    """A Python set's text in a fixed order: its own order changes with each process."""
    return "{" + ", ".join(sorted(match[1].split(", "))) + "}"


def differences(
    expected: Answer, actual: Answer, names: Names, now_ms: int, key: str = ""
) -> list[str]:
    """Say where `actual` is not what `expected` (with placeholders) asks for; empty when it is.

    key: the field that the bodies are the value of, when they are parts of an answer.
    """
    found = []
    if expected.status != actual.status:
        found.append(f"status: {expected.status} expected, got {actual.status}")
    if expected.json is msgspec.UNSET and expected.text is msgspec.UNSET:
        return found + ([f"got body: {shown(body_of(actual))}"] if found else [])
    try:
        wanted = Answer(**fill(fields(expected), names))
    except UnboundName as error:
        return [*found, f"`{error}` was not saved by an earlier step"]
    for field in ("type", "disposition"):
        found += _compare(getattr(wanted, field), getattr(actual, field), field, now_ms)
    if (wanted.json is msgspec.UNSET) != (actual.json is msgspec.UNSET):
        return [*found, f"body: {shown(body_of(wanted))} expected, got {shown(body_of(actual))}"]
    found += _compare(_orderly(body_of(wanted), key), _orderly(body_of(actual), key), "", now_ms)
    return found


def _compare(wanted: Any, actual: Any, path: str, now_ms: int) -> list[str]:
    if isinstance(wanted, dict) and isinstance(actual, dict):
        return list(_compare_objects(wanted, actual, path, now_ms))
    if isinstance(wanted, list) and isinstance(actual, list):
        if len(wanted) != len(actual):
            return [f"{path}: {len(wanted)} items expected, got {len(actual)}: {shown(actual)}"]
        pairs = enumerate(zip(wanted, actual, strict=True))
        return [d for i, (w, a) in pairs for d in _compare(w, a, f"{path}[{i}]", now_ms)]
    if _agrees(wanted, actual, now_ms):
        return []
    return [f"{path or 'body'}: {shown(wanted)} expected, got {shown(actual)}"]


def _compare_objects(
    wanted: dict[str, Any], actual: dict[str, Any], path: str, now_ms: int
) -> Iterator[str]:
    for key in sorted(wanted.keys() | actual.keys()):
        place = f"{path}.{key}" if path else key
        if key not in actual:
            yield f"{place}: {shown(wanted[key])} expected, but absent"
        elif key not in wanted:
            yield f"{place}: not expected, got {shown(actual[key])}"
        else:
            yield from _compare(wanted[key], actual[key], place, now_ms)


def _agrees(wanted: Any, actual: Any, now_ms: int) -> bool:
    """JSON equality: 1 is 1.0, but neither "1" nor true."""
    if wanted == "${any:time}":
        return type(actual) is int and _is_near(actual, now_ms)
    if wanted == "${any:nan}":
        return actual == "NaN" or (isinstance(actual, float) and math.isnan(actual))
    if isinstance(wanted, str) and isinstance(actual, str):
        return _text_agrees(wanted, actual)
    if isinstance(wanted, bool) or isinstance(actual, bool):
        return wanted is actual
    return bool(wanted == actual)


def _text_agrees(wanted: str, actual: str) -> bool:
    wanted, actual = (_PYTHON_SET.sub(_sorted_set, text) for text in (wanted, actual))
    if "${any:" not in wanted:
        return wanted == actual
    # split() keeps the placeholders' names at the odd places.
    parts = _PLACEHOLDER.split(wanted)
    pattern = "".join(
        _KINDS[part.removeprefix("any:")] if i % 2 else re.escape(part)
        for i, part in enumerate(parts)
    )
    return re.fullmatch(pattern, actual, re.DOTALL) is not None


def _orderly(value: Any, key: str = "") -> Any:
    """Sort the lists whose order means nothing and drop what is never compared."""
    if isinstance(value, dict):
        return {k: _orderly(v, k) for k, v in value.items() if k not in _ERROR_EXTRAS}
    if not isinstance(value, list):
        return value
    items = [_orderly(item) for item in value]
    if (paths := _UNORDERED.get(key)) is None:
        return items
    places = [_place(item, paths) for item in items]
    # A metric's history repeats one key, and there the order is the answer.
    if len(set(places)) < len(places):
        return items
    return [item for _, item in sorted(zip(places, items, strict=True), key=lambda pair: pair[0])]


def _place(item: Any, paths: Sequence[str]) -> tuple[str, ...]:
    if isinstance(item, str):
        return (item,)
    return tuple(str(lookup(item, path.split("."))) for path in paths)


def lookup(value: Any, path: Sequence[str]) -> Any:
    for part in path:
        if isinstance(value, list) and part.lstrip("-").isdigit() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, dict):
            value = value.get(part)
        else:
            return None
    return value


def fields(answer: Answer) -> dict[str, Any]:
    return {k: v for k, v in msgspec.structs.asdict(answer).items() if v is not msgspec.UNSET}


def body_of(answer: Answer) -> Any:
    return answer.text if answer.json is msgspec.UNSET else answer.json


def shown(value: Any) -> str:
    if value is msgspec.UNSET:
        return "none"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= VALUE_SHOWN_CHARS else text[:VALUE_SHOWN_CHARS] + "…"
