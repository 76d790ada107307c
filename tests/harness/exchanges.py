"""Recorded HTTP exchanges: what MLflow's own server answered, call by call, and whether ours does.

A scenario is one JSON file of `tests/golden/http/`, a list of raw HTTP calls in order. `record`
sends the calls to an MLflow server and writes its answers into the files; `replay` sends them to
any server and reports each difference. Requests are written by hand, answers only by `record`.

    python tests/harness/exchanges.py record --uri http://127.0.0.1:5555 [--scenario stages]
    python tests/harness/exchanges.py replay --uri http://127.0.0.1:5000 [--scenario stages]

The format, its placeholders and what comparison leaves out: `tests/golden/http/README.md`.
"""

import argparse
import http.client
import json
import re
import secrets
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec

TESTS = Path(__file__).resolve().parent.parent
if str(TESTS) not in sys.path:  # run as a script, not by pytest
    sys.path.insert(0, str(TESTS))

from golden.http.answers import (  # noqa: E402
    Answer,
    Names,
    UnboundName,
    differences,
    fields,
    fill,
    fold,
    lookup,
    shown,
)

SCENARIOS = TESTS / "golden" / "http"
CALL_TIMEOUT_S = 30.0
UNKNOWN_ID = "0123456789abcdef0123456789abcdef"  # a well-formed id that names nothing
LINE_COLUMNS = 100
CAUSE_COLUMNS = 110
CAUSES_SHOWN = 15
DIFFERENCES_SHOWN = 12

Clock = Callable[[], int]

# A call that MLflow itself breaks on: ours refuses it as the client's mistake, in MLflow's shape.
REFUSED = Answer(400, json={"error_code": "${any:text}", "message": "${any:text}"})


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
                lines.append(f"    {label}: {shown(value)}")
        lines += [f"  - {each}" for each in self.differences[:DIFFERENCES_SHOWN]]
        if (left := len(self.differences) - DIFFERENCES_SHOWN) > 0:
            lines.append(f"  - and {left} more")
        return "\n".join(lines)


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
    body = _requestbody_of(step, names)
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


def _requestbody_of(step: Step, names: Names) -> bytes | None:
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
            value = lookup(answer.json, path.split("."))
            if value is not None:
                names[name] = value


def _picked(step: Step, answer: Answer) -> Answer:
    if not step.pick or answer.status >= 400 or answer.json is msgspec.UNSET:
        return answer
    return msgspec.structs.replace(answer, json=_pick(answer.json, step.pick.split(".")))


def _pick(value: Any, path: Sequence[str]) -> Any:
    if "*" not in path:
        return lookup(value, path)
    star = path.index("*")
    return [_pick(item, path[star + 1 :]) for item in lookup(value, path[:star]) or []]


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
            reason = differences(expected, _picked(step, actual), names, clock(), _key(step))
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
    return REFUSED if crashed or message == "${any:text}" else step.answer


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
    parts = fields(_picked(step, answer))
    return Answer(**{k: fold(value, names, now_ms, _key(step)) for k, value in parts.items()})


def _key(step: Step) -> str:
    return step.pick.split(".")[-1]


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
    """The commonest first differences, whatever place of a list they stand at."""
    counts = Counter(
        re.sub(r"\[\d+\]", "[]", failure.differences[0])[:CAUSE_COLUMNS] for failure in failures
    )
    return [f"{count:5}  {cause}" for cause, count in counts.most_common(CAUSES_SHOWN)]


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
