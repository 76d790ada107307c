"""Claims that say who somebody is never reach an event: no profile keeps them, no setting may."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from muniment_auth.profiles import PERSONAL, PROFILES
from muniment_services.config_issuers import IssuerSettings


@pytest.mark.parametrize("profile", PROFILES)
def test_no_profile_keeps_one(profile: str) -> None:
    assert PERSONAL.isdisjoint(PROFILES[profile].kept)


@pytest.mark.parametrize("name", sorted(PERSONAL))
def test_no_setting_keeps_one(name: str) -> None:
    with pytest.raises(ValidationError, match=f"claims: {name} says who somebody is"):
        IssuerSettings(url="https://id.example", audience="muniment", claims=("team", name))
    IssuerSettings(url="https://id.example", audience="muniment", claims=("team",))
