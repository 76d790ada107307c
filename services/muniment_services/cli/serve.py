"""`muniment serve`: run the server."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from muniment_services.cli.options import Config, DataDir, LogOptions
from muniment_services.cli.terminal import CliError, mendable

DEMO_NEEDS = ("mlflow", "sklearn", "skops")

app = App(name="serve", help_epilogue="")


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class StorageOptions:
    """How the log is made, and where everything else is kept."""

    kafka_replication: Annotated[
        int | None,
        Parameter(
            help="Replicas of each topic that is made. [default: as many as brokers, up to 3]"
        ),
    ] = None
    schema_registry: Annotated[
        str | None,
        Parameter(
            help="URL of a Confluent-compatible registry; events are then framed for its clients."
        ),
    ] = None
    artifacts: Annotated[
        str | None,
        Parameter(
            help="Where artifacts are kept: a folder, or s3://, gs://, az://BUCKET/PREFIX. "
            "[default: artifacts in the data folder]"
        ),
    ] = None
    keys: Annotated[
        str | None,
        Parameter(
            help="Where the keys of identities are kept: a folder, or s3://, gs://, "
            "az://BUCKET/PREFIX. [default: keys in the data folder]"
        ),
    ] = None
    snapshots: Annotated[
        str | None,
        Parameter(help="Where snapshots are kept. [default: snapshots in the data folder]"),
    ] = None
    stale_reads: Annotated[
        bool | None,
        Parameter(
            help="Answer reads, marked as stale, while the log cannot be asked what is new. "
            "[default: yes]"
        ),
    ] = None
    runs_partitions: Annotated[
        int | None,
        Parameter(help="Partitions of the runs topic; fixed when the log is created. [default: 6]"),
    ] = None
    projections_memory: Annotated[
        str | None,
        Parameter(help="Memory that DuckDB may use for the projections. [default: 2GB]"),
    ] = None


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class SignInOptions:
    """Who may call: one identity provider. Several are tables [[issuers]] of the TOML file."""

    issuer: Annotated[
        str | None,
        Parameter(
            help="Identity provider whose tokens callers present: what they have as iss. "
            "[default: none, everybody is the local user]"
        ),
    ] = None
    audience: Annotated[
        str | None, Parameter(help="What its tokens have as aud, meant for this server.")
    ] = None
    admin_group: Annotated[
        str | None, Parameter(help="Group of the provider whose members are admins.")
    ] = None
    login_client: Annotated[
        str | None,
        Parameter(help="This server's client id there, for logins by browser."),
    ] = None
    public_url: Annotated[
        str | None,
        Parameter(help="How browsers know this server. [default: http://HOST:PORT]"),
    ] = None
    cli_client: Annotated[
        str | None,
        Parameter(help="A public client id there, for `muniment-client login`."),
    ] = None
    token_groups_days: Annotated[
        int | None,
        Parameter(
            help="Days that groups of its owner's latest sign-in count for an own token. "
            "[default: 30]"
        ),
    ] = None
    workspaces: Annotated[
        bool | None,
        Parameter(negative="", help="Serve MLflow's workspaces. [default: no]"),
    ] = None
    access_file: Annotated[
        Path | None,
        Parameter(help="TOML file with roles and grants to make at the start. [default: none]"),
    ] = None


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class TrailOptions:
    """What is recorded of calls. Rules are tables of the TOML file."""

    audit_mode: Annotated[
        str | None,
        Parameter(
            help="strict: what cannot be recorded is not answered; degraded: it is answered, and "
            "counted as lost. [default: strict]"
        ),
    ] = None
    audit_sensitive: Annotated[
        list[str] | None,
        Parameter(
            negative="",
            help="Pattern of keys whose values are recorded as keyed hashes only; can be repeated. "
            "[default: those of passwords, secrets, tokens and keys]",
        ),
    ] = None
    log_sensitive: Annotated[
        list[str] | None,
        Parameter(
            negative="",
            help="Pattern of keys of params and tags whose values are logged as keyed hashes only; "
            "can be repeated; '': none. [default: those of passwords, secrets and keys]",
        ),
    ] = None
    trusted_proxies: Annotated[
        list[str] | None,
        Parameter(
            negative="",
            help="Proxy, or network of proxies, that is believed about where requests come from; "
            "can be repeated. [default: none]",
        ),
    ] = None


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class ProofOptions:
    """What is recorded, and can be proved. Signing keys are no option: others could read them."""

    proof: Annotated[
        bool | None, Parameter(help="Keep the log's trees and sign their heads. [default: yes]")
    ] = None
    proof_origin: Annotated[
        str | None,
        Parameter(help="What names this log in signed heads. [default: muniment.LOG-ID]"),
    ] = None
    signing_ml_dsa: Annotated[
        bool | None,
        Parameter(negative="", help="Sign heads with ML-DSA-44 as well. [default: no]"),
    ] = None
    witness_policy: Annotated[
        Path | None,
        Parameter(help="File with the witnesses that cosign heads. [default: none]"),
    ] = None


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class ProcessOptions:
    """How the process ends, and what it says meanwhile."""

    shutdown_s: Annotated[
        int | None,
        Parameter(help="Seconds that requests under way get to finish on SIGTERM. [default: 4]"),
    ] = None
    drain_s: Annotated[
        int | None,
        Parameter(
            help="Seconds that /readyz says 503 on SIGTERM while requests are still served. "
            "[default: 0]"
        ),
    ] = None
    log_level: Annotated[
        str | None, Parameter(help="debug, info, warning or error. [default: info]")
    ] = None


@app.default
def serve(
    *,
    host: Annotated[
        str | None, Parameter(help="Address to listen on. [default: 127.0.0.1]")
    ] = None,
    port: Annotated[
        int | None, Parameter(help="Port to listen on; 0 picks a free one. [default: 5000]")
    ] = None,
    data_dir: DataDir = None,
    demo: Annotated[
        bool,
        Parameter(
            negative="",
            show_default=False,
            help="Also log a small training run, by MLflow's own client.",
        ),
    ] = False,
    allowed_hosts: Annotated[
        list[str] | None,
        Parameter(
            negative="",
            help="Name that the server is known by, besides loopback ones; can be repeated, * "
            "allows any. [default: none]",
        ),
    ] = None,
    allow_unauthenticated_network_access: Annotated[
        bool | None,
        Parameter(
            negative="",
            help="Listen beyond loopback although nobody has to sign in: anyone who reaches the "
            "port can then read and change everything. [default: no]",
        ),
    ] = None,
    log_options: LogOptions | None = None,
    storage: StorageOptions | None = None,
    sign_in: SignInOptions | None = None,
    trail: TrailOptions | None = None,
    proving: ProofOptions | None = None,
    process: ProcessOptions | None = None,
    config: Config = None,
) -> None:
    """Serve until SIGINT or SIGTERM. What each option does: `muniment serve --help`."""
    flags: dict[str, Any] = {
        "host": host,
        "port": port,
        "data_dir": data_dir,
        "allowed_hosts": None if allowed_hosts is None else tuple(allowed_hosts),
        "allow_unauthenticated_network_access": allow_unauthenticated_network_access,
        **(log_options or LogOptions()).flags(),
        **asdict(storage or StorageOptions()),
        **asdict(sign_in or SignInOptions()),
        **asdict(trail or TrailOptions()),
        **asdict(proving or ProofOptions()),
        **asdict(process or ProcessOptions()),
    }
    if demo:
        _refuse_demo_without_client()
    _serve({name: value for name, value in flags.items() if value is not None}, config, demo)


def _serve(flags: dict[str, Any], config: Path | None, demo: bool) -> None:
    from muniment_services.cli.process import configure_logging, run
    from muniment_services.config import environment, load, refuse_open_network

    with mendable():
        settings = load(flags, environment(), config).settings
        refuse_open_network(settings)
        configure_logging(settings.log_level)
        run(settings, demo)


def _refuse_demo_without_client() -> None:
    missing = [name for name in DEMO_NEEDS if find_spec(name) is None]
    if missing:
        raise CliError(
            f"--demo logs its run through MLflow's own client, and {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not installed: "
            "pip install mlflow scikit-learn skops"
        )
