"""What the guard costs: ``python -m benchmarks``, or ``make bench``.

One module for each benchmark, each with ``run(quick) -> list[Row]``; what the numbers
mean is in `docs/benchmarks.md`. ``quick`` makes them short and their numbers worthless:
it is for a test that they still run.

Costs are given as ratios of things that were measured in turns, in one process or one
after the other, because absolute times belong to a machine and its mood.
"""
