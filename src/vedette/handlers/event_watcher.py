"""Calls `handle_event` of a plugin of the OpenShift Event Watcher for each change of an object, and logs what it says.

In: changes, of a Kubernetes source or any other. Out: one message to the plugin's process
(vedette/compat/_event_watcher_child.py) with the event as a watch of the object's own API gives it: `ADDED`, `MODIFIED` or
`DELETED`, and the object under the resourceVersion that it has there, without Vedette's annotations. The message that comes back
is logged at its level, and is the outcome of the delivery. A plugin that raises has failed: the call is made again.
"""

from __future__ import annotations

import logging

import msgspec

from vedette.errors import GiveUp
from vedette.handlers._target import excerpt
from vedette.kit.secret import Secret
from vedette.kit.units import FilePath
from vedette.model.fold import ORIGIN_VERSION
from vedette.ports import Context, Event, HandlerNeeds, JsonObject, WorkerCode

CHILD = "vedette.compat._event_watcher_child"
LONGEST = 8_192
"""Characters of a message that are logged; the rest is cut off."""
OURS = "vedette.dev/"
"""How the annotations begin that no plugin sees."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one plugin of the OpenShift Event Watcher."""

    plugin: str = "simple"
    """`dns` is the module `plugin_dns`. Shipped: `simple`, `dns`, `ipa`."""
    folders: tuple[FilePath, ...] = ()
    """Folders with plugins of your own, `plugin_<name>/__init__.py` or `plugin_<name>.py`; they go before the shipped ones."""
    config: dict[str, Secret] = {}
    """What the plugin is given as its `config`: the section `[plugin_<name>]` of an ini file. All of it is kept as secret."""
    k8s_endpoint: str = ""
    """What the plugin finds in `watcher.config`: the API, as `host:port`."""
    k8s_namespace: str = ""
    """The namespace."""
    k8s_token: Secret = Secret()
    """The token."""
    k8s_token_file: FilePath = ""
    """A file with the token instead; read each time that a plugin asks."""
    k8s_ca: FilePath = ""
    """The cluster's CA, a PEM file."""

    def __post_init__(self) -> None:
        if not f"plugin_{self.plugin}".isidentifier():
            raise ValueError("plugin: wants the name behind plugin_, such as simple")
        if self.k8s_token and self.k8s_token_file:
            raise ValueError("k8s_token: give one of k8s_token and k8s_token_file")


class _Said(msgspec.Struct):
    """What comes back from the process."""

    message: str
    level: str


_said = msgspec.json.Decoder(_Said).decode


def code(name: str, options: Options) -> WorkerCode:
    """What the plugin's process runs."""
    return WorkerCode(
        name=name,
        module=CHILD,
        options={
            "plugin": options.plugin,
            "folders": list(options.folders),
            "config": {key: value.reveal() for key, value in options.config.items()},
            "k8s_endpoint": options.k8s_endpoint,
            "k8s_namespace": options.k8s_namespace,
            "k8s_token": options.k8s_token.reveal(),
            "k8s_token_file": options.k8s_token_file,
            "k8s_ca": options.k8s_ca,
        },
    )


def build(options: Options, needs: HandlerNeeds) -> EventWatcherHandler:
    """The handler; the plugin's process starts with the first call."""
    return EventWatcherHandler(options, needs)


class EventWatcherHandler:
    """See the module. One plugin."""

    def __init__(self, options: Options, needs: HandlerNeeds) -> None:
        self._log = logging.getLogger(f"vedette.handlers.event_watcher.plugin_{options.plugin}")
        self._worker = needs.worker(code(needs.name, options))

    async def handle(self, event: Event, context: Context) -> str | None:
        """Raises what the plugin raised; GiveUp for what is no change of an object."""
        if event.key is None or not event.verb:
            raise GiveUp("this is no change of an object: give the handler `kinds` or `verbs` in its `on`")
        message = {
            "event": {"type": event.verb, "object": at_origin(event.object)},
            "old": at_origin(event.old) if event.verb == "MODIFIED" and event.old else None,
        }
        said = _said(await self._worker.call(msgspec.json.encode(message), context.timeout))
        if not said.message:
            return None
        # On one line: a plugin puts into it what people call their objects.
        self._log.log(logging.getLevelNamesMapping()[said.level], "%s", excerpt(said.message, LONGEST))
        return excerpt(said.message)

    async def close(self) -> None:
        await self._worker.close()


def at_origin(found: JsonObject) -> JsonObject:
    """An object as its own API has it, in its order of keys; one of OpenStack keeps Vedette's resourceVersion."""
    said = found.get("metadata")
    metadata = dict(said) if isinstance(said, dict) else {}
    annotations = metadata.pop("annotations", None)
    if isinstance(annotations, dict):
        if origin := annotations.get(ORIGIN_VERSION):
            metadata["resourceVersion"] = origin
        if theirs := {name: value for name, value in annotations.items() if not name.startswith(OURS)}:
            metadata["annotations"] = theirs
    head: JsonObject = {name: found[name] for name in ("kind", "apiVersion") if name in found}
    return {**head, "metadata": metadata, **{name: value for name, value in found.items() if name not in (*head, "metadata")}}
