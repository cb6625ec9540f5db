"""What others ask a run for below `TOPIC/set/`: threshold, smoothing, pause, and another model.

Who may publish there is the broker's to decide; what a model's switch has come to is logged and answered.
"""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import threading
from collections.abc import Callable
from typing import Any, Optional

from edge_mnv2.errors import EdgeMnv2Error, UsageError
from edge_mnv2.outputs.live import Live

log = logging.getLogger(__name__)

CONTROLS = ("threshold", "smooth", "paused")
MODEL = "model"
_MOST_BYTES = 1000
_MOST_ORDERS = 20


def change(live: Live, control: str, payload: bytes, broker: str) -> None:
    """Change one of `CONTROLS`; what makes no sense changes nothing."""
    if live.loop is None or control not in CONTROLS:
        return
    try:
        live.loop.controls.change(**{control: json.loads(payload)})
    except (ValueError, UsageError) as error:
        log.debug("%s: set/%s: %s", broker, control, error)


def switch(live: Live, payload: bytes, broker: str) -> dict[str, Any]:
    """Take the model that `payload` names, as text or `{"model": NAME, "force": true}`, by the workbench's trial.

    Returns `{"asked", "taken", "model" or "why"}` for whoever asked.
    """
    answer: dict[str, Any] = {"asked": None, "taken": False}
    try:
        model, force = _asked(payload)
        answer["asked"] = model
        if live.workbench is None:
            raise UsageError("no model runs here yet")
        answer.update(live.workbench.swap(model, force))
    except (EdgeMnv2Error, OSError) as error:
        answer["why"] = str(error)
    why = f" is not taken: {answer['why']}" if "why" in answer else " is taken"
    log.info("%s: asked for the model %.100r, which%s", broker, answer["asked"], why)
    return answer


class Orders:
    """Does what is `put` one after the other, in a thread of its own: a model may be downloaded, and is tried. `answer`
    gets what each has come to; more than a few that wait are refused."""

    def __init__(self, live: Live, broker: str, answer: Callable[[dict[str, Any]], None]) -> None:
        self._live, self._broker, self._answer = live, broker, answer
        self._waiting: queue.Queue[Optional[bytes]] = queue.Queue(_MOST_ORDERS)
        self._thread = threading.Thread(target=self._work, name="mqtt-model", daemon=True)

    def put(self, payload: bytes) -> None:
        """Called by one thread. Returns at once."""
        if self._thread.ident is None:
            self._thread.start()
        try:
            self._waiting.put_nowait(payload[: _MOST_BYTES + 1])
        except queue.Full:
            log.warning("%s: an order for another model is refused: %d wait", self._broker, _MOST_ORDERS)

    def close(self) -> None:
        """End with what waits."""
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(None)

    def _work(self) -> None:
        while (payload := self._waiting.get()) is not None:
            self._answer(switch(self._live, payload, self._broker))


def _asked(payload: bytes) -> tuple[str, bool]:
    wrong = UsageError('set/model takes a model\'s name, or {"model": NAME, "force": true}')
    if len(payload) > _MOST_BYTES:
        raise wrong
    try:
        text = payload.decode().strip()
        document = json.loads(text) if text.startswith("{") else {"model": text}
    except (ValueError, RecursionError):
        raise wrong from None
    model = document.get("model")
    if not isinstance(model, str) or not model or not model.isprintable():
        raise wrong
    return model, document.get("force") is True
