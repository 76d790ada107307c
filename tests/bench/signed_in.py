"""What signing in costs: log-metric with a bearer token beside log-metric without, interleaved.

    python tests/bench/signed_in.py
    python tests/bench/signed_in.py --rounds 9 --calls 20000

Two servers with the embedded log, one of them with an issuer; the caller is no admin, but holds a
grant by its group. A round measures one and then the other, and its ratio counts; so does the
server's own CPU time a call, which other work on the machine disturbs less. Then the parts alone,
in this process: a known caller, a decision of the policy, a first verification.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from bench import load
from harness.issuer import Client, Issuer, User
from harness.server import Server, running_muniment
from harness.tokens import Provider
from muniment_auth.authenticate import Authenticator
from muniment_auth.permissions import Permission
from muniment_auth.policy import compile_access
from muniment_auth.resources import Resource
from muniment_schemas.access_events import Grant

API = "/api/2.0/mlflow/"
CONNECTIONS = 16
AUDIENCE = "muniment"


def ask(url: str, path: str, body: object, token: str | None) -> dict[str, object]:
    """The JSON answer to a POST; anything but 200 stops the benchmark."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    headers = {"Content-Type": "application/json"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    connection.request("POST", path, json.dumps(body), headers)
    response = connection.getresponse()
    content = response.read()
    if response.status != 200:
        raise RuntimeError(f"{path}: {response.status} {content[:300]!r}")
    answer: dict[str, object] = json.loads(content)
    return answer


def calls_per_second(url: str, run_id: str, calls: int, token: str | None) -> load.Timing:
    """log-metric over CONNECTIONS kept-alive connections."""
    requests = []
    for connection in range(CONNECTIONS):
        made = []
        for step in range(calls // CONNECTIONS):
            point = {"run_id": run_id, "key": f"m{connection}", "value": 0.5, "timestamp": 1}
            request = load.post(
                url, f"{API}runs/log-metric", json.dumps({**point, "step": step}).encode()
            )
            if token is not None:
                header = f"authorization: Bearer {token}\r\ncontent-type".encode()
                request = request.replace(b"content-type", header, 1)
            made.append(request)
        requests.append(made)
    return load.run(url, requests)


def new_run(url: str, token: str | None) -> str:
    """A run in the Default experiment."""
    made: dict[str, dict[str, dict[str, str]]] = ask(  # type: ignore[assignment]
        url, f"{API}runs/create", {"experiment_id": "0"}, token
    )
    return made["run"]["info"]["run_id"]


def throughput(rounds: int, calls: int) -> None:
    """Print the calls a second of both servers, and the ratio."""
    folder = Path(tempfile.mkdtemp())
    users = [User("root", groups=("admins",)), User("job", groups=("jobs",))]
    with Issuer(users=users, clients=[Client("cli")], audience=AUDIENCE) as issuer:
        flags = ("--issuer", issuer.url, "--audience", AUDIENCE, "--admin-group", "admins")
        issuer.lives.access_s = 3600
        root, job = issuer.access_token("root"), issuer.access_token("job")
        with (
            running_muniment(folder / "open") as plain,
            running_muniment(folder / "signed", extra_args=flags) as signed,
        ):
            grant = {
                "subject_kind": "group",
                "subject": "jobs",
                "issuer": issuer.url,
                "role": "logger",
                "resource_kind": "experiment",
                "pattern": "*",
            }
            ask(signed.url, "/api/v1/access/grants", grant, root)
            runs = new_run(plain.url, None), new_run(signed.url, job)
            ratios, found, spent = [], [], []
            for _ in range(rounds):
                began = cpu_s(plain), cpu_s(signed)
                without = calls_per_second(plain.url, runs[0], calls, None)
                with_token = calls_per_second(signed.url, runs[1], calls, job)
                spent.append((cpu_s(plain) - began[0], cpu_s(signed) - began[1]))
                ratios.append(with_token.per_second / without.per_second)
                found.append((without, with_token))
    for name, place in (("without", 0), ("with", 1)):
        rates = [pair[place].per_second for pair in found]
        p50 = statistics.median(pair[place].percentile_ms(0.5) for pair in found)
        print(
            f"log-metric {name} sign-in: {statistics.median(rates):,.0f} calls/s, p50 {p50:.2f} ms"
        )
    cpu = [plain_s / signed_s for plain_s, signed_s in spent]
    print(f"ratio of CPU time: {statistics.median(cpu):.3f} ({min(cpu):.2f} to {max(cpu):.2f})")
    low, high = min(ratios), max(ratios)
    print(f"ratio of throughput: {statistics.median(ratios):.3f} ({low:.2f} to {high:.2f})")
    print(f"{rounds} rounds of {calls} calls over {CONNECTIONS} connections")


def cpu_s(server: Server) -> float:
    """CPU time that a server has used, in seconds."""
    times = psutil.Process(server.process.pid).cpu_times()
    return float(times.user + times.system)


def timed_us(act: Callable[[], object], times: int) -> float:
    """Median of 5 rounds, in microseconds a time."""
    rounds = []
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(times):
            act()
        rounds.append((time.perf_counter() - started) / times)
    return statistics.median(rounds) * 1e6


def parts() -> None:
    """Print what a known caller, a decision, and a first verification cost."""
    provider = Provider("keycloak")
    authenticator = Authenticator([provider.issuer()], provider.transport())
    token = provider.token()
    header = f"Bearer {token}".encode()

    async def enter(text: str) -> object:
        return await authenticator.authenticate(f"Bearer {text}", None, "GET", "http://localhost/")

    loop = asyncio.new_event_loop()
    loop.run_until_complete(enter(token))
    principal = authenticator.known(header)
    assert principal is not None
    grants = [
        Grant(
            grant_id=f"{number:032x}",
            subject_kind="group",
            subject="team",
            issuer=provider.url,
            role="editor",
            resource_kind="experiment",
            pattern=f"team-{number}-*",
        )
        for number in range(20)
    ]
    access = compile_access(principal, {}, grants, 1)
    thing = Resource("experiment", "7", "team-19-churn", "somebody")
    assert access.decide(Permission.RUN_WRITE, thing).allowed
    fresh = iter([provider.token(jti=str(number)) for number in range(600)])
    print(f"a known caller: {timed_us(lambda: authenticator.known(header), 20_000):.1f} us")
    print(
        "a decision among 20 grants by pattern: "
        f"{timed_us(lambda: access.decide(Permission.RUN_WRITE, thing), 20_000):.1f} us"
    )
    first = timed_us(lambda: loop.run_until_complete(enter(next(fresh))), 100)
    print(f"a first verification (RS256): {first:.0f} us")


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=16_000)
    given = parser.parse_args()
    parts()
    throughput(given.rounds, given.calls)


if __name__ == "__main__":
    main()
