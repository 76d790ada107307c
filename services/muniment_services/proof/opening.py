"""Proof as the settings say: the prover and its keys, and the witnesses that cosign its heads."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from muniment_auth.identity import KeyPlace
from muniment_schemas.codec import Codec
from muniment_schemas.envelope import Actor
from muniment_services.clock import now_ms
from muniment_services.config import ConfigError, Settings
from muniment_services.keys import folder_of_keys
from muniment_services.log.base import EventLog
from muniment_services.proof import policy
from muniment_services.proof.cosigner import Cosigner
from muniment_services.proof.policy import Policy, PolicyInvalid
from muniment_services.proof.prover import Prover
from muniment_services.proof.signing import open_keyring

FOLDER = "proof"
"""Name of the folder in data_dir where the trees over the log are: a cache of the log."""


@asynccontextmanager
async def proving(
    log: EventLog, events: Codec, place: KeyPlace, settings: Settings, actor: Actor
) -> AsyncIterator[Prover | None]:
    """A prover at work; None where proofs are off. place: of keys. actor: who signs, in events."""
    if not settings.proof:
        yield None
        return
    seeds = settings.signing_keys
    keyring = open_keyring(
        place,
        folder_of_keys(settings),
        () if seeds is None else seeds.get_secret_value().split(","),
        settings.signing_ml_dsa,
        os.urandom,
    )
    folder = settings.data_dir / FOLDER
    origin = settings.proof_origin or f"muniment.{log.log_id}"
    prover = Prover(log, events, keyring, folder, origin, actor, now_ms, os.urandom)
    prover.start()
    try:
        yield prover
    finally:
        await prover.close()


def witness_policy(settings: Settings) -> Policy | None:
    """Who has to cosign heads; None: nobody. Raises ConfigError."""
    if settings.witness_policy is None or not settings.proof:
        return None
    try:
        return policy.parse(settings.witness_policy.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, PolicyInvalid) as error:
        raise ConfigError(f"witness_policy {settings.witness_policy}: {error}") from None


@asynccontextmanager
async def cosigning(
    prover: Prover | None, witnesses: Policy | None
) -> AsyncIterator[Cosigner | None]:
    """Witnesses being asked; None where there are none."""
    if prover is None or witnesses is None:
        yield None
        return
    cosigner = Cosigner(prover.forest, witnesses)
    cosigner.start()
    try:
        yield cosigner
    finally:
        await cosigner.close()
