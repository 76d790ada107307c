"""What the server says of itself: health, readiness, version, capabilities."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from muniment_auth.dpop import ALGORITHMS as DPOP_ALGORITHMS
from muniment_auth.permissions import Permission as P
from muniment_services.api import wire
from muniment_services.api.callers import METADATA_PATH, origin_of
from muniment_services.api.errors import ApiError, expected
from muniment_services.api.routes import Answer, Call, Route, mlflow

MLFLOW_VERSION = "3.17.2"
"""The MLflow release whose REST API is served; clients compare it with their own."""

_SERVER_INFO: Mapping[str, object] = {
    "store_type": "SqlStore",
    "workspaces_enabled": False,
    "trace_archival_enabled": False,
    "multipart_uploads_enabled": False,
    "multipart_downloads_enabled": False,
    "presigned_upload_run_id_supported": False,
    "presigned_upload_model_id_supported": False,
    "features_enabled": {"gateway": False},
}


async def health(_: Call) -> Answer:
    """GET /health: the process answers."""
    return Answer(b"OK", content_type="text/plain; charset=utf-8")


async def ready(call: Call) -> Answer | bytes:
    """GET /readyz: caught up with the log, and projections are not failing; 503 otherwise.

    While the server starts, the answer tells how far it is. A log that cannot be reached does not
    make a replica unready: every other would be too, and it can still answer what it knows.
    """
    services = call.started
    if services is None or not call.startup.is_serving:
        return _not_ready(call)
    problem = services.fold.failure or services.runner.failure or services.runner.damage
    if problem is not None:
        raise ApiError("TEMPORARILY_UNAVAILABLE", problem, ((b"retry-after", b"5"),))
    return wire.encode({"status": "ready", "projection_backlog_events": services.runner.backlog})


def _not_ready(call: Call) -> Answer:
    refused = expected(
        ApiError("TEMPORARILY_UNAVAILABLE", f"The server is {call.startup.phase}; try again.")
    )
    assert refused is not None
    told = {**msgspec.json.decode(refused.body), **msgspec.to_builtins(call.startup.progress)}
    return Answer(wire.encode(told), refused.status, headers=((b"retry-after", b"1"),))


async def version(_: Call) -> Answer:
    """GET /version: the MLflow version that clients should expect."""
    return Answer(MLFLOW_VERSION.encode(), content_type="text/plain; charset=utf-8")


async def protected_resource(call: Call) -> bytes:
    """GET /.well-known/oauth-protected-resource: whose tokens are taken here, and for which client.

    Source: RFC 9728, section 2. `muniment` is an extension of ours, for `muniment-client`.
    """
    issuers = call.callers.issuers()
    return wire.encode(
        {
            "resource": origin_of(call.headers),
            "resource_name": "muniment",
            "authorization_servers": [issuer.url for issuer in issuers],
            "bearer_methods_supported": ["header"],
            "dpop_signing_alg_values_supported": sorted(DPOP_ALGORITHMS),
            "dpop_bound_access_tokens_required": bool(issuers)
            and all(issuer.dpop_required for issuer in issuers),
            "muniment": {
                "issuers": [
                    wire.without_none(
                        name=issuer.name,
                        url=issuer.url,
                        audience=issuer.audiences[0],
                        client_id=issuer.cli_client_id,
                    )
                    for issuer in issuers
                ]
            },
        }
    )


async def no_databricks(_: Call) -> Answer:
    """GET /.well-known/databricks-config: there is none, which is no secret.

    databricks-sdk asks before it has a token, and would warn of a 401.
    """
    raise ApiError("ENDPOINT_NOT_FOUND", "This is no Databricks host.")


async def server_info(call: Call) -> bytes:
    """GET server-info: what the client may use."""
    return wire.encode({**_SERVER_INFO, "workspaces_enabled": call.authority.isolated})


ROUTES = (
    Route("GET", "/health", P.PUBLIC, health),
    Route("GET", "/healthz", P.PUBLIC, health),
    Route("GET", "/readyz", P.PUBLIC, ready),
    Route("GET", "/version", P.PUBLIC, version),
    Route("GET", METADATA_PATH, P.PUBLIC, protected_resource),
    Route("GET", "/.well-known/databricks-config", P.PUBLIC, no_databricks),
    *mlflow("GET", "server-info", P.PUBLIC, server_info, version="3.0"),
)
