"""What a worker process and the service say to each other, and where handlers are found: without any process."""

from __future__ import annotations

import socket
import threading
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vedette import plugins
from vedette.errors import ConfigError, NotUnderstood
from vedette.kit.allowance import Allowance
from vedette.model.frames import MAX_UP, Call, Done, Log, Raised, Ready, Recall, Recalled, Start, frames_down, frames_up, pack
from vedette.model.notice import Notice
from vedette.model.reading import Key
from vedette.ports import Event
from vedette.worker import AsyncContext, BlockingContext, Link

UP = [Ready(1, False), Done(1, msgspec.Raw(b'{"a":1}')), Raised(2, "try_later", "later", 3.5), Log(20, "dns", "é")]
DOWN = [Start("n", "m", {"a": 1}, ("/p",), 2, 0), Call(7, 30.0, msgspec.Raw(b"[1]")), Recalled(1, msgspec.Raw(b"null"))]


@given(st.lists(st.sampled_from(UP), max_size=8), st.data())
def test_frames_come_out_as_they_went_in_wherever_the_bytes_were_cut(frames: list[Any], data: st.DataObject) -> None:
    sent = b"".join(map(pack, frames))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=10)))
    unpacker, came = frames_up(), []
    for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True):
        came += unpacker.feed(sent[start:end])
    assert [pack(frame) for frame in came] == [pack(frame) for frame in frames]


def test_frames_to_the_process_come_out_as_they_went_in() -> None:
    came = frames_down().feed(b"".join(map(pack, DOWN)))
    assert [pack(frame) for frame in came] == [pack(frame) for frame in DOWN]


@given(st.binary(max_size=300))
def test_garbage_gives_nothing_or_is_not_understood(data: bytes) -> None:
    for unpacker in (frames_up(), frames_down()):
        for framed in (data, len(data).to_bytes(4, "big") + data):
            try:
                assert unpacker.feed(framed) == []
            except NotUnderstood:
                break


def test_a_frame_that_says_it_is_too_large_is_refused_before_it_is_there() -> None:
    with pytest.raises(NotUnderstood, match="more than"):
        frames_up().feed((MAX_UP + 1).to_bytes(4, "big"))


@pytest.mark.parametrize(
    "inside", [b'{"type":"Done","number":1,"answer":%b}', b'{"type":"Log","level":1,"logger":"","text":"","x":%b}']
)
def test_a_frame_that_is_nested_without_end_is_not_understood(inside: bytes) -> None:
    frame = inside % (b"[" * 30_000 + b"]" * 30_000)
    with pytest.raises(NotUnderstood):
        frames_up().feed(len(frame).to_bytes(4, "big") + frame)


def test_a_frame_of_the_other_direction_is_not_understood() -> None:
    with pytest.raises(NotUnderstood):
        frames_up().feed(pack(DOWN[1]))


def test_an_event_is_the_same_behind_the_pipe() -> None:
    notice = Notice(id="1", source="one", event_type="port.update.end", sent_at=5, payload=msgspec.Raw(b'{"port":{"id":"p"}}'))
    for key in (Key("one", "g", "Port", "p"), None):
        event = Event(
            handler="h",
            idempotency_key="h/7",
            revision=7,
            attempt=2,
            verb="MODIFIED" if key else "",
            key=key,
            notice=notice,
            appended_at=6,
            raw_object=msgspec.Raw(b'{"a":1}'),
        )
        call = frames_down().feed(pack(Call(1, 30.0, msgspec.Raw(msgspec.json.encode(event)))))[0]
        assert isinstance(call, Call)
        back = msgspec.json.decode(call.message, type=Event)
        assert msgspec.json.encode(back) == msgspec.json.encode(event)
        assert (back.object, back.old, back.payload, back.key) == ({"a": 1}, {}, {"port": {"id": "p"}}, key)


# --- the process' own end of the pipe


def test_a_question_is_answered_to_the_one_who_asked() -> None:
    ours, theirs = socket.socketpair()
    gone = threading.Event()
    with ours, theirs:
        link = Link(theirs, gone.set)
        reader = threading.Thread(target=link.read, args=(lambda batch: None,))
        reader.start()
        context = BlockingContext(link, Call(5, 30.0, msgspec.Raw(b"1")))
        answers: list[Any] = []
        asker = threading.Thread(target=lambda: answers.append(context.recall("seen")))
        asker.start()
        asked = frames_up().feed(ours.recv(4096))[0]
        assert isinstance(asked, Recall)
        assert (asked.call, asked.name) == (5, "seen")
        ours.sendall(pack(Recalled(asked.number + 1, msgspec.Raw(b"9"))) + pack(Recalled(asked.number, msgspec.Raw(b"[1]"))))
        asker.join()
        assert answers == [[1]]
        assert not gone.is_set()
        ours.shutdown(socket.SHUT_RDWR)
        reader.join()
    assert gone.is_set()


@given(st.binary(max_size=200))
def test_a_service_that_sends_garbage_is_taken_for_gone(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    gone = threading.Event()
    with ours, theirs:
        ours.sendall(data)
        ours.shutdown(socket.SHUT_RDWR)
        Link(theirs, gone.set).read(lambda batch: None)
    assert gone.is_set()


def test_what_can_not_be_kept_is_refused_where_it_is_remembered() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        context = AsyncContext(Link(theirs, lambda: None), Call(5, 30.0, msgspec.Raw(b"1")))
        with pytest.raises(ValueError, match="at most"):
            context.remember("much", "x" * 70_000)
        with pytest.raises(TypeError):
            context.remember("odd", object())
        context.remember("fine", {"a": [1]})
        assert context.remembered == {"fine": {"a": [1]}}


def test_an_allowance_is_refilled_evenly_and_counts_what_it_refused() -> None:
    allowance = Allowance(rate=2, burst=3)
    assert [allowance.take(10.0) for _ in range(5)] == [True, True, True, False, False]
    assert [allowance.take(10.5), allowance.take(10.5)] == [True, False]
    assert allowance.forgive() == 3
    assert [allowance.take(100.0) for _ in range(4)] == [True, True, True, False]


# --- where handlers are found


def test_shipped_handlers_those_of_a_folder_and_of_packages_are_found_without_importing_them(tmp_path: Path) -> None:
    (tmp_path / "greet.py").write_text("raise RuntimeError\n")
    (tmp_path / "wave").mkdir()
    (tmp_path / "wave" / "__init__.py").write_text("raise RuntimeError\n")
    for ignored in ("_shared.py", "not-a-name.py", "notes.txt"):
        (tmp_path / ignored).write_text("")
    (tmp_path / "data").mkdir()
    installed = [EntryPoint("bow", "manners.bow:Bow", plugins.ENTRY_POINTS)]
    found = {one.name: one for one in plugins.handlers(str(tmp_path), installed)}
    assert set(found) - set(plugins.names("handlers")) == {"greet", "wave", "bow"}
    assert (found["greet"].kind, found["greet"].module) == ("folder", str(tmp_path / "greet.py"))
    assert (found["wave"].kind, found["wave"].module) == ("folder", str(tmp_path / "wave"))
    assert (found["bow"].kind, found["bow"].module) == ("entry_point", "manners.bow:Bow")
    assert all(one.kind == "shipped" for name, one in found.items() if name in plugins.names("handlers"))


def test_two_handlers_of_one_name_are_refused_and_both_are_named(tmp_path: Path) -> None:
    (tmp_path / "greet.py").write_text("")
    with pytest.raises(ConfigError, match=r"'greet': .*greet\.py and an installed package \(manners:greet\)"):
        plugins.find_handler("greet", str(tmp_path), [EntryPoint("greet", "manners:greet", plugins.ENTRY_POINTS)])
    (tmp_path / "greet").mkdir()
    (tmp_path / "greet" / "__init__.py").write_text("")
    with pytest.raises(ConfigError, match="two handlers are called 'greet'"):
        plugins.handlers(str(tmp_path), [])


def test_a_name_that_nobody_has_is_refused_with_those_that_are_near(tmp_path: Path) -> None:
    (tmp_path / "greet.py").write_text("")
    with pytest.raises(ConfigError, match=r"no handler is called 'gret'; did you mean 'greet'\?"):
        plugins.find_handler("gret", str(tmp_path), [])
    with pytest.raises(ConfigError, match=r"^plugins\.folder: can't be read as a folder"):
        plugins.find_handler("greet", str(tmp_path / "none"), [])
