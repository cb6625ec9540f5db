"""Log lines: whole or not at all, on good, full and vanished files."""

from __future__ import annotations

import csv
import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from edge_mnv2.camera.frame import Frame
from edge_mnv2.errors import UsageError
from edge_mnv2.outputs.log_file import Every, LogFile
from edge_mnv2.outputs.records import CSV_COLUMNS, timestamp
from edge_mnv2.outputs.sink import Isolated
from edge_mnv2.pipeline.result import Result
from edge_mnv2.runtime.classifier import Prediction
from tests.processes import until


def result(index: int = 0, label: str = "tabby, tabby cat", finished_at: int = 0) -> Result:
    return Result(
        frame=Frame(np.zeros((2, 2, 3), np.uint8), "rgb", 0, index),
        top=(Prediction(label, 281, 0.83), Prediction("lynx", 287, 0.1)),
        finished_at=finished_at,
        wall_time=1795600800.1234,
        uptime_s=1.5,
        latency_ns=5_000_000,
        inference_ns=3_700_000,
        fps=29.97,
        dropped=3,
        engine="cpu",
    )


def test_json_lines_have_the_promised_fields(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = LogFile(str(path))
    log.write(result(7))
    log.close()
    line = json.loads(path.read_text())
    promised = "t,uptime_s,frame,top,latency_ms,inference_ms,fps,dropped,temp_c,throttled,engine"
    assert ",".join(line) == promised
    assert line["t"].endswith("Z") and line["frame"] == 7 and line["temp_c"] is None and line["throttled"] is None
    assert line["top"][0] == {"label": "tabby, tabby cat", "index": 281, "score": 0.83}


def test_csv_quotes_labels_and_writes_its_header_once(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    for index in range(2):
        log = LogFile(str(path))
        log.write(result(index, 'a "quoted", name\nin two lines'))
        log.close()
    rows = list(csv.reader(path.open(newline="")))
    assert rows[0] == list(CSV_COLUMNS) and len(rows) == 3
    assert rows[1][3] == 'a "quoted", name\nin two lines' and rows[2][2] == "1"


def test_timestamps_carry_over() -> None:
    assert timestamp(0.9996) == "1970-01-01T00:00:01.000Z"


@pytest.mark.parametrize(("text", "kept"), [(None, 10), ("1", 10), ("4", 3), ("0.25s", 4)])
def test_log_every(text: str, kept: int) -> None:
    every = Every.parse(text)
    assert sum(every(result(n, finished_at=n * 100_000_000)) for n in range(10)) == kept


@pytest.mark.parametrize("text", ["0", "-1", "s", "nan", "nans", "x", "0s", "1.5", ""])
def test_log_every_refuses_what_it_cannot_mean(text: str) -> None:
    with pytest.raises(UsageError, match="--log-every"):
        Every.parse(text)


@pytest.mark.parametrize("where", ["missing/log.jsonl", "."])
def test_a_path_that_cannot_be_opened_is_a_usage_error(tmp_path: Path, where: str) -> None:
    with pytest.raises(UsageError, match="--log"):
        LogFile(str(tmp_path / where))


def test_a_torn_last_line_is_closed_first(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"t": "2026-')
    log = LogFile(str(path))
    log.write(result())
    log.close()
    lines = path.read_text().splitlines()
    assert len(lines) == 2 and json.loads(lines[1])["frame"] == 0


def test_a_full_device_is_said_once_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    sink = Isolated(LogFile("/dev/full"))
    for index in range(20):
        sink.write(result(index))
    sink.close()
    assert sink.errors == 20
    assert len([record for record in caplog.records if "cannot be written" in record.message]) == 1


@pytest.mark.slow
def test_writing_resumes_when_it_can(caplog: pytest.LogCaptureFixture) -> None:
    class Flaky:
        name = "flaky"
        broken = True

        def __init__(self) -> None:
            self.written: list[int] = []

        def write(self, one: Result) -> None:
            if self.broken:
                raise OSError(28, "No space left on device")
            self.written.append(one.frame.index)

        def close(self) -> None:
            pass

    flaky = Flaky()
    sink = Isolated(flaky)
    sink.write(result(0))
    until(lambda: sink.errors == 1)
    time.sleep(1.1)
    flaky.broken = False
    sink.write(result(1))
    sink.close()
    assert flaky.written == [1] and sink.errors == 1


@pytest.mark.slow
def test_a_stuck_sink_does_not_hold_the_loop() -> None:
    go = threading.Event()

    class Stuck:
        name = "stuck"

        def write(self, one: Result) -> None:
            go.wait(60)

        def close(self) -> None:
            pass

    sink = Isolated(Stuck())
    began = time.monotonic()
    for index in range(6000):
        sink.write(result(index))
    assert time.monotonic() - began < 5
    sink.close()
    assert time.monotonic() - began < 10
    assert sink.errors >= 1900
    go.set()
    sink._thread.join(20)
    assert not sink._thread.is_alive()


def test_log_every_keeps_its_distance_from_the_first_on_and_after_a_pause() -> None:
    every = Every.parse("5s")
    tenths = [*range(20), *range(300, 600)]
    logged = [tenth / 10 for tenth in tenths if every(result(tenth, finished_at=10**12 + tenth * 100_000_000))]
    assert logged == [0, 30, 35, 40, 45, 50, 55]
