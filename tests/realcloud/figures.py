"""What a run measured: collected by the tests, printed at its end, kept in docs/realcloud.md by page.py."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

from vedette import __version__

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "build" / "realcloud"
HOME = Path(os.environ.get("RC_HOME", "/var/lib/realcloud"))


class Figures:
    """By part: rows of what and how much."""

    def __init__(self) -> None:
        self.parts: dict[str, list[tuple[str, str]]] = {}
        self._cloud = ""
        self._began = time.monotonic()

    def add(self, part: str, what: str, value: object) -> None:
        """One row; also printed at once, for who watches (`-s`)."""
        self.parts.setdefault(part, []).append((what, str(value)))
        print(f"    {what}: {value}", flush=True)

    def measure_cloud(self) -> None:
        """How much memory the control plane takes now: the processes that up.sh started, and theirs."""
        groups = {file.read_text().split()[0] for file in (HOME / "run").glob("*.pid") if file.read_text().split()}
        memory = sum(filter(None, (_memory(pid) for pid in _processes(groups))))
        self._cloud = f"{len(groups)} services, {memory / 1024**2:.1f} GiB" if memory else f"{len(groups)} services"

    def head(self) -> str:
        """When, and of what."""
        return (
            f"{time.strftime('%Y-%m-%d', time.gmtime())}, Vedette {__version__}, Python {platform.python_version()}, "
            f"{os.cpu_count()} cores, RabbitMQ {_version('rabbitmq-server')}, Nova {_version('nova-api')}, "
            f"Neutron {_version('neutron-server')}, Octavia {_version('octavia-api')}; the cloud: {self._cloud}; "
            f"{len(self.parts)} of the parts in {time.monotonic() - self._began:.0f} s.\n"
        )

    def part(self, name: str) -> str:
        """One part, as Markdown."""
        table = "\n".join(f"| {what} | {value} |" for what, value in self.parts[name])
        return f"**{name}**\n\n| | |\n|---|---|\n{table}\n"

    def page(self) -> str:
        """All of it."""
        return "\n".join([self.head(), *map(self.part, self.parts)])

    def keep(self, names: Iterable[str]) -> Path:
        """Of these parts, in a file each: a run of the others leaves them there."""
        KEPT.mkdir(parents=True, exist_ok=True)
        (KEPT / "head.md").write_text(self.head())
        for name in names:
            (KEPT / f"part-{name.partition('.')[0]}.md").write_text(self.part(name))
        return KEPT.relative_to(ROOT)


def spread(seconds: Iterable[float]) -> str:
    """One duration, or the least, the median and the most of several."""
    ordered = sorted(seconds)
    if len(ordered) < 2:
        return "".join(f"{one:.2f} s" for one in ordered)
    return f"{ordered[0]:.2f} … {ordered[len(ordered) // 2]:.2f} … {ordered[-1]:.2f} s (of {len(ordered)})"


def _processes(groups: set[str]) -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[2] in groups or fields[3] in groups:  # process group, session
            found.append(folder.name)
    return found


def _memory(pid: str) -> int:
    """kB that it has for itself, and its share of what it shares."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) if found else 0


def _version(package: str) -> str:
    asked = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Version}", package], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    return asked.stdout.split(":")[-1].split("-")[0] or "?"
