"""Every output that a run was asked for: opened before the model is loaded, so that a wrong one is told at once."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence
from typing import Any, Optional, Protocol

from edge_mnv2.camera.frame import FrameSource
from edge_mnv2.outputs.live import DeviceUse, Facts, Live
from edge_mnv2.outputs.sink import DRAIN_S, Isolated, LoopOutput
from edge_mnv2.outputs.status import Describe, ServiceNotice, status_for
from edge_mnv2.outputs.table import Output, OutputValues
from edge_mnv2.pipeline.frame_loop import FrameLoop


class ServedPage(LoopOutput, Protocol):
    """A page that outlives a run."""

    live: Live

    @property
    def viewers(self) -> int: ...


class Outputs:
    """The outputs of one run. A context manager: entering opens them and raises UsageError, leaving closes them.

    Meanwhile `print` goes to stderr. `page` is one that is served already, and goes on being served afterwards.
    """

    def __init__(self, values: OutputValues, ca: Optional[str] = None, page: Optional[ServedPage] = None) -> None:
        self._values = values
        self._page = page
        self._stack = contextlib.ExitStack()
        self._isolated: list[Isolated] = []
        self._in_loop: list[LoopOutput] = []
        self._to_stdout: list[Isolated] = []
        self._notice = ServiceNotice.from_environment()
        self.live = Live() if page is None else page.live
        self.live.ca = ca
        self.live.waits_for_source = page is None
        self.hurry = False
        """A signal ends the run: nobody waits for outputs longer than has to be."""

    @property
    def want_pictures(self) -> bool:
        """Whether an output shows or keeps pictures (a plug-in may)."""
        return self._values.pictures or any(output.wants_pictures for output in self._isolated)

    @property
    def serves_page(self) -> bool:
        """Whether an output listens for visitors."""
        return any(row.listens for row in self._values.outputs)

    @property
    def errors(self) -> int:
        """Results that an output has lost."""
        return sum(output.errors for output in self._isolated)

    @property
    def counts(self) -> dict[str, Any]:
        """What the outputs have for the summary; what nobody counts is None."""
        counts: dict[str, Any] = dict.fromkeys(("recorded", "skipped", "collected"))
        for output in self._isolated:
            counts.update(output.counts)
        return counts

    def __enter__(self) -> Outputs:
        with contextlib.ExitStack() as stack:
            self._open([row for row in self._values.outputs if row.stdout])
            # Stdout is for results; what a plug-in or a library prints would stand between them.
            if self._values.take_stdout:
                stack.enter_context(contextlib.redirect_stdout(sys.stderr))
            stack.callback(self._close)
            self._open([row for row in self._values.outputs if not row.stdout])
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _open(self, rows: Sequence[Output]) -> None:
        for row in rows:
            if row.listens and self._page is not None:
                self._in_loop.append(self._page)
                continue
            for opened in row.open(self._values, self.live):
                if row.in_loop:
                    self._in_loop.append(opened)
                    continue
                # With every frame nothing is live, and the loop may wait for a video.
                self._isolated.append(Isolated(opened, lossless=row.lossless and self._values.every_frame))
                if row.stdout:
                    self._to_stdout.append(self._isolated[-1])

    def _close(self) -> None:
        """All at once: a stop shall not wait for one after the other."""
        for output in self._isolated:
            output.end()
        deadline = time.monotonic() + DRAIN_S
        for output in self._isolated:
            output.close(deadline, hurry=self.hurry)
        for shown in reversed(self._in_loop):
            if shown is not self._page:
                shown.close()

    def attach(
        self,
        loop: FrameLoop,
        facts: Facts,
        source: FrameSource,
        describe: Describe,
        engines: DeviceUse,
        labels: Sequence[str],
    ) -> None:
        """Give the results of `loop`, which reads `source`, to every output; `describe` makes the status line.

        Raises UsageError where an output names a class that is none of `labels`.
        """
        self.live.attach(
            loop,
            facts,
            source_state=lambda: source.state,
            reconnects=lambda: source.reconnects,
            write_errors=lambda: self.errors,
            engines=engines,
        )
        for output in self._to_stdout:
            output.closed_by_reader_calls(loop.stop)
        for output in self._isolated:
            output.begin(facts, labels)
            loop.add_sink(output)
        for shown in self._in_loop:
            shown.attach(loop)
            loop.add_sink(shown)
        if self._notice is not None:
            # Last in, first out: that we are stopping is said before the outputs are given time to end.
            self._stack.callback(self._notice.close)
            self._notice.begin(describe, lambda: loop.controls.paused)
            loop.add_sink(self._notice)
        elif self._values.status:
            status = status_for(describe)
            self._stack.callback(status.close)
            loop.add_sink(status)

    def check(self, labels: Sequence[str]) -> None:
        """Ask every output whether a model with these `labels` serves it. Raises UsageError: a class is missing."""
        for output in self._isolated:
            output.check(labels)

    def changed(self, facts: Facts, labels: Sequence[str]) -> None:
        """Another model has taken over."""
        self.live.facts = facts
        for output in self._isolated:
            output.changed(facts, labels)
