"""Write the models that the benchmarks serve, as a model repository.

Each model goes to OUT/NAME/1/model.onnx, has one input named `input` and one
output named `output`, and takes any batch size. All are float32, except the
input of fullhd:

  identity   [batch,n] -> the same           what the server itself costs
  mlp        [batch,128] -> [batch,10]       a small model: 128, 256 with Relu, 10
  heavy      [batch,1024] -> [batch,1024]    some milliseconds, and for 16 rows not
             many more than for one: matrices that do not fit any cache
  fullhd     uint8 [batch,1080,1920,3] -> [batch,10]
             a light model on a large picture, which makes the way there the cost:
             every 15th pixel of every 15th row, then a linear layer
  resnet50   [batch,3,224,224] -> [batch,1000]
             ResNet-50 v1.5 with the batch norms folded into the convolutions

The weights are random with a fixed seed: a benchmark needs the work of the real
network, not its answers.

Needs: pip install -r requirements.txt
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

try:
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper
except ImportError as missing:
    sys.exit(
        f"error: {missing}; this script needs numpy and onnx: "
        "pip install -r benches/models/requirements.txt"
    )

REPOSITORY = Path(__file__).resolve().parents[2]
DEFAULT_OUT = REPOSITORY / "target" / "models"

OPSET = 17
IR_VERSION = 8

FULLHD_HEIGHT, FULLHD_WIDTH, FULLHD_STRIDE = 1080, 1920, 15

# One stage of ResNet-50 each: inner width, number of blocks, first stride.
RESNET50_STAGES = [(64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)]
EXPANSION = 4

HEAVY_WIDTH = 1024
HEAVY_LAYERS = 2

# How strongly a residual block adds to what passes it by. With full He-normal
# weights on both paths the values would double at every one of the 16 blocks.
RESIDUAL_GAIN = 0.25


class Graph:
    """The nodes and weights of one model as they are added, in order."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def node(self, op: str, inputs: list[str], output: str, **attributes) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def random(self, name: str, shape: tuple[int, ...], scale: float) -> str:
        values = self.rng.standard_normal(shape, np.float32) * np.float32(scale)
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def conv(
        self,
        x: str,
        name: str,
        channels: tuple[int, int],
        kernel: int,
        stride: int,
        gain: float = 1.0,
    ) -> str:
        """A convolution with He-normal weights that pads by half its kernel."""
        inputs, outputs = channels
        scale = gain * np.sqrt(2 / (inputs * kernel * kernel))
        weight = self.random(f"{name}.weight", (outputs, inputs, kernel, kernel), scale)
        # A folded batch norm leaves a bias, so the convolutions have one here.
        bias = self.random(f"{name}.bias", (outputs,), 0.01)
        return self.node(
            "Conv",
            [x, weight, bias],
            name,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[kernel // 2] * 4,
        )

    def relu(self, x: str) -> str:
        return self.node("Relu", [x], f"{x}.relu")

    def dense(
        self, x: str, name: str, inputs: int, outputs: int, output: str | None = None
    ) -> str:
        weight = self.random(f"{name}.weight", (inputs, outputs), np.sqrt(1 / inputs))
        bias = self.random(f"{name}.bias", (outputs,), 0.01)
        return self.node("Gemm", [x, weight, bias], output or name)

    def integers(self, name: str, values: list[int]) -> str:
        self.weights.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def model(
        self,
        name: str,
        input_shape: list,
        output_shape: list,
        input_type: int = TensorProto.FLOAT,
    ) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info("input", input_type, input_shape)],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, output_shape)],
            self.weights,
        )
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="adjoin",
        )


def identity() -> onnx.ModelProto:
    g = Graph(seed=0)
    g.node("Identity", ["input"], "output")
    return g.model("identity", ["batch", "n"], ["batch", "n"])


def mlp() -> onnx.ModelProto:
    g = Graph(seed=1)
    hidden = g.relu(g.dense("input", "hidden", 128, 256))
    g.dense(hidden, "last", 256, 10, output="output")
    return g.model("mlp", ["batch", 128], ["batch", 10])


def heavy() -> onnx.ModelProto:
    """Dense layers whose 64 MiB of weights have to be read whatever the batch."""
    g = Graph(seed=3)
    x = "input"
    for layer in range(HEAVY_LAYERS):
        is_last = layer == HEAVY_LAYERS - 1
        x = g.relu(g.dense(x, f"wide{layer}", HEAVY_WIDTH, 4 * HEAVY_WIDTH))
        x = g.dense(
            x,
            f"narrow{layer}",
            4 * HEAVY_WIDTH,
            HEAVY_WIDTH,
            output="output" if is_last else None,
        )
    return g.model("heavy", ["batch", HEAVY_WIDTH], ["batch", HEAVY_WIDTH])
def fullhd() -> onnx.ModelProto:
    g = Graph(seed=3)
    pixels = g.node(
        "Slice",
        [
            "input",
            g.integers("starts", [0, 0]),
            g.integers("ends", [FULLHD_HEIGHT, FULLHD_WIDTH]),
            g.integers("axes", [1, 2]),
            g.integers("steps", [FULLHD_STRIDE, FULLHD_STRIDE]),
        ],
        "pixels",
    )
    numbers = g.node("Cast", [pixels], "numbers", to=TensorProto.FLOAT)
    flat = g.node("Flatten", [numbers], "flat", axis=1)
    size = (FULLHD_HEIGHT // FULLHD_STRIDE) * (FULLHD_WIDTH // FULLHD_STRIDE) * 3
    g.dense(flat, "last", size, 10, output="output")
    shape = ["batch", FULLHD_HEIGHT, FULLHD_WIDTH, 3]
    return g.model("fullhd", shape, ["batch", 10], TensorProto.UINT8)


def bottleneck(
    g: Graph, x: str, name: str, inputs: int, width: int, stride: int
) -> str:
    """One residual block: 1x1, 3x3 and 1x1, beside a shortcut.

    The stride is on the 3x3, which is what makes this version 1.5. The shortcut
    has a convolution of its own only where the shape changes.
    """
    outputs = width * EXPANSION
    y = g.relu(g.conv(x, f"{name}.reduce", (inputs, width), 1, 1))
    y = g.relu(g.conv(y, f"{name}.middle", (width, width), 3, stride))
    y = g.conv(y, f"{name}.expand", (width, outputs), 1, 1, gain=RESIDUAL_GAIN)
    if stride != 1 or inputs != outputs:
        x = g.conv(x, f"{name}.shortcut", (inputs, outputs), 1, stride)
    return g.relu(g.node("Add", [y, x], f"{name}.sum"))


def resnet50() -> onnx.ModelProto:
    g = Graph(seed=2)
    x = g.relu(g.conv("input", "stem", (3, 64), 7, 2))
    x = g.node(
        "MaxPool", [x], "stem.pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4
    )
    channels = 64
    for stage, (width, blocks, first_stride) in enumerate(RESNET50_STAGES, start=1):
        for block in range(blocks):
            stride = first_stride if block == 0 else 1
            x = bottleneck(g, x, f"stage{stage}.{block}", channels, width, stride)
            channels = width * EXPANSION
    x = g.node("GlobalAveragePool", [x], "pool")
    x = g.node("Flatten", [x], "features", axis=1)
    g.dense(x, "classes", channels, 1000, output="output")
    return g.model("resnet50", ["batch", 3, 224, 224], ["batch", 1000])


MODELS: dict[str, Callable[[], onnx.ModelProto]] = {
    "identity": identity,
    "mlp": mlp,
    "heavy": heavy,
    "fullhd": fullhd,
    "resnet50": resnet50,
}


def write(model: onnx.ModelProto, path: Path) -> None:
    """Write the model under another name first and then rename it.

    A run that was cut off must not leave half a file, which the next run would
    take for a model that is already there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(model.SerializeToString(deterministic=True))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def make(name: str, out: Path, force: bool) -> None:
    path = out / name / "1" / "model.onnx"
    if path.exists() and not force:
        done = "already there"
    else:
        model = MODELS[name]()
        onnx.checker.check_model(model, full_check=True)
        write(model, path)
        done = "written"
    print(f"{name}: {done}, {path.stat().st_size:,} bytes, {path}", flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out",
        type=Path,
        default=DEFAULT_OUT,
        metavar="DIR",
        help="model repository to write (default: target/models of this repository)",
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=MODELS,
        metavar="NAME",
        help=f"write only this model; may be repeated ({', '.join(MODELS)})",
    )
    parser.add_argument(
        "--force", action="store_true", help="write models that are already there again"
    )
    return parser.parse_args()


def main() -> None:
    args = arguments()
    # In a fixed order and each once, however often --only names it.
    names = [name for name in MODELS if args.only is None or name in args.only]
    for name in names:
        try:
            make(name, args.out, args.force)
        except OSError as problem:
            sys.exit(f"error: cannot write {name} under {args.out}: {problem}")


if __name__ == "__main__":
    main()
