"""Addresses with secrets, as people write and mistype them: taken apart, and never shown."""

from __future__ import annotations

import ast
import io
import logging
import os
import random
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pytest

from edge_mnv2 import addresses
from edge_mnv2.addresses import StreamUrl, redact, secrets_of
from edge_mnv2.errors import UsageError

SIGNS = ":/?#[]@!$&'()*+,;=%\"\\<>^`{|} ~-._ü"
HOSTS = ("127.0.0.1:1", "localhost:1", "[::1]:1", "cam.invalid:1", "127.0.0.1:1")


class Case(NamedTuple):
    text: str
    secret: str
    """What must not be seen anywhere, in any of its forms."""


def corpus(count: int = 200) -> list[Case]:
    """Addresses of every scheme with a password that holds each sign, in each place, right and mistyped."""
    chance = random.Random(18)
    cases = []
    for number in range(count):
        sign = SIGNS[number % len(SIGNS)]
        first, last = (f"{chance.choice('QXZJ')}{chance.randrange(1000, 9999)}" for _ in range(2))
        if number % 7 == 3:
            # Digits first, like a port.
            first = str(chance.randrange(1000, 9999))
        secret = f"{first}{sign}{last}x"
        host = HOSTS[chance.randrange(len(HOSTS))]
        scheme = ("rtsp", "http", "https", "rtsps", "mqtt", "mqtts")[number % 6]
        user = chance.choice(("admin", "operator", "me@home.example"))
        in_query = quote(secret, safe="")
        forms = (
            f"{scheme}://{user}:{secret}@{host}/live",
            f"{scheme}://{quote(user)}:{in_query}@{host}/live",
            f"{scheme}://{host}/live?user={user}&password={in_query}",
            f"{scheme}://{host}/user=admin_password={in_query}_channel=1.sdp",
            f"{scheme}://{host}/live#token={in_query}",
            f"{scheme}:/{user}:{secret}@{host}/live",
            f"{scheme}//{user}:{secret}@{host}/live",
            f"{scheme[::-1]}://{user}:{secret}@{host}/live",
            f"{user}:{secret}@{host}/live",
            f"//{user}:{secret}@{host}/live",
            f"{scheme}:{user}:{secret}@{host}",
            f"{scheme}://:{secret}@{host}/live",
        )
        cases.append(Case(forms[number % len(forms)], secret))
    return cases


def leaked(seen: str, case: Case) -> list[str]:
    """The forms of the secret, whole or the halves beside its sign, that `seen` shows."""
    halves = [part for part in case.secret.replace(SIGNS[0], " ").split() if len(part) >= 5]
    forms = {case.secret, quote(case.secret, safe=""), repr(case.secret)[1:-1], case.secret[-6:], *halves}
    return [form for form in forms if len(form) >= 5 and form in seen]


COMMANDS: tuple[tuple[str, ...], ...] = (
    ("run", "--max-frames", "1", "--give-up", "0.1", "--json", "--source", "ADDRESS"),
    ("run", "--max-frames", "1", "--give-up", "0.1", "--camera", "ADDRESS"),
    ("run", "--source", "test", "--max-frames", "1", "--model", "ADDRESS"),
    ("run", "--source", "test", "--max-frames", "1", "--labels", "ADDRESS"),
    ("run", "--source", "test", "--max-frames", "1", "--device", "ADDRESS"),
    ("run", "--source", "test", "--max-frames", "1", "--mqtt", "ADDRESS"),
    ("run", "--source", "test", "--max-frames", "1", "--webhook", "ADDRESS"),
    ("run", "--source", "test", "--max-frames", "1", "--web", "ADDRESS"),
    ("run", "--source", "test", "--max-frames", "1", "--gpio", "ADDRESS"),
    ("run", "--source", "test", "--max-frames", "1", "--record", "ADDRESS"),
    ("run", "--source", "test", "--max-frames", "1", "--sink", "ADDRESS"),
    ("run", "--threads", "ADDRESS"),
    ("run", "--nonsense=ADDRESS"),
    ("run", "ADDRESS"),
    ("classify", "--json", "ADDRESS"),
    ("classify", "ADDRESS"),
    ("inspect", "ADDRESS"),
    ("inspect", "--json", "ADDRESS"),
    ("pull", "ADDRESS"),
    ("pull", "--json", "ADDRESS"),
    ("models", "show", "ADDRESS"),
    ("models", "remove", "ADDRESS"),
    ("evaluate", "ADDRESS"),
    ("teach", "ADDRESS"),
    ("train", "ADDRESS"),
    ("build", "--weights", "ADDRESS"),
    ("build", "--calibration", "ADDRESS"),
    ("compile", "ADDRESS"),
    ("devices", "show", "ADDRESS"),
    ("devices", "check", "ADDRESS"),
    ("profile", "--model", "ADDRESS"),
    ("service", "install", "--dry-run", "--source", "ADDRESS"),
    ("service", "install", "--dry-run", "--source", "test", "--mqtt", "ADDRESS"),
    ("service", "install", "--dry-run", "--source", "test", "--webhook", "ADDRESS"),
    ("ADDRESS",),
)


def _through(command: tuple[str, ...], case: Case, monkeypatch: pytest.MonkeyPatch) -> str:
    """Everything that the command writes to its streams, native libraries' words too."""
    from edge_mnv2.cli import app

    words = ["edge-mnv2", *(word.replace("ADDRESS", case.text) for word in command)]
    addresses._known.clear()
    before = [os.dup(number) for number in (1, 2)]
    with tempfile.TemporaryFile() as native, monkeypatch.context() as patch:
        out, err = io.StringIO(), io.StringIO()
        patch.setattr(sys, "argv", words)
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        for number in (1, 2):
            os.dup2(native.fileno(), number)
        try:
            app.main()
        except SystemExit:
            pass
        finally:
            for number, descriptor in zip((1, 2), before):
                os.dup2(descriptor, number)
                os.close(descriptor)
            for handler in [one for one in logging.root.handlers if type(one) is logging.StreamHandler]:
                logging.root.removeHandler(handler)
        native.seek(0)
        return out.getvalue() + err.getvalue() + native.read().decode(errors="replace")


def _written(folder: Path) -> Iterator[tuple[Path, str]]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield path, path.read_bytes().decode(errors="replace")


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_secret_of_two_hundred_addresses_leaves(
    command: tuple[str, ...],
    isolated: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _check(corpus(), command, isolated, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_secret_leaves(
    command: tuple[str, ...],
    isolated: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A part of the corpus, another one for each command."""
    start = COMMANDS.index(command) % 13
    _check(corpus()[start::13], command, isolated, tmp_path, monkeypatch)


def _check(
    cases: list[Case],
    command: tuple[str, ...],
    isolated: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    wrong = []
    for case in cases:
        seen = _through(command, case, monkeypatch)
        assert "Traceback" not in seen, (case.text, seen)
        if forms := leaked(seen, case):
            wrong.append((case.text, forms, seen[:400]))
        for path, content in (*_written(isolated), *_written(tmp_path)):
            if forms := leaked(f"{path.name}\n{content}", case):
                wrong.append((case.text, forms, str(path)))
    assert wrong == [], f"{len(wrong)} of {len(cases)}"


@pytest.mark.parametrize("case", corpus(), ids=lambda case: ascii(case.text))
def test_what_is_parsed_shows_no_secret(case: Case) -> None:
    addresses._known.clear()
    assert secrets_of(case.text), "it is known as one"
    try:
        url = StreamUrl.parse(case.text)
    except UsageError as error:
        assert not leaked(str(error), case)
        return
    assert not leaked(url.shown, case) and not leaked(url.host, case)
    if url.password is not None:
        assert case.secret in (url.password, quote(url.password, safe="")) or "%" in case.secret
        assert StreamUrl.parse(url.full).password == url.password


def test_messages_without_secrets_stay_as_they_are() -> None:
    addresses._known.clear()
    for text in (
        "web page: http://192.168.1.7:8080/",
        "model.tflite: 1001 outputs, 1000 names: give --labels FILE",
        "31.0 FPS | inference 3.6 ms (p95 4.1) | dropped 0 | 74 % red",
        "write to me@home.example at 12:30",
        "mqtt://broker:1883/lab/cam: connected",
        "'test:9x9@30': sides of a test pattern go from 16 to 8192 pixels",
        "test:WIDTHxHEIGHT@FPS, for instance test:1280x720@30",
        "test:@15",
    ):
        assert redact(text) == text
    assert secrets_of("test:1280x720@30") == []
    for text, secret in (("test:4711@cam.example", "4711"), ("test:pw77@30", "pw77"), ("test:4711@30.lan", "4711")):
        assert secret in secrets_of(text) and secret not in redact(f"no such camera: {text}")


def test_no_text_of_our_own_looks_like_a_secret() -> None:
    """Hints show what an address looks like."""
    addresses._known.clear()
    texts: list[str] = []
    for path in Path(addresses.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text())
        docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        texts += [
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs
        ]
    # Regular expressions and style sheets are for machines.
    texts = [text for text in texts if not re.search(r"[\\{]", text)]
    assert any("USER:PASSWORD@" in text for text in texts) and any("key=value" in text for text in texts)
    assert [(text, redact(text)) for text in texts if redact(text) != text] == []
    for secret in (
        "USER:PASSWORD1@h",
        "mqtt://USER:PASSWORD@x:pw@h",
        "a:USER:PASSWORD@h",
        "key=value1",
        "rtsp://USER:pw@h",
    ):
        assert redact(secret) != secret, secret


@pytest.mark.parametrize("options", [[], ["--resolved"], ["--json"], ["--resolved", "--json"]], ids=" ".join)
def test_no_secret_of_a_profile_is_shown(
    options: list[str], run: Callable[..., tuple[int, str, str]], isolated: Path
) -> None:
    folder = isolated / ".config/edge-mnv2/devices"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("extends: base\ncamera: {source: 'rtsp://me:s3cr3t@cam/1'}\n")
    code, out, err = run("devices", "show", "mine", *options)
    assert code == 0 and "cam/1" in out and "s3cr3t" not in out + err
