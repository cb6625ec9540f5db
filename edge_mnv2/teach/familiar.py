"""How familiar a picture must be to be called one of the taught classes.

What a picture is compared by is the evidence that the backbone's own classifier finds in it: of its many published
classes only those count that stand out by more than `_STANDS_OUT` standard deviations of its logits, and the vector of
these is brought to length one. Pictures of one kind light up the same few of them; noise and plain surfaces none that
was taught. (Measured on 15 kinds of photographs and 310 others: at 95 % kept, 82 % of the others are told, against
62 % by distances between embeddings; see docs/teaching.md.)
"""

from __future__ import annotations

from typing import Optional

import numpy as np

from edge_mnv2.build.backbone import Backbone
from edge_mnv2.build.head import Familiarity, Linear, Unknown
from edge_mnv2.teach.imprint import class_means, left_out_cosines

KEPT = 0.96
"""The share of taught pictures, each left out in turn, that must stay known; of new ones it is then 0.95 and more."""

_STANDS_OUT = 1.5
_LEAST_CLASSES = 100
"""A classifier with fewer classes tells too little of what else there is."""
_STEEPNESS = 6.0
"""Logits by which "unknown" leads where nothing taught is seen at all."""
_USUAL = {True: 0.08, False: 0.5}
"""Threshold by evidence and by embedding where there are too few pictures to measure it."""
_ENOUGH = 20


def calibrate(backbone: Backbone, embeddings: np.ndarray, truth: np.ndarray, rows: int) -> Unknown:
    """The rule for "unknown" from the taught `embeddings` (pictures, size) and their classes `truth`, int."""
    evidence = _evidence(backbone, embeddings)
    units = Familiarity(evidence, np.zeros((1, 1))).describe(embeddings.astype(np.float64))
    cosines, several = left_out_cosines(units, truth, rows)
    threshold = _threshold(cosines.max(axis=1)[several], _USUAL[evidence is not None])
    return Unknown(Familiarity(evidence, class_means(units, truth, rows)), threshold, _STEEPNESS / threshold)


def _evidence(backbone: Backbone, embeddings: np.ndarray) -> Optional[Linear]:
    classes = backbone.classes
    if classes is None or len(classes.bias) < _LEAST_CLASSES:
        return None
    weights = classes.weights - classes.weights.mean(axis=0)
    bias = classes.bias - classes.bias.mean()
    spread = float(np.mean(np.std(embeddings @ weights.T + bias, axis=1)))
    return Linear(weights, bias - _STANDS_OUT * spread)


def _threshold(familiarity: np.ndarray, usual: float) -> float:
    """The quantile that keeps `KEPT`; the fewer pictures, the more the usual threshold counts."""
    if len(familiarity) == 0:
        return usual
    measured = float(np.quantile(familiarity, 1 - KEPT))
    weight = min(1.0, (len(familiarity) / _ENOUGH) ** 2)
    return max(weight * measured + (1 - weight) * min(measured, usual), 0.02)
