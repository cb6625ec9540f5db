"""A lesson as one HTML file that opens anywhere: no script, nothing to fetch, pictures inside."""

from __future__ import annotations

import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any, Optional

import numpy as np

from edge_mnv2 import html_report
from edge_mnv2.datasets.labelled_pictures import REGRESSION
from edge_mnv2.errors import SourceError
from edge_mnv2.html_report import date_text, section, table
from edge_mnv2.messages import digits
from edge_mnv2.runtime.prediction import softmax
from edge_mnv2.svg_chart import STYLE, Figure, fragment, matrix, options, scatter, sheet
from edge_mnv2.teach.embedding import Embedder
from edge_mnv2.teach.head_fitting import Taught
from edge_mnv2.teach.lesson_document import Document
from edge_mnv2.teach.lesson_request import UNKNOWN

_PICTURES = 12
_SURE = 0.8
"""A right answer with a score below is an unsure one."""

_STYLE = """
.plain svg{max-width:27rem;width:100%;font-size:11px;fill:var(--soft)}.point{fill:var(--bar);fill-opacity:.6}
.guide{stroke:var(--soft);stroke-dasharray:4 4;fill:none}.grid{stroke:var(--line)}
.plain .axis{stroke:var(--soft);fill:none}
"""


def page(taught: Taught, document: Document, embedder: Embedder) -> str:
    """The page of `document`."""
    regression = taught.lesson.task == REGRESSION
    sections = [_summary(document)]
    if document["warnings"]:
        sections.append(section("Before you trust it", _list(document["warnings"])))
    if regression and document["metrics"]["values"]:
        pairs = document["metrics"]["values"]
        truth, predicted = ([pair[key] for pair in pairs] for key in ("true", "predicted"))
        chart = f'<div class="plain">{scatter(truth, predicted, document["unit"] or "")}</div>'
        sections.append(
            section("Predicted against true", chart, "Held-out pictures; a perfect model stays on the line.")
        )
    if regression:
        unit = f" {escape(document['unit'])}" if document["unit"] else ""
        rows = [
            [f"{digits(part['low'], 4)} to {digits(part['high'], 4)}{unit}", f"± {digits(part['rmse'], 2)}{unit}"]
            for part in document["metrics"]["expected_errors"]
        ]
        sections.append(section("What a reading may be off by", table(["value", "error"], rows, numeric=(1,)), _ERRORS))
    if not regression and document["metrics"]["confusion"]:
        sections.append(
            section("Confusion", _matrix(taught, document), "Held-out pictures. Rows: true; columns: answered.")
        )
    if document["unknown"] and document["unknown"]["curve"]:
        sections.append(section("What is unknown", _open_set_table(document["unknown"]), _OPEN_SET))
    sections.append(_sheet(taught, embedder))
    if len(document["learning_curve"]) > 1:
        sections.append(
            section("Would more pictures help?", _curve_chart(document["learning_curve"], regression), _CURVE)
        )
    if document["failed"]:
        rows = [[escape(entry["file"]), escape(entry["error"])] for entry in document["failed"]]
        sections.append(section(f"Pictures that could not be read ({len(rows)})", table(["file", "reason"], rows)))
    return html_report.page(f"What {document['model']} was taught", "\n".join(sections), STYLE + _STYLE)


_OPEN_SET = (
    "With another threshold (--known) more new pictures of the taught classes stay known, and fewer strangers are "
    "rejected. Measured on the taught pictures by models without them. A stranger here is a picture of a class that "
    "its model was not taught: it resembles the others more than most strangers do. Where the table ends before 100 %, "
    "its last threshold is the lowest: what lies below shows next to nothing of these classes, and is always unknown."
)

_ERRORS = (
    "Root mean square, of pictures read by heads that were not taught them; two readings in three are nearer. run and "
    "classify show it beside each reading."
)

_CURVE = "Where the line of the held-out pictures still rises (for an error: falls), more pictures help."


def _summary(document: Document) -> str:
    metrics = document["metrics"]
    cards = [("pictures", f"{document['pictures']}"), ("held out", f"{document['held_out']}")]
    if document["task"] == "regression":
        unit = f" {escape(document['unit'])}" if document["unit"] else ""
        cards += [(key.upper(), digits(metrics[key], 4) + unit) for key in ("rmse", "mae") if metrics[key] is not None]
        if metrics["mape"] is not None:
            cards.append(("MAPE", f"{metrics['mape']:.1%}"))
    else:
        cards.append(("classes", f"{len(document['classes'])}"))
        if metrics["top1"] is not None:
            low, high = metrics["top1_interval"]
            cards.append(("held-out accuracy", f"{metrics['top1']:.1%}"))
            cards.append(("95 % interval", f"{low:.0%} to {high:.0%}"))
        if document["unknown"] and document["unknown"]["kept_of_held_out"] is not None:
            cards.append(("held out, stay known", f"{document['unknown']['kept_of_held_out']:.1%}"))
    backbone = document["backbone"]
    setting = f"{document['head']} on {backbone['model']} ({backbone['sha256'][:12]}), {date_text(document['date'])}"
    parts = [f'<p class="soft">{escape(setting)}</p>{html_report.cards(cards)}']
    if document["classes"]:
        rows = [
            [escape(entry["label"]), str(entry["pictures"]), str(entry["held_out"])] for entry in document["classes"]
        ]
        parts.append(section("Classes", table(["class", "pictures", "held out"], rows, numeric=(1, 2))))
    return "".join(parts)


def _open_set_table(unknown: Document) -> str:
    rows = [
        [
            f"{point['known']:.0%}",
            "-" if point["rejected"] is None else f"{point['rejected']:.0%}",
            f"{point['threshold']:.3f}",
        ]
        for point in unknown["curve"]
    ]
    return table(["known pictures that stay known", "strangers rejected", "threshold"], rows, numeric=(0, 1, 2))


def _list(sentences: list[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(sentence)}</li>' for sentence in sentences)}</ul>"


def _matrix(taught: Taught, document: Document) -> str:
    rows = dict(enumerate(taught.lesson.classes))
    columns = {**rows, len(rows): UNKNOWN} if taught.unknown is not None else rows
    cells = {(cell["row"], cell["predicted_row"]): cell["images"] for cell in document["metrics"]["confusion"]}
    return matrix(rows, columns, cells)


def _sheet(taught: Taught, embedder: Embedder) -> str:
    """The held-out pictures (without any: the taught ones) that are answered wrong or unsurely; of values, those that
    are furthest off."""
    shown: list[Figure] = []
    for place, answer in _confusing(taught):
        path = taught.lesson.paths[place]
        picture = _thumbnail(path, embedder) if path is not None else None
        if picture is not None:
            truth = _named(taught, taught.lesson.truth[place])
            shown.append(Figure(taught.lesson.names[place], answer, truth, picture))
        if len(shown) == _PICTURES:
            break
    part = "held-out" if len(taught.held) else "taught"
    title = "Furthest off" if taught.lesson.task == REGRESSION else "Most confusing pictures"
    note = f"Of the {part} pictures, as the model saw them; the answer in bold."
    if not shown:
        note = f"None: the {part} pictures are answered right, each by {_SURE:.0%} or more."
    return section(title, sheet(shown), note)


def _confusing(taught: Taught) -> list[tuple[int, str]]:
    places = taught.held if len(taught.held) else taught.taught
    truth = taught.lesson.truth[places]
    scores = taught.answers.scores[places]
    if taught.lesson.task == REGRESSION:
        order = np.argsort(-np.abs(scores[:, 0] - truth))
        return [(int(places[at]), _named(taught, float(scores[at, 0]))) for at in order]
    assert taught.answers.logits is not None
    sure = softmax(taught.answers.logits[places].astype(float))
    order = np.argsort(sure[np.arange(len(places)), truth.astype(int)], kind="stable")
    names = [*taught.lesson.classes, UNKNOWN]
    doubtful = [at for at in order if scores[at].argmax() != truth[at] or scores[at].max() < _SURE]
    return [(int(places[at]), f"{names[int(scores[at].argmax())]} {scores[at].max():.0%}") for at in doubtful]


def _named(taught: Taught, truth: float) -> str:
    if taught.lesson.task == REGRESSION:
        return f"{digits(truth, 4)} {taught.lesson.request.unit or ''}".strip()
    return taught.lesson.classes[int(truth)]


def _thumbnail(path: Path, embedder: Embedder) -> Optional[bytes]:
    from PIL import Image

    from edge_mnv2.camera.still import read_still

    try:
        pixels = embedder.fitted(read_still(path))
    except SourceError:
        return None
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "JPEG", quality=80)
    return target.getvalue()


def _curve_chart(points: Sequence[dict[str, Any]], regression: bool) -> str:
    """Held-out and taught accuracy (or error) over the number of pictures."""
    import pygal

    chart = pygal.XY(
        dots_size=4,
        x_title="pictures in all" if regression else "pictures a class",
        y_title="error (RMSE)" if regression else "accuracy",
        **options(height=340),
    )
    for name, key in (("held out", "held_out"), ("taught", "taught")):
        chart.add(name, [(point["pictures"], point[key]) for point in points])
    return fragment(chart, "Learning curve")
