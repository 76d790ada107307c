"""Where the keys of principals are kept: a folder, or a bucket that replicas share."""

from __future__ import annotations

from pathlib import Path

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import ObjectStore

from muniment_auth.identity import FolderKeys, KeyPlace, KeysUnavailable
from muniment_services.artifacts.place import folder_of, open_bucket
from muniment_services.config import Settings

FOLDER = "keys"
"""Name of the folder in data_dir where keys are kept unless the settings name another place."""

LOGIN_KEY = "login-cookies"
"""Name of the key that seals logins under way; all replicas share it."""

TRAIL_KEY = "trail-values"
"""Name of the key that sensitive values in the trail are hashed with; all replicas share it."""


class BucketKeys:
    """Keys in a bucket, one object each. Who may read the bucket may read who the principals are.

    name: what people call the place.
    """

    def __init__(self, store: ObjectStore, name: str) -> None:
        self._store = store
        self._name = name

    def put_new(self, name: str, content: bytes) -> bool:
        """Keep an object, unless there is one of that name: False. The bucket decides races."""
        try:
            obstore.put(self._store, name, content, mode="create", use_multipart=False)
        except AlreadyExistsError:
            return False
        except (BaseError, OSError) as error:
            raise self._unavailable(error) from error
        return True

    def get(self, name: str) -> bytes | None:
        """An object's content, None when there is none."""
        try:
            return bytes(obstore.get(self._store, name).bytes())
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise self._unavailable(error) from error
            return None
        except (BaseError, OSError) as error:
            raise self._unavailable(error) from error

    def names(self) -> list[str]:
        """Names of all objects, sorted."""
        try:
            return sorted(meta["path"] for batch in obstore.list(self._store) for meta in batch)
        except (BaseError, OSError) as error:
            raise self._unavailable(error) from error

    def remove(self, name: str) -> None:
        """Remove an object; a bucket that keeps old versions keeps this one. None is no error."""
        try:
            obstore.delete(self._store, name)
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise self._unavailable(error) from error
        except (BaseError, OSError) as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> KeysUnavailable:
        reason = " ".join(str(error).partition("Debug source")[0].split())
        return KeysUnavailable(f"the keys in {self._name} cannot be used: {reason}")


def open_keys(settings: Settings) -> KeyPlace:
    """The place of the keys. Nothing is asked or made yet. Raises ConfigError."""
    folder = folder_of_keys(settings)
    if folder is not None:
        return FolderKeys(folder)
    assert settings.keys is not None
    return BucketKeys(open_bucket(settings.keys), settings.keys)


def folder_of_keys(settings: Settings) -> Path | None:
    """The folder that the keys are in; None: they are in a bucket. Raises ConfigError."""
    where = str(settings.data_dir / FOLDER) if settings.keys is None else settings.keys
    return folder_of(where)
