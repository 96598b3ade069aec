"""Tickets are good once, for half a minute, for one identity; they are few, and nothing kept gives one away."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vedette.api.tickets import Tickets
from vedette.errors import TooBusy, Unauthenticated
from vedette.ports import Identity, Scope
from vedette.testing.clock import FakeClock

TOKEN = "gAAAAABa-real-token"


def identity(key: str = "k1", expires_at: int = 0) -> Identity:
    return Identity(name="ann", scope=Scope(projects=frozenset(("one",))), key=key, expires_at=expires_at)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_a_ticket_is_good_once(clock: FakeClock) -> None:
    tickets = Tickets(clock)
    ticket = tickets.issue(identity(), TOKEN)
    other = tickets.issue(identity("k2"), "another token")
    assert len({ticket, other}) == 2
    assert tickets.redeem(ticket) == (identity(), TOKEN)
    with pytest.raises(Unauthenticated, match="good once"):
        tickets.redeem(ticket)
    assert tickets.redeem(other) == (identity("k2"), "another token")


def test_a_ticket_is_good_for_half_a_minute(clock: FakeClock) -> None:
    tickets = Tickets(clock)
    first, second = tickets.issue(identity(), TOKEN), tickets.issue(identity(), TOKEN)
    clock.tick(29.9)
    assert tickets.redeem(first)
    clock.tick(0.1)
    with pytest.raises(Unauthenticated):
        tickets.redeem(second)
    assert len(tickets) == 0


@pytest.mark.parametrize("made_up", ["", "x", "ü", "\udcff", "x" * 100_000])
def test_no_other_text_is_a_ticket(clock: FakeClock, made_up: str) -> None:
    tickets = Tickets(clock)
    ticket = tickets.issue(identity(), TOKEN)
    for text in (made_up, ticket + made_up + " ", ticket.swapcase()):
        with pytest.raises(Unauthenticated):
            tickets.redeem(text)
    assert tickets.redeem(ticket)


def test_a_ticket_does_not_outlive_its_token(clock: FakeClock) -> None:
    tickets = Tickets(clock)
    ticket = tickets.issue(identity(expires_at=clock.now_us() + 10_000_000), TOKEN)
    clock.tick(10)
    with pytest.raises(Unauthenticated, match="token behind"):
        tickets.redeem(ticket)


def test_tickets_are_few_for_each_and_for_all(clock: FakeClock) -> None:
    tickets = Tickets(clock, most=5, most_each=3)
    mine = [tickets.issue(identity(), TOKEN) for _ in range(3)]
    with pytest.raises(TooBusy, match="of this token"):
        tickets.issue(identity(), TOKEN)
    for _ in range(2):
        tickets.issue(identity("k2"), TOKEN)
    with pytest.raises(TooBusy, match="5 tickets") as full:
        tickets.issue(identity("k3"), TOKEN)
    assert full.value.delay == tickets.life_seconds
    tickets.redeem(mine[0])
    assert tickets.issue(identity(), TOKEN)
    clock.tick(30)
    assert len(tickets) == 0
    for _ in range(3):
        tickets.issue(identity(), TOKEN)


def test_what_is_kept_gives_no_ticket_away(clock: FakeClock) -> None:
    tickets = Tickets(clock)
    ticket = tickets.issue(identity(), TOKEN)
    assert ticket not in str(vars(tickets))
    assert TOKEN not in str(vars(tickets))
    assert TOKEN not in ticket
    with pytest.raises(Unauthenticated) as refused:
        tickets.redeem(ticket + "x")
    assert ticket not in str(refused.value)


@given(st.lists(st.one_of(st.sampled_from(["issue a", "issue b", "redeem", "again"]), st.integers(1, 20)), max_size=60))
def test_never_twice_never_late_never_too_many(steps: list[str | int]) -> None:
    clock = FakeClock()
    tickets = Tickets(clock, most=6, most_each=4)
    out: list[tuple[str, str, float]] = []
    used: list[str] = []
    for step in steps:
        alive = [one for one in out if clock.monotonic() < one[2]]
        if isinstance(step, int):
            clock.tick(step)
        elif step.startswith("issue"):
            key = step[-1]
            room = len(alive) < 6 and sum(one[1] == key for one in alive) < 4
            try:
                ticket = tickets.issue(identity(key), TOKEN)
            except TooBusy:
                assert not room
            else:
                assert room
                out.append((ticket, key, clock.monotonic() + 30))
        elif step == "redeem" and out:
            ticket, key, ends = out.pop(0)
            used.append(ticket)
            if clock.monotonic() < ends:
                assert tickets.redeem(ticket)[0].key == key
            else:
                with pytest.raises(Unauthenticated):
                    tickets.redeem(ticket)
        elif step == "again" and used:
            with pytest.raises(Unauthenticated):
                tickets.redeem(used[0])
    assert len(tickets) == sum(clock.monotonic() < one[2] for one in out)
