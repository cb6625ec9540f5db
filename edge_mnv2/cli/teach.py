"""`edge-mnv2 teach`."""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Optional, Union

import typer

from edge_mnv2.board.accelerators import in_words
from edge_mnv2.cli.command import Command, filling
from edge_mnv2.cli.options import JSON, SAID_OF_INPUT, argument, flag, option, outputs, settings, with_origin
from edge_mnv2.cli.run import CAMERA
from edge_mnv2.cli.terminal import Line, aligned, bar, json_text, note, typed_line
from edge_mnv2.errors import PARTIAL, EdgeMnv2Error, UsageError
from edge_mnv2.messages import digits
from edge_mnv2.settings.kinds import File, Number, Whole
from edge_mnv2.settings.option import COMMAND_LINE, ENVIRONMENT, Value

if TYPE_CHECKING:
    from edge_mnv2.app.outputs import ServedPage
    from edge_mnv2.camera.frame import FrameSource
    from edge_mnv2.outputs.table import OutputValues
    from edge_mnv2.settings.profile import Settings
    from edge_mnv2.teach.guide import Guide
    from edge_mnv2.teach.guided_capture import Plan
    from edge_mnv2.teach.lesson import LessonRequest
    from edge_mnv2.teach.teach_run import Outcome

_SAY_EVERY_S = 5.0
_INTERRUPTED = 130


def teach(
    folder: Optional[Path] = argument(
        "DIR", "One folder of pictures a class, or labels.csv (file,value).", File(), required=False
    ),
    resolved: Settings = settings(
        "runtime.model", "runtime.backend", "runtime.threads", "preprocess.resize", *SAID_OF_INPUT
    ),
    out: Optional[Path] = option("out", "The model to write (default: DIR's name).", File("FILE.tflite")),
    camera: Value = with_origin(CAMERA, help="Take the pictures now: alone the first camera, or any source of `run`."),
    classes: Optional[tuple[str, ...]] = option(
        "class", "A class to take pictures of; repeat it.", metavar="NAME", repeated=True
    ),
    shots: int = option("shots", "Pictures a class.", Whole(1), default=20),
    countdown: float = option(
        "countdown", "Seconds before each class where there is no key to press.", Number(0), default=3.0
    ),
    page: OutputValues = outputs("web"),
    add: Optional[Path] = option("add", "Extend this taught model.", File("MODEL")),
    force: bool = flag("force", "Teach over a model that is there; the older one is kept as a version."),
    collected: Optional[tuple[Path, ...]] = option(
        "from",
        "Teach the answers in a collection (`run --collect`); repeat it for those of several boards.",
        File("DIR"),
        repeated=True,
    ),
    task: Optional[str] = option("task", "classification or regression (default: what DIR holds)."),
    head: Optional[str] = option("head", "softmax (default) or imprint (one picture will do)."),
    holdout: float = option("holdout", "Share of pictures to measure with.", Number(), default=0.2),
    seed: int = option("seed", "Same seed and pictures, same model.", Whole(0), default=0),
    optimizer: Optional[str] = option(
        "optimizer", "momentum (default), sgd, adagrad, rmsprop, adam; closed for values."
    ),
    augment: bool = flag("augment", "Learn from mirrored and moved copies too.", default=True, no=True),
    unknown: Value = with_origin(flag("unknown", "Call what was never shown 'unknown'.", default=True, no=True)),
    known: Optional[float] = option(
        "known", "Share of new pictures of taught classes that shall not be called unknown (default 0.95).", Number()
    ),
    compiled: Optional[Path] = option(
        "compiled",
        in_words("The backbone's embedding extractor, compiled for the {0.title}: write NAME_{0.name}.tflite too."),
        File(),
    ),
    unit: Optional[str] = option("unit", "A measured value's unit, for people."),
    report: Optional[Path] = option("report", "Write a page with everything.", File("FILE.html")),
    as_json: bool = JSON,
) -> None:
    """Teach new classes or a measured value from a few pictures, on this device."""
    # What the environment says is meant for `run` as well: there it names the camera and the model that is taught.
    source = None if camera.origin == ENVIRONMENT and not classes else camera.value
    model = resolved.chosen("runtime.model")
    if add is not None and resolved.origin("runtime.model").kind == ENVIRONMENT:
        model = None
    if collected and (folder is not None or source is not None):
        raise UsageError("--from teaches what is answered there", hint="leave DIR and --camera out")
    if source is None and folder is None and not collected:
        raise UsageError("teach needs a folder of pictures", hint="edge-mnv2 teach DIR, with one folder a class in DIR")
    if (source is not None) != bool(classes):
        raise UsageError("--camera and --class belong together", hint="edge-mnv2 teach --camera --class ok --class bad")
    if page["web"] is not None and source is None:
        if page.origin("web") == COMMAND_LINE:
            raise UsageError(
                "--web shows what the camera sees", hint="edge-mnv2 teach --camera --class A --class B --web"
            )
        page = page.without()
    from edge_mnv2.board.cpus import resolve_threads
    from edge_mnv2.runtime import table
    from edge_mnv2.teach.guide import Guide
    from edge_mnv2.teach.lesson import LessonRequest
    from edge_mnv2.teach.teach_run import ready

    count, said = resolve_threads(resolved.runtime.threads)
    if said:
        note(said)
    backend = resolved.runtime.backend
    if backend != "auto" and not table.row(backend).opens("model.tflite"):
        note(f"{backend} takes no part in teaching: {table.reference().name} sees the pictures, on the CPU")
    folder = folder or (collected[0] if collected else Path("taught"))
    filling({"model": None, "folder": str(folder)})
    request = LessonRequest(
        folder,
        out,
        model,
        task,
        head,
        optimizer,
        holdout,
        seed,
        add,
        augment,
        unknown.value if unknown.said else None,
        known,
        unit,
        compiled,
        resolved.chosen("preprocess.resize"),
        backend,
        count,
        collected or (),
        scaling=resolved.model,
    )
    # Before a picture is taken; the lesson itself asks again.
    request = ready(request, report, classes or ())
    _ask_before_teaching_over(request, force)
    guide = Guide(classes or (), shots, folder)
    with _on_page(guide, page) as served, _repeatable(request) as same:
        wanted = classes or ()
        while True:
            took_pictures = False
            try:
                if source is not None and wanted:
                    from edge_mnv2.app.source_choice import choose_source
                    from edge_mnv2.teach.guided_capture import Plan

                    plan = Plan(wanted, shots, countdown_s=countdown)
                    _take(request, choose_source(None, source, resolved.camera).source, plan, guide, served)
                took_pictures = True
                learned: Union[Outcome, EdgeMnv2Error] = _learn(request, report, guide, as_json)
            except EdgeMnv2Error as error:
                learned = error
            # Where there is nothing to mend yet, a visitor who is there is told, and nobody is waited for.
            if served is None or source is None or not (took_pictures or served.viewers):
                break
            from edge_mnv2.app.lesson import left_in_words, mend, try_model
            from edge_mnv2.teach.guide import AGAIN, MORE

            if isinstance(learned, EdgeMnv2Error):
                note(f"{learned}; on the page the pictures can be mended: {left_in_words()}")
                action, label = mend([str(learned)], served, guide)
            else:
                note(f"on the page the new model can be tried: {left_in_words()}")
                model_file, lines = learned.written[-1], _in_words(learned, on_page=True)
                try:
                    action, label = try_model(model_file, lines, resolved, source, page, served, guide)
                except EdgeMnv2Error:
                    # The run that went on with the model: the lesson itself is done.
                    if as_json:
                        typer.echo(json_text(learned.document))
                    raise
            if action not in (AGAIN, MORE):
                break
            request, wanted = same, (label,) if label is not None else ()
        if isinstance(learned, EdgeMnv2Error):
            raise learned
        guide.end(_in_words(learned, on_page=True))
    if as_json:
        typer.echo(json_text(learned.document))
    if learned.document["failed"]:
        raise typer.Exit(PARTIAL)


def _learn(request: LessonRequest, report: Optional[Path], guide: Guide, as_json: bool) -> Outcome:
    """Learn and say what came of it; JSON waits for the end."""
    from edge_mnv2.teach.teach_run import run

    try:
        with _progress(guide) as progress:
            outcome = run(request, note, progress, report)
    except KeyboardInterrupt:
        note(f"stopped: no model was written, the pictures are in {request.folder}")
        raise typer.Exit(_INTERRUPTED) from None
    filling(outcome.document)
    for sentence in outcome.document["warnings"]:
        note(f"warning: {sentence}")
    if not as_json:
        typer.echo("\n".join([*_in_words(outcome), "", f"edge-mnv2 run --camera --model {outcome.written[-1]}"]))
    return outcome


@contextlib.contextmanager
def _repeatable(request: LessonRequest) -> Iterator[LessonRequest]:
    """`request` for the second time: it extends the model that there was before the first time."""
    if request.add is None:
        yield request
        return
    from edge_mnv2.zoo import versions

    with tempfile.TemporaryDirectory(prefix="edge-mnv2-") as folder:
        former = Path(folder) / request.add.name
        if request.add.is_file():
            versions.put(request.add, former)
        yield replace(request, add=former)


def _ask_before_teaching_over(request: LessonRequest, force: bool) -> None:
    """Raises UsageError where the model that would be written is there already, and nobody wants that."""
    out = request.out
    # Over its own backbone nothing is taught, whatever is said: the lesson refuses that.
    backbone = request.model is not None and Path(request.model).absolute() == (out or Path()).absolute()
    if out is None or force or backbone or out == request.add or not out.exists():
        return
    if sys.stdin.isatty() and sys.stderr.isatty():
        if typer.confirm(f"{out} is there already. Teach over it? The older one is kept", err=True):
            return
        raise typer.Exit(_INTERRUPTED)
    raise UsageError(
        f"{out} is there already", hint="--force teaches over it and keeps it as a version; or another --out"
    )


@contextlib.contextmanager
def _on_page(guide: Guide, page: OutputValues) -> Iterator[Optional[ServedPage]]:
    """The page at `web`; None where none is served. Its visitors see how it ended."""
    if not page.outputs:
        yield None
        return
    from edge_mnv2.outputs.live import Live

    live = Live()
    live.lesson = guide
    (server,) = page.outputs[0].open(page, live)
    try:
        yield server
    except EdgeMnv2Error as error:
        guide.end([str(error)], failed=True)
        raise
    finally:
        server.close()


def _take(request: LessonRequest, source: FrameSource, plan: Plan, guide: Guide, page: Optional[ServedPage]) -> None:
    """Take pictures into the folder of `request`. Ends the command where it is interrupted."""
    from edge_mnv2.outputs.live import Facts
    from edge_mnv2.runtime.opening import open_classifier
    from edge_mnv2.teach.guided_capture import GuidedCapture

    line, live = Line(), page.live if page is not None else None
    if live is not None:
        live.facts = Facts(source=source.description)
    keys = {}
    if sys.stdin.isatty():
        keys["press Enter"] = typed_line
    if live is not None:
        keys["press the page's button"] = guide.pressed
    with open_classifier(request.model, request.scaling, top_k=3)[0] as classifier, source:
        capture = GuidedCapture(
            source,
            request.folder,
            plan,
            say=line.say,
            show=line.show,
            keys=keys,
            see=lambda pixels: classifier.top(classifier.scores(pixels)),
            watch=live.show if live is not None else None,
            guide=guide,
        )
        try:
            capture.run()
        except KeyboardInterrupt:
            taken = sum(guide.taken.values())
            folder = request.folder
            line.say(f"stopped: {taken} pictures are in {folder}; `edge-mnv2 teach {folder}` goes on with them")
            raise typer.Exit(_INTERRUPTED) from None


@contextlib.contextmanager
def _progress(guide: Guide) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal; elsewhere a line every few seconds. `guide` is told too."""
    began = said_at = time.monotonic()

    def advance(done: int, total: int) -> None:
        nonlocal said_at
        guide.learn(done, total)
        if draw is not None:
            draw("looking" if done < total else "learning", done, total)
            return
        now = time.monotonic()
        if done and (now - said_at >= _SAY_EVERY_S or done == total):
            said_at = now
            left = (now - began) / done * (total - done)
            note(f"{done} of {total} pictures, {left:.0f} s left" if done < total else f"{done} pictures seen")

    with bar() as draw:
        yield advance


def _in_words(outcome: Outcome, *, on_page: bool = False) -> list[str]:
    facts, out = outcome.document, outcome.written[-1]
    metrics = facts["metrics"]
    rows = [["model", f"{out.name if on_page else out} ({facts['bytes'] / 1e6:.1f} MB)"]]
    rows.append(["pictures", f"{facts['pictures']}, {facts['held_out']} of them held out"])
    if facts["task"] == "regression":
        unit = f" {facts['unit']}" if facts["unit"] else ""
        measured = [key for key in ("rmse", "mae") if metrics[key] is not None]
        rows += [[f"held-out {key.upper()}", digits(metrics[key], 4) + unit] for key in measured]
        if metrics["mape"] is not None:
            rows.append(["held-out MAPE", f"{metrics['mape']:.1%}"])
        for low, high, error in map(dict.values, metrics["expected_errors"]):
            rows.append([f"from {digits(low, 4)} to {digits(high, 4)}{unit}", f"± {digits(error, 2)}{unit}"])
    else:
        rows.append(["classes", ", ".join(f"{one['label']} ({one['pictures']})" for one in facts["classes"])])
        if metrics["top1"] is not None:
            low, high = metrics["top1_interval"]
            rows.append(["held-out accuracy", f"{metrics['top1']:.1%} (95 % interval {low:.1%} to {high:.1%})"])
        if facts["unknown"] and facts["unknown"]["kept_of_held_out"] is not None:
            recall = facts["unknown"]["kept_of_held_out"]
            rows.append(["stay known", f"{recall:.1%} of the held-out pictures; the others are called unknown"])
    lines = [aligned(rows)]
    wrong = [cell for cell in metrics.get("confusion", ()) if cell["row"] != cell["predicted_row"]]
    if wrong:
        shown = [[str(cell["images"]), cell["label"], f"-> {cell['predicted']}"] for cell in wrong]
        shown.sort(key=lambda cells: -int(cells[0]))
        lines += ["", "taken for another", aligned(shown[:10], right=(0,))]
    return "\n".join(lines).splitlines()


COMMAND = Command(
    teach,
    examples=(
        "edge-mnv2 teach photos/ --out mine.tflite",
        "edge-mnv2 teach --camera --class ok --class broken --web 8080",
    ),
)
