"""Selectors decide as Kubernetes', refuse garbage by BadRequest, and are equal when they mean the same."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vedette.errors import BadRequest
from vedette.model.fold import name_of
from vedette.model.selector import EVERYTHING, LONGEST, MOST_TERMS, Selector, parse

SOURCE = {"vedette.dev/source": "region-one"}
STATUS = {
    "id": "p1",
    "status": "ACTIVE",
    "admin_state_up": True,
    "mtu": 1450,
    "ratio": 1.5,
    "huge": 1e22,
    "description": "",
    "device_id": None,
    "binding:host_id": "node-1",
    "tags": ["web", "a,b=c\\d"],
    "none": [],
    "profile": {},
    "fixed_ips": [{"ip_address": "10.0.0.5", "subnet_id": "s1"}, {"ip_address": "10.0.0.6", "subnet_id": "s2"}],
    "metadata": {"app.example.com/tier": "db", "plain": "x"},
    "deep": {"list": [[{"a": 1}], [{"a": 2}]]},
}


def by_labels(text: str, labels: dict[str, str]) -> bool:
    return parse(text, "").matches("p1", "proj", labels, {})


def by_fields(text: str) -> bool:
    return parse("", text).matches("p1", "proj", SOURCE, STATUS)


@pytest.mark.parametrize(
    ("text", "labels", "held"),
    [
        ("a=x", {"a": "x"}, True),
        ("a==x", {"a": "x"}, True),
        (" a  =  x ", {"a": "x"}, True),
        ("a=x", {"a": "y"}, False),
        ("a=x", {}, False),
        ("a!=x", {"a": "y"}, True),
        ("a!=x", {}, True),
        ("a!=x", {"a": "x"}, False),
        ("a in (x,y)", {"a": "y"}, True),
        ("a in(x)", {"a": "x"}, True),
        ("a in (x, y)", {"a": "z"}, False),
        ("a in (x)", {}, False),
        ("a notin (x,y)", {"a": "z"}, True),
        ("a notin (x,y)", {}, True),
        ("a notin (x,y)", {"a": "x"}, False),
        ("a", {"a": ""}, True),
        ("a", {}, False),
        ("!a", {}, True),
        ("! a", {"a": ""}, False),
        ("a=", {"a": ""}, True),
        ("a=", {}, False),
        ("a in (x,)", {"a": ""}, True),
        ("a in (,)", {"a": ""}, True),
        ("in", {"in": "1"}, True),
        ("in in (in,notin)", {"in": "notin"}, True),
        ("a>5", {"a": "6"}, True),
        ("a>5", {"a": "5"}, False),
        ("a < 5", {"a": "4"}, True),
        ("a<5", {}, False),
        ("a<5", {"a": "many"}, False),
        ("a=x,b=y", {"a": "x", "b": "y"}, True),
        ("a=x,b=y", {"a": "x"}, False),
        ("vedette.dev/source=region-one", SOURCE, True),
        ("vedette.dev/source in (region-one,region-two),!x", SOURCE, True),
    ],
)
def test_label_terms_hold_as_in_kubernetes(text: str, labels: dict[str, str], held: bool) -> None:
    assert by_labels(text, labels) is held


@pytest.mark.parametrize(
    "text",
    [
        ",", "a,", ",a", "a,,b", "a b", "a=x y", "=x", "!", "!!a", "a in", "a in x", "a in ()", "a in (x", "a in (x y)",
        "a in x)", "a ! x", "a===x", "a=(x)", "a>x", "a>", "(a)", "a/b/c", "/a", "a/", "UPPER/a", "-a", "a-", "a=-x", "a=x/y",
        "ä", "a=ä", "a=\0", "a" * 64, "a=" + "x" * 64, "a." * 130 + "b/c", "!a=b", "a notin x", "a=x;b=y",
    ],
)  # fmt: skip
def test_a_wrong_label_selector_is_a_bad_request_that_says_why(text: str) -> None:
    with pytest.raises(BadRequest, match="unable to parse the label selector"):
        parse(text, "")


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("metadata.name=p1", True),
        ("metadata.name==p1", True),
        ("metadata.name=p2", False),
        ("metadata.name!=p2", True),
        ("metadata.name=p1,metadata.name=p2", False),
        ("metadata.namespace=proj", True),
        ("metadata.namespace=other", False),
        ("metadata.namespace!=proj", False),
        ("object.id=p1", True),
        ("object.id=p2", False),
        ("status.status=ACTIVE", True),
        ("status.status=active", False),
        ("status.status!=ACTIVE", False),
        ("status.binding:host_id=node-1", True),
        ("status.admin_state_up=true", True),
        ("status.admin_state_up=True", False),
        ("status.admin_state_up!=false", True),
        ("status.mtu=1450", True),
        ("status.mtu=1450.0", False),
        ("status.ratio=1.5", True),
        ("status.huge=1e22", True),
        ("status.description=", True),
        ("status.device_id=", True),
        ("status.device_id=null", True),
        ("status.device_id!=", False),
        ("status.missing=", True),
        ("status.missing!=", False),
        ("status.missing=x", False),
        ("status.missing!=x", True),
        ("status.missing.more=", True),
        ("status.status.more=", True),
        ("status.none=", True),
        ("status.none=x", False),
        ("status.profile=", True),
        ("status.metadata=", False),
        ("status.tags=web", True),
        ("status.tags=db", False),
        ("status.tags!=web", False),
        ("status.tags!=db", True),
        (r"status.tags=a\,b\=c\\d", True),
        ("status.fixed_ips.ip_address=10.0.0.6", True),
        ("status.fixed_ips.ip_address=10.0.0.7", False),
        ("status.fixed_ips.ip_address!=10.0.0.7", True),
        ("status.fixed_ips.ip_address!=10.0.0.6", False),
        ("status.fixed_ips.ip_address=10.0.0.5,status.fixed_ips.subnet_id=s2", True),
        ("status.fixed_ips.missing=", True),
        ("status.metadata.plain=x", True),
        ("status.metadata.app.example.com/tier=db", True),
        ("status.metadata.app.example.com/tier!=db", False),
        ("status.deep.list.a=2", True),
        ("status.deep.list.a=3", False),
        (",status.status=ACTIVE,,", True),
    ],
)
def test_field_terms_look_under_status_and_through_lists(text: str, held: bool) -> None:
    assert by_fields(text) is held


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("spec.host=x", "field label not supported: 'spec.host'"),
        ("status=x", "field label not supported"),
        ("status.=x", "field label not supported"),
        ("status..a=x", "field label not supported"),
        ("metadata.uid=x", "field label not supported"),
        ("=x", "field label not supported"),
        ("status.a", "there is no ="),
        ("status.a=b=c", "a value writes"),
        ("status.a=\\b", "a value writes"),
        ("status.a=b\\", "a value writes"),
    ],
)
def test_a_wrong_field_selector_is_a_bad_request_that_says_why(text: str, why: str) -> None:
    with pytest.raises(BadRequest, match=why):
        parse("", text)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a=x,b=y", ""), ("b==y , a = x,a in (x)", "")),
        (("a in (x,y)", ""), ("a in (y, x, y)", "")),
        (("a!=x", ""), ("a notin (x)", "")),
        (("", "metadata.name=a,status.b=c"), ("", "status.b==c,metadata.name=a,metadata.name==a")),
        (("", "object.id=a b"), ("", "metadata.name=a~20b")),
        ((" ", ","), ("", "")),
    ],
)
def test_selectors_that_say_the_same_are_equal(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert parse(*one) == parse(*other)
    assert hash(parse(*one)) == hash(parse(*other))


def test_what_the_caller_may_use_to_look_less() -> None:
    assert parse("", "") == EVERYTHING
    assert parse("", "").everything
    assert not parse("", "metadata.name=a").everything
    pinned = parse("vedette.dev/source=r", "metadata.name=a,metadata.namespace=b")
    assert (pinned.name, pinned.namespace, pinned.needs_body) == ("a", "b", False)
    other = parse("", "metadata.name!=a,metadata.namespace!=b")
    assert (other.name, other.namespace, other.needs_body) == (None, None, False)
    assert parse("other", "").needs_body
    assert parse("", "status.a=b").needs_body
    assert parse("", "object.id=a b").name == name_of("a b")


def test_of_whole_objects_any_field_can_be_named() -> None:
    served = {
        "type": "Warning",
        "metadata": {"labels": {"app.kubernetes.io/name": "x"}},
        "spec": {"host": "h"},
        "status": {"a": 1},
    }
    for text in (
        "spec.host=h", "status.a=1", "type=Warning", "spec.none=", "spec.host!=g", "metadata.labels.app.kubernetes.io/name=x",
        "metadata.name=n,metadata.namespace=s", "object.id=",
    ):  # fmt: skip
        assert parse("", text, whole=True).matches("n", "s", {}, served), text
    for text in ("spec.host=g", "host=h", "a=1", "metadata.name=m", "object.id=n"):
        assert not parse("", text, whole=True).matches("n", "s", {}, served), text
    assert parse("", "", whole=True) == EVERYTHING
    assert parse("", "status.a=1", whole=True) != parse("", "status.a=1")
    for text in ("spec..host=h", ".a=b", "=b", "a.=b"):
        with pytest.raises(BadRequest, match="any path of the object"):
            parse("", text, whole=True)


def test_too_long_or_too_many_terms_are_refused() -> None:
    within = ",".join(f"l{n}" for n in range(MOST_TERMS))
    assert len(parse(within, "").labels) == MOST_TERMS
    with pytest.raises(BadRequest, match="33 terms"):
        parse(within, "metadata.name=a")
    with pytest.raises(BadRequest, match="labelSelector has 4097 characters"):
        parse(" " * (LONGEST + 1), "")
    with pytest.raises(BadRequest, match="fieldSelector has 4097 characters"):
        parse("", "," * (LONGEST + 1))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
PIECES = st.sampled_from(
    ["a", "b", "in", "notin", "(", ")", ",", "=", "==", "!", "!=", " ", "<", ">", "\\", "status.", ".", "/", "1"]
)


@given(st.text() | st.lists(PIECES).map("".join), st.text() | st.lists(PIECES).map("".join), JSON)
@example("", "\\", None)
@example("", "status.a=\\,", {"a": ","})
def test_garbage_is_refused_by_bad_request_or_is_a_selector_that_works(labels: str, fields: str, value: object) -> None:
    try:
        selector = parse(labels, fields)
    except BadRequest:
        return
    assert isinstance(selector.matches("n", "ns", {"a": "b"}, {"a": value}), bool)


@given(st.text(), st.sampled_from(["metadata.name", "status.a"]))
def test_every_text_can_be_asked_for_when_it_is_escaped(text: str, path: str) -> None:
    escaped = text.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=")
    equal, other = parse("", f"{path}={escaped}"), parse("", f"{path}!={escaped}")
    assert equal.matches(text, "ns", {}, {"a": text})
    assert not other.matches(text, "ns", {}, {"a": text})
    assert not equal.matches(text + "x", "ns", {}, {"a": text + "x"})


@given(JSON, st.text(max_size=4))
def test_unequal_is_always_the_opposite_of_equal(value: object, text: str) -> None:
    escaped = text.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=")
    status = {"a": value}
    for path in ("status.a", "status.a.b", "status.x"):
        equal = parse("", f"{path}={escaped}").matches("n", "ns", {}, status)
        assert parse("", f"{path}!={escaped}").matches("n", "ns", {}, status) is not equal


@given(st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False))
def test_a_scalar_equals_the_text_it_is_served_as(value: object) -> None:
    served = msgspec.json.encode(value).decode()
    assert parse("", f"status.a={served}").matches("n", "ns", {}, {"a": value})


LABEL = st.sampled_from(["a", "b", "c"])
TERM = st.one_of(
    st.tuples(LABEL, st.sampled_from(["=", "==", "!="]), LABEL).map(" ".join),
    st.tuples(LABEL, st.sampled_from(["in", "notin"]), st.lists(LABEL, min_size=1)).map(
        lambda t: f"{t[0]} {t[1]} ({','.join(t[2])})"
    ),
    LABEL,
    LABEL.map("!{}".format),
)


@given(st.lists(TERM, min_size=1, max_size=6), st.randoms(), st.dictionaries(LABEL, LABEL))
def test_order_and_repetition_change_nothing(terms: list[str], random: object, labels: dict[str, str]) -> None:
    mixed = [*terms, *terms]
    random.shuffle(mixed)  # type: ignore[attr-defined]
    one, other = parse(",".join(terms), ""), parse(",".join(mixed), "")
    assert one == other
    assert one.matches("", "", labels, {}) == all(parse(term, "").matches("", "", labels, {}) for term in terms)


def test_a_selector_survives_being_a_key() -> None:
    groups: dict[Selector, int] = {parse("a", ""): 1}
    assert groups[parse(" a ", "")] == 1
