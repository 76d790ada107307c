"""`muniment config show`: every setting, its value, and where that comes from."""

from __future__ import annotations

from typing import Any

from cyclopts import App

from muniment_services.cli import help
from muniment_services.cli.options import AsJson, Config, DataDir
from muniment_services.cli.terminal import mendable, write, write_json

app = App(name="config", help_epilogue="", help_format="plaintext")


@app.command(help=help.CONFIG_SHOW, help_epilogue="")
def show(*, data_dir: DataDir = None, config: Config = None, json: AsJson = False) -> None:
    """Print every setting with its origin."""
    from muniment_services.config import Settings, environment, load, unknown_variables

    flags: dict[str, Any] = {} if data_dir is None else {"data_dir": data_dir}
    with mendable():
        loaded = load(flags, environment(), config)
    values = loaded.settings.shown()
    rows = [
        (name, values[name], loaded.origins[name], field.description or "")
        for name, field in Settings.model_fields.items()
    ]
    ignored = unknown_variables(environment())
    if json:
        settings = {n: {"value": v, "origin": o, "description": d} for n, v, o, d in rows}
        write_json({"settings": settings, "ignored_environment": ignored})
        return
    name_width = max(len(name) for name, *_ in rows)
    value_width = max(len(_shown(value)) for _, value, *_ in rows)
    for name, value, origin, description in rows:
        write(f"{name:{name_width}}  {_shown(value):{value_width}}  {origin}")
        write(f"{'':{name_width}}    {description}")
    for name in ignored:
        write(f"{name} in the environment is no setting and is ignored")


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value)) or "(none)"
    return str(value).lower() if isinstance(value, bool) else str(value)
