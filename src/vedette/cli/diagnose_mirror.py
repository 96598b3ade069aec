"""What `vedette doctor` looks at of a mirrored system: that it answers, takes our account, and has what a mirror needs there.

A mirror's own file says what that is (`look(options, clock)`, where it has one): a sentence of what is there, and what is missing
with its fix. Nothing is written there.
"""

from __future__ import annotations

from vedette import config as settings
from vedette import plugins
from vedette.cli.finding import Finding, Findings
from vedette.errors import ConfigError, VedetteError
from vedette.kit.clock import SystemClock


async def check_mirror(one: settings.MirrorConfig) -> Findings:
    """One mirror of the configuration."""
    about = f"mirror {one.name}"
    look = getattr(plugins.load("mirrors", one.type), "look", None)
    if look is None:
        return
    try:
        said, missing = await look(one.options, SystemClock())
    except ConfigError as why:
        yield Finding("fail", about, str(why), f"correct it in mirrors ({one.name})")
        return
    except VedetteError as why:
        yield Finding("fail", about, str(why), f"look at url, login and password in mirrors ({one.name}), and whether it is up")
        return
    yield Finding("ok", about, said)
    for what, fix in missing:
        yield Finding("warn", about, what, fix)
