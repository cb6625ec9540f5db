"""Files as `torch.save` writes them, without torch: its ZIP format and the older stream."""

from __future__ import annotations

import io
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Optional
from unittest import mock

import numpy as np

_STORAGES = {"float32": "FloatStorage", "float16": "HalfStorage", "float64": "DoubleStorage", "int64": "LongStorage"}


def _torch() -> dict[str, types.ModuleType]:
    """Modules with the names that a state dict's pickle mentions."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in _STORAGES.values():
        setattr(torch, name, type(name, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2(*arguments: Any) -> None:
        raise AssertionError("a pickle's call is only written here, never made")

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2  # type: ignore[attr-defined]
    return {"torch": torch, "torch._utils": utils}


class _Storage:
    def __init__(self, key: str, values: np.ndarray) -> None:
        self.key, self.values = key, values


class _Tensor:
    def __init__(self, storage: _Storage) -> None:
        self.storage = storage

    def __reduce__(self) -> tuple[Any, ...]:
        shape = self.storage.values.shape
        strides = tuple(int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))
        rebuild = sys.modules["torch._utils"]._rebuild_tensor_v2  # type: ignore[attr-defined]
        return rebuild, (self.storage, 0, shape, strides, False, OrderedDict())


class _Pickler(pickle.Pickler):
    legacy = False

    def persistent_id(self, value: Any) -> Any:
        if not isinstance(value, _Storage):
            return None
        kind = getattr(sys.modules["torch"], _STORAGES[value.values.dtype.name])
        identity = ("storage", kind, value.key, "cpu", value.values.size)
        return (*identity, None) if self.legacy else identity


def _pickled(value: Any, legacy: bool, protocol: int) -> bytes:
    stream = io.BytesIO()
    pickler = _Pickler(stream, protocol=protocol)
    pickler.legacy = legacy
    pickler.dump(value)
    return stream.getvalue()


def pth(
    state: Mapping[str, np.ndarray],
    *,
    legacy: bool = False,
    wrapped: str = "",
    arranged: Optional[Callable[[dict[str, Any]], Any]] = None,
    protocol: int = 2,
) -> bytes:
    """The file's content; with `wrapped` the state dict lies in a checkpoint's dictionary under that name.

    `arranged` makes whatever is saved of the state dict's tensors.
    """
    storages = [_Storage(str(number), np.ascontiguousarray(values)) for number, values in enumerate(state.values())]
    tensors: Any = OrderedDict((name, _Tensor(storage)) for name, storage in zip(state, storages))
    value = {"epoch": 7, wrapped: tensors} if wrapped else tensors
    if arranged is not None:
        value = arranged(tensors)
    with mock.patch.dict(sys.modules, _torch()):
        body = _pickled(value, legacy, protocol)
    if not legacy:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr("weights/data.pkl", body)
            archive.writestr("weights/byteorder", b"little")
            for storage in storages:
                archive.writestr(f"weights/data/{storage.key}", _content(storage))
            archive.writestr("weights/version", b"3\n")
        return stream.getvalue()
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    head = [pickle.dumps(part, protocol=2) for part in (0x1950A86A20F9469CFC6C, 1001, system)]
    keys = pickle.dumps([storage.key for storage in storages], protocol=2)
    tail = [storage.values.size.to_bytes(8, "little") + _content(storage) for storage in storages]
    return b"".join([*head, body, keys, *tail])


def _content(storage: _Storage) -> bytes:
    return storage.values.astype(storage.values.dtype.newbyteorder("<")).tobytes()
