"""A place is found by the same rule as everywhere: what `Room.takes` says of each host, in their order."""

from __future__ import annotations

import random

from small_clouds import host, server

from vedette.model.snapshot import Snapshot
from vedette.strategies._evacuate import Room
from vedette.strategies._measured import first_that_takes


def test_the_first_host_that_takes_a_server_is_the_one_that_room_says() -> None:
    rng = random.Random(5)
    answers: set[str] = set()
    for _ in range(500):
        hosts = [
            host(name, zone=rng.choice("ew"), vcpus=rng.randrange(4), memory=rng.randrange(4), disk=rng.randrange(4))
            for name in "abcd"
        ]
        some = [server(f"s{i}", rng.choice("abcd"), memory=rng.randrange(3), disk=rng.randrange(3)) for i in range(4)]
        room = Room(Snapshot(revision=1, hosts=tuple(hosts), servers=tuple(some)))
        one = server(
            "new",
            "",
            vcpus=rng.randrange(3),
            memory=rng.randrange(3),
            disk=rng.randrange(3),
            pinned_zone=rng.choice(["", "e", "w"]),
        )
        found = first_that_takes(hosts, one, room)
        assert found == next((each for each in hosts if room.takes(each, one)), None)
        answers.add(found.hostname if found else "")
    assert answers == {"a", "b", "c", "d", ""}
