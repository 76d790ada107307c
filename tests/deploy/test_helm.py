"""The chart: linted, rendered with several sets of values, and refused where it would be unsafe."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import yaml

from house.sources import ROOT
from muniment_services.config import SECRETS, Settings

if TYPE_CHECKING:
    from deploy.conftest import Tool

CHART = "helm/muniment"
RULES = ROOT / "deploy" / "dashboards" / "alerts.yaml"
RUNBOOK = "https://wiki.example.org/muniment"
KUBERNETES = ("--kube-version", "1.31.0")
PLACES = (
    "kafka.bootstrapServers={broker-1:9092,broker-2:9092}",
    "artifactRoot.uri=s3://bucket/artifacts",
    "keys.uri=s3://bucket/keys",
)
OPEN = "allowUnauthenticatedNetworkAccess=true"
NEEDED = (*PLACES, OPEN)
ISSUER = "https://id.example.org/realms/main"
SIGN_IN = (f"signIn.issuer={ISSUER}", "signIn.audience=muniment", "signIn.adminGroup=ml-admins")
TOKENS = (
    "snapshots.tokenSecret.name=snapshots-token",
    "serviceMonitor.tokenSecret.name=metrics-token",
)
SIGNED_IN = (
    *SIGN_IN,
    *TOKENS,
    "signIn.loginClient=muniment",
    "signIn.loginClientSecret.name=login",
    "signIn.cliClient=muniment-cli",
    "signIn.publicUrl=https://models.example.org",
    "signIn.accessFile.configMap=access",
    "signIn.config.secret=issuers",
)
SECURE = (
    "kafka.securityProtocol=SASL_SSL",
    "kafka.saslMechanism=SCRAM-SHA-512",
    "kafka.username=muniment",
    "kafka.passwordSecret.name=kafka",
    "kafka.tls.secretName=kafka-tls",
    "kafka.tls.certKey=tls.crt",
    "kafka.tls.keyKey=tls.key",
    "kafka.replication=3",
)
EVERYTHING = (
    *SECURE,
    "snapshots.uri=s3://bucket/snapshots",
    "schemaRegistry.url=http://registry:8081",
    "ingress.enabled=true",
    "autoscaling.enabled=true",
    "serviceMonitor.enabled=true",
    "httpRoute.enabled=true",
    "httpRoute.parentRefs[0].name=gateway",
    "httpRoute.hostnames={models.example.org}",
    "prometheusRule.enabled=true",
    f"prometheusRule.runbookUrl={RUNBOOK}",
    "data.storageClassName=fast",
    "extraEnvVars.AWS_REGION=eu-central-1",
    "extraSecretNamesForEnvFrom={s3}",
    "extraVolumes[0].name=key",
    "extraVolumes[0].secret.secretName=key",
    "extraVolumeMounts[0].name=key",
    "extraVolumeMounts[0].mountPath=/etc/key",
    "podLabels.team=ml",
    "networkPolicy.ingressFrom[0].namespaceSelector.matchLabels.team=ml",
    "networkPolicy.egressTo[0].ipBlock.cidr=192.0.2.0/24",
)
OF_OPERATORS = {"HTTPRoute", "PrometheusRule", "ServiceMonitor"}
"""Kinds that Kubernetes itself does not know, and so has no schema for."""

SETS = {
    "least": (),
    "secure": SECURE,
    "everything": EVERYTHING,
    "signed-in": (*EVERYTHING, *SIGNED_IN),
}

pytestmark = pytest.mark.slow


def set_to(values: tuple[str, ...]) -> list[str]:
    return [part for value in values for part in ("--set", value)]


def whole(values: tuple[str, ...]) -> tuple[str, ...]:
    """The values with those that every installation needs."""
    signs_in = any(value.startswith("signIn.") for value in values)
    return (*(PLACES if signs_in else NEEDED), *values)


def manifests(tool: Tool, *values: str, chart: str = CHART) -> str:
    done = tool("helm", "template", "x", chart, *KUBERNETES, *set_to(whole(values)))
    assert done.returncode == 0, done.stderr
    return done.stdout


def rendered(tool: Tool, *values: str, chart: str = CHART) -> dict[str, dict[str, Any]]:
    """By kind; where there are several of a kind, the first."""
    found: dict[str, dict[str, Any]] = {}
    for manifest in yaml.safe_load_all(manifests(tool, *values, chart=chart)):
        if manifest:
            found.setdefault(manifest["kind"], manifest)
    return found


def container(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    only: dict[str, Any] = found["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    return only


@pytest.mark.parametrize("values", SETS.values(), ids=SETS)
def test_helm_lints_it(tool: Tool, values: tuple[str, ...]) -> None:
    done = tool("helm", "lint", "--strict", CHART, *KUBERNETES, *set_to(whole(values)))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("version", ["1.27", "1.37"])
@pytest.mark.parametrize("values", SETS.values(), ids=SETS)
def test_kubernetes_knows_every_field(
    tool: Tool, tmp_path: Path, values: tuple[str, ...], version: str
) -> None:
    text = manifests(tool, *values)
    file = tmp_path / "manifests.yaml"
    file.write_text(text, "utf-8")
    checked = tool("kubernetes-validate", "-k", version, "--strict", str(file))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    kinds = re.findall(r"^kind: (\w+)$", text, re.MULTILINE)
    known = [kind for kind in kinds if kind not in OF_OPERATORS]
    assert len(re.findall("passed for resource", checked.stdout + checked.stderr)) == len(known)
    file.write_text(text.replace("readOnlyRootFilesystem", "readOnlyRootFileSystem"), "utf-8")
    assert tool("kubernetes-validate", "-k", version, "--strict", str(file)).returncode != 0


@pytest.mark.parametrize("values", SETS.values(), ids=SETS)
def test_what_it_sets_are_settings_and_secrets_are_references(
    tool: Tool, values: tuple[str, ...]
) -> None:
    environment = container(rendered(tool, *values))["env"]
    ours = [entry for entry in environment if entry["name"].startswith("MUNIMENT_")]
    names = {entry["name"].removeprefix("MUNIMENT_").lower() for entry in ours}
    assert names <= Settings.model_fields.keys() | {"config"}
    for entry in ours:
        if entry["name"].removeprefix("MUNIMENT_").lower() in SECRETS:
            assert entry["valueFrom"]["secretKeyRef"]["name"] in ("kafka", "login")
    if values:
        assert {"kafka_password", "kafka_ca_file", "kafka_cert_file", "kafka_replication"} <= names


def test_people_sign_in_where_an_issuer_is_named(tool: Tool) -> None:
    found = rendered(tool, *EVERYTHING, *SIGNED_IN)
    environment = {entry["name"]: entry.get("value") for entry in container(found)["env"]}
    assert "MUNIMENT_ALLOW_UNAUTHENTICATED_NETWORK_ACCESS" not in environment
    given = {
        name.removeprefix("MUNIMENT_").lower(): value
        for name, value in environment.items()
        if name.startswith("MUNIMENT_") and name != "MUNIMENT_CONFIG"
    }
    of_callers = {name: given[name] for name in ("issuer", "audience", "admin_group", "cli_client")}
    (issuer,) = Settings(**of_callers, login_client=given["login_client"]).all_issuers()
    assert (issuer.url, issuer.audiences, issuer.admin_group) == (
        ISSUER,
        ("muniment",),
        "ml-admins",
    )
    assert "models.example.org" in given["allowed_hosts"].split(",")
    mounts = {m["name"]: m["mountPath"] for m in container(found)["volumeMounts"]}
    assert given["access_file"] == f"{mounts['access']}/access.toml"
    assert environment["MUNIMENT_CONFIG"] == f"{mounts['config']}/muniment.toml"
    volumes = found["Deployment"]["spec"]["template"]["spec"]["volumes"]
    assert {"name": "access", "configMap": {"name": "access"}} in volumes
    assert {v["name"] for v in volumes} == mounts.keys()


def test_issuers_may_stand_in_a_file_alone(tool: Tool) -> None:
    found = rendered(tool, "signIn.config.configMap=issuers", "signIn.config.key=ours.toml")
    environment = {entry["name"]: entry.get("value") for entry in container(found)["env"]}
    assert environment["MUNIMENT_CONFIG"] == "/etc/muniment/config/ours.toml"
    assert not {"MUNIMENT_ISSUER", "MUNIMENT_PUBLIC_URL"} & environment.keys()
    assert "MUNIMENT_ALLOW_UNAUTHENTICATED_NETWORK_ACCESS" not in environment
    volumes = found["Deployment"]["spec"]["template"]["spec"]["volumes"]
    assert {"name": "config", "configMap": {"name": "issuers"}} in volumes


def test_jobs_and_scrapes_sign_in_with_tokens_from_secrets(tool: Tool) -> None:
    found = rendered(tool, *EVERYTHING, *SIGNED_IN)
    pod = found["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (token,) = pod["containers"][0]["env"]
    assert token["name"] == "MUNIMENT_TOKEN"
    assert token["valueFrom"]["secretKeyRef"] == {"name": "snapshots-token", "key": "token"}
    (endpoint,) = found["ServiceMonitor"]["spec"]["endpoints"]
    credentials = {"name": "metrics-token", "key": "token"}
    assert endpoint["authorization"] == {"type": "Bearer", "credentials": credentials}
    (open_endpoint,) = rendered(tool, *EVERYTHING)["ServiceMonitor"]["spec"]["endpoints"]
    assert "authorization" not in open_endpoint


@pytest.mark.parametrize(
    ("values", "says", "says_not"),
    [
        ((), ["lets nobody in yet", "http://x-muniment.default:5000"], ["MLFLOW_TRACKING_TOKEN"]),
        (
            SIGNED_IN,
            [ISSUER, "https://models.example.org/login", "token create snapshots --service"],
            ["Nobody has to sign in", "NOBODY IS ADMIN"],
        ),
        ((*SIGN_IN[:2], "snapshots.schedule="), ["NOBODY IS ADMIN"], ["/login", "token create"]),
        (("signIn.config.secret=s",), ["of the file in signIn.config"], ["NOBODY IS ADMIN"]),
    ],
    ids=["open", "signed in", "nobody is admin", "issuers of a file"],
)
def test_the_notes_say_how_to_begin(
    tool: Tool, tmp_path: Path, values: tuple[str, ...], says: list[str], says_not: list[str]
) -> None:
    chart = tmp_path / "chart"
    shutil.copytree(ROOT / "deploy" / CHART, chart)
    shutil.move(chart / "templates" / "NOTES.txt", chart / "files" / "NOTES.txt")
    text = '{{ tpl (.Files.Get "files/NOTES.txt") . | toJson }}'
    (chart / "templates" / "notes.yaml").write_text(f"kind: Notes\nnotes: {text}\n", "utf-8")
    notes = rendered(tool, *values, chart=str(chart))["Notes"]["notes"]
    assert [part for part in says if part not in notes] == []
    assert [part for part in says_not if part in notes] == []


def test_probes_and_grace_fit_what_a_replica_does(tool: Tool) -> None:
    found = rendered(tool)
    only = container(found)
    assert only["livenessProbe"]["httpGet"]["path"] == "/health"
    assert only["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert only["startupProbe"]["httpGet"]["path"] == "/readyz"
    values = {entry["name"]: entry.get("value") for entry in only["env"]}
    served = int(values["MUNIMENT_DRAIN_S"]) + int(values["MUNIMENT_SHUTDOWN_S"])
    pod = found["Deployment"]["spec"]["template"]["spec"]
    assert served + 10 <= pod["terminationGracePeriodSeconds"]
    assert "$(POD_IP)" in values["MUNIMENT_ALLOWED_HOSTS"]
    names = [entry["name"] for entry in only["env"]]
    assert names.index("POD_IP") < names.index("MUNIMENT_ALLOWED_HOSTS"), "or it is not expanded"


def test_pods_are_hardened_and_the_network_is_closed(tool: Tool) -> None:
    found = rendered(tool)
    pod = found["Deployment"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["automountServiceAccountToken"] is False
    own = container(found)["securityContext"]
    assert own["readOnlyRootFilesystem"]
    assert own["capabilities"] == {"drop": ["ALL"]}
    policy = found["NetworkPolicy"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert len(policy["ingress"][0]["from"]) == 1, "nobody but the chart's own jobs"
    assert found["PodDisruptionBudget"]["spec"]["maxUnavailable"] == 1


def test_everything_is_there_when_asked_for(tool: Tool) -> None:
    found = rendered(tool, *EVERYTHING)
    wanted = {"CronJob", "Ingress", "HorizontalPodAutoscaler", "Pod", "Service", *OF_OPERATORS}
    assert wanted <= found.keys()
    policy = found["NetworkPolicy"]["spec"]
    assert policy["ingress"][0]["from"][1:] == [
        {"namespaceSelector": {"matchLabels": {"team": "ml"}}}
    ]
    assert policy["egress"][1]["to"] == [{"ipBlock": {"cidr": "192.0.2.0/24"}}]
    assert "to" not in policy["egress"][0], "DNS may be anywhere"
    mounted = {mount["name"] for mount in container(found)["volumeMounts"]}
    volumes = {
        volume["name"] for volume in found["Deployment"]["spec"]["template"]["spec"]["volumes"]
    }
    assert mounted == volumes == {"data", "tmp", "kafka-tls", "key"}


def test_replicas_answer_to_every_name_that_they_are_called_by(tool: Tool) -> None:
    found = rendered(tool, *EVERYTHING)
    environment = {entry["name"]: entry.get("value", "") for entry in container(found)["env"]}
    known = environment["MUNIMENT_ALLOWED_HOSTS"].split(",")
    names = {rule["host"] for rule in found["Ingress"]["spec"]["rules"]}
    names |= set(found["HTTPRoute"]["spec"]["hostnames"])
    job = found["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    for pod in (job, found["Pod"]["spec"]):
        names.add(str(urlsplit(pod["containers"][0]["args"][-1]).hostname))
    assert names <= set(known)
    assert len(names) == 4


def test_a_snapshot_is_asked_of_one_replica_and_followed_there(tool: Tool) -> None:
    text = manifests(tool, *EVERYTHING)
    found = [manifest for manifest in yaml.safe_load_all(text) if manifest]
    services = {m["metadata"]["name"]: m for m in found if m["kind"] == "Service"}
    (job,) = (m for m in found if m["kind"] == "CronJob")
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    asked = services[str(urlsplit(pod["containers"][0]["args"][-1]).hostname)]
    assert asked["spec"]["sessionAffinity"] == "ClientIP"
    (monitor,) = (m for m in found if m["kind"] == "ServiceMonitor")
    scraped = monitor["spec"]["selector"]["matchLabels"].items()
    matching = [n for n, m in services.items() if scraped <= m["metadata"]["labels"].items()]
    assert matching == ["x-muniment"], "each replica is scraped once"


def test_rules_are_those_of_the_dashboards_with_links_that_lead_somewhere(tool: Tool) -> None:
    (group,) = rendered(tool, *EVERYTHING)["PrometheusRule"]["spec"]["groups"]
    text = RULES.read_text("utf-8").replace("runbook.md#", f"{RUNBOOK}#")
    assert [group] == yaml.safe_load(text)["groups"]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ((*PLACES[1:], OPEN), "kafka.bootstrapServers is empty"),
        (PLACES, "nobody has to sign in"),
        ((PLACES[0], OPEN), "artifactRoot.uri"),
        ((*PLACES[:2], OPEN), "keys.uri"),
        ((*NEEDED, *SIGN_IN), "contradict each other"),
        ((*PLACES, SIGN_IN[0]), "signIn.audience"),
        ((*NEEDED, SIGN_IN[2]), "signIn.issuer"),
        ((*PLACES, *SIGN_IN, "signIn.loginClient=m"), "signIn.publicUrl"),
        ((*PLACES, *SIGN_IN, "signIn.loginClientSecret.name=s"), "signIn.loginClient"),
        ((*PLACES, "signIn.config.configMap=a", "signIn.config.secret=b"), "not from both"),
        ((*PLACES, *SIGN_IN, "snapshots.uri=s3://b/s"), "snapshots.tokenSecret.name"),
        ((*PLACES, *SIGN_IN, "serviceMonitor.enabled=true"), "serviceMonitor.tokenSecret.name"),
        ((*PLACES, *SIGN_IN, "signIn.publicUrl=https://m.example/x"), "publicUrl"),
        ((*PLACES, *SIGN_IN, "signIn.adminGroups=x"), "adminGroups"),
        ((*NEEDED, "kafka.securityProtocol=SASL_SSL"), "kafka.passwordSecret.name"),
        ((*NEEDED, *SECURE, "kafka.tls.keyKey="), "kafka.tls.keyKey"),
        ((*NEEDED, *SECURE, "kafka.saslMechanism=OAUTHBEARER"), "kafka.tokenUrl"),
        ((*NEEDED, "httpRoute.enabled=true"), "httpRoute"),
        ((*NEEDED, "kafka.bootstrapServer={b:1}"), "bootstrapServer"),
        ((*NEEDED, "kafka.saslMechanism=NTLM"), "saslMechanism"),
    ],
)
def test_what_is_unsafe_or_misspelt_is_refused(
    tool: Tool, values: tuple[str, ...], told: str
) -> None:
    done = tool("helm", "template", "x", CHART, *KUBERNETES, *set_to(values))
    assert done.returncode != 0
    assert told in done.stderr
