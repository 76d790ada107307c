"""What a search can refuse.

SearchError          the request's filter, order or page token is not one that we answer
  PageTokenInvalid   the token is damaged, or was made for another search
"""

from __future__ import annotations


class SearchError(ValueError):
    """A filter or order that MLflow refuses; `message` is MLflow's text.

    internal: MLflow answers this one with INTERNAL_ERROR, not INVALID_PARAMETER_VALUE.
    """

    def __init__(self, message: str, internal: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.internal = internal


class PageTokenInvalid(SearchError):
    """A page token that does not decode, or that belongs to another filter, order or scope."""
