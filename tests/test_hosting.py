"""An app's own lifespan as a resource: loaded, started, merged, retried."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from tenacity import stop_after_attempt, wait_none

from asgi_lifespan_guard import (
    AppCannotRestartError,
    AppLifespanError,
    FactoryError,
    Gate,
    LifespanGuard,
    Phase,
    ResourcePhase,
    Retry,
    lifespan_of,
)
from asgi_lifespan_guard.events import (
    AttemptFailed,
    ResourceGaveUp,
    ResourceOpened,
)
from tests.recorder import PATIENCE, Recorder
from tests.support.memory_server import LifespanError, MemoryServer
from tests.support.modules import Modules
from tests.support.resources import LATER, SOON, LivedIn, hello
from tests.support.virtual_time import on_virtual_time


pytestmark = pytest.mark.anyio

SLOW = """
    from tests.test_hosting import IMPORT
    IMPORT.run()
    from tests.support.resources import hello as app
"""


class Import:
    """What the slow module does: it waits until it is let, in whatever thread.

    Attributes:
        threads: One for each time that it was imported.
    """

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []
        self._begun = threading.Semaphore(0)
        self._let = threading.Event()

    def run(self) -> None:
        """Be imported."""
        self.threads.append(threading.current_thread())
        self._begun.release()
        self._let.wait(PATIENCE)

    def wait_begun(self) -> None:
        """Return once it is being imported."""
        assert self._begun.acquire(timeout=PATIENCE)

    def let(self) -> None:
        """Let the import end."""
        self._let.set()

    def renew(self) -> None:
        """Be as new."""
        vars(self).update(vars(Import()))


IMPORT = Import()


@pytest.fixture
def slow(modules: Modules) -> Any:
    """Write a module whose import takes until it is let end."""
    IMPORT.renew()
    modules.write("tests_slow", SLOW)
    yield IMPORT
    IMPORT.let()


# Import strings.


async def test_probes_are_answered_during_an_import(
    recorder: Recorder, slow: Import
) -> None:
    """The import is a thread's business; who asks meanwhile is answered."""
    guard = LifespanGuard("tests_slow:app", gate=Gate(wait=0), observers=[recorder])
    async with MemoryServer(guard) as server:
        await recorder.wait_until(lambda: _phase(guard) is ResourcePhase.OPENING)
        slow.wait_begun()
        assert (await server.get("/livez")).status == 200
        assert (await server.get("/readyz")).status == 503
        assert (await server.get("/")).status == 503
        slow.let()
        await recorder.wait_for(ResourceOpened)
        assert (await server.get("/")).body == b"hello"
    (thread,) = slow.threads
    assert thread is not threading.main_thread()
    assert thread.daemon


async def test_a_stop_does_not_wait_for_an_import(
    recorder: Recorder, slow: Import
) -> None:
    """The thread is abandoned."""
    guard = LifespanGuard("tests_slow:app", observers=[recorder])
    async with MemoryServer(guard) as server:
        await recorder.wait_until(lambda: _phase(guard) is ResourcePhase.OPENING)
        slow.wait_begun()
    assert server.said[-1] == "lifespan.shutdown.complete"
    assert guard.phase is Phase.STOPPED


@on_virtual_time
async def test_no_second_import_while_the_first_goes_on(
    recorder: Recorder, slow: Import, modules: Modules
) -> None:
    """An attempt whose time is over is followed by one that waits for its thread."""
    modules.write(
        "tests_makes",
        """
        from tests.support.resources import hello
        from tests.test_hosting import IMPORT
        def make():
            IMPORT.run()
            return hello
        """,
    )
    impatient = lifespan_of(
        timeout=5, retry=Retry(wait=wait_none(), stop=stop_after_attempt(3))
    )
    guard = LifespanGuard(
        "tests_makes:make",
        app_factory=True,
        app_lifespan=impatient,
        observers=[recorder],
    )
    async with MemoryServer(guard):
        gave_up = await recorder.wait_for(ResourceGaveUp)
    assert isinstance(gave_up.error, TimeoutError)
    assert gave_up.attempts == 3
    slow.wait_begun()
    assert len(slow.threads) == 1


@pytest.mark.parametrize("path", ["/", "/open"])
async def test_an_app_that_cannot_be_imported(
    recorder: Recorder, caplog: pytest.LogCaptureFixture, modules: Modules, path: str
) -> None:
    """What is permanent is tried once, logged with its traceback, and refused."""
    modules.write("tests_broken", "import tests_that_is_not_installed")
    open_path = Gate(needs={"/open": ()})
    guard = LifespanGuard("tests_broken:app", gate=open_path, observers=[recorder])
    async with MemoryServer(guard) as server:
        gave_up = await recorder.wait_for(ResourceGaveUp)
        refused = await server.get(path)
        assert (refused.status, "retry-after" in refused.headers) == (503, False)
        assert (await server.get("/livez")).status == 200
        assert (await server.get("/readyz")).status == 503
    assert isinstance(gave_up.error, ImportError)
    assert (gave_up.attempts, gave_up.permanent) == (1, True)
    (record,) = (r for r in caplog.records if r.exc_text)
    assert "tests_broken.py" in (record.exc_text or "")
    assert "No module named 'tests_that_is_not_installed'" in (record.exc_text or "")


async def test_an_import_that_fails_for_a_while(
    recorder: Recorder, modules: Modules
) -> None:
    """What may pass is tried again: the module is imported anew."""
    modules.write(
        "tests_weather",
        """
        from tests.test_hosting import WEATHER
        if WEATHER:
            raise WEATHER.pop()
        from tests.support.resources import hello as app
        """,
    )
    WEATHER[:] = [OSError("no config server"), ConnectionError("still none")]
    retried = lifespan_of(retry=SOON)
    guard = LifespanGuard(
        "tests_weather:app", app_lifespan=retried, observers=[recorder]
    )
    async with MemoryServer(guard) as server:
        assert (await server.get("/")).body == b"hello"
    assert [event.attempt for event in recorder.of(AttemptFailed)] == [1, 2]


WEATHER: list[Exception] = []


async def test_open_paths_are_held_until_there_is_an_app(
    recorder: Recorder, slow: Import
) -> None:
    """A path that needs nothing needs the app itself: it is refused, or waits."""
    gate = Gate(wait=0, needs={"/open": ()})
    guard = LifespanGuard("tests_slow:app", gate=gate, observers=[recorder])
    server = MemoryServer(guard)
    assert (await server.get("/open")).status == 503
    async with server:
        assert (await server.get("/open")).status == 503
        assert (await server.websocket("/open").run()).status == 503
        slow.let()
        await recorder.wait_for(ResourceOpened)
        assert (await server.get("/open")).status == 200
    assert (await server.get("/open")).status == 503


async def test_what_is_imported_may_be_no_app(
    recorder: Recorder, modules: Modules
) -> None:
    """It is said so at once, and not tried again."""
    modules.write("tests_none", "app = None")
    guard = LifespanGuard("tests_none:app", observers=[recorder])
    async with MemoryServer(guard):
        gave_up = await recorder.wait_for(ResourceGaveUp)
    assert isinstance(gave_up.error, FactoryError)
    assert gave_up.attempts == 1


async def test_a_string_without_its_lifespan(
    recorder: Recorder, modules: Modules
) -> None:
    """With `"off"` the app is imported all the same, and hears of no lifespan."""
    modules.write(
        "tests_off",
        """
        from tests.recorder import PATIENCE, Recorder
        from tests.support.resources import LivedIn
        app = LivedIn(Recorder())
        """,
    )
    guard = LifespanGuard("tests_off:app", app_lifespan="off", observers=[recorder])
    async with MemoryServer(guard) as server:
        await server.get("/")
        import tests_off  # type: ignore[import-not-found]

        assert [scope["type"] for scope in tests_off.app.scopes] == ["http"]


async def test_a_string_that_blocks(recorder: Recorder, modules: Modules) -> None:
    """A recipe may have the import before the port, once; then it is a startup's."""
    modules.write("tests_blocking", "raise OSError('no config server')")
    blocking = lifespan_of(startup="blocking")
    guard = LifespanGuard("tests_blocking:app", app_lifespan=blocking)
    with pytest.raises(LifespanError, match="no config server"):
        async with MemoryServer(guard):
            raise AssertionError


# Factories.


async def test_each_attempt_has_a_fresh_app(recorder: Recorder) -> None:
    """Requests reach the one that has started."""
    made: list[LivedIn] = []

    def make() -> LivedIn:
        errors = [OSError("refused")] if len(made) < 2 else []
        made.append(LivedIn(recorder, errors=errors, number=len(made)))
        return made[-1]

    retried = lifespan_of(retry=SOON)
    guard = LifespanGuard(make, app_factory=True, app_lifespan=retried)
    assert made == []
    async with MemoryServer(guard) as server:
        await server.get("/")
        assert made[-1].scopes[-1]["state"]["number"] == 2
    assert [[s["type"] for s in app.scopes] for app in made] == [
        ["lifespan"],
        ["lifespan"],
        ["lifespan", "http"],
    ]


@pytest.mark.parametrize("app_lifespan", ["blocking", "background", "off"])
async def test_each_cycle_has_a_fresh_app(
    recorder: Recorder, app_lifespan: Any
) -> None:
    """From start to start there is another app, whatever becomes of its lifespan."""
    made: list[LivedIn] = []

    def make() -> LivedIn:
        made.append(LivedIn(recorder))
        return made[-1]

    guard = LifespanGuard(make, app_factory=True, app_lifespan=app_lifespan)
    for cycle in (1, 2, 3):
        async with MemoryServer(guard) as server:
            assert (await server.get("/")).status == 200
            assert made[-1].scopes[-1]["type"] == "http"
        assert len(made) == cycle
        assert (await server.get("/")).status == 503


async def test_a_factory_of_a_blocking_app_fails(recorder: Recorder) -> None:
    """It is a startup that failed: the server is told, and exits."""

    def make() -> Any:
        raise OSError("no templates")

    guard = LifespanGuard(make, app_factory=True)
    with pytest.raises(LifespanError, match="no templates"):
        async with MemoryServer(guard):
            raise AssertionError


class Silent(LivedIn):
    """An app that fails as Quart does where the exception has no text."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan" and self.errors:
            text = str(self.errors.pop(0))
            await receive()
            await send({"type": "lifespan.startup.failed", "message": text})
            return
        await super().__call__(scope, receive, send)


async def test_silence_is_no_sign_from_the_beginning(recorder: Recorder) -> None:
    """`asyncio.timeout()` raises without a text: twice, it still says nothing."""
    app = Silent(recorder, errors=[TimeoutError(), TimeoutError()])
    guard = LifespanGuard(
        app, app_lifespan=lifespan_of(retry=SOON), observers=[recorder]
    )
    async with MemoryServer(guard):
        assert (await recorder.wait_for(ResourceOpened)).attempt == 3


async def test_silence_is_no_sign_of_a_fresh_app(recorder: Recorder) -> None:
    """What a factory made anew is not used up."""
    errors = [OSError("refused"), TimeoutError()]

    def make() -> Silent:
        return Silent(recorder, errors=[errors.pop(0)] if errors else [])

    retried = lifespan_of(retry=SOON)
    guard = LifespanGuard(
        make, app_factory=True, app_lifespan=retried, observers=[recorder]
    )
    async with MemoryServer(guard):
        assert (await recorder.wait_for(ResourceOpened)).attempt == 3


async def test_silence_is_a_sign_after_a_reason(recorder: Recorder) -> None:
    """An app that first gave a reason, and then none, is used up."""
    app = Silent(recorder, errors=[OSError("refused"), TimeoutError()])
    guard = LifespanGuard(
        app, app_lifespan=lifespan_of(retry=SOON), observers=[recorder]
    )
    async with MemoryServer(guard):
        gave_up = await recorder.wait_for(ResourceGaveUp)
    assert isinstance(gave_up.error, AppCannotRestartError)


async def test_a_factory_that_gives_the_same_app(recorder: Recorder) -> None:
    """Whoever says that it cannot run twice is believed, factory or not."""
    app = Silent(recorder, errors=[OSError("only"), OSError("can only be called once")])
    retried = lifespan_of(retry=SOON)
    guard = LifespanGuard(
        lambda: app, app_factory=True, app_lifespan=retried, observers=[recorder]
    )
    async with MemoryServer(guard):
        gave_up = await recorder.wait_for(ResourceGaveUp)
    assert isinstance(gave_up.error, AppCannotRestartError)


async def test_an_apps_failure_is_kept(recorder: Recorder) -> None:
    """What an app raised in its startup is in the failure of the attempt."""
    error = OSError("refused")
    app = LivedIn(recorder, errors=[error])
    guard = LifespanGuard(
        app, app_lifespan=lifespan_of(retry=LATER), observers=[recorder]
    )
    async with MemoryServer(guard):
        failed = await recorder.wait_for(AttemptFailed)
    assert isinstance(failed.error, AppLifespanError)
    assert failed.error.cause is error


def _phase(guard: LifespanGuard) -> ResourcePhase:
    (report,) = guard.report().resources
    return report.phase


async def test_a_direct_app_is_as_it_was() -> None:
    """What needs no loading is called as it is, from the first moment."""
    assert (await MemoryServer(LifespanGuard(hello)).get("/")).body == b"hello"
