"""What is known about a taught model, as the JSON beside it: unknown values are None, shares are fractions."""

from __future__ import annotations

import hashlib
import platform
from datetime import datetime, timezone
from typing import Any

import numpy as np

from edge_mnv2 import __version__
from edge_mnv2.datasets.lesson_pictures import REGRESSION, UNKNOWN
from edge_mnv2.evaluate.metrics import regression_errors
from edge_mnv2.teach.familiar import KEPT
from edge_mnv2.teach.measure import confusion, wilson
from edge_mnv2.teach.taught import Taught, backbone, learning_curve

Document = dict[str, Any]


def document(taught: Taught, out: str, runtime: str, warnings: list[str]) -> Document:
    """Everything about `taught`, ready for `json.dumps`; `out` is the file's name."""
    lesson = taught.lesson
    regression = lesson.task == REGRESSION
    return {
        "model": out,
        "sha256": hashlib.sha256(taught.model).hexdigest(),
        "bytes": len(taught.model),
        "task": lesson.task,
        "head": lesson.head,
        "unit": lesson.request.unit,
        "pictures": len(lesson.truth),
        "held_out": len(taught.held),
        "classes": [] if regression else _classes(taught),
        "unknown": _unknown(taught),
        "range": {"low": taught.low, "high": taught.high} if regression else None,
        "metrics": _errors(taught) if regression else _accuracy(taught),
        "learning_curve": [
            {"pictures": size, "held_out": round(held, 6), "taught": round(own, 6)}
            for size, held, own in learning_curve(taught)
        ],
        "settings": {**taught.settings, "seed": lesson.request.seed, "holdout": lesson.request.holdout},
        "preprocess": {"resize": lesson.resize},
        "backbone": backbone(lesson),
        "extendable": taught.extendable,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": {
            "edge-mnv2": __version__,
            "runtime": runtime,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "warnings": warnings,
        "failed": [{"file": name, "error": error} for name, error in lesson.failures],
    }


def _classes(taught: Taught) -> list[Document]:
    lesson = taught.lesson
    truth = lesson.truth.astype(int)
    return [
        {
            "label": name,
            "row": row,
            "pictures": int(np.sum(truth == row)),
            "held_out": int(np.sum((truth == row) & lesson.held_out)),
        }
        for row, name in enumerate(lesson.classes)
    ]


def _unknown(taught: Taught) -> Any:
    if taught.unknown is None:
        return None
    held = taught.held
    row = taught.lesson.rows
    known = float(np.mean(taught.answers.scores[held].argmax(axis=1) != row)) if len(held) else None
    return {
        "label": UNKNOWN,
        "row": row,
        "threshold": round(taught.unknown.threshold, 6),
        "slope": round(taught.unknown.slope, 6),
        "by": "embedding" if taught.unknown.familiarity.evidence is None else "evidence of the backbone's own classes",
        "kept_when_taught": KEPT,
        "kept_of_held_out": known,
    }


def _accuracy(taught: Taught) -> Document:
    lesson, held = taught.lesson, taught.held
    truth = lesson.truth.astype(int)
    logits = taught.answers.logits
    assert logits is not None
    integer = logits.argmax(axis=1)
    exact = taught.float_logits(np.arange(len(truth))).argmax(axis=1)
    answered = taught.answers.scores.argmax(axis=1)
    with_unknown = taught.float_scores(np.arange(len(truth))).argmax(axis=1)
    right = int(np.sum(integer[held] == truth[held]))
    interval = wilson(right, len(held))

    def share(one: np.ndarray, other: np.ndarray, places: np.ndarray) -> Any:
        return float(np.mean(one[places] == other[places])) if len(places) else None

    names = [*lesson.classes, UNKNOWN]
    cells = confusion(truth[held].tolist(), answered[held].tolist())
    return {
        "top1": share(integer, truth, held),
        "top1_interval": list(interval) if interval else None,
        "top1_float": share(exact, truth, held),
        "top1_with_unknown": share(answered, truth, held),
        "top1_of_taught": share(integer, truth, taught.taught),
        "agreement": share(integer, exact, held),
        "agreement_with_unknown": share(answered, with_unknown, held),
        "confusion": [
            {"label": names[row], "predicted": names[other], "row": row, "predicted_row": other, "images": count}
            for (row, other), count in sorted(cells.items())
        ],
    }


def _errors(taught: Taught) -> Document:
    lesson, held = taught.lesson, taught.held
    integer = taught.answers.scores[:, 0].astype(float)
    exact = np.clip(taught.float_logits(np.arange(len(lesson.truth)))[:, 0], taught.low, taught.high)
    spread = float(np.ptp(lesson.truth))
    errors = regression_errors(lesson.truth[held].tolist(), integer[held].tolist())
    own = regression_errors(lesson.truth[taught.taught].tolist(), integer[taught.taught].tolist())
    off = np.abs(integer - exact)[held if len(held) else slice(None)]
    return {
        "rmse": errors.rmse if errors else None,
        "mae": errors.mae if errors else None,
        "mape": errors.mape if errors else None,
        "mse": errors.mse if errors else None,
        "rmse_of_range": errors.rmse / spread if errors else None,
        "rmse_of_taught": own.rmse if own else None,
        "largest_difference_from_float": float(off.max()),
        "largest_difference_of_range": float(off.max()) / spread,
        "values": [
            {"file": lesson.names[place], "true": float(lesson.truth[place]), "predicted": float(integer[place])}
            for place in held
        ],
    }
