"""What evidence packs take: of events that lie together, and of every other one.

    python tests/bench/pack.py
    python tests/bench/pack.py --events 90000

A server with the embedded log gets so many events of two runs of one partition, in turns. Then a
pack of one run (no two of its events lie beside each other) and one of both (nearly all lie in one
range) are made, and verified by the program in them. Printed: seconds of each, sizes, and by how
much the server's memory grew.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from zipfile import ZipFile

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from bench import load
from bench.signed_in import API, new_run
from harness.server import Server, running_muniment
from muniment_services.log.base import RUNS_PARTITIONS_DEFAULT, partition_of

CONNECTIONS = 16


def two_runs(url: str) -> tuple[str, str]:
    """Two runs whose events are in one partition."""
    first = new_run(url, None)
    while True:
        second = new_run(url, None)
        places = {partition_of(one.encode(), RUNS_PARTITIONS_DEFAULT) for one in (first, second)}
        if len(places) == 1:
            return first, second


def fill(url: str, runs: tuple[str, str], events: int) -> None:
    """Log points of both runs, in turns."""
    requests = []
    for connection in range(CONNECTIONS):
        points = (
            {"run_id": run, "key": f"m{connection}", "value": 0.5, "timestamp": 1, "step": step}
            for step in range(events // CONNECTIONS // 2)
            for run in runs
        )
        requests.append(
            [
                load.post(url, f"{API}runs/log-metric", json.dumps(point).encode())
                for point in points
            ]
        )
    load.run(url, requests)


def memory_mb(server: Server) -> float:
    """The most memory that a server had so far, MB."""
    status = Path(f"/proc/{server.process.pid}/status").read_text("utf-8")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def measure(server: Server, query: str, name: str) -> None:
    """Make and verify one pack, and print what it took."""
    before = memory_mb(server)
    body = json.dumps({"q": query}).encode()
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(f"{server.url}/api/v1/audit/export", body, headers)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pack.zip"
        began_s = time.perf_counter()
        with urllib.request.urlopen(request) as answer:
            path.write_bytes(answer.read())
        made_s = time.perf_counter() - began_s
        with ZipFile(path) as opened:
            opened.extractall(Path(folder) / "pack")
        script = str(Path(folder) / "pack" / "verifier.py")
        began_s = time.perf_counter()
        subprocess.run([sys.executable, "-I", "-S", script], check=True, capture_output=True)
        verified_s = time.perf_counter() - began_s
        report = json.loads((Path(folder) / "pack" / "report.json").read_bytes())
        events = len(report["evidence"])
        proof = max(p.stat().st_size for p in (Path(folder) / "pack" / "proofs").iterdir())
        size = path.stat().st_size
    print(
        f"{name}: {events:,} events, made in {made_s:.1f} s ({events / made_s:,.0f}/s), verified "
        f"in {verified_s:.1f} s ({events / verified_s:,.0f}/s); {size / 1e6:.1f} MB, its proof "
        f"{proof / 1e6:.2f} MB; the server's memory grew by {memory_mb(server) - before:.0f} MB"
    )


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=90_000)
    asked = parser.parse_args()
    with running_muniment(Path(tempfile.mkdtemp()) / "data") as server:
        runs = two_runs(server.url)
        fill(server.url, runs, asked.events)
        measure(server, f"id:{runs[0]}", "every other event")
        measure(server, f"id:{runs[0]} OR id:{runs[1]}", "all of them")


if __name__ == "__main__":
    main()
