"""The settings that a sweep compares."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Optional

from edge_mnv2.settings.profile import Settings

_STEPS = (1, 2, 3, 4, 6, 8)
"""Numbers of threads and of workers that are tried. MobileNetV2's layers are too small to feed more than 8 threads."""

_OVERBOOKED = 2
"""Threads times workers go up to so many times the CPUs: a worker's other stages overlap with inference."""


@dataclass(frozen=True)
class Setting:
    """`model` is what to resolve (None: the default), `delegate` "none" or an accelerator's name."""

    model: Optional[str]
    delegate: str
    threads: int
    workers: int

    @property
    def accelerated(self) -> bool:
        return self.delegate.startswith("edgetpu")

    @property
    def complexity(self) -> float:
        """Of two equally good settings the simpler one is better: fewer workers, then fewer threads."""
        return self.workers * 1000 + self.threads

    @property
    def words(self) -> str:
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        workers = f"{self.workers} worker{'s' if self.workers > 1 else ''}"
        return f"{'Edge TPU' if self.accelerated else 'CPU'}, {threads}, {workers}"


def steps(usable: int, fixed: Optional[int] = None) -> list[int]:
    """How many threads, or workers, to try on `usable` CPUs; `fixed`: the number that somebody asked for."""
    if fixed is not None:
        return [fixed]
    return sorted({step for step in _STEPS if step <= usable} | {min(usable, _STEPS[-1])})


def cpu_settings(
    models: Iterable[Optional[str]], usable: int, threads: Optional[int] = None, workers: Optional[int] = None
) -> list[Setting]:
    """Every setting of the CPU worth trying on `usable` CPUs, for each of `models`."""
    return [
        Setting(model, "none", thread_count, worker_count)
        for model in models
        for thread_count in steps(usable, threads)
        for worker_count in steps(usable, workers)
        if workers is not None or worker_count == 1 or thread_count * worker_count <= usable * _OVERBOOKED
    ]


def pinned(settings: Settings, key: str) -> Optional[int]:
    """The number that the command line or the environment gives for `key`: a sweep does not vary it."""
    value = settings.get(key)
    asked = settings.origin(key).kind in ("command line", "environment")
    return int(value) if asked and value != "auto" else None
