"""What others ask a run for below `TOPIC/set/`: threshold, smoothing, pause, and another model.

Who may publish there is the broker's to decide; what a model's switch has come to is logged and answered.
"""

from __future__ import annotations

import json
import logging
import threading
from typing import Any

from edge_mnv2.errors import EdgeMnv2Error, UsageError
from edge_mnv2.outputs.live import Live

log = logging.getLogger(__name__)

CONTROLS = ("threshold", "smooth", "paused")
MODEL = "model"
_MOST_BYTES = 1000
_one_at_a_time = threading.Lock()


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
    _one_at_a_time.acquire()
    try:
        model, force = _asked(payload)
        answer["asked"] = model
        if live.workbench is None:
            raise UsageError("no model runs here yet")
        answer.update(live.workbench.swap(model, force))
    except (EdgeMnv2Error, OSError) as error:
        answer["why"] = str(error)
    finally:
        _one_at_a_time.release()
    why = f" is not taken: {answer['why']}" if "why" in answer else " is taken"
    log.info("%s: asked for the model %.100r, which%s", broker, answer["asked"], why)
    return answer


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
