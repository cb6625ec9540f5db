"""Load the delegate into this process. Only a worker process does that: a library that does not fit ends it."""

from __future__ import annotations

import ctypes
from typing import Any

from edge_mnv2.errors import AcceleratorError
from edge_mnv2.runtime.edgetpu.library import PLUGIN_SYMBOLS
from edge_mnv2.runtime.interpreter import first_line, import_runtime

_KINDS = {0: "pci", 1: "usb"}
"""`edgetpu_device_type` of the library's C interface."""


class _Device(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int), ("path", ctypes.c_char_p))


def load(library: str, option: str = "", runtime: str = "auto") -> Any:
    """The runtime's own delegate object for `device=option`.

    Raises AcceleratorError, with the native error as its cause: OSError (no such library, or not one), AttributeError
    (a library without the delegate's functions), ValueError (the library refuses; its text is often empty),
    RuntimeError (not CPython).
    """
    module, _ = import_runtime(runtime)
    try:
        # Looked up here first: the runtime's own loader leaves half an object behind whose destructor complains.
        native = ctypes.CDLL(library)
        for symbol in PLUGIN_SYMBOLS:
            getattr(native, symbol.decode())
        return module.load_delegate(library, {"device": option})
    except (OSError, AttributeError, ValueError, RuntimeError) as error:
        raise AcceleratorError(f"the Edge TPU library {library} gives no delegate: {first_line(error)}") from error


def version(library: str) -> str:
    """What the library says about itself, "" where it says nothing."""
    try:
        function = ctypes.CDLL(library).edgetpu_version
    except (OSError, AttributeError):
        return ""
    function.restype = ctypes.c_char_p
    return (function() or b"").decode(errors="replace")


def option_for(library: str, paths: tuple[str, ...], otherwise: str) -> str:
    """The `device` option that means the device at one of `paths` (its `/sys` folder, its device file).

    The library counts its devices in an order of its own, which changes when a stick loads its firmware, so it is
    asked; `otherwise` where it cannot be asked or does not list the device.
    """
    try:
        native = ctypes.CDLL(library)
        native.edgetpu_list_devices.restype = ctypes.POINTER(_Device)
        native.edgetpu_list_devices.argtypes = (ctypes.POINTER(ctypes.c_size_t),)
        native.edgetpu_free_devices.argtypes = (ctypes.POINTER(_Device),)
        native.edgetpu_free_devices.restype = None
    except (OSError, AttributeError):
        return otherwise
    count = ctypes.c_size_t()
    devices = native.edgetpu_list_devices(ctypes.byref(count))
    if not devices:
        return otherwise
    try:
        seen = {"pci": 0, "usb": 0}
        for position in range(count.value):
            kind = _KINDS.get(devices[position].type)
            if kind is None:
                continue
            if (devices[position].path or b"").decode(errors="replace") in paths:
                return f"{kind}:{seen[kind]}"
            seen[kind] += 1
    finally:
        native.edgetpu_free_devices(devices)
    return otherwise
