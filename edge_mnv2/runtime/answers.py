"""Runtimes on one model, in a process of its own: do they answer alike, and which is fastest?

    python -m edge_mnv2.runtime.answers compare MODEL RUNTIME
    python -m edge_mnv2.runtime.answers race MODEL THREADS RUNTIME...

They are compared with the reference, which `auto` takes. Prints one JSON document.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_mnv2 import paths
from edge_mnv2.errors import EdgeMnv2Error, UsageError
from edge_mnv2.runtime import table
from edge_mnv2.runtime.classifier import Classifier
from edge_mnv2.runtime.model_io import ModelSpec
from edge_mnv2.runtime.opening import model_spec
from edge_mnv2.zoo.resolve import resolve

SURE = 0.2
"""Where the reference's best two scores differ by more, a rival's best class has to be the same."""
BIAS = 0.01
"""The mean difference of scores that is still no bias: two quantized softmaxes differ by 1/256 at most."""
_WORST = 0.1
"""The largest difference of a value or of a multi-label probability, as a share of their range."""
_FRACTIONS = (1.0, 0.8, 0.6, 0.45)
_RACE_S = 0.6
_LEAST_ROUNDS = 5
_PAUSE_S = 0.0005
_UNDISTURBED = 0.25
"""The share of the inferences that are taken for undisturbed: fewer may all be by chance the quickest."""
_WAITED = 0.2
"""Where threads waited for a CPU for more than this share of the time, they had none of their own."""


def crops(size: tuple[int, int], fractions: Sequence[float] = _FRACTIONS) -> Iterator[np.ndarray]:
    """Pictures RGB uint8 of `size` (height, width): windows of the photographs that ship, about 200 of them.

    `fractions`: the windows' sides, of the shorter side of a photograph.
    """
    import cv2

    from edge_mnv2.camera.still import read_still

    for photograph in sorted(paths.packaged("models", "photographs").glob("*.jpg")):
        pixels = read_still(photograph)
        rows, columns = pixels.shape[:2]
        for fraction in fractions:
            side = round(min(rows, columns) * fraction)
            tops = sorted({0, (rows - side) // 2, rows - side})
            lefts = sorted({0, (columns - side) // 2, columns - side})
            for top in tops:
                for left in lefts:
                    window = pixels[top : top + side, left : left + side]
                    yield cv2.resize(window, size[::-1], interpolation=cv2.INTER_LINEAR)


def difference(model: str, rival: str) -> str:
    """Why the answers of `rival` are not the reference's, "" where they are. Raises what opening the model raises."""
    with opened(model, [rival]) as pair:
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


def time_ratios(model: str, rivals: Sequence[str], threads: int, seconds: float = _RACE_S) -> list[float]:
    """The reference's time of an inference over each rival's.

    Where other programs leave several threads no CPUs of their own, chance says which runtime gets them: a rival then
    leads only where it does with one thread too.
    """
    ratios, waited = _race(model, rivals, threads, seconds)
    if threads > 1 and waited > _WAITED and max(ratios) > 1:
        alone, _ = _race(model, rivals, 1, seconds)
        ratios = [min(pair) for pair in zip(ratios, alone)]
    return ratios


def _race(model: str, rivals: Sequence[str], threads: int, seconds: float) -> tuple[list[float], float]:
    """The ratios, and for which share of the time threads waited for a CPU.

    Runtimes take turns, one inference each: in a run, too, other work comes between two inferences and takes the
    caches. Those that get many in a row with warm caches are closer together, and another one may lead. Compared is
    what each needs undisturbed: other programs only ever make an inference longer.
    """
    times: list[list[float]] = []
    with opened(model, rivals, threads) as runtimes:
        for one in runtimes:
            one.warm_up(3)
        waited, end = _waited_for_cpu(), time.perf_counter() + seconds
        while len(times) < _LEAST_ROUNDS or time.perf_counter() < end:
            order = list(range(len(runtimes)))
            random.shuffle(order)
            row = [0.0] * len(runtimes)
            for position in order:
                # Who keeps a core busy is moved in a pause; without, two threads may share the other one for good.
                time.sleep(_PAUSE_S)
                began = time.perf_counter()
                runtimes[position].interpreter.invoke()
                row[position] = time.perf_counter() - began
            times.append(row)
        waited = (_waited_for_cpu() - waited) / float(np.sum(times))
    reference, *others = np.quantile(times, _UNDISTURBED, axis=0)
    return [float(reference / other) for other in others], waited


def _waited_for_cpu() -> float:
    """Seconds for which threads of this process were ready and had no CPU; 0 where the kernel does not say."""
    nanoseconds = 0
    for task in Path("/proc/self/task").glob("*/schedstat"):
        with contextlib.suppress(OSError, ValueError, IndexError):  # a thread that has just ended
            nanoseconds += int(task.read_text().split()[1])
    return nanoseconds / 1e9


@contextlib.contextmanager
def opened(model: str, rivals: Sequence[str], threads: int = 1) -> Iterator[list[Classifier]]:
    """`model` in the reference and in each of `rivals`."""
    resolved = resolve(model)
    # Only numbers are compared: what a command was told of them, and their names, are nobody's concern here.
    spec = replace(model_spec(resolved), labels=())
    with contextlib.ExitStack() as stack:

        def open_in(name: str, spec: ModelSpec) -> Classifier:
            return stack.enter_context(Classifier.open(resolved.path, spec=spec, runtime=name, threads=threads))

        first = table.reference().name
        try:
            reference = open_in(first, spec)
        except UsageError:  # one number, of which people have to say what it is
            spec = replace(spec, task="regression")
            reference = open_in(first, spec)
        yield [reference, *(open_in(rival, spec) for rival in rivals)]


def main(arguments: list[str]) -> int:
    """What a child does. It ends without running native destructors, which may fail: the answer is there by then."""
    task, model, *others = arguments
    try:
        if task == "compare":
            # The frames of whoever waits for this come first.
            os.nice(19)
            document: dict[str, Any] = {"refused": difference(model, others[0])}
        else:
            document = {"ratios": time_ratios(model, others[1:], int(others[0]))}
    except EdgeMnv2Error as error:
        text = error.message
        document = {"refused": text[len(model) + 2 :] if text.startswith(f"{model}: ") else text}
    print(json.dumps(document), flush=True)
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
