"""Write the tiny models that the tests load, next to this script.

The .onnx files are checked in, so that the tests need no Python. Run this script
after a change to a model; with `--check` it writes nothing, and instead runs the
files that are there in onnxruntime, compares their answers with numpy's, and
tells when a file is not what the script would write.

  add        two inputs, the plain case
  scale_u8   an input and an output of different types
  gather     reads a table by the indices it is given, without looking at them
             first: shows whether a server copies its inputs before they are used
  nonzero    an output whose size is known only after the run
  fixed      no dynamic dimension, so no batching
  slow       some milliseconds of real work, see `slow`
  half       float16
  bf16       bfloat16
  text       strings
  ints       int32 and int64
  shades     a convolution that scores small images, for pipelines
  negatives  images of any size in float32 and float16, each with its sign changed

Needs: pip install -r demo/digits/requirements.txt
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).resolve().parent

OPSET = 17
IR_VERSION = 8
SIZE_LIMIT = 20_000

SLOW_WIDTH = 64
SLOW_ROUNDS = 2000
SLOW_STEPS = 8

FLOAT = TensorProto.FLOAT
FLOAT16 = TensorProto.FLOAT16
BFLOAT16 = TensorProto.BFLOAT16
STRING = TensorProto.STRING
UINT8 = TensorProto.UINT8
INT32 = TensorProto.INT32
INT64 = TensorProto.INT64

# A tensor's name, element type and shape.
Tensor = tuple[str, int, list]
Arrays = dict[str, np.ndarray]


def graph(
    name: str,
    inputs: list[Tensor],
    outputs: list[Tensor],
    nodes: list[onnx.NodeProto],
    constants: Arrays | None = None,
) -> onnx.GraphProto:
    return helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info(*tensor) for tensor in inputs],
        [helper.make_tensor_value_info(*tensor) for tensor in outputs],
        [numpy_helper.from_array(v, k) for k, v in (constants or {}).items()],
    )


def add() -> onnx.GraphProto:
    return graph(
        "add",
        [("a", FLOAT, ["batch", 4]), ("b", FLOAT, ["batch", 4])],
        [("sum", FLOAT, ["batch", 4])],
        [helper.make_node("Add", ["a", "b"], ["sum"])],
    )


def scale_u8() -> onnx.GraphProto:
    return graph(
        "scale_u8",
        [("x", UINT8, ["batch", 16])],
        [("y", FLOAT, ["batch", 16])],
        [
            helper.make_node("Cast", ["x"], ["number"], to=FLOAT),
            helper.make_node("Mul", ["number", "scale"], ["y"]),
        ],
        {"scale": np.array(0.5, np.float32)},
    )


def gather() -> onnx.GraphProto:
    return graph(
        "gather",
        [("table", FLOAT, [8, 4]), ("index", INT64, ["n"])],
        [("rows", FLOAT, ["n", 4])],
        [helper.make_node("Gather", ["table", "index"], ["rows"], axis=0)],
    )


def nonzero() -> onnx.GraphProto:
    return graph(
        "nonzero",
        [("x", FLOAT, ["n"])],
        [("indices", INT64, [1, "count"])],
        [helper.make_node("NonZero", ["x"], ["indices"])],
    )


def fixed() -> onnx.GraphProto:
    return graph(
        "fixed",
        [("x", FLOAT, [2, 3])],
        [("y", FLOAT, [2, 3])],
        [helper.make_node("Relu", ["x"], ["y"])],
    )


def slow() -> onnx.GraphProto:
    """Thousands of matrix products with an answer that is easy to check.

    The matrix is the reflection I - (2/n) J, where J is all ones: it takes twice
    a row's mean away from each of its values, and a second time gives the row
    back. So nothing grows or fades however often it is applied, and as the number
    of times is odd the answer is x - 2 mean(x), of each row by itself. All the
    entries are exact in float32, so for integers up to 1000 every sum is exact
    too: the answer does not depend on the order of the sums, and so not on the
    batch size or the number of threads.

    The matrix is made when the model is loaded, to keep its 4096 entries out of
    the file.
    """
    shape = np.array([SLOW_WIDTH, SLOW_WIDTH], np.int64)
    fill = numpy_helper.from_array(np.array([-2 / SLOW_WIDTH], np.float32))
    return graph(
        "slow",
        [("x", FLOAT, ["batch", SLOW_WIDTH])],
        [("y", FLOAT, ["batch", SLOW_WIDTH])],
        [
            helper.make_node("ConstantOfShape", ["shape"], ["spread"], value=fill),
            helper.make_node("EyeLike", ["spread"], ["eye"]),
            helper.make_node("Add", ["spread", "eye"], ["reflection"]),
            helper.make_node(
                "Loop", ["rounds", "", "x"], ["looped"], body=slow_round()
            ),
            helper.make_node("MatMul", ["looped", "reflection"], ["y"]),
        ],
        {"shape": shape, "rounds": np.array(SLOW_ROUNDS, np.int64)},
    )


def slow_round() -> onnx.GraphProto:
    """The body of the loop: an even number of reflections.

    Several in each round, so that the time goes into the products and not into
    the loop around them.
    """
    assert SLOW_STEPS % 2 == 0
    names = ["before", *(f"step{n}" for n in range(1, SLOW_STEPS)), "after"]
    products = [
        helper.make_node("MatMul", [x, "reflection"], [y]) for x, y in pairwise(names)
    ]
    return graph(
        "round",
        [
            ("round", INT64, []),
            ("go", TensorProto.BOOL, []),
            ("before", FLOAT, ["batch", SLOW_WIDTH]),
        ],
        [("go_on", TensorProto.BOOL, []), ("after", FLOAT, ["batch", SLOW_WIDTH])],
        [helper.make_node("Identity", ["go"], ["go_on"]), *products],
    )


def half() -> onnx.GraphProto:
    return graph(
        "half",
        [("x", FLOAT16, ["batch", 8])],
        [("y", FLOAT16, ["batch", 8])],
        [helper.make_node("Add", ["x", "x"], ["y"])],
    )


def bf16() -> onnx.GraphProto:
    return graph(
        "bf16",
        [("x", BFLOAT16, ["batch", 8])],
        [("y", BFLOAT16, ["batch", 8])],
        [
            helper.make_node("Cast", ["x"], ["wide"], to=FLOAT),
            helper.make_node("Add", ["wide", "wide"], ["twice"]),
            helper.make_node("Cast", ["twice"], ["y"], to=BFLOAT16),
        ],
    )


def text() -> onnx.GraphProto:
    return graph(
        "text",
        [("a", STRING, ["batch", "width"]), ("b", STRING, ["batch", "rest"])],
        [("both", STRING, ["batch", "total"])],
        [helper.make_node("Concat", ["a", "b"], ["both"], axis=1)],
    )


def ints() -> onnx.GraphProto:
    return graph(
        "ints",
        [("a", INT32, ["batch", 4]), ("b", INT64, ["batch", 4])],
        [("sum", INT64, ["batch", 4])],
        [
            helper.make_node("Cast", ["a"], ["wide"], to=INT64),
            helper.make_node("Add", ["wide", "b"], ["sum"]),
        ],
    )


def shades_weights() -> np.ndarray:
    """Four filters over three channels: small integers, so that sums are exact."""
    o, c, i, j = np.indices((4, 3, 2, 2))
    return ((3 * o + 5 * c + 2 * i + j) % 7 - 3).astype(np.float32)


def shades() -> onnx.GraphProto:
    return graph(
        "shades",
        [("pixels", FLOAT, ["batch", 3, 8, 8])],
        [("scores", FLOAT, ["batch", 4])],
        [
            helper.make_node("Conv", ["pixels", "filters"], ["raw"], strides=[2, 2]),
            helper.make_node("Relu", ["raw"], ["bright"]),
            helper.make_node("GlobalAveragePool", ["bright"], ["mean"]),
            helper.make_node("Flatten", ["mean"], ["scores"]),
        ],
        {"filters": shades_weights()},
    )


def negatives() -> onnx.GraphProto:
    """What it is given can be read off what it gives, to the last bit."""
    shape = ["batch", 3, "height", "width"]
    return graph(
        "negatives",
        [("single", FLOAT, shape), ("half", FLOAT16, shape)],
        [("single_out", FLOAT, shape), ("half_out", FLOAT16, shape)],
        [
            helper.make_node("Neg", ["single"], ["single_out"]),
            helper.make_node("Neg", ["half"], ["half_out"]),
        ],
    )


MODELS: dict[str, Callable[[], onnx.GraphProto]] = {
    function.__name__: function
    for function in (
        add, scale_u8, gather, nonzero, fixed, slow, half, bf16, text, ints, shades,
        negatives,
    )
}


def serialised(name: str) -> bytes:
    model = helper.make_model(
        MODELS[name](),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="adjoin",
    )
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def path_of(name: str) -> Path:
    return HERE / f"{name}.onnx"


def examples(rng: np.random.Generator) -> list[tuple[str, Arrays, Arrays]]:
    """For each model: its name, inputs, and the outputs numpy gives for them."""
    cases: list[tuple[str, Arrays, Arrays]] = []

    def case(name: str, inputs: Arrays, **outputs: np.ndarray) -> None:
        cases.append((name, inputs, outputs))

    # An empty batch is as valid as any other.
    for batch in (0, 1, 5):
        a, b = rng.standard_normal((2, batch, 4), np.float32)
        case("add", {"a": a, "b": b}, sum=a + b)

        x = rng.integers(0, 256, (batch, 16), np.uint8)
        case("scale_u8", {"x": x}, y=x.astype(np.float32) * np.float32(0.5))

        table = rng.standard_normal((8, 4), np.float32)
        index = rng.integers(0, 8, batch, np.int64)
        case("gather", {"table": table, "index": index}, rows=table[index])

        x = rng.standard_normal((batch, 8), np.float32).astype(np.float16)
        case("half", {"x": x}, y=x + x)

        x = rng.standard_normal((batch, 8), np.float32).astype(ml_dtypes.bfloat16)
        case("bf16", {"x": x}, y=x + x)

        a = np.array([["", "one"]] * batch, object).reshape(batch, 2)
        b = np.array([["zwei", "3"]] * batch, object).reshape(batch, 2)
        case("text", {"a": a, "b": b}, both=np.concatenate([a, b], axis=1))

        a = rng.integers(-(2**31), 2**31, (batch, 4), np.int32)
        b = rng.integers(-(2**40), 2**40, (batch, 4), np.int64)
        case("ints", {"a": a, "b": b}, sum=a.astype(np.int64) + b)

        x = rng.integers(0, 256, (batch, 3, 8, 8)).astype(np.float32)
        blocks = x.reshape(batch, 3, 4, 2, 4, 2)
        raw = np.einsum("ncyixj,ocij->noyx", blocks, shades_weights())
        scores = np.maximum(raw, 0).mean(axis=(2, 3), dtype=np.float32)
        case("shades", {"pixels": x}, scores=scores)

        x = rng.standard_normal((batch, 3, 2, 5), np.float32)
        h = x.astype(np.float16)
        case("negatives", {"single": x, "half": h}, single_out=-x, half_out=-h)

    for values in ([], [0, 0, 0], [0, 3, 0, -1, 0], [1, 2]):
        x = np.array(values, np.float32)
        case("nonzero", {"x": x}, indices=np.array(np.nonzero(x), np.int64))

    x = rng.standard_normal((2, 3), np.float32)
    case("fixed", {"x": x}, y=np.maximum(x, 0))

    for batch in (1, 2, 32):
        x = rng.integers(-1000, 1001, (batch, SLOW_WIDTH)).astype(np.float32)
        case("slow", {"x": x}, y=x - 2 * x.mean(axis=1, keepdims=True))

    return cases


def session(name: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        path_of(name), options, providers=["CPUExecutionProvider"]
    )


def answers(
    run: onnxruntime.InferenceSession, names: list[str], inputs: Arrays
) -> list[np.ndarray]:
    if all(x.dtype != ml_dtypes.bfloat16 for x in inputs.values()):
        return run.run(names, inputs)
    # This binding of Python's has no arrays of bfloat16: it is given the bits.
    binding = run.io_binding()
    for name, x in inputs.items():
        binding.bind_ortvalue_input(name, as_bfloat16(x.view(np.uint16)))
    bits = {name: np.empty(x.shape, np.uint16) for name in names}
    for name, array in bits.items():
        binding.bind_ortvalue_output(name, as_bfloat16(array))
    run.run_with_iobinding(binding)
    return [array.view(ml_dtypes.bfloat16) for array in bits.values()]


def as_bfloat16(bits: np.ndarray) -> onnxruntime.OrtValue:
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, BFLOAT16)


def compare(name: str, inputs: Arrays, wanted: Arrays) -> str | None:
    """What is wrong with the model's answer to these inputs, if anything is."""
    run = session(name)
    names = [output.name for output in run.get_outputs()]
    if names != list(wanted):
        return f"outputs {names}, expected {list(wanted)}"
    for output, got in zip(names, answers(run, names, inputs)):
        want = wanted[output]
        if (got.dtype, got.shape) != (want.dtype, want.shape):
            return (
                f"{output} is {got.dtype}{list(got.shape)}, "
                f"expected {want.dtype}{list(want.shape)}"
            )
        # Every example is exact, so there is no tolerance to choose.
        if not np.array_equal(got, want):
            return f"{output} differs from numpy's"
    return None


def slow_rows_are_alone() -> str | None:
    """Rows that are not integers: bounded, near numpy's, and one by one."""
    run = session("slow")
    x = np.random.default_rng(1).standard_normal((7, SLOW_WIDTH), np.float32)
    (together,) = run.run(None, {"x": x})
    alone = np.concatenate([run.run(None, {"x": row[None]})[0] for row in x])
    wanted = x - 2 * x.mean(axis=1, keepdims=True)
    for got, what in ((together, "a batch"), (alone, "single rows")):
        far = float(np.abs(got - wanted).max())
        if not far < 1e-3:
            return f"{what}: {far} from numpy's"
    # One row that is not a number must not reach its neighbours.
    spoiled = x.copy()
    spoiled[3] = np.nan
    (got,) = run.run(None, {"x": spoiled})
    others = np.arange(len(x)) != 3
    if not np.array_equal(got[others], together[others]):
        return "a row changes with another row of its batch"
    return None


def slow_milliseconds(batch: int) -> float:
    run = session("slow")
    x = np.ones((batch, SLOW_WIDTH), np.float32)
    times = []
    for _ in range(30):
        start = time.perf_counter()
        run.run(None, {"x": x})
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1000


def stale(name: str) -> str | None:
    if not path_of(name).exists():
        return "is not there"
    if path_of(name).read_bytes() != serialised(name):
        return "is not what this script writes"
    return None


def check() -> list[str]:
    """All that is wrong with the files, one line each."""
    problems = [f"{name}: {why}" for name in MODELS if (why := stale(name))]
    if problems:
        return problems
    cases = examples(np.random.default_rng(0))
    for name, inputs, wanted in cases:
        if why := compare(name, inputs, wanted):
            shapes = {key: list(value.shape) for key, value in inputs.items()}
            problems.append(f"{name} {shapes}: {why}")
    if why := slow_rows_are_alone():
        problems.append(f"slow: {why}")
    total = sum(path_of(name).stat().st_size for name in MODELS)
    if total >= SIZE_LIMIT:
        problems.append(f"{total} bytes together, the limit is {SIZE_LIMIT}")
    print(f"{len(MODELS)} models, {total} bytes, {len(cases)} examples")
    for batch in (1, 8, 32):
        print(
            f"slow: {slow_milliseconds(batch):.1f} ms for a batch of {batch}, 1 thread"
        )
    return problems


def write() -> None:
    for name in MODELS:
        data = serialised(name)
        path_of(name).write_bytes(data)
        print(f"{name}.onnx: {len(data)} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing; run the models and compare their answers with numpy's",
    )
    if not parser.parse_args().check:
        write()
        return
    if problems := check():
        sys.exit("\n".join(["error:", *problems]))
    print("all as expected")


if __name__ == "__main__":
    main()
