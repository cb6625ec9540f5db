"""Results for an MQTT broker: a retained state, events one by one, whether we are there at all, and what others ask."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
import socket
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

from edge_mnv2.installed import need
from edge_mnv2.outputs import mqtt_client
from edge_mnv2.outputs.home_assistant import discovery
from edge_mnv2.outputs.live import Facts, Live
from edge_mnv2.outputs.mqtt_client import MqttAddress, Orders
from edge_mnv2.outputs.picture import bgr, jpeg
from edge_mnv2.outputs.records import Outbox, as_json, as_state
from edge_mnv2.outputs.sink import Sink
from edge_mnv2.outputs.table import OutputValues
from edge_mnv2.pipeline.decision import APPEARED, Event
from edge_mnv2.pipeline.result import Result

log = logging.getLogger(__name__)

_KEEPALIVE_S = 20
_FAREWELL_S = 1.5
_PICTURE_PIXELS = 640
_SOON_LOST_S = 30.0
"""A connection lost so soon, twice in a row, was taken over; not every broker says so, and MQTT 3.1.1 cannot."""


class _Message(NamedTuple):
    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = True


class MqttSink(Sink):
    """Publishes below `address.topic`: `status` ("online", "offline"; retained, also the last will), `state` (JSON,
    retained, the newest only, one in `address.interval_s` and the last), `event` (JSON, in their order), `picture`
    (JPEG, retained, of the last event) and `controls` (JSON, retained). Takes `set/threshold`, `set/smooth`,
    `set/paused`, `set/known` and `set/model` for the run that `live` shows; `model` (JSON, retained) says what came of
    the last.

    While the broker is away, at most a thousand events wait. One message is under way at a time and the next goes when
    the broker has it, so that their order holds whatever breaks; with QoS 2 the broker passes none on twice.
    `identity` is what no other board has.
    """

    name = "MQTT"

    def __init__(self, address: MqttAddress, live: Optional[Live] = None, identity: Optional[str] = None) -> None:
        need("paho.mqtt.client", "", "--mqtt")
        self._address = address
        self.wants_pictures = "events" if address.picture else False
        self._live = live or Live()
        self._host = socket.gethostname().split(".")[0]
        self._identity = identity or mqtt_client.board_identity()
        self._facts, self._labels = Facts(), tuple[str, ...]()
        self._outbox = Outbox()
        self._orders = Orders(self._live, str(address), self._answer)
        self._answered: list[_Message] = []
        self._wake = threading.Condition()
        self._newest: Optional[Result] = None
        self._last: Optional[Result] = None
        self._pictured: Optional[Result] = None
        self._published_state = float("-inf")
        self._published_controls: Optional[dict[str, Any]] = None
        self._first: deque[_Message] = deque()
        self._configured: set[str] = set()
        self._connected = False
        self._connected_at, self._soon_lost = float("-inf"), 0
        self._trouble = ""
        self._is_shared = self._taken_over = self._ending = False
        self._current: Optional[_Message] = None
        self._under_way: Optional[int] = None
        self._delivered: set[int] = set()
        digest = hashlib.sha256(f"{self._identity}/{address.topic}".encode()).hexdigest()[:12]
        self._client_id, self._name_taken = mqtt_client.own_name(f"edge-mnv2-{self._host[:32]}-{digest}")
        self._client = self._open_client()
        self._thread = threading.Thread(target=self._work, name="mqtt", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """Events that were never delivered."""
        return self._outbox.lost

    def begin(self, facts: Facts, labels: Sequence[str]) -> None:
        """What is running; Home Assistant is told with the next connection."""
        with self._wake:
            self._facts, self._labels = facts, tuple(labels)
            if self._connected:
                self._introduce()
            self._wake.notify_all()

    def write(self, result: Result) -> None:
        if result.events:
            self._outbox.put(result.events)
        with self._wake:
            self._newest = self._last = result
            if any(event.kind == APPEARED for event in result.events):
                self._pictured = result
            if result.events or self._state_due():
                self._wake.notify_all()

    def announce(self, events: Sequence[Event]) -> None:
        self._outbox.put(events)
        gone = {event.label for event in events}
        with self._wake:
            if self._last is not None:
                present = tuple(label for label in self._last.present if label not in gone)
                self._newest = self._last = dataclasses.replace(self._last, present=present, events=())
            self._wake.notify_all()

    def close(self) -> None:
        deadline = time.monotonic() + _FAREWELL_S
        self._orders.close()
        with self._wake:
            self._ending = True
            self._wake.notify_all()
        self._thread.join(_FAREWELL_S)
        self._outbox.give_up()
        mqtt_client.leave(self._client, self._address, self._connected, deadline - time.monotonic(), _FAREWELL_S)
        self._name_taken.close()

    def _open_client(self) -> Any:
        address = self._address
        client = mqtt_client.make_client(address, self._client_id)
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        options = mqtt_client.connect_options(address.version)
        self._answer_by = time.monotonic() + mqtt_client.ANSWER_S
        client.connect_async(address.host, address.port, keepalive=_KEEPALIVE_S, **options)
        client.loop_start()
        return client

    def _on_connect(self, client: Any, _userdata: Any, _flags: Any, reason: Any, *_: Any) -> None:
        if reason.is_failure or self._ending:
            # The thread of a client may outlive the end of the run for a moment: nobody waits for what it says.
            if not self._ending:
                self._tell(mqtt_client.refusal(reason, self._address.version))
            return
        self._tell("")
        mqtt_client.subscribe(client, self._address)
        with self._wake:
            self._connected, self._connected_at = True, time.monotonic()
            self._published_controls = None
            self._first.clear()
            self._first.append(_Message(f"{self._address.topic}/status", b"online"))
            # What came of the last order, maybe while the broker was away.
            self._first.extend(self._answered)
            self._introduce()
            self._wake.notify_all()

    def _on_connect_fail(self, *_: Any) -> None:
        if not self._ending:
            # It is called while the error is being handled, which is not handed over.
            self._tell(mqtt_client.unreachable(sys.exc_info()[1], self._address.tls))

    def _on_disconnect(self, _client: Any, _userdata: Any, _flags: Any, reason: Any, *_: Any) -> None:
        with self._wake:
            was, self._connected = self._connected, False
            if self._ending:
                return
            soon = was and time.monotonic() - self._connected_at < _SOON_LOST_S
            self._soon_lost = self._soon_lost + 1 if soon else 0
            taken_over = "taken over" in str(reason).lower() or self._soon_lost > 1
            self._taken_over |= taken_over
            self._wake.notify_all()
        if taken_over:
            log.warning(
                "%s: another program of the same name has taken the connection over; going on under a new name",
                self._address,
            )
        elif was:
            self._tell("the connection is lost")
        elif not self._trouble:
            # TCP works and MQTT does not: most often a port that speaks TLS.
            hint = "" if self._address.tls else ": a TLS port is written mqtts://"
            self._tell(f"it ends the connection before it answers{hint}")

    def _on_publish(self, _client: Any, _userdata: Any, mid: int, reason: Any = None, *_: Any) -> None:
        if reason is not None and reason.is_failure and "identifier" not in str(reason).lower():
            self._tell(f"it refuses our messages: {str(reason).lower()}")
        with self._wake:
            self._delivered.add(mid)
            self._wake.notify_all()

    def _on_message(self, _client: Any, _userdata: Any, message: Any) -> None:
        topic = self._address.topic
        if message.topic.startswith(f"{topic}/set/"):
            # One that is retained was meant for another time.
            if not message.retain:
                self._obey(message.topic.rpartition("/")[2], message.payload)
        elif message.topic == f"{topic}/state":
            if not message.retain and mqtt_client.publisher_of(message.payload) not in (None, self._client_id):
                self._warn_shared()
        elif message.topic == f"{topic}/status":
            if not message.retain and message.payload == b"offline" and not self._ending:
                # Another's farewell or last will is no word about us.
                self._send_first(_Message(message.topic, b"online"))
        elif message.payload:
            with self._wake:
                if not self._facts.model:
                    # Of a former run: which of them are ours is known when this one begins.
                    self._configured.add(message.topic)
                elif message.topic not in self._configured:
                    self._send_first(_Message(message.topic, b""))

    def _send_first(self, message: _Message) -> None:
        with self._wake:
            self._first.append(message)
            self._wake.notify_all()

    def _obey(self, control: str, payload: bytes) -> None:
        if control == mqtt_client.MODEL:
            self._orders.put(payload)
        else:
            mqtt_client.change_control(self._live, control, payload, str(self._address))
            with self._wake:
                self._wake.notify_all()

    def _answer(self, answer: dict[str, Any]) -> None:
        self._answered = [_Message(f"{self._address.topic}/model", as_json(answer))]
        self._send_first(*self._answered)

    def _warn_shared(self) -> None:
        if not self._is_shared:
            self._is_shared = True
            log.warning(
                "%s: another board publishes there too; give each a topic of its own (mqtt://.../TOPIC)", self._address
            )

    def _tell(self, trouble: str) -> None:
        """Say once that something is wrong with the broker, or that it is well again."""
        if trouble and trouble != self._trouble:
            log.warning("%s: %s; events wait for it", self._address, trouble)
        elif not trouble and self._trouble:
            log.warning("%s: connected again", self._address)
        elif not trouble:
            log.info("%s: connected", self._address)
        self._trouble = trouble

    def _introduce(self) -> None:
        """Tell Home Assistant what we have, as soon as we know it."""
        address = self._address
        if address.discovery and self._facts.model:
            loop = self._live.loop
            taught = loop is not None and loop.controls.unknown is not None
            entities = discovery(address, self._host, self._facts.model, self._labels, self._live.page, taught)
            configured = {topic for topic, _ in entities}
            self._first.extend(_Message(topic, b"") for topic in sorted(self._configured - configured))
            self._configured = configured
            self._first.extend(_Message(topic, as_json(config)) for topic, config in entities)

    def _work(self) -> None:
        while True:
            with self._wake:
                message = None
                while message is None:
                    if self._under_way in self._delivered:
                        self._under_way = self._current = None
                        self._delivered.clear()
                    if self._taken_over:
                        break
                    if self._connected and self._under_way is None:
                        message = self._next()
                    if time.monotonic() > self._answer_by and not self._connected and not self._trouble:
                        self._answer_by = math.inf
                        self._tell("it does not answer")
                    if message is None:
                        if self._ending and not (
                            self._connected and (self._under_way is not None or len(self._outbox))
                        ):
                            return
                        self._wake.wait(0.2)
            if message is None:
                self._change_name()
                continue
            # A message that the client has taken is its own to deliver, through any number of connections.
            under_way = self._client.publish(message.topic, message.payload, message.qos, message.retain).mid
            with self._wake:
                self._current, self._under_way = message, under_way if message.qos else None

    def _change_name(self) -> None:
        """Go on as a client of another name; what was under way is sent again."""
        self._client.loop_stop()
        with self._wake:
            self._taken_over, self._soon_lost = False, 0
            self._client_id = f"{self._client_id.rpartition('-')[0]}-{uuid.uuid4().hex[:12]}"
            again = self._current
            self._current = self._under_way = None
            self._delivered.clear()
        if again is not None and not again.retain:
            self._outbox.put_back(json.loads(again.payload))
        self._client = self._open_client()

    def _next(self) -> Optional[_Message]:
        topic = self._address.topic
        if self._first:
            return self._first.popleft()
        event = self._outbox.take()
        if event is not None:
            return _Message(f"{topic}/event", as_json(event), self._address.qos, False)
        if self._pictured is not None and self._address.picture:
            pictured, self._pictured = self._pictured, None
            if pictured.frame.pixels.size:
                return _Message(f"{topic}/picture", jpeg(bgr(pictured.frame, _PICTURE_PIXELS)), 0)
        if self._newest is not None and (self._ending or self._state_due()):
            newest, self._newest = self._newest, None
            self._published_state = time.monotonic()
            who = {"model": self._facts.model, "source": self._facts.source, "client": self._client_id}
            return _Message(f"{topic}/state", as_json({**as_state(newest), **who}), min(self._address.qos, 1))
        return self._changed_controls()

    def _changed_controls(self) -> Optional[_Message]:
        loop = self._live.loop
        if loop is None or not self._address.controls:
            return None
        controls = {name: loop.controls.as_dict()[name] for name in mqtt_client.CONTROLS}
        if controls == self._published_controls:
            return None
        self._published_controls = controls
        return _Message(f"{self._address.topic}/controls", as_json(controls))

    def _state_due(self) -> bool:
        return time.monotonic() - self._published_state >= self._address.interval_s


def open_output(values: OutputValues, live: Live) -> MqttSink:
    address = values["mqtt"]
    if address.tls and address.ca is None:
        address = dataclasses.replace(address, ca=live.ca)
    live.remote = live.remote or address.controls
    return MqttSink(address, live)
