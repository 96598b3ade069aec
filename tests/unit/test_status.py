"""Every error leaves as a Kubernetes Status with the right code, and none tells of our insides."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from vedette import errors
from vedette.api.status import REASONS, code_of, error_event, of_code, status

EXAMPLES: list[tuple[Exception, int, str]] = [
    (errors.Unauthenticated("no token"), 401, "Unauthorized"),
    (errors.Forbidden("admins only"), 403, "Forbidden"),
    (errors.NotFound("no such port"), 404, "NotFound"),
    (errors.MethodNotAllowed("read only"), 405, "MethodNotAllowed"),
    (errors.NotAcceptable("only JSON"), 406, "NotAcceptable"),
    (errors.Conflict("it has moved on"), 409, "Conflict"),
    (errors.Expired("too old resource version: 1 (2)"), 410, "Expired"),
    (errors.Invalid("limit", "must not be negative"), 422, "Invalid"),
    (errors.BadRequest("no boolean"), 400, "BadRequest"),
    (errors.NotUnderstood("not JSON"), 400, "BadRequest"),
    (errors.UnsupportedFormat("only JSON"), 415, "UnsupportedMediaType"),
    (errors.TooBusy("10000 watchers", delay=2.2), 429, "TooManyRequests"),
    (errors.TryLater("later"), 503, "ServiceUnavailable"),
    (errors.StoreUnavailable("disk full: /secret/place"), 503, "ServiceUnavailable"),
    (errors.BrokerUnavailable("amqp://secret-host"), 503, "ServiceUnavailable"),
    (errors.IdentityUnavailable("https://secret-keystone"), 503, "ServiceUnavailable"),
    (errors.CloudUnavailable("https://secret-neutron"), 503, "ServiceUnavailable"),
    (errors.NoService("secret"), 500, "InternalError"),
    (errors.ConfigError("secret", path="a.b", line=3), 500, "InternalError"),
    (errors.StoreForeign("/secret/place is not ours"), 500, "InternalError"),
    (errors.VedetteError("secret"), 500, "InternalError"),
    (ZeroDivisionError("secret"), 500, "InternalError"),
    (KeyError("secret"), 500, "InternalError"),
]


def said(error: Exception, **about: str) -> tuple[int, dict[str, str], dict[str, Any]]:
    code, headers, body = status(error, **about)
    return code, headers, msgspec.json.decode(body)


@pytest.mark.parametrize(("error", "code", "reason"), EXAMPLES, ids=lambda value: type(value).__name__)
def test_each_error_has_its_code_and_reason(error: Exception, code: int, reason: str) -> None:
    sent, _, body = said(error)
    assert (sent, body["code"], body["reason"]) == (code, code, reason)
    assert (body["kind"], body["apiVersion"], body["status"], body["metadata"]) == ("Status", "v1", "Failure", {})
    assert body["message"]
    assert "secret" not in body["message"]


def test_every_error_of_ours_has_a_code() -> None:
    def below(kind: type[Exception]) -> set[type[Exception]]:
        return {kind}.union(*(below(child) for child in kind.__subclasses__()))

    ours = {kind for kind in below(errors.VedetteError) if kind.__module__ == errors.__name__}
    assert len(ours) >= 25
    unwell = {kind for kind in ours if code_of(kind.__new__(kind)) == 500}
    internal = below(errors.CannotStart) | {errors.ConfigError, errors.VedetteError, errors.FixInput, errors.NoService}
    internal |= {errors.GiveUp, errors.PluginFailed, errors.WorkerDied}  # between the dispatcher and a plug
    assert unwell == {kind for kind in internal if kind in ours}


def test_a_missing_object_is_named_as_kubectl_prints_it() -> None:
    code, _, body = said(errors.NotFound("x"), group="openstack.vedette.dev", kind="ports", name="p1")
    assert code == 404
    assert body["message"] == 'ports.openstack.vedette.dev "p1" not found'
    assert body["details"] == {"name": "p1", "group": "openstack.vedette.dev", "kind": "ports"}
    assert said(errors.NotFound("x"), kind="namespaces", name="p1")[2]["message"] == 'namespaces "p1" not found'


def test_who_shall_come_back_is_told_when() -> None:
    _, headers, body = said(errors.TooBusy("full", delay=2.2))
    assert headers["Retry-After"] == "3"
    assert body["details"]["retryAfterSeconds"] == 3
    assert said(errors.TryLater("x", delay=0))[1]["Retry-After"] == "1"
    assert said(errors.TryLater("x", delay=float("inf")))[1]["Retry-After"] == "3600"


def test_an_invalid_field_is_a_cause() -> None:
    _, _, body = said(errors.Invalid("resourceVersionMatch", "needs resourceVersion"))
    assert body["message"] == "resourceVersionMatch: needs resourceVersion"
    assert body["details"]["causes"] == [
        {"reason": "FieldValueInvalid", "message": "needs resourceVersion", "field": "resourceVersionMatch"}
    ]


def test_headers_that_http_asks_for() -> None:
    assert said(errors.MethodNotAllowed("x", allowed=("GET", "POST")))[1]["Allow"] == "GET, POST"
    assert said(errors.Unauthenticated("x"))[1]["WWW-Authenticate"].startswith("Bearer")


def test_a_long_message_is_cut() -> None:
    assert len(said(errors.BadRequest("x" * 100_000))[2]["message"]) == 2001


@pytest.mark.parametrize("code", [404, 405, 413, 500, 599])
def test_an_error_that_is_only_a_code(code: int) -> None:
    sent, _, raw = of_code(code, "secret" if code >= 500 else "no route")
    body = msgspec.json.decode(raw)
    assert sent == body["code"] == code
    assert body.get("reason", "") == REASONS.get(code, "")
    assert body["message"]
    assert "secret" not in body["message"]


def test_inside_a_watch_the_error_is_one_line() -> None:
    line = error_event(errors.Expired("too old resource version: 15296 (15468)"))
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert msgspec.json.decode(line) == {
        "type": "ERROR",
        "object": {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": "too old resource version: 15296 (15468)",
            "reason": "Expired",
            "code": 410,
        },
    }
