"""`muniment version`: which release, and what it stands on."""

from __future__ import annotations

import platform
from importlib.metadata import version as installed

from cyclopts import App

from muniment_services.cli.options import AsJson
from muniment_services.cli.terminal import write, write_json
from muniment_services.release import release

SHOWN = ("duckdb", "fastavro", "fastapi", "uvicorn")
MLFLOW_API = "3.17"
"""Release of MLflow whose REST API is served; a test holds it equal to what the server answers."""

app = App(name="version", help_epilogue="")


@app.default
def version(*, json: AsJson = False) -> None:
    """Print the versions."""
    found = {"muniment": release(), "mlflow_api": MLFLOW_API, "python": platform.python_version()}
    found |= {name: installed(name) for name in SHOWN}
    if json:
        write_json(found)
        return
    for name, value in found.items():
        write(f"{name:12}{value}")
