"""The keys of oss.conf, for the service (`oss.py`) and for each plugin's process (`_oss_child.py`).

The first keys of a section are the OSS framework's own; those behind them are new, and may all be left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches

from oslo_config import cfg

from vedette.errors import ConfigError

OPTIONS: dict[str, Sequence[cfg.Opt]] = {
    "DEFAULT": (
        cfg.ListOpt("enabled_plugins", default=["rest_plugin.RESTNotify"], help="`<dir>.<Class>` of each plugin."),
        cfg.StrOpt("log_file", default="", help="Log lines go there too; its folder is made."),
        cfg.ListOpt(
            "events_creation",
            default=["compute.instance.create.end", "floatingip.update.end"],
            help="Event types that call with created=True.",
        ),
        cfg.ListOpt(
            "events_deletion",
            default=["compute.instance.delete.end", "floatingip.update.end"],
            help="Event types that call with created=False.",
        ),
        cfg.StrOpt("plugins_dir", default="", help="A folder with plugins of your own: `new_plugin/__init__.py`."),
        cfg.StrOpt("data_dir", default="", help="Where the log of events is kept; none: see the page."),
        cfg.StrOpt("listen", default="127.0.0.1:8470", help="Where the API for `vedette …` commands is; this machine only."),
        cfg.StrOpt("log_level", default="info", choices=["debug", "info", "warning", "error"], help="The least that is logged."),
        cfg.StrOpt("log_format", default="text", choices=["text", "json"], help="Lines for people, or a JSON object a line."),
    ),
    "rabbit": (
        cfg.StrOpt("host", default="localhost", help="The broker."),
        cfg.PortOpt("port", default=5672, help="Its port."),
        cfg.StrOpt("user", default="guest", help="Who we are there."),
        cfg.StrOpt("password", default="guest", secret=True, help="The user's password."),
        cfg.StrOpt("watch_queue", default="monitoring.info", help="`<topic>.<priority>` of the notifications."),
        cfg.StrOpt("virtual_host", default="/", help="The broker's virtual host."),
        cfg.StrOpt("queue", default="oss_watcher", help="The queue of our own, bound to the topic: nobody else may read it."),
        cfg.ListOpt("exchanges", default=[], help="`control_exchange` of the services; none: those of every service."),
        cfg.BoolOpt("ssl", default=False, help="Speak TLS."),
        cfg.StrOpt("ssl_ca_file", default="", help="Certificates to trust; none: the system's."),
    ),
    "rest": (
        cfg.StrOpt("host", default="", help="`https://some_host`"),
        cfg.PortOpt("port", help="Its port; none: the scheme's."),
        cfg.StrOpt("user", default="", help="For basic authentication."),
        cfg.StrOpt("password", default="", secret=True, help="The user's password."),
        cfg.StrOpt("url_creation", default="", help="Path to POST to when a node came; none: nothing is sent."),
        cfg.StrOpt("url_deletion", default="", help="Path to POST to when a node went; none: nothing is sent."),
        cfg.StrOpt("cacert", default="", help="Certificates to trust; none: the system's."),
    ),
    "openstack": (
        cfg.StrOpt("auth_url", default="", help="Keystone's address; /v2.0 is taken, and v3 is asked."),
        cfg.StrOpt("user", default="", help="An account that sees every project."),
        cfg.StrOpt("password", default="", secret=True, help="Its password."),
        cfg.StrOpt("tenant", default="", help="Its project."),
        cfg.StrOpt("user_domain", default="Default", help="The domain of `user`, by name."),
        cfg.StrOpt("project_domain", default="Default", help="The domain of `tenant`, by name."),
        cfg.StrOpt("region", default="", help="The region, where there are several."),
        cfg.StrOpt("interface", default="", choices=["", "public", "internal", "admin"], help="Which endpoints to ask."),
        cfg.StrOpt("cacert", default="", help="Certificates to trust; none: the system's."),
        cfg.FloatOpt("resync", default=600.0, help="Seconds between two comparisons with the cloud; 0: only on start."),
    ),
    "node_detail": (
        cfg.StrOpt("iptype", default="Public", help="IPType."),
        cfg.StrOpt("fixed_iptype", default="", help="IPType of an instance without a floating IP; none: the same."),
        cfg.StrOpt("datacenter", default="KDC", help="Datacenter."),
        cfg.StrOpt("securitydomain", default="DQT", help="SecurityDomain."),
        cfg.StrOpt("domain", default="", help="Put behind host names that have no dot: FQDN."),
        cfg.StrOpt("fqdn", default="FQDN", help="Key in the instance's metadata that goes before its host name."),
        cfg.ListOpt("os", default=["os_name", "os_distro", "os_type"], help="Properties of the image; the first that is there."),
        cfg.StrOpt("owner", default="Owner", help="Key in the instance's metadata."),
        cfg.StrOpt("additionalusers", default="AdditionalUsers", help="The same; its value is a list with commas."),
        cfg.StrOpt("applicationname", default="ApplicationName", help="Key in the instance's metadata."),
        cfg.StrOpt("environmentci", default="EnvironmentCI", help="Key in the instance's metadata."),
        cfg.StrOpt("description", default="Description", help="Key in the instance's metadata."),
    ),
    "mail": (
        cfg.StrOpt("host", default="localhost", help="The SMTP server."),
        cfg.PortOpt("port", default=25, help="Its port."),
        cfg.StrOpt("tls", default="none", choices=["none", "starttls", "tls"], help="How the connection is secured."),
        cfg.StrOpt("cacert", default="", help="Certificates to trust; none: the system's."),
        cfg.StrOpt("user", default="", help="None: no login."),
        cfg.StrOpt("password", default="", secret=True, help="The user's password."),
        cfg.StrOpt("sender", default="oss_watcher@localhost", help="From."),
        cfg.ListOpt("recipients", default=["root@localhost"], help="To."),
    ),
    "amqp": (
        cfg.StrOpt("host", default="localhost", help="The broker to publish to."),
        cfg.PortOpt("port", default=5672, help="Its port."),
        cfg.StrOpt("user", default="guest", help="Who we are there."),
        cfg.StrOpt("password", default="guest", secret=True, help="The user's password."),
        cfg.StrOpt("virtual_host", default="/", help="The broker's virtual host."),
        cfg.StrOpt("exchange", default="", help="An exchange that is there; none: the default one, where a key is a queue."),
        cfg.StrOpt("routing_key_creation", default="oss.created", help="Of a node that came."),
        cfg.StrOpt("routing_key_deletion", default="oss.deleted", help="Of a node that went."),
        cfg.BoolOpt("ssl", default=False, help="Speak TLS."),
        cfg.StrOpt("cacert", default="", help="Certificates to trust; none: the system's."),
    ),
}

MAX_FILE = 256 * 1024
"""Bytes of an oss.conf."""


def read(conf: cfg.ConfigOpts, path: str) -> None:
    """Register every key and read the file into `conf`. `OS_<SECTION>__<KEY>` variables go before it, as oslo.config has it.

    Raises ConfigError, which shows no value.
    """
    for section, options in OPTIONS.items():
        conf.register_opts(options, group=None if section == "DEFAULT" else section)
    try:
        conf(["--config-file", path], project="oss_watcher", default_config_files=[], default_config_dirs=[])
        for section, options in OPTIONS.items():
            for option in options:
                _value(conf, section, option.dest)
    except cfg.ConfigFilesNotFoundError:
        raise ConfigError("there is no such file", path=path) from None
    except cfg.ConfigFilesPermissionDeniedError:
        raise ConfigError("may not be read by this user", path=path) from None
    except cfg.ConfigFileParseError as why:
        # The text goes on with the line itself, which may be a password's.
        at = re.search(r"line (\d+)|:(\d+)", str(why))
        raise ConfigError("is not an INI file: a line is no [section], no key=value and no comment",
                          path=path, line=int(at[1] or at[2]) if at else 0) from None  # fmt: skip
    except UnicodeDecodeError:
        raise ConfigError("is not UTF-8", path=path) from None


def _value(conf: cfg.ConfigOpts, section: str, name: str) -> None:
    """Raises ConfigError for a value of the wrong type."""
    try:
        _ = conf[name] if section == "DEFAULT" else conf[section][name]
    except (cfg.TemplateSubstitutionError, cfg.NoSuchOptError):
        raise ConfigError("a $ begins another key's name: a plain one is written $$", path=f"[{section}] {name}") from None
    except (cfg.ConfigFileValueError, ValueError):
        raise ConfigError("has a value that it can't have", path=f"[{section}] {name}") from None


def strange(path: str) -> list[str]:
    """A sentence for each key, and each section, that nobody here knows: it may be a plugin's, or a slip."""
    sections: dict[str, dict[str, object]] = {}
    parser = cfg.ConfigParser(path, sections)
    parser.parse()
    known = {section: [option.dest for option in options] for section, options in OPTIONS.items()}
    said = []
    for section, keys in sections.items():
        if section not in known:
            near = get_close_matches(section, known, n=1)
            said.append(
                f"[{section}] is no section of ours" + (f": did you mean [{near[0]}]?" if near else "; a plugin may read it")
            )
            continue
        for key in keys:
            if key not in known[section]:
                near = get_close_matches(key, known[section], n=1)
                there = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known[section])}"
                said.append(f"[{section}] {key} is not known: {there}")
    return said


def dump(conf: cfg.ConfigOpts) -> str:
    """Every key with its value as an oss.conf has it, secrets as ***."""
    lines = []
    for section, options in OPTIONS.items():
        lines.append(f"[{section}]")
        for option in options:
            value = conf[option.dest] if section == "DEFAULT" else conf[section][option.dest]
            shown = ",".join(value) if isinstance(value, list) else "" if value is None else str(value)
            lines.append(f"{option.dest}={'***' if option.secret and shown else shown}")
        lines.append("")
    return "\n".join(lines)
