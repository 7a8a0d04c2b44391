"""What is measured: models, inputs, clients and lengths."""

from dataclasses import dataclass

MODELS = ("identity", "mlp", "fullhd", "resnet50")


@dataclass(frozen=True)
class Tensor:
    """The input of a request."""

    model: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def argument(self) -> str:
        """As adjoin-loadgen takes it."""
        return f"input:{self.dtype}:{','.join(map(str, self.shape))}"

    @property
    def byte_size(self) -> int:
        size = {"FP32": 4, "UINT8": 1}[self.dtype]
        for dimension in self.shape:
            size *= dimension
        return size


def identity(rows: int, columns: int) -> Tensor:
    return Tensor("identity", "FP32", (rows, columns))


def mlp(rows: int = 1) -> Tensor:
    return Tensor("mlp", "FP32", (rows, 128))


def images(rows: int) -> Tensor:
    return Tensor("resnet50", "FP32", (rows, 3, 224, 224))


FULL_HD = Tensor("fullhd", "UINT8", (1, 1080, 1920, 3))
