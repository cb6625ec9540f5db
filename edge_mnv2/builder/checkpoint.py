"""Tensors out of files of trained weights: PyTorch's legacy stream, its ZIP format, and safetensors.

Nothing in a file is executed (see `pickled`), and nothing is believed that the file's own size does not bear out.
"""

from __future__ import annotations

import io
import json
import logging
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, Optional, Union

import numpy as np

from edge_mnv2.builder.naming import is_copy, recognized
from edge_mnv2.builder.pickled import Placeholder, StoredTensor, load
from edge_mnv2.errors import ModelError
from edge_mnv2.files import content

log = logging.getLogger(__name__)

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
_LEGACY_START = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_MOST_BYTES = 2 << 30
_CONVERT = "save it with model.save('m.keras'), or convert it with TFLiteConverter: `run` takes the .tflite"
_OTHERS = {
    ".pb": ("a TensorFlow graph", _CONVERT),
    ".onnx": ("an ONNX model", "`edge-mnv2 run --model` takes it as it is"),
    ".tflite": ("a .tflite model", "`edge-mnv2 run --model` takes it as it is"),
}
_DEEPEST, _MOST_PARTS = 40, 100_000
_SAFETENSORS = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """The named tensors in `path`, in the file's order, bfloat16 as float32.

    Of a training checkpoint the state dict is taken, in whatever dictionary it is; of a module that was saved whole its
    tensors. Raises ModelError for a file that is missing, damaged, of another kind, or that asks for a call.
    """
    path = Path(path)
    if path.is_dir():
        raise _folder(path)
    try:
        if path.exists() and not path.is_file():
            raise ModelError(f"weights {path} are not a regular file")
        if path.stat().st_size > _MOST_BYTES:
            raise ModelError(
                f"{path} has {path.stat().st_size >> 20} MB", hint="weights of MobileNetV2 have 5 to 60 MB"
            )
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"weights {path} cannot be read: {error.strerror or error}") from error
    name = f"weights {path}"
    if data.startswith(_LEGACY_START):
        return _readable(_state_dict(*_legacy(data, name), name), name)
    if data.startswith(b"PK\x03\x04"):
        return _readable(_state_dict(*_zip(data, name), name), name)
    if data[8:9] == b"{" and path.suffix.lower() in (".safetensors", ""):
        return _readable(_safetensors(data, name), name)
    kind, hint = _OTHERS.get(path.suffix.lower(), (content(data[:512]), "a .pth, .safetensors, .h5 or .keras file"))
    raise ModelError(f"{name} are {kind or 'of no known kind'}", hint=hint)


def _folder(path: Path) -> ModelError:
    """What is in a folder that is given for weights, and what to do."""
    if (path / "saved_model.pb").exists():
        return ModelError(f"weights {path} are a TensorFlow SavedModel", hint=_CONVERT)
    inside = next((one.name for one in sorted(path.glob("*")) if one.suffix in (".safetensors", ".bin", ".pth")), None)
    return ModelError(f"weights {path} are a folder", hint=f"--weights {path / inside}" if inside else None)


def _readable(tensors: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """`tensors`, whose names messages can show."""
    for key in tensors:
        if not key.isprintable():
            raise _damaged(name, f"a tensor is called {key!a}")
    return tensors


def _damaged(name: str, what: str) -> ModelError:
    return ModelError(f"{name} are damaged: {what}", hint="get the file again")


_Contents = Callable[[str], Any]


def _legacy(data: bytes, name: str) -> tuple[Any, _Contents]:
    stream = io.BytesIO(data)
    magic, protocol, system = (load(stream, name) for _ in range(3))
    if magic != LEGACY_MAGIC or protocol != LEGACY_PROTOCOL:
        raise _damaged(name, "its version is unknown")
    if isinstance(system, dict) and system.get("little_endian") is False:
        raise ModelError(f"{name} were written on a big-endian machine", hint="save them again with a current PyTorch")
    value, keys = load(stream, name), load(stream, name)
    position = stream.tell()
    tensors = [one for _, one in _containers(value) if isinstance(one, StoredTensor)]
    sizes = {tensor.storage.key: tensor.storage for tensor in tensors}
    contents = {}
    for key in keys if isinstance(keys, list) else ():
        storage = sizes.get(str(key))
        if storage is None or position + 8 > len(data):
            raise _damaged(name, "its list of storages does not fit")
        (count,) = struct.unpack_from("<q", data, position)
        nbytes = count * _itemsize(storage.dtype)
        if count != storage.count or position + 8 + nbytes > len(data):
            raise _damaged(name, f"the file ends within its tensors ({len(data)} bytes)")
        contents[storage.key] = memoryview(data)[position + 8 : position + 8 + nbytes]
        position += 8 + nbytes
    return value, contents.get


def _zip(data: bytes, name: str) -> tuple[Any, _Contents]:
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        members = {member.filename: member for member in archive.infolist()}
        (pickle,) = (member for member in members if member.endswith("/data.pkl") or member == "data.pkl")
        root = pickle[: -len("data.pkl")]
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, UnicodeDecodeError) as error:
        raise ModelError(f"{name} are a ZIP without PyTorch's data.pkl, or a damaged one") from error

    def content(member: str) -> Optional[bytes]:
        info = members.get(root + member)
        if info is None:
            return None
        # PyTorch stores without compression; anything else could unfold to any size.
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > len(data):
            raise _damaged(name, f"its member {member} is not stored as PyTorch does")
        try:
            return archive.read(info)
        except (
            zipfile.BadZipFile,
            OSError,
            ValueError,
            NotImplementedError,
            RuntimeError,
            EOFError,
            struct.error,
        ) as error:
            raise _damaged(name, f"its member {member} does not fit its checksum") from error

    if content("byteorder") not in (None, b"little"):
        raise ModelError(f"{name} were written on a big-endian machine", hint="save them again with a current PyTorch")
    value = load(io.BytesIO(content("data.pkl") or b""), name)
    return value, lambda key: content(f"data/{key}")


def _itemsize(dtype: str) -> int:
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


def _values(content: Any, dtype: str) -> np.ndarray:
    if dtype == "bfloat16":
        return (np.frombuffer(content, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(content, np.dtype(dtype).newbyteorder("<"))


def _containers(value: Any) -> Iterator[tuple[str, Union[dict, Placeholder, StoredTensor]]]:
    """Every dictionary, placeholder and tensor in `value`, each once and the outer ones first, with the keys to it."""
    waiting: list[tuple[str, Any]] = [("", value)]
    seen: set[int] = set()
    for path, one in waiting:
        if not isinstance(one, (dict, list, tuple, Placeholder, StoredTensor)) or id(one) in seen:
            continue
        seen.add(id(one))
        if not isinstance(one, (list, tuple)):
            yield path, one
        if isinstance(one, dict):
            waiting += [(f"{path}.{key}" if path else str(key), child) for key, child in one.items()]
        elif isinstance(one, Placeholder):
            waiting += [(path, one.state), (path, one.entries)]
        elif not isinstance(one, StoredTensor):
            waiting += [(path, child) for child in one]


def _state_dict(value: Any, content: _Contents, name: str) -> dict[str, np.ndarray]:
    """The state dict in `value`: of all dictionaries and modules with tensors the first that is a MobileNetV2's."""
    visits = iter(range(_MOST_PARTS))
    try:
        candidates = [(path, entries) for path, one in _containers(value) if (entries := _entries(one, visits))]
    except StopIteration:
        raise _damaged(name, "it has more parts than a network can have") from None
    if not candidates:
        raise ModelError(f"{name} hold no state dict", hint="save one with torch.save(model.state_dict(), FILE)")
    networks = [one for one in candidates if recognized(one[1])] or [max(candidates, key=lambda one: len(one[1]))]
    # An averaged copy ("model_ema") is another result of the training than the one that its script reports first.
    path, entries = min(networks, key=lambda one: is_copy(one[0]))
    others = list(dict.fromkeys(other for other, _ in networks if not f"{other}.".startswith(f"{path}.")))
    if path and others:
        log.warning("%s: the weights under '%s' are used, not those under '%s'", name, path, "', '".join(others[:3]))
    for key, tensor in entries.items():
        if isinstance(tensor, Placeholder) and key.endswith((".weight", ".bias", ".running_mean", ".running_var")):
            raise ModelError(
                f"{name}: '{key}' is made by {tensor.name}, which is not executed",
                hint="save floating-point weights with torch.save(model.state_dict(), FILE)",
            )
    return {
        key: _tensor(key, tensor, content, name) for key, tensor in entries.items() if isinstance(tensor, StoredTensor)
    }


def _entries(one: Any, visits: Iterator[int], prefix: str = "", depth: int = 0) -> dict[str, Any]:
    """Name → tensor (or what stands in its place) of a state dict, or of a module that was saved whole.

    Raises StopIteration after too many visits: parts may refer to each other over and over.
    """
    next(visits)
    entries: dict[str, Any] = {}
    if isinstance(one, dict):
        entries = {key: entry for key, entry in one.items() if isinstance(key, str) and not isinstance(entry, dict)}
    elif isinstance(one, Placeholder) and isinstance(one.state, dict) and depth < _DEEPEST:
        for key, entry in one.state.items():
            inside = key in ("_parameters", "_buffers", "_modules") and isinstance(entry, dict)
            for name, child in (entry if inside else {key: entry}).items():
                if isinstance(child, StoredTensor):
                    entries[f"{prefix}{name}"] = child
                elif isinstance(child, Placeholder):
                    entries.update(_entries(child, visits, f"{prefix}{name}.", depth + 1))
    if not any(isinstance(entry, StoredTensor) for entry in entries.values()):
        return {}
    return {key: entry for key, entry in entries.items() if isinstance(entry, (StoredTensor, Placeholder))}


def _tensor(key: str, tensor: StoredTensor, content: _Contents, name: str) -> np.ndarray:
    storage, shape, strides = tensor.storage, tensor.shape, tensor.strides
    raw = content(storage.key)
    if raw is None or len(raw) != storage.count * _itemsize(storage.dtype):
        raise _damaged(name, f"the values of '{key}' are missing or cut")
    if len(shape) != len(strides) or len(shape) > 8:
        raise _damaged(name, f"'{key}' has {len(shape)} dimensions and {len(strides)} strides")
    count = 1
    for size in shape:
        count *= size
    last = tensor.offset + sum((size - 1) * stride for size, stride in zip(shape, strides))
    if count > storage.count or (count > 0 and last >= storage.count):
        raise _damaged(name, f"'{key}' reaches beyond its values")
    values = _values(raw, storage.dtype)
    if count == 0:
        return np.zeros(shape, values.dtype)
    view = np.lib.stride_tricks.as_strided(
        values[tensor.offset :], shape, [stride * values.itemsize for stride in strides], writeable=False
    )
    return np.ascontiguousarray(view)


def _safetensors(data: bytes, name: str) -> dict[str, np.ndarray]:
    (length,) = struct.unpack_from("<Q", data)
    if length > len(data) - 8:
        raise _damaged(name, f"the file ends within its header ({len(data)} bytes)")
    try:
        header = json.loads(data[8 : 8 + length].decode("utf-8"))
        values = memoryview(data)[8 + length :]
        tensors = {}
        for key, entry in header.items():
            if key == "__metadata__":
                continue
            dtype, shape, (start, end) = _SAFETENSORS[entry["dtype"]], tuple(entry["shape"]), entry["data_offsets"]
            if not all(type(number) is int and number >= 0 for number in (start, end, *shape)) or end > len(values):
                raise ValueError("offsets")
            tensors[key] = _values(values[start:end], dtype).reshape(shape)
        return tensors
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError, MemoryError) as error:
        raise _damaged(name, "the header does not describe the tensors") from error
