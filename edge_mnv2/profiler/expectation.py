"""Is this board as quick as others of its kind? A measured time against the profile's published one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from edge_mnv2.board.detect import Board
from edge_mnv2.board.health import HealthSample
from edge_mnv2.board.throttling import MEANINGS
from edge_mnv2.settings.schema import Expected

_SLOWER = 1.25
_FASTER = 0.8
"""Within these ratios a time is "as expected": published figures differ by runtime, clock and temperature."""

_QUICK_GOVERNORS = ("performance", "schedutil", "ondemand", "interactive")


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
) -> Judgement:
    """Compare a model-only median (ms, MobileNetV2 1.0/224) with the profile's figure.

    `delegate` and `threads` are those of the measurement ("none", "xnnpack", "edgetpu:usb:0"). A figure of another
    accelerator is not compared; one of a float model is only an upper bound for an int8 one.
    """
    reference = expected.inference_ms
    if board.os_bits == 32 and expected.inference_ms_32bit is not None:
        reference = expected.inference_ms_32bit
    same_engine = (expected.delegate == "edgetpu") == delegate.startswith("edgetpu")
    if reference is None or not same_engine or (precision == "float32" and expected.precision == "int8"):
        return Judgement("unknown", None, None, expected.source)
    ratio = measured_ms / reference
    bound_only = expected.precision == "float32" and precision == "int8"
    if ratio > _SLOWER:
        verdict = "slower"
    elif ratio < _FASTER and not bound_only:
        verdict = "faster"
    else:
        verdict = "as expected"
    causes = _causes(board, sample, threads, delegate, online_cpus) if verdict == "slower" else ()
    return Judgement(verdict, round(ratio, 3), reference, expected.source, causes)


def _causes(
    board: Board, sample: HealthSample, threads: int, delegate: str, online_cpus: Optional[int]
) -> tuple[str, ...]:
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
    return tuple(causes)
