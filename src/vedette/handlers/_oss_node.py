"""What is known of one instance, from a notification and from the cloud's API, and the `node_detail` that is made of it.

handlers/oss.py asks for both. Nothing here asks anybody: `Node`s are put together, the surest first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from vedette.ports import JsonObject


class DetailOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What `node_detail` has that no cloud says, and the names under which a cloud says the rest. Names of metadata keys are
    compared without case, `_` and `-`."""

    iptype: str = "Public"
    """IPType."""
    fixed_iptype: str = ""
    """IPType of an instance that is announced by a fixed address, having no floating one; none: the same."""
    datacenter: str = "KDC"
    """Datacenter."""
    securitydomain: str = "DQT"
    """SecurityDomain."""
    domain: str = ""
    """Put behind host names that have no dot, to make the FQDN."""
    fqdn: str = "FQDN"
    """Key in the instance's metadata that goes before its host name."""
    os: tuple[str, ...] = ("os_name", "os_distro", "os_type")
    """OS: properties of the image; the first that is there."""
    owner: str = "Owner"
    """Owner: a key in the instance's metadata."""
    additionalusers: str = "AdditionalUsers"
    """AdditionalUsers: a key in the instance's metadata; its value is a list with commas."""
    applicationname: str = "ApplicationName"
    """ApplicationName: a key in the instance's metadata."""
    environmentci: str = "EnvironmentCI"
    """EnvironmentCI: a key in the instance's metadata."""
    description: str = "Description"
    """Description: a key in the instance's metadata."""


class Address(msgspec.Struct, frozen=True):
    """One of an instance's addresses."""

    text: str
    version: int
    floating: bool = False


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One instance. None: nobody has said."""

    hostname: str | None = None
    vcpus: int | None = None
    ram: int | None = None
    """MiB"""
    disk: int | None = None
    """GiB"""
    ephemeral: int | None = None
    """GiB"""
    flavor: str | None = None
    """Its flavor's id, to look up what is missing of the sizes."""
    image: str | None = None
    """The image's id; "" when it boots from a volume."""
    properties: Mapping[str, Any] | None = None
    """The image's."""
    metadata: Mapping[str, Any] | None = None
    addresses: tuple[Address, ...] | None = None
    created: str | None = None

    def or_else(self, other: Node) -> Node:
        """What isn't known here, from there."""
        mine, theirs = msgspec.structs.asdict(self), msgspec.structs.asdict(other)
        return Node(**{name: theirs[name] if value is None else value for name, value in mine.items()})

    @property
    def sized(self) -> bool:
        return None not in (self.vcpus, self.ram, self.disk)

    @property
    def whole(self) -> bool:
        """Whether nothing has to be asked for but what its flavor and its image are."""
        known = (self.hostname, self.image, self.metadata, self.addresses, self.created)
        return None not in known and (self.sized or self.flavor is not None)


def from_payload(payload: Mapping[str, Any]) -> Node:
    """From either of Nova's formats."""
    data = payload.get("nova_object.data")
    return _versioned(data) if isinstance(data, dict) else _unversioned(payload)


def _unversioned(said: Mapping[str, Any]) -> Node:
    image = said.get("image_ref_url")
    addresses: tuple[Address, ...] | None = None
    if isinstance(said.get("fixed_ips"), list):
        found: list[Address] = []
        for ip in _dicts(said["fixed_ips"]):
            found += _address(ip.get("address"), ip.get("version"), ip.get("type") == "floating")
            for floating in _dicts(ip.get("floating_ips")):
                found += _address(floating.get("address"), floating.get("version"), True)
        addresses = tuple(found)
    return Node(
        hostname=_text(said.get("hostname")) or _text(said.get("display_name")),
        vcpus=_number(said.get("vcpus")),
        ram=_number(said.get("memory_mb")),
        disk=_number(said.get("root_gb")),
        ephemeral=_number(said.get("ephemeral_gb")),
        flavor=_text(said.get("instance_flavor_id")),
        image=image.rpartition("/")[2] if isinstance(image, str) else None,
        properties=said["image_meta"] if isinstance(said.get("image_meta"), dict) else None,
        metadata=_metadata(said.get("metadata")),
        addresses=addresses,
        created=_text(said.get("created_at")),
    )


def _versioned(said: Mapping[str, Any]) -> Node:
    flavor = said.get("flavor")
    size = flavor.get("nova_object.data") if isinstance(flavor, dict) else None
    size = size if isinstance(size, dict) else {}
    addresses: tuple[Address, ...] | None = None
    if isinstance(said.get("ip_addresses"), list):
        items = (one.get("nova_object.data") for one in _dicts(said["ip_addresses"]))
        addresses = tuple(address for ip in _dicts(items) for address in _address(ip.get("address"), ip.get("version"), False))
    image = said.get("image_uuid")
    return Node(
        hostname=_text(said.get("host_name")) or _text(said.get("display_name")),
        vcpus=_number(size.get("vcpus")),
        ram=_number(size.get("memory_mb")),
        disk=_number(size.get("root_gb")),
        ephemeral=_number(size.get("ephemeral_gb")),
        flavor=_text(size.get("flavorid")),
        image=(image if isinstance(image, str) else "") if "image_uuid" in said else None,
        metadata=_metadata(said.get("metadata")),
        addresses=addresses,
        created=_text(said.get("created_at")),
    )


def from_api(server: Mapping[str, Any]) -> Node:
    """From a server as Nova's API, or the inventory's `status`, shows it."""
    flavor = server.get("flavor")
    flavor = flavor if isinstance(flavor, dict) else {}
    image = server.get("image", msgspec.UNSET)
    addresses: tuple[Address, ...] | None = None
    networks = server.get("addresses")
    if isinstance(networks, dict):
        addresses = tuple(
            address
            for items in networks.values()
            for ip in _dicts(items)
            for address in _address(ip.get("addr"), ip.get("version"), ip.get("OS-EXT-IPS:type") == "floating")
        )
    return Node(
        hostname=_text(server.get("OS-EXT-SRV-ATTR:hostname")) or _text(server.get("name")),
        vcpus=_number(flavor.get("vcpus")),
        ram=_number(flavor.get("ram")),
        disk=_number(flavor.get("disk")),
        ephemeral=_number(flavor.get("ephemeral")),
        flavor=_text(flavor.get("id")),
        image=None if image is msgspec.UNSET else (_text(image.get("id")) or "") if isinstance(image, dict) else "",
        metadata=_metadata(server.get("metadata")),
        addresses=addresses,
        created=_text(server.get("created")),
    )


def from_flavor(flavor: Mapping[str, Any]) -> Node:
    """The sizes, from a flavor as Nova's API, or the inventory, shows it."""
    return Node(
        vcpus=_number(flavor.get("vcpus")),
        ram=_number(flavor.get("ram")),
        disk=_number(flavor.get("disk")),
        ephemeral=_number(flavor.get("OS-FLV-EXT-DATA:ephemeral")),
    )


def operating_system(properties: Mapping[str, Any], options: DetailOptions) -> str:
    """From an image's properties; "" when they don't say."""
    return next((text for name in options.os if (text := _text(properties.get(name)))), "")


def detail(node: Node, options: DetailOptions, *, address: str = "") -> JsonObject:
    """`node_detail` with the seed's keys, in its order. `address`: the floating IP that it is about; "" for the instance itself,
    which has its own floating address, if it has one, else its first fixed one (IPv4 before IPv6)."""
    floating = bool(address)
    if not address:
        there = sorted(node.addresses or (), key=lambda one: (not one.floating, one.version))
        address, floating = (there[0].text, there[0].floating) if there else ("", False)
    metadata = {_plain(name): value for name, value in (node.metadata or {}).items()}

    def said(key: str) -> str:
        return _text(metadata.get(_plain(key))) or ""

    host = said(options.fqdn) or node.hostname or ""
    return {
        "FQDN": f"{host}.{options.domain.strip('.')}" if host and options.domain and "." not in host else host,
        "IP": address,
        "IPType": options.iptype if floating or not options.fixed_iptype else options.fixed_iptype,
        "OS": operating_system(node.properties or {}, options),
        "Storage": (node.disk or 0) + (node.ephemeral or 0),
        "Ram": _gigabytes(node.ram or 0),
        "CPU": node.vcpus or 0,
        "Datacenter": options.datacenter,
        "SecurityDomain": options.securitydomain,
        "Owner": said(options.owner),
        "AdditionalUsers": [user for one in said(options.additionalusers).split(",") if (user := one.strip())],
        "ApplicationName": said(options.applicationname),
        "EnvironmentCI": said(options.environmentci),
        "Description": said(options.description),
        "CreationDate": (node.created or "")[:10],
    }


def _gigabytes(mib: int) -> int | float:
    return mib // 1024 if mib % 1024 == 0 else round(mib / 1024, 2)


def _plain(key: str) -> str:
    return re.sub(r"[\W_]", "", key.casefold())


def _address(text: Any, version: Any, floating: bool) -> list[Address]:
    return [Address(text, 6 if version == 6 or ":" in text else 4, floating)] if isinstance(text, str) and text else []


def _metadata(said: Any) -> Mapping[str, Any] | None:
    """A dict; an empty list in old releases."""
    return said if isinstance(said, dict) else {} if isinstance(said, list) else None


def _dicts(items: Any) -> Iterable[dict[str, Any]]:
    return [one for one in items if isinstance(one, dict)] if isinstance(items, Iterable) and not isinstance(items, str) else []


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
