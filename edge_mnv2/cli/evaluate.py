"""`edge-mnv2 evaluate`."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Optional

import typer

from edge_mnv2.cli.options import JSON, option, setting_overrides
from edge_mnv2.cli.table import aligned
from edge_mnv2.errors import PARTIAL, SourceError

if TYPE_CHECKING:
    from edge_mnv2.datasets.labelled_pictures import Dataset
    from edge_mnv2.evaluate.evaluation import Outcome

_CONFUSIONS = 10


def register(app: typer.Typer) -> None:
    app.command()(evaluate)


def evaluate(
    context: typer.Context,
    folder: Path = typer.Argument(
        ..., metavar="DIR", help="Pictures: DIR/labels.csv, or one folder a class.", show_default=False
    ),
    model: Optional[str] = option("--model", help="A name from `models list`, or a .tflite file.", metavar="NAME|PATH"),
    against: Optional[str] = option("--against", help="A second model to compare with.", metavar="NAME|PATH"),
    labels: Optional[str] = option("--labels", help="A label file for the models.", metavar="FILE"),
    resize: Optional[str] = option("--resize", help="crop (default), stretch or letterbox."),
    threads: Optional[str] = option("--threads", help="Interpreter threads: auto or a number.", metavar="auto|N"),
    runtime: Optional[str] = option("--runtime", help="auto, litert, tflite-runtime, or onnxruntime for .onnx models."),
    delegate: Optional[str] = option(
        "--delegate", help="none (default), auto or edgetpu[:N|:usb[:N]|:pci[:N]]; for --model, not for --against."
    ),
    csv: Optional[Path] = option("--csv", help="Write one row a picture.", metavar="FILE"),
    html: Optional[Path] = option("--html", help="Write a report with charts and mistakes.", metavar="FILE"),
    as_json: bool = JSON,
) -> None:
    """Measure a model on pictures with known answers."""
    from edge_mnv2.board.cpus import resolve_threads
    from edge_mnv2.evaluate.evaluation_run import EvaluationRequest, run
    from edge_mnv2.runtime.opening import chosen_resize
    from edge_mnv2.settings.profile import resolve

    overrides = setting_overrides(context)
    settings = resolve(None, overrides)
    accelerator = None
    if delegate is not None and delegate != "none":
        # The decoders fit the pictures: the classifier must take them as they come.
        accelerator = resolve(None, {**overrides, "preprocess.resize": ("stretch", "command line")})
    count, said = resolve_threads(settings.runtime.threads)
    if said:
        _note(said)
    request = EvaluationRequest(
        folder,
        settings.runtime.model,
        against,
        labels=labels,
        resize=chosen_resize(settings),
        runtime=settings.runtime.backend,
        threads=count,
        accelerator=accelerator,
        csv=csv,
        html=html,
    )
    report = run(request, note=_note, progress=_progress)
    document = report.document
    typer.echo(json.dumps(document, ensure_ascii=False, indent=2) if as_json else _text(document, report.unit))
    if document["failed"]:
        raise typer.Exit(PARTIAL if document["images"] else SourceError.exit_code)


def _note(sentence: str) -> None:
    typer.echo(sentence, err=True)


@contextlib.contextmanager
def _progress(dataset: Dataset) -> Iterator[Callable[[Outcome], None]]:
    """A bar on a terminal; bad pictures are named in any case."""
    if not sys.stderr.isatty():
        yield lambda outcome: _failed(outcome, _note)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=len(dataset.examples), rate="")

        def advance(outcome: Outcome) -> None:
            _failed(outcome, lambda text: bar.console.print(text, markup=False, highlight=False))
            speed = bar.tasks[0].speed
            bar.update(task, advance=1, rate=f"{speed:.0f} pictures/s" if speed else "")

        yield advance


def _failed(outcome: Outcome, say: Callable[[str], None]) -> None:
    if outcome.error is not None:
        say(f"edge-mnv2: error: {outcome.error}")


def _text(document: dict[str, Any], unit: str) -> str:
    from edge_mnv2.evaluate.evaluation_document import MEASURES

    against = document["against"]
    models = [document, *([against] if against is not None else [])]
    threads = f"{document['threads']} thread{'s' if document['threads'] != 1 else ''}"
    lines = [
        f"{document['images']} pictures from {document['dataset']}, "
        f"{document['runtime']}, {document['delegate']}, {threads}",
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
