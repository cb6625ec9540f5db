"""Pictures worth an answer, kept for a person: what the model is unsure of, spread over time and over looks."""

from __future__ import annotations

import logging
import random
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Optional

import numpy as np

from edge_mnv2.datasets.collected_picture import SAME_LOOK, projected
from edge_mnv2.datasets.collection import Collection
from edge_mnv2.outputs.live import Embed, Live
from edge_mnv2.outputs.picture import jpeg
from edge_mnv2.outputs.records import as_entry, timestamp
from edge_mnv2.outputs.sink import Sink, give_way
from edge_mnv2.outputs.table import OutputValues
from edge_mnv2.pipeline.result import Result

log = logging.getLogger(__name__)

UNKNOWN = "unknown"

_LOW = 0.5
_CLOSE = 0.2
_RECENT = 15
_FLICKERS = 3
_RANDOM_S = 60.0
_LEAST_GAP_S = 0.5
_COST = 40
"""After a picture that took t seconds of work, none is looked at for so many times t: 2.5 % of the time at most."""
_LONGER_SIDE = 640
_QUALITY = 90
_NOVELTY_SHARE = 0.3


class Reasons:
    """Why a result is worth an answer. Call it with every result, in order.

    `why` gives (reasons, doubt 0..1): "low score", "close classes", "flicker", "unknown", "differs from smoothed", and
    now and then "random", for honesty.
    """

    def __init__(self, random_s: float = _RANDOM_S, chance: Callable[[], float] = random.random) -> None:
        self._labels: deque[str] = deque(maxlen=_RECENT)
        self._random_s = random_s
        self._chance = chance
        self._next_random = 0.0

    def why(self, result: Result) -> tuple[tuple[str, ...], float]:
        ranked = result.ranked
        if not ranked or result.gated:
            return (), 0.0
        best, others = ranked[0], ranked[1:]
        reasons: dict[str, float] = {}
        if best.unit is None:
            self._labels.append(best.label)
            labels = list(self._labels)
            if best.score < _LOW:
                reasons["low score"] = 1 - best.score
            if others and best.score - others[0].score < _CLOSE * best.score:
                reasons["close classes"] = 1 - (best.score - others[0].score)
            if best.label.casefold() == UNKNOWN:
                reasons["unknown"] = 0.9
            if sum(one != other for one, other in zip(labels, labels[1:])) >= _FLICKERS:
                reasons["flicker"] = 0.7
            if result.raw_row is not None and result.raw_row != best.index:
                reasons["differs from smoothed"] = 0.6
        if result.uptime_s >= self._next_random:
            # Not at a fixed beat: what repeats in a scene must not be missed each time.
            self._next_random = result.uptime_s + self._random_s * (0.5 + self._chance())
            reasons["random"] = 0.3
        return tuple(reasons), max(reasons.values(), default=0.0)


def open_output(values: OutputValues, live: Live) -> CollectSink:
    live.collector = CollectSink(values["collect"], values["collect-quota"])
    return live.collector


def _no_embedding(pixels: np.ndarray) -> np.ndarray:
    raise AssertionError(f"this model has no embedding ({pixels.shape})")


class CollectSink(Sink):
    """Keeps pictures in the collection `folder`, at most `quota` bytes of them.

    Pictures of one scene are known by their embeddings. Where a result brings none, `open_embedder` opens what makes
    them of RGB uint8 HxWx3; where it gives None, the scores serve. `model` is what the collection calls the model.
    Raises UsageError where the folder cannot be used.
    """

    wants_pictures = True
    patience_s = 6.0
    """The embedder takes seconds to open on a slow board, and a short run ends meanwhile."""

    def __init__(self, folder: str, quota: Optional[int] = None) -> None:
        self.collection = Collection(Path(folder))
        self.name = folder
        self._embed: Optional[Embed] = None
        self._open_embedder: Callable[[], Optional[Embed]] = lambda: None
        self._opened_by: object = None
        self._polite = False
        self.model = ""
        self.collected = 0
        self._quota = quota
        self._reasons = Reasons()
        self._chosen: dict[int, tuple[tuple[str, ...], float, str]] = {}
        self.next_at = 0.0

    def use(self, model: str, open_embedder: Callable[[], Optional[Embed]]) -> None:
        """From now on pictures are those of `model`. The embedder is opened when a picture needs it."""
        self.model, self._open_embedder = model, open_embedder

    @property
    def counts(self) -> dict[str, int]:
        """For the summary."""
        return {"collected": self.collected}

    def wants(self, result: Result) -> bool:
        """Only these results are given to `write`. Asked in the loop's thread: nothing slow happens here."""
        why, doubt = self._reasons.why(result)
        if not why or time.monotonic() < self.next_at:
            return False
        self.next_at = time.monotonic() + _LEAST_GAP_S
        # The model that gave this answer: when it is written, another one may be in use.
        self._chosen[result.frame.index] = (why, doubt, self.model)
        return True

    def write(self, result: Result) -> None:
        # Another model may take over while this one's embedder is being opened.
        if result.embedding is None and (opener := self._open_embedder) is not self._opened_by:
            self._embed, self._opened_by = opener() or _no_embedding, opener
        if not self._polite:
            self._polite = True
            # Not before: a short run ends with what it has collected.
            give_way()
        began = time.monotonic()
        why, doubt, model = self._chosen.pop(result.frame.index)
        # Frames that waited in vain for this thread leave their reasons behind.
        for index in [one for one in list(self._chosen) if one < result.frame.index]:
            del self._chosen[index]
        self._keep(result, why, doubt, model)
        self.next_at = max(self.next_at, time.monotonic() + _COST * (time.monotonic() - began))

    def close(self) -> None:
        pass

    def _keep(self, result: Result, why: tuple[str, ...], doubt: float, model: str) -> None:
        import cv2

        region = result.frame.region
        look = projected(self._embedding(result, region))
        novelty = self.collection.novelty(look)
        if novelty < SAME_LOOK:
            return
        height, width = region.shape[:2]
        scale = min(1.0, _LONGER_SIDE / max(height, width))
        if scale < 1:
            size = max(1, round(width * scale)), max(1, round(height * scale))
            region = cv2.resize(region, size, interpolation=cv2.INTER_AREA)
        pixels = cv2.cvtColor(region, cv2.COLOR_RGB2BGR) if result.frame.order == "rgb" else region
        item = self.collection.add(
            jpeg(pixels, _QUALITY),
            t=timestamp(result.wall_time),
            why=why,
            value=(1 - _NOVELTY_SHARE) * doubt + _NOVELTY_SHARE * min(1.0, novelty),
            top=[as_entry(one) for one in result.ranked],
            model=model,
            look=look,
            quota=self._quota,
        )
        self.collected += item is not None

    def _embedding(self, result: Result, region: np.ndarray) -> np.ndarray:
        if result.embedding is not None:
            return result.embedding
        if self._embed is not None and self._embed is not _no_embedding:
            import cv2

            return self._embed(cv2.cvtColor(region, cv2.COLOR_BGR2RGB) if result.frame.order == "bgr" else region)
        # The square root of probabilities: its angle is the Hellinger distance of two answers.
        rows = np.zeros(1 + max(one.index for one in result.ranked), np.float32)
        for one in result.ranked:
            rows[one.index] = max(one.score, 0.0) ** 0.5
        return np.resize(rows, 2048) if rows.size > 2048 else np.pad(rows, (0, 2048 - rows.size))
