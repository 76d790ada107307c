"""What `muniment --help` and each command's `--help` teach. Texts only, so that help comes at once.

The first paragraph of a command's text stands in the list of commands.
"""

from __future__ import annotations

MUNIMENT = (
    "An MLflow tracking and registry server whose source of truth is an append-only log of events."
)

FIRST_STEPS = """First steps:

  muniment serve --demo       serve ./muniment-data, with runs to look at
  export MLFLOW_TRACKING_URI=http://127.0.0.1:5000
                              all that an MLflow client needs
  muniment events --follow    watch what the client does, as events
  muniment verify             check the log and all that was made of it

Every setting is an option of serve, a variable MUNIMENT_… of the environment,
or a line of the TOML file that --config names. `muniment config show` tells
which one counts.
"""

SERVE = """Run the server.

Serves MLflow's tracking and registry API; every write is kept as an event of
the log. Any MLflow client can use it: set MLFLOW_TRACKING_URI to the URL that
is printed at the start.

Ctrl-C or SIGTERM finishes the requests under way, then stops; what was
accepted is not lost.

  muniment serve
  muniment serve --port 8080 --data-dir /srv/muniment
  muniment serve --demo
"""

EVENTS = """Print the log, event by event.

One event a line, oldest first: time (UTC), place, type, thing, actor, what
happened. Works beside a running server. Partitions are merged by the times at
which events were recorded. Conditions of different kinds must all be met; of
the same kind, one of them.

With --json each line holds everything: metric points one by one, bytes as
hex, NaN as "NaN".

  muniment events --follow
  muniment events --type RunCreated --since 1h
  muniment events --aggregate run/0199c2f4e1b27c3d8a55d0f2a9b1c3e7 --json
"""

REBUILD = """Build the projections anew from the log.

The projections are a cache of the log: nothing is lost. When a server has the
data folder, it rebuilds in the background and answers from the old
projections until the new ones take their place. Without a server the new file
is built beside the old one, which it then replaces; a crash on the way leaves
the old one.

  muniment rebuild
  muniment rebuild --url http://127.0.0.1:5000 --json
"""

VERIFY = """Check the log, the projections and the artifacts.

The log: offsets without holes, every record readable with a published schema,
headers and keys as the events say, times that can be. The heads: every one
that was signed is of these records, and so is one that you kept (--head). The
fold: how many events applied, and why the others did not. The projections:
equal, table by table, to a rebuild from the log, which is made in a temporary
folder. The artifacts: every file as it was recorded, byte for byte.

Exit status 1 when anything is wrong. Works beside a running server.

  muniment verify
  muniment verify --no-artifacts --json
  muniment verify --head catalog-0.checkpoint
  muniment verify --url http://127.0.0.1:5000
  muniment verify --url http://127.0.0.1:5000 --witness VKEY --witness VKEY
  muniment verify --pack pack.zip --head catalog-0.checkpoint
"""

PROOF = """Change the keys that sign the heads of the log, or be a witness of them.

A server signs the heads of the trees over its log; `muniment verify` and
programs of others verify them. Witnesses, run by others, cosign them.

  muniment proof rotate
  muniment proof witness --name witness.example/ana --log-key VKEY
"""

PROOF_ROTATE = """Have a server make new signing keys and use them from now on.

The old keys endorse the new ones, in the log, and go on verifying what they
signed.

  muniment proof rotate
  muniment proof rotate --url http://127.0.0.1:5000
"""

PROOF_WITNESS = """Cosign the heads of a log, as long as each extends the one before it.

A witness sees to it that a log is the same for all: whoever has the log's keys
cannot show one history to some and another to others without it. Run it where
the log's operator has no say. It speaks C2SP tlog-witness, prints its verifier
key, and keeps its own key and the last heads in its folder: losing those means
believing whatever comes first.

The server names it in its witness_policy. --log-key is what the server tells
at /log/catalog/0/vkey; get it from somebody whom you trust.

  muniment proof witness --name witness.example/ana --log-key 'muniment…+…+…'
  muniment proof witness --name witness.example/ana --log-key 'muniment…+…+…'
      --listen 0.0.0.0:7780 --data-dir /srv/witness
"""

SNAPSHOT = """Make, list and restore snapshots of the projections.

A new replica that begins with a snapshot folds only the events that came after
it. `muniment serve` takes the newest one that fits by itself when it has no
projections. Snapshots are caches of the log: losing them loses nothing.

  muniment snapshot create
  muniment snapshot list
  muniment snapshot restore
"""

SNAPSHOT_CREATE = """Make a snapshot of the projections.

When a server has the data folder, it makes the snapshot and goes on serving;
otherwise this process does. The data folder needs room for a second copy of
the projections while this runs. Older snapshots of the same log are removed,
all but the newest ones.

  muniment snapshot create
  muniment snapshot create --url http://127.0.0.1:5000 --keep 5
  muniment snapshot create --snapshots s3://bucket/muniment-snapshots
"""

SNAPSHOT_LIST = """List the snapshots, the newest first.

For example:

  muniment snapshot list
  muniment snapshot list --snapshots s3://bucket/muniment-snapshots --json
"""

SNAPSHOT_RESTORE = """Put a snapshot into a data folder that no server has.

Every byte is verified before the file takes its place. A snapshot of another
log or of another layout of tables is refused.

  muniment snapshot restore
  muniment snapshot restore 000001796000000-1a2b3c4d --force
"""

CONFIG = """Show the settings and where each comes from.

For example:

  muniment config show
  MUNIMENT_PORT=8080 muniment config show --json
"""

CONFIG_SHOW = """Show every setting: its value, where that comes from, and what it is for.

What counts, from weak to strong: the default, the file, the environment, an
option of serve. Names are the same everywhere: port in the file,
MUNIMENT_PORT, --port.

  muniment config show
  MUNIMENT_PORT=8080 muniment config show --json
"""

STATUS = """Tell whether a server is ready, how far its start is, and whether all is well.

A replica that starts catches up with the log first, and is not ready before it
has: this shows how far it is. Afterwards: whether the log can be reached and
folded, whether anything is in quarantine.

Exit status 1 when the server is not ready or not well. Where people sign in,
whether it is well is told to a token with server:read (MUNIMENT_TOKEN) only.

  muniment status
  muniment status --url http://127.0.0.1:5000 --wait
"""

QUARANTINE = """Show records that could not be folded, and take them up after a fix.

A record that this release cannot decode or fold stops its own history (one
run, one model) and no other: what was before it can be read, what comes after
it waits. Nothing is lost; the record is in the log.

  muniment quarantine list
  muniment quarantine replay
"""

QUARANTINE_LIST = """Print what is in quarantine on a server: which record, and why.

  muniment quarantine list
  muniment quarantine list --url http://127.0.0.1:5000 --json
"""

QUARANTINE_REPLAY = """Fold what is in quarantine, after an upgrade that can.

The projections are built anew from the log with this release, while the old
ones serve, so that every record takes effect at its place in the log. Each
replica has projections of its own: say it to each.

Exit status 1 when something could still not be folded.

  muniment quarantine replay
  muniment quarantine replay --url http://127.0.0.1:5000
"""

TOKEN = """Make, list and revoke tokens for people and services.

A token is what MLFLOW_TRACKING_TOKEN holds where nobody can log in by browser.
It is told once, when it is made; the server keeps a hash. Who calls: --token,
else MUNIMENT_TOKEN, else MLFLOW_TRACKING_TOKEN.

  muniment token create laptop --days 30
  muniment token create nightly --service --scope run:* --scope experiment:read
  muniment token list
  muniment token revoke ID
"""

TOKEN_CREATE = """Make a token and print it: the token alone, so that it can be kept at once.

A scope is a permission (run:write) or a pattern of them (run:*, *:read).
Without any, the token may do all that its principal may.

With --service the token is of a service principal of that name, which can be
given grants of its own; it is made if need be. A service can have several
tokens: make the new one, hand it out, revoke the old one.

  export MLFLOW_TRACKING_TOKEN=$(muniment token create laptop --days 30)
  muniment token create nightly --service --scope run:* --json
"""

TOKEN_LIST = """List your tokens and those that you made: id, name, scopes, until when.

  muniment token list
  muniment token list --ended --json
  muniment token list --all
"""

TOKEN_REVOKE = """Revoke a token. It is refused from then on, on every replica.

The id stands in the list, and in the token itself: mnt_ID_…

  muniment token revoke 3hK9mQ2xVbT8LwZr
  muniment token revoke 3hK9mQ2xVbT8LwZr --reason "found in a repository"
"""

LOG = """Move the log from one place to another.

Nobody is stuck with the log that they began with: from the embedded one to
Kafka, and back.

  muniment log copy --from embedded:./muniment-data --to kafka:127.0.0.1:9092
"""

LOG_COPY = """Copy a log, then read both and compare.

Every event keeps its place and its bytes. Stop the servers of both logs first.
A copy that was broken off goes on where it was. How brokers are spoken to (TLS,
SASL) comes from the environment or the file, as for serve.

  muniment log copy --from embedded:./muniment-data --to kafka:127.0.0.1:9092
  muniment log copy --from kafka:127.0.0.1:9092/muniment --to embedded:./copy
"""

LOGIN = """Sign in to a server that has an identity provider.

By browser where there is one, else with a code that is typed on any device.
MLflow's client uses it with MLFLOW_TRACKING_AUTH=muniment, and renews it as
long as it runs. Needs the package muniment-client, whose own command
muniment-client does the same where there is no server.

  muniment login https://tracking.example
  muniment login --device
"""

LOGOUT = """Forget the sign-in to a server.

The identity provider is told to end it too, where it can be.

  muniment logout https://tracking.example
"""

WHOAMI = """Print who a server takes this user for.

With where the token comes from: a sign-in, a service's registration, a CI job.

  muniment whoami https://tracking.example
"""

VERSION = """Print the versions of muniment and of what it stands on.

For example:

  muniment version
  muniment version --json
"""
