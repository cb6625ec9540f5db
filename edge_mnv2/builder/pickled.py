"""The pickles inside PyTorch files, read as data.

`pickletools.genops` only splits a pickle into its instructions; the few that a state dict needs are carried out here on
plain containers. Nothing is imported, looked up or called, so a hostile file can do no more than be refused.
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, BinaryIO

from edge_mnv2.errors import ModelError

STORAGES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
"""PyTorch's storage class → the type of its values."""

_MOST_INSTRUCTIONS = 5_000_000


@dataclass(frozen=True)
class Storage:
    """A flat run of values that follows elsewhere in the file under `key`."""

    key: str
    dtype: str
    count: int


@dataclass(frozen=True)
class StoredTensor:
    """A view of a storage: first value, shape and strides, all counted in values."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class _Name:
    module: str
    name: str


_MARK = object()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = {
    "BININT",
    "BININT1",
    "BININT2",
    "LONG1",
    "BINFLOAT",
    "BINUNICODE",
    "SHORT_BINUNICODE",
    "BINSTRING",
    "SHORT_BINSTRING",
}
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}


def load(stream: BinaryIO, name: str) -> Any:
    """The object that the pickle at the stream's position describes; the stream ends up behind it.

    Dictionaries (ordered or not), lists, tuples, numbers, text, `StoredTensor`. Raises ModelError, which calls the file
    `name`, for everything else.
    """
    machine = _Machine(name)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if count > _MOST_INSTRUCTIONS:
                raise machine.refused("it has too many instructions")
            machine.step(opcode.name, argument)
        return machine.result()
    except ModelError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, MemoryError, EOFError) as error:
        raise ModelError(f"{name} is damaged: its pickle cannot be followed", hint="get the file again") from error


class _Machine:
    def __init__(self, name: str) -> None:
        self._file = name
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def refused(self, what: str) -> ModelError:
        return ModelError(
            # A damaged name may hold anything; a terminal is not to carry it out.
            f"{self._file} is refused: {what if what.isprintable() else ascii(what)[1:-1]}",
            hint="a state dict is needed: torch.save(model.state_dict(), FILE)",
        )

    def result(self) -> Any:
        (value,) = self._stack
        return value

    def step(self, opcode: str, argument: Any) -> None:
        stack = self._stack
        if opcode in _LITERALS:
            stack.append(argument)
        elif opcode in _CONSTANTS:
            stack.append(_CONSTANTS[opcode])
        elif opcode in _EMPTY:
            stack.append(_EMPTY[opcode]())
        elif opcode == "MARK":
            stack.append(_MARK)
        elif opcode in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = stack[-1]
        elif opcode == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif opcode in ("BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        elif opcode in ("TUPLE1", "TUPLE2", "TUPLE3"):
            size = int(opcode[-1])
            stack[-size:] = [tuple(stack[-size:])]
        elif opcode == "TUPLE":
            stack.append(tuple(self._since_mark()))
        elif opcode in ("APPEND", "APPENDS", "SETITEM", "SETITEMS"):
            self._fill(opcode)
        elif opcode == "GLOBAL":
            module, _, attribute = argument.partition(" ")
            stack.append(_Name(module, attribute))
        elif opcode == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            stack.append(_Name(module, attribute))
        elif opcode == "BINPERSID":
            stack.append(self._storage(stack.pop()))
        elif opcode == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            stack.append(self._made(function, arguments))
        elif opcode == "BUILD":
            # A state dict's attributes (versions of its modules) say nothing about its tensors.
            stack.pop()
            if not isinstance(stack[-1], dict):
                raise self.refused("it restores an object")
        elif opcode not in ("PROTO", "FRAME", "STOP"):
            raise self.refused(f"it uses the pickle instruction {opcode}")

    def _since_mark(self) -> list[Any]:
        position = len(self._stack) - 1
        while self._stack[position] is not _MARK:
            position -= 1
            if position < 0:
                raise IndexError("no mark")
        values = self._stack[position + 1 :]
        del self._stack[position:]
        return values

    def _fill(self, opcode: str) -> None:
        if opcode.endswith("S"):
            values = self._since_mark()
        else:
            size = 1 if opcode == "APPEND" else 2
            values = self._stack[-size:]
            del self._stack[-size:]
        target = self._stack[-1]
        if not isinstance(target, list if opcode.startswith("APPEND") else dict):
            raise TypeError("a container of another kind")
        if isinstance(target, list):
            target.extend(values)
        else:
            self._set(target, zip(values[::2], values[1::2]))

    def _set(self, target: dict, pairs: Iterable[tuple[Any, Any]]) -> None:
        for key, value in pairs:
            # Other keys would have to be hashed, which runs deep in nested tuples.
            if not isinstance(key, (str, int)):
                raise self.refused(f"it has a key of type {type(key).__name__}")
            target[key] = value

    def _storage(self, description: Any) -> Storage:
        kind, storage, key, _, count = description[:5]
        if kind != "storage" or not isinstance(storage, _Name) or not isinstance(key, (str, int)):
            raise self.refused("it refers to something outside")
        dtype = STORAGES.get(storage.name) if storage.module in ("torch", "torch.storage") else None
        if dtype is None:
            raise self.refused(f"it holds {storage.module}.{storage.name}")
        if not isinstance(count, int) or count < 0:
            raise ValueError("storage size")
        return Storage(str(key), dtype, count)

    def _made(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, _Name):
            raise self.refused("it calls something that it made itself")
        full = f"{function.module}.{function.name}"
        if full == "collections.OrderedDict":
            made: dict = {}
            self._set(made, arguments[0] if arguments else ())
            return made
        if full == "torch._utils._rebuild_tensor_v2":
            storage, offset, shape, strides = arguments[:4]
            if not isinstance(storage, Storage):
                raise TypeError("no storage")
            numbers = (offset, *shape, *strides)
            if not all(type(number) is int and 0 <= number < 1 << 40 for number in numbers):
                raise ValueError("a shape")
            return StoredTensor(storage, offset, tuple(shape), tuple(strides))
        if full == "torch._utils._rebuild_parameter":
            if not isinstance(arguments[0], StoredTensor):
                raise TypeError("no tensor")
            return arguments[0]
        raise self.refused(f"it calls {full}")
