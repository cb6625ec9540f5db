"""Commands for the parser, made of what `options` declares: panels in help, `-v`, `-q`, `--debug` after each of them.

Nothing here imports click by name: newer typer carries its own.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional, Union

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from edge_mnv2.cli.options import DEBUG, JSON, QUIET, VERBOSE, Argument, Call, Rest, declared_by
from edge_mnv2.cli.terminal import Wrapped
from edge_mnv2.errors import UsageError
from edge_mnv2.settings.option import Option, value_of

_GENERAL = (VERBOSE, QUIET, DEBUG)
_PANELS = ("Arguments", "Options", "Camera", "Model", "Decisions", "Outputs", "Page", "Run", "General")
_SETTINGS = {"help_option_names": ["-h", "--help"]}
debug = False
"""Whether tracebacks are wanted."""
unfinished: dict[str, Any] = {}
"""The document of `--json` as far as a command has got; it is what a signal leaves."""


def filling(document: dict[str, Any]) -> dict[str, Any]:
    """`document`, which the command is going to fill and to print."""
    global unfinished
    unfinished = document
    return document


class Command(TyperCommand):
    """A command whose options are declared by the parameters of `function`; they are looked at when it is called."""

    def __init__(self, function: Callable[..., Any], name: Optional[str] = None, *, examples: Sequence[str] = ()):
        super().__init__(
            name or function.__name__,
            help=inspect.getdoc(function),
            rich_markup_mode=None,
            context_settings={**_SETTINGS, "allow_extra_args": True},
        )
        self.function = function
        self.examples = examples
        self.takes_rest = False
        self._context: Any = None
        self._declared: dict[str, Option] = {}
        self._declared_by_parameter: dict[str, Option] = {}

    def get_params(self, ctx: Any) -> list[Any]:
        if self._context is not ctx:
            # For each call anew: a package may have been installed meanwhile.
            self._context, self.params, self._declared = ctx, [], {}
            for declaration in declared_by(self.function):
                if isinstance(declaration, Argument):
                    self.params.append(_argument(declaration))
                elif isinstance(declaration, Rest):
                    self.takes_rest = True
                    self.options_metavar = "[OPTIONS] OPTIONS-OF-RUN..."
                elif isinstance(declaration, Option):
                    self._declared.setdefault(declaration.name, declaration)
            for one in _GENERAL:
                self._declared.setdefault(one.name, one)
            self.params += [_option(one) for one in self._declared.values()]
            self._declared_by_parameter = {_parameter(one): one for one in self._declared.values()}
        return super().get_params(ctx)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        params = self.get_params(ctx)
        ctx.ignore_unknown_options = self.takes_rest
        try:
            rest = super().parse_args(ctx, _spelled_out(args, self._declared))
        except Exception as error:
            # The parser's own kinds, whose module is another one in other versions of typer.
            if not hasattr(error, "format_message"):
                raise
            words = " ".join(error.format_message().split()).rstrip(".")
            raise UsageError(f"{ctx.command_path}: {words}", hint=f"see `{ctx.command_path} --help`") from None
        if ctx.args and not self.takes_rest:
            word = ctx.args[0]
            raise UsageError(f"{ctx.command_path}: unexpected '{word}'", hint=_hint(word, self._declared))
        assert params
        return rest

    def spelled_out(self, words: Sequence[str]) -> list[str]:
        """`words` with what an option that stands alone means written out."""
        return _spelled_out(words, self._declared)

    def read(self, words: Sequence[str], name: str) -> Call:
        """The call that `words` would make, for a command that starts this one. Wrong options end as they would."""
        return self._call(self.make_context(name, list(words)))

    def invoke(self, ctx: Any) -> Any:
        call = self._call(ctx)
        set_verbosity(ctx)
        for one in call.typed_secrets():
            logging.getLogger(__name__).warning(
                "--%s: other users of this machine can read it in the list of processes; %s=... hides it",
                one.name, one.variable,
            )  # fmt: skip
        return call.fill(self.function)

    def _call(self, ctx: Any) -> Call:
        texts = _typed(ctx, self._declared.values())
        if _typed_before(ctx, JSON):
            if JSON.name not in texts:
                raise UsageError(f"{ctx.command_path} has no --json", hint="leave it out")
            texts[JSON.name] = ["true"]
        arguments: dict[str, Sequence[str]] = {}
        for parameter in self.params:
            if parameter.param_type_name == "argument":
                words = ctx.params[parameter.name]
                arguments[str(parameter.metavar)] = (
                    [] if words is None else [words] if isinstance(words, str) else words
                )
        return Call(self._declared.values(), texts, arguments, ctx.args)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        parameters = self.get_params(ctx)
        for parameter in parameters:
            if parameter.name in self._declared_by_parameter:
                # Only now: a run does not have to know all the words that tables offer.
                one = self._declared_by_parameter[parameter.name]
                parameter.help, parameter.metavar = one.help_line, None if one.flag else one.value_name
        _format_panels(parameters, ctx, formatter)

    def format_arguments(self, _ctx: Any, _formatter: Any) -> None:
        """Newer click has a section of its own; ours is among the panels."""

    def format_epilog(self, _ctx: Any, formatter: Any) -> None:
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write(f"{'':{formatter.current_indent}}{example}\n")


class Commands(TyperGroup):
    """A command of commands; one that is given as the name of a module is imported when it is called."""

    def __init__(self, commands: Mapping[str, Union[Command, str]], **more: Any) -> None:
        more = {"no_args_is_help": True, "context_settings": _SETTINGS, **more}
        super().__init__(commands={}, rich_markup_mode=None, **more)
        self._members = commands
        self.params = [*self.params, *map(_option, _GENERAL)]

    def list_commands(self, _ctx: Any) -> list[str]:
        return list(self._members)

    def get_command(self, _ctx: Any, cmd_name: str) -> Any:
        command = self._members.get(cmd_name)
        if isinstance(command, str):
            module, _, attribute = command.partition(":")
            command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in self._members and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], self._members, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(self._members)}"
            raise UsageError(f"{ctx.command_path} has no command '{args[0]}'", hint=hint)
        return super().resolve_command(ctx, args)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        _format_panels(self.get_params(ctx), ctx, formatter)
        self.format_commands(ctx, formatter)


def root(commands: Mapping[str, str], version: str, help: str) -> Commands:
    """The program itself."""

    def show_version(_: Any, __: Any, wanted: bool) -> None:
        if wanted:
            typer.echo(f"edge-mnv2 {version}")
            raise typer.Exit()

    def show_completion(_: Any, __: Any, shell: Optional[str]) -> None:
        if shell is not None:
            from typer.completion import get_completion_script

            if shell not in ("bash", "zsh", "fish"):
                raise UsageError(f"--show-completion: '{shell}' is not one of bash, zsh, fish")
            typer.echo(get_completion_script(prog_name="edge-mnv2", complete_var="_EDGE_MNV2_COMPLETE", shell=shell))
            raise typer.Exit()

    own = [
        TyperOption(
            param_decls=["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=show_version,
            help="Show the version and exit.",
        ),
        TyperOption(
            param_decls=["--show-completion"],
            is_eager=True,
            expose_value=False,
            callback=show_completion,
            metavar="bash|zsh|fish",
            help='Print the shell\'s completion: put `eval "$(edge-mnv2 --show-completion bash)"` into ~/.bashrc.',
        ),
        _option(JSON),
    ]
    return Commands(commands, name="edge-mnv2", params=own, help=help)


def set_verbosity(ctx: Any) -> None:
    """Logging as the options before and after the command say."""
    global debug
    wanted = {
        one.name for one in _GENERAL if _typed_before(ctx, one) or value_of(one, _typed(ctx, [one])[one.name]).value
    }
    debug = DEBUG.name in wanted
    if wanted & {DEBUG.name, VERBOSE.name}:
        log_to_stderr(logging.DEBUG)
    else:
        log_to_stderr(logging.WARNING if QUIET.name in wanted else logging.INFO)


def log_to_stderr(level: int) -> None:
    """Messages from `level` on, one a line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Wrapped("%(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("urllib3", "PIL", "picamera2", "matplotlib"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _typed(ctx: Any, options: Any) -> dict[str, Optional[Sequence[str]]]:
    texts: dict[str, Optional[Sequence[str]]] = {}
    for one in options:
        source = ctx.get_parameter_source(_parameter(one))
        value = ctx.params.get(_parameter(one))
        if source is None or source.name != "COMMANDLINE":
            texts[one.name] = None
        else:
            texts[one.name] = [str(value).lower()] if one.flag else list(value)
    return texts


def _typed_before(ctx: Any, one: Option) -> bool:
    """Whether a flag stands before the command."""
    outer = ctx.parent
    while outer is not None:
        if _typed(outer, [one])[one.name]:
            return True
        outer = outer.parent
    return False


def _parameter(one: Option) -> str:
    return one.name.replace("-", "_")


def _option(one: Option) -> TyperOption:
    names = f"--{one.name}/--no-{one.name}" if one.no else f"--{one.name}"
    return TyperOption(
        param_decls=[*([f"-{one.short}"] if one.short else []), names, _parameter(one)],
        is_flag=True if one.flag else None,
        type=bool if one.flag else str,
        # All that was typed is looked at: a value that is given twice is no wish but a mistake.
        multiple=not one.flag,
        help=one.help,
        hidden=one.hidden,
        rich_help_panel=one.panel,
        autocompletion=lambda *_: list(one.kind.words),
    )


def _argument(one: Argument) -> TyperArgument:
    made = TyperArgument(
        param_decls=[one.metavar.strip("[].").lower().replace("|", "_")],
        type=str,
        nargs=-1 if one.many else 1,
        required=one.required,
        metavar=one.metavar,
        show_default=False,
    )
    # Newer click has a help of its own, and takes this one away.
    made.help = one.help
    return made


def _format_panels(parameters: Sequence[Any], ctx: Any, formatter: Any) -> None:
    panels: dict[str, list[Any]] = {}
    for parameter in parameters:
        record = parameter.get_help_record(ctx)
        if record is not None:
            argument = parameter.param_type_name == "argument"
            panel = "Arguments" if argument else getattr(parameter, "rich_help_panel", None) or "General"
            panels.setdefault(panel, []).append(record)
    for name in sorted(panels, key=lambda name: _PANELS.index(name) if name in _PANELS else len(_PANELS) - 2):
        with formatter.section(name):
            formatter.write_dl(panels[name])


def _spelled_out(args: Sequence[str], declared: Mapping[str, Option]) -> list[str]:
    """Options that may stand alone, with what they then mean."""
    alone = {f"--{one.name}": one.alone for one in declared.values() if one.alone is not None}
    spelled = []
    for position, word in enumerate(args):
        follows = args[position + 1] if position + 1 < len(args) else "-"
        spelled.append(f"{word}={alone[word]}" if word in alone and follows.startswith("-") else word)
    return spelled


def _hint(word: str, declared: Mapping[str, Option]) -> Optional[str]:
    """What was probably meant by a word without an option."""
    if "model" in declared and word.endswith((".tflite", ".onnx")):
        return f"to choose the model, write --model {word}"
    if "source" in declared:
        return f"to choose what is looked at, write --source {word}"
    return None
