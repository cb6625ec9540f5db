"""A file is looked at before the native loader sees it: every cut, every other format, most damage."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from edge_mnv2.errors import ModelError
from edge_mnv2.tflite import model_file
from tests.stubs import colour_model

OTHER_FORMATS = {
    "zip": b"PK\x03\x04" + bytes(200),
    "gzip": b"\x1f\x8b" + bytes(200),
    "html": b"<!DOCTYPE html><html><head><title>Hotel Wi-Fi</title></head></html>",
    "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4000000\n",
    "zeros": bytes(5000),
    "text": b"hello\n" * 100,
    "short": b"\x1c\x00",
    "only the mark": b"\x1c\x00\x00\x00TFL3",
}


@pytest.mark.parametrize("kind", OTHER_FORMATS)
def test_other_formats_are_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"{kind}.tflite"
    path.write_bytes(OTHER_FORMATS[kind])
    with pytest.raises(ModelError) as refused:
        model_file.check(path)
    assert str(path) in str(refused.value) and "\n" not in str(refused.value)


def test_the_title_of_a_login_page_is_quoted(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(OTHER_FORMATS["html"])
    with pytest.raises(ModelError, match="Hotel Wi-Fi"):
        model_file.check(path)


def test_missing_empty_and_folder(tmp_path: Path) -> None:
    (tmp_path / "empty.tflite").touch()
    for path, words in (("none.tflite", "no such"), ("empty.tflite", "empty"), (".", "folder")):
        with pytest.raises(ModelError, match=words):
            model_file.check(tmp_path / path)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "float32"])
def test_a_whole_model_passes(dtype: str) -> None:
    facts = model_file.check_bytes(colour_model(dtype))
    assert facts.custom_ops == () and facts.subgraphs == 1


def test_every_cut_of_a_model_is_noticed(data: Path) -> None:
    models = sorted((data / "models").glob("*.tflite"))
    assert models
    for path in models:
        content = path.read_bytes()
        facts = model_file.check_bytes(content)
        assert facts.edgetpu == path.stem.endswith("_edgetpu")
        for missing in (1, 3, 16, 100, 1000, len(content) // 3, len(content) // 2, len(content) - 9):
            if missing < len(content):
                with pytest.raises(ModelError):
                    model_file.check_bytes(content[:-missing])


def test_damage_is_an_error_of_ours_or_unnoticed_but_never_another() -> None:
    whole = colour_model("int8")
    rng = random.Random(7)
    for _ in range(3000):
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 8)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        try:
            model_file.check_bytes(bytes(damaged[: rng.randint(1, len(damaged))]))
        except ModelError as error:
            assert "\n" not in str(error)
