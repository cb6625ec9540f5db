"""Events for a web service: one POST each, in order, tried again until it is taken."""

from __future__ import annotations

import json
import logging
import random
import socket
import threading
from collections.abc import Sequence
from typing import Any, Optional

from edge_mnv2 import __version__
from edge_mnv2.addresses import StreamUrl
from edge_mnv2.certificates import failure, trust
from edge_mnv2.errors import UsageError
from edge_mnv2.outputs.live import Facts, Live
from edge_mnv2.outputs.records import Outbox
from edge_mnv2.outputs.sink import Sink
from edge_mnv2.outputs.table import OutputValues
from edge_mnv2.pipeline.decision import Event
from edge_mnv2.pipeline.result import Result

log = logging.getLogger(__name__)

_TIMEOUT_S = (5, 10)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
_AGAIN = {408, 425, 429}
"""Answers that ask for another attempt, besides every 5xx."""
_FAREWELL_S = 1.5


class WebhookSink(Sink):
    """POSTs `{"id","host","model",...event}` to `url`, with the id as `Idempotency-Key` too.

    A service that is away, busy (408, 425, 429) or broken (5xx) gets the event again, after 1, 2, 4 ... 60 seconds, and
    nothing else before it. Any other answer than 2xx refuses the event: it is lost. At most a thousand wait.
    """

    name = "webhook"

    def __init__(self, url: str, ca: Optional[str] = None) -> None:
        import requests
        from requests.auth import HTTPBasicAuth

        try:
            self._url = StreamUrl.parse(url, "https://home.local/hook")
        except UsageError as error:
            raise UsageError(f"--webhook: {error.message}", hint=error.hint) from None
        if self._url.scheme not in ("http", "https"):
            raise UsageError(f"--webhook {self._url.origin}: this is no http:// or https:// address")
        # Many services have their secret in the path.
        self._shown = f"webhook {self._url.origin}"
        self._session = requests.Session()
        self._session.headers["User-Agent"] = f"edge-mnv2/{__version__}"
        if self._url.user is not None:
            user, password = self._url.user.encode(), (self._url.password or "").encode()
            # As bytes: requests would write text in Latin-1.
            self._session.auth = HTTPBasicAuth(user, password)
        trust(self._session, ca)
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
        with self._session:
            while True:
                self._wake.wait()
                self._wake.clear()
                while (event := self._outbox.take()) is not None:
                    self._deliver(event)
                if self._ending.is_set():
                    return

    def _deliver(self, event: dict[str, Any]) -> None:
        pause = _FIRST_PAUSE_S
        payload = json.dumps({"id": event["id"], "host": self._host, "model": self._facts.model, **event}).encode()
        while True:
            trouble, again = self._post(event["id"], payload)
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

    def _post(self, name: str, payload: bytes) -> tuple[Optional[str], bool]:
        """(None where it was taken, else what went wrong; whether another attempt may help)."""
        import requests

        headers = {"Content-Type": "application/json", "Idempotency-Key": name}
        try:
            # Redirects would turn the POST into a GET.
            answer = self._session.post(
                self._url.bare, data=payload, headers=headers, timeout=_TIMEOUT_S, allow_redirects=False, stream=True
            )
        except requests.exceptions.InvalidURL:
            return "no valid address", False
        except (OSError, ValueError) as error:
            # Not every error of requests is one of its own: a file of authorities that is gone is none.
            return failure(error) or "it cannot be reached", True
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


def open_output(values: OutputValues, live: Live) -> WebhookSink:
    return WebhookSink(values["webhook"], live.ca)
