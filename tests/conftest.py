"""How tests run here: without hypothesis' limits of time, which a loaded machine breaks."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from harness.examples import PERCENT_FAST

settings.register_profile("whole", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fast", settings.get_profile("whole"), max_examples=PERCENT_FAST)


def pytest_configure(config: pytest.Config) -> None:
    """Choose the profile before a test is imported, whose own settings add to it."""
    settings.load_profile("fast" if "not slow" in config.option.markexpr else "whole")
