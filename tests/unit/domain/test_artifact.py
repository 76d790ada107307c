"""Paths of artifacts: none leaves the root, and each has one owner."""

from __future__ import annotations

import posixpath
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.world import TestWorld
from muniment_schemas.events import ArtifactDeleted, ArtifactUploaded
from muniment_services.domain.artifact import (
    below,
    checked_path,
    file_path,
    owner_of,
    path_of,
)
from muniment_services.domain.artifact_changes import RecordDeletion, RecordUpload
from muniment_services.domain.errors import Invalid

RUN = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    "given",
    [
        "..", "../x", "a/../b", "%2e%2e/x", "%252e%252e/x", "a/..%2fx", "/etc/passwd", "%2fetc",
        "//host/share", "C:\\x", "C:/x", "x#1", "x%23y", "file:///etc/passwd",
        "%25%32%65%25%32%65/x", "%" + "25" * 12 + "2e%2e/x", "http://[bad",
    ],
)  # fmt: skip
def test_paths_that_could_leave_the_root_are_refused(given: str) -> None:
    with pytest.raises(Invalid) as refused:
        checked_path(given)
    assert refused.value.message == "Invalid path"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", ""), ("a/b", "a/b"), ("a//b/", "a/b"), ("..x/y..", "..x/y.."), ("a%20b", "a b"),
        ("a%25b", "a%b"), ("a\\..\\x", "a\\..\\x"), ("x/C:/y", "x/C:/y"), ("a\x00", "a%00"),
    ],
)  # fmt: skip
def test_other_paths_are_made_plain(given: str, expected: str) -> None:
    assert checked_path(given) == expected


def test_a_dot_is_no_part_of_a_path() -> None:
    with pytest.raises(Invalid, match="Invalid artifact path"):
        checked_path("a/./b")


@given(st.lists(st.sampled_from(["..", ".", "a", "", "%2e", "/", "#", "\\"])), st.integers(0, 3))
def test_what_passes_stays_below_the_root(parts: list[str], encodings: int) -> None:
    path = "/".join(parts)
    for _ in range(encodings):
        path = quote(path, safe="")
    try:
        checked = checked_path(path)
    except Invalid:
        return
    assert posixpath.normpath(f"/root/{checked}") == f"/root/{checked}".rstrip("/")
    assert checked_path(checked) == checked


@pytest.mark.parametrize(
    ("path", "owner"),
    [
        (f"0/{RUN}/artifacts/model/MLmodel", RUN),
        (f"0/models/m-{RUN}/artifacts/MLmodel", f"m-{RUN}"),
        (f"0/traces/tr-{RUN}/artifacts/traces.json", f"tr-{RUN}"),
        (f"team/x/{RUN}", RUN),
        ("0/loose/file", "0"),
        ("", ""),
    ],
)
def test_the_owner_is_found_in_the_path(path: str, owner: str) -> None:
    assert owner_of(path) == owner


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        (f"mlflow-artifacts:/0/{RUN}/artifacts", f"0/{RUN}/artifacts"),
        ("mlflow-artifacts://host:5000/0/x", "0/x"),
        ("http://host/api/2.0/mlflow-artifacts/artifacts/0/x", "0/x"),
    ],
)
def test_uris_of_this_server_have_a_path(uri: str, path: str) -> None:
    assert path_of(uri) == path


def test_other_uris_are_refused() -> None:
    with pytest.raises(Invalid, match="are not kept by this server"):
        path_of("s3://bucket/0/x")


def test_joining_paths() -> None:
    assert (below("", "a"), below("a", ""), below("a", "b/c")) == ("a", "a", "a/b/c")


def test_what_is_recorded() -> None:
    world = TestWorld()
    path = f"0/{RUN}/artifacts/f"
    upload = world.decide(
        RecordUpload(path=path, size_bytes=3, sha256=b"s" * 32, previous_sha256=b"p" * 32)
    )
    assert isinstance(upload, ArtifactUploaded)
    assert (upload.owner, upload.path, upload.envelope.aggregate_id) == (RUN, path, path)
    assert (upload.size_bytes, upload.sha256, upload.previous_sha256) == (3, b"s" * 32, b"p" * 32)
    deletion = world.decide(RecordDeletion(owner=RUN, path=path, files=1))
    assert isinstance(deletion, ArtifactDeleted)
    assert (deletion.owner, deletion.path, deletion.files) == (RUN, path, 1)
    assert world.fold(upload) is None, "artifacts have no state of their own"


@pytest.mark.parametrize(
    "given", ["", " ", "%20", "%00", "%0a", "%2520", "file:", "file://host", "/", "//", "file:///"]
)
def test_a_blank_name_is_not_the_root(given: str) -> None:
    with pytest.raises(Invalid):
        file_path(given)


@given(st.text(max_size=4))
def test_a_file_always_has_a_name(given: str) -> None:
    try:
        assert file_path(quote(given))
    except Invalid:
        return
