"""An evaluation as one JSON document: unknown values are None, shares are fractions."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any, Optional

import numpy as np

from edge_mnv2.datasets.classes import Classes
from edge_mnv2.evaluate.evaluation import Evaluation, Subject
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
