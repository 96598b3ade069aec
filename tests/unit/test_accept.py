"""The Accept header and booleans are read as a kube-apiserver reads them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vedette.api.accept import Accepted, accepted, media_types, truthy
from vedette.errors import BadRequest, NotAcceptable

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
PROTOBUF = "application/vnd.kubernetes.protobuf"
METADATA = "as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("", Accepted()),
        ("*/*", Accepted()),
        ("*", Accepted()),
        ("application/*", Accepted()),
        ("application/json", Accepted()),
        ("APPLICATION/JSON; charset=utf-8", Accepted()),
        ("application/json;stream=watch", Accepted()),
        # kubectl 1.20 and a recent one
        (f"{TABLE},application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json", Accepted("table")),
        ("application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json", Accepted()),
        # client-go's metadata client
        (f"{PROTOBUF};{METADATA},application/json;{METADATA},application/json", Accepted("partial")),
        ("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1", Accepted("partial")),
        # typed clients
        (f"{PROTOBUF},application/json", Accepted()),
        (f"{PROTOBUF}, */*", Accepted()),
        # what we don't know is passed over
        ("application/json;as=Other;g=meta.k8s.io;v=v1,application/json", Accepted()),
        ("application/json;as=Table;g=else.where;v=v1,*/*", Accepted()),
        # EventSource, and a browser's address bar
        ("text/event-stream", Accepted(sse=True)),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8", Accepted()),
        # q orders, and 0 is never
        ("application/json;q=0.5,text/event-stream", Accepted(sse=True)),
        (f"application/json;q=0.5,{TABLE};q=0.9", Accepted("table")),
        ("text/event-stream;q=0,application/json", Accepted()),
        ("nonsense,;;,/,a/b/c,application/json", Accepted()),
    ],
)
def test_the_first_form_that_we_have_is_taken(header: str, wanted: Accepted) -> None:
    assert accepted(header) == wanted


@pytest.mark.parametrize(
    "header",
    [PROTOBUF, "text/html", "application/json;q=0", "application/json;as=Table;v=v1beta1;g=meta.k8s.io", "application/yaml", ";"],
)
def test_nothing_that_we_have_is_not_acceptable(header: str) -> None:
    with pytest.raises(NotAcceptable, match="application/json"):
        accepted(header)


@given(
    st.text(max_size=200)
    | st.lists(st.sampled_from([TABLE, PROTOBUF, "*/*", ";q=", "0.3", ",", ";", "as=", "=", "nan"])).map("".join)
)
def test_any_header_is_answered_or_not_acceptable(header: str) -> None:
    with contextlib.suppress(NotAcceptable):
        assert accepted(header).form in ("json", "table", "partial")
    assert all(0 < media.q <= 1 for media in media_types(header))


def test_only_so_many_types_are_looked_at() -> None:
    assert len(media_types("a/b," * 10_000)) == 64


@pytest.mark.parametrize("text", ["1", "t", "T", "true", "TRUE", "True"])
def test_true_as_go_reads_it(text: str) -> None:
    assert truthy(text) is True


@pytest.mark.parametrize("text", ["0", "f", "F", "false", "FALSE", "False", ""])
def test_false_as_go_reads_it(text: str) -> None:
    assert truthy(text) is False


@pytest.mark.parametrize("text", ["yes", "tRUE", " true", "2", "on", "ｔｒｕｅ"])
def test_what_go_refuses_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="no boolean"):
        truthy(text)
