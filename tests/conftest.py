"""What every test starts from: an environment of its own, and the reference data where they are."""

from __future__ import annotations

import itertools
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from edge_mnv2.runtime.toolkit import Toolkit

# What is ignored in the background of a script, or under nohup, would be ignored by the commands that tests start too.
for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, _handler)

# Commands by the hundred are started: each would compile the whole package anew where its bytecode is not to be kept.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

_DATA = os.environ.get("EDGE_MNV2_TEST_DATA")
# Tests have a home of their own.
_TOOLKITS = os.environ.get("EDGE_MNV2_TEST_TOOLKITS") or Path("~/.cache/edge-mnv2/toolkits").expanduser()


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of reference models, photos and clips that `EDGE_MNV2_TEST_DATA` names."""
    if not _DATA:
        pytest.skip("EDGE_MNV2_TEST_DATA is not set: the reference models and photos are not at hand")
    folder = Path(_DATA).resolve()
    assert folder.is_dir(), f"EDGE_MNV2_TEST_DATA={_DATA} is not a folder"
    return folder


@pytest.fixture(scope="session")
def _homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Names of new homes in a folder of their own: pytest's `mktemp` reads a folder of thousands for each new name."""
    folder = tmp_path_factory.mktemp("homes")
    return (folder / f"home{number}" for number in itertools.count())


@pytest.fixture(autouse=True)
def isolated(_homes: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, no settings of the developer's, plain terminal output."""
    home = next(_homes)
    home.mkdir(mode=0o700)
    for name in list(os.environ):
        if name.startswith(("EDGE_MNV2_", "XDG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    # No test but those of the contest is to start processes beside a run.
    monkeypatch.setenv("EDGE_MNV2_RACE", "off")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    return home


@pytest.fixture(autouse=True)
def _own_signals() -> Iterator[None]:
    """A command that is called in this process leaves its signals ignored, as at the end of a program."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def makers_own(monkeypatch: pytest.MonkeyPatch) -> Callable[[Toolkit], None]:
    """Use a maker's toolkit where the docs put it, or in the folder that `EDGE_MNV2_TEST_TOOLKITS` names; else skip."""

    def use(maker: Toolkit) -> None:
        from edge_mnv2.errors import AcceleratorError

        monkeypatch.setattr(type(maker), "home", property(lambda self: Path(_TOOLKITS, self.name)))
        try:
            maker.find()
        except AcceleratorError as error:
            pytest.skip(str(error))

    return use


@pytest.fixture
def stub(tmp_path: Path) -> Path:
    """A colour model with its labels beside it."""
    from tests.stubs import stub_at

    return stub_at(tmp_path)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """Call the command line in this process: `run("inspect", path)` gives (exit code, stdout, stderr)."""
    from edge_mnv2.cli import app

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["edge-mnv2", *map(str, arguments)])
        code = 0
        try:
            app.main()
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            # It writes to the stderr of this test, which the next one no longer has.
            for handler in [one for one in logging.root.handlers if type(one) is logging.StreamHandler]:
                logging.root.removeHandler(handler)
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Soaks take minutes: they run where they are asked for (`-m soak`) and not otherwise."""
    if "soak" in config.option.markexpr:
        return
    soaks = [item for item in items if item.get_closest_marker("soak")]
    if soaks:
        config.hook.pytest_deselected(items=soaks)
        items[:] = [item for item in items if item not in soaks]
