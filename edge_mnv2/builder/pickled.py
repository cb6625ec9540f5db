"""The pickles inside PyTorch files, read as data.

`pickletools.genops` only splits a pickle into its instructions; they are carried out here on plain containers. Nothing
is imported, looked up or called. An object of a class that is not known stays a `Placeholder`: training scripts leave
options, schedulers and numpy scalars beside the weights. A pickle that asks for a function to be called is refused.
"""

from __future__ import annotations

import pickletools
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Callable, Union

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
_DICTIONARIES = {"collections.OrderedDict", "collections.defaultdict", "collections.Counter", "builtins.dict"}
_BUILTINS = ("bool", "bytearray", "bytes", "complex", "float", "frozenset", "getattr", "int", "list", "long", "object")
_FUNCTIONS = frozenset(
    (
        *(f"builtins.{name}" for name in (*_BUILTINS, "range", "set", "slice", "str", "tuple", "unicode", "xrange")),
        *("_codecs.encode", "collections.deque", "copyreg.__newobj__", "copyreg._reconstructor", "functools.partial"),
        *(f"datetime.{name}" for name in ("date", "datetime", "time", "timedelta", "timezone")),
        *("itertools.chain", "itertools.count", "itertools.cycle", "re._compile"),
        *("numpy.dtype", "numpy.ndarray", "torch.device", "torch.storage._load_from_bytes"),
    )
)
"""Calls that only make a value, beside those of classes, which are written with a capital letter."""

_MAKERS = (
    "numpy.core.multiarray.",
    "numpy._core.multiarray.",
    "numpy._core.numeric.",
    "torch._utils._rebuild",
    "torch.jit._pickle.",
)
_ACTING = frozenset(
    ("os", "posix", "nt", "subprocess", "commands", "socket", "ctypes", "multiprocessing", "shutil", "code")
)
_STANDARD = frozenset(getattr(sys, "stdlib_module_names", ())) | _ACTING
_PLAIN = frozenset(
    (
        *(
            "argparse",
            "array",
            "builtins",
            "collections",
            "contextlib",
            "copyreg",
            "dataclasses",
            "datetime",
            "decimal",
        ),
        *("enum", "fractions", "functools", "itertools", "logging", "numbers", "pathlib", "random"),
        *("types", "typing", "uuid", "weakref", "zoneinfo"),
    )
)
"""The standard library's modules whose classes only hold something; others may do something when they are made."""

_OLD_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg"}


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


@dataclass(eq=False)
class Placeholder:
    """Stands for an object of the class `name`, which is not made: what the pickle would have given it.

    `state` are its attributes, `entries` what it holds as a dictionary.
    """

    name: str
    state: Any = None
    entries: dict = field(default_factory=dict)


@dataclass(frozen=True)
class _Global:
    """A class or function by its name only."""

    name: str


_MARK = object()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    )
)
_EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": lambda: Placeholder("builtins.set"),
}


def load(stream: BinaryIO, name: str) -> Any:
    """The object that the pickle at the stream's position describes; the stream ends up behind it.

    Dictionaries (ordered or not), lists, tuples, numbers, text, `StoredTensor`, and a `Placeholder` for all else.
    Raises ModelError, which calls the file `name`, for a damaged pickle and for one that would call a function.
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
        elif opcode in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[int(argument)] = stack[-1]
        elif opcode == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif opcode in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self._memo[int(argument)])
        elif opcode in ("POP", "POP_MARK", "DUP"):
            if opcode == "POP_MARK":
                self._since_mark()
            else:
                stack.append(stack[-1]) if opcode == "DUP" else stack.pop()
        elif opcode in ("TUPLE1", "TUPLE2", "TUPLE3"):
            size = int(opcode[-1])
            stack[-size:] = [tuple(stack[-size:])]
        elif opcode in ("TUPLE", "LIST", "DICT", "FROZENSET"):
            self._collect(opcode)
        elif opcode in ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS"):
            self._fill(opcode)
        elif opcode in ("GLOBAL", "STACK_GLOBAL"):
            names = argument.split(" ") if opcode == "GLOBAL" else [stack.pop(), stack.pop()][::-1]
            stack.append(self._global(*names))
        elif opcode in ("BINPERSID", "REDUCE", "NEWOBJ", "NEWOBJ_EX", "INST", "OBJ", "BUILD"):
            self._object(opcode, argument)
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

    def _collect(self, opcode: str) -> None:
        values: Any = self._since_mark()
        if opcode == "DICT":
            pairs, values = zip(values[::2], values[1::2]), {}
            self._set(values, pairs)
        self._stack.append(
            tuple(values)
            if opcode == "TUPLE"
            else Placeholder("builtins.frozenset")
            if opcode == "FROZENSET"
            else values
        )

    def _fill(self, opcode: str) -> None:
        if opcode.endswith("S"):
            values = self._since_mark()
        else:
            size = 1 if opcode == "APPEND" else 2
            values = self._stack[-size:]
            del self._stack[-size:]
        target = self._stack[-1]
        if opcode.startswith("SETITEM"):
            self._set(target.entries if isinstance(target, Placeholder) else target, zip(values[::2], values[1::2]))
        elif isinstance(target, list):
            target.extend(values)
        elif not isinstance(target, Placeholder):
            raise TypeError("a container of another kind")

    def _set(self, target: Any, pairs: Iterable[tuple[Any, Any]]) -> None:
        if not isinstance(target, dict):
            raise TypeError("a container of another kind")
        for number, (key, value) in enumerate(pairs, len(target)):
            # Other keys would have to be hashed, which runs deep in nested tuples; nothing is looked up by them.
            target[key if isinstance(key, (str, int)) else f"<{type(key).__name__} {number}>"] = value

    def _global(self, module: Any, name: Any) -> _Global:
        if not isinstance(module, str) or not isinstance(name, str):
            raise TypeError("a name that is no text")
        return _Global(f"{_OLD_MODULES.get(module, module)}.{name}")

    def _object(self, opcode: str, argument: Any) -> None:
        stack = self._stack
        if opcode == "BINPERSID":
            stack.append(self._outside(stack.pop()))
        elif opcode == "BUILD":
            state = stack.pop()
            # A state dict's attributes (versions of its modules) say nothing about its tensors.
            if isinstance(stack[-1], Placeholder):
                stack[-1].state = state
            elif not isinstance(stack[-1], (dict, StoredTensor)):
                raise TypeError("a state without an object")
        elif opcode in ("INST", "OBJ"):
            values = self._since_mark()
            made = self._global(*argument.split(" ")) if opcode == "INST" else values.pop(0)
            stack.append(self._made(made, tuple(values)))
        else:
            if opcode == "NEWOBJ_EX":
                stack.pop()
            arguments, function = stack.pop(), stack.pop()
            stack.append(self._made(function, arguments, is_class=opcode != "REDUCE"))

    def _outside(self, description: Any) -> Any:
        """What a persistent id stands for: a storage, or in old files a module's class with its source."""
        kind, target = description[:2]
        if kind == "module" and isinstance(target, _Global):
            return target
        if kind != "storage" or not isinstance(target, _Global) or not isinstance(description[2], (str, int)):
            raise self.refused("it refers to something outside")
        module, _, name = target.name.rpartition(".")
        dtype = STORAGES.get(name) if module in ("torch", "torch.storage", "torch.cuda") else None
        if dtype is None:
            return Placeholder(target.name)
        count = description[4]
        if not isinstance(count, int) or count < 0:
            raise ValueError("storage size")
        return Storage(str(description[2]), dtype, count)

    def _made(self, function: Any, arguments: Any, *, is_class: bool = False) -> Any:
        if not isinstance(function, _Global) or not isinstance(arguments, tuple):
            raise self.refused("it calls something that it made itself")
        name = function.name
        if name in _DICTIONARIES:
            return self._dictionary(arguments)
        if name in ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor"):
            return _tensor(*arguments[:4])
        if name in ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"):
            return arguments[0]
        if name == "torch._tensor._rebuild_from_type_v2":
            return self._made(arguments[0], arguments[2])
        if not _makes_a_value(name) and not (is_class and _only_holds(name)):
            raise self.refused(f"it calls {name}")
        return Placeholder(name)

    def _dictionary(self, arguments: tuple) -> dict:
        made: dict = {}
        content = arguments[-1] if arguments else ()
        if isinstance(content, dict):
            self._set(made, content.items())
        elif isinstance(content, (list, tuple)):
            self._set(made, content)
        return made


def _makes_a_value(name: str) -> bool:
    """Whether a call of `name` would only make a value or an object."""
    if name in _FUNCTIONS or name.startswith(_MAKERS):
        return True
    return name.rpartition(".")[2].lstrip("_")[:1].isupper() and _only_holds(name)


def _only_holds(name: str) -> bool:
    module = name.split(".")[0]
    return module in _PLAIN or module not in _STANDARD


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> Union[StoredTensor, Placeholder]:
    if isinstance(storage, Placeholder):
        return storage
    if not isinstance(storage, Storage):
        raise TypeError("no storage")
    numbers = (offset, *shape, *strides)
    if not all(type(number) is int and 0 <= number < 1 << 40 for number in numbers):
        raise ValueError("a shape")
    return StoredTensor(storage, offset, tuple(shape), tuple(strides))
