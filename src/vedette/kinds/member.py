"""Pool members, from neutron-lbaas's `member.*.end` and from Octavias that announce `octavia.member.*.end`; Octavia's own does
not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from msgspec.structs import replace

from vedette.errors import NotFound
from vedette.kinds._balance import PROJECT, SERVICE, STATES, TIMES, TRANSIENT_FIELDS, Balanced, proof, references, transient
from vedette.kinds._balance_scan import SCAN
from vedette.kinds._neutron import segment
from vedette.model.reading import Reading
from vedette.ports import Api, Cloud, Column, Field, Kind

FIELDS = {
    "name": Field("string", "Its name."),
    **PROJECT,
    **STATES,
    "pool_id": Field("string", "Its pool (in the API: part of its URL), where the notice says it."),
    "address": Field("string", "Its address."),
    "protocol_port": Field("integer", "Its port."),
    "subnet_id": Field("string", "The subnet of its address."),
    "weight": Field("integer", "Its share of the requests."),
    "backup": Field("boolean", "Whether it is used only when all others are down."),
    "monitor_address": Field("string", "Where its health is asked, if elsewhere."),
    "monitor_port": Field("integer", "The port where its health is asked, if another."),
    "tags": Field("array", "Its tags."),
    **TIMES,
}

MEMBER = Balanced("Member", "member", FIELDS)


async def of_pool(cloud: Cloud, pool: str) -> Sequence[Reading]:
    """A pool's members; none when it is gone."""
    path = f"/lbaas/pools/{segment(pool)}/members"
    try:
        return [
            _in_pool(one, pool)
            async for page in cloud.pages(SERVICE, path, "members")
            for one in MEMBER.all_shown(page.items, page.as_of)
        ]
    except NotFound:
        return ()


def _in_pool(reading: Reading, pool: str) -> Reading:
    return replace(reading, fields={**reading.fields, "pool_id": pool})


async def _pools(cloud: Cloud, ids: frozenset[str] | None = None) -> AsyncIterator[list[str]]:
    """The pools that have members, or one of these members."""
    params = (("fields", "id"), ("fields", "members"))
    async for page in cloud.pages(SERVICE, "/lbaas/pools", "pools", params):
        yield [
            item["id"]
            for item in page.items
            if isinstance(item.get("id"), str)
            and (members := references(item, "members"))
            and (ids is None or not ids.isdisjoint(members))
        ]


async def list_(cloud: Cloud) -> AsyncIterator[Sequence[Reading]]:
    async for pools in _pools(cloud):
        for pool in pools:
            yield await of_pool(cloud, pool)


async def some(cloud: Cloud, ids: Sequence[str]) -> Sequence[Reading]:
    """Two requests, where they are in one pool."""
    wanted = frozenset(ids)
    pools = [pool async for page in _pools(cloud, wanted) for pool in page] if wanted else []
    return [one for pool in pools for one in await of_pool(cloud, pool) if one.id in wanted]


async def get(cloud: Cloud, id_: str) -> Sequence[Reading]:
    """The API has a member under its pool only: which one that is, the list of pools says."""
    async for pools in _pools(cloud, frozenset((id_,))):
        for pool in pools:
            answer = await cloud.get(SERVICE, f"/lbaas/pools/{segment(pool)}/members/{segment(id_)}")
            reading = MEMBER.shown(answer.body.get("member"), answer.as_of)
            return () if reading is None else (_in_pool(reading, pool),)
    raise NotFound(f"no pool has a member {id_}")


KIND = Kind(
    kind="Member",
    plural="members",
    singular="member",
    doc="A member of a load balancer's pool: a server behind it.",
    events=("octavia.member.*.end", "member.*.end"),
    read=MEMBER.balance_reader(),
    api=Api(
        service=SERVICE,
        list=list_,
        get=get,
        some=some,
        proof=proof("pools"),
        # It costs a request for each pool.
        seldom=True,
        transient=transient,
        transient_fields=TRANSIENT_FIELDS,
        scan=SCAN,
    ),
    fields=FIELDS,
    columns=(
        Column("Member-Name", ("name",)),
        Column("Address", ("address",)),
        Column("Port", ("protocol_port",), "integer"),
        Column("Operating", ("operating_status",)),
        Column("Weight", ("weight",), "integer", priority=1),
        Column("Pool", ("pool_id",), priority=1),
    ),
)
