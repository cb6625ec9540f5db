"""The engines that a sweep holds open side by side: one interpreter serves every setting that has its threads."""

from __future__ import annotations

import contextlib
import logging
import time
from dataclasses import replace
from types import TracebackType
from typing import Optional

from edge_mnv2.board.memory import MemoryReader
from edge_mnv2.board.sysroot import Sysroot
from edge_mnv2.pipeline.statistics import resident_mb
from edge_mnv2.profiler.setting import Setting
from edge_mnv2.runtime.classifier import Classifier
from edge_mnv2.runtime.opening import Engines, open_engines
from edge_mnv2.settings.profile import Settings

log = logging.getLogger(__name__)

_KEEP_FREE = 0.25
"""Share of the available memory that is left to others."""


def with_setting(settings: Settings, setting: Setting) -> Settings:
    """`settings` with the model, delegate and threads of `setting`."""
    runtime = replace(
        settings.runtime, model=setting.model, delegate=setting.delegate, threads=setting.threads, workers=1
    )
    return replace(settings, runtime=runtime)


class OpenEngines:
    """Opens engines when they are first asked for and keeps them. A context manager that closes them all."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stack = contextlib.ExitStack()
        self._open: dict[tuple[Optional[str], str, int], list[Engines]] = {}
        self._memory = MemoryReader(Sysroot("/"))
        self._each_mb = 0.0
        self._load_ms: dict[tuple[Optional[str], str, int], float] = {}
        self.notes: list[str] = []

    def has_room(self) -> bool:
        """Whether the memory is large enough for one more interpreter like the largest so far."""
        available = self._memory.read().available
        return available is None or self._each_mb < available * (1 - _KEEP_FREE)

    def get(self, setting: Setting) -> list[Classifier]:
        """As many classifiers as `setting` has workers. Raises what `open_engines` raises."""
        key = (setting.model, setting.delegate, setting.threads)
        held = self._open.setdefault(key, [])
        classifiers = [classifier for engines in held for classifier in engines.engines]
        missing = setting.workers - len(classifiers)
        if missing > 0:
            before, began = resident_mb(), time.monotonic()
            opened = open_engines(with_setting(self._settings, setting), None, "exit", workers=missing)
            held.append(self._stack.enter_context(opened))
            self._load_ms.setdefault(key, (time.monotonic() - began) * 1e3 / missing)
            classifiers += opened.engines
            self.notes += [note for note in opened.notes if note not in self.notes]
            if before is not None and (after := resident_mb()) is not None:
                self._each_mb = max(self._each_mb, (after - before) / missing)
        return classifiers[: setting.workers]

    def load_ms(self, setting: Setting) -> float:
        """What it took to open one of the engines of `setting`, its first inference included."""
        return self._load_ms[setting.model, setting.delegate, setting.threads]

    def name(self, setting: Setting) -> tuple[str, str, str]:
        """(model, runtime, delegate) of open engines, as results name them."""
        engines = self._open[setting.model, setting.delegate, setting.threads][0]
        return engines.model, engines.runtime, engines.delegate

    def __enter__(self) -> OpenEngines:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self._stack.close()
