"""YAML read strictly: every key is known and of its type, none is given twice, and an error names file and key."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional, Union

from edge_mnv2.errors import EdgeMnv2Error

MAX_BYTES = 1 << 20


def parse_yaml(data: bytes, name: str, error: type[EdgeMnv2Error]) -> Any:
    """The document in `data` as plain Python values. Raises `error` naming `name` and the line."""
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict:
            seen = set()
            for key_node, _ in node.value:
                if key_node.value in seen and isinstance(key_node.value, str):
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key '{key_node.value}' is given twice", key_node.start_mark
                    )
                seen.add(key_node.value if isinstance(key_node.value, str) else id(key_node))
            return super().construct_mapping(node, deep)

    if len(data) > MAX_BYTES:
        raise error(f"{name} is too large for a settings file ({len(data)} bytes)")
    try:
        return yaml.load(data.decode("utf-8-sig"), Loader)
    except UnicodeDecodeError:
        raise error(f"{name} is not UTF-8 text") from None
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        text = getattr(problem, "problem", None) or str(problem).splitlines()[0]
        raise error(f"{name}{line}: {text}") from None
    except (ValueError, RecursionError, OverflowError) as problem:
        raise error(f"{name}: {problem}") from None


def read_yaml(path: Path, error: type[EdgeMnv2Error]) -> Any:
    """`parse_yaml` for a file."""
    try:
        with path.open("rb") as handle:
            data = handle.read(MAX_BYTES + 1)
    except (OSError, ValueError) as problem:
        raise error(f"{path} cannot be read: {getattr(problem, 'strerror', None) or problem}") from None
    return parse_yaml(data, str(path), error)


class Fields:
    """One mapping, taken key by key; `end` complains about what nobody took.

    Each reader returns None for a key that is not there, and raises `error` naming `where` and the key for a value of
    another type.
    """

    def __init__(self, values: Any, where: str, error: type[EdgeMnv2Error]) -> None:
        if not isinstance(values, dict):
            raise error(f"{where} is not a mapping of keys to values")
        self._values = dict(values)
        self._known: list[str] = []
        self.where = where
        self.error = error

    def _take(self, key: str) -> Any:
        self._known.append(key)
        return self._values.pop(key, None)

    def wrong(self, key: str, expected: str) -> EdgeMnv2Error:
        """The error for `key`, for checks of the caller's own."""
        return self.error(f"{self.where}: '{key}' must be {expected}")

    def missing(self, key: str) -> EdgeMnv2Error:
        return self.error(f"{self.where}: '{key}' is missing")

    def text(self, key: str, choices: Optional[Sequence[str]] = None) -> Optional[str]:
        value = self._take(key)
        if value is None:
            return None
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(key, "text (put it in quotes)")
        if choices is not None and value not in choices:
            raise self.wrong(key, f"one of {', '.join(choices)}, not '{value}'")
        return value

    def required_text(self, key: str) -> str:
        value = self.text(key)
        if value is None:
            raise self.missing(key)
        return value

    def integer(self, key: str, least: int = 0) -> Optional[int]:
        value = self._take(key)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise self.wrong(key, f"a whole number of at least {least}")
        return value

    def flag(self, key: str) -> bool:
        """A boolean, False where it is not there."""
        value = self._take(key)
        if value is not None and not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return bool(value)

    def numbers(self, key: str, count: int) -> Optional[tuple[float, ...]]:
        """`count` numbers; one number stands for all of them."""
        value = self._take(key)
        if value is None:
            return None
        values = value if isinstance(value, list) else [value] * count
        fine = all(isinstance(n, (int, float)) and not isinstance(n, bool) and abs(n) < 1e30 for n in values)
        if len(values) != count or not fine:
            raise self.wrong(key, f"a number, or a list of {count}")
        return tuple(float(n) for n in values)

    def sequence(self, key: str) -> Optional[list]:
        value = self._take(key)
        if value is not None and not isinstance(value, list):
            raise self.wrong(key, "a list")
        return value

    def mapping(self, key: str) -> Optional[dict]:
        value = self._take(key)
        if value is not None and not isinstance(value, dict):
            raise self.wrong(key, "a mapping")
        return value

    def text_or_names(self, key: str) -> Union[str, tuple[str, ...], None]:
        """A file's name, or a list of names written in place."""
        value = self._take(key)
        if value is None or (isinstance(value, str) and value.strip()):
            return value
        if isinstance(value, list) and value and all(isinstance(name, str) and name.strip() for name in value):
            return tuple(name.strip() for name in value)
        raise self.wrong(key, "a file's name or a list of names (quote numbers, and words such as yes and no)")

    def end(self) -> None:
        """Raises `error` for the first key that is not part of the schema."""
        for key in self._values:
            raise self.error(f"{self.where}: unknown key '{key}'", hint=f"known: {', '.join(self._known)}")
