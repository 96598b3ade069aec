"""Rules of the repository that a machine can hold: no traces of other places, pinned versions, floors that really hold."""

from __future__ import annotations

import ast
import gzip
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from test_documents import ROOT, name, ours

from vedette import plugins

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

# --- what no file may hold -------------------------------------------------------------------------------------------------

# Put together here, so that this file holds none of them.
FORBIDDEN = [
    re.compile(rf"(?<![\w.])/{'work'}/\w"),
    re.compile(rf"\.\./{'shared'}\b"),
    re.compile(rf"--{'index-url'}|--{'extra-index-url'}|--{'find-links'}|{'pypi'}\.org|{'pythonhosted'}\.org"),
]
BINARY = {".gz", ".png", ".jpg", ".ico"}


def test_no_file_names_a_place_that_others_do_not_have() -> None:
    found = []
    for path in ours():
        if path.suffix in BINARY:
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            found += [f"{name(path)}:{number}: {match[0]}" for pattern in FORBIDDEN if (match := pattern.search(line))]
    assert not found, "\n".join(found)


def test_recordings_hold_no_place_either() -> None:
    for path in ours("*.jsonl.gz"):
        text = gzip.decompress(path.read_bytes()).decode()
        assert not any(pattern.search(text) for pattern in FORBIDDEN[:2]), name(path)


def test_shell_scripts_end_at_the_first_error() -> None:
    scripts = [path for path in ours() if path.suffix in ("", ".sh") and path.read_bytes()[:2] == b"#!"]
    assert scripts
    for path in scripts:
        first, *rest = path.read_text().splitlines()
        if "sh" in first:
            assert any(re.match(r"set -eu", line) for line in rest), name(path)
            assert path.stat().st_mode & 0o100, f"{name(path)} is not executable"


# --- versions --------------------------------------------------------------------------------------------------------------


def canonical(package: str) -> str:
    """PEP 503."""
    return re.sub(r"[-_.]+", "-", package).lower()


def pins(file: str) -> dict[str, str]:
    """name → version of a requirement file; every line is a pin, a comment, or the runtime's file."""
    found = {}
    for line in (ROOT / file).read_text().splitlines():
        if line == "-r requirements.txt":
            found |= pins("requirements.txt")
        if line.startswith(("#", "-r")):
            continue
        match = re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.!+_-]+)", line)
        assert match, f"{file}: {line!r} is not name==version"
        found[canonical(match[1])] = match[2]
    return found


@pytest.mark.parametrize(
    ("file", "wanted"),
    [
        ("requirements.txt", PROJECT["project"]["dependencies"]),
        ("requirements-build.txt", PROJECT["build-system"]["requires"]),
        ("requirements-dev.txt", PROJECT["dependency-groups"]["dev"]),
        ("requirements-bench.txt", PROJECT["dependency-groups"]["bench"]),
    ],
)
def test_what_is_needed_is_pinned(file: str, wanted: list[str]) -> None:
    there = pins(file)
    missing = [one for one in wanted if canonical(re.split(r"[<>=!~ ;\[]", one)[0]) not in there]
    assert not missing, f"run scripts/pin.py: {file} lacks {', '.join(missing)}"


def test_one_package_has_one_version() -> None:
    every = [pins(file) for file in ("requirements.txt", "requirements-build.txt", "requirements-dev.txt")]
    for package in set().union(*every):
        assert len({one[package] for one in every if package in one}) == 1, package


IMPORTED_AS = {
    "cel": "common-expression-language",
    "dns": "dnspython",
    "openstack": "openstacksdk",
    "prometheus_client": "prometheus-client",
    "pytest_asyncio": "pytest-asyncio",
    "jwt": "pyjwt",
    "yaml": "pyyaml",
}


def imported(path: Path) -> set[str]:
    """Top-level names of what a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
        elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func) + "".join(map(ast.unparse, node.args)):
            # Late, since it is slow: `importlib.import_module("x.y")`, or that given to a thread.
            found |= {
                one.value.partition(".")[0]
                for one in node.args
                if isinstance(one, ast.Constant) and isinstance(one.value, str) and not one.value.startswith("vedette")
            }
    return found


def declared(wanted: list[str]) -> set[str]:
    return {canonical(re.split(r"[<>=!~ ;\[]", one)[0]) for one in wanted}


def test_the_package_imports_what_it_declares_and_declares_what_it_imports() -> None:
    runtime = declared(PROJECT["project"]["dependencies"])
    tracing = {"opentelemetry"}  # of the extra that is called so: imported only where it is configured
    testing = runtime | declared(PROJECT["project"]["optional-dependencies"]["testing"])
    used: set[str] = set()
    own = {"vedette", "oss_framework", "con_opstk"}
    for path in sorted((ROOT / "src").rglob("*.py")):
        names = {canonical(IMPORTED_AS.get(one, one)) for one in imported(path) - tracing - set(sys.stdlib_module_names) - own}
        allowed = testing if path.is_relative_to(ROOT / "src" / "vedette" / "testing") else runtime
        assert names <= allowed, f"{name(path)} imports {', '.join(names - allowed)}: declare it in pyproject.toml"
        used |= names
    assert runtime <= used, f"nothing imports {', '.join(runtime - used)}: take it out of pyproject.toml"


# --- floors ----------------------------------------------------------------------------------------------------------------


def test_one_kind_never_imports_another() -> None:
    kinds = set(plugins.names("kinds"))
    folder = ROOT / "src" / "vedette" / "kinds"
    for path in folder.glob("[a-z]*.py"):
        others = set(re.findall(r"vedette\.kinds\.(\w+)|from vedette\.kinds import (\w+)", path.read_text()))
        assert not {one for pair in others for one in pair} & kinds, (
            f"{path.name}: what two kinds share is a file with an underscore"
        )


FAULTS = [
    ("Floors", "engine/ingest.py", "import vedette.store.memory"),
    ("Floors", "kinds/port.py", "import vedette.sources.replay"),
    ("Floors", "kit/clock.py", "import vedette.errors"),
    ("Network libraries", "sources/openstack.py", "import pika"),
    ("Only the store", "clients/amqp.py", "import sqlite3"),
    ("The API gets", "api/rights.py", "import vedette.store.sqlite"),
    ("The engine knows", "engine/watch.py", "import vedette.clients.amqp"),
    ("Kinds, strategies", "model/fold.py", "import time"),
    ("No circles", "ports.py", "import vedette.engine.watch"),
]


def contracts(folder: Path) -> str:
    """What lint-imports says of the copy in `folder`."""
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-cache"],
        cwd=folder,
        env={"PYTHONPATH": str(folder / "src"), "PATH": "/usr/bin:/bin", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("house")
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.gz"))
    shutil.copy(ROOT / ".importlinter", folder)
    return folder


def test_the_contracts_hold(copy: Path) -> None:
    said = contracts(copy)
    assert " KEPT" in said, said
    assert " BROKEN" not in said, said


@pytest.mark.parametrize(("contract", "file", "line"), FAULTS, ids=[line for _, _, line in FAULTS])
def test_a_deliberate_fault_breaks_its_contract(copy: Path, contract: str, file: str, line: str) -> None:
    path = copy / "src" / "vedette" / file
    before = path.read_text()
    path.write_text(f"{before}\n{line}\n")
    try:
        said = contracts(copy)
    finally:
        path.write_text(before)
    assert re.search(rf"{contract}[^\n]* BROKEN", said), said


def test_a_room_that_no_floor_names_is_found(copy: Path) -> None:
    room = copy / "src" / "vedette" / "utils"
    room.mkdir()
    (room / "__init__.py").touch()
    try:
        said = contracts(copy)
    finally:
        shutil.rmtree(room)
    assert re.search(r"Floors[^\n]* BROKEN", said), said
