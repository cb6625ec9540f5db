"""After a lesson with a page: whoever looks tries the new model, mends its pictures, or lets it go on as a run."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Optional

from edge_mnv2.app.outputs import ServedPage
from edge_mnv2.app.run import RunRequest, run
from edge_mnv2.errors import EdgeMnv2Error
from edge_mnv2.outputs.table import OutputValues
from edge_mnv2.settings.profile import Settings
from edge_mnv2.settings.schema import ModelOptions
from edge_mnv2.teach.guide import FINISH, USE, Guide

log = logging.getLogger(__name__)

_LEFT_S = 60.0
"""A page that nobody has had open for so long is not waited for. A phone sleeps while it is learned."""
_POLL_S = 0.2

Choice = tuple[str, Optional[str]]


def try_model(
    model: Path,
    lines: Sequence[str],
    settings: Settings,
    source: str,
    outputs: OutputValues,
    page: ServedPage,
    guide: Guide,
) -> Choice:
    """Show on `page` what `model` sees in `source` until a visitor has chosen: "more" (with a class), "again", "use"
    (and then until the run has ended), "finish" (also where nobody looks, or a signal came).

    Raises EdgeMnv2Error where the run that goes on with `model` fails or loses its source.
    """
    settings = dataclasses.replace(settings.changed("runtime.model", str(model)), model=ModelOptions())
    request = RunRequest(settings, camera=source, repeat=True, outputs=outputs, page=page)
    # What the former model said is no answer of this one.
    page.live.latest = None
    guide.offer(lines)
    try:
        with _stopped_by_choice(guide, page):
            lost = run(request).error
        if lost is not None:
            raise lost
    except EdgeMnv2Error as error:
        if guide.choice is not None and guide.choice[0] == USE:
            raise
        if guide.choice is not None:
            return guide.choice
        log.warning("%s", error)
        try:
            return mend([str(error), *lines], page, guide, "untried")
        except KeyboardInterrupt:
            # As a signal ends a run of the model: the lesson itself is done.
            return FINISH, None
    return guide.choice or (FINISH, None)


def mend(lines: Sequence[str], page: ServedPage, guide: Guide, phase: str = "stuck") -> Choice:
    """Wait until a visitor of `page` has chosen what is done about a lesson that failed as `lines` say."""
    guide.offer(lines, phase)
    patience = _Patience(page)
    while guide.choice is None and not patience.ended():
        time.sleep(_POLL_S)
    return guide.choice or (FINISH, None)


def left_in_words() -> str:
    """How long a page that nobody has open is waited for."""
    return f"{_LEFT_S:g} s without a visitor end it"


class _Patience:
    """Ends where `page` has had no visitor for a while."""

    def __init__(self, page: ServedPage) -> None:
        self._page = page
        self._seen_at = time.monotonic()

    def ended(self) -> bool:
        now = time.monotonic()
        if self._page.viewers:
            self._seen_at = now
        return now - self._seen_at > _LEFT_S


@contextlib.contextmanager
def _stopped_by_choice(guide: Guide, page: ServedPage) -> Iterator[None]:
    """The loop that shows itself on `page` is stopped as soon as a visitor wants something else than its model."""
    ended, patience = threading.Event(), _Patience(page)

    def watch() -> None:
        while not ended.wait(_POLL_S):
            if guide.choice is None and patience.ended():
                guide.press(FINISH)
            if guide.choice is None:
                continue
            if guide.choice[0] == USE:
                # The page is that of a run from here on.
                page.live.lesson = None
                log.info("the run goes on with the new model")
                return
            if page.live.loop is not None:
                page.live.loop.stop()

    thread = threading.Thread(target=watch, name="lesson", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        page.live.detach()
