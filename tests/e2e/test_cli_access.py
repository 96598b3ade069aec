"""How a person with Keystone credentials gets in: `vedette token`, `vedette kubeconfig`, and real kubectls over TLS.

kubectls are taken from VEDETTE_KUBECTL (paths, separated as in PATH) and from PATH. Without any: skipped, in CI failed.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import stat
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from cli_processes import COMMAND, free_port, port_created, run, running

from vedette.kit.clock import SystemClock
from vedette.testing.keystone import FakeKeystone
from vedette.testing.tls import Authority

KUBECTLS = [
    *(path for path in os.environ.get("VEDETTE_KUBECTL", "").split(os.pathsep) if path),
    *(found for found in [shutil.which("kubectl")] if found),
]


class Place(msgspec.Struct):
    """A Vedette over TLS that asks a Keystone, with ports of two projects; `blue` has a user `alice`."""

    url: str
    ca: Path
    folder: Path
    keystone: FakeKeystone
    blue: str
    red: str

    def as_user(self, name: str, password: str, project: str) -> dict[str, str]:
        return {
            "OS_AUTH_URL": self.keystone.url, "OS_USERNAME": name, "OS_PASSWORD": password, "OS_PROJECT_NAME": project,
            "OS_USER_DOMAIN_NAME": "Default", "OS_PROJECT_DOMAIN_NAME": "Default", "HOME": str(self.folder),
        }  # fmt: skip

    @property
    def alice(self) -> dict[str, str]:
        return {**self.as_user("alice", "wonder", "blue"), "VEDETTE_URL": self.url, "VEDETTE_CACERT": str(self.ca)}


@asynccontextmanager
async def place(folder: Path) -> AsyncIterator[Place]:
    async with AsyncExitStack() as stack:
        keystone = await stack.enter_async_context(FakeKeystone(SystemClock()))
        blue, red = keystone.add_project("blue"), keystone.add_project("red")
        service = keystone.add_project("service")
        keystone.grant(keystone.add_user("vedette", "own"), "service", project=service)
        keystone.grant(keystone.add_user("alice", "wonder"), "member", project=blue)
        authority = Authority(folder / "tls")
        pair = authority.server()
        recording = folder / "recording.jsonl"
        recording.write_text(port_created("mine", 1, project=blue) + port_created("theirs", 2, project=red))
        port = free_port()
        config = folder / "vedette.yaml"
        config.write_text(
            yaml.safe_dump(
                {
                    "listen": f"127.0.0.1:{port}",
                    "data_dir": "",
                    "tls": {"cert": str(pair.cert), "key": str(pair.key)},
                    "auth": {
                        "mode": "keystone",
                        "keystone": {
                            "auth_url": keystone.url, "username": "vedette", "password": "own", "project_name": "service",
                            "user_domain_name": "Default", "project_domain_name": "Default",
                        },
                    },
                    "sources": [{"name": "one", "type": "replay", "path": str(recording), "speed": 0}],
                }
            )
        )  # fmt: skip
        serving = await stack.enter_async_context(running("serve", "--config", str(config)))
        await serving.said("listening")
        yield Place(f"https://127.0.0.1:{port}", authority.ca, folder, keystone, blue, red)


async def test_a_token_is_found_when_the_server_asks_for_one_and_shows_its_projects_objects_only(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        async with running("watch", "port", "-o", "json", **here.alice) as watching:
            event = json.loads(await watching.line())
        assert event["object"]["status"]["name"] == "mine"
        code, out, _ = await run("get", "port", "-o", "json", **here.alice)
        assert code == 0
        assert [item["status"]["name"] for item in json.loads(out)["items"]] == ["mine"]
        code, _, said = await run("get", "port", "--ca", str(here.ca), "--server", here.url)
        assert code == 2
        assert "a token is needed" in said
        wrong = {**here.alice, "OS_PASSWORD": "guess"}
        code, _, said = await run("get", "port", **wrong)
        assert code == 1
        assert "refused the credentials of alice" in said
        assert "guess" not in said
        code, _, said = await run("get", "port", **{**here.alice, "VEDETTE_CACERT": ""})
        assert code == 2
        assert "Name the CA's file with --ca or VEDETTE_CACERT" in said


async def test_token_exec_says_when_the_token_ends(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        code, out, _ = await run("token", **here.alice)
        assert code == 0
        assert out.strip() in here.keystone.tokens
        code, out, _ = await run("token", "--exec", **here.alice)
    credential = json.loads(out)
    assert credential["kind"] == "ExecCredential"
    assert credential["status"]["token"] in here.keystone.tokens
    ends = datetime.fromisoformat(credential["status"]["expirationTimestamp"]).timestamp()
    told = here.keystone.tokens[credential["status"]["token"]].expires_at / 1e6
    assert abs(ends - told) < 10


async def test_the_kubeconfig_has_the_tokens_project_and_no_secret(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        path = tmp_path / "new" / "config"
        code, out, said = await run("kubeconfig", "--write", str(path), **here.alice)
        assert (code, out) == (0, "")
        assert f"kubectl --kubeconfig {path} get ports -w" in said
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        text = path.read_text()
        assert "wonder" not in text
        config = yaml.safe_load(text)
        assert config["contexts"][0]["context"]["namespace"] == here.blue
        assert config["clusters"][0]["cluster"] == {"server": here.url, "certificate-authority": str(here.ca)}
        code, _, said = await run("kubeconfig", "--write", str(path), **here.alice)
        assert code == 2
        assert "--force" in said
        code, out, _ = await run("kubeconfig", "--project", here.red, "--source", "one", **here.alice)
        config = yaml.safe_load(out)
        assert config["contexts"][0]["context"]["namespace"] == here.red
        assert config["clusters"][0]["cluster"]["server"] == f"{here.url}/clusters/one"


@pytest.mark.kubectl
@pytest.mark.parametrize("kubectl", KUBECTLS or [""])
async def test_kubectl_gets_in_with_the_kubeconfig(tmp_path: Path, kubectl: str) -> None:
    if not kubectl:
        if os.environ.get("CI"):
            pytest.fail("there is no kubectl: put one on PATH, or its path into VEDETTE_KUBECTL")
        pytest.skip("there is no kubectl")
    async with place(tmp_path) as here:
        _, text, _ = await run("kubeconfig", **here.alice)
        config = yaml.safe_load(text)
        # The test runs the command as a module; everything else is as it was written.
        execute = config["users"][0]["user"]["exec"]
        assert execute["args"] == ["token", "--exec"]
        execute["command"], execute["args"] = COMMAND[0], [*COMMAND[1:], *execute["args"]]
        path = tmp_path / "kubeconfig"
        path.write_text(yaml.safe_dump(config))

        async def ask(*words: str) -> tuple[int, str, str]:
            environ = {**here.alice, "PATH": os.environ["PATH"], "LANG": "C.UTF-8", "KUBECONFIG": str(path)}
            process = await asyncio.create_subprocess_exec(
                kubectl, *words, env=environ,
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            async with asyncio.timeout(60):
                out, err = await process.communicate()
            assert process.returncode is not None
            return process.returncode, out.decode(), err.decode()

        # No -A: the namespace of the kubeconfig is the token's project.
        code, out, said = await ask("get", "ports", "-o", "jsonpath={.items[*].status.name}")
        assert (code, out) == (0, "mine"), said
        code, out, said = await ask("get", "ports", "-A", "-o", "jsonpath={.items[*].status.name}")
        assert (code, out) == (0, "mine"), said
        code, out, said = await ask("get", "ports", "-n", here.red, "-o", "name")
        assert (code, out) == (0, ""), said


async def test_a_server_that_asks_nobody_gives_a_kubeconfig_without_a_user(tmp_path: Path) -> None:
    recording = tmp_path / "recording.jsonl"
    recording.write_text(port_created("a", 1))
    port = free_port()
    config = tmp_path / "vedette.yaml"
    config.write_text(
        f"listen: 127.0.0.1:{port}\ndata_dir: ''\nsources: [{{name: one, type: replay, path: {recording}, speed: 0}}]\n"
    )
    async with running("serve", "--config", str(config)) as serving:
        await serving.said("listening")
        environ = {"VEDETTE_URL": f"http://127.0.0.1:{port}"}
        async with running("watch", "port", "-o", "name", **environ) as watching:
            await watching.line_with("port.openstack")
        code, out, _ = await run("kubeconfig", **environ)
    assert code == 0
    written: dict[str, Any] = yaml.safe_load(out)
    assert written["users"][0]["user"] == {}
    assert written["contexts"][0]["context"]["namespace"] == "p" * 32, "the only project there is"
