"""The `muniment` command line: what it offers, and how errors are shown.

Commands are imported when they are called, so that help and version come at once.
"""

from __future__ import annotations

import os
import sys

from cyclopts import App, CycloptsError

from muniment_services.cli.release import release
from muniment_services.cli.terminal import BrokenOff, CliError

HELP = "An MLflow tracking and registry server whose source of truth is an append-only log of events."

FIRST_STEPS = """
First steps:

```
muniment serve --demo                               serve ./muniment-data, with a run to look at
export MLFLOW_TRACKING_URI=http://127.0.0.1:5000    all that an MLflow client needs
muniment events --follow                            watch what it does, as events
muniment verify                                     check the log and what was made of it
```

Every setting is an option of `serve`, an environment variable `MUNIMENT_…`, or a line of the TOML
file that `--config` names; `muniment config show` tells which one counts.
"""

COMMANDS = (
    ("serve", "Run the server."),
    ("events", "Print the log, event by event; --follow goes on as it grows."),
    ("rebuild", "Build the projections anew from the log."),
    ("verify", "Check the log, the projections and the artifacts."),
    ("config", "Show the settings and where each comes from."),
    ("version", "Print the versions of muniment and of what it stands on."),
)

USAGE_STATUS = 2
INTERRUPTED_STATUS = 130

app = App(
    name="muniment",
    help=HELP,
    help_epilogue=FIRST_STEPS,
    help_format="markdown",
    version=release,
    suppress_keyboard_interrupt=False,
)
for _name, _help in COMMANDS:
    app.command(f"muniment_services.cli.{_name}:app", name=_name, help=_help)


def main() -> None:
    """Run the command line.

    Errors that the user can mend are one line; exit status 1, or 2 when the call itself is wrong.
    """
    try:
        app(print_error=False, exit_on_error=False)
    except CycloptsError as error:
        _refuse(_usage(error), USAGE_STATUS)
    except CliError as error:
        _refuse(str(error), error.status)
    except BrokenOff:
        _end_quietly()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED_STATUS)


def _usage(error: CycloptsError) -> str:
    chain = " ".join(("muniment", *(error.command_chain or ())))
    return f"{' '.join(str(error).split())} Try `{chain} --help`."


def _refuse(message: str, status: int) -> None:
    print(f"muniment: {message}", file=sys.stderr)
    sys.exit(status)


def _end_quietly() -> None:
    # The reader of our output has gone (`| head`); the interpreter must not flush into the pipe.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)
