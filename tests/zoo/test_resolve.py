from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from edge_mnv2 import files, paths
from edge_mnv2.errors import ModelError
from edge_mnv2.zoo import cache, registry
from edge_mnv2.zoo.model_facts import Preprocess
from edge_mnv2.zoo.resolve import resolve

SMALL = "mobilenet_v1_0.25_128_quant"


@pytest.fixture
def small(data: Path, tmp_path: Path) -> Path:
    return Path(shutil.copyfile(data / "models" / f"{SMALL}.tflite", tmp_path / "mine.tflite"))


def _cached(data: Path, name: str = SMALL) -> Path:
    target = cache.cached_path(registry.load().get(name))
    target.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copyfile(data / "models" / target.name, target))


def test_the_default_is_there() -> None:
    found = resolve(registry.DEFAULT_MODEL)
    assert found.path == paths.packaged("models", f"{registry.DEFAULT_MODEL}.tflite")
    assert found.labels is not None and len(found.labels) == 1000
    assert (found.background, found.task, found.registry) == ("none", "classification", None)


def test_a_name_is_found_in_the_cache(data: Path) -> None:
    with pytest.raises(ModelError, match=f"not been downloaded on this device yet: edge-mnv2 pull {SMALL}"):
        resolve(SMALL)
    path = _cached(data)
    found = resolve(SMALL)
    assert (found.name, found.path, found.background) == (SMALL, path, "first")


def test_a_path_with_a_known_hash_takes_labels_of_the_registry(small: Path) -> None:
    found = resolve(str(small))
    assert (found.name, found.path, found.background) == (SMALL, small, "first")
    assert found.labels is not None and found.labels[0] == "tench, Tinca tinca"


def test_a_file_of_a_known_name_and_other_content_is_said(
    small: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / f"{SMALL}.tflite"
    path.write_bytes(small.read_bytes()[:-100])
    found = resolve(str(path))
    assert (found.name, found.entry, found.labels) == (path.name, None, None)
    assert "525498 of 525598 bytes" in caplog.text


def test_a_damaged_copy_is_never_used(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_TICK_NS", -1)
    path = _cached(data)
    good = path.read_bytes()
    resolve(SMALL)
    before = path.stat()
    for content in (good[:-100], good[:1000] + b"!" + good[1001:], b"", b"<html>" + good[6:]):
        path.write_bytes(content)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        with pytest.raises(ModelError, match=r"is damaged: .*edge-mnv2 pull") as caught:
            resolve(SMALL)
        assert str(path) in str(caught.value)
    path.write_bytes(good)
    assert resolve(SMALL).path == path
    monkeypatch.setenv(cache.MIRROR, str(data / "models"))
    path.write_bytes(b"bad")
    assert resolve(SMALL).path == data / "models" / f"{SMALL}.tflite"


def test_an_unchanged_file_is_hashed_once(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_TICK_NS", -1)
    first = files.sha256_of(small)
    monkeypatch.setattr(files, "_CHUNK", "not a size: whoever reads fails")
    assert files.sha256_of(small) == first
    with pytest.raises(TypeError):
        files.sha256_of(small, fresh=True)
    small.touch()
    with pytest.raises(TypeError):
        files.sha256_of(small)


def test_what_was_just_written_is_not_remembered(small: Path) -> None:
    files.sha256_of(small)
    assert not (paths.state_dir() / "hashes.json").exists()


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"x": 1}', b"\xff\xfe", b'{"/x": [1,2,3,4,5,6]}'])
def test_a_broken_memory_does_not_matter(content: bytes, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_TICK_NS", -1)
    paths.state_dir().mkdir(parents=True)
    (paths.state_dir() / "hashes.json").write_bytes(content)
    assert files.sha256_of(small) == files.sha256_of(small)


def test_a_cache_and_a_home_that_cannot_be_written_serve(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_TICK_NS", -1)
    _cached(data)
    monkeypatch.setenv("EDGE_MNV2_STATE_DIR", "/proc/self/no")
    assert resolve(SMALL).name == SMALL


def test_what_is_no_model_is_told_apart(tmp_path: Path) -> None:
    for wanted, words in (
        ("", "name is empty"),
        (str(tmp_path), "is a folder"),
        (str(tmp_path / "x.tflite"), "no such file"),
        ("x.tflite", "no such file"),
        (f"models/{SMALL}.tflite", f"no such file: `--model {SMALL}`"),
        ("mobilenet_v2_1.0_224_int9", "no model and no file is called 'mobilenet_v2_1.0_224_int9': did you mean"),
        ("zzz", "'zzz'.*models list"),
        ("demo", "'demo' is a clip"),
        ("torchvision-mobilenet_v2", "is a set of weights"),
        ("https://host.example/m.tflite", "download it first"),
        ("/dev/null", "not a regular file"),
        ("a\0b", "a"),
    ):
        with pytest.raises(ModelError, match=words) as caught:
            resolve(wanted)
        assert caught.value.exit_code == 3
    (tmp_path / "saved_model.pb").touch()
    with pytest.raises(ModelError, match=r"is a TensorFlow SavedModel.*convert it"):
        resolve(str(tmp_path))
    (tmp_path / "link.tflite").symlink_to("gone")
    with pytest.raises(ModelError, match="link to a file that is not there"):
        resolve(str(tmp_path / "link.tflite"))


def test_a_sidecar_describes_a_model_of_ones_own(small: Path) -> None:
    (small.parent / "names.txt").write_text("bolt\nnut\n")
    sidecar = small.with_suffix(".yaml")
    sidecar.write_text(
        "labels: names.txt\ntask: classification\npreprocess: {resize: stretch, mean: 127.5, std: 127.5}\n"
    )
    found = resolve(str(small))
    assert found.labels == ["bolt", "nut"]
    assert found.preprocess == Preprocess("stretch", (127.5,) * 3, (127.5,) * 3)
    sidecar.write_text("task: regression\nunit: degrees\npreprocess: {mean: [1, 2, 3], std: [4, 5, 6.5]}\n")
    found = resolve(str(small))
    assert (found.task, found.unit, found.preprocess.std) == ("regression", "degrees", (4.0, 5.0, 6.5))
    sidecar.write_text("labels: ['no', 'yes']\n")
    assert resolve(str(small)).labels == ["no", "yes"]
    sidecar.write_text("")
    assert resolve(str(small)).labels is not None


@pytest.mark.parametrize(
    "text, words",
    [
        ("label: x.txt\n", "unknown key 'label'.*known: labels, task, preprocess, unit"),
        ("labels: gone.txt\n", "gone.txt: no such label file"),
        ("labels: [yes, no]\n", "quote"),
        ("labels: 5\n", "'labels' must be"),
        ("task: segmentation\n", "'task' must be one of"),
        ("preprocess: crop\n", "'preprocess' must be a mapping"),
        ("preprocess: {crop: true}\n", "preprocess: unknown key 'crop'"),
        ("- a\n", "not a mapping"),
        ("labels: [a\n", r"yaml:2: not YAML"),
        ("unit: 5\n", "'unit' must be text"),
    ],
)
def test_a_wrong_sidecar_is_named(text: str, words: str, small: Path) -> None:
    small.with_suffix(".yaml").write_text(text)
    with pytest.raises(ModelError, match=words) as caught:
        resolve(str(small))
    assert str(small.parent) in str(caught.value)
    assert caught.value.exit_code == 3
