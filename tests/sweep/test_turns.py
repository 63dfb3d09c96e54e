"""Who measures on a machine has it alone: processes that wait for each other by locks."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

LOCKS = Path("/proc/locks")
pytestmark = pytest.mark.skipif(not LOCKS.exists(), reason="needs Linux, which lists who waits at a lock")
# Takes a turn, says so, and keeps it until its input ends.
TAKES = "import sys; from edgebert.sweep import turns\nwith turns.{how}: print('in', flush=True); sys.stdin.read()"
Wants = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def wants(tmp_path: Path) -> Iterator[Wants]:
    """Start a process that wants a turn, with locks of this test's own."""
    with ExitStack() as held:

        def start(how: str) -> "subprocess.Popen[str]":
            process = subprocess.Popen(
                [sys.executable, "-c", TAKES.format(how=how)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                text=True, env={"TMPDIR": str(tmp_path), "USER": "somebody"},
            )  # fmt: skip
            held.callback(process.wait)
            held.callback(process.kill)
            return process

        yield start


def has_its_turn(process: "subprocess.Popen[str]") -> bool:
    assert process.stdout is not None
    return process.stdout.readline() == "in\n"


def stands_at_a_lock(process: "subprocess.Popen[str]") -> bool:
    """Whether it comes to wait there; one that gets its turn instead ends the waiting here too."""
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        waiting = [line.split() for line in LOCKS.read_text(encoding="ascii").splitlines() if "->" in line]
        if any(str(process.pid) in line for line in waiting):
            return True
        time.sleep(0.05)
    return False


def gives_it_back(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(60) == 0


def test_a_measurement_waits_for_those_at_work_and_newcomers_wait_for_it(wants: Wants) -> None:
    one, other = wants("among_others()"), wants("among_others()")
    assert has_its_turn(one)
    assert has_its_turn(other)
    measures = wants("alone()")
    assert stands_at_a_lock(measures)
    late = wants("among_others()")
    assert stands_at_a_lock(late)
    gives_it_back(one)
    assert stands_at_a_lock(measures)
    gives_it_back(other)
    assert has_its_turn(measures)
    assert stands_at_a_lock(late)
    gives_it_back(measures)
    assert has_its_turn(late)


def test_two_measurements_never_run_at_once_and_one_that_is_killed_holds_nothing(wants: Wants) -> None:
    first = wants("alone()")
    assert has_its_turn(first)
    second = wants("alone()")
    assert stands_at_a_lock(second)
    first.kill()
    assert has_its_turn(second)


def test_each_phone_has_a_queue_of_its_own(wants: Wants) -> None:
    first = wants("with_phone('adb:one')")
    assert has_its_turn(first)
    same, another = wants("with_phone('adb:one')"), wants("with_phone('adb:two')")
    assert has_its_turn(another)
    assert stands_at_a_lock(same)
    assert has_its_turn(wants("alone()"))  # the machine is not the phone
