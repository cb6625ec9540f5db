"""How a command says what it takes: options, arguments, and groups of options that arrive as one object.

A command is a function. The default of each parameter declares what it is: `option(...)`, `argument(...)`,
`group(function)` (the options of another function, of which this one gets the result), `settings(...)` (options that
stand for settings, resolved with the profile), `with_origin(...)` (the value together with where it came from).
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Optional, Union

from edge_mnv2.errors import UsageError
from edge_mnv2.settings.kinds import File, Flag, Kind, Text
from edge_mnv2.settings.option import COMMAND_LINE, Option, Value, value_of, variable


@dataclass(frozen=True)
class Argument:
    """A word without an option's name; with `many`, all that follow."""

    metavar: str
    help: str
    kind: Kind
    many: bool
    required: bool
    variable: str


class Group:
    """Options that a command gets as one object, which `resolve` makes of the call."""

    def __init__(self, options: Callable[[], Iterator[Declaration]], resolve: Callable[[Call], Any]) -> None:
        self.options = options
        self.resolve = resolve


@dataclass(frozen=True)
class Single:
    """An option, or a setting's by its name, with `changes`; `origin` says whether a command gets the whole `Value`."""

    option: Union[Option, str]
    changes: Mapping[str, Any]
    origin: bool

    @functools.cached_property
    def declared(self) -> Option:
        from edge_mnv2.settings.schema import OPTIONS

        one = self.option if isinstance(self.option, Option) else OPTIONS[self.option]
        return replace(one, **self.changes) if self.changes else one


class Rest:
    """The words that the command does not know itself, for another to read."""


class Chosen:
    """The names of the parameters' options that somebody chose, with `_` for `-`."""


Declaration = Union[Option, Argument, Group, Single, Rest, Chosen]


def option(name: str, help: str, kind: Optional[Kind] = None, default: Any = None, **more: Any) -> Any:
    """Declares the option `--NAME`; see `Option` for `more`."""
    return Option(name, kind or Text(), help, default, **more)


def flag(name: str, help: str, default: Optional[bool] = False, **more: Any) -> Any:
    """Declares an option without a value; with `no=True` there is `--no-NAME` too."""
    return Option(name, Flag(), help, default, **more)


def argument(
    metavar: str,
    help: str,
    kind: Optional[Kind] = None,
    *,
    many: bool = False,
    required: bool = True,
    variable: str = "",
) -> Any:
    return Argument(metavar, help, kind or Text(), many, required, variable)


def group(function: Callable[..., Any]) -> Any:
    """The options that the parameters of `function` declare; the command gets what it returns."""
    return Group(lambda: declared_by(function), lambda call: call.fill(function))


def with_origin(declared: Union[Option, str], **changes: Any) -> Any:
    """The `Value` of an option, or of a setting's by its name; `changes` are fields of `Option`."""
    return Single(declared, changes, origin=True)


def changed(declared: Union[Option, str], **changes: Any) -> Any:
    """As `with_origin`, the value alone."""
    return Single(declared, changes, origin=False)


SAID_OF_INPUT = ("model.mean", "model.std", "model.input_range", "model.input_size")
"""What can be said about a model's input, where its labels are of no concern."""

MODEL = ("runtime.model", "model", "runtime.backend", "runtime.delegate", "runtime.threads", "preprocess.resize")
"""The settings that say which model, what is in it, and what runs it: wherever there is `--model`."""


def settings(*names: str, profile: bool = False) -> Any:
    """The options of the settings called `names` ("camera", a whole section, or "output.top_k"), as `Settings`.

    They are resolved from what was typed, the variables of all settings, the profile and the defaults. With `profile`
    there is `--device` too; where the command has `--root`, that is where the board is looked at.
    """

    def options() -> Iterator[Option]:
        yield from setting_options(*names)
        if profile:
            yield DEVICE

    def resolved(call: Call) -> Any:
        from edge_mnv2.settings.profile import resolve

        root = call.value(ROOT).value if ROOT.name in call.texts else None
        return resolve(call.value(DEVICE).value if profile else None, overrides(call, *names), check_root(root))

    return Group(options, resolved)


def outputs(*names: str, on: str = "") -> Any:
    """The options of the outputs called `names`, of all outputs without one, as `OutputValues`.

    `on`: the first of them is on with this value where nobody says another.
    """

    def options() -> Iterator[Option]:
        from edge_mnv2.outputs.table import rows

        unique: dict[str, Option] = {}
        for row in rows():
            if not names or row.name in names:
                unique.update({each.name: each for each in row.options})
        return iter(unique.values())

    def resolved(call: Call) -> Any:
        from edge_mnv2.outputs.table import OutputValues

        chosen = {each.name: call.value(each) for each in options()}
        if on:
            switch = next(options())
            if not chosen[switch.name].said:
                chosen[switch.name] = Value(switch.parse(on))
        values = OutputValues(
            chosen,
            every_frame=EVERY_FRAME.name in call.texts and call.value(EVERY_FRAME).value,
            status=logging.getLogger().isEnabledFor(logging.INFO),
        )
        values.check()
        return values

    return Group(options, resolved)


def hidden_settings(*names: str) -> Any:
    """The same options, not in the help, as overrides that `resolve` takes."""
    hidden = lambda: (replace(each, hidden=True) for each in setting_options(*names))  # noqa: E731
    return Group(hidden, lambda call: overrides(call, *names))


def setting_options(*names: str) -> Iterator[Option]:
    """The options that set what `names` call, as in `settings`."""
    from edge_mnv2.settings.schema import CAMERA_BACKENDS, OPTIONS, RUNTIMES

    RUNTIMES.offer(_runtimes)
    CAMERA_BACKENDS.offer(_camera_backends)
    for name in names:
        yield from (each for each in OPTIONS.values() if any(_is(key, name) for key in each.keys))


def _runtimes() -> Iterable[str]:
    from edge_mnv2.runtime.table import names

    return names()


def _camera_backends() -> Iterable[str]:
    from edge_mnv2.camera.open import KINDS

    return sorted({backend.name for kind in KINDS.values() if kind.live for backend in kind.backends})


def _is(key: str, name: str) -> bool:
    return key == name or key.startswith(f"{name}.")


def overrides(call: Call, *names: str) -> dict[str, tuple[Any, str]]:
    """What was typed for these settings, and what the variables say about all of them, as `resolve` takes it."""
    from edge_mnv2.settings.profile import environment_overrides, option_overrides

    texts = {each.name: call.text(each) for each in setting_options(*names)}
    # A variable is not looked at where the option was typed: it may be wrong.
    replaced = {variable(name) for name, text in texts.items() if text is not None}
    environment = {name: value for name, value in os.environ.items() if name not in replaced}
    return {**environment_overrides(environment), **option_overrides(texts, COMMAND_LINE)}


def declared_by(function: Callable[..., Any]) -> Iterator[Declaration]:
    """What the parameters of `function` declare, groups resolved into their members."""
    for parameter in inspect.signature(function).parameters.values():
        declaration = parameter.default
        if isinstance(declaration, Group):
            yield from declaration.options()
        else:
            assert isinstance(declaration, (Option, Argument, Single, Rest, Chosen)), f"{function}: {parameter}"
            yield declaration.declared if isinstance(declaration, Single) else declaration


class Call:
    """One call of a command: what was typed, by the names of options; the rest comes from variables and defaults.

    `texts` has None for an option that the command declares and nobody typed.
    """

    def __init__(
        self,
        options: Iterable[Option],
        texts: Mapping[str, Optional[Sequence[str]]],
        arguments: Mapping[str, Sequence[str]],
        rest: Sequence[str] = (),
    ) -> None:
        self.options = list(options)
        self.texts = texts
        self.arguments = arguments
        self.rest = rest
        self._resolved: dict[int, Any] = {}

    def value(self, declared: Option) -> Value:
        """Raises UsageError for a wrong value."""
        return value_of(declared, self.texts[declared.name])

    def text(self, declared: Option) -> Optional[str]:
        """What was typed for one option. Raises UsageError where it was typed twice, or is wrong."""
        typed = self.texts[declared.name]
        if typed is None:
            return None
        value_of(declared, typed)
        return typed[-1]

    def fill(self, function: Callable[..., Any]) -> Any:
        """Call `function` with what its parameters declare."""
        parameters = inspect.signature(function).parameters.values()
        return function(**{parameter.name: self._resolve(parameter.default) for parameter in parameters})

    def typed_secrets(self) -> list[Option]:
        """The options whose typed values other users of the machine can read in the list of processes."""
        return [one for one in self.options if not one.flag and any(map(one.secret, self.texts[one.name] or ()))]

    def _resolve(self, declaration: Declaration) -> Any:
        if isinstance(declaration, Option):
            return self.value(declaration).value
        if isinstance(declaration, Single):
            value = self.value(declaration.declared)
            return value if declaration.origin else value.value
        if isinstance(declaration, Argument):
            return self._argument(declaration)
        if isinstance(declaration, Rest):
            return list(self.rest)
        if isinstance(declaration, Chosen):
            return frozenset(each.name.replace("-", "_") for each in self.options if self.value(each).said)
        if id(declaration) not in self._resolved:
            self._resolved[id(declaration)] = declaration.resolve(self)
        return self._resolved[id(declaration)]

    def _argument(self, declared: Argument) -> Any:
        values = []
        words = self.arguments.get(declared.metavar) or filter(None, [os.environ.get(declared.variable)])
        for word in words:
            try:
                values.append(declared.kind.parse(word))
            except ValueError:
                raise UsageError(f"{declared.metavar}: '{word}' is not {declared.kind.expects}") from None
        return values if declared.many else values[0] if values else None


JSON: Any = flag("json", "One JSON document on stdout.", panel="General")
DEBUG = flag("debug", "Show tracebacks and every log line.", panel="General")
VERBOSE = flag("verbose", "Say more on stderr.", panel="General", short="v")
QUIET = flag("quiet", "Only warnings and errors on stderr.", panel="General", short="q")
DEVICE: Any = option(
    "device",
    "A device profile (never a camera).",
    Text("a profile's name or file", metavar="PROFILE|FILE"),
    panel="Run",
    path="read",
)
ROOT: Any = option("root", "Look at a copy of a board's files in DIR instead of this machine.", File("DIR"))
EVERY_FRAME: Any = flag("every-frame", "Take every frame, as fast as it can.", panel="Run")
REST: Any = Rest()
CHOSEN: Any = Chosen()
TYPED: Any = Group(lambda: iter(()), lambda call: frozenset(name for name, typed in call.texts.items() if typed))
"""The names of the options that stand on the command line itself."""


def check_root(root: Optional[Any]) -> str:
    """The folder of `--root`. Raises UsageError where there is no such folder."""
    if root is not None and not root.is_dir():
        raise UsageError(f"--root {root}: no such folder")
    return str(root or "/")
