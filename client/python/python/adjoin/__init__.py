"""Client of adjoin, the inference server for processes on one node.

Tensors are numpy arrays in memory that is shared with the server: a program writes its inputs there
once, the model runs on them where they lie, and the outputs are read where the server wrote them.

>>> import adjoin
>>> with adjoin.connect("/run/adjoin") as client:
...     model = client.model("digits")
...     request = model.request(batch=4)
...     request["image"][:] = images
...     with request.infer(timeout=0.1) as result:
...         print(result["scores"].argmax(1))
"""

from collections.abc import Mapping as _Mapping

from adjoin import errors
from adjoin._adjoin import (
    Client,
    DeviceArray,
    DeviceRegion,
    Future,
    Model,
    Request,
    Result,
    Stats,
    TensorSpec,
    __version__,
    connect,
)
from adjoin._arrays import OutputArray
from adjoin.errors import (
    BatchTooLarge,
    Cancelled,
    Closed,
    DataTypeMismatch,
    DeadlineExceeded,
    DeviceUnavailable,
    Error,
    ExecutionFailed,
    Forked,
    InputLost,
    InvalidRequest,
    ModelNotFound,
    ModelNotReady,
    NotContiguous,
    NotExecuted,
    OutputLost,
    PermissionDenied,
    ProtocolError,
    ProtocolMismatch,
    QueueFull,
    Released,
    RequestBusy,
    RequestRegionFull,
    ResponseRegionFull,
    ServerFault,
    ServerUnavailable,
    SessionEnded,
    SessionRefused,
    ShapeMismatch,
    TensorNotFound,
    TooManyInFlight,
    VersionNotFound,
)

__all__ = [
    "BatchTooLarge",
    "Cancelled",
    "Client",
    "Closed",
    "DataTypeMismatch",
    "DeadlineExceeded",
    "DeviceArray",
    "DeviceRegion",
    "DeviceUnavailable",
    "Error",
    "ExecutionFailed",
    "Forked",
    "Future",
    "InputLost",
    "InvalidRequest",
    "Model",
    "ModelNotFound",
    "ModelNotReady",
    "NotContiguous",
    "NotExecuted",
    "OutputArray",
    "OutputLost",
    "PermissionDenied",
    "ProtocolError",
    "ProtocolMismatch",
    "QueueFull",
    "Released",
    "Request",
    "RequestBusy",
    "RequestRegionFull",
    "ResponseRegionFull",
    "Result",
    "ServerFault",
    "ServerUnavailable",
    "SessionEnded",
    "SessionRefused",
    "ShapeMismatch",
    "Stats",
    "TensorNotFound",
    "TensorSpec",
    "TooManyInFlight",
    "VersionNotFound",
    "__version__",
    "connect",
    "errors",
]

_Mapping.register(Result)
