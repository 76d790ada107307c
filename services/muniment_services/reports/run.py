"""Answers the auditor's questions by name, with or without a request of HTTP behind it."""

from __future__ import annotations

from collections.abc import Mapping

from muniment_services.api.services import Services
from muniment_services.domain.errors import NotFound
from muniment_services.reports.report import Report


async def run_report(services: Services, name: str, parameters: Mapping[str, str]) -> Report:
    """The answer to a question, as of everything that was in the log at this call.

    Raises NotFound for a name that no report has, Invalid for parameters that it cannot be asked
    with, ReportTooSlow, and what `Services.read_trail` raises.
    """
    raise NotFound(f"There is no report {name}.")
