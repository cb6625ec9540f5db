"""Results for an MQTT broker: a retained state, events one by one, and whether we are there at all."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Optional

from edge_mnv2.errors import UsageError
from edge_mnv2.outputs.home_assistant import discovery
from edge_mnv2.outputs.live import Facts
from edge_mnv2.outputs.mqtt_address import MqttAddress
from edge_mnv2.outputs.packages import need
from edge_mnv2.outputs.records import as_record
from edge_mnv2.outputs.sink import Outbox
from edge_mnv2.pipeline.decision import Event
from edge_mnv2.pipeline.result import Result

if TYPE_CHECKING:
    import paho.mqtt.client as paho

log = logging.getLogger(__name__)

_KEEPALIVE_S = 20
_SESSION_S = 3600
_FAREWELL_S = 1.5


class MqttSink:
    """Publishes below `address.topic`: `status` ("online", "offline"; retained, also the last will), `state` (JSON,
    retained, the newest only, one in `address.interval_s` and the last) and `event` (JSON, in their order).

    While the broker is away, at most a thousand events wait. One message is under way at a time and the next goes when
    the broker has it, so that their order holds whatever breaks; with QoS 2 the broker passes none on twice.
    """

    name = "MQTT"

    def __init__(self, address: MqttAddress) -> None:
        self._address = address
        self._host = socket.gethostname().split(".")[0]
        self._facts = Facts()
        self._outbox = Outbox()
        self._wake = threading.Condition()
        self._newest: Optional[Result] = None
        self._published_state = float("-inf")
        self._first: deque[tuple[str, bytes]] = deque()
        self._connected = False
        self._trouble = ""
        self._ending = False
        self._under_way: Optional[int] = None
        self._delivered: set[int] = set()
        self._client = self._make_client()
        self._client.connect_async(
            address.host, address.port, keepalive=_KEEPALIVE_S, **_connect_options(address.version)
        )
        self._client.loop_start()
        self._thread = threading.Thread(target=self._work, name="mqtt", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """Events that were never delivered."""
        return self._outbox.lost

    def begin(self, facts: Facts, _labels: Sequence[str]) -> None:
        """What is running; Home Assistant is told with the next connection."""
        with self._wake:
            self._facts = facts
            if self._connected:
                self._introduce()
            self._wake.notify_all()

    def write(self, result: Result) -> None:
        if result.events:
            self._outbox.put(result.events)
        with self._wake:
            self._newest = result
            if result.events or self._state_due():
                self._wake.notify_all()

    def announce(self, events: Sequence[Event]) -> None:
        self._outbox.put(events)
        with self._wake:
            self._wake.notify_all()

    def close(self) -> None:
        deadline = time.monotonic() + _FAREWELL_S
        with self._wake:
            self._ending = True
            self._wake.notify_all()
        self._thread.join(_FAREWELL_S)
        self._outbox.give_up()
        if self._connected:
            # A farewell that we say ourselves: the last will comes only when we die.
            farewell = self._client.publish(f"{self._address.topic}/status", b"offline", qos=1, retain=True)
            farewell.wait_for_publish(max(0.1, deadline - time.monotonic()))
        self._client.disconnect()
        self._client.loop_stop()

    def _make_client(self) -> paho.Client:
        paho = need("paho.mqtt.client", "mqtt", "--mqtt")
        address = self._address
        digest = hashlib.sha256(f"{self._host}/{address.topic}".encode()).hexdigest()[:8]
        modern = address.version == 5
        client = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            client_id=f"edge-mnv2-{self._host[:32]}-{digest}",
            protocol=paho.MQTTv5 if modern else paho.MQTTv311,
            **({} if modern else {"clean_session": False}),
        )
        if address.user is not None:
            client.username_pw_set(address.user, address.password)
        if address.tls:
            try:
                client.tls_set(ca_certs=address.ca, certfile=address.cert, keyfile=address.key)
            except (OSError, ValueError, ssl.SSLError) as error:
                raise UsageError(
                    f"--mqtt: certificate or key: {error}", hint="ca, cert and key name PEM files"
                ) from None
        client.will_set(f"{address.topic}/status", b"offline", qos=1, retain=True)
        client.reconnect_delay_set(1, 10)
        client.on_connect = self._on_connect
        client.on_connect_fail = lambda *_: self._tell("it cannot be reached")
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        return client

    def _on_connect(self, _client: Any, _userdata: Any, _flags: Any, reason: Any, *_: Any) -> None:
        if reason.is_failure:
            self._tell(str(reason).lower())
            return
        self._tell("")
        with self._wake:
            self._connected = True
            self._greet()
            self._wake.notify_all()

    def _on_disconnect(self, *_: Any) -> None:
        with self._wake:
            self._connected = False
            self._wake.notify_all()
        if not self._ending:
            self._tell("the connection is lost")

    def _on_publish(self, _client: Any, _userdata: Any, mid: int, reason: Any = None, *_: Any) -> None:
        if reason is not None and reason.is_failure and "identifier" not in str(reason).lower():
            self._tell(f"it refuses our messages: {str(reason).lower()}")
        with self._wake:
            self._delivered.add(mid)
            self._wake.notify_all()

    def _tell(self, trouble: str) -> None:
        """Say once that something is wrong with the broker, or that it is well again."""
        if trouble and not self._trouble:
            log.warning("%s: %s; events wait for it", self._address, trouble)
        elif not trouble and self._trouble:
            log.warning("%s: connected again", self._address)
        elif not trouble:
            log.info("%s: connected", self._address)
        self._trouble = trouble

    def _greet(self) -> None:
        """What has to be said before anything else on a new connection."""
        self._first.clear()
        self._first.append((f"{self._address.topic}/status", b"online"))
        self._introduce()

    def _introduce(self) -> None:
        """Tell Home Assistant what we have, as soon as we know it."""
        address = self._address
        if address.discovery and self._facts.model:
            entities = discovery(address.discovery, address.topic, self._host, dataclasses.asdict(self._facts))
            self._first.extend((topic, _json(config)) for topic, config in entities)

    def _as_state(self, result: Result) -> dict[str, Any]:
        record = as_record(result)
        record.pop("events", None)
        best = result.top[0] if result.top else None
        return {
            "t": record["t"],
            "label": best.label if best else None,
            "score": round(best.score, 4) if best else None,
            "unsure": result.unsure,
            "present": list(result.present),
            **record,
            "model": self._facts.model,
            "source": self._facts.source,
        }

    def _work(self) -> None:
        while True:
            with self._wake:
                message = None
                while message is None:
                    if self._under_way in self._delivered:
                        self._under_way = None
                        self._delivered.clear()
                    if self._connected and self._under_way is None:
                        message = self._next()
                    if message is None:
                        if self._ending and not (
                            self._connected and (self._under_way is not None or len(self._outbox))
                        ):
                            return
                        self._wake.wait(0.2)
            topic, payload, qos, retain = message
            # A message that the client has taken is its own to deliver, through any number of connections.
            under_way = self._client.publish(topic, payload, qos=qos, retain=retain).mid
            with self._wake:
                self._under_way = under_way if qos else None

    def _next(self) -> Optional[tuple[str, bytes, int, bool]]:
        topic = self._address.topic
        if self._first:
            return (*self._first.popleft(), 1, True)
        event = self._outbox.take()
        if event is not None:
            return f"{topic}/event", _json(event), self._address.qos, False
        if self._newest is not None and (self._ending or self._state_due()):
            newest, self._newest = self._newest, None
            self._published_state = time.monotonic()
            return f"{topic}/state", _json(self._as_state(newest)), min(self._address.qos, 1), True
        return None

    def _state_due(self) -> bool:
        return time.monotonic() - self._published_state >= self._address.interval_s


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode()


def _connect_options(version: int) -> dict[str, Any]:
    """A session of its own: begun anew with each run, kept over lost connections."""
    if version != 5:
        return {}
    import paho.mqtt.client as paho
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = _SESSION_S
    return {"clean_start": paho.MQTT_CLEAN_START_FIRST_ONLY, "properties": properties}
