"""MQTT against a real Mosquitto: state, events, the last will, an outage, TLS, credentials, Home Assistant."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, Optional

import paho.mqtt.client as paho
import pytest
import trustme

from edge_mnv2.errors import UsageError
from edge_mnv2.outputs.live import Facts
from edge_mnv2.outputs.mqtt import MqttSink
from edge_mnv2.outputs.mqtt_address import parse
from edge_mnv2.outputs.sink import Outbox
from tests.outputs.results import event, result
from tests.stubs import colour_model


class Broker:
    """A Mosquitto that can be killed and started again on its port."""

    def __init__(self, folder: Path, *lines: str) -> None:
        program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
        if program is None:
            pytest.skip("no Mosquitto here (apt-get install mosquitto)")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._config = folder / "mosquitto.conf"
        user = [] if any(line.startswith("allow_anonymous") for line in lines) else ["allow_anonymous true"]
        self._config.write_text("\n".join([f"listener {self.port} 127.0.0.1", *user, *lines]) + "\n")
        self._command = [program, "-c", str(self._config)]
        self._process: Optional[subprocess.Popen[bytes]] = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            assert time.monotonic() < deadline and self._process.poll() is None, "Mosquitto did not start"
            time.sleep(0.02)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class Listener:
    """Everything that the broker passes on, in its order; it comes back by itself after an outage."""

    def __init__(self, port: int, topics: str = "#", **tls: Any) -> None:
        self.messages: list[tuple[str, Any, bool]] = []
        self.connected = threading.Event()
        self._topics = topics
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = lambda *_: self.connected.clear()
        self._client.on_subscribe = lambda *_: self.connected.set()
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self.connected.wait(10)

    def of(self, topic: str) -> list[Any]:
        return [payload for name, payload, _ in self.messages if name == topic]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(self, client: Any, *_: Any) -> None:
        client.subscribe(self._topics, qos=2)

    def _on_message(self, client: Any, userdata: Any, message: paho.MQTTMessage) -> None:
        text = message.payload.decode()
        payload = json.loads(text) if text.startswith("{") else text
        self.messages.append((message.topic, payload, message.retain))


def until(condition: Callable[[], Any], timeout: float = 15) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    made = Broker(tmp_path)
    made.start()
    yield made
    made.kill()


FACTS = Facts(model="mobilenet_v2", source="test")


def test_state_events_presence_and_home_assistant(broker: Broker) -> None:
    listener = Listener(broker.port)
    sink = MqttSink(parse(f"mqtt://127.0.0.1:{broker.port}/lab/cam1?interval=0"))
    sink.begin(FACTS, ["tabby"])
    sink.write(result(1))
    sink.write(result(2, events=(event("appeared", frame=2),), present=("tabby, tabby cat",)))
    until(lambda: listener.of("lab/cam1/event"))
    until(lambda: any(state["frame"] == 2 for state in listener.of("lab/cam1/state")))
    sink.announce([event("gone", frame=2)])
    until(lambda: len(listener.of("lab/cam1/event")) == 2)
    sink.close()
    until(lambda: listener.of("lab/cam1/status")[-1] == "offline")
    listener.close()
    assert listener.of("lab/cam1/status")[0] == "online" and sink.lost == 0
    appeared, gone = listener.of("lab/cam1/event")
    assert (appeared["event"], gone["event"]) == ("appeared", "gone") and appeared["id"] != gone["id"]
    assert gone["end"] > gone["start"] and gone["best"] == 0.93
    state = listener.of("lab/cam1/state")[-1]
    assert state["label"] == "tabby, tabby cat" and state["score"] == 0.83 and state["present"] == ["tabby, tabby cat"]
    configs = {name: payload for name, payload, _ in listener.messages if name.startswith("homeassistant/")}
    assert len(configs) == 8
    for name, config in configs.items():
        assert name.split("/")[2] == "lab_cam1" and config["availability_topic"] == "lab/cam1/status"
        assert config["device"]["model"] == "mobilenet_v2"
        assert config["state_topic"] in ("lab/cam1/state", "lab/cam1/event")
    assert len({config["unique_id"] for config in configs.values()}) == 8
    # What is retained is there for who comes later.
    late = Listener(broker.port)
    until(lambda: len(late.messages) >= 10)
    late.close()
    assert all(retained for _, _, retained in late.messages)
    assert {name for name, _, _ in late.messages} >= {"lab/cam1/status", "lab/cam1/state"}
    assert not late.of("lab/cam1/event")


@pytest.mark.slow
@pytest.mark.parametrize("version", [5, 3])
def test_an_outage_loses_no_order_and_repeats_nothing(tmp_path: Path, version: int) -> None:
    """Events ten times a second while the broker is killed three times, each time in the middle of the traffic."""
    broker = Broker(tmp_path, "persistence false")
    broker.start()
    listener = Listener(broker.port, "cam/#")
    sink = MqttSink(parse(f"mqtt://127.0.0.1:{broker.port}/cam?discovery=no&interval=0.1&version={version}"))
    sink.begin(FACTS, [])
    until(lambda: listener.of("cam/status"))
    sent, stop = 0, threading.Event()

    def traffic() -> None:
        nonlocal sent
        while not stop.wait(0.01):
            sent += 1
            sink.write(result(sent, events=(event(frame=sent),)))

    thread = threading.Thread(target=traffic)
    thread.start()
    for outage in (0.5, 2.0, 0.1):
        time.sleep(0.5)
        broker.kill()
        time.sleep(outage)
        broker.start()
        # The listener first: what is delivered to nobody is no fault of the sender.
        assert listener.connected.wait(20)
        seen = len(listener.of("cam/event"))
        until(lambda seen=seen: len(listener.of("cam/event")) > seen, 30)
    stop.set()
    thread.join()
    until(lambda: listener.of("cam/event")[-1]["frame"] == sent)
    until(lambda: listener.of("cam/state")[-1]["frame"] == sent)
    sink.close()
    listener.close()
    broker.kill()
    frames = [one["frame"] for one in listener.of("cam/event")]
    assert frames == sorted(set(frames)), "out of order or twice"
    assert len({one["id"] for one in listener.of("cam/event")}) == len(frames)


@pytest.mark.slow
def test_events_do_not_hurry_the_state(broker: Broker) -> None:
    """Fifty results a second with an event each: states keep their interval, and the last one comes all the same."""
    listener = Listener(broker.port)
    arrived: list[float] = []

    def note(*message: Any) -> None:
        if message[2].topic == "cam/state":
            arrived.append(time.monotonic())
        listener._on_message(*message)

    listener._client.on_message = note
    sink = MqttSink(parse(f"mqtt://127.0.0.1:{broker.port}/cam?discovery=no&interval=0.5"))
    sink.begin(FACTS, [])
    until(lambda: listener.of("cam/status"))
    for frame in range(120):
        sink.write(result(frame, events=(event(frame=frame),)))
        time.sleep(0.02)
    until(lambda: listener.of("cam/state")[-1]["frame"] == 119)
    sink.write(result(120))
    sink.close()
    until(lambda: listener.of("cam/state")[-1]["frame"] == 120)
    listener.close()
    gaps = [after - before for before, after in zip(arrived, arrived[1:-1])]
    assert len(gaps) >= 3 and min(gaps) > 0.35, gaps
    assert [one["frame"] for one in listener.of("cam/event")] == list(range(120))


@pytest.mark.slow
def test_without_a_broker_little_is_kept_and_the_rest_counted(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    began = time.monotonic()
    sink = MqttSink(parse(f"mqtt://127.0.0.1:{port}/cam"))
    for frame in range(5000):
        sink.write(result(frame, events=(event(frame=frame),)))
    assert time.monotonic() - began < 5 and sink.lost == 4000
    until(lambda: "cannot be reached" in caplog.text)
    sink.close()
    assert sink.lost == 5000
    assert len([one for one in caplog.records if "cannot be reached" in one.message]) == 1


@pytest.mark.slow
def test_a_broker_that_comes_later_gets_what_waited(tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    sink = MqttSink(parse(f"mqtt://127.0.0.1:{broker.port}/cam?discovery=no"))
    for frame in range(20):
        sink.write(result(frame, events=(event(frame=frame),)))
    broker.start()
    listener = Listener(broker.port)
    until(lambda: any(one["frame"] == 19 for one in listener.of("cam/event")))
    until(lambda: listener.of("cam/state"))
    sink.close()
    listener.close()
    broker.kill()
    frames = [one["frame"] for one in listener.of("cam/event")]
    assert frames == list(range(frames[0], 20)) and sink.lost == 0


def test_the_last_will_of_a_run_that_is_killed(broker: Broker, tmp_path: Path) -> None:
    model = tmp_path / "colours.tflite"
    model.write_bytes(colour_model())
    listener = Listener(broker.port)
    url = f"mqtt://127.0.0.1:{broker.port}/cam"
    run = subprocess.Popen(
        [sys.executable, "-m", "edge_mnv2", "run", "--model", model, "--source", "test", "--mqtt", url],
        stderr=subprocess.DEVNULL,
    )
    until(lambda: listener.of("cam/state"), 30)
    assert listener.of("cam/state")[-1]["source"].startswith("test")
    run.kill()
    run.wait()
    until(lambda: listener.of("cam/status") == ["online", "offline"], 40)
    listener.close()


def test_a_run_says_goodbye_and_ends_in_time(broker: Broker, tmp_path: Path) -> None:
    model = tmp_path / "colours.tflite"
    model.write_bytes(colour_model())
    listener = Listener(broker.port)
    url = f"mqtt://127.0.0.1:{broker.port}/cam"
    run = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "edge_mnv2",
            "run",
            "--model",
            model,
            "--source",
            "test",
            "--mqtt",
            url,
            "--appear",
            "0.1",
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: listener.of("cam/event"), 30)
    began = time.monotonic()
    run.send_signal(signal.SIGTERM)
    _, err = run.communicate(timeout=20)
    assert time.monotonic() - began < 5 and run.returncode == 0 and "Traceback" not in err
    until(lambda: listener.of("cam/status")[-1] == "offline")
    listener.close()
    kinds = [one["event"] for one in listener.of("cam/event")]
    assert kinds.count("appeared") == kinds.count("gone"), "what was present at the end is said to be gone"


@pytest.mark.slow
def test_credentials_and_tls(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    cert = ca.issue_cert("127.0.0.1", "localhost")
    cert.private_key_pem.write_to_path(tmp_path / "key.pem")
    (tmp_path / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in cert.cert_chain_pems))
    passwords = tmp_path / "passwords"
    passwords.touch()
    program = shutil.which("mosquitto_passwd")
    if program is None:
        pytest.skip("no mosquitto_passwd here (apt-get install mosquitto)")
    subprocess.run([program, "-b", passwords, "board", "p@ss/word:1"], capture_output=True, check=True)
    # Mosquitto gives up root's rights and has to read them all the same.
    for path in tmp_path.rglob("*"):
        path.chmod(0o644)
    for folder in (tmp_path, *list(tmp_path.parents)[:3]):
        with contextlib.suppress(OSError):
            folder.chmod(0o755)
    broker = Broker(
        tmp_path,
        f"cafile {tmp_path}/ca.pem",
        f"certfile {tmp_path}/cert.pem",
        f"keyfile {tmp_path}/key.pem",
        "allow_anonymous false",
        f"password_file {passwords}",
        "user root",
    )
    broker.start()

    def attempt(url: str, said: str) -> None:
        caplog.clear()
        caplog.set_level("INFO")
        sink = MqttSink(parse(url))
        until(lambda: said in caplog.text)
        sink.close()

    where = f"localhost:{broker.port}/cam"
    attempt(f"mqtts://board:p%40ss%2Fword%3A1@{where}?ca={tmp_path}/ca.pem", "connected")
    attempt(f"mqtts://board:wrong@{where}?ca={tmp_path}/ca.pem", "not authorized")
    assert "wrong" not in caplog.text
    attempt(f"mqtts://board:p%40ss%2Fword%3A1@{where}", "cannot be reached")
    broker.kill()


@pytest.mark.parametrize(
    "text",
    [
        "localhost",
        "http://localhost",
        "mqtt://",
        "mqtt://host:port",
        "mqtt://host:99999",
        "mqtt://user:secret@host/a/#",
        "mqtt://host/$SYS",
        "mqtt://host/t?qos=3",
        "mqtt://host/t?unknown=1",
        "mqtt://host/t?interval=soon",
        "mqtt://host/t?ca=/x",
        "mqtt://host/t?qos",
        "mqtts://host/t#x",
    ],
)
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="--mqtt") as caught:
        parse(text)
    assert "secret" not in str(caught.value)


def test_addresses() -> None:
    address = parse("mqtts://a%40b:c%3Ad@broker.local/site%201/cam?qos=1&discovery=ha&version=3&interval=0.5")
    assert (address.host, address.port, address.topic, address.tls) == ("broker.local", 8883, "site 1/cam", True)
    assert (address.user, address.password, address.qos, address.discovery) == ("a@b", "c:d", 1, "ha")
    assert "c:d" not in str(address)
    assert parse("mqtt://h").topic.startswith("edge-mnv2/") and parse("mqtt://h?discovery=no").discovery is None
    with pytest.raises(UsageError, match="certificate"):
        MqttSink(parse("mqtts://127.0.0.1:1/x?ca=/nowhere.pem"))


def test_the_outbox_gives_up_the_oldest() -> None:
    outbox = Outbox(3)
    outbox.put(event(frame=frame) for frame in range(5))
    assert outbox.lost == 2 and len(outbox) == 3
    first = outbox.take()
    assert first is not None and first["frame"] == 2
    outbox.give_up()
    assert outbox.lost == 4 and outbox.take() is None
