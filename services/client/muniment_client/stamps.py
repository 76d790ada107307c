"""What every write carries besides its token: a key that makes repeats one, and a trace parent.

Both are set once for each logical request, before urllib3 repeats anything, so every attempt
carries the same. Source: draft-ietf-httpapi-idempotency-key-header; W3C Trace Context.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
import uuid
from collections.abc import Mapping, MutableMapping
from typing import Any

READS = frozenset(("GET", "HEAD", "OPTIONS"))
IDEMPOTENCY_KEY = "Idempotency-Key"
TRACEPARENT = "traceparent"
OURS = (IDEMPOTENCY_KEY, TRACEPARENT)
PARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
NO_TRACE, NO_SPAN = "0" * 32, "0" * 16


class Stamps:
    """Stamps the writes of one process: without a tracer they share one trace."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        """environ: TRACEPARENT, as CI systems set it, names the trace to belong to."""
        given = PARENT.fullmatch(environ.get("TRACEPARENT", ""))
        known = given is not None and given[1] != NO_TRACE
        self._trace_id, self._flags = (
            (given[1], given[3]) if given and known else (secrets.token_hex(16), "00")
        )

    def stamp(self, method: str | None, headers: MutableMapping[str, Any]) -> None:
        """Add to a write what it does not carry yet; leave reads as they are."""
        if (method or "GET").upper() in READS:
            return
        headers.setdefault(IDEMPOTENCY_KEY, str(uuid.uuid4()))
        headers.setdefault(TRACEPARENT, self._traceparent())

    def _traceparent(self) -> str:
        # Whoever traces has imported it; importing it here would cost every start.
        tracing = sys.modules.get("opentelemetry.trace")
        if tracing is not None:
            context = tracing.get_current_span().get_span_context()
            if context.is_valid:
                return (
                    f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
                )
        return f"00-{self._trace_id}-{secrets.token_hex(8)}-{self._flags}"
