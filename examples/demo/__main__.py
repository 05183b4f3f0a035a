"""``make demo``: six servers start before their database, and it all ends well.

Exit status 0 only if every expectation was seen to be met on every server.
"""

import signal
import sys

from examples.demo.checklist import Checklist
from examples.demo.postgres import PostgresError
from examples.demo.screen import Screen
from examples.demo.story import SERVERS, Story


TIME_LIMIT = 55


class OutOfTimeError(Exception):
    """Raised when the demo takes longer than anybody would watch."""


def main() -> int:
    _mind_signals()
    checklist = Checklist(SERVERS)
    screen = Screen(checklist)
    try:
        with screen:
            Story(checklist, screen).tell()
    except KeyboardInterrupt:
        screen.failure("Interrupted; everything that was started is stopped.")
        return 130
    except OutOfTimeError:
        screen.failure(f"Out of time: {TIME_LIMIT} s have passed.")
    except PostgresError as error:
        screen.failure(str(error))
    signal.alarm(0)
    screen.verdict()
    return 0 if checklist.complete else 1


def _mind_signals() -> None:
    """Clean up after SIGTERM as after Ctrl-C, and when time is up."""

    def out_of_time(*_: object) -> None:
        raise OutOfTimeError

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGALRM, out_of_time)
    signal.alarm(TIME_LIMIT)


if __name__ == "__main__":
    sys.exit(main())
