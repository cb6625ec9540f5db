"""TLS as it goes wrong: a clock in 1970, a certificate of a CA of one's own."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path
from typing import Any, Optional

import pytest

from edge_mnv2.errors import DownloadError
from edge_mnv2.zoo import pull
from edge_mnv2.zoo.web import Limits
from tests.zoo.conftest import url_entry
from tests.zoo.server import serving, whole

trustme = pytest.importorskip("trustme", reason="trustme, which makes certificates, is not installed")


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR", "EDGE_MNV2_CA"):
        monkeypatch.delenv(name, raising=False)


def _pull(
    body: bytes, tmp_path: Path, limits: Limits, *, host: str = "127.0.0.1", **issued: Any
) -> tuple[Optional[bytes], str]:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host, **issued).configure_cert(context)
    with serving(context) as server:
        server.answer = whole(body)
        url = server.url.replace("http:", "https:")
        try:
            return pull.pull(url_entry(f"{url}/parts.tflite", body=body), limits=limits).path.read_bytes(), ""
        except DownloadError as error:
            return None, str(error)


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "EDGE_MNV2_CA"])
def test_a_ca_of_ones_own_is_trusted(
    variable: str, body: bytes, tmp_path: Path, limits: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, str(tmp_path / "ca.pem"))
    assert _pull(body, tmp_path, limits) == (body, "")


def test_a_stranger_is_not_trusted(body: bytes, tmp_path: Path, limits: Limits) -> None:
    got, text = _pull(body, tmp_path, limits)
    assert got is None
    assert "TLS: " in text and "certificate" in text
    assert "REQUESTS_CA_BUNDLE" in text
    assert f"this device's clock says {datetime.date.today():%Y}" in text


def test_an_expired_certificate_hints_at_the_clock(
    body: bytes, tmp_path: Path, limits: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    past = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=30)
    _, text = _pull(body, tmp_path, limits, not_before=past - datetime.timedelta(days=30), not_after=past)
    assert "expired" in text
    assert "clock says" in text


def test_a_clock_that_is_behind_is_told_to_be_set(
    body: bytes, tmp_path: Path, limits: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    future = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=30)
    _, text = _pull(body, tmp_path, limits, not_before=future, not_after=future + datetime.timedelta(days=30))
    assert "not yet valid" in text
    assert "timedatectl" in text


def test_another_hosts_certificate(
    body: bytes, tmp_path: Path, limits: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    _, text = _pull(body, tmp_path, limits, host="models.example")
    assert "TLS: " in text
    assert "127.0.0.1" in text


def test_a_bundle_that_is_not_there(
    body: bytes, tmp_path: Path, limits: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/bundle.pem")
    _, text = _pull(body, tmp_path, limits)
    assert "/no/such/bundle.pem" in text


def test_a_redirect_from_https_to_http_is_refused(
    body: bytes, tmp_path: Path, limits: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with serving(context) as secure, serving() as plain:
        plain.answer = whole(body)
        secure.answer = lambda handler, turn: handler.reply(b"", 302, Location=f"{plain.url}/parts.tflite")
        url = secure.url.replace("http:", "https:")
        with pytest.raises(DownloadError, match="redirects from https to http") as caught:
            pull.pull(url_entry(f"{url}/parts.tflite", body=body), limits=limits)
        assert "/parts.tflite" in str(caught.value)
        # The other way round nothing is lost.
        secure.answer, plain.answer = (
            whole(body),
            lambda handler, turn: handler.reply(b"", 302, Location=f"{url}/parts.tflite"),
        )
        assert pull.pull(url_entry(f"{plain.url}/parts.tflite", body=body), limits=limits).path.read_bytes() == body
