"""Pool members, from neutron-lbaas's `member.*.end` and from Octavias that announce `octavia.member.*.end`; Octavia's own does
not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from vedette.errors import NotFound
from vedette.kinds._balance import SERVICE, TRANSIENT_FIELDS, proof, references, transient
from vedette.kinds._balance_scan import SCAN
from vedette.kinds._octavia import MEMBER, in_pool, members_of
from vedette.model.paths import segment
from vedette.model.reading import Reading
from vedette.ports import Api, Cloud, Column, Kind


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
            yield await members_of(cloud, pool)


async def some(cloud: Cloud, ids: Sequence[str]) -> Sequence[Reading]:
    """Two requests, where they are in one pool."""
    wanted = frozenset(ids)
    pools = [pool async for page in _pools(cloud, wanted) for pool in page] if wanted else []
    return [one for pool in pools for one in await members_of(cloud, pool) if one.id in wanted]


async def get(cloud: Cloud, id_: str) -> Sequence[Reading]:
    """The API has a member under its pool only: which one that is, the list of pools says."""
    async for pools in _pools(cloud, frozenset((id_,))):
        for pool in pools:
            answer = await cloud.get(SERVICE, f"/lbaas/pools/{segment(pool)}/members/{segment(id_)}")
            reading = MEMBER.shown(answer.body.get("member"), answer.as_of)
            return () if reading is None else (in_pool(reading, pool),)
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
    fields=MEMBER.fields,
    columns=(
        Column("Member-Name", ("name",)),
        Column("Address", ("address",)),
        Column("Port", ("protocol_port",), "integer"),
        Column("Operating", ("operating_status",)),
        Column("Weight", ("weight",), "integer", priority=1),
        Column("Pool", ("pool_id",), priority=1),
    ),
)
