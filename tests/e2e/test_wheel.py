"""What deploy/Containerfile and deploy/systemd run: the wheel in an environment of its own, as a user who owns one folder.

The environment holds the wheel and the packages of requirements.txt, so what that file lacks is missed here. They are copied from
the environment of the tests, file by file: nothing is fetched, and the user can read them wherever that environment is. As root
the service gets a uid that has no name and no home, like the one in a container; else it runs as whoever runs the tests.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cli_processes import SECONDS, Running

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
NOBODY = 52417
"""A uid and gid that nobody has."""
USER: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
UID, GID = (NOBODY, NOBODY) if USER else (os.geteuid(), os.getegid())
TOKEN = "a-token-of-the-hook"
CONFIG = {
    "listen": "127.0.0.1:0",
    "data_dir": "../data/log",
    "auth": {"mode": "none"},
    "log": {"format": "json"},
    # No source: nothing is connected to. A hook, so that there is something to write.
    "hooks": [{"name": "told", "format": "generic", "token": TOKEN}],
}


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that everybody may look into, which those of pytest are not."""
    folder = Path(tempfile.mkdtemp(prefix="vedette-wheel-"))
    try:
        folder.chmod(0o755)
        for name in ("config", "data"):
            (folder / name).mkdir(mode=0o755)
        (folder / "config" / "vedette.yaml").write_text(json.dumps(CONFIG))
        (folder / "config" / "vedette.yaml").chmod(0o644)
        (folder / "data").chmod(0o700)
        os.chown(folder / "data", UID, GID)
        yield folder
    finally:
        shutil.rmtree(folder)


def pip(command: str, *arguments: str, python: Path = Path(sys.executable)) -> None:
    """That of the tests, for any environment. It asks nobody for packages."""
    quiet = ("--quiet", "--disable-pip-version-check", "--no-cache-dir", "--no-index", "--no-deps")
    subprocess.run([sys.executable, "-m", "pip", "--python", str(python), command, *quiet, *arguments], check=True)


@pytest.fixture(scope="module")
def wheel(place: Path) -> Path:
    pip("wheel", "--no-build-isolation", "--wheel-dir", str(place / "wheels"), str(ROOT))
    (made,) = (place / "wheels").iterdir()
    return made


@pytest.fixture(scope="module")
def programs(place: Path, wheel: Path) -> Path:
    """The folder of the commands."""
    venv = place / "venv"
    subprocess.run([interpreter(), "-m", "venv", "--without-pip", str(venv)], check=True)
    packages = next((venv / "lib").glob("python3.*")) / "site-packages"
    for pin in re.findall(r"^([\w.-]+)==", (ROOT / "requirements.txt").read_text(), re.MULTILINE):
        copy_distribution(pin, packages)
    pip("install", str(wheel), python=venv / "bin" / "python")
    for path in venv.rglob("*"):
        if not path.is_symlink():  # whatever the umask of the tests is
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() or path.parent.name == "bin" else 0o444))
    return venv / "bin"


def interpreter() -> str:
    """The one of the tests; the distribution's of the same version where only root can reach that (in its home)."""
    ours = str(Path(sys.executable).resolve())
    for one in (ours, f"/usr/bin/python3.{sys.version_info.minor}"):
        try:
            subprocess.run([one, "-c", "import encodings"], check=True, capture_output=True, cwd="/", **USER)
        except (OSError, subprocess.CalledProcessError):
            continue
        return one
    if os.environ.get("CI"):
        pytest.fail(f"only root can run {ours}")
    pytest.skip(f"only root can run {ours}")


def copy_distribution(name: str, packages: Path) -> None:
    """Without its commands, and without what Python compiled for the place where it was."""
    there = metadata.distribution(name)
    assert there.files, name
    for file in there.files:
        if ".." not in file.parts and file.suffix != ".pyc":
            to = packages / file
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(there.locate_file(file), to)


def environment(place: Path) -> dict[str, str]:
    """As the image and the units have it."""
    path = f"{place / 'venv' / 'bin'}:/usr/bin:/bin"
    return {"PATH": path, "LANG": "C.UTF-8", "HOME": "/nonexistent", "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def run(place: Path, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    env = {**environment(place), **environ}
    return subprocess.run(command, cwd="/", env=env, capture_output=True, text=True, timeout=SECONDS, check=False, **USER)


@asynccontextmanager
async def serving(place: Path) -> AsyncIterator[tuple[Running, str]]:
    process = await asyncio.create_subprocess_exec(
        "vedette", "serve", "--config", str(place / "config" / "vedette.yaml"),
        cwd="/", env=environment(place), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE, **USER,
    )  # fmt: skip
    try:
        running = Running(process)
        said = json.loads(await running.said('"listening"'))
        yield running, f"http://{said['host']}:{said['port']}"
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


def written(folder: Path) -> set[tuple[str, int, int]]:
    """(path, size, time of the last change) of all that is there."""
    found = ((path, path.lstat()) for path in folder.rglob("*"))
    return {(str(path.relative_to(folder)), stat.st_size, stat.st_mtime_ns) for path, stat in found}


def in_common_folders() -> set[Path]:
    """What the user has made where everybody may write. (Who is not root shares a uid with others, and can't tell.)"""
    common = (Path(folder) for folder in ("/tmp", "/var/tmp", "/dev/shm", "/run/lock", "/dev/mqueue"))
    there = (path for folder in common if folder.is_dir() for path in folder.iterdir())
    return {path for path in there if owner(path) == NOBODY}


def owner(path: Path) -> int | None:
    try:
        return path.lstat().st_uid
    except FileNotFoundError:  # another test's, and gone
        return None


def test_the_wheel_has_the_code_and_all_that_goes_with_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as held:
        there = set(held.namelist())
    for package in ("vedette", "oss_framework"):
        files = {path for path in (ROOT / "src" / package).rglob("*") if path.is_file() and "__pycache__" not in path.parts}
        assert {str(path.relative_to(ROOT / "src")) for path in files} <= there
    assert not {name for name in there if name.startswith(("tests", "bench")) or name.endswith((".pyc", ".pth"))}


def test_every_command_starts_without_a_home_or_a_name(place: Path, programs: Path) -> None:
    commands = sorted(PROJECT["project"]["scripts"])
    assert {path.name for path in programs.iterdir()} >= set(commands)
    for command in commands:
        done = run(place, command, "--help")
        assert done.returncode == 0, f"{command}: {done.stderr}"
        assert "Traceback" not in done.stderr


def test_what_runs_is_the_wheel(place: Path, programs: Path) -> None:
    done = run(place, "python", "-c", "import vedette.cli.service as it; print(it.__file__, *it.recordings())")
    file, *recordings = done.stdout.split()
    assert Path(file).is_relative_to(place / "venv"), done.stderr
    assert recordings
    checked = run(place, "vedette", "check-config", str(place / "config" / "vedette.yaml"))
    assert checked.returncode == 0, checked.stderr


async def test_it_serves_as_nobody_in_particular_and_writes_into_its_folder_only(place: Path, programs: Path) -> None:
    before, common = written(place), in_common_folders()
    probe = ("python", str(place / "healthz.py"))
    shutil.copyfile(ROOT / "deploy" / "healthz.py", place / "healthz.py")
    (place / "healthz.py").chmod(0o644)
    async with serving(place) as (service, url), aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(SECONDS)) as session:
        async with session.get(f"{url}/healthz") as answer:
            assert answer.status == 200
        sent = {"headers": {"X-Auth-Token": TOKEN}, "json": {"what": "happened"}}
        async with session.post(f"{url}/v1/hooks/generic/told", **sent) as answer:
            assert answer.status == 204
        # The health check of the image, as it looks for http, for a path that isn't there, and for what speaks no TLS.
        assert (await asyncio.to_thread(run, place, *probe, VEDETTE_URL=url)).returncode == 0
        assert (await asyncio.to_thread(run, place, *probe, f"{url}/nowhere")).returncode == 1
        assert (await asyncio.to_thread(run, place, *probe, url.replace("http:", "https:"))).returncode == 1
        service.signal(signal.SIGTERM)
        code, _, _ = await service.end()
    assert code == 0
    gone = await asyncio.to_thread(run, place, *probe, VEDETTE_URL=url)
    assert gone.returncode == 1
    assert "does not answer" in gone.stderr
    new = {path for path, _, _ in written(place) - before}
    assert {path for path in new if path != "data" and not path.startswith("data/")} == {"healthz.py"}
    assert any(path.startswith("data/log/") for path in new)
    assert {(path.lstat().st_uid, path.lstat().st_gid) for path in (place / "data").rglob("*")} == {(UID, GID)}
    if USER:
        assert in_common_folders() == common
        assert not [path for path in place.rglob("*") if owner(path) == NOBODY and not path.is_relative_to(place / "data")]


async def test_what_was_told_is_there_after_the_next_start(place: Path, programs: Path) -> None:
    async with serving(place) as (service, url), aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(SECONDS)) as session:
        sent = {"headers": {"X-Auth-Token": TOKEN}, "json": {"what": "happened again"}}
        async with session.post(f"{url}/v1/hooks/generic/told", **sent) as answer:
            assert answer.status == 204
        service.signal(signal.SIGTERM)
        assert (await service.end())[0] == 0
    async with serving(place) as (service, url):
        told = await asyncio.to_thread(run, place, "vedette", "events", "--since", "1h", "-o", "json", VEDETTE_URL=url)
        assert "happened again" in told.stdout, told.stderr
        service.signal(signal.SIGTERM)
        assert (await service.end())[0] == 0
