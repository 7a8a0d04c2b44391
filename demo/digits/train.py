"""Train the demo's digit classifier and write it as an ONNX model.

A small convolutional network, trained with numpy on the 8x8 handwritten digits
that scikit-learn ships. Next to this script it writes:

  model.onnx        image float32 [batch,1,8,8] (raw pixels, 0..16)
                    -> scores float32 [batch,10] (softmax probabilities)
  test_images.npy   the 360 held-out images, uint8 [360,8,8], 0..16
  test_labels.npy   their digits, uint8 [360]

The held-out images take no part in training, and nothing is chosen by them:
the number of epochs and the rest of the recipe are constants. `--validate`
judges a change to the recipe on a part of the training images instead, and
writes nothing.

Needs: pip install -r requirements.txt
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.lib.stride_tricks import sliding_window_view
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from threadpoolctl import threadpool_limits

HERE = Path(__file__).resolve().parent

SEED = 17
HELD_OUT = 0.2
MIN_ACCURACY = 0.97

EPOCHS = 60
BATCH = 32
LEARNING_RATE = 2e-3
PIXEL_SCALE = np.float32(1 / 16)

OPSET = 17
IR_VERSION = 8


@dataclass
class Param:
    """A trained array, its gradient and Adam's two running moments."""

    value: np.ndarray

    def __post_init__(self) -> None:
        self.grad = np.zeros_like(self.value)
        self.mean = np.zeros_like(self.value)
        self.square = np.zeros_like(self.value)


def he_normal(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int) -> Param:
    weights = rng.standard_normal(shape) * np.sqrt(2 / fan_in)
    return Param(weights.astype(np.float32))


def zeros(size: int) -> Param:
    return Param(np.zeros(size, np.float32))


# The layers. Each one can run forward, hand its gradient backward, and name the
# ONNX operator it is, so that the network is described only once (`network`).


class Conv3x3:
    """A 3x3 convolution that keeps the image's size."""

    op = "Conv"
    attributes = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}

    def __init__(self, rng: np.random.Generator, inputs: int, outputs: int) -> None:
        self.weight = he_normal(rng, (outputs, inputs, 3, 3), inputs * 9)
        self.bias = zeros(outputs)
        self.params = [self.weight, self.bias]

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.shape = x.shape
        count, channels, height, width = x.shape
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        patches = sliding_window_view(padded, (3, 3), axis=(2, 3))
        self.columns = patches.transpose(0, 2, 3, 1, 4, 5).reshape(-1, channels * 9)
        out = self.columns @ self.flat_weight().T + self.bias.value
        return out.reshape(count, height, width, -1).transpose(0, 3, 1, 2)

    def backward(self, grad: np.ndarray) -> np.ndarray:
        count, channels, height, width = self.shape
        flat = grad.transpose(0, 2, 3, 1).reshape(-1, grad.shape[1])
        self.weight.grad = (flat.T @ self.columns).reshape(self.weight.value.shape)
        self.bias.grad = flat.sum(axis=0)
        patches = flat @ self.flat_weight()
        patches = patches.reshape(count, height, width, channels, 3, 3)
        padded = np.zeros((count, channels, height + 2, width + 2), np.float32)
        for row in range(3):
            for col in range(3):
                part = patches[..., row, col].transpose(0, 3, 1, 2)
                padded[:, :, row : row + height, col : col + width] += part
        return padded[:, :, 1:-1, 1:-1]

    def flat_weight(self) -> np.ndarray:
        return self.weight.value.reshape(len(self.weight.value), -1)


class Relu:
    op = "Relu"
    attributes: dict = {}
    params: list[Param] = []

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.positive = x > 0
        return x * self.positive

    def backward(self, grad: np.ndarray) -> np.ndarray:
        return grad * self.positive


class MaxPool2x2:
    op = "MaxPool"
    attributes = {"kernel_shape": [2, 2], "strides": [2, 2]}
    params: list[Param] = []

    def forward(self, x: np.ndarray) -> np.ndarray:
        count, channels, height, width = x.shape
        blocks = x.reshape(count, channels, height // 2, 2, width // 2, 2)
        largest = blocks.max(axis=(3, 5), keepdims=True)
        # Equal maxima all get the gradient. After a Relu they are nearly always
        # zeros, and the Relu stops their gradient.
        self.chosen = blocks == largest
        self.shape = x.shape
        return largest[:, :, :, 0, :, 0]

    def backward(self, grad: np.ndarray) -> np.ndarray:
        return (grad[:, :, :, None, :, None] * self.chosen).reshape(self.shape)


class Flatten:
    op = "Flatten"
    attributes = {"axis": 1}
    params: list[Param] = []

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, grad: np.ndarray) -> np.ndarray:
        return grad.reshape(self.shape)


class Dense:
    op = "Gemm"
    attributes: dict = {}

    def __init__(self, rng: np.random.Generator, inputs: int, outputs: int) -> None:
        self.weight = he_normal(rng, (inputs, outputs), inputs)
        self.bias = zeros(outputs)
        self.params = [self.weight, self.bias]

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.x = x
        return x @ self.weight.value + self.bias.value

    def backward(self, grad: np.ndarray) -> np.ndarray:
        self.weight.grad = self.x.T @ grad
        self.bias.grad = grad.sum(axis=0)
        return grad @ self.weight.value.T


def network(rng: np.random.Generator) -> list:
    """The layers between the scaled pixels and the softmax."""
    return [
        Conv3x3(rng, 1, 16),
        Relu(),
        Conv3x3(rng, 16, 32),
        Relu(),
        MaxPool2x2(),
        Flatten(),
        Dense(rng, 32 * 4 * 4, 64),
        Relu(),
        Dense(rng, 64, 10),
    ]


def forward(layers: list, x: np.ndarray) -> np.ndarray:
    for layer in layers:
        x = layer.forward(x)
    return x


def backward(layers: list, grad: np.ndarray) -> None:
    for layer in reversed(layers):
        grad = layer.backward(grad)


def softmax(logits: np.ndarray) -> np.ndarray:
    exps = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exps / exps.sum(axis=1, keepdims=True)


def adam_step(params: list[Param], step: int, rate: float) -> None:
    """One update by Adam with its usual constants; `step` counts from 1."""
    for p in params:
        p.mean += 0.1 * (p.grad - p.mean)
        p.square += 0.001 * (p.grad**2 - p.square)
        mean = p.mean / (1 - 0.9**step)
        square = p.square / (1 - 0.999**step)
        p.value -= (rate * mean / (np.sqrt(square) + 1e-8)).astype(np.float32)


def shifted(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The images, each moved by up to one pixel in each direction."""
    count, _, height, width = images.shape
    padded = np.pad(images[:, 0], ((0, 0), (1, 1), (1, 1)))
    windows = sliding_window_view(padded, (height, width), axis=(1, 2))
    rows, cols = rng.integers(0, 3, (2, count))
    return windows[np.arange(count), rows, cols][:, None]


def train(images: np.ndarray, labels: np.ndarray) -> list:
    """Train a network on uint8 images [n,8,8] and their labels."""
    rng = np.random.default_rng(SEED)
    layers = network(rng)
    params = [p for layer in layers for p in layer.params]
    pixels = images[:, None].astype(np.float32) * PIXEL_SCALE
    wanted = np.eye(10, dtype=np.float32)[labels]
    steps = EPOCHS * -(-len(images) // BATCH)
    step = 0
    for _ in range(EPOCHS):
        order = rng.permutation(len(images))
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            scores = softmax(forward(layers, shifted(pixels[batch], rng)))
            backward(layers, (scores - wanted[batch]) / len(batch))
            # The rate falls to zero along half a cosine, so that the weights
            # have settled by the last step and no epoch has to be picked.
            rate = LEARNING_RATE * (1 + np.cos(np.pi * step / steps)) / 2
            step += 1
            adam_step(params, step, rate)
    return layers


def to_onnx(layers: list) -> onnx.ModelProto:
    """The trained network with the pixel scaling before it and softmax after."""
    nodes = [helper.make_node("Mul", ["image", "pixel_scale"], ["scaled"])]
    weights = [numpy_helper.from_array(np.array(PIXEL_SCALE), "pixel_scale")]
    last = "scaled"
    for number, layer in enumerate(layers):
        name = f"{layer.op.lower()}{number}"
        inputs = [last]
        for param, kind in zip(layer.params, ("weight", "bias")):
            inputs.append(f"{name}.{kind}")
            weights.append(numpy_helper.from_array(param.value, inputs[-1]))
        nodes.append(helper.make_node(layer.op, inputs, [name], **layer.attributes))
        last = name
    nodes.append(helper.make_node("Softmax", [last], ["scores"], axis=1))
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 10])],
        weights,
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="adjoin",
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def correct(model: bytes, images: np.ndarray, labels: np.ndarray) -> int:
    """How many images the written model gets right, run by onnxruntime."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    pixels = images[:, None].astype(np.float32)
    (scores,) = session.run(["scores"], {"image": pixels})
    return int((scores.argmax(axis=1) == labels).sum())


def split(images: np.ndarray, labels: np.ndarray) -> tuple:
    """(train images, other images, train labels, other labels), by class."""
    return train_test_split(
        images, labels, test_size=HELD_OUT, stratify=labels, random_state=SEED
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--validate",
        action="store_true",
        help="score on a part of the training images; write nothing",
    )
    args = parser.parse_args()

    digits = load_digits()
    images, held_images, labels, held_labels = split(
        digits.images.astype(np.uint8), digits.target.astype(np.uint8)
    )
    if args.validate:
        images, held_images, labels, held_labels = split(images, labels)

    # One thread: the order of the sums, and with it the weights, must not
    # depend on the number of cores.
    with threadpool_limits(1):
        model = to_onnx(train(images, labels)).SerializeToString(deterministic=True)

    right, total = correct(model, held_images, held_labels), len(held_labels)
    kind = "validation" if args.validate else "held-out"
    print(f"{kind} accuracy: {right / total:.4f} ({right} of {total})")
    if args.validate:
        return
    if right / total < MIN_ACCURACY:
        sys.exit(f"error: below {MIN_ACCURACY}; nothing was written")

    (HERE / "model.onnx").write_bytes(model)
    np.save(HERE / "test_images.npy", held_images)
    np.save(HERE / "test_labels.npy", held_labels)
    for name in ("model.onnx", "test_images.npy", "test_labels.npy"):
        print(f"{name}: {(HERE / name).stat().st_size} bytes")


if __name__ == "__main__":
    main()
