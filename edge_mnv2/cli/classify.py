"""`edge-mnv2 classify`."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import typer

from edge_mnv2.cli.command import Command, filling
from edge_mnv2.cli.options import JSON, MODEL, argument, settings
from edge_mnv2.cli.terminal import json_text, note
from edge_mnv2.errors import PARTIAL, SourceError
from edge_mnv2.messages import one_line

if TYPE_CHECKING:
    import numpy as np

    from edge_mnv2.settings.profile import Settings


def classify(
    images: list[str] = argument("IMAGE...", "Pictures, or folders of pictures.", many=True),
    resolved: Settings = settings(*MODEL, "output.top_k"),
    as_json: bool = JSON,
) -> None:
    """Classify still pictures."""
    from edge_mnv2.outputs.records import as_entry
    from edge_mnv2.runtime.opening import open_classifiers

    rows: list[dict[str, Any]] = []
    document = filling({"model": None, "results": rows})
    opened = open_classifiers(resolved, workers=1)
    document["model"] = opened.model
    for sentence in opened.notes:
        note(sentence)
    gc.enable()
    failed = 0
    with opened:
        classifier = opened.classifiers[0]
        for file, image in _pictures(images, classifier.least_side):
            if isinstance(image, SourceError):
                failed += 1
                rows.append({"file": file, "error": str(image)})
                note(f"edge-mnv2: error: {image}")
                continue
            classified = classifier.classify(image)
            top = classifier.top(classified.scores)
            answers = [as_entry(one) for one in top]
            rows.append({"file": file, "top": answers, "inference_ms": round(classified.inference_ns / 1e6, 3)})
            if not as_json:
                typer.echo(one_line(file))
                for one in top:
                    figure = f"{one.score:.1%}" if one.unit is None else one.figure
                    typer.echo(f"  {figure:>6}  {one.label}")
    if as_json:
        typer.echo(json_text(document))
    if failed:
        raise typer.Exit(SourceError.exit_code if failed == len(rows) else PARTIAL)


def _pictures(paths: Iterable[str], least_side: int) -> Iterator[tuple[str, Union[np.ndarray, SourceError]]]:
    """(file, RGB picture or why it cannot be read); a folder stands for the pictures in it, in natural order."""
    from edge_mnv2.camera.still import list_stills, read_still

    for path in paths:
        problems: list[str] = []
        try:
            folder = Path(path).is_dir()
            files = [str(file) for file in list_stills(Path(path), problems.append)] if folder else [path]
        except SourceError as error:
            yield path, error
            continue
        # A folder below that could not be read or followed is a failure of its own, and the others go on.
        yield from ((path, SourceError(problem)) for problem in problems)
        if not files and not problems:
            yield path, SourceError(f"{path}: no pictures in this folder")
        for file in files:
            try:
                yield file, read_still(Path(file), least_side)
            except SourceError as error:
                yield file, error


COMMAND = Command(
    classify, examples=("edge-mnv2 classify cat.jpg", "edge-mnv2 classify photos/ --model model.tflite --json")
)
