"""What `vedette doctor` looks at for a front end's API (`faces.concertim`): the roles, users and archive policies it needs."""

from __future__ import annotations

from vedette import config as settings
from vedette import plugins
from vedette.app import front_end_wants
from vedette.cli.finding import Finding, Findings
from vedette.engine.prerequisites import absent
from vedette.errors import ConfigError, VedetteError
from vedette.kit.clock import SystemClock
from vedette.kit.telemetry import Telemetry


async def check_front_end(config: settings.Config, face: settings.Concertim) -> Findings:
    about = "front end"
    source = next((one for one in config.sources if one.name == (face.source or settings.default_source(config))), None)
    build = getattr(plugins.load("sources", source.type), "cloud_use", None) if source is not None else None
    try:
        use = build(source.options, clock=SystemClock(), telemetry=Telemetry()) if build and source else None
    except ConfigError as why:
        yield Finding("fail", about, str(why), "correct `api:`")
        return
    if use is None:
        yield Finding("fail", about, "its source has no API", "give the source an `api:` with an auth_url or a cloud")
        return
    try:
        missing = await absent(use.cloud, front_end_wants(config, face))
    except VedetteError as why:
        yield Finding("fail", about, f"what it needs can't be looked at: {why}", "look at the findings of its source")
        return
    finally:
        await use.cloud.close()
    if not missing:
        yield Finding("ok", about, "the cloud has the roles, users and archive policies that it needs")
    for one in missing:
        yield Finding("fail", about, f"the cloud has no {one.kind} {one.name}", one.fix)
