"""Recorded HTTP exchanges: what MLflow's own server answered, call by call, and whether ours agrees.

A scenario is one JSON file of `tests/golden/http/`, a list of raw HTTP calls in order. `record` sends
the calls to an MLflow server and writes its answers into the files; `replay` sends them to any server
and reports each difference. Requests are written by hand, answers only by `record`; nothing else
may edit an answer.

    python tests/harness/exchanges.py record --uri http://127.0.0.1:5555 [--scenario runs-lifecycle]
    python tests/harness/exchanges.py replay --uri http://127.0.0.1:5000 [--scenario runs-lifecycle]

The format, its placeholders and what comparison leaves out stand in `tests/golden/http/README.md`.
"""

import argparse
import hashlib
import http.client
import json
import math
import re
import secrets
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec

SCENARIOS = Path(__file__).resolve().parent.parent / "golden" / "http"
CALL_TIMEOUT_S = 30.0
NEAR_NOW_MS = 600_000  # a number this close to the clock is a time the server took itself
LINE_COLUMNS = 100
UNKNOWN_ID = "0123456789abcdef0123456789abcdef"  # a well-formed id that names nothing
REPEAT_FOLDED_MIN = 60  # a longer run of one character is written `${a*250}`
VALUE_SHOWN_CHARS = 300
DIFFERENCES_SHOWN = 12

Clock = Callable[[], int]
Names = dict[str, Any]

_PLACEHOLDER = re.compile(r"\$\{([^{}]+)\}")
_REPEATED = re.compile(r"^(.+)\*(\d+)$", re.DOTALL)
_HEX32 = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")
_ISO_TIME = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")
_MILLISECONDS = re.compile(r"(?<!\d)1[6-9]\d{11}(?!\d)")
_RUN_NAME = re.compile(r"^[a-z]+-[a-z]+-\d{1,3}$")
_ONE_CHARACTER = re.compile(r"(.)\1{%d,}" % (REPEAT_FOLDED_MIN - 1), re.DOTALL)
_PYTHON_SET = re.compile(r"\{('[^{}:]*')\}")
_BEFORE_ID = r"(?:(?<=[iI][dD][= ])|(?<=:/)|(?<=xperiment )|(?<=value )|(?<=['\"]))"
_DRIVER_TEXT = re.compile(r"\((?:sqlite3|raised as a result)[.\s].*", re.DOTALL)

# What a placeholder `${any:KIND}` of an answer stands for.
_KINDS: Mapping[str, str] = {
    "hex32": r"[0-9a-f]{32}",
    "id": r"\d+",
    "iso-time": _ISO_TIME.pattern,
    "ms": r"\d{13}",
    "run-name": r"[a-z]+-[a-z]+-\d{1,3}",
    "token": r".+",
    "text": r".*",
}
# Lists that are sets or maps by meaning, and the field that orders them for comparison.
_UNORDERED: Mapping[str, Sequence[str]] = {
    "tags": ("key",),
    "params": ("key",),
    "metrics": ("key",),
    "aliases": ("alias",),
    "dataset_inputs": ("dataset", "name"),
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


class Step(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One call: `do` is `METHOD path`; `answer` is MLflow's, `ours` what we knowingly do instead.

    pick: of a good answer only this part is kept, `runs.*.info.run_name` for each run's name.
    """

    do: str
    note: str = ""
    query: dict[str, Any] = {}
    body: Any = msgspec.UNSET
    raw: str | msgspec.UnsetType = msgspec.UNSET
    headers: dict[str, str | None] = {}
    save: dict[str, str] = {}
    pick: str = ""
    wait_ms: int = 0
    answer: Answer | None = None
    differs: str = ""
    ours: Answer | None = None


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A topic's calls in order; later steps use what earlier ones saved."""

    about: str
    steps: list[Step]


_REFUSED = Answer(400, json={"error_code": "${any:text}", "message": "${any:text}"})


class UnboundName(Exception):
    """A step needs a value that an earlier, failed step should have saved."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One step that does not agree: its place, the call and what differs."""

    scenario: str
    index: int
    step: Step
    differences: list[str]

    def __str__(self) -> str:
        note = f"   ({self.step.note})" if self.step.note else ""
        lines = [f"✗ {self.scenario} #{self.index}  {self.step.do}{note}"]
        for label in ("query", "body", "raw", "headers"):
            if value := getattr(self.step, label):
                lines.append(f"    {label}: {_shown(value)}")
        lines += [f"  - {each}" for each in self.differences[:DIFFERENCES_SHOWN]]
        if (left := len(self.differences) - DIFFERENCES_SHOWN) > 0:
            lines.append(f"  - and {left} more")
        return "\n".join(lines)


# --- templates -----------------------------------------------------------------------------------


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


# --- comparison ----------------------------------------------------------------------------------


def differences(expected: Answer, actual: Answer, names: Names, now_ms: int) -> list[str]:
    """Say where `actual` is not what `expected` (with placeholders) asks for; empty when it is."""
    found = []
    if expected.status != actual.status:
        found.append(f"status: {expected.status} expected, got {actual.status}")
    if expected.json is msgspec.UNSET and expected.text is msgspec.UNSET:
        return found + ([f"got body: {_shown(_body(actual))}"] if found else [])
    try:
        wanted = Answer(**fill(_fields(expected), names))
    except UnboundName as error:
        return [*found, f"`{error}` was not saved by an earlier step"]
    for field in ("type", "disposition"):
        found += _compare(getattr(wanted, field), getattr(actual, field), field, now_ms)
    if (wanted.json is msgspec.UNSET) != (actual.json is msgspec.UNSET):
        return [*found, f"body: {_shown(_body(wanted))} expected, got {_shown(_body(actual))}"]
    found += _compare(_orderly(_body(wanted)), _orderly(_body(actual)), "", now_ms)
    return found


def _compare(wanted: Any, actual: Any, path: str, now_ms: int) -> list[str]:
    if isinstance(wanted, dict) and isinstance(actual, dict):
        return list(_compare_objects(wanted, actual, path, now_ms))
    if isinstance(wanted, list) and isinstance(actual, list):
        if len(wanted) != len(actual):
            return [f"{path}: {len(wanted)} items expected, got {len(actual)}: {_shown(actual)}"]
        pairs = enumerate(zip(wanted, actual, strict=True))
        return [d for i, (w, a) in pairs for d in _compare(w, a, f"{path}[{i}]", now_ms)]
    if _agrees(wanted, actual, now_ms):
        return []
    return [f"{path or 'body'}: {_shown(wanted)} expected, got {_shown(actual)}"]


def _compare_objects(
    wanted: dict[str, Any], actual: dict[str, Any], path: str, now_ms: int
) -> Iterator[str]:
    for key in wanted.keys() | actual.keys():
        place = f"{path}.{key}" if path else key
        if key not in actual:
            yield f"{place}: {_shown(wanted[key])} expected, but absent"
        elif key not in wanted:
            yield f"{place}: not expected, got {_shown(actual[key])}"
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
    if (path := _UNORDERED.get(key)) is None:
        return items
    keys = [_lookup(item, path) for item in items]
    # A metric's history repeats one key, and there the order is the answer.
    if None in keys or len(set(keys)) < len(keys):
        return items
    return [item for _, item in sorted(zip(keys, items, strict=True), key=lambda pair: pair[0])]


def _lookup(value: Any, path: Sequence[str]) -> Any:
    for part in path:
        if isinstance(value, list) and part.lstrip("-").isdigit() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, dict):
            value = value.get(part)
        else:
            return None
    return value


def _fields(answer: Answer) -> dict[str, Any]:
    return {k: v for k, v in msgspec.structs.asdict(answer).items() if v is not msgspec.UNSET}


def _body(answer: Answer) -> Any:
    return answer.text if answer.json is msgspec.UNSET else answer.json


def _shown(value: Any) -> str:
    if value is msgspec.UNSET:
        return "none"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= VALUE_SHOWN_CHARS else text[:VALUE_SHOWN_CHARS] + "…"


# --- calls ---------------------------------------------------------------------------------------


def call(connection: http.client.HTTPConnection, step: Step, names: Names) -> Answer:
    """Send one step as it is written (no path is tidied) and read the answer.

    Raises UnboundName, and OSError when there is no server.
    """
    method, path = fill(step.do, names).split(" ", 1)
    query = "&".join(
        f"{quote(key)}={quote(str(value), safe='')}"
        for key, values in fill(step.query, names).items()
        for value in (values if isinstance(values, list) else [values])
    )
    body = _request_body(step, names)
    headers = {"Content-Type": "application/json"} if body is not None else {}
    headers |= fill(step.headers, names)
    sent = {key: value for key, value in headers.items() if value is not None}
    connection.request(method, _full_path(path) + ("?" + query if query else ""), body, sent)
    answer = _read(connection.getresponse())
    if answer.status >= 400:
        # A server may refuse before it has read the body, and then hang up without saying so.
        connection.close()
    return answer


def _full_path(path: str) -> str:
    if path.startswith("/"):
        return path
    if path.startswith("3:"):
        return "/api/3.0/mlflow/" + path[2:]
    return "/api/2.0/mlflow/" + path


def _request_body(step: Step, names: Names) -> bytes | None:
    if step.raw is not msgspec.UNSET:
        return str(fill(step.raw, names)).encode()
    if step.body is msgspec.UNSET:
        return None
    return json.dumps(fill(step.body, names)).encode()


def _read(response: http.client.HTTPResponse) -> Answer:
    raw = response.read()
    media = response.headers.get("Content-Type", "")
    disposition = response.headers.get("Content-Disposition") or msgspec.UNSET
    if raw and media.startswith("application/json") and disposition is msgspec.UNSET:
        return Answer(response.status, json=json.loads(raw))
    if media.startswith("text/html") and raw.lstrip()[:1] == b"<" and response.status >= 400:
        return Answer(response.status)
    text = raw.decode("utf-8", errors="backslashreplace")
    return Answer(response.status, type=media, disposition=disposition, text=text)


def _save(step: Step, answer: Answer, names: Names) -> None:
    for name, path in step.save.items():
        if answer.json is not msgspec.UNSET:
            value = _lookup(answer.json, path.split("."))
            if value is not None:
                names[name] = value


def _picked(step: Step, answer: Answer) -> Answer:
    if not step.pick or answer.status >= 400 or answer.json is msgspec.UNSET:
        return answer
    return msgspec.structs.replace(answer, json=_pick(answer.json, step.pick.split(".")))


def _pick(value: Any, path: Sequence[str]) -> Any:
    if "*" not in path:
        return _lookup(value, path)
    star = path.index("*")
    return [_pick(item, path[star + 1 :]) for item in _lookup(value, path[:star]) or []]


def _names(uri: str, prefix: str) -> Names:
    return {"P": prefix, "host": urlsplit(uri).netloc, "unknown": UNKNOWN_ID}


def _connect(uri: str) -> http.client.HTTPConnection:
    parts = urlsplit(uri)
    assert parts.hostname is not None, f"not a URI with a host: {uri}"
    return http.client.HTTPConnection(parts.hostname, parts.port, timeout=CALL_TIMEOUT_S)


# --- record and replay ---------------------------------------------------------------------------


def load(name: str) -> Scenario:
    """Read one scenario file. Raises msgspec.ValidationError when it is not one."""
    return msgspec.json.decode((SCENARIOS / f"{name}.json").read_bytes(), type=Scenario)


def scenario_names() -> list[str]:
    """All recorded topics, sorted."""
    return sorted(path.stem for path in SCENARIOS.glob("*.json"))


def replay(
    scenario: str, uri: str, *, prefix: str, clock: Clock, upstream: bool = False
) -> list[Failure]:
    """Send a scenario's calls to the server at `uri` and compare; prefix: unused there so far.

    upstream: hold MLflow's own answer against it also where ours knowingly differs.
    """
    names = _names(uri, prefix)
    failures = []
    connection = _connect(uri)
    for index, step in enumerate(load(scenario).steps, start=1):
        time.sleep(step.wait_ms / 1000)
        expected = step.answer if upstream else _ours(step)
        assert expected is not None, f"{scenario} #{index} was never recorded"
        try:
            actual = call(connection, step, names)
        except UnboundName as error:
            reason = [f"not sent: `{error}` was not saved by an earlier step"]
        except (http.client.HTTPException, OSError) as error:
            connection.close()
            reason = [f"no answer: {error!r}"]
        else:
            _save(step, actual, names)
            reason = differences(expected, _picked(step, actual), names, clock())
        if reason:
            failures.append(Failure(scenario, index, step, reason))
    connection.close()
    return failures


def _ours(step: Step) -> Answer | None:
    """What our server must answer: MLflow's answer, unless MLflow itself broke.

    An HTML 500 and a database driver's text are MLflow's accidents; ours refuses such a call as
    the client's mistake, in MLflow's shape. A 5xx would make the client retry for minutes.
    """
    if step.ours is not None or step.answer is None:
        return step.ours
    message = step.answer.json.get("message") if isinstance(step.answer.json, dict) else None
    crashed = step.answer.status >= 500 and step.answer.json is msgspec.UNSET
    return _REFUSED if crashed or message == "${any:text}" else step.answer


def record(scenario: str, uri: str, *, prefix: str, clock: Clock) -> int:
    """Send a scenario's calls to MLflow's server and write its answers; returns their number."""
    names = _names(uri, prefix)
    connection = _connect(uri)
    source = load(scenario)
    steps = []
    for step in source.steps:
        time.sleep(step.wait_ms / 1000)
        try:
            answer = call(connection, step, names)
        except UnboundName as error:
            raise SystemExit(f"{scenario}: `{step.do}` needs `{error}`, never saved") from None
        _save(step, answer, names)
        folded = _folded(step, answer, names, clock())
        steps.append(msgspec.structs.replace(step, answer=folded))
    connection.close()
    write(scenario, Scenario(source.about, steps))
    return len(steps)


def _folded(step: Step, answer: Answer, names: Names, now_ms: int) -> Answer:
    key = step.pick.split(".")[-1]
    fields = _fields(_picked(step, answer))
    return Answer(**{name: fold(value, names, now_ms, key) for name, value in fields.items()})


def write(name: str, scenario: Scenario) -> None:
    """Write a scenario file in its fixed layout, so that re-recording shows only what changed."""
    text = _layout(msgspec.to_builtins(scenario), "")
    (SCENARIOS / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def _layout(value: Any, indent: str) -> str:
    """JSON on one line where it fits, else one item a line."""
    line = json.dumps(value, ensure_ascii=False)
    if len(indent) + len(line) <= LINE_COLUMNS or not isinstance(value, dict | list) or not value:
        return line
    inner = indent + "  "
    if isinstance(value, list):
        items = [inner + _layout(item, inner) for item in value]
        return "[\n" + ",\n".join(items) + f"\n{indent}]"
    items = [
        f"{inner}{json.dumps(key, ensure_ascii=False)}: {_layout(item, inner)}"
        for key, item in value.items()
    ]
    return "{\n" + ",\n".join(items) + f"\n{indent}}}"


# --- command line --------------------------------------------------------------------------------


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _causes(failures: Sequence[Failure]) -> list[str]:
    """The commonest first differences, with the list positions and values taken out."""
    counts = Counter(re.sub(r"\[\d+\]", "[]", failure.differences[0])[:110] for failure in failures)
    return [f"{count:5}  {cause}" for cause, count in counts.most_common(15)]


def _replay_all(names: Sequence[str], uri: str, upstream: bool, quiet: bool) -> int:
    everything: list[Failure] = []
    total = 0
    lines = []
    for name in names:
        failures = replay(name, uri, prefix=_prefix(), clock=_now_ms, upstream=upstream)
        steps = len(load(name).steps)
        total += steps
        everything += failures
        lines.append(f"{name:24} {steps - len(failures):4} of {steps:4} agree")
        if not quiet:
            print("".join(f"{failure}\n" for failure in failures), end="")
    print("\n".join(lines))
    print(f"{'all':24} {total - len(everything):4} of {total:4} agree")
    if everything:
        print("\ncommonest differences\n" + "\n".join(_causes(everything)))
    return 1 if everything else 0


def _prefix() -> str:
    return "wire-" + secrets.token_hex(4)


def main(arguments: Sequence[str]) -> int:
    """Run `record` or `replay`; the exit code is 1 when a replay differs."""
    parser = argparse.ArgumentParser(prog="exchanges.py", description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["record", "replay"])
    parser.add_argument("--uri", required=True, help="the server's address, without a path")
    parser.add_argument("--scenario", action="append", choices=scenario_names(), help="repeatable")
    parser.add_argument("--upstream", action="store_true", help="replay on MLflow's own server")
    parser.add_argument("--quiet", action="store_true", help="replay: the summary alone")
    options = parser.parse_args(arguments)
    names = options.scenario or scenario_names()
    if options.what == "replay":
        return _replay_all(names, options.uri, options.upstream, options.quiet)
    for name in names:
        print(f"{name:24} {record(name, options.uri, prefix=_prefix(), clock=_now_ms):4} recorded")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
