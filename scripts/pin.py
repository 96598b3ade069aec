#!/usr/bin/env python3
"""Writes the requirement files: what pyproject.toml depends on and all that stands behind it, each with its exact version.

    scripts/pin.py            what is pinned stays as it is; what is new is added
    scripts/pin.py --newest   every one in its newest version

Each file is made in a fresh environment and holds exactly what was installed there; no file names a registry.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent.parent
WRITTEN = "Written by scripts/pin.py from pyproject.toml."
FILES = {
    "requirements.txt": f"# What Vedette runs on. {WRITTEN}\n",
    "requirements-build.txt": f"# What builds the package. {WRITTEN}\n",
    "requirements-bench.txt": f"# What Vedette is measured against, in an environment of its own. {WRITTEN}\n",
    "requirements-dev.txt": f"# What tests and checks it, besides. {WRITTEN}\n-r requirements.txt\n",
}


def main(newest: bool) -> None:
    project = tomllib.loads((HERE / "pyproject.toml").read_text())
    runtime = project["project"]["dependencies"]
    build = [*project["build-system"]["requires"], "editables"]  # hatchling asks for it when the install is editable
    groups = project["dependency-groups"]
    pinned = [] if newest else [line for name in FILES for line in pins(HERE / name)]
    closure = install(runtime, pinned)
    write("requirements.txt", closure)
    write("requirements-build.txt", install(build, [*pinned, *closure]))
    write("requirements-bench.txt", install(groups["bench"], [*pinned, *closure]))
    everything = install([*runtime, *groups["dev"]], [*pinned, *closure])
    write("requirements-dev.txt", [line for line in everything if line not in closure])


def pins(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if "==" in line] if path.exists() else []


def install(wanted: Sequence[str], pinned: Sequence[str]) -> list[str]:
    """What a fresh environment holds afterwards, as `name==version` lines."""
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder, "constraints.txt")
        constraints.write_text("\n".join(dict.fromkeys(pinned)))
        subprocess.run([sys.executable, "-m", "venv", f"{folder}/venv"], check=True)
        pip = [f"{folder}/venv/bin/python", "-m", "pip", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "--quiet", "-c", str(constraints), *wanted], check=True)
        frozen = subprocess.run([*pip, "freeze"], check=True, capture_output=True, text=True).stdout
    return sorted((line for line in frozen.splitlines() if "==" in line), key=str.lower)


def write(name: str, lines: Sequence[str]) -> None:
    (HERE / name).write_text(FILES[name] + "".join(f"{line}\n" for line in lines))
    print(f"{name}: {len(lines)}")


if __name__ == "__main__":
    main("--newest" in sys.argv[1:])
