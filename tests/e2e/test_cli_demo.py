"""`vedette demo` as a newcomer meets it: real processes, a real port, the shipped recording; and the client commands against it.

Left out: cuts at bad places (tests/unit/test_cli_client.py), kubectl with tokens (test_cli_access.py).
"""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
from cli_processes import Running, free_port, port_created, run, running

from vedette.cli import app


@asynccontextmanager
async def demo(port: int, **environ: str) -> AsyncIterator[Running]:
    async with running("demo", "--listen", f"127.0.0.1:{port}", **environ) as playing:
        await playing.line_with("Ctrl-C ends it")
        yield playing


async def test_the_demo_is_watched_live_and_both_end_with_ctrl_c(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    async with (
        demo(port, TMPDIR=str(tmp_path)) as playing,
        running("watch", "port", "-o", "json", VEDETTE_URL=url) as watching,
    ):
        assert list(tmp_path.iterdir()), "the store is in a temporary folder"
        # The recording creates its first port, and changes it.
        seen: list[dict[str, Any]] = []
        while not any(event["type"] == "MODIFIED" for event in seen):
            seen.append(json.loads(await watching.line()))
        watching.signal(signal.SIGINT)
        code, rest, said = await watching.end()
        seen += [json.loads(line) for line in rest.splitlines()]
        playing.signal(signal.SIGINT)
        demo_code, _, demo_said = await playing.end()
    assert code == 0
    assert said.startswith(f"Closed after {len(seen)} change")
    assert said.strip().endswith(f"resume with --since {said.split()[-1]}")
    assert int(said.split()[-1]) >= int(seen[-1]["object"]["metadata"]["resourceVersion"])
    assert seen[0]["type"] == "ADDED"
    assert all(event["object"]["kind"] == "Port" for event in seen)
    revisions = [int(event["object"]["metadata"]["resourceVersion"]) for event in seen]
    assert revisions == sorted(revisions)
    assert demo_code == 0
    assert demo_said.startswith("Stopped after ")
    assert not list(tmp_path.iterdir()), "nothing is kept"


async def test_a_watch_as_a_table_resumes_with_the_revision_that_it_printed() -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    async with demo(port):
        async with running("watch", "port", VEDETTE_URL=url) as watching:
            heading = await watching.line()
            assert heading.split()[:4] == ["TIME", "EVENT", "NAMESPACE", "NAME"]
            assert "AGE" not in heading
            added = await watching.line_with("ADDED")
            watching.signal(signal.SIGTERM)
            code, out, said = await watching.end()
        assert code == 0
        assert "\x1b" not in heading + added + out + said, "no colours where nobody looks"
        place = said.split()[-1]
        seen = [words[3] for line in [added, *out.splitlines()] if (words := line.split())]
        # From that place on: nothing of what was seen, and no initial state.
        async with running("watch", "port", "-o", "json", "--since", place, VEDETTE_URL=url) as watching:
            event = json.loads(await watching.line())
        assert int(event["object"]["metadata"]["resourceVersion"]) > int(place)
        assert event["type"] != "ADDED" or event["object"]["metadata"]["name"] not in seen


async def test_a_watch_survives_a_restart_of_the_server_and_says_so(tmp_path: Path) -> None:
    port = free_port()
    recording = tmp_path / "recording.jsonl"
    store = tmp_path / "store"
    config = tmp_path / "vedette.yaml"
    config.write_text(
        f"listen: 127.0.0.1:{port}\ndata_dir: {store}\nsources: [{{name: one, type: replay, path: {recording}, speed: 0}}]\n"
    )
    recording.write_text(port_created("a", 1) + port_created("b", 2))
    environ = {"VEDETTE_URL": f"http://127.0.0.1:{port}"}
    async with running("serve", "--config", str(config)) as serving:
        await serving.said("listening")
        async with running("watch", "port", "-o", "json", **environ) as watching:
            names = [json.loads(await watching.line())["object"]["status"]["name"] for _ in range(2)]
            assert sorted(names) == ["a", "b"]
            serving.signal(signal.SIGTERM)
            assert (await serving.end())[0] == 0
            # What happens while nobody serves is there when it is back.
            recording.write_text(port_created("c", 3) + port_created("d", 4))
            async with running("serve", "--config", str(config)):
                names = [json.loads(await watching.line())["object"]["status"]["name"] for _ in range(2)]
                watching.signal(signal.SIGINT)
                code, out, said = await watching.end()
    assert names == ["c", "d"]
    assert out == ""
    assert code == 0
    # Whatever it was at when the server went: it says why it waits.
    assert "; trying again in" in said
    assert "-- resumed after revision" in said


async def test_get_in_every_form_and_events() -> None:
    port = free_port()
    environ = {"VEDETTE_URL": f"http://127.0.0.1:{port}"}
    async with demo(port):
        async with running("watch", "port", "-o", "name", **environ) as watching:
            name = (await watching.line_with("port.openstack.vedette.dev/")).split()[-1]
        id_ = name.partition("/")[2]
        code, out, _ = await run("get", "port", id_, "-o", "json", **environ)
        assert code == 0
        one = json.loads(out)
        assert one["metadata"]["name"] == id_
        # By the name that it has in OpenStack, too.
        code, out, _ = await run("get", "ports", one["status"]["name"], "-o", "yaml", **environ)
        assert code == 0
        assert f"name: {id_}" in out
        code, out, _ = await run("get", "Port", "-o", "name", **environ)
        assert name in out.split()
        code, out, _ = await run("get", "port", "-o", "json", **environ)
        listed = msgspec.json.decode(out)
        assert (code, listed["kind"]) == (0, "List")
        assert id_ in [item["metadata"]["name"] for item in listed["items"]]
        code, narrow, _ = await run("get", "port", **environ)
        code, wide, _ = await run("get", "port", "-o", "wide", **environ)
        assert "HOST" not in narrow.splitlines()[0]
        assert "HOST" in wide.splitlines()[0]
        assert id_ in narrow
        project = one["metadata"]["namespace"]
        code, out, _ = await run("get", "port", "--project", project, **environ)
        assert out.split()[0] == "NAME", "one project: no column for it"
        code, out, said = await run("get", "port", "--field-selector", "status.status=NEVER", **environ)
        assert (code, out, said) == (0, "", "No ports found.\n")
        code, out, said = await run("get", "port", "nobody", **environ)
        assert (code, out) == (1, "")
        assert said == "Error: no port has the id or name 'nobody'\n"
        code, out, _ = await run("events", "--type", "port.create.*", "--since", "1h", "-o", "json", **environ)
        told = [json.loads(line) for line in out.splitlines()]
        assert code == 0
        assert {event["type"] for event in told} == {"openstack.port.create.start", "openstack.port.create.end"}
        code, out, _ = await run("events", "--kind", "port", "--id", id_, **environ)
        assert out.splitlines()[1].split()[3:5] == ["port.create.end", f"port/{id_}"]
        assert await run("not-understood", **environ) == (0, "", "Every message was understood.\n")
        async with running("events", "--follow", **environ) as following:
            await following.line_with("demo")
            following.signal(signal.SIGINT)
            code, _, said = await following.end()
        assert code == 0
        assert "resume with --since" in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_the_demo_leaves_nothing_behind_however_it_is_ended(tmp_path: Path, number: int) -> None:
    async with demo(free_port(), TMPDIR=str(tmp_path)) as playing:
        playing.signal(number)
        code, _, _ = await playing.end()
    assert code == 0
    assert not list(tmp_path.iterdir())


async def test_the_fake_cloud_shows_what_no_notification_says(tmp_path: Path) -> None:
    port = free_port()
    environ = {"VEDETTE_URL": f"http://127.0.0.1:{port}"}
    async with (
        running("demo", "--cloud", "fake", "--listen", f"127.0.0.1:{port}", TMPDIR=str(tmp_path)) as playing,
    ):
        assert "fake cloud" in await playing.line_with("Vedette")
        await playing.line_with("Ctrl-C ends it")
        async with (
            running("watch", "port", "-o", "json", **environ) as watching,
            running("events", "--follow", "--since", "1h", "--type", "*.resync", "-o", "json", **environ) as resyncing,
        ):
            # Made by a tenant, announced DOWN; ACTIVE a little later, which only the API says.
            announced: set[str] = set()
            while True:
                event = json.loads(await watching.line())
                object_ = event["object"]
                origin = object_["metadata"]["annotations"]["vedette.dev/origin"]
                if event["type"] == "ADDED" and origin == "notification":
                    assert object_["status"]["status"] == "DOWN"
                    announced.add(object_["metadata"]["name"])
                if object_["status"]["status"] == "ACTIVE" and object_["metadata"]["name"] in announced:
                    break
            assert (event["type"], origin) == ("MODIFIED", "verify")
            # And what was there before anybody listened.
            await resyncing.line_with("network.create.resync")
        playing.signal(signal.SIGINT)
        code, _, said = await playing.end()
    assert code == 0
    assert said.startswith("Stopped after "), "nothing was out of order"
    assert "calls of the API" in said
    assert len(said.splitlines()) == 1
    assert not list(tmp_path.iterdir()), "nothing is kept"


async def test_the_demo_says_which_clouds_there_are() -> None:
    code, _, said = await run("demo", "--cloud", "mars")
    assert (code, said) == (2, "Error: no recording is called 'mars'; there are: recorded, fake\n")
    code, out, _ = await run("demo", "--help")
    assert "fake" in out
    demo: Any = typer.main.get_group(app).commands["demo"]
    option = next(option for option in demo.params if option.name == "cloud")
    for begun, names in (("", ["recorded", "fake"]), ("f", ["fake"])):
        assert [item.value for item in option.shell_complete(typer.Context(demo), begun)] == names


async def test_a_port_that_is_taken_is_said_in_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, out, said = await run("demo", "--listen", f"127.0.0.1:{port}")
    assert (code, out) == (1, "")
    assert said.startswith(f"Error: can't listen on 127.0.0.1:{port}: Address already in use. Stop what listens there")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("listen", "reason"),
    [("0.0.0.0:0", "other machines"), ("example.org:80", "other machines"), ("8470", "wants an address with a port")],
)
async def test_the_demo_is_for_this_machine_only(listen: str, reason: str) -> None:
    code, _, said = await run("demo", "--listen", listen)
    assert code == 2
    assert said.startswith(f"Error: --listen {listen}: ")
    assert reason in said


async def test_what_is_not_understood_is_shown_with_its_reason_and_bytes(tmp_path: Path) -> None:
    port = free_port()
    recording = tmp_path / "recording.jsonl"
    odd = [{"body": "{not json \x1b[31m"}, {"body": '{"event_type": 7}'}, {"body": '{"event_type": "x", "password": "hunter2"}'}]
    recording.write_text("".join(json.dumps({"recv_ts": n, **line}) + "\n" for n, line in enumerate(odd)) + port_created("a", 9))
    config = tmp_path / "vedette.yaml"
    config.write_text(
        f"listen: 127.0.0.1:{port}\ndata_dir: ''\nsources: [{{name: one, type: replay, path: {recording}, speed: 0}}]\n"
    )
    environ = {"VEDETTE_URL": f"http://127.0.0.1:{port}"}
    async with running("serve", "--config", str(config)) as serving:
        await serving.said("listening")
        async with running("watch", "port", "-o", "name", **environ) as watching:
            await watching.line_with("port.openstack")  # the last line of the recording was read
        code, out, said = await run("not-understood", **environ)
        assert code == 0
        assert out.count("reason: ") == 3
        assert "reason: not JSON" in out
        assert "\\x1b[31m" in out, "nothing in a message moves the cursor"
        assert "hunter2" not in out
        code, out, said = await run("not-understood", "--limit", "1", **environ)
        assert out.count("reason: ") == 1
        assert "The newest 1 of 3" in said
        code, out, _ = await run("not-understood", "-o", "json", **environ)
        assert [json.loads(line)["type"] for line in out.splitlines()] == ["vedette.not-understood"] * 3
