"""engine/errands.py on a clock that stands still: what is written, and when, whatever the cloud and the store do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import msgspec
import pytest

from vedette.engine import errands as module
from vedette.engine.errands import GRACE_SECONDS, Errand, Errands
from vedette.engine.records import Records
from vedette.errors import CloudUnavailable, Forbidden, GiveUp, StoreUnavailable, TryLater, Unauthenticated
from vedette.kit.tasks import cancel
from vedette.kit.telemetry import Telemetry
from vedette.model.audit import Action, ActionPlan
from vedette.ports import Action as Kind
from vedette.ports import Cloud, Hands, JsonObject, Ready, Skip, Standing
from vedette.store.memory import MemoryStore
from vedette.testing.clock import FakeClock

ASKER, OURS = cast("Cloud", "the asker's"), cast("Cloud", "ours")


class Lamp:
    """What is switched on. `run`, `look`: what happens at the next one."""

    def __init__(self) -> None:
        self.standing: Standing = "undone"
        self.lag = False
        """It is answered, and begins later."""
        self.trouble: Exception | None = None
        self.after: Standing = "undone"
        """How it stands when there was trouble."""
        self.blind = False
        self.asked = 0
        self.written: list[str] = []
        """The states of the plans when the cloud was asked."""
        self.looked: list[Cloud] = []
        self.states: Callable[[], list[str]] = list

    def kind(self) -> Kind:
        async def check(hands: Hands, given: JsonObject) -> Ready | Skip:
            assert hands.cloud is ASKER
            return Skip("it is on already") if self.standing == "done" else Ready({"was": "off"})

        async def run(hands: Hands, given: JsonObject, before: JsonObject) -> None:
            assert hands.cloud is ASKER
            self.asked += 1
            self.written += self.states()
            if self.trouble is not None:
                self.standing = self.after
                raise self.trouble
            if not self.lag:
                self.standing = "running"
            await hands.wait(self._never, 10.0, "it")
            raise AssertionError("nobody waits while the asker does")

        async def verify(hands: Hands, given: JsonObject, before: JsonObject) -> None:
            assert hands.cloud is OURS
            if self.standing != "done":
                raise GiveUp(f"the lamp is {self.standing}")

        async def look(hands: Hands, given: JsonObject, before: JsonObject) -> Standing:
            self.looked.append(hands.cloud)
            if self.blind:
                raise CloudUnavailable("nobody answers")
            assert before == {"was": "off"}
            return self.standing

        return Kind(name="light", doc="Light", schema={}, check=check, run=run, verify=verify, look=look)

    async def _never(self) -> bool:
        return False


class Place:
    def __init__(self, store: MemoryStore, records: Records, clock: FakeClock) -> None:
        self.store, self.records, self.clock = store, records, clock
        self.lamp = Lamp()
        self.lamp.states = lambda: [one.state for one in records.all(ActionPlan)]
        self.errands = Errands(records, store, {"light": self.lamp.kind()}, lambda: OURS, clock, Telemetry(), timeout=600.0)

    async def ask(self, id_: str = "lamp") -> str:
        return await self.errands.do(Errand(action="light", id=id_, name="hall", by="me"), ASKER)

    def now(self) -> list[tuple[str, str, str | None]]:
        plans = self.records.all(ActionPlan)
        return [(one.state, self.records.actions_of(one.uuid)[0].outcome, one.status_message) for one in plans]


@asynccontextmanager
async def place(records: Records | None = None, store: MemoryStore | None = None) -> AsyncIterator[Place]:
    clock = FakeClock()
    store = store or MemoryStore(clock)
    if records is None:
        records = Records(store, clock, "here")
        await records.load()
    here = Place(store, records, clock)
    task = asyncio.create_task(here.errands.run())
    await asyncio.sleep(0)
    try:
        yield here
    finally:
        await cancel(task)


async def test_it_is_written_down_before_the_cloud_is_asked_and_followed_with_our_own_account() -> None:
    async with place() as here:
        assert await here.ask() == "light hall: asked for"
        assert here.lamp.written == ["ONGOING"]
        assert here.now() == [("ONGOING", "", "light hall")]
        assert "under way since" in await here.ask()
        assert here.lamp.asked == 1
        here.lamp.standing = "done"
        await here.clock.advance(11)
        assert here.now() == [("SUCCEEDED", "done", "light hall")]
        assert set(here.lamp.looked) == {OURS}
        assert await here.ask() == "it is on already"
        assert len(here.now()) == 1, "what is so already is no plan"
        assert here.errands.done_before("light", "lamp")
        assert not here.errands.done_before("light", "another")


async def test_a_refusal_is_told_and_written() -> None:
    async with place() as here:
        here.lamp.trouble = Forbidden("not yours")
        with pytest.raises(Forbidden):
            await here.ask()
        assert here.now() == [("FAILED", "failed", "light hall: not yours")]
        here.lamp.trouble = None
        assert "asked for" in await here.ask()


@pytest.mark.parametrize(
    ("standing", "blind", "told", "end"),
    [
        ("running", False, True, ("SUCCEEDED", "done")),
        ("done", False, True, ("SUCCEEDED", "done")),
        ("undone", False, False, ("FAILED", "failed")),
        ("unsure", False, False, ("FAILED", "unsure")),
        ("running", True, False, ("FAILED", "unsure")),
    ],
)
async def test_without_an_answer_the_cloud_is_looked_at(
    standing: Standing, blind: bool, told: bool, end: tuple[str, str]
) -> None:
    async with place() as here:
        here.lamp.trouble, here.lamp.after, here.lamp.blind = CloudUnavailable("no answer"), standing, blind
        if told:
            assert "asked for" in await here.ask()
        else:
            with pytest.raises(CloudUnavailable):
                await here.ask()
        here.lamp.standing = "done"
        await here.clock.advance(11)
        assert here.now()[0][:2] == end
        assert here.lamp.asked == 1


async def test_what_begins_late_is_waited_for_and_what_never_does_has_failed() -> None:
    async with place() as here:
        here.lamp.lag = True
        await here.ask()
        await here.clock.advance(GRACE_SECONDS - 5)
        assert here.now()[0][0] == "ONGOING"
        here.lamp.standing = "running"
        await here.clock.advance(GRACE_SECONDS)
        assert here.now()[0][0] == "ONGOING"
        here.lamp.standing = "done"
        await here.clock.advance(11)
        assert here.now()[0][0] == "SUCCEEDED"
        here.lamp.standing = "undone"
        await here.ask()
        await here.clock.advance(GRACE_SECONDS + 11)
        assert here.now()[1] == ("FAILED", "failed", "light hall: the lamp is undone")


async def test_what_has_no_end_has_failed_after_its_time() -> None:
    async with place() as here:
        await here.ask()
        await here.clock.advance(601)
        state, outcome, message = here.now()[0]
        assert (state, outcome) == ("FAILED", "unsure")
        assert "after 600 seconds" in str(message)


async def test_a_store_that_takes_nothing_keeps_it_from_being_begun_and_its_end_is_written_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with place() as here:
        well = here.store.append
        down = False

        async def append(*args: Any, **more: Any) -> Any:
            if down:
                raise StoreUnavailable("the disk is full")
            return await well(*args, **more)

        monkeypatch.setattr(here.store, "append", append)
        down = True
        with pytest.raises(StoreUnavailable):
            await here.ask()
        assert here.lamp.asked == 0, "what can't be written down is not begun"
        down = False
        await here.ask()
        down, here.lamp.standing = True, "done"
        await here.clock.advance(11)
        assert here.now()[0][0] == "ONGOING"
        down = False
        await here.clock.advance(60)
        assert here.now()[0][0] == "SUCCEEDED"
        # A refusal whose end can't be written is the cloud's refusal all the same.
        here.lamp.standing, here.lamp.trouble = "undone", Forbidden("no")

        states = here.lamp.states

        def then() -> list[str]:
            nonlocal down
            down = True
            return states()

        here.lamp.states = then
        with pytest.raises(Forbidden):
            await here.ask()
        down = False
        await here.clock.advance(GRACE_SECONDS + 60)
        assert [state for state, *_ in here.now()] == ["SUCCEEDED", "FAILED"]


async def test_after_a_crash_it_is_looked_at_and_nothing_is_asked_for() -> None:
    async with place() as here:
        await here.ask()
        store, records = here.store, here.records
    assert here.now()[0][0] == "ONGOING"
    async with place(records, store) as there:
        there.lamp.standing = "done"
        await there.clock.advance(11)
        assert there.now()[0][:2] == ("SUCCEEDED", "done")
        assert there.lamp.asked == 0
        assert set(there.lamp.looked) == {OURS}


async def test_there_is_a_bound_to_what_is_under_way_and_to_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_UNDER_WAY", 3)
    monkeypatch.setattr(module, "KEPT", 2)
    async with place() as here:
        for number in range(3):
            here.lamp.standing = "undone"
            await here.ask(f"lamp {number}")
        here.lamp.standing = "undone"
        with pytest.raises(TryLater, match="ask again later"):
            await here.ask("one more")
        here.lamp.standing = "done"
        await here.clock.advance(11)
        assert [state for state, *_ in here.now()] == ["SUCCEEDED", "SUCCEEDED"], "the oldest went"
        assert len(here.records.all(Action)) == 2


async def test_one_error_on_the_way_is_no_end() -> None:
    """Our own token hiccups, or the post-condition can't be looked at once: that says nothing of the errand."""
    async with place() as here:
        kind = here.lamp.kind()
        troubles: list[Exception] = [Unauthenticated("our token has ended"), CloudUnavailable("503")]

        async def look(hands: Hands, given: JsonObject, before: JsonObject) -> Standing:
            if troubles and isinstance(troubles[0], Unauthenticated):
                raise troubles.pop(0)
            return here.lamp.standing

        async def verify(hands: Hands, given: JsonObject, before: JsonObject) -> None:
            if troubles:
                raise troubles.pop(0)

        here.errands._actions = {"light": msgspec.structs.replace(kind, look=look, verify=verify)}
        await here.ask()
        here.lamp.standing = "done"
        await here.clock.advance(30)
        assert here.now() == [("SUCCEEDED", "done", "light hall")]
        assert not troubles
