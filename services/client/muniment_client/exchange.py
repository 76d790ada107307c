"""HTTP with the server and the identity provider: bounded in time, size and attempts.

Redirects are not followed: neither a token endpoint nor a metadata document moves by itself, and
a credential must not follow one. Only lost connections, 429 and 5xx are asked again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus

from muniment_client.errors import Refused, Unreachable

if TYPE_CHECKING:
    import requests

CONNECT_S = 5.0
READ_S = 15.0
BODY_BYTES_MAX = 1_048_576
CHUNK_BYTES = 65_536
ATTEMPTS_MAX = 4
BACKOFF_S = 0.5
"""Wait before the second attempt; doubles each time: 0.5 + 1 + 2 s in all."""
AGAIN_STATUS = frozenset((429, 500, 502, 503, 504))


def get_json(
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    verify: bool | str = True,
    attempts: int = ATTEMPTS_MAX,
) -> dict[str, Any] | None:
    """The JSON object at a URL; None when the answer is 404. Raises Unreachable, Refused."""
    return _ask("GET", url, {"headers": dict(headers or {}), "verify": verify}, attempts)


def post_form(
    url: str,
    form: Mapping[str, str],
    *,
    basic: tuple[str, str] | None = None,
    attempts: int = ATTEMPTS_MAX,
) -> dict[str, Any]:
    """POST a form to an OAuth endpoint, with a client's id and secret in the header if given.

    Returns the JSON object of a 2xx answer. Raises Refused with the endpoint's own error code, or
    Unreachable. Source: RFC 6749, 2.3.1 and 5.2.
    """
    import base64

    headers = {"Accept": "application/json"}
    if basic is not None:
        pair = ":".join(quote_plus(part) for part in basic)
        headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    answer = _ask("POST", url, {"data": dict(form), "headers": headers}, attempts)
    if answer is None:
        raise Refused(url, "not_found", "there is no such endpoint")
    return answer


def _ask(method: str, url: str, options: dict[str, Any], attempts: int) -> dict[str, Any] | None:
    import requests

    reason = ""
    for attempt in range(attempts):
        if attempt:
            time.sleep(BACKOFF_S * 2 ** (attempt - 1))
        try:
            with requests.request(
                method,
                url,
                timeout=(CONNECT_S, READ_S),
                allow_redirects=False,
                stream=True,
                auth=_as_it_is,
                **options,
            ) as response:
                if response.status_code not in AGAIN_STATUS:
                    return _object(response, url)
                reason = f"status {response.status_code}"
        except requests.exceptions.SSLError as error:
            raise Unreachable(url, f"TLS: {error}", 1) from error
        except requests.exceptions.InvalidURL as error:
            raise Unreachable(url, "not a URL", 1) from error
        except requests.exceptions.RequestException as error:
            reason = type(error).__name__
    raise Unreachable(url, reason, attempts)


def _object(response: requests.Response, url: str) -> dict[str, Any] | None:
    if response.status_code == 404:
        return None
    if response.is_redirect:
        raise Refused(url, "redirect", f"it points to {response.headers.get('Location')}")
    size, parts = 0, []
    for chunk in response.iter_content(CHUNK_BYTES):
        size += len(chunk)
        if size > BODY_BYTES_MAX:
            raise Unreachable(url, f"more than {BODY_BYTES_MAX} bytes", 1)
        parts.append(chunk)
    try:
        body = json.loads(b"".join(parts) or b"{}")
    except ValueError:
        body = None
    found = body if isinstance(body, dict) else {}
    if response.status_code >= 400:
        error = str(found.get("error", f"status {response.status_code}"))
        raise Refused(url, error, str(found.get("error_description", "")))
    if not isinstance(body, dict):
        raise Unreachable(url, "not a JSON object", 1)
    return body


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    # Without an `auth`, requests would put a password of ~/.netrc over our headers.
    return request
