"""`edge-mnv2 evaluate`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Optional

import typer

from edge_mnv2.cli.command import Command, filling
from edge_mnv2.cli.options import JSON, MODEL, argument, option, settings
from edge_mnv2.cli.terminal import aligned, bar, fitted, json_text, note
from edge_mnv2.errors import PARTIAL, SourceError
from edge_mnv2.settings.kinds import File

if TYPE_CHECKING:
    from edge_mnv2.datasets.labelled_pictures import Dataset
    from edge_mnv2.evaluate.evaluation import Outcome
    from edge_mnv2.settings.profile import Settings

_CONFUSIONS = 10


def evaluate(
    folder: Path = argument("DIR", "Pictures: DIR/labels.csv, or one folder a class.", File()),
    resolved: Settings = settings(*MODEL),
    against: Optional[str] = option("against", "A second model to compare with.", metavar="NAME|PATH", panel="Model"),
    csv: Optional[Path] = option("csv", "Write one row a picture.", File()),
    report: Optional[Path] = option("report", "Write a page with charts and mistakes.", File("FILE.html")),
    html: Optional[Path] = option("html", "The former name of --report.", File("FILE.html"), hidden=True),
    as_json: bool = JSON,
) -> None:
    """Measure a model on pictures with known answers.

    Without --delegate it is the CPU that is measured, whatever the profile says; --delegate is for --model only.
    """
    from edge_mnv2.board.cpus import resolve_threads
    from edge_mnv2.evaluate.evaluation_run import EvaluationRequest, Interrupted, run
    from edge_mnv2.runtime.opening import chosen_resize

    accelerator = None
    if resolved.chosen("runtime.delegate") not in (None, "none"):
        # The decoders fit the pictures: the classifier must take them as they come.
        accelerator = resolved.changed("preprocess.resize", "stretch")
    count, said = resolve_threads(resolved.runtime.threads)
    if said:
        note(said)
    request = EvaluationRequest(
        folder,
        resolved.runtime.model,
        against,
        options=resolved.model,
        resize=chosen_resize(resolved),
        runtime=resolved.runtime.backend,
        threads=count,
        accelerator=accelerator,
        csv=csv,
        html=report or html,
    )
    try:
        result = run(request, note=note, progress=_progress)
    except Interrupted as stopped:
        document = filling(stopped.report.document)
        done, whole = document["images"] + len(document["failed"]), len(stopped.report.evaluation.dataset.examples)
        note(f"stopped after {done} of {whole} pictures: no file was written")
        if document["images"] and not as_json:
            typer.echo(_text(document, stopped.report.unit))
        raise
    document = result.document
    typer.echo(json_text(document) if as_json else _text(document, result.unit))
    if document["failed"]:
        raise typer.Exit(PARTIAL if document["images"] else SourceError.exit_code)


@contextlib.contextmanager
def _progress(dataset: Dataset) -> Iterator[Callable[[Outcome], None]]:
    """A bar on a terminal; bad pictures are named in any case."""
    done, total, began = 0, len(dataset.examples), time.monotonic()

    def advance(outcome: Outcome) -> None:
        nonlocal done
        done += 1
        if outcome.error is not None:
            note(f"edge-mnv2: error: {outcome.error}")
        if draw is not None:
            draw(f"{done / (time.monotonic() - began):.0f} pictures/s", done, total)

    with bar() as draw:
        yield advance


def _text(document: dict[str, Any], unit: str) -> str:
    from edge_mnv2.evaluate.evaluation_page import figures
    from edge_mnv2.html_report import plural

    threads = plural(document["threads"], "thread")
    lines = [
        fitted(
            f"{document['images']} pictures from {document['dataset']}, "
            f"{document['runtime']}, {document['delegate']}, {threads}"
        ),
        "",
    ]
    header = ["", document["model"], *([document["against"]["model"]] if document["against"] is not None else [])]
    lines.append(aligned(figures(document, unit), header, right=range(1, len(header))))
    if document["agreement"] is not None:
        lines += ["", f"same top-1 on {document['agreement']:.1%} of the pictures"]
    wrong = [cell for cell in document.get("confusion", ()) if cell["class_index"] != cell["predicted_index"]]
    if wrong:
        shown = [
            [str(cell["images"]), _short(cell["label"]), f"-> {_short(cell['predicted'])}"]
            for cell in wrong[:_CONFUSIONS]
        ]
        lines += ["", "most frequent confusions", aligned(shown, right=(0,))]
    if document["failed"]:
        lines += ["", f"{len(document['failed'])} pictures could not be read"]
    return "\n".join(lines)


def _short(label: str) -> str:
    return label.partition(",")[0]


COMMAND = Command(
    evaluate,
    examples=("edge-mnv2 evaluate photos/", "edge-mnv2 evaluate photos/ --model mine.tflite --against other.tflite"),
)
