"""Where files are kept: a folder of this machine, or a bucket, as one setting names it.

Buckets are opened with obstore, which reads credentials and endpoint from the environment: AWS_…,
GOOGLE_… and AZURE_…. A request that gets no answer is given up within seconds, so that clients are
told and nothing piles up behind it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, LocalStore, S3Store, from_url

from muniment_services.config import ConfigError

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

SCHEMES = ("s3", "gs", "az")

CONNECT_S = 3
READ_S = 30
"""A service that is silent for so long within an answer, or before it, is given up."""

REQUEST_S = 24 * 3600
"""A body may take so long altogether: whoever downloads slowly is no reason to break off."""

RETRIES_MAX = 3
RETRY_S = 10

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AZURE_ENDPOINT")

Bucket = S3Store | GCSStore | AzureStore


def folder_of(where: str) -> Path | None:
    """The folder that a setting names, or None when it names a bucket. Raises ConfigError."""
    scheme, found, rest = where.partition("://")
    if not found:
        return Path(where)
    if scheme not in SCHEMES or not rest.strip("/"):
        raise ConfigError(
            f"{where} is no place to keep files. Name a folder, or a bucket as s3://BUCKET/PREFIX, "
            "gs://BUCKET/PREFIX or az://CONTAINER/PREFIX."
        )
    return None


def open_bucket(where: str, environment: Mapping[str, str] = os.environ) -> Bucket:
    """A bucket, or the part of it below a prefix. Nothing is asked yet. Raises ConfigError."""
    plain = any(environment.get(name, "").startswith("http://") for name in _ENDPOINTS)
    client: ClientConfig = {
        "connect_timeout": timedelta(seconds=CONNECT_S),
        "read_timeout": timedelta(seconds=READ_S),
        "timeout": timedelta(seconds=REQUEST_S),
    }
    if plain:
        client["allow_http"] = True
    retry: RetryConfig = {
        "max_retries": RETRIES_MAX,
        "retry_timeout": timedelta(seconds=RETRY_S),
    }
    try:
        opened = from_url(where, client_options=client, retry_config=retry)
    except (BaseError, ValueError) as error:
        reason = str(error).partition("Debug source")[0].strip()
        raise ConfigError(f"{where} cannot be used: {reason}.") from None
    assert isinstance(opened, Bucket)
    return opened


def open_folder(folder: Path) -> LocalStore:
    """A folder of this machine, made if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    return LocalStore(folder, automatic_cleanup=True)
