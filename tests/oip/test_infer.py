"""Inference by Triton's clients: in turn, at once, in streams, from asyncio; all data types."""

import asyncio
import queue

import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http.aio as http_aio
from conftest import Api
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from server import ROOT, Server

RNG = np.random.default_rng(7)
A = RNG.standard_normal((3, 4), np.float32)
B = RNG.standard_normal((3, 4), np.float32)


def raw_strings() -> np.ndarray:
    values = [[b"zero\0inside", b""], [b"\xff\xfe not UTF-8", "ü".encode()]]
    return np.array(values, dtype=object)


CASES = {
    "add": ({"a": A, "b": B}, {"sum": A + B}),
    "scale_u8": (
        {"x": np.arange(32, dtype=np.uint8).reshape(2, 16)},
        {"y": np.arange(32, dtype=np.float32).reshape(2, 16) / 2},
    ),
    "gather": (
        {
            "table": np.arange(32, dtype=np.float32).reshape(8, 4),
            "index": np.array([7, 0, 7], np.int64),
        },
        {"rows": np.arange(32, dtype=np.float32).reshape(8, 4)[[7, 0, 7]]},
    ),
    "nonzero": (
        {"x": np.array([0, 1, 0, 2], np.float32)},
        {"indices": np.array([[1, 3]], np.int64)},
    ),
    "fixed": (
        {"x": np.array([[-1, 0, 1], [2, -2, 3]], np.float32)},
        {"y": np.array([[0, 0, 1], [2, 0, 3]], np.float32)},
    ),
    "half": (
        {"x": np.arange(8, dtype=np.float16).reshape(1, 8)},
        {"y": np.arange(8, dtype=np.float16).reshape(1, 8) * np.float16(2)},
    ),
    "bf16": (
        {"x": np.arange(8).reshape(1, 8).astype(ml_dtypes.bfloat16)},
        {"y": (2 * np.arange(8)).reshape(1, 8).astype(ml_dtypes.bfloat16)},
    ),
    "ints": (
        {
            "a": np.array([[1, -2, 2**31 - 1, 0]], np.int32),
            "b": np.array([[1, 2, 2**62, -(2**63)]], np.int64),
        },
        {"sum": np.array([[2, 0, 2**62 + 2**31 - 1, -(2**63)]], np.int64)},
    ),
    "text": (
        {"a": raw_strings(), "b": raw_strings()[:, ::-1]},
        {"both": np.concatenate([raw_strings(), raw_strings()[:, ::-1]], axis=1)},
    ),
}


def check(result, outputs: dict[str, np.ndarray]) -> None:
    for name, value in outputs.items():
        answer = result.as_numpy(name)
        assert answer.shape == value.shape
        assert np.array_equal(answer, value), (name, answer, value)


@pytest.mark.parametrize("model", CASES)
def test_each_data_type(api: Api, model: str) -> None:
    inputs, outputs = CASES[model]
    result = api.infer(model, inputs, request_id="my request")
    check(result, outputs)
    answer = result.get_response() if not api.is_grpc else result.get_response(as_json=True)
    assert answer["model_name"] == model
    assert answer["model_version"] == "1"
    assert answer["id"] == "my request"


@pytest.mark.parametrize("model", ["add", "ints", "text", "scale_u8", "gather"])
def test_json_tensors_over_http(http_api: Api, model: str) -> None:
    inputs, outputs = CASES[model]
    if model == "text":
        # JSON has text only.
        words = np.array([["one", "zwei"], ["", "drei ü"]], object)
        inputs, outputs = {"a": words, "b": words}, {"both": np.concatenate([words, words], axis=1)}
    tensors = []
    for name, value in inputs.items():
        tensor = api_input(http_api, name, value)
        tensor.set_data_from_numpy(value, binary_data=False)
        tensors.append(tensor)
    wanted = [http_api.output(name, binary_data=False) for name in outputs]
    result = http_api.client.infer(model, tensors, outputs=wanted)
    for name, value in outputs.items():
        answer = result.as_numpy(name)
        assert answer.shape == value.shape
        assert np.array_equal(answer, value), (name, answer, value)


def api_input(api: Api, name: str, value: np.ndarray):
    return api.library.InferInput(name, list(value.shape), np_to_triton_dtype(value.dtype))


def test_typed_contents_over_grpc(grpc_api: Api) -> None:
    service = grpcclient.service_pb2
    stub = grpcclient.service_pb2_grpc.GRPCInferenceServiceStub(grpc_api.client._channel)
    request = service.ModelInferRequest(model_name="ints")
    request.inputs.add(name="a", datatype="INT32", shape=[1, 4]).contents.int_contents[:] = [
        1,
        2,
        3,
        -4,
    ]
    request.inputs.add(name="b", datatype="INT64", shape=[1, 4]).contents.int64_contents[:] = [
        10,
        20,
        2**40,
        4,
    ]
    answer = stub.ModelInfer(request)
    assert np.frombuffer(answer.raw_output_contents[0], np.int64).tolist() == [11, 22, 2**40 + 3, 0]
    request = service.ModelInferRequest(model_name="text")
    for name, values in [("a", [b"x\0y", b"\xff"]), ("b", [b"", b"z"])]:
        tensor = request.inputs.add(name=name, datatype="BYTES", shape=[1, 2])
        tensor.contents.bytes_contents[:] = values
    answer = stub.ModelInfer(request)
    assert answer.raw_output_contents[0] == b"".join(
        len(value).to_bytes(4, "little") + value for value in [b"x\0y", b"\xff", b"", b"z"]
    )


def test_outputs_are_those_that_were_asked_for(api: Api) -> None:
    result = api.infer("add", {"a": A, "b": B}, outputs=[api.output("sum")])
    check(result, {"sum": A + B})


def test_empty_tensors(api: Api) -> None:
    table = np.ones((8, 4), np.float32)
    result = api.infer("gather", {"table": table, "index": np.zeros(0, np.int64)})
    assert result.as_numpy("rows").shape == (0, 4)
    none = np.zeros((0, 4), np.float32)
    with pytest.raises(InferenceServerException, match=r"\[0,4\].*at least one row"):
        api.infer("add", {"a": none, "b": none})


def test_version_priority_timeout_and_parameters(api: Api) -> None:
    result = api.infer(
        "add",
        {"a": A, "b": B},
        model_version="1",
        priority=1,
        timeout=10_000_000,
        parameters={"my_number": 7, "my_word": "x", "my_truth": True},
    )
    check(result, {"sum": A + B})


def test_many_at_once(api: Api) -> None:
    values = [{"a": A + n, "b": B} for n in range(64)]
    if api.is_grpc:
        answers: queue.Queue = queue.Queue()
        for n, each in enumerate(values):
            api.client.async_infer(
                "add", api.inputs(each), lambda result, error, n=n: answers.put((n, result, error))
            )
        for _ in values:
            n, result, error = answers.get(timeout=60)
            assert error is None, error
            check(result, {"sum": A + n + B})
    else:
        waiting = [api.client.async_infer("add", api.inputs(each)) for each in values]
        for n, each in enumerate(waiting):
            check(each.get_result(), {"sum": A + n + B})


def test_a_stream_answers_each_request_and_goes_on_after_errors(grpc_api: Api) -> None:
    answers: queue.Queue = queue.Queue()
    client = grpc_api.client
    client.start_stream(lambda result, error: answers.put((result, error)))
    try:
        for n in range(20):
            inputs = grpc_api.inputs({"a": A + n, "b": B})
            client.async_stream_infer("add", inputs, request_id=str(n))
        client.async_stream_infer("nothing", grpc_api.inputs({"a": A}), request_id="bad")
        client.async_stream_infer("add", grpc_api.inputs({"a": A, "b": B}), request_id="20")
        found, errors = {}, []
        for _ in range(22):
            result, error = answers.get(timeout=60)
            if error is None:
                found[int(result.get_response().id)] = result.as_numpy("sum")
            else:
                errors.append(str(error))
        assert sorted(found) == list(range(21))
        for n in range(20):
            assert np.array_equal(found[n], A + n + B)
        (error,) = errors
        assert "Request for unknown model" in error
    finally:
        client.stop_stream()


def test_asyncio_over_grpc(server: Server) -> None:
    async def run() -> None:
        async with grpc_aio.InferenceServerClient(server.grpc) as client:
            assert await client.is_server_ready()

            async def one(n: int) -> np.ndarray:
                tensors = []
                for name, value in [("a", A + n), ("b", B)]:
                    tensor = grpc_aio.InferInput(name, list(value.shape), "FP32")
                    tensor.set_data_from_numpy(value)
                    tensors.append(tensor)
                return (await client.infer("add", tensors)).as_numpy("sum")

            sums = await asyncio.gather(*(one(n) for n in range(32)))
            for n, total in enumerate(sums):
                assert np.array_equal(total, A + n + B)

            async def requests():
                for n in range(5):
                    tensors = []
                    for name, value in [("a", A + n), ("b", B)]:
                        tensor = grpc_aio.InferInput(name, list(value.shape), "FP32")
                        tensor.set_data_from_numpy(value)
                        tensors.append(tensor)
                    yield {"model_name": "add", "inputs": tensors, "request_id": str(n)}

            found = {}
            async for result, error in client.stream_infer(requests()):
                assert error is None, error
                found[int(result.get_response().id)] = result.as_numpy("sum")
            assert sorted(found) == list(range(5))

    asyncio.run(run())


def test_asyncio_over_http(server: Server) -> None:
    async def run() -> None:
        async with http_aio.InferenceServerClient(server.http) as client:
            assert await client.is_server_ready()

            async def one(n: int) -> np.ndarray:
                tensors = []
                for name, value in [("a", A + n), ("b", B)]:
                    tensor = http_aio.InferInput(name, list(value.shape), "FP32")
                    tensor.set_data_from_numpy(value)
                    tensors.append(tensor)
                return (await client.infer("add", tensors)).as_numpy("sum")

            sums = await asyncio.gather(*(one(n) for n in range(32)))
            for n, total in enumerate(sums):
                assert np.array_equal(total, A + n + B)

    asyncio.run(run())


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compression(api: Api, algorithm: str) -> None:
    # Enough rows to be worth it.
    a = np.tile(A, (1000, 1))
    options = (
        {"compression_algorithm": algorithm}
        if api.is_grpc
        else {
            "request_compression_algorithm": algorithm,
            "response_compression_algorithm": algorithm,
        }
    )
    result = api.infer("add", {"a": a, "b": a}, **options)
    check(result, {"sum": a + a})


def test_classification(api: Api) -> None:
    image = np.zeros((2, 1, 8, 8), np.float32)
    scores = api.infer("digits", {"image": image}).as_numpy("scores")
    result = api.infer("digits", {"image": image}, outputs=[api.output("scores", class_count=3)])
    classes = result.as_numpy("scores")
    assert classes.shape == (2, 3)
    labels = (ROOT / "examples/repository/digits/labels.txt").read_text().splitlines()
    for row, best in zip(scores, classes):
        order = np.argsort(-row, kind="stable")[:3]
        for index, text in zip(order, best):
            value, number, label = text.decode().split(":", 2)
            assert int(number) == index
            assert float(value) == pytest.approx(float(row[index]), rel=1e-4)
            assert label == labels[index]


def test_large_tensors_pass(api: Api) -> None:
    x = np.zeros(100 * 2**20 // 4, np.float32)
    x[[5, 1000, -1]] = 1
    result = api.infer("nonzero", {"x": x})
    check(result, {"indices": np.array([[5, 1000, len(x) - 1]], np.int64)})
    # And back: one string of 100 MiB.
    long = np.array([[b"x" * (100 * 2**20)]], dtype=object)
    short = np.array([[b"end"]], dtype=object)
    both = api.infer("text", {"a": long, "b": short}).as_numpy("both")
    assert both.shape == (1, 2)
    assert len(both[0, 0]) == 100 * 2**20
    assert both[0, 1] == b"end"


def test_a_timeout_in_the_queue(api: Api) -> None:
    """Of requests that wait behind others, those with a short timeout are given up."""
    rows = np.ones((32, 64), np.float32)
    if not api.is_grpc:
        waiting = [api.client.async_infer("slow", api.inputs({"x": rows})) for _ in range(7)]
    else:
        answers: queue.Queue = queue.Queue()
        for _ in range(7):
            api.client.async_infer(
                "slow", api.inputs({"x": rows}), lambda result, error: answers.put(error)
            )
    with pytest.raises(InferenceServerException) as refused:
        api.infer("slow", {"x": rows}, timeout=1)
    assert "Request timeout expired" in refused.value.message()
    assert refused.value.status() in ("StatusCode.UNAVAILABLE", "503")
    if not api.is_grpc:
        for each in waiting:
            each.get_result()
    else:
        for _ in range(7):
            assert answers.get(timeout=60) is None


def test_requests_that_are_called_off_do_not_run(grpc_api: Api) -> None:
    def rows_run() -> int:
        (stats,) = grpc_api.as_json("get_inference_statistics", "slow")["model_stats"]
        return int(stats.get("inference_count", 0))

    rows = np.ones((32, 64), np.float32)
    before = rows_run()
    answers: queue.Queue = queue.Queue()
    calls = [
        grpc_api.client.async_infer(
            "slow", grpc_api.inputs({"x": rows}), lambda result, error: answers.put(error)
        )
        for _ in range(60)
    ]
    for call in calls:
        call.cancel()
    errors = [answers.get(timeout=60) for _ in calls]
    assert sum("CANCELLED" in str(error) for error in errors) > 0
    # This one waits behind whatever was not called off in time.
    grpc_api.infer("slow", {"x": rows})
    assert rows_run() - before < 61 * 32


def test_a_deadline_of_the_caller(grpc_api: Api) -> None:
    rows = np.ones((32, 64), np.float32)
    with pytest.raises(InferenceServerException) as refused:
        for _ in range(1000):
            grpc_api.infer("slow", {"x": rows}, client_timeout=0.0005)
    # Whoever was first with it, client or server.
    assert refused.value.status() == "StatusCode.DEADLINE_EXCEEDED"
