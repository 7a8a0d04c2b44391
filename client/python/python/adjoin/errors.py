"""What can go wrong. All exceptions derive from `Error`, and most from a built-in one as well."""

from __future__ import annotations


class Error(Exception):
    """Base of all exceptions of this package.

    The message names the value that was wrong, what holds instead, and what to do.
    """

    status: str | None
    """The server's status, such as ``"queue_full"``; ``None`` where this side found the fault."""

    retryable: bool
    """Whether nothing but time or load stands in the way: the request did not run, and may succeed
    when it is submitted again."""

    may_have_run: bool
    """Whether the request may have run although there is no answer."""

    def __init__(
        self,
        message: str = "",
        *,
        status: str | None = None,
        retryable: bool = False,
        may_have_run: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retryable = retryable
        self.may_have_run = may_have_run

    def __reduce__(self) -> tuple[object, ...]:
        return (_restore, (type(self), self.args, self.__dict__))


def _restore(kind: type[Error], args: tuple[str, ...], state: dict[str, object]) -> Error:
    error = kind(*args)
    error.__dict__.update(state)
    return error


class ServerUnavailable(Error, ConnectionError):
    """There is no server, or it is gone. The next operation connects to its successor."""


class SessionRefused(Error, ConnectionError):
    """The server does not want the session: too large, too many, or another user's."""


class ProtocolMismatch(SessionRefused):
    """Client and server are of releases that do not understand each other."""


class PermissionDenied(Error, PermissionError):
    """This user may not reach the server's socket."""


class ProtocolError(Error, ConnectionError):
    """The peer did what the protocol does not allow, or is no adjoin server."""


class ModelNotFound(Error, LookupError):
    """No model of that name is loaded."""


class VersionNotFound(ModelNotFound):
    """The model has no ready version of that number or label."""


class ModelNotReady(Error):
    """The model is loading, or failed to load."""


class InvalidRequest(Error, ValueError):
    """The request is not one that the model takes."""


class TensorNotFound(InvalidRequest, LookupError):
    """The model has no input or output of that name, or one is missing."""


class ShapeMismatch(InvalidRequest):
    """A shape that the model does not take."""


class DataTypeMismatch(InvalidRequest, TypeError):
    """A data type that the model does not take."""


class NotContiguous(InvalidRequest):
    """An array that cannot be copied in one piece."""


class BatchTooLarge(InvalidRequest):
    """More rows than the model runs at once."""


class QueueFull(Error):
    """The model's queue is full. Not executed."""


class TooManyInFlight(Error):
    """As many requests are under way as the session has places. Not submitted."""


class DeadlineExceeded(Error, TimeoutError):
    """The deadline passed, or the caller's time was up."""


class Cancelled(Error):
    """The request was cancelled before it ran."""


class NotExecuted(Error):
    """The server shuts down and did not execute the request; the next server takes it."""


class RequestRegionFull(Error, MemoryError):
    """The session has no room for the inputs; see ``request_bytes`` of `adjoin.connect`."""


class ResponseRegionFull(Error, MemoryError):
    """The session has no room for the outputs; see ``response_bytes`` of `adjoin.connect`."""


class ExecutionFailed(Error, RuntimeError):
    """The engine failed on the request; the server's log has its message."""


class ServerFault(Error, RuntimeError):
    """The server broke one of its own rules; its log says more."""


class SessionEnded(Error, ConnectionError):
    """The server ended the session for a reason that it gave."""


class DeviceUnavailable(Error):
    """No memory of a GPU: there is none here or with the server, or all that may be is attached."""


class InputLost(Error):
    """An input went with the memory of a server that shut down, and has to be written again."""


class OutputLost(Error):
    """An output went with the memory of a server that shut down."""


class RequestBusy(Error, RuntimeError):
    """The request is with the server, or another thread uses it."""


class Released(Error, RuntimeError):
    """The result was released, or the request closed."""


class Closed(Error, RuntimeError):
    """The client was closed."""


class Forked(Error, RuntimeError):
    """The client belongs to the parent of this process; connect in the child."""
