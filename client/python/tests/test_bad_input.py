"""What a program does wrong, and what it is told."""

from __future__ import annotations

import adjoin
import numpy as np
import pytest
from conftest import Server

ONES = np.ones((1, 4), np.float32)


def test_wrong_data_type_says_expected_and_got(client: adjoin.Client) -> None:
    model = client.model("add")
    with pytest.raises(adjoin.DataTypeMismatch, match="float64.*takes float32") as caught:
        model(a=np.ones((1, 4)), b=ONES)
    assert isinstance(caught.value, (TypeError, ValueError)) and "astype" in str(caught.value)
    with pytest.raises(adjoin.DataTypeMismatch, match=r">f4.*float32"):
        model(a=ONES.astype(">f4"), b=ONES)
    request = model.request()
    with pytest.raises(adjoin.DataTypeMismatch, match="int64.*takes float32"):
        request["a"] = np.ones((1, 4), np.int64)


def test_lists_are_not_converted_with_a_loss(client: adjoin.Client) -> None:
    scale = client.model("scale_u8")
    name = scale.inputs[0].name
    for values, got in (
        ([[1.7]], "float64.*1.7"),
        ([[256]], "256"),
        ([[-1]], "-1"),
        ([["1"]], "U1"),
    ):
        with pytest.raises(adjoin.DataTypeMismatch, match=rf'"{name}".*{got}.*uint8 \(UINT8\)'):
            scale({name: values})
    model = client.model("add")
    for values in ([["1.5"] * 4], [[1e300] * 4], [[1j] * 4], [[None] * 4]):
        with pytest.raises(adjoin.DataTypeMismatch, match=r'"a".*float32 \(FP32\)'):
            model(a=values, b=ONES)
    with pytest.raises(adjoin.DataTypeMismatch):
        model.request()["a"] = [["1"] * 4]
    table = np.zeros((8, 4), np.float32)
    with pytest.raises(adjoin.DataTypeMismatch, match="1.7.*int64"):
        client.model("gather")(table=table, index=[1.7])
    with pytest.raises(adjoin.DataTypeMismatch, match="int64"):
        client.model("gather")(table=table, index=[1 << 63])
    assert (client.model("gather")(table=table, index=[7, True])["rows"] == 0).all()
    y = model(a=[[1, 0.1, float("inf"), True]], b=[[1, 1, 1, 1]])["sum"]
    assert (y == np.array([[2, np.float32(0.1) + 1, np.inf, 2]], np.float32)).all()


def test_array_that_is_resized_while_another_input_is_converted(client: adjoin.Client) -> None:
    model = client.model("add")

    class Resizes:
        """Changes the first input when it is asked for the second one."""

        def __init__(self, first: np.ndarray, rows: int) -> None:
            self.first, self.rows = first, rows

        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            self.first.resize((self.rows, 4), refcheck=False)
            return np.ones((2, 4), np.float32)

    for rows in (0, 1, 4000):
        first = np.ones((2, 4), np.float32)
        with pytest.raises(adjoin.ShapeMismatch):
            model(a=first, b=Resizes(first, rows))
    first = np.ones((1, 4), np.float32)
    first.resize((2, 4), refcheck=False)
    assert model(a=first, b=Resizes(first, 2))["sum"].shape == (2, 4)


def test_wrong_shape_says_expected_and_got(client: adjoin.Client) -> None:
    model = client.model("add")
    with pytest.raises(adjoin.ShapeMismatch, match=r"\[1,5\].*\[batch,4\]"):
        model(a=np.ones((1, 5), np.float32), b=ONES)
    with pytest.raises(adjoin.ShapeMismatch, match="one size in all inputs"):
        model(a=np.ones((2, 4), np.float32), b=ONES)
    empty = np.empty((0, 4), np.float32)
    with pytest.raises(adjoin.ShapeMismatch, match="at least one row"):
        model(a=empty, b=empty)
    request = model.request(batch=2)
    with pytest.raises(adjoin.ShapeMismatch, match=r"\[1, 4\].*\[2, 4\]"):
        request["a"] = ONES
    with pytest.raises(ValueError, match="broadcast"):
        request["a"][:] = np.ones((3, 4), np.float32)
    with pytest.raises(adjoin.ShapeMismatch, match=r"\[2,4\].*\[batch,5\]|\[batch,4\]"):
        model.request(shapes={"a": (2, 5), "b": (2, 4)})


def test_more_rows_than_the_model_runs(make_server) -> None:
    server = make_server(["add"], "max_batch_size = 4\n")
    with server.client() as client, pytest.raises(adjoin.BatchTooLarge, match="5 rows.*at most 4"):
        client.model("add")(a=np.ones((5, 4), np.float32), b=np.ones((5, 4), np.float32))


def test_rows_are_counted_when_the_request_is_made(make_server) -> None:
    server = make_server(["add", "gather"], "[models.add]\nmax_batch_size = 4\n")
    with server.client() as client:
        model = client.model("add")
        for make in (lambda n: model.request(batch=n), lambda n: model.request(n)):
            with pytest.raises(adjoin.ShapeMismatch, match='"a".*0 rows.*at least 1.*at most 4'):
                make(0)
            with pytest.raises(adjoin.BatchTooLarge, match="5 rows.*at most 4"):
                make(5)
        with pytest.raises(adjoin.BatchTooLarge):
            model.request(shapes={"a": (5, 4), "b": (5, 4)})
        assert model.request(4)["a"].shape == (4, 4)
        # Its first dimension is a length.
        assert client.model("gather").request(n=64)["index"].shape == (64,)


def test_model_is_asked_for_by_version_or_label(client: adjoin.Client) -> None:
    with pytest.raises(adjoin.InvalidRequest, match='version 1 and by label "stable"'):
        client.model("add", version=1, label="stable")


def test_options_of_the_wrong_kind_say_the_right_one(client: adjoin.Client) -> None:
    model = client.model("add")
    for use in (model, model.submit, model.infer_async):
        with pytest.raises(TypeError, match=r"outputs is 'sum'.*\['sum'\]"):
            use(a=ONES, b=ONES, outputs="sum")
        with pytest.raises(ValueError, match="priority is -1.*from 0 to 65535"):
            use(a=ONES, b=ONES, priority=-1)
    with pytest.raises(TypeError, match="outputs is 'sum'"):
        model.request(outputs="sum")
    with pytest.raises(ValueError, match="priority is 65536"):
        model.request().infer(priority=1 << 16)
    text = client.model("text")
    name = text.inputs[0].name
    with pytest.raises(adjoin.DataTypeMismatch, match="type bytearray.*str or bytes"):
        text({name: [[bytearray(b"ab")]]})
    assert model(a=ONES, b=ONES, outputs=("sum",), priority=0).keys() == {"sum"}
    assert model(a=ONES, b=ONES, outputs=None).keys() == {"sum"}


def test_open_dimensions_have_to_be_given(client: adjoin.Client) -> None:
    with pytest.raises(adjoin.ShapeMismatch, match="width=... or shapes="):
        client.model("text").request(batch=2)
    with pytest.raises(adjoin.ShapeMismatch, match='no open dimension "rows".*"a" \\[batch,4\\]'):
        client.model("add").request(rows=2)
    with pytest.raises(adjoin.ShapeMismatch):
        client.model("add").request(batch=-1)
    with pytest.raises(TypeError):
        client.model("add").request(batch="two")


def test_wrong_names_say_what_there_is(client: adjoin.Client) -> None:
    model = client.model("add")
    with pytest.raises(adjoin.TensorNotFound, match='no input "c"; it takes "a", "b"'):
        model(a=ONES, c=ONES)
    with pytest.raises(adjoin.TensorNotFound, match='"b".*is missing'):
        model(a=ONES)
    with pytest.raises(adjoin.InvalidRequest, match='"a" is named twice'):
        model({"a": ONES, "b": ONES}, a=ONES)
    with pytest.raises(adjoin.TensorNotFound, match='no output "y"; it gives "sum"'):
        model(a=ONES, b=ONES, outputs=["y"])
    with pytest.raises(adjoin.TensorNotFound, match='"c".*"a", "b"'):
        model.request(shapes={"c": (1, 4)})
    with pytest.raises(adjoin.TensorNotFound, match="'c'.*\"a\""):
        model.request()["c"]
    with pytest.raises(TypeError, match="list"):
        model([ONES, ONES])
    request = model.request()
    with request.infer() as result, pytest.raises(LookupError, match="'y'.*\"sum\""):
        result["y"]


def test_array_that_is_not_contiguous_is_refused_in_place_with_advice(
    client: adjoin.Client,
) -> None:
    request = client.model("add").request(batch=4)
    turned = np.asfortranarray(np.arange(16, dtype=np.float32).reshape(4, 4))
    with pytest.raises(adjoin.NotContiguous, match=r'request\["a"\]\[:\] = array'):
        request["a"] = turned
    request["a"][:] = turned
    request["b"] = np.ascontiguousarray(turned)
    assert (request.infer()["sum"] == 2 * turned).all()


def test_outputs_cannot_be_written(client: adjoin.Client) -> None:
    request = client.model("add").request()
    with request.infer() as result:
        scores = result["sum"]
        with pytest.raises(ValueError, match="read-only"):
            scores[:] = 0
        with pytest.raises(ValueError):
            scores.flags.writeable = True
        with pytest.raises(ValueError):
            scores[0].setflags(write=True)
        with pytest.raises(ValueError, match="read-only"):
            np.add(scores, 1, out=scores)


def test_released_result_is_not_looked_up_any_more(client: adjoin.Client) -> None:
    request = client.model("add").request()
    with request.infer() as result:
        pass
    for look in (
        lambda: result["sum"],
        lambda: result.stats,
        lambda: list(result),
        lambda: len(result),
        result.copy,
        result.items,
    ):
        with pytest.raises(adjoin.Released, match="released"):
            look()
    result.release()


def test_closed_client_and_request(shared_server: Server) -> None:
    client = shared_server.client()
    model = client.model("add")
    request, other = model.request(), model.request()
    a = request["a"]
    a[:] = 1
    result = request.infer()
    other.close()
    with pytest.raises(adjoin.Released, match="closed"):
        other.infer()
    with pytest.raises(adjoin.Released):
        other["a"]
    client.close()
    client.close()
    for use in (
        request.infer,
        request.submit,
        lambda: request["a"],
        lambda: model(a=ONES, b=ONES),
        lambda: model.submit(a=ONES, b=ONES),
        model.request,
        lambda: client.model("add"),
    ):
        with pytest.raises(adjoin.Closed, match="connect again"):
            use()
    # What was given out stays.
    assert (a == 1).all()
    assert result["sum"].shape == (1, 4)


def test_request_that_is_with_the_server_is_not_touched(client: adjoin.Client) -> None:
    request = client.model("slow").request(batch=8)
    request["x"][:] = 1
    future = request.submit()
    with pytest.raises(adjoin.RequestBusy, match="wait for its result"):
        request["x"]
    with pytest.raises(adjoin.RequestBusy):
        request.infer()
    future.result()
    request["x"]


def test_too_small_a_region_says_what_to_set(shared_server: Server) -> None:
    rows = np.ones((10_000, 4), np.float32)
    with shared_server.client(request_bytes=1 << 17) as client:
        with pytest.raises(adjoin.RequestRegionFull, match="320000 bytes.*request_bytes"):
            client.model("add").request(batch=10_000)
        with pytest.raises(MemoryError, match="request_bytes"):
            client.model("add")(a=rows, b=rows)
    with shared_server.client(response_bytes=1 << 17) as client:
        with pytest.raises(
            adjoin.ResponseRegionFull, match="160256 bytes.*response_bytes"
        ) as caught:
            client.model("add")(a=rows, b=rows)
        assert caught.value.status == "response_region_full"
        with pytest.raises(adjoin.ResponseRegionFull, match="response_bytes"):
            client.model("add").submit(a=rows, b=rows).result()


def test_impossible_options(shared_server: Server) -> None:
    with pytest.raises(adjoin.SessionRefused, match="power of two"):
        shared_server.client(ring_entries=7)
    with pytest.raises(adjoin.SessionRefused, match="bytes is not possible"):
        shared_server.client(request_bytes=1 << 50)
    with pytest.raises(ValueError, match="timeout is -1"):
        shared_server.client(answer_timeout=-1)
    with shared_server.client() as client:
        request = client.model("add").request()
        for timeout in (-1.0, float("nan")):
            with pytest.raises(ValueError, match="timeout"):
                request.infer(timeout=timeout)
        with request.infer(timeout=float("inf")) as result:
            assert len(result) == 1


def test_what_is_no_server(tmp_path) -> None:
    with pytest.raises(adjoin.ServerUnavailable, match="adjoin serve") as caught:
        adjoin.connect(tmp_path / "nothing")
    assert isinstance(caught.value, ConnectionError) and caught.value.retryable
    (tmp_path / "attach.sock").write_text("a file")
    with pytest.raises(adjoin.Error):
        adjoin.connect(tmp_path)


def test_without_a_gpu_there_is_no_memory_of_one(client: adjoin.Client) -> None:
    # Here, or with the server.
    with pytest.raises(adjoin.DeviceUnavailable, match="driver|uses no GPU"):
        client.device_region(1 << 20)
    client.model("add")(a=ONES, b=ONES)
