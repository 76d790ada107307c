"""What each caller holds, compiled once and kept while neither it nor the grants change."""

from __future__ import annotations

from collections.abc import Iterable

from muniment_auth.policy import Access, compile_access
from muniment_auth.principal import Principal
from muniment_auth.subjects import BySubject
from muniment_services.domain import access as domain
from muniment_services.fold import Fold

COMPILED_MAX = 10_000
"""Callers whose access is kept; the least recently compiled go first."""


class Accesses:
    """Access by principal, as of the grants that are folded. Lives on one event loop.

    admin_groups: (issuer, group) whose members the configuration makes admins.
    """

    def __init__(self, fold: Fold, admin_groups: Iterable[tuple[str, str]]) -> None:
        self._fold = fold
        self._admin_groups = tuple(admin_groups)
        self._compiled: dict[int, tuple[Principal, int, Access]] = {}
        self._by_subject = (0, BySubject(()))

    def of(self, principal: Principal) -> Access:
        """What a principal holds now. The same object as long as nothing changed."""
        state = domain.state_of(self._fold.state)
        known = self._compiled.get(id(principal))
        if known is not None and known[0] is principal and known[1] == state.version:
            return known[2]
        access = compile_access(
            principal,
            {name: role.permissions for name, role in state.roles.items()},
            self._grants(state).of(principal),
            state.version,
            self._admin_groups,
            state.ended,
        )
        self._compiled[id(principal)] = (principal, state.version, access)
        if len(self._compiled) > COMPILED_MAX:
            del self._compiled[next(iter(self._compiled))]
        return access

    def _grants(self, state: domain.AccessState) -> BySubject:
        if self._by_subject[0] != state.version:
            by_subject = BySubject(record.grant for record in state.grants.values())
            self._by_subject = (state.version, by_subject)
        return self._by_subject[1]
