"""Plays lives by the thousand: ``make fuzz``.

``FUZZ_SEED`` and ``FUZZ_EXAMPLES`` (calls) say which and how many. With arguments
(``2342/17``) only these lives are played.
"""

from __future__ import annotations

import logging
import os
import random
import sys
import time
from typing import Any

from tests.fuzz.life import Life, played
from tests.support.long_runs import giving_up_after, say


REAL_SECONDS = 10
"""Real seconds after which a life does not end any more."""


def watched(seed: str) -> Life:
    """Play the life of *seed*, and give up where it does not end."""
    lives: list[Life] = []
    try:
        with giving_up_after(REAL_SECONDS):
            return played(seed, lives.append)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        lives[0].faults.append(f"the loop ended with {error!r}")
        return lives[0]


def main(argv: list[str], environ: Any) -> int:
    """Play what is drawn, until one fails; or, with arguments, these lives only."""
    logging.getLogger("asgi_lifespan_guard").disabled = True
    if argv:
        return int(sum(_tell(seed, watched(seed)) for seed in argv) > 0)
    seed = environ.get("FUZZ_SEED") or str(random.getrandbits(32))
    count = int(environ.get("FUZZ_EXAMPLES") or 1_000_000)
    say(f"== fuzz: FUZZ_SEED={seed} FUZZ_EXAMPLES={count}")
    calls, number, last, failed = 0, 0, time.monotonic(), 0
    most = int(environ.get("FUZZ_FAILURES") or 1)
    while calls < count and failed < most:
        life = watched(f"{seed}/{number}")
        failed += _tell(f"{seed}/{number}", life)
        calls, number = calls + life.calls, number + 1
        if time.monotonic() - last > 10:
            last = time.monotonic()
            say(f"{calls} calls in {number} lives")
    say(f"{calls} calls in {number} lives")
    return int(failed > 0)


def _tell(seed: str, life: Life) -> bool:
    if life.faults:
        say(f"\n== {seed} ({life.backend}): python -m tests.fuzz {seed}")
        for fault in dict.fromkeys(life.faults):
            say(fault)
    return bool(life.faults)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
