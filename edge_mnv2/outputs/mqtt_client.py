"""The broker's address, who we are to it, why it cannot be reached, and what others ask a run for below `TOPIC/set/`:
threshold, smoothing, pause, and another model.

`mqtt[s]://[USER[:PASSWORD]@]HOST[:PORT][/TOPIC][?KEY=VALUE&...]`. Who may publish there is the broker's to decide; what
a model's switch has come to is logged and answered.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import queue
import re
import socket
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional
from urllib.parse import parse_qsl, unquote

from edge_mnv2 import certificates
from edge_mnv2.addresses import StreamUrl
from edge_mnv2.board.sysroot import Sysroot
from edge_mnv2.errors import EdgeMnv2Error, UsageError
from edge_mnv2.outputs.live import Live

if TYPE_CHECKING:
    import paho.mqtt.client as paho

log = logging.getLogger(__name__)

CONTROLS = ("threshold", "smooth", "paused", "known")
MODEL = "model"
_MOST_BYTES = 1000
_MOST_ORDERS = 20


def change_control(live: Live, control: str, payload: bytes, broker: str) -> None:
    """Change one of `CONTROLS`; what makes no sense changes nothing."""
    if live.loop is None or control not in CONTROLS:
        return
    try:
        live.loop.controls.change(**{control: json.loads(payload)})
    except (ValueError, UsageError) as error:
        log.debug("%s: set/%s: %s", broker, control, error)


def switch_model(live: Live, payload: bytes, broker: str) -> dict[str, Any]:
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
            self._answer(switch_model(self._live, payload, self._broker))


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


_PORTS = {"mqtt": 1883, "mqtts": 8883}
_KEYS = ("qos", "discovery", "version", "interval", "picture", "controls", "ca", "cert", "key")
_SESSION_S = 3600
_MOST_PROGRAMS = 99
ANSWER_S = 10.0
"""A broker that takes the connection and says nothing for so long is said not to answer."""
_HINT = "mqtt://USER:PASSWORD@HOST:PORT/TOPIC or mqtts://..."


@dataclass(frozen=True)
class MqttAddress:
    """Where the broker is and how it is spoken to.

    `topic` is the base of our topics. `qos` is that of events. `discovery` is Home Assistant's prefix, None for no
    discovery. `version` is MQTT's, 5 or 3 (3.1.1). `interval_s` is the least time between two states. `picture`: the
    picture of the last event is published. `controls`: whoever may publish there can change the run.
    """

    host: str
    port: int
    topic: str
    tls: bool = False
    user: Optional[str] = None
    password: Optional[str] = None
    qos: int = 2
    discovery: Optional[str] = "homeassistant"
    version: int = 5
    interval_s: float = 1.0
    picture: bool = True
    controls: bool = True
    ca: Optional[str] = None
    cert: Optional[str] = None
    key: Optional[str] = None

    def __str__(self) -> str:
        return f"mqtt{'s' if self.tls else ''}://{self.host}:{self.port}/{self.topic}"


def parse(text: str) -> MqttAddress:
    """Raises UsageError, which never shows the password."""
    try:
        url = StreamUrl.parse(text)
        port = url.port
    except UsageError as error:
        hint = error.hint if "two ways" in error.message else _HINT
        raise UsageError(f"--mqtt: {error.message}", hint=hint) from None

    def wrong(what: str) -> UsageError:
        return UsageError(f"--mqtt {url.shown}: {what}", hint=_HINT)

    if url.scheme not in _PORTS:
        raise wrong("this is no MQTT address")
    address, _, query = url.place.partition("?")
    if "#" in url.place:
        raise wrong("# is written %23")
    topic = unquote(address.partition("/")[2].strip("/")) or f"edge-mnv2/{socket.gethostname().split('.')[0]}"
    if re.search(r"[+#\x00-\x1f\x7f]", topic) or topic.startswith("$") or len(topic) > 200:
        raise wrong("this is no topic to publish to")
    try:
        asked = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
    except ValueError:
        raise wrong("what follows ? is not KEY=VALUE") from None
    if unknown := [key for key in asked if key not in _KEYS]:
        raise wrong(f"{unknown[0]} is none of {', '.join(_KEYS)}")
    if asked.get("qos", "2") not in ("0", "1", "2") or asked.get("version", "5") not in ("3", "5"):
        raise wrong("qos is 0, 1 or 2, version 3 or 5")
    if not re.fullmatch(r"\d{1,5}(\.\d{1,3})?", asked.get("interval", "1")):
        raise wrong("interval is a number of seconds")
    if any(asked.get(key, "yes") not in ("yes", "no") for key in ("picture", "controls")):
        raise wrong("picture and controls are yes or no")
    tls = url.scheme == "mqtts"
    if not tls and any(key in asked for key in ("ca", "cert", "key")):
        raise wrong("ca, cert and key belong to mqtts://")
    discovery: Optional[str] = asked.get("discovery", "homeassistant")
    return MqttAddress(
        host=url.host,
        port=port or _PORTS[url.scheme],
        topic=topic,
        tls=tls,
        user=url.user or None,
        password=url.password or None,
        qos=int(asked.get("qos", "2")),
        discovery=None if discovery in ("no", "off", "") else discovery,
        version=int(asked.get("version", "5")),
        interval_s=float(asked.get("interval", "1")),
        picture=asked.get("picture", "yes") == "yes",
        controls=asked.get("controls", "yes") == "yes",
        ca=asked.get("ca"),
        cert=asked.get("cert"),
        key=asked.get("key"),
    )


def board_identity(tree: Optional[Sysroot] = None) -> str:
    """What no other board has, whatever card is in it: the SoC's serial number, else the address of its network card.

    Neither the host's name nor a file will do: cards are cloned. A hash, so that it gives no serial number away.
    """
    tree = tree or Sysroot()
    own = tree.read("proc/device-tree/serial-number") or tree.read("sys/devices/soc0/serial_number")
    if not own:
        places = [f"sys/class/net/{name}" for name in sorted(tree.names("sys/class/net")) if name != "lo"]
        # Cards before bridges and tunnels, whose addresses are made up.
        places.sort(key=lambda place: tree.resolve(f"{place}/device") is None)
        own = next((address for place in places if (address := tree.read(f"{place}/address"))), None)
    return hashlib.sha256((own or uuid.uuid4().hex).encode()).hexdigest()[:12]


def own_name(name: str) -> tuple[str, socket.socket]:
    """`name`, with a number where another program on this board has it; free again when the socket is closed.

    A broker keeps one session for a name. Two programs that take it from each other number their messages alike, and
    with MQTT 3.1.1, where the session outlives the change, one of two messages of the same number is lost.
    """
    taken = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    for number in range(1, _MOST_PROGRAMS):
        candidate = name if number == 1 else f"{name}-{number}"
        try:
            # An abstract name is the kernel's: there is no file to leave behind or to have rights on.
            taken.bind(f"\0edge-mnv2/mqtt/{candidate}")
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                continue
            break
        return candidate, taken
    return name, taken


def make_client(address: MqttAddress, client_id: str) -> paho.Client:
    """A client with credentials, TLS and last will, not connected. Raises UsageError for a wrong certificate."""
    import paho.mqtt.client as paho

    modern = address.version == 5
    client = paho.Client(
        paho.CallbackAPIVersion.VERSION2,
        client_id=client_id,
        protocol=paho.MQTTv5 if modern else paho.MQTTv311,
        clean_session=None if modern else False,
    )
    if address.user is not None:
        client.username_pw_set(address.user, address.password)
    if address.tls:
        client.tls_set_context(
            certificates.context(address.ca, address.cert, address.key, option="--mqtt: certificate file")
        )
    client.will_set(f"{address.topic}/status", b"offline", qos=1, retain=True)
    client.reconnect_delay_set(1, 10)
    return client


def connect_options(version: int) -> dict[str, Any]:
    """A session of its own: begun anew with each run, kept over lost connections."""
    if version != 5:
        return {}
    import paho.mqtt.client as paho
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = _SESSION_S
    return {"clean_start": paho.MQTT_CLEAN_START_FIRST_ONLY, "properties": properties}


def refusal(reason: Any, version: int) -> str:
    """A broker's answer to CONNECT in words."""
    said = str(reason).lower()
    if any(word in said for word in ("user name", "password", "not authorized", "not authorised")):
        return "it refuses the user name or password"
    if "protocol version" in said:
        return f"it does not speak MQTT {'5: add ?version=3' if version == 5 else '3.1.1'}"
    return f"it refuses the connection ({said})"


def unreachable(error: Optional[BaseException], tls: bool) -> str:
    """Why there is no connection, in words."""
    why = (certificates.failure(error) if error else None) or str(error or "no reason is known")
    if tls and "ended the connection" in why:
        why += ": does that port speak TLS? Without, the address begins with mqtt://"
    return f"it cannot be reached: {why}"


def leave(client: paho.Client, address: MqttAddress, connected: bool, farewell_s: float, stop_s: float) -> None:
    """Say that the run has ended, where the broker is `connected`, and stop; at most so many seconds for each."""
    if connected:
        # A farewell that we say ourselves: the last will comes only when we die.
        farewell = client.publish(f"{address.topic}/status", b"offline", qos=1, retain=True)
        farewell.wait_for_publish(max(0.1, farewell_s))
    client.disconnect()
    # Without a broker its thread sleeps, or waits for a connection, for seconds: the end of a run does not.
    stop = threading.Thread(target=client.loop_stop, name="mqtt-stop", daemon=True)
    stop.start()
    stop.join(stop_s if connected else 0.0)


def subscribe(client: paho.Client, address: MqttAddress) -> None:
    """To what others publish below our topic, to what they ask for, and to what Home Assistant was told before."""
    others: dict[str, Any] = {}
    if address.version == 5:
        from paho.mqtt.subscribeoptions import SubscribeOptions

        others = {"options": SubscribeOptions(qos=0, noLocal=True)}
    for name in ("status", "state"):
        client.subscribe(f"{address.topic}/{name}", **others)
    if address.controls:
        client.subscribe(f"{address.topic}/set/+", qos=1)
    if address.discovery:
        client.subscribe(f"{address.discovery}/+/{node_of(address.topic)}/+/config", qos=0)


def node_of(topic: str) -> str:
    """A topic as a part of Home Assistant's discovery topics and unique ids."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", topic)


def publisher_of(state: bytes) -> Optional[str]:
    """The name of the client that has published a `state`; None where it says none."""
    try:
        document = json.loads(state)
    except ValueError:
        return None
    client = document.get("client") if isinstance(document, dict) else None
    return client if isinstance(client, str) else None
