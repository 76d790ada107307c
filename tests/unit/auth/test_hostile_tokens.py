"""No hostile token lets anybody in, each is refused in the right words, and none makes us ask."""

from __future__ import annotations

import asyncio

from harness.hostile_tokens import corpus
from harness.tokens import Provider
from muniment_auth.authenticate import Authenticator
from muniment_auth.errors import Unauthenticated

ENOUGH = 200


async def refusal(made: Authenticator, token: str) -> Unauthenticated | None:
    """Why a token is refused; None: it lets in."""
    try:
        await made.authenticate(f"Bearer {token}", None, "GET", "http://localhost/")
    except Unauthenticated as error:
        return error
    return None


def test_hostile_tokens() -> None:
    provider = Provider()
    tokens = corpus(provider)
    assert len({token for _, token in tokens}) >= ENOUGH
    assert len({name for name, _ in tokens}) == len(tokens)

    async def main() -> None:
        made = Authenticator([provider.issuer(client_id="web")], provider.transport())
        await made.authenticate(f"Bearer {provider.token()}", None, "GET", "http://localhost/")
        asked = provider.fetches
        for name, token in tokens:
            error = await refusal(made, token)
            assert error is not None, f"{name} lets in"
            assert error.error in ("invalid_token", "invalid_request"), name
            assert token == "" or token not in error.description, name
            challenge = error.challenge("http://localhost/.well-known/x")
            assert challenge.isprintable(), name
            assert challenge.isascii(), name
        assert provider.fetches == asked, "none is worth a question so soon after the last"
        good = await made.authenticate(
            f"Bearer {provider.token()}", None, "GET", "http://localhost/"
        )
        assert good.subject == "ana"

    asyncio.run(main())
