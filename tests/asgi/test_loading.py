"""The wrapped app and how to come by it."""

from __future__ import annotations

import sys
from collections.abc import Generator
from functools import wraps
from typing import Any

import pytest

from asgi_lifespan_guard import AppNotLoadedError, ConfigurationError, FactoryError
from asgi_lifespan_guard._asgi.loading import LoadedApp, as_asgi3, is_import_string
from tests.support.memory_server import MemoryServer
from tests.support.modules import Modules
from tests.support.resources import hello


def make() -> Any:
    """Make an app, another one each time."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await hello(scope, receive, send)

    return app


async def single(scope: Any) -> Any:
    """Be the first half of an ASGI 2 app that is no class, which is not adapted."""


class Single:
    """Something that is called with the scope alone."""

    def __call__(self, scope: Any) -> Any:
        """Be the first half of an ASGI 2 app, too."""


class Awaited:
    """An ASGI 3 app: a class whose instances are awaited, one for each scope."""

    def __init__(self, scope: Any, receive: Any, send: Any) -> None:
        self.args = scope, receive, send

    def __await__(self) -> Generator[Any, None, None]:
        return hello(*self.args).__await__()


class Old:
    """An ASGI 2 app."""

    def __init__(self, scope: Any) -> None:
        self.scope = scope

    async def __call__(self, receive: Any, send: Any) -> None:
        await hello(self.scope, receive, send)


class Inner:
    """Something with an app in it."""

    app = staticmethod(hello)


def test_an_asgi_3_app_is_taken_as_it_is() -> None:
    """What is there already is neither made nor imported."""
    loaded = LoadedApp(hello)
    assert as_asgi3(hello) is loaded.current is loaded.load() is hello
    assert not any((loaded.is_late, loaded.is_fresh, loaded.blocks))


@pytest.mark.anyio
async def test_an_asgi_2_class_is_adapted() -> None:
    """A class is an ASGI 2 app: called with the scope, then with receive and send."""
    assert (await MemoryServer(as_asgi3(Old)).get("/")).body == b"hello"


@pytest.mark.parametrize("app", [None, 5, [hello]])
def test_what_cannot_be_called_is_no_app(app: Any) -> None:
    """It is refused at construction, with or without a factory."""
    for factory in (False, True):
        with pytest.raises(ConfigurationError, match="is no ASGI app"):
            LoadedApp(app, factory=factory)


@pytest.mark.anyio
async def test_a_class_that_is_awaited_is_an_asgi_3_app() -> None:
    """Starlette's `HTTPEndpoint`, for one: it is called with all three, not adapted."""
    assert as_asgi3(Awaited) is Awaited
    assert (await MemoryServer(as_asgi3(Awaited)).get("/")).body == b"hello"


def test_what_takes_no_scope_is_no_app() -> None:
    """A function that makes the app is told from the app, and the option named."""
    with pytest.raises(ConfigurationError, match="app_factory=True"):
        LoadedApp(make)


@pytest.mark.parametrize("app", [single, Single(), Single().__call__])
def test_an_asgi_2_app_that_is_no_class_is_to_be_adapted(app: Any) -> None:
    """A class is known for one; anything else has to be adapted, which is said."""
    with pytest.raises(ConfigurationError, match="guarantee_single_callable") as caught:
        LoadedApp(app)
    assert "app_factory" not in str(caught.value)


def test_an_app_may_have_a_signature_that_nobody_knows() -> None:
    """What cannot be read, or is another function's, is no reason to refuse an app."""

    class Unreadable:
        __signature__ = "none"

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

    @wraps(single)
    async def wrapped(scope: Any, receive: Any, send: Any) -> None: ...

    for app in (Unreadable(), wrapped):
        assert LoadedApp(app).current is app


@pytest.mark.parametrize("text", ["main:app", "a.b:c", "main:a.b", "_x:_y"])
def test_import_strings(text: str) -> None:
    """A module and an attribute, both perhaps with dots."""
    assert is_import_string(text)
    assert LoadedApp(text).is_late


@pytest.mark.parametrize(
    "text", ["", ":", "main", "main:", ":app", "main.py:", "a/b:c", "a:b:c", "a:b()"]
)
def test_malformed_import_strings(text: str) -> None:
    """Everything else is refused at construction, with an example."""
    with pytest.raises(ConfigurationError, match="'module:attribute', such as"):
        LoadedApp(text)


@pytest.mark.anyio
@pytest.mark.parametrize("late", ["main:app", make])
async def test_before_the_first_load_there_is_no_app(late: Any) -> None:
    """A call says that nothing was loaded, and who would have done it."""
    loaded = LoadedApp(late, factory=True)
    with pytest.raises(AppNotLoadedError, match="lazy_start=True"):
        await loaded.current({}, None, None)  # type: ignore[arg-type]


def test_what_is_used_is_told() -> None:
    """The app that requests are to reach is current, and told to whoever asked."""
    told: list[Any] = []
    loaded = LoadedApp(make, factory=True, used=told.append)
    app = loaded.load()
    assert loaded.use(app) is loaded.current is app
    assert told == [app]
    silent = LoadedApp(make, factory=True)
    assert silent.use(app) is silent.current


def test_a_factory_makes_a_fresh_app_for_each_load(modules: Modules) -> None:
    """Each load calls what was given, or what the string names."""
    modules.write(
        "tests_made", "def make():\n    async def app(s, r, d): ...\n    return app"
    )
    for factory in (make, "tests_made:make"):
        loaded = LoadedApp(factory, factory=True)
        assert loaded.is_fresh
        assert loaded.load() is not loaded.load()


def test_an_import_is_made_once(modules: Modules) -> None:
    """Without a factory, what the string names is the same at each load."""
    modules.write("tests_once", "async def app(s, r, d): ...")
    loaded = LoadedApp("tests_once:app")
    assert loaded.load() is loaded.load() is sys.modules["tests_once"].app


def test_attributes_may_be_nested(modules: Modules) -> None:
    """A dotted attribute is followed, and so is a dotted module."""
    assert LoadedApp(f"{__name__}:Inner.app").load() is hello


@pytest.mark.anyio
async def test_an_imported_class_is_an_asgi_2_app(modules: Modules) -> None:
    """An import string may name an ASGI 2 class; with a factory a class makes apps."""
    modules.write("tests_old", "from tests.asgi.test_loading import Old")
    assert (
        await MemoryServer(LoadedApp("tests_old:Old").load()).get("/")
    ).status == 200
    assert isinstance(LoadedApp(Watcher, factory=True).load(), Watcher)


class Watcher:
    """An ASGI 3 app's class."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Do nothing."""


@pytest.mark.parametrize(
    ("string", "text"),
    [
        ("tests_absent:app", "No module named 'tests_absent'"),
        ("tests_lacking:missing", "'tests_lacking:missing' names nothing"),
        ("tests_lacking:app.missing", "'tests_lacking:app.missing' names nothing"),
    ],
)
def test_a_name_that_is_not_there(modules: Modules, string: str, text: str) -> None:
    """A module or an attribute that is missing is an ImportError: permanent."""
    modules.write("tests_lacking", "async def app(s, r, d): ...")
    with pytest.raises(ImportError, match=text):
        LoadedApp(string).load()


def test_an_import_that_fails_is_made_again(modules: Modules) -> None:
    """What an import raises comes out as it is; the next load imports again."""
    modules.write("tests_failing", "raise OSError('no config server')")
    loaded = LoadedApp("tests_failing:app")
    for _ in range(2):
        with pytest.raises(OSError, match="no config server"):
            loaded.load()


@pytest.mark.parametrize("attribute", ["nothing", "number", "make"])
def test_what_is_found_may_be_no_app(modules: Modules, attribute: str) -> None:
    """It is said what was found, and never tried again."""
    modules.write("tests_wrong", "nothing = None\nnumber = 5\ndef make(): ...")
    with pytest.raises(FactoryError, match=f"'tests_wrong:{attribute}' gave"):
        LoadedApp(f"tests_wrong:{attribute}").load()


@pytest.mark.parametrize(
    "given", [lambda: None, lambda _config: hello, hello], ids=["none", "args", "app"]
)
def test_what_makes_no_app(given: Any) -> None:
    """A factory that returns none or wants arguments, or an app was given instead."""
    with pytest.raises(FactoryError, match="app_factory=True"):
        LoadedApp(given, factory=True).load()
