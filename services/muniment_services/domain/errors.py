"""What a command can be refused with. `api/errors.py` alone knows the HTTP status of each.

DomainError
├── Invalid            the command says something that cannot be
├── NotFound           what it is about does not exist
├── AlreadyExists      what it would create does
├── ReviewRequired     a promotion policy asks for more
├── WrongState         it contradicts the state of what it is about
├── Held               a legal hold covers what it would take away
├── StillNeeded        what it would take away is needed by something else
├── SeenOtherwise      what the caller looked at has changed since
├── Superseded         what its right was checked against has changed since
├── NotAllowedNow      MLflow's own refusal that it reports as an internal error
└── KeyReused          the Idempotency-Key belongs to another request
Quarantined            (not a refusal of the domain's) its history cannot be followed now
Void                   (not a refusal) an event of the log that changes nothing when folded
"""

from __future__ import annotations


class DomainError(Exception):
    """A refusal. The message is for the caller and says what to do; nothing was changed."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Invalid(DomainError):
    """A parameter has a value that it must not have."""


class NotFound(DomainError):
    """There is no such experiment, run, model, version, tag, …"""


class ReviewRequired(DomainError):
    """A policy asks for more than this call gives; the message says what, and how to get it."""


class AlreadyExists(DomainError):
    """The name is taken."""


class WrongState(DomainError):
    """The aggregate is not in a state that allows this (MLflow's INVALID_STATE)."""


class Held(DomainError):
    """A legal hold covers what would go. The message says which, and how it ends."""


class StillNeeded(DomainError):
    """Something that stays depends on what would go. The message says what."""


class SeenOtherwise(DomainError):
    """What the caller says that it looked at is not what there is now. Look at it again."""


class Superseded(DomainError):
    """The access state that the caller's right was checked against has changed; check again."""

    def __init__(self) -> None:
        super().__init__("Roles or grants changed at the same time; try again.")


class NotAllowedNow(DomainError):
    """Refused as MLflow refuses it: with INTERNAL_ERROR, although it is the caller's doing."""


class KeyReused(DomainError):
    """An Idempotency-Key was sent again with another request body."""

    def __init__(self) -> None:
        super().__init__(
            "This Idempotency-Key was already used for a request with another body. "
            "Send a new key with every new request."
        )


class Quarantined(Exception):
    """An earlier event of the same thing cannot be folded, so nothing can be said or done of it."""

    retry_after_s = 60

    def __init__(self, kind: str, aggregate_id: str) -> None:
        self.message = (
            f"The {kind.replace('_', ' ')} {aggregate_id} is in quarantine: an event of it cannot "
            "be read by this release. Nothing is lost; `muniment quarantine list` says which, and "
            "`muniment quarantine replay` takes it up again after an upgrade."
        )
        super().__init__(self.message)


class Void(Exception):
    """An event that does not apply to the state that the log has led to. Its record stays.

    Raised by `evolve`, the same on every replica, since it depends on earlier records of the same
    partition only. The server then decides the command again, or tells the caller who won.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
