"""What becomes of a process that teaches: it does not start, it says strange things, it is killed."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_mnv2.app import reteach
from edge_mnv2.app.reteach import FAILED, IDLE, TEACHING, Job, Reteaching
from edge_mnv2.errors import EdgeMnv2Error
from tests.processes import until

JOB = Job(["collected"], "taught.tflite")


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a shell script in the place of the Python that teaches."""

    def becomes(script: str) -> None:
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))

    return becomes


def test_a_process_that_cannot_be_started_leaves_room_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teaching = Reteaching()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    for _ in range(2):
        with pytest.raises(EdgeMnv2Error, match="teaching cannot begin: No such file"):
            teaching.start(JOB)
        assert teaching.state == IDLE


def test_what_a_library_prints_is_passed_over(python: Callable[[str], None]) -> None:
    python("""printf '5\\nnull\\n[]\\n\\377\\n{\"error\": \"no pictures\"}\\n'; exit 2""")
    teaching = Reteaching()
    assert teaching.start(JOB)
    until(lambda: teaching.state != TEACHING)
    assert (teaching.state, teaching.text) == (FAILED, "no pictures")


def test_who_ended_it_is_told_apart(python: Callable[[str], None]) -> None:
    python("exec sleep 30")
    teaching = Reteaching()
    assert teaching.start(JOB) and not teaching.start(JOB)
    teaching.stop()
    until(lambda: teaching.state != TEACHING)
    assert (teaching.state, teaching.text) == (IDLE, "Stopped: the model is as it was.")
    assert teaching.start(JOB)
    child = teaching._child
    assert child is not None
    os.kill(child.pid, signal.SIGKILL)
    until(lambda: teaching.state != TEACHING)
    assert teaching.state == FAILED and "for want of memory" in teaching.text


@pytest.mark.parametrize(("cpus", "forbidden", "nice"), [(2, False, []), (2, True, [10]), (1, False, [10])])
def test_teaching_gives_way_to_the_run(
    monkeypatch: pytest.MonkeyPatch, cpus: int, forbidden: bool, nice: list[int]
) -> None:
    """A container that forbids the idle class does not end it."""
    asked: list[int] = []

    def schedule(_: int, policy: int, __: object) -> None:
        asked.append(policy)
        if forbidden:
            raise PermissionError

    niced: list[int] = []
    monkeypatch.setattr(reteach, "usable_cpus", lambda: cpus)
    monkeypatch.setattr(os, "sched_setscheduler", schedule)
    monkeypatch.setattr(os, "nice", niced.append)
    reteach._yield_to_the_run()
    assert niced == nice and asked == ([os.SCHED_IDLE] if cpus > 1 else [])
