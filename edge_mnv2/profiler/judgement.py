"""What a measurement means: is this board as quick as others of its kind, and which is better, accelerator or CPU?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional, Union

from edge_mnv2.board.accelerators import automatic
from edge_mnv2.board.cpus import online_cpus
from edge_mnv2.board.detect import Board
from edge_mnv2.board.health import HealthSample
from edge_mnv2.board.throttling import MEANINGS
from edge_mnv2.errors import EdgeMnv2Error
from edge_mnv2.inspect.inspection import inspect
from edge_mnv2.profiler.burst import median
from edge_mnv2.profiler.race import SAME
from edge_mnv2.profiler.sweep import Row
from edge_mnv2.settings.schema import Expected
from edge_mnv2.zoo.resolve import Resolved

_SLOWER = 1.25
_FASTER = 0.8
"""Within these ratios a time is "as expected": published figures differ by runtime, clock and temperature."""

_QUICK_GOVERNORS = ("performance", "schedutil", "ondemand", "interactive")
_MACS = 300.8e6
"""MobileNetV2 1.0/224 (Sandler et al. 2018, table 4: 300 M)."""
_NEAR = 0.03
_BUSY_CPUS = 0.3


@dataclass(frozen=True)
class Judgement:
    """`verdict` is "as expected", "faster", "slower" or "unknown"; `ratio` is measured over expected.

    `causes` are what was seen on this board that can explain a slower time.
    """

    verdict: str
    ratio: Optional[float]
    expected_ms: Optional[float]
    source: Optional[str]
    causes: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.verdict == "unknown":
            return "no published figure to compare with"
        head = self.verdict if self.verdict == "as expected" else f"{self.verdict} than other boards of this kind"
        figures = f"{self.ratio:.2f} times the published {self.expected_ms:g} ms"
        causes = f": {'; '.join(self.causes)}" if self.causes else ""
        return f"{head} ({figures}; {self.source}){causes}"

    def document(self) -> dict[str, Any]:
        """As `expected` in the JSON document."""
        return {**asdict(self), "causes": list(self.causes), "text": str(self)}


def judge_model(
    model: Resolved, p50_ms: Optional[float], expected: Expected, *, root: Union[str, Path] = "/", **conditions: Any
) -> Optional[Judgement]:
    """As `judge` for the median of `model`; None where the model is another network than MobileNetV2 1.0/224."""
    kind = precision(model)
    if kind is None or p50_ms is None:
        return None
    return judge(p50_ms, expected, precision=kind, online_cpus=online_cpus(root), **conditions)


def precision(model: Resolved) -> Optional[str]:
    """ "int8" or "float32" where `model` is a MobileNetV2 1.0/224 by its costs, else None: nothing to compare with."""
    try:
        facts = inspect(model.path)
    except EdgeMnv2Error:
        return None
    if facts.compiled:
        # Its operators are hidden in one; the registry knows which network it was.
        return "int8" if model.entry is not None and "mobilenet_v2_1.0_224" in model.name else None
    shape = facts.inputs[0].shape if facts.inputs else ()
    if facts.macs is None or abs(facts.macs / _MACS - 1) > _NEAR or tuple(shape[1:3]) != (224, 224):
        return None
    return "float32" if facts.inputs[0].dtype == "float32" and "int8" not in facts.quantization else "int8"


def judge(
    measured_ms: float,
    expected: Expected,
    *,
    board: Board,
    sample: HealthSample,
    threads: int,
    delegate: str,
    precision: str = "int8",
    online_cpus: Optional[int] = None,
    others: Optional[float] = None,
) -> Judgement:
    """Compare a model-only median (ms, MobileNetV2 1.0/224) with the profile's figure.

    `delegate` and `threads` are those of the measurement ("none", "xnnpack", "edgetpu:usb:0"), `others` the CPUs that
    other programs kept busy meanwhile. A figure of another accelerator is not compared; one of a float model is only an
    upper bound for an int8 one.
    """
    reference = expected.inference_ms
    if board.os_bits == 32 and expected.inference_ms_32bit is not None:
        reference = expected.inference_ms_32bit
    row = automatic(delegate)
    same_device = expected.delegate == (row.name if row is not None else "none")
    if reference is None or not same_device or (precision == "float32" and expected.precision == "int8"):
        return Judgement("unknown", None, None, expected.source)
    ratio = measured_ms / reference
    bound_only = expected.precision == "float32" and precision == "int8"
    verdict, causes = "as expected", []
    if ratio > _SLOWER:
        verdict, causes = "slower", _causes(board, sample, threads, delegate, online_cpus)
        if others is not None and others > _BUSY_CPUS:
            causes.append(f"other programs kept {others:.1f} CPUs busy")
    elif ratio < _FASTER and not bound_only:
        verdict = "faster"
    return Judgement(verdict, round(ratio, 3), reference, expected.source, tuple(causes))


def _causes(board: Board, sample: HealthSample, threads: int, delegate: str, online_cpus: Optional[int]) -> list[str]:
    causes = [f"{word}: {MEANINGS[word]}" for word in sample.throttled or ()]
    if not causes and sample.throttled_since_boot:
        causes.append(f"{', '.join(sample.throttled_since_boot)} seen since boot")
    if sample.governor is not None and sample.governor not in _QUICK_GOVERNORS:
        causes.append(f"CPU governor {sample.governor}: ondemand or performance is quicker")
    if sample.power_mode is not None and not sample.power_mode.upper().startswith("MAXN"):
        causes.append(f"power mode {sample.power_mode}: nvpmodel lists quicker ones")
    if board.os_bits == 32 and board.model and "Zero W" not in board.model:
        causes.append("a 32-bit operating system: a 64-bit one is quicker")
    if delegate == "none":
        causes.append("XNNPACK did not take the model")
    usable = board.cpus_usable
    if usable is not None and online_cpus is not None and usable < online_cpus:
        causes.append(f"only {usable} of {online_cpus} CPUs usable (affinity or cgroup quota)")
    elif usable is not None and threads < min(usable, 4):
        causes.append(f"{threads} threads on {usable} usable CPUs")
    if board.container is not None and not causes:
        causes.append(f"running inside {board.container}")
    return causes


@dataclass(frozen=True)
class Verdict:
    """For one purpose: the best value of each, and which of the two to use ("tpu", "cpu", "either"). `title` is what
    the accelerator is called."""

    title: str
    purpose: str
    tpu: float
    cpu: float
    unit: str
    use: str

    def __str__(self) -> str:
        name = {"tpu": f"the {self.title}", "cpu": "the CPU", "either": "either"}[self.use]
        return f"{self.purpose}: {name} ({self.title} {self.tpu:.4g} {self.unit}, CPU {self.cpu:.4g} {self.unit})"


@dataclass(frozen=True)
class Advice:
    """Accelerator or CPU: which to use for what. `tpu_model` and `cpu_model` name what was compared."""

    title: str
    verdicts: list[Verdict]
    tpu_model: str
    cpu_model: str

    def lines(self) -> list[str]:
        """Sentences for a person."""
        return [f"{self.title} with {self.tpu_model}, CPU with {self.cpu_model}", *map(str, self.verdicts)]

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
    tpu = [row for row in rows if automatic(row.delegate)]
    cpu = [row for row in rows if not automatic(row.delegate)]
    if not tpu or not cpu:
        return None
    accelerator = automatic(tpu[0].delegate)
    assert accelerator is not None
    verdicts = [
        _verdict(accelerator.title, purpose, tpu, cpu, value, unit, more)
        for purpose, value, unit, more in (
            ("lowest latency", _latency_ms, "ms", False),
            ("most frames a second", lambda row: row.fps, "FPS", True),
            ("least CPU time a frame", lambda row: row.burst.cpu_ms_per_frame, "ms", False),
            ("least energy a frame", lambda row: median(row.energies), "mJ", False),
        )
    ]
    fastest = [min(each, key=lambda row: _latency_ms(row) or 0) for each in (tpu, cpu)]
    return Advice(accelerator.title, [verdict for verdict in verdicts if verdict], fastest[0].model, fastest[1].model)


def _latency_ms(row: Row) -> Optional[float]:
    middle = median(row.burst.end_to_end)
    return None if middle is None else middle / 1e6


def _verdict(
    title: str,
    purpose: str,
    tpu: Sequence[Row],
    cpu: Sequence[Row],
    value: Callable[[Row], Optional[float]],
    unit: str,
    more_is_better: bool,
) -> Optional[Verdict]:
    best = max if more_is_better else min
    values = [[known for row in each if (known := value(row)) is not None] for each in (tpu, cpu)]
    if not all(values):
        return None
    ours, theirs = best(values[0]), best(values[1])
    if abs(ours - theirs) <= SAME * max(ours, theirs):
        use = "either"
    else:
        use = "tpu" if (ours > theirs) == more_is_better else "cpu"
    return Verdict(title, purpose, round(ours, 3), round(theirs, 3), unit, use)
