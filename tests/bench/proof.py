"""What proofs cost: log-metric with trees and signed heads beside log-metric without, interleaved.

    python tests/bench/proof.py
    python tests/bench/proof.py --rounds 9 --calls 20000

Two servers with the embedded log, one of them with `proof = false`. A round measures one and then
the other, and its ratio counts; so does the CPU time of the server, which other work on the machine
disturbs less. Then the parts alone, by CPU time of this process: leaves a second into a tree
in files, and an inclusion proof of it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from bench.signed_in import CONNECTIONS, calls_per_second, cpu_s, new_run
from harness.server import running_muniment
from muniment_schemas.ids import Offset
from muniment_services.log.base import Record, TopicPartition
from muniment_services.proof.forest import leaves_of
from muniment_services.proof.merkle import inclusion_proof
from muniment_services.proof.tree import Tree

VALUE_BYTES = 300
BATCH = 1_000
PROOFS = 200


def throughput(rounds: int, calls: int) -> None:
    """Print the ratio of calls a second with proofs to calls without."""
    folder = Path(tempfile.mkdtemp())
    off = folder / "off.toml"
    off.write_text("proof = false\n")
    with (
        running_muniment(folder / "off", extra_args=("--config", str(off))) as without,
        running_muniment(folder / "on") as with_proof,
    ):
        servers = (without, with_proof)
        runs = [new_run(server.url, None) for server in servers]
        ratios, spent, rates = [], [], []
        for _ in range(rounds):
            began = [cpu_s(server) for server in servers]
            found = [
                calls_per_second(server.url, run, calls, None).per_second
                for server, run in zip(servers, runs, strict=True)
            ]
            used = [cpu_s(s) - b for s, b in zip(servers, began, strict=True)]
            rates.append(found)
            ratios.append(found[1] / found[0])
            spent.append(used[0] / used[1])
    for place, name in enumerate(("without", "with")):
        rate = statistics.median(pair[place] for pair in rates)
        print(f"log-metric {name} proofs: {rate:,.0f} calls/s")
    for name, values in (("throughput", ratios), ("CPU time", spent)):
        low, high = min(values), max(values)
        print(f"ratio of {name}: {statistics.median(values):.3f} ({low:.2f} to {high:.2f})")
    print(f"{rounds} rounds of {calls} calls over {CONNECTIONS} connections")


def parts(leaves: int) -> None:
    """Print how fast a tree grows and proves."""
    chance = Random(1)
    headers = (("ce_id", chance.randbytes(18).hex().encode()), ("ce_type", b"BatchLogged"))
    at = TopicPartition("runs", 0)
    value = chance.randbytes(VALUE_BYTES)
    tree = Tree(Path(tempfile.mkdtemp()))
    used_s = 0.0
    for begin in range(0, leaves, BATCH):
        offsets = range(begin, begin + BATCH)
        records = [Record(at, Offset(o), b"k" * 32, value, headers, o) for o in offsets]
        began_s = time.process_time()
        tree.append(leaves_of(records))
        used_s += time.process_time() - began_s
    print(f"{leaves / used_s:,.0f} leaves/s into a tree of {leaves:,}")
    began_s = time.process_time()
    for _ in range(PROOFS):
        inclusion_proof(chance.randrange(tree.size), tree.size, tree.node)
    print(f"{(time.process_time() - began_s) / PROOFS * 1e3:.2f} ms an inclusion proof")


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=8_000)
    parser.add_argument("--leaves", type=int, default=1_000_000)
    asked = parser.parse_args()
    parts(asked.leaves)
    throughput(asked.rounds, asked.calls)


if __name__ == "__main__":
    main()
