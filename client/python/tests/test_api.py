"""What the package offers, as a user writes it."""

from __future__ import annotations

import os
import pickle

import adjoin
import numpy as np
import pytest
from conftest import Server


def test_the_documented_example_works(shared_server: Server, digits, monkeypatch) -> None:
    images, labels = digits
    with adjoin.connect(shared_server.socket_dir) as client:
        model = client.model("digits")
        request = model.request(batch=4)
        request["image"][:] = images[:4]
        with request.infer(timeout=10.0) as result:
            assert result["scores"].argmax(1).tolist() == labels[:4].tolist()
        y = model(image=images[:4])
        assert y["scores"].argmax(1).tolist() == labels[:4].tolist()
        futures = [model.submit(image=image[None]) for image in images[:16]]
        found = [future.result()["scores"].argmax() for future in futures]
        assert np.mean(found == labels[:16]) > 0.9
    monkeypatch.setenv("ADJOIN_SOCKET_DIR", shared_server.socket_dir)
    with adjoin.connect() as client:
        assert client.socket_dir == shared_server.socket_dir


def test_client_knows_its_session(shared_server: Server) -> None:
    with shared_server.client(ring_entries=16, name="knows") as client:
        assert client.session_id > 0
        assert client.server_version
        assert client.in_flight_max == 16
        assert client.reconnects == 0
        assert not client.closed
    assert client.closed
    assert "closed" in repr(client)


def test_model_is_described(client: adjoin.Client) -> None:
    model = client.model("gather")
    assert (model.name, model.version, model.versions, model.ready) == ("gather", 1, (1,), True)
    assert model.engine == "onnxruntime"
    table, index = model.inputs
    assert (table.name, table.datatype, table.shape) == ("table", "FP32", (8, 4))
    assert table.dtype == np.float32
    assert (index.name, index.dtype, index.shape) == ("index", np.int64, (None,))
    assert index.dimensions == ("n",)
    assert [output.name for output in model.outputs] == ["rows"]
    assert "gather" in repr(model) and "[n]" in repr(index)
    assert index == client.model("gather").inputs[1]


def test_versions_and_labels(make_server) -> None:
    config = "[models.add]\nversion_policy = 'all'\nlabels = { stable = 1 }\n"
    server = make_server(["add"], config)
    with server.client() as client:
        assert client.model("add", version=1).version == 1
        assert client.model("add", label="stable").version == 1
        with pytest.raises(adjoin.VersionNotFound, match="version 9"):
            client.model("add", version=9)
        with pytest.raises(adjoin.VersionNotFound, match="nightly"):
            client.model("add", label="nightly")


def test_shapes_by_batch_by_dimension_and_whole(client: adjoin.Client) -> None:
    assert client.model("add").request()["a"].shape == (1, 4)
    assert client.model("add").request(3)["a"].shape == (3, 4)
    assert client.model("gather").request(n=5)["index"].shape == (5,)
    request = client.model("add").request(shapes={"a": (2, 4), "b": [2, 4]})
    assert request["b"].shape == (2, 4)
    assert client.model("fixed").request()["x"].shape == (2, 3)
    assert list(request) == ["a", "b"] and len(request) == 2 and "a" in request
    assert request.keys() == ("a", "b")


def test_request_is_run_again_and_again(client: adjoin.Client) -> None:
    request = client.model("add").request(batch=2)
    a, b = request["a"], request["b"]
    assert a.flags.writeable and a.flags.c_contiguous and a.dtype == np.float32
    b[:] = 1
    for run in range(50):
        a[:] = run
        with request.infer() as result:
            assert (result["sum"] == run + 1).all()
    assert request["a"] is a


def test_result_is_a_mapping_with_stats(client: adjoin.Client) -> None:
    request = client.model("add").request(batch=2)
    request["a"] = np.full((2, 4), 2, np.float32)
    request["b"] = np.full((2, 4), 3, np.float32)
    with request.infer(priority=1, deadline=30.0) as result:
        assert result.keys() == ("sum",) and list(result) == ["sum"] and len(result) == 1
        assert "sum" in result and "total" not in result
        assert dict(result)["sum"] is result["sum"]
        assert result.items()[0][1] is result.values()[0]
        stats = result.stats
        assert (stats.batch_size, stats.model_version) == (2, 1)
        assert stats.queue > 0 and stats.execute > 0 and not stats.is_output_copied
        owned = result.copy()["sum"]
        assert type(owned) is np.ndarray and owned.base is None and owned.flags.writeable
        assert not result.released
    assert result.released and "released" in repr(result)
    assert (owned == 5).all()


def test_outputs_can_be_chosen(client: adjoin.Client) -> None:
    model = client.model("add")
    ones = np.ones((1, 4), np.float32)
    assert list(model(a=ones, b=ones, outputs=["sum"])) == ["sum"]
    request = model.request(outputs=["sum"])
    request["a"], request["b"] = ones, ones
    assert list(request.infer()) == ["sum"]


def test_short_form_takes_whatever_is_an_array(client: adjoin.Client) -> None:
    model = client.model("add")
    wide = np.arange(32, dtype=np.float32).reshape(4, 8)
    strided, turned = wide[:, ::2], np.asfortranarray(wide[:, 4:])
    y = model(a=strided, b=turned)["sum"]
    assert (y == strided + turned).all()
    assert type(y) is np.ndarray and y.base is None and y.flags.writeable
    assert (model({"a": strided, "b": turned})["sum"] == y).all()
    assert (model({"a": strided}, b=turned)["sum"] == y).all()
    assert (model(a=[[1, 2, 3, 4]], b=[[0.5] * 4])["sum"] == [[1.5, 2.5, 3.5, 4.5]]).all()
    ones = memoryview(np.ones((1, 4), np.float32))
    assert (model(a=ones, b=ones)["sum"] == 2).all()
    read_only = np.ones((1, 4), np.float32)
    read_only.flags.writeable = False
    assert (model(a=read_only, b=read_only)["sum"] == 2).all()


def test_output_whose_size_only_the_run_shows(client: adjoin.Client) -> None:
    model = client.model("nonzero")
    for values in ([0, 3, 0, -1], [0, 0], [1, 2, 3]):
        x = np.array(values, np.float32)
        assert (model(x=x)["indices"] == np.nonzero(x)[0]).all()
    request = model.request(n=4)
    for values in ([0, 3, 0, -1], [1, 1, 1, 1], [0, 0, 0, 0]):
        request["x"][:] = values
        with request.infer() as result:
            assert result["indices"].tolist() == [np.flatnonzero(values).tolist()]
            assert result.stats.is_output_copied


def test_many_futures_pass_through_a_small_session(shared_server: Server) -> None:
    with shared_server.client(ring_entries=8, request_bytes=1 << 17) as client:
        model = client.model("add")
        b = np.ones((1, 4), np.float32)
        futures = [model.submit(a=np.full((1, 4), i, np.float32), b=b) for i in range(500)]
        assert [int(future.result()["sum"][0, 0]) for future in futures] == list(range(1, 501))


def test_futures_of_large_outputs_find_room(shared_server: Server) -> None:
    with shared_server.client(request_bytes=1 << 20, response_bytes=1 << 18) as client:
        model = client.model("add")
        ones = np.ones((4096, 4), np.float32)
        futures = [model.submit(a=ones * i, b=ones) for i in range(40)]
        assert [int(future.result()["sum"][7, 0]) for future in futures] == list(range(1, 41))


def test_future_of_a_request_gives_a_result(client: adjoin.Client) -> None:
    request = client.model("add").request()
    request["a"][:], request["b"][:] = 1, 2
    future = request.submit(deadline=30.0)
    with future.result(timeout=30.0) as result:
        assert (result["sum"] == 3).all()
    assert future.done() and not future.cancel() and future.exception() is None
    assert "done" in repr(future)
    request["a"][:] = 5
    assert (request.infer()["sum"] == 7).all()


def test_exceptions_carry_what_a_program_needs(client: adjoin.Client) -> None:
    with pytest.raises(adjoin.ModelNotFound, match='"nope"') as caught:
        client.model("nope")
    error = caught.value
    assert isinstance(error, (adjoin.Error, LookupError))
    assert (error.status, error.retryable, error.may_have_run) == ("model_not_found", False, False)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is adjoin.ModelNotFound and str(again) == str(error)
    assert again.status == "model_not_found"
    for name in adjoin.errors.__dict__.values():
        if isinstance(name, type) and issubclass(name, Exception):
            assert issubclass(name, adjoin.Error) and name.__doc__


def test_environment_is_read_at_each_call(monkeypatch, tmp_path) -> None:
    monkeypatch.setitem(os.environ, "ADJOIN_SOCKET_DIR", str(tmp_path))
    with pytest.raises(adjoin.ServerUnavailable, match=str(tmp_path)):
        adjoin.connect()
