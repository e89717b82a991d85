"""What docker/ says keeps the rules of good images: checked as text, since no engine runs where tests run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.compose import FOLDER, ROOT, document
from tests.support.dockerfile import Stage, image, instructions, lineage, stages

TEXT = (FOLDER / "Dockerfile").read_text()
STAGES = stages(TEXT)
TARGETS = ("fog", "device", "broker", "samples")
NODES = ("top", "fog-0", "fog-1", *(f"device-{number}" for number in range(8)))
COMPOSE = document()
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SECRET = re.compile(r"pass(word)?|secret|token|key", re.I)
PINNED = re.compile(r"[a-z0-9./-]+:(?!latest)[\w.-]+(@sha256:[0-9a-f]{64})?")


def runs() -> list[str]:
    return [text for stage in STAGES.values() for text in stage.texts("RUN")]


# ------------------------------------------------------------------------------------------------------------- Dockerfile


def test_every_base_is_a_stage_or_has_a_tag_other_than_latest() -> None:
    for stage in STAGES.values():
        assert stage.base in STAGES or PINNED.fullmatch(stage.base), stage.base


def test_packages_of_debian_come_without_what_they_recommend_and_leave_no_lists() -> None:
    installing = [text for text in runs() if "apt-get install" in text]
    assert len(installing) == 3
    for text in installing:
        assert "apt-get update" in text
        assert "apt-get install -y --no-install-recommends" in text
        assert "rm -rf /var/lib/apt/lists/*" in text


def test_only_known_instructions_are_used_and_files_are_copied_not_added() -> None:
    words = {each.word for each in instructions(TEXT)}
    known = {"ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "RUN", "USER", "VOLUME", "WORKDIR"}
    assert words <= known


def test_commands_are_in_the_exec_form() -> None:
    for each in instructions(TEXT):
        if each.word in ("ENTRYPOINT", "CMD", "VOLUME"):
            assert each.list(), f"line {each.line}: {each.text}"
        if each.word == "HEALTHCHECK" and each.text != "NONE":
            assert json.loads(each.text.partition(" CMD ")[2]), f"line {each.line}"


def test_nothing_secret_is_in_what_an_image_remembers() -> None:
    for each in instructions(TEXT):
        if each.word in ("ARG", "ENV"):
            names = re.findall(r"(\w+)=", each.text) or [each.text]
            assert not [name for name in names if SECRET.search(name)], f"line {each.line}"


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_runs_as_somebody_with_a_number_and_says_how_it_is(target: str) -> None:
    made = image(STAGES, target)
    user, group = made.user.split(":")
    assert int(user) >= 1000
    assert int(group) >= 1000
    assert made.entrypoint[0].startswith("/")
    assert bool(made.health) == (target != "samples")  # which ends at once


@pytest.mark.parametrize("target", TARGETS)
def test_who_runs_it_is_the_last_word_of_an_image_that_changes_it(target: str) -> None:
    users = [each for each in STAGES[target].instructions if each.word in ("USER", "RUN")]
    assert not users or users[-1].word == "USER"


@pytest.mark.parametrize("target", ["fog", "device"])
def test_an_image_of_a_node_has_no_compiler_and_no_pip(target: str) -> None:
    said = " ".join(text for stage in lineage(STAGES, target) for text in stage.texts("RUN"))
    assert "gcc" not in said
    assert "pip" not in said
    assert "torch" not in TEXT.replace("no torch", "")


def test_what_pip_installs_has_the_versions_of_the_constraints() -> None:
    (env,) = (text for text in STAGES["packages"].texts("ENV") if "PIP_CONSTRAINT" in text)
    assert "PIP_CONSTRAINT=/src/constraints.txt" in env
    pinned = (ROOT / "constraints.txt").read_text()
    for name in ("numpy", "onnxruntime", "setuptools", "scikit-learn"):
        assert re.search(rf"^{name}==", pinned, re.M)


# ---------------------------------------------------------------------------------------------------------- .dockerignore


def kept() -> list[str]:
    lines = (FOLDER / "Dockerfile.dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "**", "everything is left out first"
    return [rule[1:] for rule in rules if rule.startswith("!")]


def copied(stage: Stage) -> list[str]:
    texts = [text.split() for text in stage.texts("COPY")]
    return [name for words in texts if not words[0].startswith("--from") for name in words[:-1]]


def test_what_is_copied_is_what_is_let_in_and_is_there() -> None:
    wanted = {name for stage in STAGES.values() for name in copied(stage)}
    assert {name for name in wanted if not (ROOT / name).exists()} == set()
    for rule in kept():
        folder = rule.split("*")[0].rstrip("/")
        assert any(folder == name or folder.startswith(f"{name}/") or name == rule for name in wanted), rule
    for name in wanted:
        assert any(rule == name or rule.startswith(f"{name}/") for rule in kept()), name


# ----------------------------------------------------------------------------------------------------------- compose.yaml


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_few_rights_and_bounded_memory(name: str) -> None:
    said = SERVICES[name]
    assert said["read_only"] is True
    assert said["cap_drop"] == ["ALL"]
    assert said["security_opt"] == ["no-new-privileges:true"]
    assert re.fullmatch(r"\d+m", said["mem_limit"])
    assert 0 < said["pids_limit"] <= 128
    assert said["logging"]["options"]["max-size"]
    assert not {"privileged", "cap_add", "devices", "pid", "ipc"} & said.keys()
    assert PINNED.fullmatch(said["image"])


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_published_is_so_on_this_machine_only(name: str) -> None:
    assert [port for port in SERVICES[name].get("ports", []) if not port.startswith("127.0.0.1:")] == []


@pytest.mark.parametrize("name", SERVICES)
def test_files_are_mounted_to_be_read_and_are_there(name: str) -> None:
    for volume in SERVICES[name].get("volumes", []):
        source, _, *mode = volume.split(":")
        if source.startswith("."):
            assert mode == ["ro"], volume
            assert (FOLDER / source).exists(), volume
        else:
            assert source in COMPOSE["volumes"], volume


@pytest.mark.parametrize("name", SERVICES)
def test_secrets_are_files_that_the_script_makes_and_stand_nowhere_else(name: str) -> None:
    said = SERVICES[name]
    for secret in said.get("secrets", []):
        source = secret if isinstance(secret, str) else secret["source"]
        assert COMPOSE["secrets"][source]["file"].startswith("secrets/")
    for key in said.get("environment", {}):
        assert not SECRET.search(key) or key.endswith("__FILE"), key
    assert "/docker/secrets/" in (ROOT / ".gitignore").read_text().splitlines()


@pytest.mark.parametrize("name", NODES)
def test_a_node_is_given_its_own_certificate_and_state(name: str) -> None:
    said = SERVICES[name]
    assert said["environment"]["EDGEMW_NODE__ID"] == name
    assert said["secrets"] == ["ca.crt", {"source": name, "target": "node.pem"}]
    assert COMPOSE["secrets"][name] == {"file": f"secrets/nodes/{name}.pem"}
    assert f"{name}:/var/lib/edgemw" in said["volumes"]


def test_the_tree_has_the_devices_of_the_quickstart() -> None:
    parents = {name: SERVICES[name]["environment"].get("EDGEMW_NODE__PARENT") for name in NODES if name.startswith("device")}
    assert parents == {f"device-{number}": f"fog-{number // 4}" for number in range(8)}


def test_no_port_of_this_machine_is_published_twice() -> None:
    ports = [port.split(":")[1] for said in SERVICES.values() for port in said.get("ports", [])]
    assert len(ports) == len(set(ports)) == 5


def test_images_have_the_version_of_the_package() -> None:
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.M)
    assert version is not None
    built = {said["image"] for said in SERVICES.values() if "build" in said}
    assert built == {f"edgemw-{target}:{version[1]}" for target in TARGETS}


# ------------------------------------------------------------------------------------------------------------- Prometheus


def test_prometheus_is_told_what_it_is_told_elsewhere_but_for_addresses() -> None:
    def jobs(path: Path) -> dict[str, Any]:
        document = yaml.safe_load(path.read_text())
        for job in document["scrape_configs"]:
            job.pop("static_configs", None)
            for discovery in job.get("http_sd_configs", []):
                discovery.pop("url")
            job["http_sd_configs"] = job.get("http_sd_configs", [])[:1]
        return dict(document)

    assert jobs(FOLDER / "prometheus.yml") == jobs(ROOT / "prometheus/prometheus.yml")


def test_prometheus_asks_every_fog_node() -> None:
    told = yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"]
    fogs = [f"{name}:9108" for name in NODES if not name.startswith("device")]
    assert [job["static_configs"][0]["targets"] for job in told if "static_configs" in job] == [fogs, fogs]
    assert [found["url"] for found in told[1]["http_sd_configs"]] == [f"http://{fog}/sd" for fog in fogs[1:]]


def test_grafana_finds_prometheus_at_the_address_of_its_provisioning() -> None:
    sources = yaml.safe_load((ROOT / "grafana/provisioning/datasources/edgemw.yaml").read_text())
    assert sources["datasources"][0]["url"] == "http://127.0.0.1:9090"
    assert SERVICES["grafana"]["network_mode"] == "service:prometheus"
    boards = yaml.safe_load((ROOT / "grafana/provisioning/dashboards/edgemw.yaml").read_text())
    assert f"../grafana/dashboards:{boards['providers'][0]['options']['path']}:ro" in SERVICES["grafana"]["volumes"]
