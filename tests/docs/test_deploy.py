"""deploy/: the image, the compose file and the units name what there is, run as nobody in particular, and hold no secrets.

What systemd itself says of the units: tests/integration/test_systemd_units.py. That what the image installs runs as such a user:
tests/e2e/test_wheel.py.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_documents import ROOT, name, ours

from vedette import app
from vedette.config import Config, Watch

DEPLOY = ROOT / "deploy"
SCRIPTS = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"])
COMPONENTS = {"api", "updates_bulk", "updates_mq", "metrics"}
CONTAINERS = {"concertim_api_server", "concertim_bulk_updates", "concertim_mq_listener", "concertim_metrics"}
"""As the service called them that this replaces."""
SECRET = re.compile(r"PASSW|SECRET|TOKEN|CREDENTIAL|_KEY\b", re.IGNORECASE)
SERVER_SHUTDOWN_SECONDS = 5
"""api/server.py's `shutdown_timeout`; there are at most four listeners: the main one and three faces."""

# --- images ----------------------------------------------------------------------------------------------------------------

IMAGES = ours("deploy/*Containerfile")
Instruction = tuple[str, str]


def instructions(path: Path) -> list[Instruction]:
    """(word, the rest) of each, without comments, continued lines joined."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    found = [line.split(None, 1) for line in joined.splitlines() if line.strip()]
    return [(word.upper(), rest) for word, rest in found]


def stages(path: Path) -> list[list[Instruction]]:
    found: list[list[Instruction]] = []
    for one in instructions(path):
        if one[0] == "FROM":
            found.append([])
        found[-1].append(one)
    return found


def the(stage: list[Instruction], word: str) -> str:
    """What the one instruction of a word says."""
    (rest,) = [rest for there, rest in stage if there == word]
    return rest


@pytest.mark.parametrize("path", IMAGES, ids=name)
def test_an_image_is_built_apart_and_runs_as_a_number(path: Path) -> None:
    build, last = stages(path)
    assert re.fullmatch(r"\S+ AS build", build[0][1])
    for stage in (build, last):
        image, _, tag = stage[0][1].split()[0].rpartition(":")
        assert image in ("python", "docker.io/library/python")
        assert tag.startswith("3.11-"), "the oldest Python that is held to, and never `latest`"
    words = [word for word, _ in last]
    assert re.fullmatch(r"[1-9]\d*:0", the(last, "USER"))
    assert words.index("USER") < words.index("ENTRYPOINT")
    assert "RUN" not in words[words.index("USER") :], "what is run later is not in the user's reach"


@pytest.mark.parametrize("path", IMAGES, ids=name)
def test_an_image_is_made_of_what_is_in_the_repository(path: Path) -> None:
    for word, rest in instructions(path):
        assert word != "ADD", "COPY fetches and unpacks nothing"
        if word in ("ENV", "ARG", "LABEL"):
            assert not SECRET.search(rest), rest
        if word == "RUN":
            assert not re.search(r"\b(curl|wget|git)\b|https?://", rest), rest
        if word == "COPY" and not rest.startswith("--from=build "):
            *sources, _ = rest.split()
            for source in sources:
                assert (ROOT / source).exists(), source
                assert source == "." or not ignored(source), f".dockerignore leaves {source} out"


def ignored(source: str) -> bool:
    """The last line of .dockerignore that fits says it."""
    left_out = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if line and not line.startswith("#") and fnmatch(source, pattern):
            left_out = not line.startswith("!")
    return left_out


def test_what_no_image_needs_is_not_sent_to_the_builder() -> None:
    assert all(ignored(one) for one in (".git", ".venv", "tests", "build", "vedette.yaml", "tls.key", "deploy/compose.yaml"))


@pytest.mark.parametrize("path", IMAGES, ids=name)
def test_an_image_starts_a_command_that_the_package_has(path: Path) -> None:
    _, last = stages(path)
    entry = json.loads(the(last, "ENTRYPOINT"))
    assert entry[0] in SCRIPTS
    assert "/opt/vedette/bin:" in the(last, "ENV")


def test_the_image_of_the_service_is_whole() -> None:
    path = DEPLOY / "Containerfile"
    build, last = stages(path)
    said = "\n".join(rest for word, rest in build if word == "RUN")
    assert "-m pip wheel" in said
    assert "-r requirements-build.txt" in said
    installed = "\n".join(rest for word, rest in last if word == "RUN")
    assert "-r /opt/vedette/requirements.txt" in installed
    assert "--no-deps --no-index /opt/vedette/wheels/*.whl" in installed, "what is pinned is what runs"
    assert json.loads(the(last, "ENTRYPOINT")) == ["vedette"]
    assert json.loads(the(last, "CMD")) == ["serve", "--config", "/etc/vedette/vedette.yaml"]
    assert the(last, "VOLUME") == Config(sources=()).data_dir == "/var/lib/vedette"
    assert the(last, "STOPSIGNAL") == "SIGTERM"
    assert the(last, "EXPOSE").split() == ["8470", "9322", "42356"]
    check = the(last, "HEALTHCHECK")
    probe = json.loads(check.partition(" CMD ")[2])
    copied = {rest.split()[-1]: rest.split()[0] for word, rest in last if word == "COPY"}
    assert probe[0] == "python"
    assert copied[probe[1]] == "deploy/healthz.py"
    owner = the(last, "USER").partition(":")[0]
    assert f"-o {owner} -g 0 /var/lib/vedette" in installed, "a new volume takes its owner from the folder"


# --- compose ---------------------------------------------------------------------------------------------------------------

COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def in_profile(profile: str) -> dict[str, dict[str, Any]]:
    return {name: one for name, one in SERVICES.items() if profile in one["profiles"]}


def test_there_is_one_process_or_one_for_each_component() -> None:
    assert set(in_profile("all-in-one")) == {"vedette"}
    assert set(in_profile("components")) == CONTAINERS
    assert all(len(one["profiles"]) == 1 for one in SERVICES.values())
    assert all(one["container_name"] == name for name, one in SERVICES.items())
    assert {one["command"][0] for one in in_profile("components").values()} == {f"run={name}" for name in COMPONENTS}


@pytest.mark.parametrize("service", SERVICES.values(), ids=list(SERVICES))
def test_a_container_may_do_little_and_is_bounded(service: dict[str, Any]) -> None:
    _, last = stages(DEPLOY / "Containerfile")
    assert service["user"] == the(last, "USER")
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "devices", "network_mode", "pid", "ipc"} & service.keys()
    assert all("size=" in one for one in service["tmpfs"])
    assert re.fullmatch(r"\d+g", service["mem_limit"])
    assert service["pids_limit"] > 0
    assert service["ulimits"]["nofile"] >= Watch().max_watchers + 100
    assert {"max-size", "max-file"} <= service["logging"]["options"].keys()


@pytest.mark.parametrize("service", SERVICES.values(), ids=list(SERVICES))
def test_a_container_is_started_again_looked_after_and_ended_gently(service: dict[str, Any]) -> None:
    _, last = stages(DEPLOY / "Containerfile")
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"] == ["CMD", *json.loads(the(last, "HEALTHCHECK").partition(" CMD ")[2])]
    assert {"interval", "timeout", "start_period", "retries"} <= service["healthcheck"].keys()
    assert enough_to_end(service["stop_grace_period"])


def enough_to_end(said: str) -> bool:
    """Calls, streams and what the front end asked for are waited for one after the other, then the listeners are closed."""
    return float(said.removesuffix("s")) >= 3 * app.GRACE_SECONDS + 4 * SERVER_SHUTDOWN_SECONDS


@pytest.mark.parametrize("service", SERVICES.values(), ids=list(SERVICES))
def test_a_container_is_made_of_the_image_and_what_is_mounted(service: dict[str, Any]) -> None:
    context = (DEPLOY / service["build"]["context"]).resolve()
    assert context == ROOT
    assert (context / service["build"]["dockerfile"]) == DEPLOY / "Containerfile"
    assert service["image"].partition(":")[2] not in ("", "latest")
    assert service.get("entrypoint", ["vedette"])[0] in SCRIPTS
    config, data = service["volumes"]
    assert (config["type"], config["read_only"], config["bind"]) == ("bind", True, {"create_host_path": False})
    assert (data["type"], data.get("read_only")) == ("volume", None)
    assert data["source"] in COMPOSE["volumes"]
    _, last = stages(DEPLOY / "Containerfile")
    assert data["target"] in "\n".join(rest for word, rest in last if word == "RUN"), "else the volume would be root's"
    assert not service.get("environment"), "secrets come from a file that only root reads"
    (secrets,) = service["env_file"]
    assert Path(secrets["path"]).parent == Path(config["source"])


def test_nothing_is_shared_that_one_process_has_to_itself() -> None:
    volumes = [one["volumes"][1]["source"] for one in SERVICES.values()]
    assert sorted(volumes) == sorted(COMPOSE["volumes"])
    for profile in ("all-in-one", "components"):
        ports = Counter(port for one in in_profile(profile).values() for port in one.get("ports", ()))
        assert ports
        assert all(times == 1 for times in ports.values())
        assert all(re.fullmatch(r"\$\{VEDETTE_ADDRESS:-127\.0\.0\.1\}:(\d+):\1", port) for port in ports)
    _, last = stages(DEPLOY / "Containerfile")
    published = {port.rpartition(":")[2] for one in SERVICES.values() for port in one.get("ports", ())}
    assert published == set(the(last, "EXPOSE").split())


# --- units -----------------------------------------------------------------------------------------------------------------

UNITS = sorted((DEPLOY / "systemd").glob("*.service"))


def settings(path: Path) -> dict[str, str]:
    """Those that are there once."""
    found = re.findall(r"^(\w+)=(.*)$", path.read_text(), re.MULTILINE)
    times = Counter(key for key, _ in found)
    return {key: value for key, value in found if times[key] == 1}


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_starts_a_command_that_the_package_has_and_gives_it_time(path: Path) -> None:
    said = settings(path)
    program = Path(said["ExecStart"].split()[0])
    assert program.parent == Path("/opt/vedette/bin")
    assert program.name in SCRIPTS
    assert (said["Restart"], said["RestartSec"], said["KillMode"]) == ("always", "5s", "mixed")
    assert enough_to_end(said["TimeoutStopSec"])
    assert int(said["LimitNOFILE"]) >= Watch().max_watchers + 100


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_is_not_told_to_wait_for_what_nobody_says(path: Path) -> None:
    tells = [one for one in (ROOT / "src" / "vedette").rglob("*.py") if "NOTIFY_SOCKET" in one.read_text()]
    assert settings(path)["Type"] == ("notify" if tells else "exec")


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_runs_as_a_user_of_its_own_and_writes_into_its_folder_only(path: Path) -> None:
    said = settings(path)
    assert said["User"] == said["Group"] == "vedette"
    assert said["WorkingDirectory"] == f"/var/lib/{said['StateDirectory']}"
    assert (said["ProtectSystem"], said["NoNewPrivileges"], said["PrivateTmp"]) == ("strict", "yes", "yes")
    assert said["CapabilityBoundingSet"] == said["AmbientCapabilities"] == ""
    assert "ReadWritePaths" not in path.read_text()
    assert not SECRET.search(said["Environment"])


OLD = "concertim-openstack-service"
"""The command of the unit and of the profile `components`."""


def test_a_component_has_a_folder_of_its_own() -> None:
    said = settings(DEPLOY / "systemd" / f"{OLD}@.service")
    assert said["StateDirectory"] == f"{OLD}/%i"
    assert said["ExecStart"].endswith(f"/{OLD} run=%i")
