"""What a server says of who may call it, below its address."""

from __future__ import annotations

from muniment_auth.issuers import Issuer
from muniment_services.cli.process import who_may_call

URL = "https://id.example"


def test_that_nobody_signs_in_is_said() -> None:
    (line,) = who_may_call(())
    assert "every caller is the local user" in line


def test_each_issuer_is_said_with_its_admins_and_whether_browsers_can_log_in() -> None:
    plain = Issuer("one", URL, ("a",))
    whole = Issuer("two", f"{URL}/2", ("a",), admin_group="ops", client_id="muniment")
    first, second = who_may_call((plain, whole))
    assert first.endswith(f"tokens of {URL}")
    assert "by browser at /login" in second
    assert second.endswith("admins: group ops")
