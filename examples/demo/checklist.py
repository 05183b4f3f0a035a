"""What the demo promises to show, server by server, and what of it was seen."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum


class Expectation(Enum):
    """Something that must be seen to happen on each server; in the order of time."""

    PORT = "port open", "the port opens while the database is down"
    ALIVE = "/livez", "liveness is good: nobody should restart this process"
    UNREADY = "/readyz", "readiness is not: no traffic should come"
    OPEN_PAGE = "/about", "a page that needs nothing is served"
    ATTEMPTS = "attempts", "the database is tried again and again, ever more rarely"
    REFUSED = "Retry-After", "a browser is held, then told when to come back"
    HELD = "held", "a note that was posted too early is held, then kept"
    READY = "ready", "readiness is good now"
    ROWS = "rows", "the rows are served"
    STOPPED = "stopped", "SIGTERM: everything is closed, the processes are gone"

    @property
    def label(self) -> str:
        """What it is called in the table."""
        return self.value[0]

    @property
    def sentence(self) -> str:
        """What it is called in the story."""
        return self.value[1]


@dataclass(frozen=True)
class Sight:
    """What was seen of one expectation on one server, or what came instead."""

    good: bool
    text: str


@dataclass
class Checklist:
    """Every expectation for every server: seen, missed, or not looked for yet."""

    servers: Sequence[str]
    sights: dict[tuple[str, Expectation], Sight] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether all of it was seen to happen."""
        return all(
            sight is not None and sight.good
            for expectation in Expectation
            for sight in self.row(expectation)
        )

    def row(self, expectation: Expectation) -> list[Sight | None]:
        """Return what was seen of one expectation, in the order of the servers."""
        return [self.sights.get((server, expectation)) for server in self.servers]
