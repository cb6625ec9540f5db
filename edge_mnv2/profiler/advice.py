"""Edge TPU or CPU: which to use for what, by what a sweep measured of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable, Optional

from edge_mnv2.profiler.burst import middle
from edge_mnv2.profiler.race import SAME
from edge_mnv2.profiler.sweep import Row


@dataclass(frozen=True)
class Verdict:
    """For one purpose: the best value of each, and which of the two to use ("tpu", "cpu", "either")."""

    purpose: str
    tpu: float
    cpu: float
    unit: str
    use: str

    def __str__(self) -> str:
        name = {"tpu": "the Edge TPU", "cpu": "the CPU", "either": "either"}[self.use]
        return f"{self.purpose}: {name} (Edge TPU {self.tpu:.4g} {self.unit}, CPU {self.cpu:.4g} {self.unit})"


@dataclass(frozen=True)
class Advice:
    """`tpu_model` and `cpu_model` name what was compared."""

    verdicts: list[Verdict]
    tpu_model: str
    cpu_model: str

    def lines(self) -> list[str]:
        """Sentences for a person."""
        return [f"Edge TPU with {self.tpu_model}, CPU with {self.cpu_model}", *map(str, self.verdicts)]

    def document(self) -> dict[str, Any]:
        """As `accelerator` in the JSON document."""
        return {
            "tpu_model": self.tpu_model,
            "cpu_model": self.cpu_model,
            "use": {
                verdict.purpose: {"use": verdict.use, "tpu": verdict.tpu, "cpu": verdict.cpu, "unit": verdict.unit}
                for verdict in self.verdicts
            },
            "text": self.lines(),
        }


def advise(rows: Sequence[Row]) -> Optional[Advice]:
    """None where only one of the two was measured."""
    tpu = [row for row in rows if row.delegate.startswith("edgetpu")]
    cpu = [row for row in rows if not row.delegate.startswith("edgetpu")]
    if not tpu or not cpu:
        return None
    verdicts = []
    for purpose, value, unit, more in (
        ("lowest latency", _latency_ms, "ms", False),
        ("most frames a second", lambda row: row.fps, "FPS", True),
        ("least CPU time a frame", lambda row: row.burst.cpu_ms_per_frame, "ms", False),
        ("least energy a frame", lambda row: middle(row.energies), "mJ", False),
    ):
        verdict = _verdict(purpose, tpu, cpu, value, unit, more)
        if verdict is not None:
            verdicts.append(verdict)
    fastest = [min(each, key=lambda row: _latency_ms(row) or 0) for each in (tpu, cpu)]
    return Advice(verdicts, fastest[0].model, fastest[1].model)


def _latency_ms(row: Row) -> Optional[float]:
    median = middle(row.burst.end_to_end)
    return None if median is None else median / 1e6


def _verdict(
    purpose: str,
    tpu: Sequence[Row],
    cpu: Sequence[Row],
    value: Callable[[Row], Optional[float]],
    unit: str,
    more_is_better: bool,
) -> Optional[Verdict]:
    best = max if more_is_better else min
    found = [[known for row in each if (known := value(row)) is not None] for each in (tpu, cpu)]
    if not all(found):
        return None
    ours, theirs = best(found[0]), best(found[1])
    if abs(ours - theirs) <= SAME * max(ours, theirs):
        use = "either"
    else:
        use = "tpu" if (ours > theirs) == more_is_better else "cpu"
    return Verdict(purpose, round(ours, 3), round(theirs, 3), unit, use)
