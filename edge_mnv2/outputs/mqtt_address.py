"""`mqtt[s]://[USER[:PASSWORD]@]HOST[:PORT][/TOPIC][?...]`."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from typing import Optional
from urllib.parse import parse_qsl, unquote, urlsplit

from edge_mnv2.errors import UsageError

_PORTS = {"mqtt": 1883, "mqtts": 8883}
_KEYS = ("qos", "discovery", "version", "interval", "ca", "cert", "key")


@dataclass(frozen=True)
class MqttAddress:
    """Where the broker is and how it is spoken to.

    `topic` is the base of our topics. `qos` is that of events. `discovery` is Home Assistant's prefix, None for no
    discovery. `version` is MQTT's, 5 or 3 (3.1.1). `interval_s` is the least time between two states.
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
    ca: Optional[str] = None
    cert: Optional[str] = None
    key: Optional[str] = None

    def __str__(self) -> str:
        return f"mqtt{'s' if self.tls else ''}://{self.host}:{self.port}/{self.topic}"


def parse(text: str) -> MqttAddress:
    """Raises UsageError, which never shows the password."""
    shown = re.sub(r"//[^/]*@", "//...@", text)

    def wrong(what: str) -> UsageError:
        return UsageError(f"--mqtt {shown}: {what}", hint="mqtt://USER:PASSWORD@HOST:PORT/TOPIC or mqtts://...")

    url = urlsplit(text)
    try:
        port = url.port
    except ValueError:
        raise wrong("this is no port") from None
    if "#" in text:
        raise wrong("# is written %23")
    if url.scheme not in _PORTS or not url.hostname:
        raise wrong("this is no MQTT address")
    topic = unquote(url.path.strip("/")) or f"edge-mnv2/{socket.gethostname().split('.')[0]}"
    if re.search(r"[+#\x00]", topic) or topic.startswith("$") or len(topic) > 200:
        raise wrong("this is no topic to publish to")
    try:
        asked = dict(parse_qsl(url.query, keep_blank_values=True, strict_parsing=bool(url.query)))
    except ValueError:
        raise wrong("what follows ? is not KEY=VALUE") from None
    if unknown := [key for key in asked if key not in _KEYS]:
        raise wrong(f"{unknown[0]} is none of {', '.join(_KEYS)}")
    if asked.get("qos", "2") not in ("0", "1", "2") or asked.get("version", "5") not in ("3", "5"):
        raise wrong("qos is 0, 1 or 2, version 3 or 5")
    if not re.fullmatch(r"\d{1,5}(\.\d{1,3})?", asked.get("interval", "1")):
        raise wrong("interval is a number of seconds")
    tls = url.scheme == "mqtts"
    if not tls and any(key in asked for key in ("ca", "cert", "key")):
        raise wrong("ca, cert and key belong to mqtts://")
    discovery: Optional[str] = asked.get("discovery", "homeassistant")
    return MqttAddress(
        host=url.hostname,
        port=port or _PORTS[url.scheme],
        topic=topic,
        tls=tls,
        user=unquote(url.username) if url.username else None,
        password=unquote(url.password) if url.password else None,
        qos=int(asked.get("qos", "2")),
        discovery=None if discovery in ("no", "off", "") else discovery,
        version=int(asked.get("version", "5")),
        interval_s=float(asked.get("interval", "1")),
        ca=asked.get("ca"),
        cert=asked.get("cert"),
        key=asked.get("key"),
    )
