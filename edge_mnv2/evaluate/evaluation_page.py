"""An evaluation as one JSON document (unknown values are None, shares are fractions), and as one HTML file that opens
anywhere: no script, nothing to fetch, pictures inside.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any, Optional

import numpy as np

from edge_mnv2 import html_report
from edge_mnv2.datasets.classes import Classes
from edge_mnv2.evaluate.evaluation import Evaluation, Outcome, Subject
from edge_mnv2.evaluate.metrics import (
    Answer,
    agreement,
    balanced_accuracy,
    calibration,
    confusion,
    macro_f1,
    per_class,
    percentiles,
    regression_errors,
    top_k_accuracy,
)
from edge_mnv2.html_report import section, table
from edge_mnv2.messages import digits
from edge_mnv2.svg_chart import STYLE, Figure, matrix, reliability, scatter, sheet

Document = dict[str, Any]
_ERRORS = ("mse", "rmse", "mae", "mape")

MEASURES = (
    ("top1", "top-1", "share"),
    ("top5", "top-5", "share"),
    ("balanced_top1", "top-1, mean over classes", "share"),
    ("macro_f1", "macro-F1", "share"),
    ("expected_calibration_error", "expected calibration error", "share"),
    ("mse", "MSE", "square"),
    ("rmse", "RMSE", "value"),
    ("mae", "MAE", "value"),
    ("mape", "MAPE", "share"),
)
"""A model's figures: key of the document, name for people, and whether it is a share, a value or its square."""


def document(evaluation: Evaluation) -> Document:
    """Everything that is known about the pass, ready for `json.dumps`."""
    subject = evaluation.model
    result: Document = {
        "model": subject.name,
        "task": "regression" if subject.classes is None else "classification",
        "dataset": str(evaluation.dataset.folder),
        "images": len(evaluation.examples),
        **_measures(subject, evaluation),
        "agreement": None,
        "against": None,
    }
    if evaluation.against is not None:
        result["against"] = {"model": evaluation.against.name, **_measures(evaluation.against, evaluation, brief=True)}
        if subject.classes is not None:
            mine, theirs = (
                [answer.predicted for answer in one.answers] for one in (evaluation.model, evaluation.against)
            )
            result["agreement"] = agreement(mine, theirs)
            if mine:
                result["against"]["top1_difference"] = result["top1"] - result["against"]["top1"]
        else:
            result["against"]["mean_absolute_difference"] = _difference(subject, evaluation.against)
    result["duration_s"] = round(evaluation.duration_s, 3)
    result["images_per_s"] = (
        round(len(evaluation.examples) / evaluation.duration_s, 2) if evaluation.duration_s else None
    )
    result["failed"] = [{"file": name, "error": error} for name, error in evaluation.failures]
    return result


def _measures(subject: Subject, evaluation: Evaluation, brief: bool = False) -> Document:
    interpreter = subject.classifier.interpreter
    common: Document = {
        "inference_ms": {name: _rounded(value) for name, value in percentiles(subject.inference_ms, 50, 95).items()},
        "runtime": interpreter.runtime,
        "delegate": interpreter.delegate,
        "threads": interpreter.threads,
    }
    if subject.classes is None:
        return {**_errors(subject, evaluation), **common}
    return {**_accuracy(subject.answers, subject.classes, brief), **common}


def _accuracy(answers: list[Answer], classes: Classes, brief: bool) -> Document:
    error, bins = calibration(answers)
    measured: Document = {"top1": top_k_accuracy(answers, 1), "top5": top_k_accuracy(answers, 5)}
    each = per_class(answers)
    measured["balanced_top1"] = balanced_accuracy(each)
    truth, predicted = (np.array([getattr(answer, name) for answer in answers]) for name in ("truth", "predicted"))
    measured["macro_f1"] = macro_f1(truth, predicted) if answers else None
    measured["expected_calibration_error"] = error
    if brief:
        return measured
    measured["calibration"] = [asdict(entry) for entry in bins]
    measured["per_class"] = [{"label": classes.name(entry.class_index), **asdict(entry)} for entry in each]
    measured["confusion"] = [
        {
            "class_index": truth,
            "predicted_index": predicted,
            "label": classes.name(truth),
            "predicted": classes.name(predicted),
            "images": count,
        }
        for truth, predicted, count in confusion(answers)
    ]
    return measured


def _errors(subject: Subject, evaluation: Evaluation) -> Document:
    names = subject.classifier.labels
    outputs: list[Document] = []
    for number, name in enumerate(names):
        truth = [example.truth[number] for example in evaluation.examples if not isinstance(example.truth, int)]
        errors = regression_errors(truth, [answer[number] for answer in subject.answers])
        figures = asdict(errors) if errors else dict.fromkeys(_ERRORS)
        outputs.append({"name": name, **{key: _finite(value) for key, value in figures.items()}})
    measured: Document = {"top1": None, "top5": None}
    for measure in _ERRORS:
        values = [entry[measure] for entry in outputs]
        # Over several outputs the mean, unknown where one of them is.
        measured[measure] = None if None in values else sum(values) / len(values)
    if len(outputs) > 1:
        measured["outputs"] = outputs
    return measured


def _difference(first: Subject, second: Subject) -> Optional[float]:
    gaps = [abs(a - b) for one, other in zip(first.answers, second.answers) for a, b in zip(one, other)]
    return _finite(sum(gaps) / len(gaps)) if gaps else None


def _finite(value: Optional[float]) -> Optional[float]:
    # A float model can answer with NaN or infinity, which JSON does not know.
    return value if value is not None and math.isfinite(value) else None


def _rounded(value: Optional[float]) -> Optional[float]:
    return None if value is None else round(value, 3)


MATRIX_CLASSES = 25
"""A confusion matrix with more classes than this cannot be read: the most frequent confusions are listed instead."""

_CONFUSIONS = 30
_JPEG_QUALITY = 80

_STYLE = """
svg{max-width:27rem;width:100%;font-size:11px;fill:var(--soft)}.bar,.point{fill:var(--bar)}.point{fill-opacity:.6}
.guide{stroke:var(--soft);stroke-dasharray:4 4;fill:none}.grid{stroke:var(--line)}.axis{stroke:var(--soft);fill:none}
"""


@dataclass(frozen=True, order=True)
class Mistake:
    """`weight` orders them (confidence, or absolute error); `jpeg` is the picture as the model saw it."""

    weight: float
    name: str
    truth: str
    answer: str
    jpeg: bytes


class Mistakes:
    """Keeps the `most` weightiest mistakes of the first model, whatever the size of the data set."""

    def __init__(self, subject: Subject, most: int = 12) -> None:
        self._subject = subject
        self._most = most
        self.worst: list[Mistake] = []
        """The weightiest first."""

    def add(self, outcome: Outcome) -> None:
        """Look at one picture's outcome."""
        if outcome.error is not None or outcome.image is None:
            return
        answer, truth = outcome.answers[0], outcome.example.truth
        classes = self._subject.classes
        if isinstance(answer, Answer) and classes is not None:
            if answer.rank == 0:
                return
            weight = answer.confidence
            texts = (classes.name(answer.truth), f"{classes.name(answer.predicted)} {answer.confidence:.0%}")
        else:
            truths = truth if isinstance(truth, tuple) else ()
            weight = max((abs(a - b) for a, b in zip(answer, truths)), default=0.0)
            texts = (_values(truths), _values(answer))
        if len(self.worst) == self._most and weight <= self.worst[-1].weight:
            return
        mistake = Mistake(weight, outcome.example.name, *texts, _jpeg(outcome.image))
        self.worst = sorted([*self.worst, mistake], reverse=True)[: self._most]


def _values(values: tuple[float, ...]) -> str:
    return ", ".join(digits(value, 4) for value in values)


def _jpeg(image: np.ndarray) -> bytes:
    from PIL import Image

    target = io.BytesIO()
    Image.fromarray(image).save(target, "JPEG", quality=_JPEG_QUALITY)
    return target.getvalue()


def page(
    document: Document,
    mistakes: Sequence[Mistake],
    values: Optional[tuple[Sequence[float], Sequence[float]]] = None,
    unit: str = "",
) -> str:
    """The page of `document`. `values` are the true and the predicted values of a regression with one output."""
    title = f"Evaluation of {document['model']}"
    sections = [_summary(document, unit)]
    if document["images"]:
        if document.get("calibration"):
            sections.append(section("Is its confidence deserved?", reliability(document["calibration"]), _CALIBRATION))
        if values is not None:
            sections.append(
                section("Predicted against true", scatter(*values, unit), "A perfect model stays on the line.")
            )
        sections.append(_mistakes(document, mistakes))
        if document.get("confusion"):
            sections.append(_confusion(document))
            sections.append(_per_class(document))
    if document["failed"]:
        rows = [[escape(entry["file"]), escape(entry["error"])] for entry in document["failed"]]
        sections.append(section(f"Pictures that could not be read ({len(rows)})", table(["file", "reason"], rows)))
    return html_report.page(title, "\n".join(sections), STYLE + _STYLE)


_CALIBRATION = (
    "Bars are the accuracy of the answers whose confidence lies there. Below the dashed line the model is surer than "
    "it should be. Pale bars rest on few pictures."
)


def figures(document: Document, unit: str) -> list[list[str]]:
    """A row for each figure that is known: its name, its value for the model and, where there is one, for the other
    model. The last two are times of an inference, median and 95th percentile.
    """
    models = [document, *([document["against"]] if document["against"] is not None else [])]
    rows = [
        [name, *(_shown(one.get(key), kind, unit) for one in models)]
        for key, name, kind in MEASURES
        if document.get(key) is not None
    ]
    times = [[f"inference {rank}", *(_shown(one["inference_ms"][rank], "ms") for one in models)] for rank in _RANKS]
    return rows + times


_RANKS = ("p50", "p95")


def _shown(value: Optional[float], kind: str, unit: str = "") -> str:
    if value is None:
        return "-"
    if kind == "share":
        return f"{value:.1%}"
    if kind == "ms":
        return f"{value:.2f} ms"
    return f"{digits(value, 4)} {unit}{'²' if unit and kind == 'square' else ''}".rstrip()


def _summary(document: Document, unit: str) -> str:
    against = document["against"]
    *rows, median, p95 = figures(document, escape(unit))
    cards = [("pictures", f"{document['images']}"), *((name, value) for name, value, *_ in rows)]
    if document["agreement"] is not None:
        cards.append(("agreement", f"{document['agreement']:.1%}"))
    cards.append(("inference, median", median[1]))
    threads = html_report.plural(document["threads"], "thread")
    setting = f"{document['dataset']} · {document['runtime']}, {document['delegate']}, {threads}"
    parts = [f'<p class="soft">{escape(setting)}</p>{html_report.cards(cards)}']
    if against is not None:
        header = ["", escape(document["model"]), escape(against["model"])]
        parts.append(section("Side by side", table(header, [*rows, median, p95], numeric=(1, 2))))
    return "".join(parts)


def _mistakes(document: Document, mistakes: Sequence[Mistake]) -> str:
    if not mistakes:
        return ""
    regression = document["task"] == "regression"
    pictures = sheet(Figure(one.name, one.answer, one.truth, one.jpeg) for one in mistakes)
    title = "Furthest off" if regression else "Most confident mistakes"
    return section(title, pictures, "Each picture as the model saw it.")


def _confusion(document: Document) -> str:
    classes = {entry["class_index"]: entry["label"] for entry in document["per_class"]}
    for cell in document["confusion"]:
        classes.setdefault(cell["predicted_index"], cell["predicted"])
    if len(classes) <= MATRIX_CLASSES:
        return section("Confusion", _matrix(document, dict(sorted(classes.items()))), "Rows: true; columns: answered.")
    wrong = [cell for cell in document["confusion"] if cell["class_index"] != cell["predicted_index"]]
    rows = [[escape(cell["label"]), escape(cell["predicted"]), str(cell["images"])] for cell in wrong[:_CONFUSIONS]]
    return section("Most frequent confusions", table(["true", "answered", "pictures"], rows, numeric=(2,)))


def _matrix(document: Document, classes: dict[int, str]) -> str:
    cells = {(cell["class_index"], cell["predicted_index"]): cell["images"] for cell in document["confusion"]}
    return matrix(classes, classes, cells)


def _per_class(document: Document) -> str:
    rows = [
        [
            str(entry["class_index"]),
            escape(entry["label"]),
            str(entry["images"]),
            f"{entry['top1']:.1%}",
            f"{entry['top5']:.1%}",
            "-" if entry["precision"] is None else f"{entry['precision']:.1%}",
        ]
        for entry in sorted(document["per_class"], key=lambda entry: (entry["top1"], entry["class_index"]))
    ]
    ranking = table(["class", "label", "pictures", "top-1", "top-5", "precision"], rows, numeric=(0, 2, 3, 4, 5))
    inner = (
        f"<details{' open' if len(rows) <= MATRIX_CLASSES else ''}><summary>{len(rows)} classes, worst first</summary>"
    )
    return section("Per class", f"{inner}{ranking}</details>")
