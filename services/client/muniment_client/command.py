"""The `muniment-client` command: login, logout, whoami, token.

The server's own `muniment` command hands its `login`, `logout` and `whoami` to `main`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from muniment_client.cache import default_cache
from muniment_client.claims import unchecked_claims, who
from muniment_client.errors import ClientError, LoginNeeded, Refused
from muniment_client.exchange import get_json
from muniment_client.login import default_server, sign_in, sign_out
from muniment_client.origins import server_url
from muniment_client.situation import find_source, server_verification
from muniment_client.sources import Source

FAILED = 1
INTERRUPTED = 130
WHOAMI_PATH = "/api/v1/whoami"


def main(arguments: Sequence[str] | None = None, name: str = "muniment-client") -> int:
    """Run one command; returns the exit status. Errors are one line on stderr."""
    asked = _parser(name).parse_args(sys.argv[1:] if arguments is None else arguments)
    try:
        server = server_url(asked.server) if asked.server else default_server()
        run = {"login": _login, "logout": _logout, "whoami": _whoami, "token": _token}
        run[asked.command](server, asked)
        sys.stdout.flush()
    except ClientError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return FAILED
    except BrokenPipeError:
        # The reader of our output has gone (`| head`); nothing more may be flushed into the pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _parser(name: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(name, description="Sign in to a muniment server.")
    commands = parser.add_subparsers(dest="command", required=True)
    about = {
        "login": "sign in, by browser or on another device",
        "logout": "forget the sign-in, here and at the identity provider",
        "whoami": "who the server takes you for, and where the token comes from",
        "token": "print a token that holds, for curl and the like",
    }
    for command, text in about.items():
        part = commands.add_parser(command, help=text, description=text)
        part.add_argument("server", nargs="?", help="its URL; else MLFLOW_TRACKING_URI")
        if command == "login":
            flow = part.add_mutually_exclusive_group()
            flow.add_argument(
                "--device",
                dest="flow",
                action="store_const",
                const="device",
                help="type a code on another device",
            )
            flow.add_argument(
                "--browser",
                dest="flow",
                action="store_const",
                const="browser",
                help="use this machine's browser",
            )
            part.add_argument("--issuer", help="the identity provider, if there are several")
            part.add_argument("--client-id", help="if the server does not name it")
            part.add_argument("--scope", help="instead of what the server asks for")
    return parser


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _login(server: str, asked: argparse.Namespace) -> None:
    found = sign_in(
        server,
        default_cache(os.environ),
        _say,
        flow=asked.flow,
        issuer=asked.issuer,
        client_id=asked.client_id,
        scope=asked.scope,
        environ=os.environ,
    )
    _say(f"Signed in to {server} as {found.who or 'an unnamed user'}.")
    if found.refresh_token is None:
        minutes = max(0, round((found.expires_at - time.time()) / 60))
        _say(f"The identity provider gave no refresh token: this ends in {minutes} minutes.")
    if os.environ.get("MLFLOW_TRACKING_AUTH") != "muniment":
        _say(
            "For MLflow to use it, with muniment-client installed beside it: "
            "export MLFLOW_TRACKING_AUTH=muniment"
        )


def _logout(server: str, asked: argparse.Namespace) -> None:
    cache = default_cache(os.environ)
    found = cache.find(server)
    if found is None:
        _say(f"Nobody is signed in to {server} here.")
    while found is not None:
        left = sign_out(found, cache)
        _say(f"Signed out of {server}." + (f" {left}" if left else ""))
        found = cache.find(server)


def _whoami(server: str, asked: argparse.Namespace) -> None:
    source = find_source(server, os.environ)
    if source is None:
        print(json.dumps(_unsigned(server), indent=2))
        _say("The server asks nobody to sign in.")
        return
    token = source.token()
    headers = {"Authorization": f"Bearer {token}"}
    try:
        found = get_json(
            f"{server}{WHOAMI_PATH}", headers=headers, verify=server_verification(os.environ)
        )
    except Refused as error:
        raise Refused(server, error.error, error.description, _from(source)) from error
    if found is not None:
        print(json.dumps(found, indent=2))
    else:
        print(json.dumps(_own_words(token), indent=2))
    _say(_from(source))


def _token(server: str, asked: argparse.Namespace) -> None:
    print(_source(server).token())


def _source(server: str) -> Source:
    source = find_source(server, os.environ)
    if source is None:
        raise LoginNeeded(server, "Nobody is signed in here.")
    return source


def _unsigned(server: str) -> dict[str, Any]:
    """Who the server takes callers without a token for. Raises LoginNeeded if it takes none."""
    try:
        found = get_json(f"{server}{WHOAMI_PATH}", verify=server_verification(os.environ))
    except Refused:
        found = None
    if found is None:
        raise LoginNeeded(server, "Nobody is signed in here.")
    return found


def _from(source: Source) -> str:
    return f"The token came from: {source.name}."


def _own_words(token: str) -> dict[str, Any]:
    """What the token says of itself; the server was not asked, or does not know the question."""
    claims = unchecked_claims(token)
    return {"name": who(token), **{n: claims[n] for n in ("iss", "sub", "exp") if n in claims}}


if __name__ == "__main__":
    sys.exit(main())
