"""What a sidecar and a registry's entry say of a model by the same keys: `preprocess`, and what `teach` measured."""

from __future__ import annotations

import bisect
import json
import logging
import math
from dataclasses import asdict, dataclass
from typing import Optional

from edge_mnv2.strict_yaml import Fields

log = logging.getLogger(__name__)

RESIZE = ("crop", "stretch", "letterbox")
LAYOUTS = ("NHWC", "NCHW")
MEASURED = ("open_set", "expected_errors")


@dataclass(frozen=True)
class Preprocess:
    """How pictures are prepared for a model, where it has to be said: `resize` policy, real input values
    `(pixel - mean) / std` per channel (RGB), `layout` (NHWC, NCHW), `size` (width, height) of an input that leaves it
    open; and `output`, the name or number of the output to read."""

    resize: Optional[str] = None
    mean: Optional[tuple[float, ...]] = None
    std: Optional[tuple[float, ...]] = None
    layout: Optional[str] = None
    size: Optional[tuple[float, ...]] = None
    output: Optional[str] = None


@dataclass(frozen=True)
class OpenSet:
    """Where a taught model's "unknown" begins: its output `row` wins below the similarity `threshold`, by `slope`
    logits for each 1.0; `curve` holds (share of known pictures that stay known, threshold), shares rising."""

    row: int
    slope: float
    threshold: float
    curve: tuple[tuple[float, float], ...]

    def factor(self, known: float) -> float:
        """By what the odds of "unknown" are multiplied so that the share `known` stays known."""
        shares, thresholds = zip(*self.curve)
        place = min(max(bisect.bisect_left(shares, known), 1), len(shares) - 1)
        low, high = shares[place - 1], shares[place]
        part = min(max((known - low) / (high - low), 0.0), 1.0)
        threshold = thresholds[place - 1] + part * (thresholds[place] - thresholds[place - 1])
        return math.exp(self.slope * (threshold - self.threshold))

    @property
    def known(self) -> Optional[float]:
        """The share that stays known at the model's own threshold; None where the curve does not reach it."""
        for (low, above), (high, below) in zip(self.curve, self.curve[1:]):
            if below <= self.threshold <= above:
                return round(low + (high - low) * (above - self.threshold) / ((above - below) or 1.0), 3)
        return None


class MovedThreshold:
    """Where "unknown" begins in a model in use: the odds of its output `row` are multiplied by `factor`, so that the
    share `known` of pictures of its classes stays known. One for all workers; any thread moves it."""

    def __init__(self, open_set: OpenSet, known: Optional[float] = None) -> None:
        self._open_set, self.row = open_set, open_set.row
        self.known, self.factor = open_set.known, 1.0
        if known is not None:
            self.move(known)

    def move(self, known: float) -> None:
        """To `known`, or to what is nearest to it of what the lesson's curve reaches, which is said."""
        curve = self._open_set.curve
        # An earlier version let it go on at its lowest threshold, with shares that nothing reaches.
        least, most = curve[0][0], next(share for share, threshold in curve if threshold <= curve[-1][1])
        self.known = min(max(known, least), most)
        if self.known != known:
            log.warning("%g of the known pictures: this model keeps from %g to %g known", known, least, most)
        self.factor = self._open_set.factor(known)


@dataclass(frozen=True)
class Measured:
    """`open_set` of a classifier with the row "unknown"; `errors` of a regression: (lowest value, highest value, error
    to expect), lowest first."""

    open_set: Optional[OpenSet] = None
    errors: tuple[tuple[float, ...], ...] = ()

    def as_yaml(self) -> dict[str, str]:
        """The value of each of `MEASURED` that there is, on one line of YAML."""
        values = (None if self.open_set is None else asdict(self.open_set), self.errors)
        return {key: json.dumps(value) for key, value in zip(MEASURED, values) if value}


def parse_preprocess(fields: Fields) -> Preprocess:
    """The key `preprocess: {resize, mean, std, range, layout, size, output}` of a registry entry or a sidecar."""
    values = fields.mapping("preprocess")
    if values is None:
        return Preprocess()
    inner = Fields(values, f"{fields.place}: preprocess", fields.error)
    resize, mean, std = inner.text("resize", RESIZE), inner.numbers("mean", 3), inner.numbers("std", 3)
    limits, layout, size = inner.numbers("range", 2), inner.text("layout", LAYOUTS), inner.numbers("size", 2)
    output = inner.text("output")
    inner.end()
    if std is not None and min(std) <= 0:
        raise inner.wrong("std", "above 0")
    if limits is not None:
        if mean is not None or std is not None or limits[0] >= limits[1]:
            raise inner.wrong("range", "two numbers, the lower one first, in place of mean and std")
        mean, std = ((number,) * 3 for number in range_as_mean_and_std(*limits))
    if size is not None and not all(n.is_integer() and 1 <= n <= 8192 for n in size):
        raise inner.wrong("size", "two whole numbers, width and height")
    return Preprocess(resize, mean, std, layout, size, output)


def range_as_mean_and_std(low: float, high: float) -> tuple[float, float]:
    """Mean and std in pixel units that make `low` of a black pixel and `high` of a white one."""
    std = 255 / (high - low)
    return -low * std, std


def parse_measured(fields: Fields) -> Measured:
    """The keys `open_set` and `expected_errors` of a sidecar or an entry."""
    return Measured(_open_set(fields), _rows(fields, "expected_errors", 3))


def _open_set(fields: Fields) -> Optional[OpenSet]:
    said = fields.mapping("open_set")
    if said is None:
        return None
    own = Fields(said, f"{fields.place}: open_set", fields.error)
    row, slope, threshold = own.integer("row"), own.numbers("slope", 1), own.numbers("threshold", 1)
    curve = _rows(own, "curve", 2)
    own.end()
    if row is None or slope is None or threshold is None:
        raise own.missing("row, slope or threshold")
    if len(curve) < 2 or any(one[0] >= other[0] for one, other in zip(curve, curve[1:])):
        raise own.wrong("curve", "at least two pairs of a share and a threshold, shares rising")
    return OpenSet(row, slope[0], threshold[0], tuple((share, least) for share, least in curve))


def _rows(fields: Fields, key: str, count: int) -> tuple[tuple[float, ...], ...]:
    """A list of lists of `count` numbers each."""
    rows = fields.sequence(key) or []
    for row in rows:
        plain = isinstance(row, list) and len(row) == count
        if not plain or not all(isinstance(one, (int, float)) and math.isfinite(one) for one in row):
            raise fields.wrong(key, f"a list of lists of {count} numbers")
    return tuple(tuple(float(one) for one in row) for row in rows)
