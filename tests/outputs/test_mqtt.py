"""MQTT against a real Mosquitto: state, events, the last will, an outage, TLS, credentials, Home Assistant."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional

import cv2
import jinja2
import numpy as np
import paho.mqtt.client as paho
import pytest
import trustme

from edge_mnv2.board.sysroot import Sysroot
from edge_mnv2.errors import UsageError
from edge_mnv2.outputs.home_assistant import discovery
from edge_mnv2.outputs.live import Facts, Live
from edge_mnv2.outputs.mqtt import MqttSink
from edge_mnv2.outputs.mqtt_client import board_identity, connect_options, make_client, parse
from edge_mnv2.outputs.records import Outbox
from edge_mnv2.outputs.sink import Isolated
from edge_mnv2.pipeline.controls import Controls
from edge_mnv2.zoo.model_facts import MovedThreshold, OpenSet
from tests.outputs.results import event, result
from tests.processes import Command, until
from tests.stubs import colour_model, free_port

SAME = f"same {os.getpid()}"
"""A board that is this run's alone: the names of its programs belong to the whole machine."""


@pytest.fixture(autouse=True)
def _leisure(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is to come before the end comes, however long the machine stops just then."""
    monkeypatch.setattr("edge_mnv2.outputs.mqtt._FAREWELL_S", 60.0)


class Broker:
    """A Mosquitto that can be killed and started again on its port."""

    def __init__(self, folder: Path, *lines: str) -> None:
        program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
        if program is None:
            pytest.skip("no Mosquitto here (apt-get install mosquitto)")
        self.port = free_port()
        self._config = folder / "mosquitto.conf"
        user = [] if any(line.startswith("allow_anonymous") for line in lines) else ["allow_anonymous true"]
        self._config.write_text("\n".join([f"listener {self.port} 127.0.0.1", *user, *lines]) + "\n")
        self._command = [program, "-c", str(self._config)]
        self._process: Optional[subprocess.Popen[bytes]] = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
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


def readable(tmp_path: Path) -> None:
    """Mosquitto gives up root's rights and has to read what is in a test's folder all the same."""
    for path in tmp_path.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    for folder in (tmp_path, *list(tmp_path.parents)[:3]):
        with contextlib.suppress(OSError):
            folder.chmod(0o755)


class Listener:
    """Everything that the broker passes on, in its order; it comes back by itself after an outage."""

    def __init__(self, port: int, topics: str = "#", user: Optional[str] = None, password: str = "") -> None:
        self.messages: list[tuple[str, Any, bool]] = []
        self.connected = threading.Event()
        self._topics = topics
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        self._client.reconnect_delay_set(0.1, 0.1)
        if user is not None:
            self._client.username_pw_set(user, password)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = lambda *_: self.connected.clear()
        self._client.on_subscribe = lambda *_: self.connected.set()
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self.connected.wait(60)

    def of(self, topic: str) -> list[Any]:
        return [payload for name, payload, _ in self.messages if name == topic]

    def publish(self, topic: str, text: str) -> None:
        self._client.publish(topic, text, qos=1)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(self, client: Any, *_: Any) -> None:
        # With QoS 1 a message is passed on when it comes: those of QoS 2 would wait for the end of their handshake, and
        # come after later ones of QoS 1.
        client.subscribe(self._topics, qos=1)

    def _on_message(self, client: Any, userdata: Any, message: paho.MQTTMessage) -> None:
        payload: Any = message.payload
        if not payload.startswith(b"\xff\xd8"):
            text = payload.decode()
            payload = json.loads(text) if text.startswith("{") else text
        self.messages.append((message.topic, payload, message.retain))


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
    assert state["label"] == "tabby, tabby cat" and state["score"] == 0.83 and state["present"] == [], "gone at the end"
    assert any(state["present"] == ["tabby, tabby cat"] for state in listener.of("lab/cam1/state"))
    configs = {name: payload for name, payload, _ in listener.messages if name.startswith("homeassistant/")}
    # Eight of every run, one of the class, the picture, three controls.
    assert len(configs) == 13
    for name, config in configs.items():
        assert name.split("/")[2] == "lab_cam1" and config["availability_topic"] == "lab/cam1/status"
        assert config["device"]["model"] == "mobilenet_v2"
    assert len({config["unique_id"] for config in configs.values()}) == 13
    # What is retained is there for who comes later.
    late = Listener(broker.port)
    until(lambda: {name for name, _, _ in late.messages} >= {"lab/cam1/status", "lab/cam1/state", *configs})
    late.close()
    assert all(retained for _, _, retained in late.messages)
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
        # It has then taken what the broker sent before, and is not taken for one that is there again.
        until(lambda: not listener.connected.is_set())
        time.sleep(outage)
        broker.start()
        # The listener first: what is delivered to nobody is no fault of the sender.
        assert listener.connected.wait(60)
        seen = len(listener.of("cam/event"))
        until(lambda seen=seen: len(listener.of("cam/event")) > seen)
    stop.set()
    thread.join()
    for topic in ("cam/event", "cam/state"):
        until(lambda topic=topic: [one["frame"] for one in listener.of(topic)][-1:] == [sent])
    sink.close()
    listener.close()
    broker.kill()
    frames = [one["frame"] for one in listener.of("cam/event")]
    assert frames == sorted(set(frames)), "out of order or twice"
    assert len({one["id"] for one in listener.of("cam/event")}) == len(frames)


@pytest.mark.slow
def test_orders_for_models_are_done_in_turn_and_answered_after_an_outage(broker: Broker) -> None:
    done, go = list[str](), threading.Event()

    def swap(model: str, _force: bool) -> dict[str, Any]:
        go.wait(20)
        done.append(model)
        return {"taken": True, "model": model}

    live = Live()
    live.workbench = SimpleNamespace(swap=swap)  # type: ignore[assignment]
    listener = Listener(broker.port, "cam/#")
    sink = MqttSink(parse(f"mqtt://127.0.0.1:{broker.port}/cam?discovery=no"), live)
    until(lambda: listener.of("cam/status"))
    threads = threading.active_count()
    orders = [f"model{number}" for number in range(10)]
    for order in orders:
        listener.publish("cam/set/model", order)
    until(lambda: sink._orders._waiting.qsize() == len(orders) - 1)
    assert threading.active_count() <= threads + 1
    broker.kill()
    until(lambda: not sink._connected)
    go.set()
    until(lambda: len(done) == len(orders))
    broker.start()
    until(lambda: [one["asked"] for one in listener.of("cam/model")][-1:] == orders[-1:])
    sink.close()
    listener.close()
    # One that the broker had not confirmed when it died is sent again.
    assert done[: len(orders)] == orders
    until(lambda: not sink._orders._thread.is_alive())


@pytest.mark.slow
def test_events_do_not_hurry_the_state(broker: Broker) -> None:
    """Fifty results a second with an event each: states keep their interval, and the last one comes all the same."""
    published: list[float] = []

    class Noting(MqttSink):
        """When a message arrives depends on the machine too; when it was handed over does not."""

        @property
        def _published_state(self) -> float:
            return published[-1]

        @_published_state.setter
        def _published_state(self, at: float) -> None:
            published.append(at)

    listener = Listener(broker.port)
    sink = Noting(parse(f"mqtt://127.0.0.1:{broker.port}/cam?discovery=no&interval=0.5"))
    sink.begin(FACTS, [])
    until(lambda: listener.of("cam/status"))
    frame = 0
    while frame < 120 or len(listener.of("cam/state")) < 5:
        sink.write(result(frame, events=(event(frame=frame),)))
        frame += 1
        time.sleep(0.02)
    until(lambda: listener.of("cam/state")[-1]["frame"] == frame - 1)
    sink.write(result(frame))
    sink.close()
    until(lambda: listener.of("cam/state")[-1]["frame"] == frame)
    listener.close()
    # The first stands for none at all, and the last one does not wait.
    gaps = [after - before for before, after in zip(published[1:], published[2:-1])]
    assert len(gaps) >= 3 and min(gaps) >= 0.5, gaps
    assert len(listener.of("cam/state")) == len(published) - 1
    assert [one["frame"] for one in listener.of("cam/event")] == list(range(frame))


@pytest.mark.slow
def test_without_a_broker_little_is_kept_and_the_rest_counted(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    began = time.monotonic()
    sink = MqttSink(parse(f"mqtt://127.0.0.1:{port}/cam"))
    for frame in range(5000):
        sink.write(result(frame, events=(event(frame=frame),)))
    assert time.monotonic() - began < 5 and sink.lost == 4000
    until(lambda: "cannot be reached" in caplog.text)
    sink.close()
    assert sink.lost == 5000
    assert len([one for one in caplog.records if "cannot be reached" in one.message]) == 1


def test_the_end_of_a_run_does_not_wait_for_a_broker_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's thread sleeps between its attempts, or waits for a connection, for seconds."""
    go, stopped = threading.Event(), threading.Event()
    monkeypatch.setattr(paho.Client, "loop_stop", lambda _client: (go.wait(20), stopped.set()))
    sink = MqttSink(parse(f"mqtt://127.0.0.1:{free_port()}/cam"))
    sink.close()
    assert not stopped.is_set()
    go.set()
    assert stopped.wait(20)


def test_a_broker_that_never_answers_is_said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("edge_mnv2.outputs.mqtt_client.ANSWER_S", 0.0)
    # The system takes the connection, and nobody reads what comes.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = parse(f"mqtt://127.0.0.1:{silent.getsockname()[1]}/t")
        sink = MqttSink(address, Live())
        try:
            until(lambda: f"{address}: it does not answer; events wait for it" in caplog.text)
        finally:
            sink.close()
    assert caplog.text.count("does not answer") == 1


@pytest.mark.slow
def test_a_broker_that_comes_later_gets_what_waited(tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    sink = MqttSink(parse(f"mqtt://127.0.0.1:{broker.port}/cam?discovery=no"))
    for frame in range(20):
        sink.write(result(frame, events=(event(frame=frame),)))
    # What is delivered to nobody is no fault of the sender: it is held until somebody listens.
    with sink._wake:
        broker.start()
        listener = Listener(broker.port)
    until(lambda: any(one["frame"] == 19 for one in listener.of("cam/event")))
    until(lambda: listener.of("cam/state"))
    sink.close()
    listener.close()
    broker.kill()
    assert [one["frame"] for one in listener.of("cam/event")] == list(range(20)) and sink.lost == 0


@pytest.mark.slow
def test_the_last_will_of_a_run_that_is_killed(broker: Broker, tmp_path: Path) -> None:
    model = tmp_path / "colours.tflite"
    model.write_bytes(colour_model())
    listener = Listener(broker.port)
    url = f"mqtt://127.0.0.1:{broker.port}/cam"
    run = Command("run", "--model", model, "--source", "test", "--mqtt", url)
    until(lambda: listener.of("cam/state"))
    assert listener.of("cam/state")[-1]["source"].startswith("test")
    run.kill()
    run.wait()
    until(lambda: listener.of("cam/status") == ["online", "offline"])
    listener.close()


@pytest.mark.slow
def test_a_run_says_goodbye_and_ends_in_time(broker: Broker, tmp_path: Path) -> None:
    model = tmp_path / "colours.tflite"
    model.write_bytes(colour_model())
    listener = Listener(broker.port)
    url = f"mqtt://127.0.0.1:{broker.port}/cam"
    run = Command("run", "--model", model, "--source", "test", "--mqtt", url, "--appear", "0.1")
    until(lambda: listener.of("cam/event"))
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
    readable(tmp_path)
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
        # A name server that does not answer is waited for.
        until(lambda: said in caplog.text, 60)
        sink.close()

    place = f"localhost:{broker.port}/cam"
    attempt(f"mqtts://board:p%40ss%2Fword%3A1@{place}?ca={tmp_path}/ca.pem", "connected")
    attempt(f"mqtts://board:wrong@{place}?ca={tmp_path}/ca.pem", "it refuses the user name or password")
    assert "wrong" not in caplog.text
    attempt(f"mqtts://board:p%40ss%2Fword%3A1@{place}", "cannot be reached")
    attempt(f"mqtts://board:p@ss/word:1@{place}?ca={tmp_path}/ca.pem", "connected")
    for version in (5, 3):
        asked = f"{place}?version={version}"
        attempt(f"mqtts://board:wrong@{asked}&ca={tmp_path}/ca.pem", "it refuses the user name or password")
        attempt(f"mqtts://{asked}", "name the file with its authority")
        attempt(
            f"mqtts://{asked.replace('localhost', '127.0.0.2')}&ca={tmp_path}/ca.pem",
            "it refuses connections to that port",
        )
        attempt(f"mqtt://{asked}", "a TLS port is written mqtts://")
        attempt(f"mqtts://no.such.host.invalid/cam?version={version}", "name cannot be resolved")
    broker.kill()
    other = ca.issue_cert("elsewhere.example")
    other.private_key_pem.write_to_path(tmp_path / "key.pem")
    (tmp_path / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in other.cert_chain_pems))
    broker.start()
    attempt(f"mqtts://{place}?ca={tmp_path}/ca.pem", "use the name that the certificate is for")
    broker.kill()
    plain = Broker(tmp_path)
    plain.start()
    attempt(f"mqtts://127.0.0.1:{plain.port}/cam?ca={tmp_path}/ca.pem", "does that port speak TLS")
    plain.kill()


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


@pytest.mark.slow
@pytest.mark.parametrize("version", [5, 3])
def test_two_clones_stay_connected_and_each_warns_once(
    broker: Broker, version: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Two boards with copies of one card: the same host name and topic, another serial number."""
    listener = Listener(broker.port)
    address = parse(f"mqtt://127.0.0.1:{broker.port}/cam?interval=0.1&version={version}")
    clones = [MqttSink(address, identity=serial) for serial in ("one", "two")]
    for clone in clones:
        clone.begin(FACTS, ["tabby"])
    # What comes before a board listens does not tell it anything.
    frame, ends = 0, time.monotonic() + 60
    while frame < 40 or caplog.text.count("another board publishes there too") < 2:
        assert time.monotonic() < ends
        for clone in clones:
            clone.write(result(frame))
        frame += 1
        time.sleep(0.05)
    assert caplog.text.count("another board publishes there too") == 2
    assert "connection is lost" not in caplog.text and "taken" not in caplog.text
    # One goes: the other is still there, and says so.
    clones[0].close()
    until(lambda: listener.of("cam/status")[-2:] == ["offline", "online"])
    clones[1].close()
    until(lambda: listener.of("cam/status")[-1] == "offline")
    listener.close()
    assert len({one["client"] for one in listener.of("cam/state")}) == 2


@pytest.mark.slow
@pytest.mark.parametrize("version", [5, 3])
def test_two_programs_on_one_board(broker: Broker, version: int, caplog: pytest.LogCaptureFixture) -> None:
    """Each has a name of its own from the start: neither throws the other out, and no event of either is lost.

    Under one name, a broker of MQTT 3.1.1 loses one of two messages that have the same number.
    """
    listener = Listener(broker.port, "cam/event")
    address = parse(f"mqtt://127.0.0.1:{broker.port}/cam?discovery=no&version={version}")
    programs = [MqttSink(address, identity=SAME) for _ in range(3)]
    for frame in range(60):
        for program in programs:
            program.write(result(frame, events=(event(frame=frame),)))
        time.sleep(0.02)
    until(lambda: len(listener.of("cam/event")) == 3 * 60)
    names = [program._client_id for program in programs]
    assert len({one["id"] for one in listener.of("cam/event")}) == 3 * 60
    assert "lost" not in caplog.text and "taken" not in caplog.text
    for program in programs:
        program.close()
    assert names == [names[0], f"{names[0]}-2", f"{names[0]}-3"]
    # The name is free again, so that the broker keeps no session for each run.
    again = MqttSink(address, identity=SAME)
    assert again._client_id == names[0]
    again.close()
    listener.close()


@pytest.mark.slow
@pytest.mark.parametrize("version", [5, 3])
def test_a_name_that_is_taken_over(broker: Broker, version: int, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever uses our name, from wherever: we say so and go on under another, and no event is lost."""
    listener = Listener(broker.port, "cam/event")
    address = parse(f"mqtt://127.0.0.1:{broker.port}/cam?discovery=no&version={version}")
    sink = MqttSink(address, identity=SAME)
    name = sink._client_id
    until(lambda: sink._connected)
    other = make_client(address, name)
    other.reconnect_delay_set(1, 1)
    other.connect("127.0.0.1", broker.port, **connect_options(version))
    other.loop_start()
    sent = 0

    def send() -> None:
        nonlocal sent
        sent += 1
        sink.write(result(sent, events=(event(frame=sent),)))
        time.sleep(0.1)

    deadline = time.monotonic() + 60
    while "taken the connection over" not in caplog.text:
        assert time.monotonic() < deadline
        send()
    until(lambda: sink._connected)
    caplog.clear()
    for _ in range(20):
        send()
    until(lambda: len({one["id"] for one in listener.of("cam/event")}) == sent)
    said = [record.getMessage() for record in caplog.records if record.name == "edge_mnv2.outputs.mqtt"]
    assert not any(word in line for line in said for word in ("lost", "taken")) and sink._client_id != name
    other.disconnect()
    other.loop_stop()
    sink.close()
    listener.close()


def test_the_identity_is_the_board_s_and_not_the_card_s(tmp_path: Path) -> None:
    def board(name: str, serial: str, mac: str) -> Sysroot:
        root = tmp_path / name
        for path, text in {
            "proc/device-tree/serial-number": serial,
            "sys/class/net/eth0/address": mac,
            "sys/class/net/docker0/address": "02:42:00:00:00:01",
            "sys/class/net/eth0/device/uevent": "x",
            "etc/machine-id": "0123456789abcdef",
            "etc/hostname": "board",
        }.items():
            if text:
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).write_text(text)
        return Sysroot(root)

    serials = [board_identity(board(f"s{serial}", serial, "")) for serial in ("1000a", "1000b")]
    cards = [board_identity(board(f"m{mac[-1]}", "", mac)) for mac in ("b8:27:eb:00:00:01", "b8:27:eb:00:00:02")]
    assert len({*serials, *cards}) == 4
    assert board_identity(board("again", "1000a", "b8:27:eb:00:00:09")) == serials[0]
    assert board_identity() == board_identity()


# Home Assistant

HA_KEYS = {
    "all": {"name", "unique_id", "availability_topic", "device", "origin", "icon", "entity_category", "value_template"},
    "sensor": {"state_topic", "unit_of_measurement", "state_class", "device_class"},
    "binary_sensor": {"state_topic", "device_class"},
    "event": {"state_topic", "event_types"},
    "image": {"image_topic", "content_type"},
    "number": {"state_topic", "command_topic", "min", "max", "step", "mode"},
    "switch": {"state_topic", "command_topic", "payload_on", "payload_off", "state_on", "state_off"},
}
"""The documented variables of each platform (home-assistant.io/integrations/PLATFORM.mqtt) that are used here.

Home Assistant's own schemas (DISCOVERY_SCHEMA of homeassistant/components/mqtt/PLATFORM.py, 2024.3.3 and 2026.2.3) take
them: `test_home_assistant_s_own_schemas_take_every_configuration`.
"""
HA_REQUIRED = {
    "sensor": {"state_topic"},
    "binary_sensor": {"state_topic"},
    "event": {"state_topic", "event_types"},
    "image": {"image_topic"},
    "number": {"command_topic"},
    "switch": {"command_topic"},
}
HA_DEVICE_KEYS = {"identifiers", "name", "manufacturer", "model", "sw_version", "configuration_url"}


class HomeAssistant:
    """What it would show, from the retained messages alone."""

    def __init__(self, listener: Listener) -> None:
        self._retained: dict[str, Any] = {}
        for topic, payload, _ in list(listener.messages):
            self._retained[topic] = payload
        self.configs = {
            topic: config
            for topic, config in self._retained.items()
            if topic.startswith("homeassistant/") and config not in ("", b"")
        }

    def entity(self, component: str, name: str) -> dict[str, Any]:
        return next(
            config
            for topic, config in self.configs.items()
            if topic.split("/")[1] == component and config["name"] == name
        )

    def state(self, component: str, name: str) -> Any:
        config = self.entity(component, name)
        if self._retained[config["availability_topic"]] == "offline":
            return "unavailable"
        if component == "image":
            return self._retained[config["image_topic"]]
        jinja = jinja2.Environment(undefined=jinja2.StrictUndefined)
        return jinja.from_string(config["value_template"]).render(value_json=self._retained[config["state_topic"]])


@pytest.mark.slow
def test_home_assistant_whole(broker: Broker) -> None:
    live, labels = Live(), ["cup", 'the "big" one', "unknown", "}} {% x"]
    live.page = "http://192.168.1.7:8080/"
    unknown = MovedThreshold(OpenSet(2, 10.0, 0.3, ((0.9, 0.4), (0.95, 0.3), (0.99, 0.1))))
    controls = Controls(threshold=0.2, unknown=unknown)
    live.loop = SimpleNamespace(controls=controls)  # type: ignore[assignment]
    listener = Listener(broker.port)
    sink = MqttSink(parse(f"mqtt://127.0.0.1:{broker.port}/lab/cam?interval=0"), live)
    sink.begin(FACTS, labels)
    for label in labels:
        seen = event("appeared", label)
        sink.write(result(1, label, events=(seen,), present=(label,)))
        until(lambda label=label: any(one["present"] == [label] for one in listener.of("lab/cam/state")))
        home = HomeAssistant(listener)
        assert home.state("sensor", "Class") == ("class unknown" if label == "unknown" else label)
        for other in labels:
            assert home.state("binary_sensor", other) == ("ON" if other == label else "OFF"), other
    until(lambda: listener.of("lab/cam/picture") and listener.of("lab/cam/controls"))
    home = HomeAssistant(listener)
    picture = cv2.imdecode(np.frombuffer(home.state("image", "Last event"), np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None and picture.shape == (48, 64, 3)
    for topic, config in home.configs.items():
        component = topic.split("/")[1]
        assert set(config) <= HA_KEYS["all"] | HA_KEYS[component] and HA_REQUIRED[component] <= set(config), topic
        assert set(config["device"]) <= HA_DEVICE_KEYS and config["origin"]["name"]
        assert config["device"]["configuration_url"] == "http://192.168.1.7:8080/"
        assert re.fullmatch(r"homeassistant/[a-z_]+/[A-Za-z0-9_-]+/[A-Za-z0-9_-]+/config", topic)
    assert (home.state("number", "Threshold"), home.state("switch", "Paused")) == ("0.2", "false")
    assert home.state("number", "Stay known") == "0.95"
    # What is set there happens here, and is told back; nonsense is not obeyed.
    for name, value in (("threshold", "0.5"), ("paused", "true"), ("smooth", "7"), ("threshold", "x"), ("other", "1")):
        listener._client.publish(f"lab/cam/set/{name}", value, qos=1)
    until(lambda: HomeAssistant(listener).state("number", "Threshold") == "0.5")
    until(lambda: HomeAssistant(listener).state("switch", "Paused") == "true")
    assert (controls.smooth, unknown.known) == (0, 0.95)
    for value in ("2", "0.99"):
        listener._client.publish("lab/cam/set/known", value, qos=1)
    until(lambda: HomeAssistant(listener).state("number", "Stay known") == "0.99")
    sink.announce([event("gone", labels[-1])])
    until(lambda: HomeAssistant(listener).state("binary_sensor", labels[-1]) == "OFF")
    sink.close()
    until(lambda: HomeAssistant(listener).state("sensor", "Class") == "unavailable")
    # Another model: entities of classes that are gone are removed, the others stay.
    again = MqttSink(parse(f"mqtt://127.0.0.1:{broker.port}/lab/cam?interval=0"))
    again.begin(FACTS, ["cup", "plate"])
    others = {config["name"] for config in home.configs.values()} - {*labels, "Stay known"}
    assert len(others) == 8 + 4
    until(lambda: {one["name"] for one in HomeAssistant(listener).configs.values()} == {*others, "cup", "plate"})
    again.close()
    listener.close()


@pytest.mark.slow
def test_classes_of_a_former_run_go_though_this_one_begins_late(broker: Broker) -> None:
    """What Home Assistant was told before comes as soon as there is a connection; a camera may take longer to open."""
    listener = Listener(broker.port, "homeassistant/#")

    def classes() -> set[str]:
        configs = HomeAssistant(listener).configs
        return {config["name"] for topic, config in configs.items() if "/class_" in topic}

    for labels in ({"cup", "plate"}, {"cup", "spoon"}):
        sink = MqttSink(parse(f"mqtt://127.0.0.1:{broker.port}/cam"))
        until(lambda sink=sink: sink._connected and len(sink._configured) == len(HomeAssistant(listener).configs))
        sink.begin(FACTS, sorted(labels))
        until(lambda labels=labels: classes() == labels)
        sink.close()
    listener.close()


@pytest.mark.parametrize(("words", "pixels"), [("", True), ("?picture=no", False)])
def test_pictures_are_held_only_for_a_broker_that_gets_them(words: str, pixels: bool) -> None:
    output = Isolated(MqttSink(parse(f"mqtt://127.0.0.1:{free_port()}/cam{words}")))
    try:
        assert output.wants_pixels is pixels and not output.wants_pictures
    finally:
        output.close()


def test_a_model_with_a_thousand_classes_has_no_entity_for_each() -> None:
    address = parse("mqtt://broker/cam?picture=no&controls=no")
    assert len(discovery(address, "board", "mobilenet_v2", [str(number) for number in range(1001)])) == 8


def test_home_assistant_knows_every_class_by_its_own_name() -> None:
    """Its templates read JSON's escapes of signs beyond the first 65,536 as two signs."""
    import jinja2

    labels = ["Katze 😺", "cup", 'a "b"', "a\\b", "日本"]
    entities = discovery(parse("mqtt://broker/cam"), "board", "taught", labels)
    templates = {config["name"]: config["value_template"] for topic, config in entities if "/class_" in topic}
    assert sorted(templates) == sorted(labels)
    for name, template in templates.items():
        for present in labels:
            state = jinja2.Template(template).render(value_json={"present": [present]})
            assert state == ("ON" if present == name else "OFF")


_HOME_ASSISTANT = os.environ.get("EDGE_MNV2_HOME_ASSISTANT")
_ITS_SCHEMAS = """
import asyncio, importlib, json, sys
import homeassistant.const
from homeassistant.core import HomeAssistant

async def check():
    home = HomeAssistant(".")  # newer ones look at templates in its loop alone
    for topic, config in json.load(sys.stdin):
        platform = importlib.import_module(f"homeassistant.components.mqtt.{topic.split('/')[1]}")
        left_out = set(config) - set(map(str, platform.DISCOVERY_SCHEMA(config)))
        assert not left_out, (topic, left_out)
        for wrong in ({**config, "unique_id": None}, {**config, "availability_topic": "a/#/b"}):
            try:
                platform.DISCOVERY_SCHEMA(wrong)
            except Exception as error:
                assert type(error).__name__ in ("MultipleInvalid", "Invalid"), error
            else:
                raise AssertionError("nothing is checked")

asyncio.run(check())
print(homeassistant.const.__version__)
"""


@pytest.mark.skipif(_HOME_ASSISTANT is None, reason="EDGE_MNV2_HOME_ASSISTANT names no Python with homeassistant in it")
@pytest.mark.slow
def test_home_assistant_s_own_schemas_take_every_configuration() -> None:
    """`EDGE_MNV2_HOME_ASSISTANT=VENV/bin/python`, after `pip install homeassistant "paho-mqtt<2"` in there."""
    labels = ["cup", 'the "big" one', "unknown", "}} {% x", "ß" * 300]
    entities = discovery(parse("mqtt://h/lab/cam"), "board", "mobilenet_v2", labels, "http://192.168.1.7:8080/")
    done = subprocess.run(
        [str(_HOME_ASSISTANT), "-c", _ITS_SCHEMAS],
        input=json.dumps(entities),
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    print("Home Assistant", done.stdout)
