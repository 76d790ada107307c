"""What it costs to know a caller: one that is known, one that is new, and one that is hostile.

    python tests/bench/authentication.py                  20,000 known, 500 new callers
    python tests/bench/authentication.py --rounds 5000

One process, no socket: the provider is in memory. Tokens are Keycloak's in shape, of about 1 KB.
Prints medians in microseconds; ends with 1 when a known caller costs KNOWN_US_MAX or more.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import sys
import time
from collections.abc import Sequence

from joserfc.jwk import ECKey, OKPKey, RSAKey

from harness.tokens import Provider, rsa, signed
from muniment_auth.authenticate import Authenticator
from muniment_auth.errors import AuthError

KNOWN_US_MAX = 50.0
NEW = 500
URL = "http://localhost:5000/api/2.0/mlflow/runs/log-metric"


def median_us(times_ns: Sequence[int]) -> float:
    """The median of nanoseconds, in microseconds."""
    return statistics.median(times_ns) / 1000


async def known(made: Authenticator, token: str, rounds: int) -> float:
    """Of a caller whose token was verified before, as the gateway asks."""
    header = f"Bearer {token}".encode()
    await made.authenticate(header.decode(), None, "POST", URL)
    times = []
    for _ in range(rounds):
        began = time.perf_counter_ns()
        found = made.known(header)
        times.append(time.perf_counter_ns() - began)
        assert found is not None
    return median_us(times)


async def new(made: Authenticator, tokens: Sequence[str]) -> float:
    """Of callers who are seen for the first time; refusals count too."""
    times = []
    for token in tokens:
        began = time.perf_counter_ns()
        with contextlib.suppress(AuthError):
            await made.authenticate(f"Bearer {token}", None, "POST", URL)
        times.append(time.perf_counter_ns() - began)
    return median_us(times)


async def measure(rounds: int) -> float:
    """Measure and print; the cost of a known caller."""
    provider = Provider("keycloak")
    elliptic = ECKey.generate_key("P-256", {"kid": "ec-1"})
    edwards = OKPKey.generate_key("Ed25519", {"kid": "ed-1"})
    provider.keys[:0] = [elliptic, edwards]
    groups = [f"/teams/team-{number}" for number in range(20)]
    made = Authenticator([provider.issuer()], provider.transport())
    token = provider.token(groups=groups)
    known_us = await known(made, token, rounds)
    print(f"known caller            {known_us:8.2f} µs, token of {len(token)} bytes")
    keys: tuple[tuple[str, RSAKey | ECKey | OKPKey], ...] = (
        ("RS256", provider.key),
        ("ES256", elliptic),
        ("Ed25519", edwards),
    )
    for name, key in keys:
        tokens = [signed(key, provider.claims(groups=groups)) for _ in range(NEW)]
        print(f"new caller, {name:8}    {await new(made, tokens):8.1f} µs")
    forged = [signed(rsa("rsa-1"), provider.claims(groups=groups)) for _ in range(20)]
    print(f"forged signature        {await new(made, forged * 10):8.1f} µs")
    print(f"expired                 {await new(made, [provider.token(exp=1)] * NEW):8.1f} µs")
    print(f"unknown issuer          {await new(made, [provider.token(iss='x')] * NEW):8.1f} µs")
    await made.close()
    return known_us


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20_000)
    known_us = asyncio.run(measure(parser.parse_args().rounds))
    if known_us >= KNOWN_US_MAX:
        print(f"a known caller costs {KNOWN_US_MAX:g} µs or more", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
