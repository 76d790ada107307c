"""The chart: linted, rendered with several sets of values, and refused where it would be unsafe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from muniment_services.config import Settings

if TYPE_CHECKING:
    from deploy.conftest import Tool

CHART = "helm/muniment"
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
    "data.storageClassName=fast",
    "extraEnvVars.AWS_REGION=eu-central-1",
    "extraSecretNamesForEnvFrom={s3}",
    "podLabels.team=ml",
    "networkPolicy.ingressFrom[0].namespaceSelector.matchLabels.team=ml",
)

pytestmark = pytest.mark.slow


def set_to(values: tuple[str, ...]) -> list[str]:
    return [part for value in values for part in ("--set", value)]


def rendered(tool: Tool, *values: str) -> dict[str, dict[str, Any]]:
    done = tool("helm", "template", "x", CHART, *KUBERNETES, *set_to((*NEEDED, *values)))
    assert done.returncode == 0, done.stderr
    return {found["kind"]: found for found in yaml.safe_load_all(done.stdout) if found}


def container(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    only: dict[str, Any] = found["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    return only


@pytest.mark.parametrize("values", [(), SECURE, EVERYTHING], ids=["least", "secure", "everything"])
def test_helm_lints_it(tool: Tool, values: tuple[str, ...]) -> None:
    done = tool("helm", "lint", "--strict", CHART, *KUBERNETES, *set_to((*NEEDED, *values)))
    assert done.returncode == 0, done.stdout + done.stderr


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
    kinds = rendered(tool, *EVERYTHING).keys()
    wanted = {"CronJob", "Ingress", "HorizontalPodAutoscaler", "ServiceMonitor", "Pod", "Service"}
    assert wanted <= kinds


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (NEEDED[1:], "kafka.bootstrapServers is empty"),
        ((NEEDED[0], NEEDED[2]), "nobody has to sign in"),
        (NEEDED[:2], "artifactRoot.uri"),
        ((*NEEDED, "kafka.securityProtocol=SASL_SSL"), "kafka.passwordSecret.name"),
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
