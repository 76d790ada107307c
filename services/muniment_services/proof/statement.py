"""What a leaf of the tree says of a record: a few lines of text with digests in place of content.

    muniment/1                     form of these lines; another form begins with another line
    runs/3                         topic and partition
    17                             offset, which is also the leaf's index
    01936b8e-…                     id of the event
    BatchLogged                    its type
    1732684800000                  when it was recorded, milliseconds since 1970 UTC
    6b86b273…                      SHA-256 of the record's key, 64 hex digits
    d4735e3a…                      SHA-256 of the record's value

Each line ends in a newline; all is ASCII. It is a function of the record alone, of no schema and no
release: id and type are what the headers `ce_id` and `ce_type` say (`muniment verify` compares them
with the event), and empty in a record without such headers. A key or a value that is made
unreadable later leaves its statement, and so every proof, as it is.
"""

from __future__ import annotations

import re
from hashlib import sha256

from muniment_services.log.base import Record

FORM = "muniment/1"

_WORD = re.compile(rb"[!-~]{1,255}")
"""What can stand on a line: no spaces, no control characters."""


def statement(record: Record) -> bytes:
    """The leaf of a record."""
    headers = dict(record.headers)
    return (
        f"{FORM}\n{record.at}\n{record.offset}\n"
        f"{_word(headers.get('ce_id', b''))}\n{_word(headers.get('ce_type', b''))}\n"
        f"{record.timestamp_ms}\n"
        f"{sha256(record.key).hexdigest()}\n{sha256(record.value).hexdigest()}\n"
    ).encode()


def _word(header: bytes) -> str:
    return header.decode("ascii") if _WORD.fullmatch(header) else ""
