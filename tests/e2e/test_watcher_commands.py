"""`watcher-db-manage`, `watcher-sync` and `watcher-status`, with the words of Watcher's scripts, against a whole service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import typer
from optimizing import Place, optimizing
from serving import open_service
from typer.testing import CliRunner, Result

from vedette import __version__
from vedette.cli.watcher import db_manage_app, status_app, sync_app


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with optimizing(tmp_path) as place:
        yield place


async def run(app: typer.Typer, *words: str, url: str = "http://127.0.0.1:1", user: str = "") -> Result:
    environ = {"VEDETTE_URL": url, "VEDETTE_TOKEN": user}
    return await asyncio.to_thread(CliRunner().invoke, app, list(words), env=environ)


async def at(place: Place, app: typer.Typer, *words: str) -> Result:
    return await run(app, *words, url=place.main_url, user=place.cloud.token("admin"))


async def gone(place: Place, name: str, goal: str = "dummy", strategy: str = "dummy") -> None:
    await place.good("POST", "/v1/audits", {"name": name, "audit_type": "EVENT", "goal": goal, "strategy": strategy})
    await place.good("PATCH", f"/v1/audits/{name}", [{"op": "replace", "path": "/state", "value": "CANCELLED"}])
    await place.good("DELETE", f"/v1/audits/{name}")


async def names(place: Place) -> list[str]:
    listed = await place.good("GET", "/v1/audits", **{"X-Show-Deleted": "true"})
    return sorted(one["name"] for one in listed["audits"])


async def test_purging(place: Place) -> None:
    for name in ("a", "b"):
        await gone(place, name)
    await gone(place, "c", "server_consolidation", "vm_workload_consolidation")
    young = await at(place, db_manage_app, "--config-file", "/etc/watcher/watcher.conf", "purge", "--age-in-days", "1")
    assert (young.exit_code, young.stderr) == (0, "0 deleted records forgotten.\n")
    dry = await at(place, db_manage_app, "purge", "--dry-run")
    assert (dry.stdout, dry.stderr) == ("Audit: 3\n", "3 deleted records would be forgotten.\n")
    many = await at(place, db_manage_app, "purge", "-n", "2")
    assert many.exit_code == 1
    assert "there are 3 to forget, more than 2: nothing was forgotten" in many.stderr
    wrong = await at(place, db_manage_app, "purge", "-t", "nothing_like_it")
    assert wrong.exit_code != 0
    assert "nothing_like_it" in wrong.stderr
    one = await at(place, db_manage_app, "purge", "-t", "server_consolidation", "-e")
    assert (one.exit_code, one.stderr) == (0, "1 deleted record forgotten.\n")
    assert await names(place) == ["a", "b"]
    assert (await at(place, db_manage_app, "purge")).exit_code == 0
    assert await names(place) == []


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("upgrade",), 0, "Nothing to do: a store is brought forward when a newer Vedette opens it."),
        (("create_schema",), 0, "Nothing to do: a store is made when Vedette starts for the first time."),
        (("downgrade", "--revision", "x"), 2, "can't be downgraded: go back to a copy of its data_dir"),
        (("stamp", "head"), 2, "can't be stamped"),
        (("revision", "-m", "x", "--autogenerate"), 2, "can't be given a revision"),
        (("purge", "-d", "-1"), 2, "Invalid value"),
    ],
)
async def test_what_the_store_does_by_itself(words: tuple[str, ...], code: int, said: str) -> None:
    result = await run(db_manage_app, *words)
    assert (result.exit_code, result.stdout) == (code, "")
    assert said in result.stderr


async def test_the_version() -> None:
    assert (await run(db_manage_app, "version")).stdout == f"{__version__}\n"


async def test_syncing_says_what_there_is(place: Place) -> None:
    result = await at(place, sync_app, "--config-dir", "/etc/watcher")
    assert result.exit_code == 0
    assert result.stderr.startswith("There are 10 goals and ")
    assert result.stderr.endswith("strategies: the server takes them up itself when it starts.\n")
    nobody = await run(sync_app)
    assert nobody.exit_code == 1
    assert "127.0.0.1:1" in nobody.stderr


async def test_the_check_before_an_upgrade(place: Place) -> None:
    result = await at(place, status_app, "upgrade", "check")
    assert result.exit_code == 0, result.stdout
    lines = [line.strip("|+- ").strip() for line in result.stdout.splitlines()]
    assert [line for line in lines if line.startswith(("Check", "Result"))] == [
        "Check: Service", "Result: Success", "Check: Clouds", "Result: Success", "Check: Strategies", "Result: Success",
    ]  # fmt: skip
    assert "Details: region-one: the inventory is what there is" in lines
    assert len({len(line) for line in result.stdout.splitlines()}) == 1
    nobody = await run(status_app, "upgrade", "check")
    assert nobody.exit_code == 2
    assert "Result: Failure" in nobody.stdout


async def test_without_audits_the_check_fails_and_says_so(tmp_path: Path) -> None:
    async with open_service(tmp_path) as service:
        result = await run(status_app, "upgrade", "check", url=service.url)
        assert result.exit_code == 2
        assert "no section `audits`" in result.stdout
        assert (await run(sync_app, url=service.url)).exit_code == 1
