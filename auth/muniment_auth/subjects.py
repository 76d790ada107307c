"""Whom a grant is made to, and the grants of one principal among all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from muniment_auth.principal import Principal
from muniment_schemas.access_events import Grant
from muniment_schemas.patterns import matches


def holds(principal: Principal, grant: Grant) -> bool:
    """Whether a grant is made to this principal. Groups and claims count of their issuer only."""
    match grant.subject_kind:
        case "everyone":
            return True
        case "principal":
            return grant.subject == principal.id
        case "group":
            return grant.issuer == principal.issuer and grant.subject in principal.groups
        case "claims":
            return (
                bool(grant.claims)
                and grant.issuer == principal.issuer
                and all(_claimed(principal, c.name, c.pattern) for c in grant.claims)
            )
    return False


def _claimed(principal: Principal, name: str, pattern: str) -> bool:
    # `sub` is what the issuer says the principal is; no other claim of that name counts.
    values = (principal.subject,) if name == "sub" else principal.claims.get(name, ())
    return any(matches(pattern, value) for value in values)


class BySubject:
    """All grants of one version of the access state, found by whom they are made to."""

    __slots__ = ("_claims", "_everyone", "_groups", "_principals")

    def __init__(self, grants: Iterable[Grant]) -> None:
        self._everyone: list[Grant] = []
        self._principals: dict[str, list[Grant]] = {}
        self._groups: dict[tuple[str, str], list[Grant]] = {}
        self._claims: dict[str, list[Grant]] = {}
        for grant in grants:
            match grant.subject_kind:
                case "everyone":
                    self._everyone.append(grant)
                case "principal":
                    self._principals.setdefault(grant.subject, []).append(grant)
                case "group":
                    self._groups.setdefault((grant.issuer, grant.subject), []).append(grant)
                case "claims":
                    self._claims.setdefault(grant.issuer, []).append(grant)

    def of(self, principal: Principal) -> Iterator[Grant]:
        """Those that are made to the principal."""
        yield from self._everyone
        yield from self._principals.get(principal.id, ())
        for group in principal.groups:
            yield from self._groups.get((principal.issuer, group), ())
        for grant in self._claims.get(principal.issuer, ()):
            if holds(principal, grant):
                yield grant
