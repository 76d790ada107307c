"""`muniment verify --pack`: an evidence pack, checked without its server."""

from __future__ import annotations

import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from muniment_services.cli.terminal import CliError, write, write_json

if TYPE_CHECKING:
    from muniment_services.proof.line import Head
    from muniment_services.proof.remote import Witnesses


def kept_head_at(path: Path) -> Head:
    """The signed head in a file. Raises CliError."""
    from muniment_services.proof.head_check import KeptHeadInvalid, kept_head

    try:
        return kept_head(path.read_bytes())
    except OSError as error:
        raise CliError(f"cannot read {path}: {error.strerror}") from None
    except KeptHeadInvalid as error:
        raise CliError(f"{path}: {error}") from None


def verify_pack(
    pack: Path, heads: Sequence[Path], vkeys: Sequence[str], witnesses: Witnesses, as_json: bool
) -> None:
    """Print what a pack proves. Raises CliError with what does not hold."""
    from muniment_services.proof import verifier
    from muniment_services.proof.pack_events import verify_events

    kept = [kept_head_at(path).raw.decode() for path in heads]
    with _folder(pack) as folder:
        try:
            who = [key.vkey for key in witnesses.keys]
            told = verifier.verify(folder, kept, vkeys, who, witnesses.quorum)
            told += verify_events(folder)
        except verifier.FAULTS as error:
            what = str(error) if isinstance(error, verifier.Refused) else repr(error)
            if as_json:
                write_json({"ok": False, "wrong": what})
            raise CliError(f"{pack} DOES NOT HOLD: {what}") from None
    if as_json:
        write_json({"ok": True, "told": told})
    else:
        write("\n".join([*told, "OK, all holds"]))


@contextmanager
def _folder(pack: Path) -> Iterator[Path]:
    """The pack's folder; of a zip, a temporary one."""
    from muniment_services.proof.pack import BYTES_MAX

    if pack.is_dir():
        yield pack
        return
    with tempfile.TemporaryDirectory(prefix="muniment-pack-") as folder:
        try:
            with zipfile.ZipFile(pack) as found:
                if sum(one.file_size for one in found.infolist()) > BYTES_MAX:
                    raise CliError(f"{pack} has more than {BYTES_MAX:,} bytes: it is no pack")
                if len(set(found.namelist())) < len(found.namelist()):
                    raise CliError(f"{pack} has two files of one name, which no pack has")
                found.extractall(folder)
        except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError) as error:
            raise CliError(f"{pack} cannot be unpacked: {error}") from None
        yield Path(folder)
