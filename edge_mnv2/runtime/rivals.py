"""Which runtime classifies a `.tflite` fastest on this board, under equal answers: found out once and remembered.

The reference is the runtime that `auto` takes. A rival runs the model's ONNX twin. It may win only after its answers
were compared with the reference's on crops of photographs, in a process of its own: a crash, a hang or another answer
there leaves it out. What was found holds for one processor, one version of each runtime, and one model.

    python -m edge_mnv2.runtime.rivals answers MODEL RUNTIME
    python -m edge_mnv2.runtime.rivals race MODEL RUNTIME THREADS
"""

from __future__ import annotations

import contextlib
import glob
import json
import logging
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import numpy as np

from edge_mnv2 import paths
from edge_mnv2.board.cpus import processor
from edge_mnv2.errors import EdgeMnv2Error, ModelError
from edge_mnv2.runtime import table
from edge_mnv2.zoo.digest import sha256_of

log = logging.getLogger(__name__)

SURE = 0.2
"""Where the reference's best two scores differ by more, a rival's best class has to be the same."""
BIAS = 0.01
"""The mean difference of scores that is still no bias: two quantized softmaxes differ by 1/256 at most."""
_WORST = 0.1
"""The largest difference of a value or of a multi-label probability, as a share of their range."""
_FRACTIONS = (1.0, 0.8, 0.6, 0.45)
_RACE_S = 0.8
_BURST_S = 0.02
_ANSWERS_TIMEOUT_S, _RACE_TIMEOUT_S = 300.0, 60.0
_WORTH = 1.03
"""A rival that is faster by less is not worth its start-up and memory."""


@dataclass(frozen=True)
class Known:
    """What is remembered of a model at a number of threads. `ratio`: the reference's time over the winner's."""

    winner: Optional[str]
    ratio: float = 1.0
    left_out: dict[str, str] = field(default_factory=dict)


def rivals(path: Path) -> list[table.Runtime]:
    """The installed runtimes that could run the twin of `path`; none where it is no `.tflite`."""
    if not table.reference().opens(path):
        return []
    return [row for row in table.installed() if row.twins and _device_is_there(row)]


def _device_is_there(row: table.Runtime) -> bool:
    return not row.needs_device or any(glob.glob(pattern) for pattern in row.devices)


def crops(size: tuple[int, int]) -> Iterator[np.ndarray]:
    """About 200 pictures RGB uint8 of `size` (height, width): windows of the photographs that ship."""
    import cv2

    from edge_mnv2.camera.still import read_still

    for photograph in sorted(paths.packaged("models", "photographs").glob("*.jpg")):
        pixels = read_still(photograph)
        rows, columns = pixels.shape[:2]
        for fraction in _FRACTIONS:
            side = round(min(rows, columns) * fraction)
            tops = sorted({0, (rows - side) // 2, rows - side})
            lefts = sorted({0, (columns - side) // 2, columns - side})
            for top in tops:
                for left in lefts:
                    window = pixels[top : top + side, left : left + side]
                    yield cv2.resize(window, size[::-1], interpolation=cv2.INTER_LINEAR)


def difference(model: str, rival: str) -> str:
    """Why the answers of `rival` are not the reference's, "" where they are. Raises what opening the model raises."""
    from edge_mnv2.runtime.opening import open_classifier

    with contextlib.ExitStack() as stack:
        pair = [stack.enter_context(open_classifier(model, runtime=name)[0]) for name in ("auto", rival)]
        scores = np.array(
            [[one.scores(picture) for one in pair] for picture in crops(pair[0].input_size)], dtype=np.float64
        )
        kind = pair[0].io.output.kind
    return compare(scores[:, 0], scores[:, 1], one_class=kind in ("softmax", "logits"))


def compare(reference: np.ndarray, rival: np.ndarray, one_class: bool) -> str:
    """Why `rival` (pictures, rows) answers differently, "" where it does not. `one_class`: the best row is the answer,
    else every row is judged by itself."""
    pictures = len(reference)
    if not np.isfinite(rival).all():
        return "its scores are not finite"
    if one_class and reference.shape[1] > 1:
        best = reference.argmax(axis=1)
        two = np.partition(reference, -2, axis=1)[:, -2:]
        wrong = (two[:, 1] - two[:, 0] > SURE) & (rival.argmax(axis=1) != best)
        if wrong.any():
            return f"it names another class in {int(wrong.sum())} of {pictures} test pictures"
        each = np.arange(pictures)
        bias = float(np.mean(rival[each, best] - reference[each, best]))
        return f"its scores are off by {bias:+.3f} on average" if abs(bias) > BIAS else ""
    span = max(float(np.ptp(reference)), 1e-9)
    apart = (rival - reference) / span
    if abs(apart.mean()) > BIAS or np.abs(apart).max() > _WORST:
        return f"its answers are off by up to {np.abs(apart).max():.0%} of their range"
    return ""


def time_ratio(model: str, rival: str, threads: int, seconds: float = _RACE_S) -> float:
    """The reference's time of an inference over the rival's, from short bursts in turns."""
    from edge_mnv2.runtime.opening import open_classifier
    from edge_mnv2.runtime.race import race

    with contextlib.ExitStack() as stack:
        pair = [
            stack.enter_context(open_classifier(model, runtime=name, threads=threads)[0]) for name in ("auto", rival)
        ]
        for one in pair:
            one.warm_up(3)

        def measure(position: int) -> float:
            interpreter, times = pair[position].interpreter, []
            end = time.perf_counter() + _BURST_S
            while not times or time.perf_counter() < end:
                began = time.perf_counter()
                interpreter.invoke()
                times.append(time.perf_counter() - began)
            return statistics.median(times)

        outcome = race(measure, 2, seconds=seconds)
    reference, other = (entrant.ratio for entrant in outcome.entrants)
    return reference / other


# What is remembered


def known(path: Path, threads: int) -> Optional[Known]:
    """What a race at `threads` threads has found, None where there was none with these versions on this processor."""
    found = rivals(path)
    if not found:
        return None
    memory = _read(path)
    left_out, best = {}, Known(None)
    for row in found:
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


class Stopped(Exception):
    """Somebody asked to stop while a child was at work."""


class Contest:
    """Compares and races the rivals for one model; `stop` ends it from another thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._child: Optional[subprocess.Popen] = None
        self._stopping = threading.Event()

    def equal(self, row: table.Runtime) -> str:
        """Why `row` is left out, "" where its answers are equal. Compared once. Raises Stopped."""
        memory = refused(self._path, row)
        if memory is None:
            answer = self._ask(_ANSWERS_TIMEOUT_S, "answers", str(self._path), row.name)
            memory = answer if isinstance(answer, str) else str(answer["refused"])
            _remember(self._path, row, memory, {})
        return memory

    def run(self, threads: int) -> Optional[Known]:
        """Compare, race and remember every rival; None where there is none. Raises Stopped."""
        for row in rivals(self._path):
            ratios = _read(self._path).get(_key(row), {}).get("ratios", {})
            if self.equal(row) or str(threads) in ratios:
                continue
            answer = self._ask(_RACE_TIMEOUT_S, "race", str(self._path), row.name, str(threads))
            if isinstance(answer, str):
                _remember(self._path, row, answer, ratios)
            else:
                _remember(self._path, row, "", {**ratios, str(threads): round(float(answer["ratio"]), 3)})
        return known(self._path, threads)

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
        command = [sys.executable, "-m", "edge_mnv2.runtime.rivals", *arguments]
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as child:
            self._child = child
            try:
                output, _ = child.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                return f"it did not answer within {timeout:g} s"
            finally:
                child.kill()
                self._child = None
        if self._stopping.is_set():
            raise Stopped
        try:
            return json.loads(output.splitlines()[-1])
        except (ValueError, IndexError):
            code = child.returncode
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            return f"it crashed ({how})"


def words(known: Known) -> list[str]:
    """What a person is told of a contest, once: the winner in one line, and who was left out."""
    reference = table.reference().name
    lines = [f"{name} is left out: {reason}" for name, reason in known.left_out.items()]
    if known.winner is not None:
        lines.append(
            f"{known.winner} classifies {known.ratio:.2f} times as fast as {reference} here, with equal answers: "
            f"used from the next start on (--runtime {reference} keeps {reference})"
        )
    return lines


def main(arguments: list[str]) -> int:
    task, model, rival = arguments[:3]
    try:
        if task == "answers":
            # The frames of whoever waits for this come first.
            os.nice(19)
            document: dict[str, Any] = {"refused": difference(model, rival)}
        else:
            document = {"ratio": time_ratio(model, rival, int(arguments[3]))}
    except EdgeMnv2Error as error:
        document = {"refused": error.message, "ratio": 0.0}
    print(json.dumps(document), flush=True)
    # Native destructors may fail; the answer is there.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
