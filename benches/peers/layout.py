"""Where everything lies: what is installed and made, what a run leaves, and what it writes."""

from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
REPOSITORY = PACKAGE.parents[1]
RESULTS = PACKAGE.parent / "results"
SERVING = PACKAGE / "serving"


@dataclass(frozen=True)
class Layout:
    """The folder of the installed peers and of the runs."""

    home: Path

    @property
    def lock(self) -> Path:
        return self.home / "lock"

    @property
    def journal(self) -> Path:
        """Results of the run that is under way, or that was interrupted."""
        return self.home / "journal.json"

    @property
    def run(self) -> Path:
        """Files of the servers of the run that is under way: repositories, sockets."""
        return self.home / "run"

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    @property
    def built(self) -> Path:
        """What the scripts compile."""
        return self.home / "built"

    def environment(self, name: str) -> Path:
        return self.home / "environments" / name

    def python(self, name: str) -> Path:
        return self.environment(name) / "bin" / "python"
