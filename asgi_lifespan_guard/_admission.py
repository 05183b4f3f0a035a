"""Who is let in now, and what they are shown of the resources.

A floor of the door: what a path needs is asked of the plan, what is open of the
supervisor, and what a test shows instead of its overrides.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any

from ._asgi.gate import Verdict
from ._asgi.state import StateBoard
from ._asgi.types import Scope
from ._lifetime import Lifetime
from ._phases import Phase
from ._plan import Plan
from ._resources.overrides import to_show
from ._state import KEY


class Admission:
    """Judges requests, and gives those that pass an up-to-date state.

    Args:
        plan: The guard's settings.
        life: Knows the guard's phase and what is open.
        board: Has the values that are shown.
    """

    def __init__(self, plan: Plan, life: Lifetime, board: StateBoard) -> None:
        self._plan = plan
        self._life = life
        self._board = board

    def judge(self, path: str) -> Verdict:
        """Say whether a request for *path*, as the app sees it, may pass now."""
        key, needed = self._plan.needed_by(path)
        if not needed:
            return Verdict(True, key)
        phase, supervisor = self._life.phase, self._life.supervisor
        if supervisor is None and needed <= to_show(self._plan.recipes)[0]:
            return Verdict(True, key)
        if phase is Phase.IDLE:
            return Verdict(False, key, inf, "never started")
        if supervisor is None or phase is Phase.STOPPING:
            return Verdict(False, key, inf, "stopped")
        if phase is not Phase.STARTING and supervisor.are_open(needed):
            return Verdict(True, key)
        if phase is Phase.DRAINING:
            return Verdict(False, key, inf, "draining")
        return Verdict(False, key, supervisor.due_in(needed))

    def with_state(self, scope: Scope) -> Scope:
        """Return *scope*, or a copy of it with a state that is up to date."""
        if self._plan.transparent:
            return scope
        if self._life.supervisor is None:
            return self._with_overrides(scope)
        state = scope.get("state")
        if state is None or state is self._board.shared or not self._is_current(state):
            return self._board.refreshed(scope)
        return scope

    def _with_overrides(self, scope: Scope) -> Scope:
        """Show what a test has put in the place of what is not open."""
        names, values = to_show(self._plan.recipes)
        if self._life.phase is not Phase.IDLE or names:
            scope = self._board.refreshed(scope)
            scope["state"].update(values)
        return scope

    def _is_current(self, state: Mapping[str, Any]) -> bool:
        return state.get(KEY) is self._board.stamp
