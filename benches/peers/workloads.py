"""What is measured: models, inputs, clients, and for how long in the short and in the long form."""

from dataclasses import dataclass

MODELS = ("identity", "mlp", "fullhd", "resnet50")
# Part of a server's own capacity that an open loop asks for.
LOAD = 0.7
CLIENTS_OPEN = 4
# Requests of each client that may be under way in an open loop; over HTTP each is a connection.
IN_FLIGHT_MAX = 16


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
    def rows(self) -> int:
        return self.shape[0]


@dataclass(frozen=True)
class Length:
    """Rounds, and how long each target is measured in each."""

    rounds: int
    phase_ms: int


@dataclass(frozen=True)
class Closed:
    """Clients that call again as soon as they have their answer; targets take turns."""

    id: str
    title: str
    tensor: Tensor
    clients: int
    length: Length
    untouched: bool = False
    batching: bool = False
    """Whether servers are measured under the settings that batch, too."""
    pipeline: int = 1
    """Requests that each client has under way at once."""


@dataclass(frozen=True)
class Images:
    """A closed loop over a number of images, made once and sent again and again."""

    id: str
    title: str
    tensor: Tensor
    images: int
    rounds: int


@dataclass(frozen=True)
class Open:
    """Requests at random times, at a part of what each target reached in a closed loop."""

    id: str
    title: str
    tensor: Tensor
    capacity_of: str
    """The closed loop."""
    length: Length
    batching: bool = False


@dataclass(frozen=True)
class Rows:
    """Many clients of adjoin, beside the in-process call on batches as large as adjoin's were."""

    id: str
    title: str
    tensor: Tensor
    clients: int
    batch_of: str
    """The closed loop in which the batches were counted."""
    length: Length


@dataclass(frozen=True)
class Python:
    """A closed loop of Python clients."""

    id: str
    title: str
    tensor: Tensor
    clients: int
    length: Length
    batching: bool = False


Workload = Closed | Images | Open | Rows | Python

MLP = Tensor("mlp", "FP32", (1, 128))
FULL_HD = Tensor("fullhd", "UINT8", (1, 1080, 1920, 3))
PAYLOADS = {
    "4 KiB": Tensor("identity", "FP32", (1, 1024)),
    "588 KiB": Tensor("identity", "FP32", (1, 150528)),
    "18.4 MiB": Tensor("identity", "FP32", (32, 150528)),
}
# Sizes, and whether the input stays as it was written once. Writing 4 KiB anew is nothing.
PAYLOAD_COLUMNS = (
    ("4 KiB", True),
    ("588 KiB", True),
    ("588 KiB", False),
    ("18.4 MiB", True),
    ("18.4 MiB", False),
)
MLP_CLIENTS = (1, 4, 16)
IMAGE_ROWS = (32, 10)


def payload_id(size: str, untouched: bool) -> str:
    return f"identity {size} {'in place' if untouched else 'rewritten'}"


def mlp_id(clients: int) -> str:
    return f"mlp {clients}"


def images_id(rows: int) -> str:
    return f"resnet50 {rows}"


def images(rows: int) -> Tensor:
    return Tensor("resnet50", "FP32", (rows, 3, 224, 224))


@dataclass(frozen=True)
class Form:
    """How long the parts of a run are."""

    name: str
    latency: Length
    large: Length
    largest: Length
    throughput: Length
    open: Length
    python: Length
    images: int
    image_rounds: int


SHORT = Form(
    name="short",
    latency=Length(4, 100),
    large=Length(4, 100),
    largest=Length(3, 120),
    throughput=Length(4, 100),
    open=Length(2, 500),
    python=Length(3, 200),
    images=20,
    image_rounds=1,
)
FULL = Form(
    name="full",
    latency=Length(25, 200),
    large=Length(25, 300),
    largest=Length(25, 500),
    throughput=Length(25, 400),
    open=Length(6, 5000),
    python=Length(9, 1000),
    images=640,
    image_rounds=5,
)
FORMS = {form.name: form for form in (SHORT, FULL)}


def saturated(name: str, title: str, tensor: Tensor, form: Form, batching: bool) -> Closed:
    """As many requests under way as an open loop may have: what a server can do at most."""
    return Closed(
        f"{name} saturated",
        f"{title}, {CLIENTS_OPEN} clients with {IN_FLIGHT_MAX} requests under way each",
        tensor,
        CLIENTS_OPEN,
        form.latency,
        batching=batching,
        pipeline=IN_FLIGHT_MAX,
    )


def plan(form: Form, image_count: int | None) -> list[Workload]:
    """All of it, in the order in which it is measured."""
    in_place = {True: "in place", False: "written anew before each request"}
    work: list[Workload] = []
    for size, untouched in PAYLOAD_COLUMNS:
        tensor = PAYLOADS[size]
        length = form.largest if tensor.rows > 1 else form.latency
        title = f"identity of {size}, {in_place[untouched]}, 1 client"
        work.append(Closed(payload_id(size, untouched), title, tensor, 1, length, untouched))
    for untouched, words in in_place.items():
        title = f"light model on a full-HD picture, {words}, 1 client"
        identifier = f"fullhd {'in place' if untouched else 'rewritten'}"
        work.append(Closed(identifier, title, FULL_HD, 1, form.large, untouched))
    for clients in MLP_CLIENTS:
        title = f"MLP, {clients} client{'s' if clients > 1 else ''}"
        length = form.throughput if clients > 1 else form.latency
        work.append(Closed(mlp_id(clients), title, MLP, clients, length, batching=clients > 1))
    work.append(
        Rows(
            "mlp 16 rows",
            "MLP, 16 clients of adjoin beside in-process batches of the size that adjoin reached",
            MLP,
            16,
            mlp_id(16),
            form.throughput,
        )
    )
    load = f"{LOAD:.0%} of its own capacity, Poisson arrivals"
    large = PAYLOADS["588 KiB"]
    work += [
        saturated("mlp", "MLP", MLP, form, batching=True),
        saturated("identity", "identity of 588 KiB", large, form, batching=False),
        Open("mlp open", f"MLP at {load}", MLP, "mlp saturated", form.open, batching=True),
        Open(
            "identity open",
            f"identity of 588 KiB at {load}",
            large,
            "identity saturated",
            form.open,
        ),
    ]
    count = form.images if image_count is None else image_count
    for rows in IMAGE_ROWS:
        title = f"ResNet50, batch {rows}, {count} images"
        work.append(Images(images_id(rows), title, images(rows), count, form.image_rounds))
    work += [
        Python("python mlp 1", "Python, MLP, 1 client", MLP, 1, form.python),
        Python("python mlp 16", "Python, MLP, 16 clients", MLP, 16, form.python, batching=True),
        Python("python identity", "Python, identity of 588 KiB in place", large, 1, form.python),
        Python("python fullhd", "Python, full-HD picture in place", FULL_HD, 1, form.python),
    ]
    return work
