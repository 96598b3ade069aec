"""What the parts share: two tenants of a module's own, who leave nothing behind, and figures that are printed at the end.

Only `pytest tests/realcloud` comes here (`make test-cloud`): the cloud has to be up.
"""

from __future__ import annotations

from collections.abc import Iterator

import figures
import pytest
import requests
from tenants import AUTH_URL, Tenants

_FIGURES: pytest.StashKey[figures.Figures] = pytest.StashKey()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_FIGURES] = figures.Figures()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # openstacksdk's own, about its options and what it will drop.
    quiet = ("OpenStackDeprecationWarning", "OpenStackWarning", "RemovedInSDK50Warning", "RemovedInSDK60Warning")
    for item in items:
        for name in quiet:
            item.add_marker(pytest.mark.filterwarnings(f"ignore::openstack.warnings.{name}"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config) -> None:
    """Print the figures; keep those of the parts that have passed."""
    found = config.stash[_FIGURES]
    if not found.parts:
        return
    found.measure_cloud()
    terminalreporter.write_sep("=", "what was measured")
    terminalreporter.write_line(found.page())
    bad = [report.nodeid for outcome in ("failed", "error") for report in terminalreporter.stats.get(outcome, ())]
    whole = config.option.keyword == "" and not any("::" in word for word in config.args)
    passed = [name for name in found.parts if whole and not any(f"/test_{name.partition('.')[0]}_" in one for one in bad)]
    if passed:
        terminalreporter.write_line(
            f"kept in {found.keep(passed)}; `python tests/realcloud/page.py` puts it into docs/realcloud.md"
        )


@pytest.fixture(scope="session", name="figures")
def _figures(request: pytest.FixtureRequest) -> figures.Figures:
    return request.config.stash[_FIGURES]


@pytest.fixture(scope="session")
def cloud() -> None:
    """The control plane is up."""
    session = requests.Session()
    session.trust_env = False
    try:
        session.get(AUTH_URL, timeout=30).raise_for_status()
    except requests.RequestException:
        pytest.fail("there is no cloud: run `make test-cloud`, or tests/realcloud/up.sh first")


@pytest.fixture(scope="module")
def tenants(cloud: None) -> Iterator[Tenants]:
    """Two projects of this module's own, and all that is made in them, gone at the end."""
    made = Tenants()
    try:
        yield made
    finally:
        left = made.clear()
        assert not left, "\n".join(left)
