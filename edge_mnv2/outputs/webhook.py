"""Events for a web service: one POST each, in order, tried again until it is taken."""

from __future__ import annotations

import json
import logging
import random
import socket
import threading
from collections.abc import Sequence
from typing import Any, Optional
from urllib.parse import urlsplit

from edge_mnv2 import __version__
from edge_mnv2.errors import UsageError
from edge_mnv2.outputs.live import Facts, Live
from edge_mnv2.outputs.sink import Outbox
from edge_mnv2.outputs.table import OutputValues
from edge_mnv2.pipeline.decision import Event
from edge_mnv2.pipeline.result import Result

log = logging.getLogger(__name__)

_TIMEOUT_S = (5, 10)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
_AGAIN = {408, 425, 429}
"""Answers that ask for another attempt, besides every 5xx."""
_FAREWELL_S = 1.5


class WebhookSink:
    """POSTs `{"id","host","model",...event}` to `url`, with the id as `Idempotency-Key` too.

    A service that is away, busy (408, 425, 429) or broken (5xx) gets the event again, after 1, 2, 4 ... 60 seconds, and
    nothing else before it. Any other answer than 2xx refuses the event: it is lost. At most a thousand wait.
    """

    name = "webhook"

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError("--webhook: this is no http:// or https:// address")
        self._url = url
        self._shown = f"webhook {parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        self._host = socket.gethostname()
        self._facts = Facts()
        self._outbox = Outbox()
        self._refused = 0
        self._trouble = ""
        self._ending = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._work, name="webhook", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """Events that were refused or never delivered."""
        return self._outbox.lost + self._refused

    def begin(self, facts: Facts, _labels: Sequence[str]) -> None:
        self._facts = facts

    def write(self, result: Result) -> None:
        if result.events:
            self.announce(result.events)

    def announce(self, events: Sequence[Event]) -> None:
        self._outbox.put(events)
        self._wake.set()

    def close(self) -> None:
        self._ending.set()
        self._wake.set()
        self._thread.join(_FAREWELL_S)
        self._outbox.give_up()

    def _work(self) -> None:
        import requests

        with requests.Session() as session:
            session.headers["User-Agent"] = f"edge-mnv2/{__version__}"
            while True:
                self._wake.wait()
                self._wake.clear()
                while (event := self._outbox.take()) is not None:
                    self._deliver(session, event)
                if self._ending.is_set():
                    return

    def _deliver(self, session: Any, event: dict[str, Any]) -> None:
        pause = _FIRST_PAUSE_S
        payload = json.dumps({"id": event["id"], "host": self._host, "model": self._facts.model, **event}).encode()
        while True:
            trouble, again = self._post(session, event["id"], payload)
            if trouble is None:
                self._tell("")
                return
            if not again:
                self._refused += 1
                self._tell(f"{trouble}: the event is lost")
                return
            self._tell(f"{trouble}; events wait")
            # So that many boards do not come back in the same moment.
            if self._ending.wait(pause * random.uniform(0.75, 1.25)):
                self._refused += 1
                return
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    def _post(self, session: Any, name: str, payload: bytes) -> tuple[Optional[str], bool]:
        """(None where it was taken, else what went wrong; whether another attempt may help)."""
        import requests

        headers = {"Content-Type": "application/json", "Idempotency-Key": name}
        try:
            # Redirects would turn the POST into a GET.
            answer = session.post(
                self._url, data=payload, headers=headers, timeout=_TIMEOUT_S, allow_redirects=False, stream=True
            )
        except requests.exceptions.InvalidURL:
            return "no valid address", False
        except requests.RequestException as error:
            return f"{type(error).__name__}", True
        answer.close()
        if answer.status_code // 100 == 2:
            return None, False
        return f"it answers {answer.status_code}", answer.status_code in _AGAIN or answer.status_code >= 500

    def _tell(self, trouble: str) -> None:
        if trouble and trouble != self._trouble:
            log.warning("%s: %s", self._shown, trouble)
        elif not trouble and self._trouble:
            log.warning("%s: taken again", self._shown)
        self._trouble = trouble


def open_output(values: OutputValues, _live: Live) -> WebhookSink:
    return WebhookSink(values["webhook"])
