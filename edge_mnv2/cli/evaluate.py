"""`edge-mnv2 evaluate`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Optional

import typer

from edge_mnv2.cli.command import Command, filling
from edge_mnv2.cli.options import JSON, MODEL, argument, option, settings
from edge_mnv2.cli.terminal import aligned, fitted, json_text, note
from edge_mnv2.errors import PARTIAL, SourceError
from edge_mnv2.messages import console, in_place, visible
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
    if not sys.stderr.isatty():
        yield lambda outcome: _failed(outcome, note)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    with in_place(Progress(*columns, console=console(), transient=True)) as bar:
        task = bar.add_task("", total=len(dataset.examples), rate="")

        def advance(outcome: Outcome) -> None:
            _failed(outcome, lambda text: bar.console.print(visible(text), markup=False, highlight=False))
            speed = bar.tasks[0].speed
            bar.update(task, advance=1, rate=f"{speed:.0f} pictures/s" if speed else "")

        yield advance


def _failed(outcome: Outcome, say: Callable[[str], None]) -> None:
    if outcome.error is not None:
        say(f"edge-mnv2: error: {outcome.error}")


def _text(document: dict[str, Any], unit: str) -> str:
    from edge_mnv2.evaluate.evaluation_page import MEASURES

    against = document["against"]
    models = [document, *([against] if against is not None else [])]
    threads = f"{document['threads']} thread{'s' if document['threads'] != 1 else ''}"
    lines = [
        fitted(
            f"{document['images']} pictures from {document['dataset']}, "
            f"{document['runtime']}, {document['delegate']}, {threads}"
        ),
        "",
    ]
    rows = [
        [name, *(_shown(one.get(key), kind, unit) for one in models)]
        for key, name, kind in MEASURES
        if document.get(key) is not None
    ]
    rows += [
        [f"inference {rank}", *(_shown(one["inference_ms"][rank], "ms", "") for one in models)]
        for rank in ("p50", "p95")
    ]
    header = ["", *(one["model"] for one in models)]
    lines.append(aligned(rows, header, right=tuple(range(1, len(header)))))
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


def _shown(value: Any, kind: str, unit: str) -> str:
    if value is None:
        return "-"
    if kind == "share":
        return f"{value:.1%}"
    if kind == "ms":
        return f"{value:.2f} ms"
    return f"{value:.4g} {unit}{'²' if unit and kind == 'square' else ''}".rstrip()


COMMAND = Command(
    evaluate,
    examples=("edge-mnv2 evaluate photos/", "edge-mnv2 evaluate photos/ --model mine.tflite --against other.tflite"),
)
