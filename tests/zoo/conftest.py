"""A team's model on a faulty server, and limits that make a test quick."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator

import pytest

from edge_mnv2.zoo.entry import Entry, UrlSource
from edge_mnv2.zoo.web import Limits
from tests.zoo.server import FaultyServer, serving


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with serving() as running:
        yield running


@pytest.fixture
def body() -> bytes:
    """Binary data of a model's looks."""
    return b"\x1c\0\0\0TFL3" + bytes(random.Random(5).choices(range(256), k=200_000))


@pytest.fixture
def entry(server: FaultyServer, body: bytes) -> Entry:
    return url_entry(f"{server.url}/parts.tflite", body=body)


@pytest.fixture
def limits() -> Limits:
    """Patient with a server that is only late; where silence is the fault, a test takes `HASTY_S`."""
    return Limits(
        connect_s=10.0, read_s=10.0, window_s=0.5, min_rate=300.0, attempts=4, backoff_s=0.01, retry_after_s=2.0
    )


HASTY_S = 0.4


def url_entry(*urls: str, body: bytes = b"") -> Entry:
    return Entry(
        name="parts",
        summary="",
        kind="model",
        file="parts.tflite",
        sha256=hashlib.sha256(body).hexdigest(),
        bytes=len(body),
        licence="none",
        origin="a test",
        task="classification",
        sources=tuple(UrlSource(url) for url in urls),
    )
