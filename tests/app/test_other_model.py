"""Another model for a run whose outputs name classes: refused in one sentence, taken when told to, everybody told."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from edge_mnv2.errors import UsageError
from edge_mnv2.outputs.sink import Isolated
from tests.outputs.test_mqtt import Broker, Listener, until
from tests.outputs.web.conftest import Served, serving
from tests.outputs.web.test_workbench import ask
from tests.stubs import stub_at

OURS = "mobilenet_v2_1.0_224_int8"


def switch(run: Served, model: str, force: bool = False) -> tuple[int, dict[str, object]]:
    return ask(run, "/api/model", {"model": model, "force": force}, token=None)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--gpio", "17=red,27"), "--gpio: class 'red' is not a class of the model"),
        (("--deny", "blue"), "--deny: class 'blue' is not a class of the model"),
    ],
)
def test_a_model_without_a_class_that_an_option_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], sentence: str
) -> None:
    monkeypatch.setenv("GPIOZERO_PIN_FACTORY", "mock")
    # What the command line says of the first model is said again when it comes back.
    stub, labels = stub_at(tmp_path, "[a, b, c]"), tmp_path / "labels.txt"
    labels.write_text("red\ngreen\nblue\n")
    with serving(stub, "--source", "test:320x240@30", "--web", 0, "--labels", labels, *options) as run:
        assert switch(run, OURS) == (200, {"taken": False, "why": sentence})
        assert ask(run, "/api/state", token=None)[1]["model"] == stub.name
        assert switch(run, OURS, force=True) == (200, {"taken": True, "model": OURS})
        # Back to the one that has it.
        assert switch(run, "original") == (200, {"taken": True, "model": stub.name})
        out, said = run.stop()
    summary = json.loads(out)
    assert summary["swaps"] == 2 and summary["write_errors"] == 0
    assert f"asked in vain for the model '{OURS}'" in said
    assert said.count(sentence) == (1 if "--gpio" in options else 0), said


@pytest.mark.slow
def test_only_what_an_allow_list_has_left_is_reported(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    options = ("--allow", "red", "--appear", "0.01", "--log", log)
    with serving(stub_at(tmp_path), "--source", "test:320x240@30", "--web", 0, *options) as run:
        until(lambda: '"red"' in log.read_text())
        assert switch(run, OURS)[1] == {"taken": False, "why": "--allow: class 'red' is not a class of the model"}
        assert switch(run, OURS, force=True)[1]["taken"]
        until(lambda: '"top": []' in log.read_text())
        run.stop()
    assert set(re.findall(r'"label": "(\w+)"', log.read_text())) == {"red"}


@pytest.mark.slow
def test_home_assistant_loses_the_classes_that_went_and_gets_those_that_came(tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    broker.start()
    listener = Listener(broker.port)

    def classes(who: Listener) -> dict[str, str]:
        """Name of a class's entity → its topic, as Home Assistant has them now."""
        newest = {name: config for name, config, _ in who.messages if "/binary_sensor/" in name and "class_" in name}
        return {config["name"]: topic for topic, config in newest.items() if config}

    mqtt = ("--mqtt", f"mqtt://127.0.0.1:{broker.port}/lab/cam")
    try:
        with serving(stub_at(tmp_path), "--source", "test:320x240@30", "--web", 0, *mqtt) as run:
            until(lambda: sorted(classes(listener)) == ["blue", "green", "red"])
            assert switch(run, OURS)[1]["taken"]
            until(lambda: classes(listener) == {})
            # What is retained for whoever comes later says the same.
            # The classes go first; the label's configuration may still be on its way.
            late = Listener(broker.port)
            label = "homeassistant/sensor/lab_cam/label/config"
            until(lambda: [config["device"]["model"] for config in late.of(label)][-1:] == [OURS])
            assert classes(late) == {}
            late.close()
            assert switch(run, "original")[1]["taken"]
            until(lambda: sorted(classes(listener)) == ["blue", "green", "red"])
            assert json.loads(run.stop()[0])["write_errors"] == 0
    finally:
        listener.close()
        broker.kill()


def test_a_sink_that_is_busy_or_failing_is_told_all_the_same() -> None:
    """Between the results of the former model and those of the new one, whatever waits or fails."""
    import threading

    seen: list[object] = []
    go = threading.Event()

    class Slow:
        name = "slow"
        wants_pictures = True

        def begin(self, facts: object, labels: list[str]) -> None:
            seen.append(tuple(labels))
            if "a" not in labels:
                raise UsageError("--slow: class 'a' is not a class of the model")

        def write(self, result: object) -> None:
            go.wait(5)
            seen.append(result)
            if result == 0:
                raise OSError("no room")

        def close(self) -> None:
            pass

    sink = Isolated(Slow(), lossless=False)
    for number in range(20):
        sink.write(number)
    sink.changed(None, ["b"])
    go.set()
    until(lambda: ("b",) in seen)
    sink.close()
    assert seen[0] == 0 and seen[-1] == ("b",)
