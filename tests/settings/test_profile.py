"""Which profile is used, what it inherits, and where each value came from."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Optional

import pytest

from edge_mnv2 import paths
from edge_mnv2.board.detect import Board, detect
from edge_mnv2.camera.settings import CameraSettings
from edge_mnv2.cli.devices import show
from edge_mnv2.cli.options import declared_by
from edge_mnv2.errors import ProfileError, UsageError
from edge_mnv2.settings import store
from edge_mnv2.settings.option import Option
from edge_mnv2.settings.profile import environment_overrides, option_overrides, resolve, resolve_profile
from edge_mnv2.settings.profile_file import read_profile
from edge_mnv2.settings.schema import KEYS, OPTIONS, SECTIONS
from edge_mnv2.settings.store import choose, identity, is_same_board, match_rank
from tests.board import trees


def _user(name: str, text: str) -> Path:
    file = paths.config_dir() / "devices" / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


# --- what ships -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(store.packaged_places()))
def test_packaged_profile(name: str) -> None:
    settings = resolve(name)
    assert settings.profile == name
    profile = store.load(name)
    assert profile.description
    assert name == "base" or settings.parents[-1] == "base"
    assert name in ("base", "generic") or profile.match
    expected = settings.expected
    assert (expected.inference_ms is None) == (expected.source is None)
    assert expected.inference_ms_32bit is None or expected.inference_ms is not None


def test_base_profile_names_every_key_with_its_default() -> None:
    text = paths.packaged("devices", "base.yaml").read_text()
    given = store.load("base").values
    for key, known in KEYS.items():
        name = key.partition(".")[2]
        assert f" {name}:" in text, f"base.yaml does not tell of {key}"
        if key in given:
            assert given[key].value == known.default, key


def test_commented_defaults_of_base_are_the_defaults(tmp_path: Path) -> None:
    """Every commented-out line of base.yaml is a valid line, and most show the default."""
    file = tmp_path / "all.yaml"
    lines = paths.packaged("devices", "base.yaml").read_text().split("description:")[1].splitlines()
    file.write_text("description:" + "\n".join(re.sub(r"^(\s*)# ", r"\1", line) for line in lines))
    given = read_profile(file).values
    for key in ("camera.backend", "camera.width", "camera.fps", "camera.flip", "camera.roi", "preprocess.resize",
                "runtime.model", "health.max_temp_c"):  # fmt: skip
        assert given[key].value == KEYS[key].default, key


def test_published_figures() -> None:
    figures = {name: resolve(name).expected for name in ("raspberry-pi-3", "raspberry-pi-4", "raspberry-pi-5")}
    assert [figure.inference_ms for figure in figures.values()] == [30, 17, 4]
    assert figures["raspberry-pi-4"].inference_ms_32bit == 20
    assert resolve("coral-dev-board").expected.delegate == "edgetpu"
    assert resolve("raspberry-pi-zero-2-w").expected.precision == "float32"
    assert resolve("jetson-xavier-nx").expected.inference_ms is None


def test_command_line_names_of_settings() -> None:
    """`devices show --resolved` takes every option that sets a key of a profile."""
    shown = {declared.name for declared in declared_by(show) if isinstance(declared, Option)}
    assert shown - {"resolved", "json"} == {name for name, option in OPTIONS.items() if set(option.keys) <= set(KEYS)}


def test_camera_section_fits_the_camera() -> None:
    CameraSettings(**resolve("generic").camera.asked())


# --- precedence and provenance ----------------------------------------------------------------------------------------


def test_each_layer_wins_over_the_next() -> None:
    file = _user("mine", "extends: raspberry-pi-4\nruntime:\n  threads: 3\n  workers: 2\noutput:\n  top_k: 4\n")
    overrides = {"runtime.threads": ("1", "command line"), "output.top_k": ("9", "environment")}
    settings = resolve("mine", overrides)
    assert (settings.runtime.threads, settings.output.top_k, settings.runtime.workers) == (1, 9, 2)
    assert settings.health.max_temp_c == 80
    assert str(settings.origin("runtime.threads")) == "command line"
    assert str(settings.origin("output.top_k")) == "environment EDGE_MNV2_TOP_K"
    assert str(settings.origin("runtime.workers")) == f"user profile {file}:4"
    assert str(settings.origin("health.max_temp_c")) == "packaged profile raspberry-pi-4.yaml:12"
    assert settings.origin("camera.frozen_s").path == paths.packaged("devices", "base.yaml")
    assert str(settings.origin("preprocess.resize")) == "default"
    assert settings.parents == ("raspberry-pi-4", "base")


def test_origins_point_at_the_line() -> None:
    settings = resolve("jetson-nano")
    for key in KEYS:
        origin = settings.origin(key)
        if origin.path is not None:
            line = origin.path.read_text().splitlines()[origin.line - 1]
            assert line.strip().startswith(f"{key.partition('.')[2]}:"), (key, line)


def test_every_setting_is_typed() -> None:
    settings = resolve("generic")
    assert set(settings.values()) == {key for key in KEYS if key != "camera.controls"}
    assert isinstance(settings.camera.frozen_s, float)
    assert settings.runtime.threads == "auto"
    for name, section in SECTIONS.items():
        assert isinstance(getattr(settings, name), section)


def test_values_not_given_are_passed_over() -> None:
    assert resolve("generic", {"runtime.threads": (None, "command line")}).runtime.threads == "auto"


BAD_OVERRIDES = [
    ("runtime.threads", "0", "command line", "--threads: '0' is not a whole number from 1 to 256 or auto"),
    ("runtime.threads", "-1", "command line", "--threads: '-1' is not"),
    ("runtime.threads", "10000", "environment", "EDGE_MNV2_THREADS: '10000' is not"),
    ("runtime.threads", "two", "command line", "--threads: 'two' is not"),
    ("runtime.threads", True, "command line", "--threads: 'True' is not"),
    ("runtime.threads", "1e2", "command line", "--threads: '1e2' is not"),
    ("output.threshold", "nan", "command line", "--threshold: 'nan' is not a number from 0 to 1"),
    ("output.threshold", float("nan"), "command line", "--threshold: 'nan' is not"),
    ("output.threshold", "1.01", "command line", "--threshold: '1.01' is not"),
    ("output.smooth", "1", "command line", "--smooth: '1' is not"),
    ("camera.rotate", "45", "command line", "--rotate: '45' is not one of 0, 90, 180, 270"),
    ("camera.flip", "x", "command line", "--flip: 'x' is not"),
    ("camera.roi", "1,2,3", "command line", "--roi: '1,2,3' is not four numbers"),
    ("preprocess.resize", "squash", "command line", "--resize: 'squash' is not one of crop, stretch, letterbox"),
    ("runtime.delegate", "coral", "command line", "--delegate: 'coral' is not"),
    ("output.top_k", "", "command line", "--top-k: '' is not"),
]


@pytest.mark.parametrize("key, value, source, message", BAD_OVERRIDES)
def test_bad_override_is_a_usage_error(key: str, value: object, source: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve("generic", {key: (value, source)})
    assert str(caught.value).startswith(message)
    assert caught.value.exit_code == 2


def test_text_of_the_command_line() -> None:
    overrides = option_overrides(
        {"threads": "auto", "size": "1280x720", "roi": "0,0,0.5,1", "gate": "1", "flip": "none", "log": "x.csv"},
        "command line",
    )
    settings = resolve("generic", overrides)
    assert (settings.camera.width, settings.camera.height) == (1280, 720)
    assert settings.camera.roi == (0, 0, 0.5, 1)
    assert settings.output.gate is True
    assert settings.camera.flip is None
    with pytest.raises(UsageError, match="--size: 'wide' is not a size"):
        option_overrides({"size": "wide"}, "command line")


def test_environment() -> None:
    variables = {
        "EDGE_MNV2_TOP_K": "3",
        "EDGE_MNV2_SIZE": "320x240",
        "EDGE_MNV2_MODEL": "",
        "EDGE_MNV2_CACHE_DIR": "/x",
    }
    overrides = environment_overrides(variables)
    assert overrides == {
        "output.top_k": ("3", "environment"),
        "camera.width": ("320", "environment"),
        "camera.height": ("240", "environment"),
    }
    with pytest.raises(UsageError, match="EDGE_MNV2_SIZE"):
        environment_overrides({"EDGE_MNV2_SIZE": "320"})


# --- extends ----------------------------------------------------------------------------------------------------------


def test_controls_are_inherited_one_by_one(tmp_path: Path) -> None:
    _user("lab", "extends: base\ncamera:\n  controls:\n    AfMode: 2\n    ExposureTime: 10000\n    Gain: 2.0\n")
    (tmp_path / "mine.yaml").write_text("extends: lab\ncamera:\n  controls:\n    ExposureTime: 5000\n    Gain: ~\n")
    settings = resolve(tmp_path / "mine.yaml")
    assert settings.camera.controls == {"AfMode": 2, "ExposureTime": 5000}
    assert settings.origin("camera.controls.AfMode").line == 4
    assert str(settings.origin("camera.controls.ExposureTime")) == f"profile file {tmp_path / 'mine.yaml'}:4"


def test_inherited_value_can_be_taken_back(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("extends: raspberry-pi-4\nhealth:\n  max_temp_c: none\n")
    assert resolve(tmp_path / "mine.yaml").health.max_temp_c is None
    (tmp_path / "null.yaml").write_text("extends: raspberry-pi-4\nhealth:\n  max_temp_c: ~\n")
    assert resolve(tmp_path / "null.yaml").health.max_temp_c is None


def test_parent_by_path_counts_from_the_child(tmp_path: Path) -> None:
    (tmp_path / "fleet").mkdir()
    (tmp_path / "fleet/site.yaml").write_text("extends: base\nruntime:\n  threads: 2\n")
    (tmp_path / "fleet/cam1.yaml").write_text("extends: ./site.yaml\ncamera:\n  rotate: 180\n")
    settings = resolve(tmp_path / "fleet/cam1.yaml")
    assert (settings.runtime.threads, settings.camera.rotate, settings.parents) == (2, 180, ("site", "base"))


def test_parent_by_name_may_stand_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text("extends: base\nruntime:\n  threads: 2\n")
    (tmp_path / "cam1.yaml").write_text("extends: site\n")
    assert resolve(tmp_path / "cam1.yaml").runtime.threads == 2
    _user("site", "extends: base\nruntime:\n  threads: 3\n")
    assert resolve(tmp_path / "cam1.yaml").runtime.threads == 3, "a known profile goes first"


def test_user_profile_replaces_and_extends_its_namesake() -> None:
    _user("raspberry-pi-4", "extends: raspberry-pi-4\nruntime:\n  threads: 2\n")
    settings = resolve("raspberry-pi-4")
    assert settings.runtime.threads == 2
    assert settings.expected.inference_ms == 17
    _user("child", "extends: raspberry-pi-4\n")
    assert resolve("child").runtime.threads == 2


def test_user_base_replaces_base_for_all() -> None:
    _user("base", "extends: base\noutput:\n  top_k: 1\n")
    assert resolve("raspberry-pi-5").output.top_k == 1
    assert resolve("raspberry-pi-5").parents == ("base", "base")


@pytest.mark.parametrize("names", [["a"], ["a", "b"], ["a", "b", "c"]])
def test_circles(names: list[str]) -> None:
    for name, parent in zip(names, [*names[1:], names[0]]):
        _user(name, f"# one line\nextends: {parent}\n")
    with pytest.raises(ProfileError) as caught:
        resolve("a")
    assert "a circle" in str(caught.value) and " extends ".join([*names, "a"]) in str(caught.value)
    assert ":2:" in str(caught.value)


def test_circle_of_files_beside_each_other(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b\n")
    (tmp_path / "b.yaml").write_text("extends: a\n")
    with pytest.raises(ProfileError, match="a extends b extends a: a circle"):
        resolve(tmp_path / "a.yaml")


def test_circle_by_paths(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: ./b.yaml\n")
    (tmp_path / "b.yaml").symlink_to("a.yaml")
    with pytest.raises(ProfileError, match="a circle"):
        resolve(tmp_path / "a.yaml")


def test_unknown_parent_and_profile(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("\nextends: raspberry-pi-44\n")
    with pytest.raises(ProfileError) as caught:
        resolve(tmp_path / "mine.yaml")
    assert str(caught.value).startswith(f"{tmp_path / 'mine.yaml'}:2: extends: unknown profile 'raspberry-pi-44'")
    assert "did you mean raspberry-pi-4" in str(caught.value)
    with pytest.raises(ProfileError, match=r"unknown profile 'pi4'.*(raspberry-pi-4|known are)"):
        resolve("pi4")
    with pytest.raises(ProfileError, match="no file"):
        (tmp_path / "mine.yaml").write_text("extends: ./gone.yaml\n")
        resolve(tmp_path / "mine.yaml")


def test_names_that_nearly_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "board").write_text("extends: base\n")
    with pytest.raises(ProfileError, match=r"write \./board"):
        resolve("board")
    _user("lab", "extends: base\n").rename(paths.config_dir() / "devices/lab.yml")
    with pytest.raises(ProfileError, match=r"lab\.yml to lab\.yaml"):
        resolve("lab")


def test_width_needs_height(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("extends: base\ncamera:\n  width: 640\n")
    with pytest.raises(ProfileError, match=r"mine\.yaml:3: camera\.width without camera\.height"):
        resolve(tmp_path / "mine.yaml")


def test_model_path_counts_from_the_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yaml").write_text("extends: base\nruntime:\n  model: models/birds.tflite\n")
    assert resolve(tmp_path / "mine.yaml").runtime.model == str(tmp_path / "models/birds.tflite")
    (tmp_path / "name.yaml").write_text("extends: base\nruntime:\n  model: mobilenet_v2_1.0_224_int8\n")
    assert resolve(tmp_path / "name.yaml").runtime.model == "mobilenet_v2_1.0_224_int8"
    (tmp_path / "home.yaml").write_text("extends: base\nruntime:\n  model: ~/x.tflite\n")
    assert resolve(tmp_path / "home.yaml").runtime.model == str(Path.home() / "x.tflite")
    assert resolve("generic", {"runtime.model": ("x.tflite", "command line")}).runtime.model == "x.tflite"


# --- which profile ----------------------------------------------------------------------------------------------------


def _saved(name: str, board: Board, date: Optional[str], threads: int) -> Path:
    lines = ["extends: raspberry-pi-4", "board:", *(f'  {key}: "{value}"' for key, value in identity(board).items())]
    lines += ["saved:", f"  date: {date}"] if date else []
    return _user(name, "\n".join([*lines, "runtime:", f"  threads: {threads}", ""]))


def test_newest_saved_profile_of_this_board(tmp_path: Path) -> None:
    board = detect(trees.pi_4(tmp_path / "mine").root)
    other = trees.pi_4(tmp_path / "other").write("sys/firmware/devicetree/base/serial-number", b"77\0")
    _saved("older", board, "2026-01-01T10:00:00Z", 1)
    _saved("newer", board, "2026-11-25", 2)
    _saved("elsewhere", detect(other.root), "2026-12-01", 3)
    settings = resolve(root=tmp_path / "mine")
    assert (settings.profile, settings.runtime.threads) == ("newer", 2)
    assert settings.reason == "saved on this board on 2026-11-25"
    assert resolve(root=other.root).profile == "elsewhere"
    assert resolve("older", root=tmp_path / "mine").profile == "older"
    assert resolve(root=trees.pi_5(tmp_path / "five").root).profile == "raspberry-pi-5"


def test_file_time_stands_in_for_a_date(tmp_path: Path) -> None:
    board = detect(trees.pi_4(tmp_path).root)
    os.utime(_saved("older", board, None, 1), (1_000_000_000, 1_000_000_000))
    os.utime(_saved("newer", board, None, 2), (1_100_000_000, 1_100_000_000))
    assert resolve(root=tmp_path).profile == "newer"


def test_identity() -> None:
    board = Board(model="Raspberry Pi 4 Model B Rev 1.4", serial="0123456789abcdef")
    assert is_same_board(identity(board), board)
    assert is_same_board({"model": "Raspberry Pi 4 Model B Rev 1.4"}, board), "a fleet shares a profile by model"
    assert not is_same_board({"model": "Raspberry Pi 4 Model B Rev 1.5"}, board)
    assert not is_same_board({"serial": "ffffffffffffffff"}, board)
    assert not is_same_board(identity(board), Board(model=board.model)), "a board without a serial is not known again"
    assert not is_same_board({}, board)


def test_users_match_goes_before_the_packaged_one(tmp_path: Path) -> None:
    root = trees.pi_4(tmp_path).root
    assert resolve(root=root).profile == "raspberry-pi-4"
    _user("lab", 'extends: raspberry-pi-4\nmatch:\n  model: "Raspberry Pi 4*"\n')
    assert resolve(root=root).profile == "lab"
    assert resolve(root=root).reason == "matches Raspberry Pi 4 Model B Rev 1.4"


def test_replaced_profile_matches_the_same_boards(tmp_path: Path) -> None:
    _user("raspberry-pi-4", "extends: base\nruntime:\n  threads: 1\n")
    settings = resolve(root=trees.pi_4(tmp_path).root)
    assert (settings.profile, settings.runtime.threads) == ("raspberry-pi-4", 1)


def test_user_profile_without_board_or_match_is_not_chosen(tmp_path: Path) -> None:
    _user("mine", "extends: raspberry-pi-4\n")
    assert resolve(root=trees.pi_4(tmp_path).root).profile == "raspberry-pi-4"


def test_broken_user_profile_is_not_passed_over(tmp_path: Path) -> None:
    root = trees.pi_4(tmp_path).root
    file = _user("mine", "extends: raspberry-pi-4\nruntime:\n  thread: 2\n")
    with pytest.raises(ProfileError, match=r"mine\.yaml:3: unknown key 'thread'"):
        resolve(root=root)
    assert resolve("raspberry-pi-4", root=root).profile == "raspberry-pi-4"
    file.rename(file.with_name(".mine.yaml"))
    assert resolve(root=root).profile == "raspberry-pi-4"


MODELS = [
    ("Raspberry Pi 2 Model B Rev 1.1", ["raspberrypi,2-model-b", "brcm,bcm2836"], "generic"),
    ("Raspberry Pi Zero W Rev 1.1", ["raspberrypi,model-zero-w", "brcm,bcm2835"], "generic"),
    ("Raspberry Pi 3 Model A Plus Rev 1.0", ["raspberrypi,3-model-a-plus", "brcm,bcm2837"], "raspberry-pi-3"),
    ("Raspberry Pi 400 Rev 1.0", ["raspberrypi,400", "brcm,bcm2711"], "raspberry-pi-4"),
    ("Raspberry Pi Compute Module 4 Rev 1.0", ["raspberrypi,4-compute-module", "brcm,bcm2711"], "raspberry-pi-4"),
    ("Raspberry Pi 500 Rev 1.0", ["raspberrypi,500", "brcm,bcm2712"], "raspberry-pi-5"),
    ("Raspberry Pi Compute Module 5 Rev 1.0", ["raspberrypi,5-compute-module", "brcm,bcm2712"], "raspberry-pi-5"),
    ("NVIDIA Jetson Nano 2GB Developer Kit", ["nvidia,p3542-0000+p3448-0003", "nvidia,tegra210"], "jetson-nano"),
    ("NVIDIA Jetson TX2", ["nvidia,p2771-0000", "nvidia,tegra186"], "generic"),
    ("NVIDIA Jetson AGX Xavier", ["nvidia,p2972-0000", "nvidia,tegra194"], "generic"),
    ("NVIDIA Jetson Xavier NX Developer Kit (SD-card)", ["nvidia,p3509-0000+p3668-0000"], "jetson-xavier-nx"),
    ("NVIDIA Orin Nano Developer Kit", ["nvidia,p3768-0000+p3767-0005", "nvidia,tegra234"], "jetson-orin-nano"),
    ("NVIDIA Jetson Orin NX", ["nvidia,p3768-0000+p3767-0000", "nvidia,tegra234"], "generic"),
    ("Google i.MX8MQ Phanbell", ["google,imx8mq-phanbell", "fsl,imx8mq"], "coral-dev-board"),
    ("Raspberry Pi 6 Model B", [], "generic"),
    (None, [], "generic"),
]


@pytest.mark.parametrize("model, compatible, profile", MODELS)
def test_relatives_and_strangers(model: Optional[str], compatible: list[str], profile: str) -> None:
    assert choose(Board(model=model, compatible=tuple(compatible)))[0].name == profile


def test_most_specific_match_wins() -> None:
    board = Board(model="Maker Board 4", compatible=("maker,board-4", "maker,board"))
    by_model = match_rank({"model": ("Maker Board*",)}, board)
    by_family = match_rank({"compatible": ("maker,board",)}, board)
    by_board = match_rank({"compatible": ("maker,board-4",)}, board)
    assert by_board < by_family < by_model
    assert match_rank({"model": ("Maker Board 4",)}, board) < by_model
    assert match_rank({"model": ("Other*",)}, board) is None
    assert match_rank({}, board) is None


def test_profile_read_once_more_after_a_change(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("extends: base\nruntime:\n  threads: 1\n")
    assert resolve(file).runtime.threads == 1
    file.write_text("extends: base\nruntime:\n  threads: 12\n")
    assert resolve_profile(read_profile(file)).runtime.threads == 12
