"""Arrays over shared memory keep what they show."""

from __future__ import annotations

import gc
import weakref

import adjoin
import numpy as np
import pytest
from conftest import Server, wait_for


def rows(value: float) -> np.ndarray:
    return np.full((1, 4), value, np.float32)


def test_outputs_lie_in_shared_memory_and_inputs_too(client: adjoin.Client) -> None:
    request = client.model("add").request(batch=4)
    regions = {}
    with open("/proc/self/maps") as maps:
        for line in maps:
            if "adjoin-re" in line:
                start, end = (int(part, 16) for part in line.split()[0].split("-"))
                name = "request" if "adjoin-request" in line else "response"
                regions.setdefault(name, []).append((start, end, line.split()[1]))

    def region_of(array: np.ndarray) -> tuple[str, str]:
        at = array.__array_interface__["data"][0]
        return next(
            (name, mode)
            for name, all in regions.items()
            for start, end, mode in all
            if start <= at < end
        )

    assert region_of(request["a"]) == ("request", "rw-s")
    with request.infer() as result:
        assert region_of(result["sum"]) == ("response", "r--s")


def test_array_that_is_kept_does_not_change_with_later_runs(client: adjoin.Client) -> None:
    request = client.model("add").request()
    kept = []
    for run in range(10):
        request["a"][:], request["b"][:] = run, 1
        with request.infer() as result:
            kept.append(result["sum"][0, 1:])
    assert [array.tolist() for array in kept] == [[run + 1.0] * 3 for run in range(10)]


def test_result_that_is_kept_does_not_change_with_later_runs(client: adjoin.Client) -> None:
    request = client.model("add").request()
    results = []
    for run in range(6):
        request["a"][:], request["b"][:] = run, 1
        results.append(request.infer())
    assert [float(result["sum"][0, 0]) for result in results] == [run + 1.0 for run in range(6)]
    assert [result.stats.batch_size for result in results] == [1] * 6


def test_places_take_turns_while_one_array_is_kept(client: adjoin.Client) -> None:
    request = client.model("add").request()
    places = set()
    output = None
    for run in range(40):
        request["a"][:], request["b"][:] = run, 0
        with request.infer() as result:
            if output is not None:
                assert (output == run - 1).all()
            output = result["sum"]
        places.add(output.__array_interface__["data"][0])
    assert len(places) == 2


def test_every_kind_of_view_keeps_its_place(client: adjoin.Client) -> None:
    request = client.model("add").request()
    kinds = [
        lambda array: array,
        lambda array: array[0],
        lambda array: array.T,
        lambda array: array.reshape(4),
        lambda array: array.view(np.uint8),
        np.asarray,
        memoryview,
        np.from_dlpack,
    ]
    for kind in kinds:
        request["a"][:], request["b"][:] = 3, 4
        with request.infer() as result:
            view = kind(result["sum"])
            seen = np.array(view)
        for run in range(5):
            request["a"][:] = run
            request.infer().release()
        assert (np.array(view) == seen).all()
        del view, result


def test_same_array_is_given_again_while_nothing_keeps_it(client: adjoin.Client) -> None:
    request = client.model("add").request()
    identities = set()
    for _ in range(20):
        with request.infer() as result:
            identities.add(result["sum"].__array_interface__["data"][0])
    assert len(identities) == 1


def test_arrays_outlive_request_model_and_client(shared_server: Server) -> None:
    client = shared_server.client(name="outlived")
    request = client.model("add").request()
    a = request["a"]
    a[:] = 7
    request["b"][:] = 1
    output = request.infer()["sum"]
    client.close()
    del client, request
    gc.collect()
    assert (a == 7).all() and (output == 8).all()
    # The session is there as long as what lies in it is shown.
    assert shared_server.sessions("outlived") == 1
    del a, output
    wait_for("the session is closed", lambda: shared_server.sessions("outlived") == 0)


def test_input_that_is_kept_is_no_other_requests(client: adjoin.Client) -> None:
    model = client.model("add")
    kept = model.request()["a"]
    kept[:] = 5
    others = [model.request() for _ in range(8)]
    for other in others:
        other["a"][:], other["b"][:] = 1, 1
        assert (other.infer()["sum"] == 2).all()
    assert (kept == 5).all()


def test_nothing_here_waits_for_the_garbage_collector(client: adjoin.Client) -> None:
    gc.disable()
    try:
        request = client.model("add").request()
        a = request["a"]
        result = request.infer()
        output = result["sum"]
        watched = [weakref.ref(array) for array in (a, output)]
        del request, a, result, output
        assert [watch() for watch in watched] == [None, None]
    finally:
        gc.enable()


def test_session_of_a_client_that_is_only_dropped_is_closed(shared_server: Server) -> None:
    client = shared_server.client(name="dropped")
    model = client.model("add")
    model(a=rows(1), b=rows(1))
    assert shared_server.sessions("dropped") == 1
    del client, model
    wait_for("the session is closed", lambda: shared_server.sessions("dropped") == 0)


def test_requests_that_are_gone_give_their_memory_back(shared_server: Server) -> None:
    with shared_server.client(request_bytes=1 << 17, response_bytes=1 << 17) as client:
        model = client.model("add")
        for _ in range(50):
            request = model.request(batch=500)
            request.infer()
        with model.request(batch=1000) as request:
            kept = request["a"]
        with pytest.raises(adjoin.RequestRegionFull):
            [model.request(batch=1000) for _ in range(8)]
        assert kept.shape == (1000, 4)


def test_computing_gives_plain_arrays(client: adjoin.Client) -> None:
    request = client.model("add").request()
    output = request.infer()["sum"]
    assert type(output) is adjoin.OutputArray
    assert type(output * 2) is np.ndarray
    assert type(np.exp(output)) is np.ndarray
    assert isinstance(output.sum(), np.floating)
    assert type(np.array(output)) is np.ndarray
    import pickle

    assert (pickle.loads(pickle.dumps(output)) == output).all()
