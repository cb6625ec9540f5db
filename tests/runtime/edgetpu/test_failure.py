"""From a worker's end to one line: the whole table, without processes."""

import pytest

from edge_mnv2.errors import AcceleratorError
from edge_mnv2.runtime.edgetpu.library import Library
from edge_mnv2.runtime.supervised import AcceleratorLost, DeviceRefused, Ending, explain

STOCK = Library("/usr/lib/libedgetpu.so.1", "ld.so.cache", version="16.0", tensorflow="2.5.0")
NAMED = "libedgetpu 16.0 built for TensorFlow 2.5.0"
RUNTIME = "ai-edge-litert 2.3.0"
REFUSED = "Failed to load delegate from /usr/lib/libedgetpu.so.1\n"
UNRESOLVED = (
    "Encountered unresolved custom op: edgetpu-custom-op.\nSee instructions: https://example.org "
    "Node number 0 (edgetpu-custom-op) failed to prepare."
)
NEWER = "Package requires runtime version (14), which is newer than this runtime version (13)."


@pytest.mark.parametrize(
    ("ending", "kind", "message", "hint"),
    [
        (Ending("create", "ValueError", REFUSED), DeviceRefused, f"{NAMED} opens no Edge TPU (usb:0)", "doctor"),
        (Ending("create", "ValueError", REFUSED + "busy\n"), DeviceRefused, "(usb:0): busy", "doctor"),
        (
            Ending("library", "OSError", "libusb-1.0.so.0: cannot open shared object file: No such file or directory"),
            AcceleratorError,
            f"{NAMED} needs libusb-1.0.so.0, which is missing",
            "apt install libusb-1.0-0",
        ),
        (
            Ending("library", "OSError", "libc++.so.1: cannot open shared object file: No such file or directory"),
            AcceleratorError,
            "needs libc++.so.1",
            "provides libc++.so.1",
        ),
        (
            Ending("create", "OSError", "/usr/lib/libedgetpu.so.1: cannot open shared object file: No such file"),
            AcceleratorError,
            "/usr/lib/libedgetpu.so.1 cannot be loaded",
            "install libedgetpu again",
        ),
        (
            Ending("create", "OSError", "/usr/lib/libedgetpu.so.1: invalid ELF header"),
            AcceleratorError,
            "invalid ELF header",
            "again",
        ),
        (
            Ending("create", "AttributeError", "undefined symbol: tflite_plugin_create_delegate"),
            AcceleratorError,
            "no Edge TPU delegate",
            "EDGE_MNV2_EDGETPU_LIB",
        ),
        (
            Ending("open", "RuntimeError", NEWER + UNRESOLVED),
            AcceleratorError,
            f"runtime 14, newer than {NAMED}",
            "newer libedgetpu",
        ),
        (
            Ending("open", code=-6, native=("F package_registry.cc:80] package requires runtime 14",)),
            AcceleratorError,
            "runtime 14",
            "--min_runtime_version",
        ),
        (
            Ending("open", "RuntimeError", "bad package" + UNRESOLVED),
            AcceleratorError,
            "usb:0 refuses the model: bad package",
            "compile",
        ),
        (Ending("open", "RuntimeError", UNRESOLVED), AcceleratorError, "unresolved custom op", "compile"),
        (
            Ending("open", "RuntimeError", "Internal: Unsupported data type in custom op handler: 5105160"),
            AcceleratorError,
            f"{NAMED} does not fit {RUNTIME}",
            "TensorFlow 2.17 or newer",
        ),
        (
            Ending("create", code=-11),
            AcceleratorLost,
            f"{NAMED} crashed (SIGSEGV) under {RUNTIME} while opening the device",
            "TensorFlow 2.17",
        ),
        (Ending("library", code=-4), AcceleratorLost, "crashed (SIGILL)", "TensorFlow 2.17 or newer"),
        (Ending("invoke", code=-7), AcceleratorLost, "crashed (SIGBUS)", "TensorFlow 2.17 or newer"),
        (Ending("use", code=-11), AcceleratorLost, f"{NAMED} crashed (SIGSEGV)", "plug it in again"),
        (
            Ending(
                "use",
                code=-6,
                native=("I opened", "F usb_driver.cc:1148] transfer failed", "Fatal Python error: Aborted"),
            ),
            AcceleratorLost,
            "gave up while running the model (F usb_driver.cc:1148] transfer failed)",
            "plug it in again",
        ),
        (Ending("use", code=-9), AcceleratorLost, "was ended by SIGKILL", "plug it in again"),
        (Ending("create", code=3), AcceleratorLost, "ended with code 3 while opening the device", "TensorFlow 2.17"),
        (
            Ending("use", waited_s=0.9),
            AcceleratorLost,
            "usb:0 did not answer within 0.9 s while running the model",
            "plug it in again",
        ),
        (
            Ending("use", "RuntimeError", "lost itNode number 1 (EdgeTpuDelegateForCustomOp) failed to invoke."),
            AcceleratorLost,
            "usb:0 fails when the model runs: lost it",
            "plug it in again",
        ),
        (
            Ending("runtime", "ImportError", "No module named numpy"),
            AcceleratorError,
            "no interpreter: No module named numpy",
            None,
        ),
        (Ending("use", "RuntimeError", ""), AcceleratorLost, "no reason given", "plug it in again"),
        (Ending("use", code=-99), AcceleratorLost, "was ended by signal 99", "plug it in again"),
    ],
)
def test_what_is_said(ending: Ending, kind: type, message: str, hint: str) -> None:
    error = explain(ending, STOCK, RUNTIME, "usb:0")
    assert type(error) is kind
    assert message in error.message
    assert "\n" not in str(error)
    assert (hint is None and error.hint is None) or hint in str(error.hint)
    if ending.kind is not None:
        assert type(error.__cause__).__name__ == ending.kind
        assert str(error.__cause__) == ending.text
