"""Every error Vedette raises on purpose, named for what the caller does next.

VedetteError
├── TryLater              the other side is unwell; the same call may work after `delay`
│   ├── StoreUnavailable  the log can't take more now (disk full, I/O error)
│   ├── BrokerUnavailable no connection, or it went away
│   ├── IdentityUnavailable  Keystone can't be asked
│   ├── CloudUnavailable  an API of the cloud can't be asked
│   ├── TargetUnavailable nobody is there to take a delivery: the handler waits, no attempt is spent
│   └── TooBusy           a limit of ours is reached
├── StartOver             what the caller held on to is gone; begin again from a fresh list
│   └── Expired           a revision or a continue token that retention has passed (or one from the future)
├── Conflict              somebody was faster; read again and decide anew
├── Refused               what is asked for can't be done in the thing's present state
├── WorkerDied            a plugin's process ended, or was killed at its deadline
├── PluginFailed          a plugin's code raised: the attempt failed, another may not
├── GiveUp                a delivery that no retry will make: it goes to the dead letters
├── FixInput              the caller must send something else
│   ├── ConfigError       names the path and the line of the configuration
│   ├── BadRequest        a request that no retry makes right
│   ├── Invalid           the same, with the field that is wrong
│   ├── NotAcceptable     none of the forms that the caller accepts is one we have
│   ├── MethodNotAllowed  the thing is there and can't do that
│   ├── NotFound          no such thing, or not for this caller
│   ├── NoService         the cloud's catalog has no such service
│   └── NotUnderstood     a message that can't be read as a notification
│       └── UnsupportedFormat  one in a format that we have no reader for
├── NotAllowed
│   ├── Unauthenticated   no token, or one that isn't valid
│   └── Forbidden         a valid token that may not do this
└── CannotStart           a person has to act before the service can run
    ├── StoreInUse        another process holds the data folder
    ├── StoreForeign      the file isn't ours, or it is damaged
    ├── StoreNewer        written by a newer version
    └── QueueShared       the queue is read by somebody else
"""

from __future__ import annotations


class VedetteError(Exception):
    """The root; its text is for the person who has to act."""


class TryLater(VedetteError):
    """The other side is unwell; the same call may work after `delay` seconds."""

    def __init__(self, message: str, *, delay: float = 1.0) -> None:
        super().__init__(message)
        self.delay = delay


class StoreUnavailable(TryLater):
    """The log can't take more now. Nothing of the batch was kept."""


class BrokerUnavailable(TryLater):
    """The message broker can't be reached or closed the connection."""


class IdentityUnavailable(TryLater):
    """Keystone can't be asked, and no recent verdict is known."""


class CloudUnavailable(TryLater):
    """An API of the cloud can't be reached, answers with an error of its own, or takes too long; retries are over."""


class TargetUnavailable(TryLater):
    """Raised by a handler whose target can't be reached at all (refused, no route, timed out): no attempt is spent, the whole
    handler waits until it answers again."""


class TooBusy(TryLater):
    """A limit is reached; the message names it."""


class StartOver(VedetteError):
    """What the caller held on to is gone."""


class Expired(StartOver):
    """A place in the log that is no longer (or not yet) there. List again."""


class Conflict(VedetteError):
    """An `expect` did not hold."""


class Refused(VedetteError):
    """What is asked for can't be done in the present state of the thing (an API's 409)."""


class WorkerDied(VedetteError):
    """The process of a plugin ended while it had this call in its hands, or was killed at its deadline."""


class PluginFailed(VedetteError):
    """What a plugin raised in its own process, in words: type, message and the last line of the traceback."""


class GiveUp(VedetteError):
    """Raised by a handler: no retry makes this delivery succeed. It goes to the dead letters with this text."""


class FixInput(VedetteError):
    """The same call will fail again."""


class ConfigError(FixInput):
    """A setting is wrong. `path` is dotted, `line` counts from 1 (0: unknown)."""

    def __init__(self, message: str, *, path: str = "", line: int = 0) -> None:
        where = " ".join(part for part in (path, f"(line {line})" if line else "") if part)
        super().__init__(f"{where}: {message}" if where else message)
        self.path = path
        self.line = line


class BadRequest(FixInput):
    """A request that no retry makes right."""


class Invalid(FixInput):
    """A request whose fields don't go together, or one with a value that it can't have; `field` is the one to change."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.cause = message


class NotAcceptable(FixInput):
    """None of the forms that the caller accepts is one we have."""


class MethodNotAllowed(FixInput):
    """The thing is there and can't do that. `allowed`: the HTTP methods it has."""

    def __init__(self, message: str, *, allowed: tuple[str, ...] = ("GET",)) -> None:
        super().__init__(message)
        self.allowed = allowed


class NotFound(FixInput):
    """No such thing, or none that this caller may see: the two look the same."""


class NoService(FixInput):
    """The cloud's catalog has no such service, or none in our region."""


class NotUnderstood(FixInput):
    """A message that can't be read as a notification; the text is the reason."""


class UnsupportedFormat(NotUnderstood):
    """A message in a format that we have no reader for; the text names those that we have."""


class NotAllowed(VedetteError):
    """The caller may not."""


class Unauthenticated(NotAllowed):
    """No token, or one that is not valid."""


class Forbidden(NotAllowed):
    """A valid token without the right."""


class CannotStart(VedetteError):
    """A person has to act first; the text says what to do."""


class StoreInUse(CannotStart):
    """Another process holds the data folder."""


class StoreForeign(CannotStart):
    """The file is not a Vedette store, or it is damaged. It was not touched."""


class StoreNewer(CannotStart):
    """The store was written by a newer version."""


class QueueShared(CannotStart):
    """The queue has consumers that are not ours."""
