"""Scenarios that found something once, as small as they could be made.

They are played first, always. `make chaos` prints a scenario as Python: copy it here,
under the name of what it showed.
"""

from __future__ import annotations

from tests.chaos.scenario import Ask, Happening, Node, Scenario


KEPT: dict[str, Scenario] = {
    "a context that swallows the first check's failure": Scenario(
        nodes=(
            Node(
                swallows=True,
                pauses=False,
                ask=Ask(answers=("fails",) * 3),
            ),
        ),
    ),
    "a need gives up while it fails its checks": Scenario(
        nodes=(
            Node(
                required=False,
                retry=None,
                group="anyio",
                ask=Ask(every=1.0, failures=1, answers=("ok", *("fails",) * 9)),
            ),
            Node(required=False, needs=(0,), openings=("fails late", "fails")),
            Node(),
        ),
        happenings=(Happening("crash", when=6.0),),
    ),
    "a need crashes while it fails its checks, and comes back": Scenario(
        nodes=(
            Node(
                group="native",
                ask=Ask(every=1.0, failures=1, answers=("ok", *("fails",) * 5)),
            ),
            Node(
                needs=(0,),
                group="anyio",
                openings=("fails late", "fails", "ok", "fails"),
            ),
        ),
        happenings=(
            Happening("crash", when=6.0),
            Happening("crash", when=15.0, target=1),
        ),
        stops=(70.0,),
    ),
    "a panic while opening": Scenario(
        nodes=(Node(required=False, openings=("panics",)), Node()),
    ),
    "a panic among other errors": Scenario(
        nodes=(Node(required=False, openings=("panics in a group",)), Node()),
        backend="trio",
    ),
    "a panic in a check": Scenario(
        nodes=(Node(ask=Ask(answers=("ok", "panics", "panics"))), Node()),
    ),
    "a panic while closing": Scenario(nodes=(Node(closings=("panics",)),)),
    "a panic in a task that it holds": Scenario(
        nodes=(Node(group="native"), Node()),
        happenings=(Happening("crash by panic", when=5.0),),
    ),
    "an app's startup panics": Scenario(
        app=Node(kind="lifespan", blocking=True, retry=None, openings=("panics",)),
    ),
    "a task group fails while dependents close": Scenario(
        nodes=(
            Node(group="native", closings=("hangs",)),
            Node(needs=(0,), closings=("dawdles",)),
        ),
        happenings=(Happening("crash", when="closing r1"),),
        shutdown_timeout=2.0,
    ),
    "a task that is cancelled while dependents close": Scenario(
        nodes=(Node(), Node(needs=(0,), closings=("dawdles",))),
        happenings=(Happening("cancel the owner", when="dawdles r1"),),
    ),
    "a task that is cancelled while it is up": Scenario(
        nodes=(Node(),), happenings=(Happening("cancel the owner", when=6.0),)
    ),
    "an app that is slow to clean up": Scenario(
        nodes=(Node(closings=("dawdles",)),),
        app=Node(kind="lifespan", closings=("lingers",)),
    ),
    "a check that is on at the stop": Scenario(
        nodes=(Node(ask=Ask(every=1.0, timeout=8.0, answers=("ok", "lingers"))),),
        happenings=(Happening("stop", when="lingers r0"),),
        shutdown_timeout=0.5,
    ),
    "a cancellation that nobody took back": Scenario(
        nodes=(Node(openings=("leaves a cancellation", "hangs"), group="anyio"),),
        happenings=(Happening("crash", when=6.0),),
        stops=(70.0,),
    ),
    "an attempt that leaves a cancellation and is late": Scenario(
        nodes=(
            Node(
                openings=("leaves a cancellation",),
                ask=Ask(timeout=8.0, answers=("hangs",)),
            ),
        ),
        stops=(70.0,),
    ),
    "a server with a cancellation that it never took back": Scenario(
        nodes=(Node(group="anyio"), Node(needs=(0,))),
        happenings=(Happening("crash", when=6.0),),
        stops=(70.0,),
        leftover=True,
    ),
    "a check fails while another blocking resource opens": Scenario(
        nodes=(
            Node(
                blocking=True,
                ask=Ask(every=1.0, failures=1, answers=("ok", *("fails",) * 40)),
            ),
            Node(blocking=True, openings=("fails", "fails late")),
        ),
    ),
    "a policy for one kind of error, and a group that holds it": Scenario(
        nodes=(Node(retry="of its own kind", openings=("fails in a group",)),),
    ),
    "a policy for one kind of error, and a crash": Scenario(
        nodes=(Node(retry="of its own kind", group="anyio"),),
        happenings=(Happening("end", when=6.0),),
    ),
    "a first check that outlasts its attempt": Scenario(
        nodes=(Node(ask=Ask(timeout=8.0, answers=("hangs",))),), backend="trio"
    ),
    "a crash after a while": Scenario(
        nodes=(Node(group="anyio"),), happenings=(Happening("crash", when=7.5),)
    ),
    "a crash while dependents are slow to close": Scenario(
        nodes=(Node(group="anyio"), Node(needs=(0,), closings=("dawdles",))),
        happenings=(Happening("crash", when=5.0), Happening("probe", when=6.0)),
    ),
    "a crash shortly before the stop": Scenario(
        nodes=(Node(group="anyio"), Node(needs=(0,), closings=("dawdles",))),
        happenings=(Happening("crash", when=5.0), Happening("stop", when=5.5)),
    ),
    "retry_now() long before a crash": Scenario(
        nodes=(Node(group="native", openings=("ok", "fails")),),
        happenings=(Happening("retry", when=1.0), Happening("crash", when=5.0)),
    ),
    "an observer that calls retry_now() at each failure": Scenario(
        nodes=(Node(pauses=False, openings=("fails",) * 12),),
        happenings=(Happening("retry", when="AttemptFailed r0", nth=0),),
    ),
    "a wait that is no number": Scenario(
        nodes=(Node(retry="nan", openings=("fails",)), Node()),
    ),
    "a wait that is negative": Scenario(
        nodes=(Node(retry="negative", openings=("fails",)),),
    ),
    "a wait without end": Scenario(
        nodes=(Node(retry="forever", openings=("fails",)),),
        happenings=(Happening("probe", when=5.0),),
    ),
    "a blocking app starts beside a blocking resource": Scenario(
        nodes=(Node(blocking=True),), app=Node(kind="lifespan", blocking=True)
    ),
}
