"""Run the benchmarks: ``python -m benchmarks [names] [--quick] [--write]``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import cast

from .measure import Row, silence
from .report import machine, show, write


NAMES = ("requests", "startup", "held", "drain", "herd")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what was asked for, and show it."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    unknown = sorted(set(asked.names) - set(NAMES))
    if unknown:
        parser.error(f"no such benchmark: {', '.join(unknown)} (of {', '.join(NAMES)})")
    if asked.quick and asked.write:
        parser.error("--quick numbers are not worth writing down")
    silence()
    print(machine())
    results: dict[str, list[Row]] = {}
    for name in asked.names or NAMES:
        results[name] = _benchmark(name)(asked.quick)
        show(name, results[name])
    if asked.write:
        write(results)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(NAMES)}; default: all")
    parser.add_argument(
        "--quick", action="store_true", help="seconds instead of minutes: does it run?"
    )
    parser.add_argument(
        "--write", action="store_true", help="put the tables into docs/benchmarks.md"
    )
    return parser


def _benchmark(name: str) -> Callable[[bool], list[Row]]:
    module = import_module(f".{name}", __package__)
    return cast("Callable[[bool], list[Row]]", module.run)


if __name__ == "__main__":
    main()
