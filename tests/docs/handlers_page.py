"""docs/handlers.md, from the handlers' own words and options. `python tests/docs/handlers_page.py` writes it; a test compares."""

from __future__ import annotations

import inspect
from pathlib import Path

import config_page
import msgspec

from vedette import plugins

PAGE = Path(__file__).parents[2] / "docs" / "handlers.md"

HEAD = """# Handlers

Written by `python tests/docs/handlers_page.py` from `src/vedette/handlers/`; a test keeps it so.

A handler is called for events: `use` names one of those below (or a plugin of your own), `on` says for which events, `options`
are the tables of this page. What else a handler has (`retry`, `timeout`, `concurrency`, `window`, …) is in
[configuration.md](howto/configuration.md).

```yaml
handlers:
  - name: cmdb
    use: http
    on: {kinds: [port], when: "'status.host' in changed"}
    options:
      url: https://cmdb.example.org/ports/{key.id}
      method: PUT
      token: ${CMDB_TOKEN}
  - name: chat
    use: http
    on: {kinds: [server], when: "object.status.status == 'ERROR'"}
    options:
      url: https://chat.example.org/hooks/ops
      body: '{{"text": "{object.status.name} is in ERROR: {object.status.fault.message}"}}'
  - name: operators
    use: mail
    on: {types: ["compute.instance.*.error"]}
    options: {host: mail.example.org, sender: vedette@example.org, recipients: [ops@example.org]}
  - name: bus
    use: amqp
    on: {kinds: [server, port]}
    options: {amqp: "amqps://site@rabbit.example.org/site", exchange: site, routing_key: "{key.kind}.{event.verb}"}
  - name: script
    use: exec
    on: {kinds: [floatingip], verbs: [ADDED, DELETED]}
    options: {command: [logger, -t, vedette, --, "{event.verb} {object.status.floating_ip_address}"]}
  - name: look
    use: log
    on: {types: ["identity.*"]}
```

## What becomes of a call

Every delivery is made at least once; one that is made again has the same idempotency key (`<handler>/<revision>`), which each
handler passes on. A call ends in one of these ways:

| | then |
|---|---|
| done | a few words of it are kept |
| later | it is tried again with growing waits, or when the target said, up to `retry.attempts` and `retry.deadline` |
| nobody there | the whole handler waits until its target answers again; that is no attempt |
| never | it is a dead letter with its reason, at once |

## What a target gets

Unless `body` says otherwise, the event as a [CloudEvent 1.0](https://cloudevents.io) in structured JSON. A notification is the
same that `GET /v1/events` gives an admin. A change of an object has the type `vedette.object.added`, `.modified` or `.deleted`,
the subject `<kind>/<id>`, the id `<revision>/<kind>/<id>`, the notification's type as `eventtype`, and the object as it is and as
it was: `"data": {"object": …, "old": …}` (`{}` where there is none).

## Templates

Addresses, bodies, subjects, headers, routing keys and arguments are texts with places in braces. They are checked when the
service starts, with the character at which one is wrong.

| | |
|---|---|
| `{object.status.name}` | a path: names, numbers in lists (`fixed_ips.0.ip_address`), quoted names (`object["metadata"]`) |
| `object`, `old` | the object as admins see it, and the state before |
| `event` | its `type`, `source`, `id`, `time`, `verb`, `revision`, `origin`, `priority`, `publisher`, `payload` |
| `event`, too | who asked the service for it: `request_id`, `user`, `project` (of the caller, not of the object) |
| `key` | `source/group/Kind/id`; also `key.source`, `key.group`, `key.kind`, `key.id` |
| `idempotency_key`, `handler` | texts |
| <code>{object&#124;json}</code> | the value as JSON |
| <code>{object.status.name&#124;urlquote}</code> | the value percent-encoded; in an address every value is, unasked |
| `{{` and `}}` | plain braces |

What an event doesn't have is empty, in JSON `null`; where that would be dangerous (an address, a routing key, an argument) it is
a dead letter unless `missing: empty`. No value can leave its place: in an address its segment of the path or its part of the
query, in a header or subject its line, in JSON its value or its string. There is no shell, nothing is called, and nothing is
looked at but JSON.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(section(name) for name in plugins.names("handlers"))])


def section(name: str) -> str:
    """One handler: what its file says of it, and its options."""
    module = plugins.load("handlers", name)
    about = inspect.cleandoc(module.__doc__ or "")
    more = PAGE.parent / "howto" / f"{name}.md"
    tables = [table(module.Options)]
    for path, struct in config_page.structs(module.Options, ""):
        tables += [f"\n### {name}: {path}\n", said(struct), table(struct)]
    see = [f"\nMore: [{more.name}](howto/{more.name})."] if more.exists() else []
    return "\n".join((f"## {name}\n", about, *see, *tables)) + "\n"


def said(struct: type[msgspec.Struct]) -> str:
    return " ".join((inspect.getdoc(struct) or "").split())


def table(struct: type[msgspec.Struct]) -> str:
    rows = [f"| `{key}` | {takes} | {default} | {says} |" for key, takes, default, says in config_page.keys(struct)]
    return "\n".join(("\n| key | takes | default | |\n|---|---|---|---|", *rows))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
