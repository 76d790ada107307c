"""Ranges, names and types of downloads, as RFC 9110 and MLflow have them."""

from __future__ import annotations

import pytest

from muniment_services.api.downloads import content_disposition, content_type, wanted_span
from muniment_services.api.errors import ApiError


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-3", range(0, 4)),
        ("bytes=6-", range(6, 11)),
        ("bytes=-4", range(7, 11)),
        ("bytes=-99", range(0, 11)),
        ("bytes=3-99", range(3, 11)),
        (" Bytes = 1 - 1 ", range(1, 2)),
        ("bytes=5-2", None),
        ("bytes=-", None),
        ("bytes=0-0,2-3", None),
        ("lines=1-2", None),
        ("nonsense", None),
    ],
)
def test_what_a_range_header_asks_for(header: str, expected: range | None) -> None:
    assert wanted_span(header, 11) == expected


@pytest.mark.parametrize(("header", "size"), [("bytes=11-", 11), ("bytes=-0", 11), ("bytes=0-", 0)])
def test_a_range_outside_of_the_file_is_refused(header: str, size: int) -> None:
    with pytest.raises(ApiError) as refused:
        wanted_span(header, size)
    assert refused.value.error_code == "RANGE_NOT_SATISFIABLE"
    assert refused.value.headers == ((b"content-range", f"bytes */{size}".encode()),)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.txt", "attachment; filename=a.txt"),
        ("a%b", "attachment; filename=a%b"),
        ("a b", 'attachment; filename="a b"'),
        ('say "x"\\', 'attachment; filename="say \\"x\\"\\\\"'),
        (
            'ü "x".bin',
            'attachment; filename="u \\"x\\".bin"; filename*=UTF-8\'\'%C3%BC%20%22x%22.bin',
        ),
        ("日本", "attachment; filename=download; filename*=UTF-8''%E6%97%A5%E6%9C%AC"),
    ],
)
def test_names_are_sent_so_that_every_client_understands(name: str, expected: str) -> None:
    assert content_disposition(name) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a/MLmodel", "text/plain"),
        ("a/b.json", "text/plain"),
        ("a/b.html", "text/html"),
        ("a/b.png", "image/png"),
        ("a/b", "application/octet-stream"),
        ("a.json/b", "application/octet-stream"),
    ],
)
def test_types_are_guessed_from_names(path: str, expected: str) -> None:
    assert content_type(path) == expected
