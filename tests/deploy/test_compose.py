"""The composition: read as docker compose reads it, hardened, pinned, on loopback only."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from house.sources import ROOT
from muniment_services import access_file
from muniment_services.config import Settings

if TYPE_CHECKING:
    from deploy.conftest import Tool

DEPLOY = ROOT / "deploy"


@pytest.fixture
def project(tool: Tool) -> dict[str, Any]:
    read = tool("compose-check", str(DEPLOY / "compose.yaml"))
    assert read.returncode == 0, read.stderr
    found: dict[str, Any] = json.loads(read.stdout)
    return found


@pytest.mark.slow
def test_replicas_are_set_up_with_settings_that_there_are(project: dict[str, Any]) -> None:
    replicas = [s for name, s in project["services"].items() if name.startswith("replica-")]
    assert len(replicas) == 2
    for replica in replicas:
        given = {
            name.removeprefix("MUNIMENT_").lower(): value
            for name, value in replica["environment"].items()
            if name.startswith("MUNIMENT_") and value is not None
        }
        assert given.keys() <= Settings.model_fields.keys()
        given["kafka_bootstrap"] = tuple(given["kafka_bootstrap"].split(","))
        given["allowed_hosts"] = tuple(given["allowed_hosts"].split(","))
        settings = Settings(**given)
        assert settings.log == "kafka"
        assert replica["stop_grace_period"] == "20s"
        assert settings.drain_s + settings.shutdown_s < 20
        assert replica["read_only"]
        assert "/readyz" in str(replica["healthcheck"]["test"])
        assert settings.all_issuers() == ()
        assert settings.access_file is not None
        mounted = {volume["target"]: volume["source"] for volume in replica["volumes"]}
        assert access_file.read(Path(mounted[str(settings.access_file)])) == ()


@pytest.mark.slow
def test_who_may_sign_in_is_taken_over_from_the_environment(
    tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = {
        "issuer": "https://id.example.org/realms/main",
        "audience": "muniment",
        "admin_group": "ml-admins",
        "login_client": "web",
        "login_client_secret": "x",
        "cli_client": "cli",
    }
    for name, value in chosen.items():
        monkeypatch.setenv(f"MUNIMENT_{name.upper()}", value)
    read = tool("compose-check", str(DEPLOY / "compose.yaml"))
    assert read.returncode == 0, read.stderr
    for name in ("replica-1", "replica-2"):
        given = json.loads(read.stdout)["services"][name]["environment"]
        (issuer,) = Settings(
            **{name: given[f"MUNIMENT_{name.upper()}"] for name in chosen}
        ).all_issuers()
        assert (issuer.url, issuer.admin_group) == (chosen["issuer"], "ml-admins")
        assert (issuer.client_id, issuer.client_secret) == ("web", "x")


@pytest.mark.slow
def test_every_service_is_hardened_pinned_and_on_loopback(project: dict[str, Any]) -> None:
    for name, service in project["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        if "build" not in service:
            assert re.fullmatch(r"[\w./-]+:v?[\w.-]*\d[\w.-]*", service["image"]), name
            assert "latest" not in service["image"]
        assert {port["host_ip"] for port in service.get("ports", ())} <= {"127.0.0.1"}, name


@pytest.mark.slow
def test_brokers_cannot_lose_what_they_acknowledged(project: dict[str, Any]) -> None:
    brokers = [s for name, s in project["services"].items() if name.startswith("kafka-")]
    assert len(brokers) == 3
    for broker in brokers:
        environment = broker["environment"]
        assert environment["KAFKA_UNCLEAN_LEADER_ELECTION_ENABLE"] == "false"
        assert environment["KAFKA_MIN_INSYNC_REPLICAS"] == "2"
    assert {b["environment"]["KAFKA_NODE_ID"] for b in brokers} == {"1", "2", "3"}


def test_files_that_are_mounted_are_there() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))["services"]
    mounted = [
        volume.split(":")[0]
        for service in services.values()
        for volume in service.get("volumes", ())
        if volume.startswith("./")
    ]
    assert mounted
    assert [path for path in mounted if not (DEPLOY / path).is_file()] == []
    for path in (DEPLOY / "compose").glob("*.y*ml"):
        assert yaml.safe_load(path.read_text("utf-8")), path
