"""Which runtime classifies a `.tflite` fastest on this board, under equal answers: found out once and remembered.

The reference is the runtime that `auto` takes. A rival runs the model's ONNX twin. It may win only after its answers
were compared with the reference's on crops of photographs (`runtime.answers`, in a process of its own: a crash, a hang
or another answer leaves it out). A result holds for one processor, one version of each runtime, and one model.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from edge_mnv2 import paths
from edge_mnv2.board.cpus import MemoryReader, processor
from edge_mnv2.board.sysroot import Sysroot
from edge_mnv2.errors import EdgeMnv2Error, ModelError
from edge_mnv2.files import sha256_of
from edge_mnv2.runtime import table

log = logging.getLogger(__name__)

_ANSWERS_TIMEOUT_S, _RACE_TIMEOUT_S = 300.0, 60.0
_DELAY_S = 2.0
_END_S = 3.0
"""So long a run waits at its end for a winner that is being opened."""
_LEAST_MB = 400
"""A child with three runtimes takes up to 300 MB."""
SWITCH = "EDGE_MNV2_RACE"
_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Whoever ends a run ends its child too, which says nothing about the runtime."""
_WORTH = 1.015
"""A rival that is faster by less may be slower another time, and is not worth its start-up and memory."""


@dataclass(frozen=True)
class Known:
    """What is remembered of a model at a number of threads. `ratio`: the reference's time over the winner's."""

    winner: Optional[str]
    ratio: float = 1.0
    left_out: dict[str, str] = field(default_factory=dict)


def rivals(path: Path, accelerate: bool = True) -> list[table.Runtime]:
    """The installed runtimes that could run the twin of `path`; none where it is no `.tflite`.

    `accelerate` False leaves out those that need a device of their own.
    """
    reference = table.reference()
    if reference.version() is None or not reference.opens(path):
        return []
    # Only those that could run it are looked for: others cost every start a search.
    twins = (row for row in table.rows() if row.twins and row.version() is not None)
    return [row for row in twins if (accelerate or not row.needs_device) and has_device(row)]


def has_device(row: table.Runtime) -> bool:
    """Whether the device is there that the runtime cannot work without."""
    return not row.needs_device or any(any(Path("/").glob(node[1:])) for node in row.devices)


# What is remembered


def known(path: Path, threads: int, accelerate: bool = True) -> Optional[Known]:
    """What a race at `threads` threads has found, None where there was none with these versions on this processor."""
    rows = rivals(path, accelerate)
    if not rows:
        return None
    memory = _read(path)
    left_out, best = {}, Known(None)
    for row in rows:
        answers = memory.get(_key(row))
        if answers is None:
            return None
        if answers["refused"]:
            left_out[row.name] = answers["refused"]
            continue
        ratio = answers["ratios"].get(str(threads))
        if ratio is None:
            return None
        if ratio > max(best.ratio, _WORTH):
            best = Known(row.name, ratio)
    return Known(best.winner, best.ratio, left_out)


def refused(path: Path, row: table.Runtime) -> Optional[str]:
    """Why the rival is left out for the model, "" where its answers are equal; None: they were not compared yet."""
    answers = _read(path).get(_key(row))
    return None if answers is None else answers["refused"]


def _key(row: table.Runtime) -> str:
    reference = table.reference()
    return f"{row.name} {row.version()} | {reference.name} {reference.version()} | {processor()}"


def _place(path: Path) -> Path:
    return paths.cache_dir() / "runtimes" / f"{sha256_of(path)[:32]}.json"


def _read(path: Path) -> dict[str, Any]:
    try:
        memory = json.loads(_place(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    sound = isinstance(memory, dict) and all(
        isinstance(one, dict) and isinstance(one.get("refused"), str) and isinstance(one.get("ratios"), dict)
        for one in memory.values()
    )
    return memory if sound else {}


def _remember(path: Path, row: table.Runtime, refused: str, ratios: dict[str, float]) -> None:
    memory = {**_read(path), _key(row): {"refused": refused, "ratios": ratios}}
    try:
        _place(path).parent.mkdir(parents=True, exist_ok=True)
        with paths.atomic_write(_place(path), "w") as handle:
            json.dump(memory, handle, indent=1)
    except OSError as error:
        log.debug("the race is not remembered: %s", error)


# Finding out, in processes of their own


class Stopped(EdgeMnv2Error):
    """Somebody asked to stop while a child was at work."""

    def __init__(self) -> None:
        super().__init__("the comparison of runtimes was stopped before its end")


class Contest:
    """Compares and races the rivals for one model; `stop` ends it from another thread."""

    def __init__(self, path: Path, accelerate: bool = True) -> None:
        self._path = path
        self._accelerate = accelerate
        self._child: Optional[subprocess.Popen] = None
        self._stopping = threading.Event()

    def equal(self, row: table.Runtime) -> str:
        """Why `row` is left out, "" where its answers are equal. Compared once. Raises Stopped."""
        memory = refused(self._path, row)
        if memory is None:
            answer = self._ask(_ANSWERS_TIMEOUT_S, "compare", str(self._path), row.name)
            memory = answer if isinstance(answer, str) else str(answer["refused"])
            _remember(self._path, row, memory, {})
        return memory

    def run(self, threads: int) -> Optional[Known]:
        """Compare, race and remember every rival; None where there is none. Raises Stopped."""
        equal = [row for row in rivals(self._path, self._accelerate) if not self.equal(row)]
        untimed = [row for row in equal if str(threads) not in self._ratios(row)]
        # Who crashes or hangs ends the race of all, and is found where each runs alone.
        if untimed and not self._race(untimed, threads):
            for row in untimed:
                self._race([row], threads)
        return known(self._path, threads, self._accelerate)

    def _ratios(self, row: table.Runtime) -> dict[str, float]:
        ratios: dict[str, float] = _read(self._path).get(_key(row), {}).get("ratios", {})
        return ratios

    def _race(self, rows: list[table.Runtime], threads: int) -> bool:
        """Race and remember `rows`; False where one of several failed, and it is not known which one."""
        answer = self._ask(_RACE_TIMEOUT_S, "race", str(self._path), str(threads), *(row.name for row in rows))
        why = answer if isinstance(answer, str) else answer.get("refused", "")
        if why and len(rows) > 1:
            return False
        for row, ratio in zip(rows, [0.0] if why else answer["ratios"]):
            ratios = self._ratios(row)
            _remember(self._path, row, why, ratios if why else {**ratios, str(threads): round(float(ratio), 3)})
        return True

    def stop(self) -> None:
        """End the child that is at work, if there is one."""
        self._stopping.set()
        child = self._child
        if child is not None:
            with contextlib.suppress(OSError):
                child.kill()

    def _ask(self, timeout: float, *arguments: str) -> Any:
        """What a child answers (a document), or a sentence about how it ended."""
        if self._stopping.is_set():
            raise Stopped
        command = paths.module_command("edge_mnv2.runtime.answers", *arguments)
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # Ctrl-C on the terminal is for the run: while it starts, the child would end as if it had failed.
            start_new_session=True,
        ) as child:
            self._child = child
            if self._stopping.is_set():
                # `stop` came while it was being started, and saw no child.
                child.kill()
            try:
                output, _ = child.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                return f"it did not answer within {timeout:g} s"
            finally:
                child.kill()
                self._child = None
        if self._stopping.is_set() or -child.returncode in _ENDINGS:
            raise Stopped
        try:
            return json.loads(output.splitlines()[-1])
        except (ValueError, IndexError):
            code = child.returncode
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            return f"it crashed ({how})"


class BesideRun(threading.Thread):
    """The contest of a run that nobody gave a runtime: it begins once the run is on its way, tells the result in the
    log, and ends with the run. A context manager.

    `take_over` lets a winner classify from now on, and raises EdgeMnv2Error where it cannot; None: from the next start
    on.
    """

    def __init__(self, path: Path, threads: int, accelerate: bool = True) -> None:
        super().__init__(name="runtime-contest", daemon=True)
        self._contest = Contest(path, accelerate)
        self._threads = threads
        self._ending = threading.Event()
        self.take_over: Optional[Callable[[], None]] = None

    def run(self) -> None:
        if self._ending.wait(_DELAY_S):
            return
        try:
            result = self._contest.run(self._threads)
        except (Stopped, EdgeMnv2Error, OSError) as error:
            log.debug("the contest of runtimes ended early: %r", error)
            return
        if result is None:
            return
        reference = table.reference().name
        for name, reason in result.left_out.items():
            log.info("the runtime %s is left out for this model: %s", name, reason)
        if result.winner is not None:
            log.info(
                "%s is %.2f times as fast as %s here, with equal answers: used from %s on (--runtime %s keeps %s)",
                result.winner, result.ratio, reference, "now" if self._taken_over() else "the next start",
                reference, reference,
            )  # fmt: skip

    def _taken_over(self) -> bool:
        if self.take_over is None or self._ending.is_set():
            return False
        try:
            self.take_over()
        except (EdgeMnv2Error, OSError) as error:
            log.debug("the winner did not take over: %s", error)
            return False
        return True

    def __enter__(self) -> BesideRun:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ending.set()
        self._contest.stop()
        self.join(_END_S)


def allowed() -> bool:
    """Whether runtimes may be compared without being asked for by name."""
    return os.environ.get(SWITCH, "").strip().lower() not in ("off", "0", "no", "false")


def wanted(path: Path, threads: int, accelerate: bool = True) -> bool:
    """Whether a contest is still to be held for the model, can be remembered, and the board has the memory for it."""
    if not allowed() or not rivals(path, accelerate) or known(path, threads, accelerate) is not None:
        return False
    folder = _place(path).parent
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        # What cannot be remembered would be found out at every start.
        return False
    available = MemoryReader(Sysroot("/")).read().available
    return available is None or available >= _LEAST_MB


def chosen(path: Path, runtime: str, threads: int, accelerate: bool = True) -> tuple[str, list[str]]:
    """The runtime to open `path` with where `runtime` was asked for, and what to tell once.

    "auto" becomes the winner of the contest, if there was one. A rival that is asked for by name is compared now, if it
    was not yet: that takes seconds, once. Raises ModelError where its answers are not the reference's.
    """
    if runtime == "auto":
        result = known(path, threads, accelerate) if allowed() else None
        if result is None or result.winner is None:
            return "auto", []
        reference = table.reference().name
        note = f"{result.winner}: {result.ratio:.2f} times as fast as {reference} here, with equal answers"
        return result.winner, [f"{note} (--runtime {reference} keeps {reference})"]
    row, reference_row = table.row(runtime), table.reference()
    if not row.twins or row.opens(path) or not reference_row.opens(path) or row.version() is None:
        return runtime, []
    if reference_row.version() is None:
        return runtime, [f"without {reference_row.name} the answers of {runtime} are not compared with anything"]
    if refused(path, row) is None:
        log.info("comparing the answers of %s with those of %s, once", runtime, reference_row.name)
    if why := Contest(path).equal(row):
        raise ModelError(
            f"{runtime} cannot run {path.name}: {why}", hint=f"--runtime {reference_row.name} runs it, or auto"
        )
    return runtime, []
