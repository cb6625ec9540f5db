import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge_mnv2.errors import AcceleratorError
from edge_mnv2.runtime.supervised import DeviceHeld
from edge_mnv2.runtime.supervised.lock import DeviceLock

HOLD = """
import sys
from pathlib import Path
from edge_mnv2.runtime.supervised.lock import DeviceLock
lock = DeviceLock("usb-2-1", Path(sys.argv[1]))
lock.acquire("edgetpu:usb:0")
print("held", flush=True)
sys.stdin.read()
"""


def test_the_second_process_is_told_who_has_it_and_gets_it_afterwards(tmp_path: Path) -> None:
    lock = DeviceLock("usb-2-1", tmp_path)
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(DeviceHeld, match=f"edgetpu:usb:0 is used by process {other.pid} \\(.*python") as caught:
            lock.acquire("edgetpu:usb:0")
        assert caught.value.pid == other.pid
        assert caught.value.exit_code == 5
        DeviceLock("usb-2-2", tmp_path).acquire("edgetpu:usb:1")
        other.kill()
        other.wait()
    with lock:
        assert lock.acquire("edgetpu:usb:0")
        assert not lock.acquire("edgetpu:usb:0")
    assert DeviceLock("usb-2-1", tmp_path).acquire("edgetpu:usb:0")


def test_a_file_left_by_a_dead_process_does_not_lock(tmp_path: Path) -> None:
    lock = DeviceLock("apex_0", tmp_path)
    lock.path.write_text("999999\n")
    assert lock.acquire("edgetpu:pci:0")
    assert lock.path.read_text() == f"{os.getpid()}\n"
    lock.release()


def test_any_user_may_lock_the_file_that_another_made(tmp_path: Path) -> None:
    lock = DeviceLock("apex_0", tmp_path)
    old = os.umask(0o077)
    try:
        lock.acquire("edgetpu:pci:0")
    finally:
        os.umask(old)
    assert lock.path.stat().st_mode & 0o777 == 0o666


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    lock = DeviceLock("apex_0", tmp_path)
    victim = tmp_path / "victim"
    victim.write_text("kept")
    lock.path.symlink_to(victim)
    with pytest.raises(AcceleratorError, match="cannot be opened"):
        lock.acquire("edgetpu:pci:0")
    assert victim.read_text() == "kept"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(AcceleratorError, match="EDGE_MNV2_LOCK_DIR"):
        DeviceLock("apex_0", tmp_path / "missing").acquire("edgetpu:pci:0")
