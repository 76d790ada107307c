"""`muniment proof witness`: the witness of `proof/witness.py` behind HTTP, until it is stopped."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from muniment_services.cli.terminal import CliError, flush, mendable, write

if TYPE_CHECKING:
    from muniment_services.proof.note import VerifierKey
    from muniment_services.proof.witness import Reply, Witness

KEY = "witness-key"
STATE_FILE = "witness.json"
BODY_S_MAX = 10
CONNECTIONS_MAX = 100

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


def witness(
    *,
    log_key: Annotated[
        list[str],
        Parameter(
            negative="",
            help="Verifier key of a log's heads; of one tree, it counts for all of its log. Can be "
            "repeated.",
        ),
    ],
    name: Annotated[str, Parameter(help="What names this witness, as witness.example/ana.")],
    listen: Annotated[str, Parameter(help="Address to listen on.")] = "127.0.0.1:7780",
    data_dir: Annotated[
        Path, Parameter(help="Folder of its key, and of the last heads that it cosigned.")
    ] = Path("muniment-witness"),
) -> None:
    """Serve until SIGINT or SIGTERM."""
    import uvicorn

    from muniment_services import instance

    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal():
        raise CliError(f"--listen is HOST:PORT, not {listen}", 2)
    with mendable(), instance.held(data_dir):
        found = open_witness(name, log_key, data_dir)
        write(f"{found.key.vkey}")
        write(f"cosigns heads at http://{listen}/add-checkpoint")
        flush()
        config = uvicorn.Config(
            application(found),
            host=host.strip("[]"),
            port=int(port),
            limit_concurrency=CONNECTIONS_MAX,
            access_log=False,
            log_level="warning",
            lifespan="off",
        )
        uvicorn.Server(config).run()


def open_witness(name: str, log_keys: list[str], data_dir: Path) -> Witness:
    """The witness of a folder, whose key is made if it is not there. Raises CliError."""
    import msgspec

    from muniment_auth.identity import FolderKeys, shared_key
    from muniment_services.proof.note import Kind
    from muniment_services.proof.signing import SoftKey, refuse_readable
    from muniment_services.proof.witness import Witness

    seed = shared_key(FolderKeys(data_dir), KEY, os.urandom)
    refuse_readable(data_dir / KEY)
    key, state = SoftKey(Kind.ED25519, seed), data_dir / STATE_FILE
    if not name.isascii() or not name.isprintable() or not name or set(name) & {" ", "+"}:
        raise CliError(f"--name is a word without spaces and +, not {name!r}", 2)
    logs = [_log_key(text) for text in log_keys]
    try:
        return Witness(name, key, logs, state, lambda: int(time.time()))
    except msgspec.DecodeError as error:
        raise CliError(
            f"{state} cannot be read ({error}). Restore it: without it, this witness would cosign "
            "another history of the log"
        ) from None


def _log_key(text: str) -> VerifierKey:
    from muniment_services.proof.note import Kind, NoteInvalid, verifier_key

    try:
        found = verifier_key(text)
    except NoteInvalid as error:
        raise CliError(f"--log-key: {error}", 2) from None
    if found.kind is Kind.COSIGNATURE:
        raise CliError("--log-key is the key of a witness, not of a log", 2)
    return found


def application(found: Witness) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """A witness as an ASGI application."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        reply = await _reply(found, scope, receive)
        headers = [
            (b"content-type", reply.content_type.encode()),
            (b"content-length", str(len(reply.body)).encode()),
        ]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})

    return answer


async def _reply(found: Witness, scope: Scope, receive: Receive) -> Reply:
    from muniment_services.proof.witness import Reply

    method, path = scope["method"], scope["path"]
    if (method, path) == ("POST", "/add-checkpoint"):
        body = await _body(receive)
        if isinstance(body, Reply):
            return body
        with suppress(OSError):
            return await asyncio.to_thread(found.add, body)
        return Reply(503, b"what was cosigned last cannot be kept now\n")
    head, _, tail = path.lstrip("/").partition("/")
    if method in ("GET", "HEAD") and tail == "checkpoint":
        return found.checkpoint(head)
    return Reply(404, b"there are POST /add-checkpoint and GET /SHA-256-OF-ORIGIN/checkpoint\n")


async def _body(receive: Receive) -> bytes | Reply:
    from muniment_services.proof.witness import SUBMISSION_BYTES_MAX, Reply

    body, more = b"", True
    try:
        async with asyncio.timeout(BODY_S_MAX):
            while more:
                message = await receive()
                body += message.get("body", b"")
                more = message.get("more_body", False)
                if len(body) > SUBMISSION_BYTES_MAX:
                    return Reply(413, b"that is too long for a checkpoint\n")
    except TimeoutError:
        return Reply(408, b"the request did not arrive in time\n")
    return body
