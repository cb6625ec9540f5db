"""What a setting is chosen for, and what a burst costs by that measure (less is better)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from edge_mnv2.errors import UsageError
from edge_mnv2.profiler.burst import Burst, middle

GOALS = ("latency", "throughput", "power")


@dataclass(frozen=True)
class Goal:
    """`measured_power`: a sensor tells what the board draws; else CPU time stands for energy."""

    name: str
    measured_power: bool = False

    def __post_init__(self) -> None:
        if self.name not in GOALS:
            raise UsageError(f"--goal {self.name}", hint=f"one of {', '.join(GOALS)}")

    @property
    def meaning(self) -> str:
        """In words, for people."""
        if self.name == "latency":
            return "least time from a frame to its result (median)"
        if self.name == "throughput":
            return "most frames a second"
        if self.measured_power:
            return "least energy a frame, measured for the whole board"
        return "least CPU time a frame (this board has no power sensor)"

    def cost(self, burst: Burst, energy_mj: Optional[float]) -> float:
        """Above 0; of a burst with at least one frame. `energy_mj` is the energy a frame, mJ, where it is known."""
        if self.name == "latency":
            return float(middle(burst.end_to_end) or 0) or 1.0
        if self.name == "throughput":
            rate = middle(burst.rates)
            return 1 / rate if rate else float(middle(burst.end_to_end) or 1) / 1e9
        if self.measured_power and energy_mj:
            return energy_mj
        return burst.cpu_ms_per_frame or 1e-6
