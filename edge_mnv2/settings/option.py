"""An option, declared once: its variable, help line, profile key, range check and documentation follow from it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from edge_mnv2.errors import UsageError
from edge_mnv2.settings.kinds import Flag, Kind

COMMAND_LINE, ENVIRONMENT, DEFAULT = "command line", "environment", "default"


def never(_value: Any) -> bool:
    return False


def always(_value: Any) -> bool:
    return True


def has_password(address: Any) -> bool:
    """Whether an address has a password in it, or what looks like one."""
    from edge_mnv2.addresses import secrets_of

    return bool(secrets_of(str(address)))


@dataclass(frozen=True, eq=False)
class Option:
    """One option of one or several commands.

    `keys` are the dotted profile keys of the same meaning (two for `--size`). `alone` is what the option means without
    a value. `secret(text)` is true where other users of the machine may not see the text. A `repeated` option has a
    tuple of values. `no` is true where `--no-NAME` exists. `shared` is false for an option without a variable. `path`
    is "file" or "folder" for what is written, "read" for what may be the name of a file.
    """

    name: str
    kind: Kind
    help: str
    default: Any = None
    metavar: str = ""
    panel: str = "Options"
    keys: tuple[str, ...] = ()
    short: str = ""
    alone: Optional[str] = None
    secret: Callable[[Any], bool] = never
    repeated: bool = False
    no: bool = False
    hidden: bool = False
    shared: bool = True
    path: str = ""

    @property
    def variable(self) -> str:
        return variable(self.name)

    @property
    def flag(self) -> bool:
        return isinstance(self.kind, Flag)

    @property
    def value_name(self) -> str:
        """What stands for the value in help."""
        name = self.metavar or self.kind.metavar
        return f"[{name}]" if self.alone is not None else name

    @property
    def help_line(self) -> str:
        """The help with the default, which is written nowhere else; `{expects}` in it is what the kind takes."""
        help = self.help.replace("{expects}", self.kind.expects) if "{expects}" in self.help else self.help
        if self.default in (None, (), "") or (self.flag and not self.no):
            return help
        shown = ("" if self.default else "no-") + self.name if self.flag else self.kind.written(self.default)
        return f"{help.rstrip('.')} (default {shown})."

    def called(self, origin: str) -> str:
        """The option, or its variable where the value came from there."""
        return self.variable if origin == ENVIRONMENT else f"--{self.name}"

    def parse(self, text: str, origin: str = COMMAND_LINE) -> Any:
        """The typed value of one text. Raises UsageError, which names the option or the variable."""
        from edge_mnv2.messages import shown

        try:
            return self.kind.parse(text)
        except UsageError:
            raise
        except ValueError as error:
            value = "its value" if self.secret(text) else shown(text)
            raise UsageError(
                f"{self.called(origin)}: {value} is not {self.kind.expects}", hint=str(error) or None
            ) from None


@dataclass(frozen=True)
class Value:
    """A typed value and where it came from: "command line", "environment" or "default"."""

    value: Any
    origin: str = DEFAULT

    @property
    def said(self) -> bool:
        """Whether somebody chose it."""
        return self.origin != DEFAULT


def variable(name: str) -> str:
    """The environment variable of an option, without the command's name."""
    return "EDGE_MNV2_" + name.replace("-", "_").upper()


def value_of(option: Option, typed: Optional[Iterable[str]], environ: Optional[Mapping[str, str]] = None) -> Value:
    """The option's value from the texts that were typed (None: not at all), else from its variable, else the default.

    Raises UsageError for a wrong value, and where one that is not `repeated` is given twice with different values.
    """
    if typed is not None:
        texts = list(typed)
        if option.repeated:
            return Value(tuple(option.parse(text) for text in texts), COMMAND_LINE)
        if len(set(texts)) > 1:
            both = "two values" if any(map(option.secret, texts)) else " and ".join(dict.fromkeys(texts))
            raise UsageError(f"--{option.name} is given twice: {both}", hint="give it once")
        return Value(option.parse(texts[0]), COMMAND_LINE)
    text = (os.environ if environ is None else environ).get(option.variable, "") if option.shared else ""
    if not text:
        return Value(option.default)
    if option.repeated:
        return Value(tuple(option.parse(part, ENVIRONMENT) for part in text.split()), ENVIRONMENT)
    return Value(option.parse(text, ENVIRONMENT), ENVIRONMENT)


def as_text(option: str, value: Any) -> str:
    """What a program gives for `option` as the command line writes it."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ("x" if option in ("size", "input-size") else ",").join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
