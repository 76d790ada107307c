"""How tests run here: without hypothesis' limits of time, which a loaded machine breaks; and ended
by SIGTERM as by Ctrl-C, so that what they have started is stopped."""

from __future__ import annotations

import signal

import pytest
from hypothesis import HealthCheck, settings

from harness.examples import PERCENT_FAST

settings.register_profile("whole", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fast", settings.get_profile("whole"), max_examples=PERCENT_FAST)


def pytest_configure(config: pytest.Config) -> None:
    """Choose the profile before a test is imported, whose own settings add to it."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    settings.load_profile("fast" if "not slow" in config.option.markexpr else "whole")
