"""Speaks to a Kubernetes or OpenShift API: list, watch, get, create, patch, delete, and which resource a word means.

In: a way to get in (`static`, `kubeconfig`, `in_cluster`). Out: pages of raw items, watch lines of which only the type and the
metadata are read, whole objects as JSON. sources/kubernetes.py follows with it, handlers write with it. What a list or a watch
means, and what to do after an error, is not decided here; every error of the API is one of ours.

https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any, Literal, TypeVar
from urllib.parse import quote, urlsplit

import aiohttp
import msgspec

from vedette.errors import (
    BadRequest,
    CloudUnavailable,
    ConfigError,
    Conflict,
    Expired,
    Forbidden,
    NotFound,
    NotUnderstood,
    Unauthenticated,
    VedetteError,
)
from vedette.kit.clock import Clock
from vedette.kit.log import kv
from vedette.kit.secret import Secret
from vedette.kit.tasks import cancel
from vedette.ports import JsonObject

log = logging.getLogger("vedette.clients.kubernetes")

LARGEST_LINE = 8 * 1024 * 1024
"""Bytes of one line of a watch. etcd keeps no object above 1.5 MiB; a longer line ends the watch."""
LARGEST_ANSWER = 256 * 1024 * 1024
"""Bytes of one answer that is no watch: a page of 500 of the largest objects."""
LARGEST_STATUS = 256 * 1024
"""Bytes of an error's body that are read."""
LARGEST_FILE = 1024 * 1024
"""Bytes of a token or certificate file."""
TOKEN_SECONDS = 60.0
"""A token file is read again when it was read this long ago: kubelets replace it about every 50 minutes."""
KUBECONFIG_SECONDS = 600.0
"""The same for a kubeconfig as a whole."""
EXPIRY_SECONDS = 60.0
"""A kubeconfig's token that ends this soon is asked for anew."""
PAGE = 500
"""Items of one page of a list."""
READ_BUFFER = 512 * 1024
"""Bytes of a stream that wait in memory (twice that at the most); then the server is no longer read from."""
PARALLEL = 8
"""API groups asked at one time for what they serve."""
MOST_GROUPS = 500
"""API groups looked at; a large OpenShift has about 120."""

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds who it is."""

NO_TOKEN = Secret()

Patch = Literal["strategic", "merge", "json"]
Params = Mapping[str, str]

_PATCH_TYPES = {
    "strategic": "application/strategic-merge-patch+json",
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    # JSON is YAML.
    "apply": "application/apply-patch+yaml",
}
_encode = msgspec.json.Encoder().encode
_Form = TypeVar("_Form")


# --- who we are there ------------------------------------------------------------------------------------------------------


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """How to get in: where, and as whom. Certificates are always verified."""

    server: str
    """`https://host:6443`, also with a path behind it."""
    authorization: Secret = Secret()
    """The whole header, e.g. `Bearer …`; empty: none."""
    ca_file: str = ""
    """What to trust instead of the system's certificates."""
    ca_data: str = ""
    """The same as PEM text."""
    cert_file: str = ""
    key_file: str = ""
    """A client certificate."""
    tls_name: str = ""
    """The name that the server's certificate is held against, where it isn't the server's."""
    proxy: str = ""
    namespace: str = ""
    """The one that is meant when none is said."""
    expires_at: int = 0
    """UTC microseconds; ask again before. 0: not known."""
    keep_s: float = TOKEN_SECONDS
    """Ask again after so long."""


Enter = Callable[[], Awaitable[Access]]
"""Gives the access as it is now: files are read, a kubeconfig's program is run. Asked again when a token file is due, before an
expiry, and at once after a 401. Raises ConfigError."""


def static(
    server: str, *, token: Secret = NO_TOKEN, token_file: str = "", ca_file: str = "", ca_data: str = "", namespace: str = ""
) -> Enter:
    """An address, a token (or a file with one, read again as it is replaced), a CA. Raises ConfigError."""
    server = _server(server)

    async def enter() -> Access:
        text = (await asyncio.to_thread(_read, Path(token_file), "the token")).strip() if token_file else token.reveal()
        return Access(server=server, authorization=_bearer(text), ca_file=ca_file, ca_data=ca_data, namespace=namespace)

    return enter


def in_cluster(folder: Path = ACCOUNT, environ: Mapping[str, str] = os.environ) -> Enter:
    """What a pod is given: its service account's files, and the API's address in its environment."""

    async def enter() -> Access:
        host, port = environ.get("KUBERNETES_SERVICE_HOST", ""), environ.get("KUBERNETES_SERVICE_PORT", "443")
        if not host:
            raise ConfigError("KUBERNETES_SERVICE_HOST is not set: this is not a pod; give `server` or `kubeconfig`")
        token = (await asyncio.to_thread(_read, folder / "token", "the service account's token")).strip()
        namespace = ""
        with suppress(ConfigError):
            namespace = (await asyncio.to_thread(_read, folder / "namespace", "the namespace")).strip()
        return Access(
            server=f"https://{f'[{host}]' if ':' in host else host}:{port}",
            authorization=_bearer(token),
            ca_file=str(folder / "ca.crt"),
            namespace=namespace,
        )

    return enter


def kubeconfig(path: str = "", context: str = "") -> Enter:
    """A kubeconfig ("": what KUBECONFIG names, else ~/.kube/config) and one of its contexts ("": the current one), with
    everything that kubernetes_asyncio understands: tokens, certificates, programs that give one (exec), OIDC."""

    async def enter() -> Access:
        # Half a second of imports: not in the event loop, and only for who needs it.
        loading = await asyncio.to_thread(importlib.import_module, "kubernetes_asyncio.config.kube_config")
        where = path or os.environ.get("KUBECONFIG", "") or str(Path.home() / ".kube" / "config")
        found: Any = SimpleNamespace(api_key={}, host="", verify_ssl=True)
        try:
            loader = await loading.load_kube_config(
                config_file=where, context=context or None, client_configuration=found, persist_config=False
            )
        except Exception as why:  # noqa: BLE001 - whatever a file of somebody else's makes of the loader; told without its text
            raise ConfigError(f"the kubeconfig {where} can't be used: {_said(why)}") from None
        if not found.verify_ssl:
            raise ConfigError(
                f"the kubeconfig {where} says insecure-skip-tls-verify: certificates are always verified here; "
                "name the cluster's CA (certificate-authority) instead"
            )
        expiry = getattr(loader, "exec_plugin_expiry", None)
        current = loader.current_context or {}
        return Access(
            server=_server(found.host),
            authorization=Secret(found.api_key.get("BearerToken", "")),
            ca_file=getattr(found, "ssl_ca_cert", None) or "",
            cert_file=getattr(found, "cert_file", None) or "",
            key_file=getattr(found, "key_file", None) or "",
            tls_name=getattr(found, "tls_server_name", None) or "",
            proxy=getattr(found, "proxy", None) or "",
            namespace=str(current.get("context", {}).get("namespace") or ""),
            expires_at=0 if expiry is None else int(expiry.timestamp() * 1_000_000),
            # A program may have to be run for it: seldom. A token that is refused is asked for anew at once.
            keep_s=KUBECONFIG_SECONDS,
        )

    return enter


def _said(why: Exception) -> str:
    """Our words for what the loader raised; its own text may quote the file, with what is secret in it."""
    name = type(why).__name__
    return str(why) if name == "ConfigException" or isinstance(why, OSError) else name


def _server(text: str) -> str:
    parts = urlsplit(text if "://" in text else f"https://{text}")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ConfigError("wants an address such as https://api.example.com:6443", path="server")
    return parts.geturl().rstrip("/")


def _bearer(token: str) -> Secret:
    if any(not "\x21" <= one <= "\x7e" for one in token):
        raise ConfigError("the token has characters that no token has (a line end in its middle?)")
    return Secret(f"Bearer {token}" if token else "")


def _read(path: Path, what: str) -> str:
    try:
        with path.open("rb") as file:
            return file.read(LARGEST_FILE).decode()
    except (OSError, UnicodeDecodeError) as why:
        raise ConfigError(f"{what} in {path} can't be read: {getattr(why, 'strerror', None) or why}") from None


# --- resources -------------------------------------------------------------------------------------------------------------


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """One resource of one version of one group, as discovery says it."""

    group: str = ""
    """"" is the core group."""
    version: str
    plural: str
    kind: str
    namespaced: bool
    singular: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()
    root: str = ""
    """`/oapi/v1` of an OpenShift 3; else it follows from group and version."""

    @property
    def name(self) -> str:
        """`routes.route.openshift.io/v1`, `pods/v1`."""
        return f"{self.plural}.{self.group}/{self.version}" if self.group else f"{self.plural}/{self.version}"

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Under the server. A namespace is left out where the resource has none."""
        parts = [self.root or (f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}")]
        if namespace and self.namespaced:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        parts += [quote(part, safe="") for part in (name, subresource) if part]
        return "/".join(parts)


class _Listed(msgspec.Struct):
    """An APIResource. `group` and `version` only where they aren't the list's."""

    name: str
    kind: str
    namespaced: bool = False
    singularName: str = ""
    shortNames: tuple[str, ...] | None = None
    categories: tuple[str, ...] | None = None
    verbs: tuple[str, ...] | None = None


class _Resources(msgspec.Struct):
    groupVersion: str = ""
    resources: list[_Listed] = []


class _Version(msgspec.Struct):
    version: str


class _Group(msgspec.Struct):
    name: str
    versions: list[_Version] = []
    preferredVersion: _Version | None = None


class _Groups(msgspec.Struct):
    groups: list[_Group] = []


class _Verdict(msgspec.Struct):
    allowed: bool = False


class _AccessReview(msgspec.Struct):
    status: _Verdict = msgspec.field(default_factory=_Verdict)


class _User(msgspec.Struct):
    username: str = ""


class _Reviewed(msgspec.Struct):
    userInfo: _User = msgspec.field(default_factory=_User)


class _SelfReview(msgspec.Struct):
    status: _Reviewed = msgspec.field(default_factory=_Reviewed)


# --- lists and watches -----------------------------------------------------------------------------------------------------


class Metadata(msgspec.Struct, gc=False):
    """What is read of every object."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resourceVersion: str = ""
    creationTimestamp: str | None = None
    annotations: msgspec.Raw = msgspec.Raw(b"{}")


class _ObjectHead(msgspec.Struct, gc=False):
    metadata: Metadata = msgspec.field(default_factory=Metadata)


class Line(msgspec.Struct, gc=False):
    """One event of a watch: `ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK` or `ERROR`, and its object's JSON."""

    type: str
    object: msgspec.Raw

    @property
    def metadata(self) -> Metadata:
        """Read each time it is asked for. Raises NotUnderstood."""
        return metadata_of(self.object)


class ListMeta(msgspec.Struct):
    resourceVersion: str = ""
    # CRD lists say `"continue": ""` on the last page, built-in ones leave it out.
    continue_: str = msgspec.field(name="continue", default="")


class Page(msgspec.Struct):
    """Some items of a list; all pages have the first one's resourceVersion."""

    metadata: ListMeta = msgspec.field(default_factory=ListMeta)
    items: list[msgspec.Raw] = []


class _Cause(msgspec.Struct):
    reason: str = ""
    message: str = ""
    field: str = ""


class _Details(msgspec.Struct):
    retryAfterSeconds: float = 0
    causes: list[_Cause] | None = None


class Status(msgspec.Struct):
    """What an API says of a call that failed."""

    message: str = ""
    reason: str = ""
    code: int = 0
    details: _Details | None = None


_line = msgspec.json.Decoder(Line).decode
_head = msgspec.json.Decoder(_ObjectHead).decode
_page = msgspec.json.Decoder(Page).decode
_status = msgspec.json.Decoder(Status, strict=False).decode
_resources = msgspec.json.Decoder(_Resources).decode
_groups = msgspec.json.Decoder(_Groups).decode
_object = msgspec.json.Decoder(JsonObject).decode


def metadata_of(raw: bytes | msgspec.Raw) -> Metadata:
    """Raises NotUnderstood."""
    try:
        return _head(raw).metadata
    except (msgspec.DecodeError, RecursionError) as why:
        raise NotUnderstood(f"not an object with metadata: {why}") from None


def status_of(raw: bytes | msgspec.Raw) -> Status:
    """Of an error's body, or of the object of an ERROR event; empty when it is none."""
    try:
        return _status(raw)
    except (msgspec.DecodeError, RecursionError):
        return Status()


def error(status: Status, *, code: int = 0, delay: float = 0.0, doing: str = "") -> VedetteError:
    """Our error for what the API said; `code` is HTTP's, where there was one."""
    code = code or status.code
    text = f"{doing}: " if doing else ""
    text += status.message or f"the API answered {code}"
    if code == 401:
        return Unauthenticated(f"{text} (the token is refused)")
    if code == 403:
        return Forbidden(text)
    if code == 404:
        return NotFound(text)
    if code == 409:
        return Conflict(text)
    if code == 410:
        return Expired(text)
    if code in (408, 429) or code >= 500 or code == 0:
        said = status.details.retryAfterSeconds if status.details is not None else 0.0
        return CloudUnavailable(text, delay=min(max(delay, said, 1.0), 600.0))
    return BadRequest(text)


class Lines:
    """Splits what arrives into lines; what is behind the last line end waits for the rest."""

    def __init__(self, largest: int = LARGEST_LINE) -> None:
        self._largest = largest
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are complete now; empty ones are left out. Raises NotUnderstood when one is longer than `largest`."""
        *whole, rest = data.split(b"\n")
        if whole:
            if self._parts:
                whole[0] = b"".join((*self._parts, whole[0]))
                self._parts.clear()
                self._size = 0
            if len(data) > self._largest or len(whole[0]) > self._largest:
                for line in whole:
                    self._check(len(line))
        if rest:
            self._parts.append(rest)
            self._size += len(rest)
            self._check(self._size)
        return [line for line in whole if line and not line.isspace()]

    @property
    def waiting(self) -> int:
        """Bytes of a line that has not ended."""
        return self._size

    def _check(self, size: int) -> None:
        if size > self._largest:
            raise NotUnderstood(f"a line of more than {self._largest} bytes")


def decode_line(line: bytes) -> Line:
    """Raises NotUnderstood; its text never quotes the line, which may hold a Secret."""
    try:
        return _line(line)
    except msgspec.ValidationError as why:
        raise NotUnderstood(f"not a watch event: {why}") from None
    except (msgspec.DecodeError, RecursionError):
        raise NotUnderstood("not JSON") from None


class Watching:
    """An open watch. `async with await client.watch(…) as watching: while lines := await watching.lines(): …`"""

    def __init__(self, response: aiohttp.ClientResponse, clock: Clock, inactivity_s: float, doing: str) -> None:
        self._response = response
        self._clock = clock
        self._doing = doing
        self._lines = Lines()
        self._since: float | None = None
        """Since when (monotonic) somebody waits for the server; None: it is we who are slow."""
        self._silent = False
        self._closed = False
        self._look = asyncio.create_task(self._watch(inactivity_s), name="kubernetes: silence") if inactivity_s else None
        self._inactivity_s = inactivity_s

    async def __aenter__(self) -> Watching:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, why: BaseException | None, at: TracebackType | None) -> None:
        await self.close()

    async def lines(self) -> list[bytes]:
        """What has arrived since the last call, at least one line; empty: the server ended the watch, as it does at will.

        Raises CloudUnavailable: cut in the middle, or silent for too long (`silent` says which); NotUnderstood: an endless line.
        """
        while True:
            self._since = self._clock.monotonic()
            try:
                data = await self._response.content.readany()
            except (aiohttp.ClientError, OSError, ValueError) as why:
                if self._silent:
                    raise CloudUnavailable(f"{self._doing}: nothing was heard for {self._inactivity_s:g} s") from None
                raise CloudUnavailable(f"{self._doing}: the stream was cut ({type(why).__name__})") from None
            finally:
                self._since = None
            if not data:
                if self._silent:
                    raise CloudUnavailable(f"{self._doing}: nothing was heard for {self._inactivity_s:g} s")
                if self._lines.waiting:
                    raise CloudUnavailable(f"{self._doing}: the stream was cut in the middle of a line")
                return []
            if found := self._lines.feed(data):
                return found

    @property
    def silent(self) -> bool:
        """Whether it ended because nothing was heard."""
        return self._silent

    async def _watch(self, seconds: float) -> None:
        """Ends the stream when the server says nothing for so long. One task a stream, not a timeout for each read."""
        while True:
            heard = self._clock.monotonic() if self._since is None else self._since
            left = heard + seconds - self._clock.monotonic()
            if left <= 0:
                self._silent = True
                self._response.close()
                return
            await self._clock.sleep(left)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._response.close()
        if self._look is not None:
            await cancel(self._look)


class Kubernetes:
    """One API server, as one account. Made anywhere, used in one event loop; `close` when done.

    Every call raises Unauthenticated (401, also with a token just read), Forbidden (403), NotFound (404), Conflict (409), Expired
    (410), BadRequest (other 4xx), CloudUnavailable (429, 5xx, nobody answers; `delay` is the server's Retry-After where it gave
    one), ConfigError (our own files).
    """

    def __init__(self, enter: Enter, clock: Clock, *, timeout_s: float = 30.0) -> None:
        """`timeout_s`: for connecting, and for each silence of the other side. An answer may take four times as long; watches
        have their own limits."""
        self._enter = enter
        self._clock = clock
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None
        self._access: Access | None = None
        self._entered = 0.0
        self._entering = asyncio.Lock()
        self._tls: ssl.SSLContext | None = None
        self._tls_of: tuple[str, ...] | None = None
        self._dated: tuple[int, int, str] | None = None
        """When the last request was sent and answered (ours, microseconds), and the answer's Date."""

    # --- objects

    async def get(self, resource: Resource, namespace: str, name: str) -> JsonObject:
        return await self._ask("GET", resource.path(namespace, name))

    async def create(self, resource: Resource, namespace: str, body: JsonObject) -> JsonObject:
        """Raises Conflict when there is one of that name."""
        return await self._ask("POST", resource.path(namespace), body=body)

    async def patch(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        body: Any,
        form: Patch = "merge",
        *,
        subresource: str = "",
    ) -> JsonObject:
        """`strategic` merges lists by their items' keys, where the API knows the type (not for CRDs); `merge` is RFC 7386;
        `json` is RFC 6902, a list of operations."""
        path = resource.path(namespace, name, subresource)
        return await self._ask("PATCH", path, body=body, content_type=_PATCH_TYPES[form])

    async def apply(
        self, resource: Resource, namespace: str, name: str, body: JsonObject, *, manager: str = "vedette", force: bool = False
    ) -> JsonObject:
        """Server-side apply: make it be so, whether it is there or not. Raises Conflict when another manager says otherwise."""
        params = {"fieldManager": manager, "force": "true" if force else "false"}
        return await self._ask("PATCH", resource.path(namespace, name), params, body=body, content_type=_PATCH_TYPES["apply"])

    async def delete(self, resource: Resource, namespace: str, name: str) -> JsonObject:
        """The object, or a Status when it is gone already."""
        return await self._ask("DELETE", resource.path(namespace, name))

    # --- collections

    async def pages(
        self, resource: Resource, namespace: str = "", params: Params | None = None, *, limit: int = PAGE
    ) -> AsyncIterator[Page]:
        """The list, page by page, to its end; `limit` 0: all in one. An error means that it isn't complete; Expired: a page came
        too late, begin again with `limit` 0."""
        asked = dict(params or {})
        if limit:
            asked["limit"] = str(limit)
        while True:
            page = await self.page(resource, namespace, asked)
            yield page
            if not page.metadata.continue_:
                return
            # (The selectors have to be said again; a resourceVersion must not.)
            asked.pop("resourceVersion", None)
            asked.pop("resourceVersionMatch", None)
            asked["continue"] = page.metadata.continue_

    async def page(self, resource: Resource, namespace: str = "", params: Params | None = None) -> Page:
        """One page of a list."""
        raw = await self.request("GET", resource.path(namespace), params)
        try:
            return _page(raw)
        except (msgspec.DecodeError, RecursionError) as why:
            raise CloudUnavailable(f"the list of {resource.name} can't be read: {why}") from None

    async def watch(
        self, resource: Resource, namespace: str = "", params: Params | None = None, *, inactivity_s: float = 70.0
    ) -> Watching:
        """Open a watch; `params` say where from (`resourceVersion`, `sendInitialEvents` …) and for how long (`timeoutSeconds`).
        `inactivity_s`: it is cut when nothing is heard for so long, bookmarks included; 0: never."""
        asked = {"watch": "true", "allowWatchBookmarks": "true", **(params or {})}
        doing = f"watching {resource.name}"
        response = await self._send("GET", resource.path(namespace), asked, stream=True)
        return Watching(response, self._clock, inactivity_s, doing)

    # --- what there is

    async def resolve(self, text: str) -> Resource:
        """The resource that `plural[.group][/version]` means; a kind, a singular or a short name does as well. Without a group:
        the core group's, else the first group's that has it (Routes are route.openshift.io's before anybody else's), else
        OpenShift 3's `/oapi/v1`. Without a version: the one that the API prefers. Raises NotFound."""
        named, _, version = text.partition("/")
        word, _, group = named.partition(".")
        if not word or "/" in version:
            raise BadRequest(f"{text!r} names no resource: write plural.group/version, such as routes.route.openshift.io/v1")
        if group:
            found = await self._in_group(word, group, version)
            if found is not None:
                return found
            raise NotFound(f"the API serves no {text}")
        if version in ("", "v1") and (found := await self._in_list(word, "", "v1")) is not None:
            return found
        found = await self._in_any_group(word, version)
        if found is None and version in ("", "v1"):
            found = await self._in_list(word, "", "v1", root="/oapi/v1")
        if found is None:
            raise NotFound(f"the API serves no {text}: neither in the core group nor in any other")
        return found

    async def served(self) -> list[str]:
        """`plural.group/version` of all there is in the core group, and in each other group's preferred version; a group that
        doesn't answer is left out."""
        groups = await self._every_group()
        versions = [(one.name, (one.preferredVersion or one.versions[0]).version) for one in groups if one.versions]
        turns = asyncio.Semaphore(PARALLEL)

        async def ask(group: str, version: str) -> list[str]:
            try:
                async with turns:
                    listed = await self._listed(_root(group, version))
            except VedetteError:
                return []
            plurals = [one.name for one in listed if "/" not in one.name]
            return [f"{plural}.{group}/{version}" if group else f"{plural}/{version}" for plural in plurals]

        answers = await asyncio.gather(*(ask(*one) for one in (("", "v1"), *versions)))
        return [name for names in answers for name in names]

    async def _every_group(self) -> list[_Group]:
        """At most MOST_GROUPS; the core group is none of them."""
        try:
            return _groups(await self.request("GET", "/apis")).groups[:MOST_GROUPS]
        except NotFound:
            return []
        except (msgspec.DecodeError, RecursionError) as why:
            raise CloudUnavailable(f"the API's groups can't be read: {why}") from None

    async def _in_any_group(self, word: str, version: str) -> Resource | None:
        groups = await self._every_group()
        groups.sort(key=lambda one: one.name != "route.openshift.io")
        turns = asyncio.Semaphore(PARALLEL)

        async def ask(group: _Group) -> Resource | VedetteError | None:
            known = [one.version for one in group.versions]
            preferred = group.preferredVersion.version if group.preferredVersion else (known[0] if known else "")
            wanted = version or preferred
            if not wanted or (known and wanted not in known):
                return None
            async with turns:
                try:
                    return await self._in_list(word, group.name, wanted)
                except VedetteError as why:  # an aggregated API that is down hides no other
                    return why

        answers = await asyncio.gather(*(ask(group) for group in groups))
        for answer in answers:
            if isinstance(answer, Resource):
                return answer
        for answer in answers:
            if isinstance(answer, VedetteError):
                raise answer  # it may be in the one that didn't answer
        return None

    async def _in_group(self, word: str, group: str, version: str) -> Resource | None:
        if not version:
            try:
                found = msgspec.json.decode(await self.request("GET", f"/apis/{quote(group, safe='')}"), type=_Group)
            except NotFound:
                return None
            except (msgspec.DecodeError, RecursionError) as why:
                raise CloudUnavailable(f"the API group {group} can't be read: {why}") from None
            versions = [found.preferredVersion] if found.preferredVersion else []
            for one in (*versions, *found.versions):
                if (there := await self._in_list(word, group, one.version)) is not None:
                    return there
            return None
        return await self._in_list(word, group, version)

    async def _in_list(self, word: str, group: str, version: str, *, root: str = "") -> Resource | None:
        try:
            listed = await self._listed(root or _root(group, version))
        except NotFound:
            return None
        lower = word.lower()
        names: tuple[Callable[[_Listed], Sequence[str]], ...] = (
            lambda one: (one.name,),
            lambda one: (one.singularName.lower(), one.kind.lower()),
            lambda one: one.shortNames or (),
        )
        for of in names:  # a plural goes before a kind, and both before a short name
            for one in listed:
                if "/" not in one.name and lower in of(one):
                    return Resource(
                        group=group,
                        version=version,
                        plural=one.name,
                        kind=one.kind,
                        namespaced=one.namespaced,
                        singular=one.singularName or one.kind.lower(),
                        short_names=one.shortNames or (),
                        categories=one.categories or (),
                        verbs=one.verbs or (),
                        root=root,
                    )
        return None

    async def _listed(self, path: str) -> list[_Listed]:
        try:
            return _resources(await self.request("GET", path)).resources
        except (msgspec.DecodeError, RecursionError) as why:
            raise CloudUnavailable(f"what {path} serves can't be read: {why}") from None

    # --- who we are there, and what we may

    async def may(self, resource: Resource, verb: str, namespace: str = "", name: str = "") -> bool:
        """Whether the account may; `namespace` "": in all of them, `name` "": with every object. As a rule everybody may ask this
        (system:basic-user). https://kubernetes.io/docs/reference/kubernetes-api/authorization-resources/"""
        attributes = {"verb": verb, "group": resource.group, "version": resource.version, "resource": resource.plural}
        attributes |= {"namespace": namespace if resource.namespaced else "", "name": name}
        review = await self._review("authorization.k8s.io", "SelfSubjectAccessReview", {"resourceAttributes": attributes})
        return _reviewed(review, _AccessReview).status.allowed

    async def who(self) -> str:
        """The user that we are there; before Kubernetes 1.28 that can't be asked: NotFound."""
        return _reviewed(
            await self._review("authentication.k8s.io", "SelfSubjectReview", {}), _SelfReview
        ).status.userInfo.username

    async def _review(self, group: str, kind: str, spec: JsonObject) -> bytes:
        body = {"apiVersion": f"{group}/v1", "kind": kind, **({"spec": spec} if spec else {})}
        return await self.request("POST", f"/apis/{group}/v1/{kind.lower()}s", body=_encode(body))

    def clock_difference(self) -> float | None:
        """Seconds that the server's clock is ahead of ours, as far as its last answer proves it; 0 where both may be the same,
        None where no answer said what time it is. (A Date has whole seconds, and was written between sending and receiving.)"""
        if self._dated is None:
            return None
        sent, received, date = self._dated
        try:
            theirs = int(parsedate_to_datetime(date).timestamp()) * 1_000_000
        except (ValueError, OverflowError):
            return None
        return (max(0, theirs - received) + min(0, theirs + 1_000_000 - sent)) / 1_000_000

    # --- requests

    async def _ask(
        self, method: str, path: str, params: Params | None = None, *, body: Any = None, content_type: str = "application/json"
    ) -> JsonObject:
        raw = await self.request(method, path, params, None if body is None else _encode(body), content_type)
        try:
            return _object(raw)
        except (msgspec.DecodeError, RecursionError) as why:
            raise CloudUnavailable(f"{method} {path}: the answer can't be read: {why}") from None

    async def request(
        self,
        method: str,
        path: str,
        params: Params | None = None,
        body: bytes | None = None,
        content_type: str = "application/json",
    ) -> bytes:
        """One request; the body of a good answer."""
        doing = f"{method} {path}"
        try:
            async with asyncio.timeout(4 * self._timeout_s):
                response = await self._send(method, path, params, body=body, content_type=content_type)
                try:
                    raw = await _whole(response, LARGEST_ANSWER)
                finally:
                    response.release()
        except TimeoutError:
            raise CloudUnavailable(f"{doing}: no answer in {4 * self._timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as why:
            raise CloudUnavailable(f"{doing}: the answer was cut ({type(why).__name__})") from None
        if raw is None:
            raise CloudUnavailable(f"{doing}: an answer of more than {LARGEST_ANSWER} bytes; ask for smaller pages")
        return raw

    async def _send(
        self,
        method: str,
        path: str,
        params: Params | None = None,
        *,
        body: bytes | None = None,
        content_type: str = "",
        stream: bool = False,
    ) -> aiohttp.ClientResponse:
        """The open response of a good answer. A 401 has the token read anew and the request sent once more."""
        doing = f"{method} {path}"
        for again in (False, True):
            access = await self._known(anew=again)
            response = await self._exchange(access, method, path, params, body, content_type, stream, doing)
            if response.status < 300:
                return response
            try:
                async with asyncio.timeout(self._timeout_s):
                    text = await _whole(response, LARGEST_STATUS) or b""
            except (TimeoutError, aiohttp.ClientError, OSError, ValueError):
                text = b""
            finally:
                response.close()
            if response.status == 401 and not again:
                continue
            delay = self._retry_after(response.headers.get("Retry-After", ""))
            raise error(status_of(text), code=response.status, delay=delay, doing=doing)
        raise AssertionError("unreachable")

    async def _exchange(
        self,
        access: Access,
        method: str,
        path: str,
        params: Params | None,
        body: bytes | None,
        content_type: str,
        stream: bool,
        doing: str,
    ) -> aiohttp.ClientResponse:
        headers = {"Accept": "application/json", "User-Agent": "vedette"}
        if access.authorization:
            headers["Authorization"] = access.authorization.reveal()
        if body is not None:
            headers["Content-Type"] = content_type
        sent = self._clock.now_us()
        try:
            async with asyncio.timeout(self._timeout_s):  # until the headers are here
                response = await self._opened().request(
                    method,
                    access.server + path,
                    params=params,
                    headers=headers,
                    data=body,
                    allow_redirects=False,
                    ssl=self._tls if self._tls is not None else True,
                    server_hostname=access.tls_name or None,
                    proxy=access.proxy or None,
                    timeout=aiohttp.ClientTimeout(
                        total=None, sock_connect=self._timeout_s, sock_read=None if stream else self._timeout_s
                    ),
                    read_bufsize=READ_BUFFER,
                )
            if date := response.headers.get("Date", ""):
                self._dated = (sent, self._clock.now_us(), date)
            return response
        except TimeoutError:
            why = f"no answer in {self._timeout_s:g} s"
        except aiohttp.ClientConnectorCertificateError as refused:
            # The CA file may have been replaced meanwhile.
            self._tls_of = None
            why = f"the server's certificate can't be verified ({refused.certificate_error}); is `ca` the right one?"
        except aiohttp.ClientConnectorError as error_:
            why = str(error_)
        except (aiohttp.ClientError, OSError, ValueError) as error_:
            # (Never its text: aiohttp's own may hold the request.)
            why = type(error_).__name__
        raise CloudUnavailable(f"{doing}: {why}")

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            # No limit: there is one connection for each open watch, and few beside them; callers say how many that are.
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
            )
        return self._session

    async def access(self) -> Access:
        """How we get in now. Raises ConfigError."""
        return await self._known(anew=False)

    async def _known(self, *, anew: bool) -> Access:
        before = self._access
        async with self._entering:
            access = self._access
            now = self._clock.monotonic()
            due = access is None or now - self._entered >= access.keep_s
            ends = (
                access is not None and access.expires_at and access.expires_at - self._clock.now_us() < EXPIRY_SECONDS * 1_000_000
            )
            # (Whoever waited here while another asked anew has a new one.)
            if access is None or due or ends or (anew and access is before):
                try:
                    access = await self._enter()
                except ConfigError:
                    if access is None or anew:
                        raise
                    log.warning("the credentials could not be read again; those known are used", extra=kv(server=access.server))
                self._access, self._entered = access, now
            wants = (access.ca_file, access.ca_data, access.cert_file, access.key_file)
            if wants != self._tls_of:
                self._tls = await asyncio.to_thread(_context, access)
                self._tls_of = wants
                if self._tls is None and urlsplit(access.server).hostname not in ("localhost", "127.0.0.1", "::1"):
                    log.warning(
                        "the API is asked over plain http: its token can be read on the way", extra=kv(server=access.server)
                    )
            return access

    def _retry_after(self, text: str) -> float:
        """Seconds, or a date."""
        if text.isdecimal() and len(text) < 10:
            return float(text)
        try:
            return max(0.0, parsedate_to_datetime(text).timestamp() - self._clock.now_us() / 1_000_000) if text else 0.0
        except (ValueError, OverflowError):
            return 0.0

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


def _root(group: str, version: str) -> str:
    """Where a version of a group is served."""
    return f"/apis/{quote(group, safe='')}/{quote(version, safe='')}" if group else f"/api/{quote(version, safe='')}"


def _reviewed(raw: bytes, form: type[_Form]) -> _Form:
    try:
        return msgspec.json.decode(raw, type=form)
    except (msgspec.DecodeError, RecursionError) as why:
        raise CloudUnavailable(f"the API's review can't be read: {why}") from None


def _context(access: Access) -> ssl.SSLContext | None:
    if access.server.startswith("http:"):
        return None
    what = "ca"
    try:
        context = ssl.create_default_context(cafile=access.ca_file or None, cadata=access.ca_data or None)
        if access.cert_file:
            what = "client certificate"
            context.load_cert_chain(access.cert_file, access.key_file or None)
    except (OSError, ssl.SSLError) as why:
        raise ConfigError(f"the {what} of {access.server} can't be used: {why.strerror or why}") from None
    return context


async def _whole(response: aiohttp.ClientResponse, most: int) -> bytes | None:
    """The body; None when it is larger."""
    parts: list[bytes] = []
    left = most
    async for part in response.content.iter_any():
        parts.append(part)
        left -= len(part)
        if left < 0:
            response.close()
            return None
    return b"".join(parts)
