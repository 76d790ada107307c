"""Signs the unmodified MLflow client in to a muniment server, and keeps it signed in.

Installed beside mlflow it needs `MLFLOW_TRACKING_AUTH=muniment` and nothing else; in a notebook,
`muniment_client.login()` signs a person in. Importing it does no work and uses no network.
"""

from __future__ import annotations

from typing import Literal

__all__ = ["login"]


def login(server: str | None = None, *, flow: Literal["browser", "device"] = "device") -> str:
    """Sign in from a notebook, and store it for this user; returns who it is.

    server: its URL, else MLFLOW_TRACKING_URI. flow: "browser" where the kernel runs on the machine
    with the browser. Raises muniment_client.errors.ClientError.
    """
    import os

    from muniment_client.cache import default_cache
    from muniment_client.login import default_server, sign_in
    from muniment_client.origins import server_url

    def tell(text: str) -> None:
        print(text, flush=True)

    asked = default_server() if server is None else server_url(server)
    return sign_in(asked, default_cache(os.environ), tell, flow=flow, environ=os.environ).who
