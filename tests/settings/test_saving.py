from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from edge_mnv2 import paths
from edge_mnv2.board.detect import Board, detect
from edge_mnv2.errors import ProfileError, UsageError
from edge_mnv2.settings.profile import resolve
from edge_mnv2.settings.report import save_profile
from edge_mnv2.settings.schema import KEYS
from edge_mnv2.settings.store import load
from tests.board import trees

BOARD = Board(model='Board "quoted": \\ ü', serial="0123456789abcdef")


def test_saved_profile_is_chosen_on_its_board(tmp_path: Path) -> None:
    board = detect(trees.pi_4(tmp_path).root)
    path = save_profile(
        "here",
        {"runtime.threads": 3, "runtime.delegate": "none", "camera.width": 640, "camera.height": 480},
        board,
        extends="raspberry-pi-4",
        goal="latency",
        versions={"edge-mnv2": "0.1.0", "runtime": "ai-edge-litert 2.3.0"},
        figures={"p50_ms": 17.25, "fps": 55},
        now=datetime(2026, 11, 25, 10, 0, tzinfo=timezone.utc),
    )
    settings = resolve(root=tmp_path)
    assert (settings.profile, settings.path, settings.runtime.threads) == ("here", path, 3)
    assert settings.reason == "saved on this board on 2026-11-25"
    saved = load("here").saved
    assert saved["goal"] == "latency" and saved["figures"] == {"p50_ms": 17.25, "fps": 55}
    assert saved["versions"]["runtime"] == "ai-edge-litert 2.3.0"
    save_profile("here", {"runtime.threads": 2}, board, extends="raspberry-pi-4")
    assert resolve(root=tmp_path).runtime.threads == 2


EXAMPLES: dict[str, Any] = {
    "camera.source": "/dev/video0", "camera.backend": "opencv", "camera.width": 1280, "camera.height": 720,
    "camera.fps": 29.97, "camera.format": "MJPG", "camera.rotate": 270, "camera.flip": "hv",
    "camera.roi": (0.25, 0.0, 0.5, 1.0), "camera.warmup_frames": 3, "camera.stall_s": 2.5, "camera.frozen_s": 0.0,
    "camera.ca": "site.pem", "camera.rtsp_transport": "udp",
    "preprocess.resize": "stretch", "runtime.backend": "litert", "runtime.delegate": "edgetpu:usb:1",
    "runtime.threads": 256, "runtime.workers": 2, "runtime.model": "on", "output.top_k": 1, "output.threshold": 0.125,
    "output.smooth": 0.5, "output.gate": True, "health.max_temp_c": 72.5, "health.min_fps": 5.0,
    "output.gate_change": 6.5,
    "output.gate_refresh_s": 0.5,
    "output.appear": 0.6,
    "output.gone": 0.2,
    "output.consecutive": 5,
    "output.allow": ("tabby, tabby cat", "lynx"),
    "output.deny": ("none of these",),
    "health.on_limit": "slow", "expected.inference_ms": 3.25, "expected.inference_ms_32bit": 4.0,
    "expected.precision": "float32", "expected.delegate": "edgetpu", "expected.source": "010: \"us\" # here",
}  # fmt: skip


def test_every_setting_comes_back_as_it_was() -> None:
    assert set(EXAMPLES) == set(KEYS) - {"camera.controls"}
    controls = {"camera.controls.AfMode": 2, "camera.controls.a b": "off", "camera.controls.Gains": (1.5, 2)}
    save_profile("all", {**EXAMPLES, **controls}, BOARD, extends="base")
    settings = resolve("all")
    assert {key: settings.get(key) for key in EXAMPLES} == EXAMPLES
    assert settings.camera.controls == {"AfMode": 2, "a b": "off", "Gains": (1.5, 2)}
    assert load("all").board["model"] == BOARD.model


def test_defaults_can_be_saved_too() -> None:
    defaults = {key: known.default for key, known in KEYS.items() if key != "camera.controls"}
    save_profile("plain", defaults, BOARD, extends="raspberry-pi-4")
    settings = resolve("plain")
    assert {key: settings.get(key) for key in defaults} == defaults


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x.yaml", "a b", "raspberry-pi-4", "base", "ü"])
def test_names_that_are_refused(name: str) -> None:
    with pytest.raises(UsageError):
        save_profile(name, {}, BOARD, extends="base")


def test_a_profile_written_by_hand_is_not_replaced() -> None:
    file = paths.config_dir() / "devices/mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("extends: base\n")
    with pytest.raises(UsageError, match="was not written by us"):
        save_profile("mine", {}, BOARD, extends="base")
    assert file.read_text() == "extends: base\n"


def test_what_could_not_be_read_again_is_not_written() -> None:
    for values in ({"runtime.threads": 0}, {"runtime.speed": 1}, {"output.threshold": float("nan")}):
        with pytest.raises(ProfileError):
            save_profile("bad", values, BOARD, extends="base")
    assert not (paths.config_dir() / "devices").exists()


def test_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EDGE_MNV2_CONFIG_DIR", str(tmp_path / "file"))
    with pytest.raises(ProfileError, match="devices"):
        save_profile("here", {}, BOARD, extends="base")
