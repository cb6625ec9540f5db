"""Do the other runtimes answer as LiteRT does, model by model, and how fast are they?

    python benchmarks/twins.py MODEL... [--threads 1]

Each model's ONNX twin runs in each runtime that is installed; answers are compared on the crops of photographs that
ship, as they are before a runtime may classify. "same" is the share of crops with the same best class, "bias" the mean
difference of the best class's score, "worst" the largest difference of any score. "times as fast" is measured in turns.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from edge_mnv2.board.cpus import processor
from edge_mnv2.errors import EdgeMnv2Error
from edge_mnv2.runtime import table
from edge_mnv2.runtime.answers import compare, crops, opened, time_ratios


def row(model: str, runtime: str, threads: int) -> list[str]:
    with opened(model, [runtime]) as pair:
        scores = np.array([[one.scores(picture) for one in pair] for picture in crops(pair[0].input_size)], float)
        one_class = pair[0].io.output.kind in ("softmax", "logits")
    reference, rival = scores[:, 0], scores[:, 1]
    reason = compare(reference, rival, one_class)
    best = reference.argmax(axis=1)
    each = np.arange(len(best))
    bias = float(np.mean(rival[each, best] - reference[each, best]))
    same = f"{np.mean(rival.argmax(axis=1) == best):.3f}" if one_class else ""
    worst = float(np.abs(rival - reference).max())
    speed = "" if reason else f"{time_ratios(model, [runtime], threads)[0]:.2f}"
    return [same, f"{bias:+.4f}", f"{worst:.3f}", speed, reason or "equal"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    print(f"{processor()}\n")
    print("| model | runtime | same | bias | worst | times as fast | answers |\n|---|---|---|---|---|---|---|")
    for model in options.models:
        for runtime in (one for one in table.installed() if one.twins and not one.needs_device):
            try:
                cells = row(model, runtime.name, options.threads)
            except EdgeMnv2Error as error:
                cells = ["", "", "", "", error.message]
            print(f"| {' | '.join([Path(model).name, f'{runtime.name} {runtime.version()}', *cells])} |", flush=True)


if __name__ == "__main__":
    main()
