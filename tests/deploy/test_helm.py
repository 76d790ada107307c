"""The chart: linted, rendered with several sets of values, and refused where it would be unsafe."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import yaml

from house.sources import ROOT
from muniment_services.config import Settings

if TYPE_CHECKING:
    from deploy.conftest import Tool

CHART = "helm/muniment"
RULES = ROOT / "deploy" / "dashboards" / "alerts.yaml"
RUNBOOK = "https://wiki.example.org/muniment"
KUBERNETES = ("--kube-version", "1.31.0")
NEEDED = (
    "kafka.bootstrapServers={broker-1:9092,broker-2:9092}",
    "allowUnauthenticatedNetworkAccess=true",
    "artifactRoot.uri=s3://bucket/artifacts",
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

pytestmark = pytest.mark.slow


def set_to(values: tuple[str, ...]) -> list[str]:
    return [part for value in values for part in ("--set", value)]


def manifests(tool: Tool, *values: str) -> str:
    done = tool("helm", "template", "x", CHART, *KUBERNETES, *set_to((*NEEDED, *values)))
    assert done.returncode == 0, done.stderr
    return done.stdout


def rendered(tool: Tool, *values: str) -> dict[str, dict[str, Any]]:
    """By kind; where there are several of a kind, the first."""
    found: dict[str, dict[str, Any]] = {}
    for manifest in yaml.safe_load_all(manifests(tool, *values)):
        if manifest:
            found.setdefault(manifest["kind"], manifest)
    return found


def container(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    only: dict[str, Any] = found["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    return only


@pytest.mark.parametrize("values", [(), SECURE, EVERYTHING], ids=["least", "secure", "everything"])
def test_helm_lints_it(tool: Tool, values: tuple[str, ...]) -> None:
    done = tool("helm", "lint", "--strict", CHART, *KUBERNETES, *set_to((*NEEDED, *values)))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("version", ["1.27", "1.37"])
@pytest.mark.parametrize("values", [(), SECURE, EVERYTHING], ids=["least", "secure", "everything"])
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


@pytest.mark.parametrize("values", [(), SECURE, EVERYTHING], ids=["least", "secure", "everything"])
def test_what_it_sets_are_settings_and_secrets_are_references(
    tool: Tool, values: tuple[str, ...]
) -> None:
    environment = container(rendered(tool, *values))["env"]
    ours = [entry for entry in environment if entry["name"].startswith("MUNIMENT_")]
    names = {entry["name"].removeprefix("MUNIMENT_").lower() for entry in ours}
    assert names <= Settings.model_fields.keys()
    for entry in ours:
        if "PASSWORD" in entry["name"]:
            assert entry["valueFrom"]["secretKeyRef"]["name"] == "kafka"
    if values:
        assert {"kafka_password", "kafka_ca_file", "kafka_cert_file", "kafka_replication"} <= names


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
        (NEEDED[1:], "kafka.bootstrapServers is empty"),
        ((NEEDED[0], NEEDED[2]), "nobody has to sign in"),
        (NEEDED[:2], "artifactRoot.uri"),
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
