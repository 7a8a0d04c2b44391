"""The peers, in the order in which they are started and shown."""

from .adjoin import Adjoin
from .falcon import Falcon
from .iceoryx2 import Iceoryx2
from .litserve import LitServe
from .mlserver import MlServer
from .mosec import Mosec
from .peer import Peer, Site
from .problems import Problem
from .torchserve import TorchServe
from .triton import Triton

PEERS: tuple[type[Peer], ...] = (
    Adjoin,
    Triton,
    Mosec,
    Falcon,
    LitServe,
    MlServer,
    TorchServe,
    Iceoryx2,
)
NAMES = tuple(peer.name for peer in PEERS)


def select(names: str | None) -> tuple[str, ...]:
    """Names of a list with commas, in the order above; adjoin is always among them."""
    if names is None:
        return NAMES
    asked = {name.strip() for name in names.split(",") if name.strip()}
    unknown = sorted(asked - set(NAMES))
    if unknown:
        raise Problem(f"no peer is called {', '.join(unknown)}; there are {', '.join(NAMES)}")
    return tuple(name for name in NAMES if name in asked or name == Adjoin.name)


def make(site: Site, names: tuple[str, ...]) -> list[Peer]:
    """The peers of these names. Each keeps its ports whichever others are chosen."""
    return [peer(site, index) for index, peer in enumerate(PEERS) if peer.name in names]
