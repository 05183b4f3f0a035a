"""The demo ends well, and only if it has seen all that it promises to show."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from examples.demo.checklist import Checklist, Expectation, Sight
from examples.demo.screen import Screen


DEMO = [sys.executable, "-m", "examples.demo"]
ROOT = Path(__file__).parents[2]


def all_seen(*servers: str) -> Checklist:
    """Return a checklist on which nothing is missing."""
    checklist = Checklist(servers)
    for server in servers:
        for expectation in Expectation:
            checklist.sights[server, expectation] = Sight(True, "fine")
    return checklist


def shown(checklist: Checklist, expectation: Expectation) -> str:
    """Return the screen, as it is where there is no terminal."""
    console = Console(file=io.StringIO(), width=80)
    with Screen(checklist, console) as screen:
        screen.result(expectation)
    screen.verdict()
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_all_seen() -> None:
    """With everything seen the checklist is complete, and the screen says so."""
    checklist = all_seen("one", "two")
    assert checklist.complete
    screen = shown(checklist, Expectation.HELD)
    assert "(2 of 2)" in screen
    assert "missed" not in screen
    assert "All of it was seen to happen" in screen


@pytest.mark.parametrize("sight", [None, Sight(False, "it slept")])
def test_one_thing_missed(sight: Sight | None) -> None:
    """One thing missed on one server is named, with its reason, and spoils it all."""
    checklist = all_seen("one", "two")
    del checklist.sights["two", Expectation.HELD]
    if sight is not None:
        checklist.sights["two", Expectation.HELD] = sight
    assert not checklist.complete
    screen = shown(checklist, Expectation.HELD)
    assert "(1 of 2)" in screen
    assert f"two: {'it slept' if sight else 'not seen'}" in screen
    assert "Not all of it was seen" in screen


@pytest.mark.slow
def test_the_demo_succeeds() -> None:
    """The whole story happens within a minute, and the exit status is 0."""
    done = subprocess.run(DEMO, cwd=ROOT, capture_output=True, text=True, timeout=58)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All of it was seen to happen" in done.stdout
    assert "missed" not in done.stdout


@pytest.mark.slow
def test_an_interrupted_demo_cleans_up(tmp_path: Path) -> None:
    """Ctrl-C in the middle ends all that was started, and removes all files."""
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(DEMO, cwd=ROOT, env=env, stdout=subprocess.PIPE) as demo:
        assert demo.stdout is not None
        assert any(b"attempt 2" in line for line in demo.stdout)
        demo.send_signal(signal.SIGINT)
        output = demo.communicate(timeout=20)[0].decode()
    assert demo.returncode == 130
    assert "everything that was started is stopped" in output
    assert not list(tmp_path.iterdir())
