"""What those who run resources tell upwards, and ask for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._frozen import Frozen
from ..events import Observer
from .resource import Resource


class Upcalls(Frozen, kw_only=True):
    """What those who run resources are told, and asked, by name.

    Attributes:
        observe: Told of every event; has no say.
        publish: Shows requests the value of a resource that came up.
        withdraw: Hides the value of one that goes down.
        changed: Called after each change of a phase.
        gave_up: Called when a resource will not be tried again.
    """

    observe: Observer
    publish: Callable[[Resource[Any], Any], None]
    withdraw: Callable[[Resource[Any]], None]
    changed: Callable[[], None]
    gave_up: Callable[[Resource[Any]], None]
