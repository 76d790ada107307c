"""The `muniment` command line: what it offers, and how errors are shown.

Commands are imported when they are called, so that help and version come at once.
"""

from __future__ import annotations

import os
import sys

from cyclopts import App, CycloptsError

from muniment_services.cli import (
    access_help,
    audit_help,
    backup_help,
    help,
    keeping_help,
    policy_help,
)
from muniment_services.cli.terminal import BrokenOff, CliError
from muniment_services.release import release

COMMANDS = (
    ("serve", help.SERVE),
    ("events", help.EVENTS),
    ("rebuild", help.REBUILD),
    ("verify", help.VERIFY),
    ("proof", help.PROOF),
    ("snapshot", help.SNAPSHOT),
    ("backup", backup_help.BACKUP),
    ("status", help.STATUS),
    ("quarantine", help.QUARANTINE),
    ("audit", audit_help.AUDIT),
    ("sql", audit_help.SQL),
    ("access", access_help.ACCESS),
    ("policy", policy_help.POLICY),
    ("hold", keeping_help.HOLD),
    ("privacy", keeping_help.PRIVACY),
    ("token", help.TOKEN),
    ("log", help.LOG),
    ("config", help.CONFIG),
    ("login", help.LOGIN),
    ("logout", help.LOGOUT),
    ("whoami", help.WHOAMI),
    ("version", help.VERSION),
)

USAGE_STATUS = 2
INTERRUPTED_STATUS = 130

app = App(
    name="muniment",
    help=help.MUNIMENT,
    help_epilogue=help.FIRST_STEPS,
    help_format="plaintext",
    version=release,
    suppress_keyboard_interrupt=False,
)
for _place, (_name, _text) in enumerate(COMMANDS):
    app.command(f"muniment_services.cli.{_name}:app", name=_name, help=_text, sort_key=_place)


def main() -> None:
    """Run the command line.

    Errors that the user can mend are one line; exit status 1, or 2 when the call itself is wrong.
    """
    try:
        app(sys.argv[1:], print_error=False, exit_on_error=False)
        sys.stdout.flush()
    except CycloptsError as error:
        _refuse(_usage(error), USAGE_STATUS)
    except CliError as error:
        _refuse(str(error), error.status)
    except (BrokenOff, BrokenPipeError):
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
