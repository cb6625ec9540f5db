import struct
from pathlib import Path

import pytest

from edge_mnv2.runtime.edgetpu import library
from tests.runtime.edgetpu import trees


def test_nothing_anywhere(tmp_path: Path) -> None:
    assert library.find(tmp_path, {}) is None


@pytest.mark.parametrize(
    "folder", ["usr/lib/aarch64-linux-gnu", "usr/lib/arm-linux-gnueabihf", "usr/lib", "usr/local/lib"]
)
def test_the_usual_folders(tmp_path: Path, standin: Path, folder: str) -> None:
    trees.library(tmp_path, standin, f"{folder}/libedgetpu.so.1.0")
    found = library.find(tmp_path, {})
    assert found is not None and found.problem is None
    assert found.path == f"/{folder}/libedgetpu.so.1"
    assert not found.by_hand


def test_the_loaders_cache_leads_to_odd_folders(tmp_path: Path, standin: Path) -> None:
    trees.library(tmp_path, standin, "opt/coral/libedgetpu.so.1.0")
    cache = b"glibc-ld.so.cache1.1" + bytes(28) + b"libc.so.6\0/lib/libc.so.6\0/opt/coral/libedgetpu.so.1\0"
    trees.write(tmp_path, "etc/ld.so.cache", "")
    (tmp_path / "etc/ld.so.cache").write_bytes(cache)
    found = library.find(tmp_path, {})
    assert found is not None and (found.path, found.source) == ("/opt/coral/libedgetpu.so.1", "ld.so.cache")


def test_variables_come_first_and_count_as_set_by_hand(tmp_path: Path, standin: Path) -> None:
    trees.library(tmp_path, standin)
    by_folder = library.find(tmp_path, {"LD_LIBRARY_PATH": f"/nowhere:{standin.parent}"})
    by_name = library.find(tmp_path, {library.VARIABLE: str(standin), "LD_LIBRARY_PATH": "/nowhere"})
    a_folder = library.find(tmp_path, {library.VARIABLE: str(standin.parent)})
    for found in (by_folder, by_name, a_folder):
        assert found is not None and found.path == str(standin)
        assert found.by_hand


@pytest.mark.parametrize(
    ("package", "version", "tensorflow", "clock"),
    [
        ("libedgetpu1-std", "16.0", "2.5.0", "standard"),
        ("libedgetpu1-max", "16.0", "2.5.0", "maximum"),
        ("libedgetpu1-std", "16.0tf2.17.1-1.ubuntu22.04", "2.17.1", "standard"),
        ("libedgetpu1-max", "16.0TF2.19.1-1", "2.19.1", "maximum"),
        ("libedgetpu1-std", "15.0", None, "standard"),
    ],
)
def test_the_package_database_knows_version_and_clock(
    tmp_path: Path, standin: Path, package: str, version: str, tensorflow: str, clock: str
) -> None:
    trees.library(tmp_path, standin)
    trees.package(tmp_path, package, version)
    found = library.find(tmp_path, {})
    assert found is not None
    assert (found.package, found.version, found.tensorflow, found.clock) == (package, version, tensorflow, clock)
    assert version in found.title


def test_a_package_that_was_removed_says_nothing(tmp_path: Path, standin: Path) -> None:
    trees.library(tmp_path, standin)
    status = "Package: libedgetpu1-std\nStatus: deinstall ok config-files\nVersion: 16.0\n"
    trees.write(tmp_path, "var/lib/dpkg/status", status)
    found = library.find(tmp_path, {})
    assert found is not None and found.version is None


def test_the_build_label_names_the_tensorflow_it_was_built_with(tmp_path: Path, standin: Path) -> None:
    labelled = tmp_path / "libedgetpu.so.1"
    label = b"\0TENSORFLOW_COMMIT=f4247ebb6f9e7421f38c3f01a9a5d5cd54bd24fd\0"
    labelled.write_bytes(standin.read_bytes() + label)
    found = library.find("/", {library.VARIABLE: str(labelled)})
    assert found is not None and found.tensorflow == "2.19.1"
    assert found.title == "libedgetpu.so.1 built for TensorFlow 2.19.1"


def _elf(bits: int, machine: int) -> bytes:
    return b"\x7fELF" + bytes([bits, 1, 1, 0]) + bytes(8) + struct.pack("<HH", 3, machine) + bytes(100)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "cannot be read: it is empty"),
        (b"<!DOCTYPE html><title>login</title>" + bytes(100), "not a shared library"),
        (b"\x7fELF", "not a shared library"),
        (_elf(1, 8), "is for another processor"),
        (_elf(1, 40), "is for 32-bit Arm"),
    ],
    ids=["empty", "html", "cut", "mips", "arm32"],
)
def test_a_file_that_is_no_library_for_us(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "libedgetpu.so.1"
    path.write_bytes(content)
    found = library.find("/", {library.VARIABLE: str(path)})
    assert found is not None and found.problem is not None
    assert says in found.problem and str(path) in found.problem
    assert found.fix


def test_another_library_under_this_name(tmp_path: Path, standin: Path) -> None:
    path = tmp_path / "libedgetpu.so.1"
    path.write_bytes(standin.read_bytes().replace(b"tflite_plugin_create_delegate", b"tflite_plugin_create_something"))
    found = library.find("/", {library.VARIABLE: str(path)})
    assert found is not None and "no Edge TPU delegate" in str(found.problem)


def test_a_variable_that_leads_nowhere(tmp_path: Path) -> None:
    found = library.find("/", {library.VARIABLE: str(tmp_path / "gone.so")})
    assert found is not None and "does not exist" in str(found.problem)
    assert library.VARIABLE in str(found.fix)
