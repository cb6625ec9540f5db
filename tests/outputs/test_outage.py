"""What is said about something that cannot be written: once an outage, however often it comes and goes."""

from __future__ import annotations

import logging

import pytest

from edge_mnv2.outputs import sink


def test_what_comes_and_goes_is_one_outage(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(sink.time, "monotonic", lambda: now[0])
    outage = sink._Outage("log")
    with caplog.at_level(logging.WARNING):
        for _ in range(100):
            outage.fails("disk full")
            now[0] += 1
            outage.works(1)
            now[0] += 1
        assert [record.message.split(" (")[0].split(";")[0] for record in caplog.records] == [
            "log cannot be written",
            "log: writing works again",
        ]
        now[0] += sink.STEADY_S
        outage.works(100)
        outage.works(100)
        assert len(caplog.records) == 3 and "100 results were lost" in caplog.records[-1].message
        now[0] += sink.STEADY_S
        outage.fails("disk\nfull")
        assert len(caplog.records) == 4 and "\n" not in caplog.records[-1].message
