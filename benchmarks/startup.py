"""How long it takes to be there: imported, answering, everything open."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TypeAlias

from examples.demo.servers import ServerProcess

from .measure import Row, Times, in_turns
from .opening import opening_rows


Env: TypeAlias = Mapping[str, str]

ROOT = Path(__file__).resolve().parent.parent

UNWANTED = ("anyio._backends", "trio", "tenacity", "asgiref", "rich")
"""What an import of ours must not load; each of them is for later, or for few."""


def run(quick: bool) -> list[Row]:
    """Measure it from the smallest part to the whole."""
    with TemporaryDirectory() as bytecode:
        env = _with_bytecode_in(bytecode)
        return [
            *_import_rows(env, 2 if quick else 20),
            *_first_answer_rows(env, 1 if quick else 20),
            *opening_rows(quick),
        ]


def _with_bytecode_in(directory: str) -> dict[str, str]:
    """Return an environment in which Python compiles only once, as where installed."""
    return {
        **os.environ,
        "PYTHONPYCACHEPREFIX": directory,
        "PYTHONDONTWRITEBYTECODE": "",
    }


# Importing the package


_PROCESSES = {
    "in a uvicorn process": (
        "import uvicorn, uvicorn.importer, uvicorn.lifespan.on, uvicorn.loops.auto",
        "import uvicorn.protocols.http.auto, uvicorn.protocols.websockets.auto",
    ),
    "beside FastAPI": ("import fastapi",),
}
"""What is imported already where somebody imports ours."""

_OURS = "import asgi_lifespan_guard"
_THEIRS = "import anyio, anyio.abc, anyio.lowlevel, anyio.abc._tasks"
"""What there is of anyio in the modules that an import of ours loads."""

_IMPORT = """
import json, sys, time
{before}
before = set(sys.modules)
begun = time.perf_counter()
{statement}
took = time.perf_counter() - begun
print(json.dumps([took * 1000, sorted(set(sys.modules) - before)]))
"""


def _import_rows(env: Env, times: int) -> list[Row]:
    uvicorn, fastapi = _PROCESSES
    variants = {
        uvicorn: partial(_import_time, env, uvicorn, _OURS),
        f"{uvicorn}, anyio alone": partial(_import_time, env, uvicorn, _THEIRS),
        fastapi: partial(_import_time, env, fastapi, _OURS),
    }
    in_turns(variants, 1)  # Writes the bytecode.
    took = in_turns(variants, times)
    loaded = _imported(env, uvicorn, _OURS)[1]
    unwanted = [name for name in loaded if name.startswith(UNWANTED)]
    ours = sum(name.startswith("asgi_lifespan_guard") for name in loaded)
    packages = sorted({name.partition(".")[0] for name in loaded})
    note = f"{ours} modules of ours; loads {', '.join(packages)}"
    return [
        _import_row(uvicorn, took, 25.0, note),
        _import_row(f"{uvicorn}, anyio alone", took),
        _import_row(fastapi, took, 12.0),
        Row("modules that it must not load", len(unwanted), "", 0, " ".join(unwanted)),
    ]


def _import_row(
    what: str, took: Mapping[str, Times], bound: float | None = None, note: str = ""
) -> Row:
    best = f"best {took[what].best:.1f}"
    figures = f"{best}; {note}" if note else best
    return Row(f"import {what}", took[what].median, "ms", bound, figures)


def _import_time(env: Env, where: str, statement: str) -> float:
    return _imported(env, where, statement)[0]


def _imported(env: Env, where: str, statement: str) -> tuple[float, list[str]]:
    """Return the milliseconds that *statement* takes, and the modules it loads."""
    before = "\n".join(_PROCESSES[where])
    code = _IMPORT.format(before=before, statement=statement)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, check=True, cwd=ROOT, env=env)
    milliseconds, loaded = json.loads(done.stdout)
    return milliseconds, loaded


# The first answer of a real server


def _first_answer_rows(env: Env, rounds: int) -> list[Row]:
    kinds = ("plain", "guarded", "plain_with_backend", "guarded_with_backend")
    variants = {kind: partial(_first_answer, env, kind) for kind in kinds}
    if rounds > 1:
        in_turns(variants, 1)  # Writes the bytecode.
    times = in_turns(variants, rounds)

    def row(what: str, ours: str, theirs: str, bound: float) -> Row:
        a, b = times[ours], times[theirs]
        pairs = zip(a.rounds, b.rounds, strict=True)
        ratio = median(mine / other for mine, other in pairs)
        note = f"{a.median * 1000:.0f} ms over {b.median * 1000:.0f}"
        note += f"; by the best {a.best / b.best:.2f}"
        return Row(f"first 200 on `/livez` / on hello, {what}", ratio, "×", bound, note)

    return [
        row("anyio in use anyway", "guarded_with_backend", "plain_with_backend", 1.05),
        row("nothing else uses anyio", "guarded", "plain", 1.5),
    ]


def _first_answer(env: Env, kind: str) -> float:
    """Return the seconds from the start of uvicorn to its first answer."""
    app = f"benchmarks.hello:{kind}"
    args = ["--factory", "--loop", "asyncio", "--log-level", "warning"]
    server = ServerProcess("uvicorn", app, cwd=ROOT, args=args, env=env)
    begun = time.perf_counter()
    with server:
        while not _answers(server.port):
            assert time.perf_counter() - begun < 30.0, server.output
            time.sleep(0.001)
        took = time.perf_counter() - begun
        server.terminate()
        server.wait()
    return took


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5.0)
    try:
        connection.request("GET", "/livez")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
