"""The command line: `edge-mnv2 [--debug] [-v|-q] COMMAND`. Errors become one line and an exit code here, once."""

from __future__ import annotations

import contextlib
import importlib
import logging
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn, Optional

import typer
from typer.core import TyperGroup

from edge_mnv2 import __version__
from edge_mnv2.cli import streams
from edge_mnv2.cli.options import option, variables_named
from edge_mnv2.errors import PARTIAL, EdgeMnv2Error, UsageError

COMMANDS = (
    "run",
    "classify",
    "pull",
    "models",
    "inspect",
    "build",
    "train",
    "compile",
    "evaluate",
    "teach",
    "devices",
    "profile",
    "service",
    "doctor",
)
"""One module of this package each, in the order of the help page; each has `register(app)`."""

_debug = False


class _Group(TyperGroup):
    """Commands whose errors call a value by its variable where it came from the environment."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UsageError as error:
            error.message = variables_named(error.message, sys.argv[1:])
            raise
        except Exception as error:
            # The parser's own: which class it has depends on typer's version.
            options = getattr(getattr(error, "param", None), "opts", None)
            if options and hasattr(error, "param_hint"):
                error.param_hint = variables_named(f"'{options[0]}'", sys.argv[1:])
            raise


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"edge-mnv2 {__version__}")
        raise typer.Exit()


def _global(
    debug: bool = option("--debug", help="Show tracebacks and every log line.", default=False),
    verbose: bool = option("--verbose", "-v", help="Say more on stderr.", default=False),
    quiet: bool = option("--quiet", "-q", help="Only warnings and errors on stderr.", default=False),
    version: Optional[bool] = typer.Option(
        None, "--version", help="Show the version and exit.", is_eager=True, callback=_show_version
    ),
) -> None:
    global _debug
    _debug = debug
    level = logging.DEBUG if debug or verbose else logging.WARNING if quiet else logging.INFO
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr, force=True)
    for noisy in ("urllib3", "PIL", "picamera2", "matplotlib"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def fail(error: EdgeMnv2Error) -> NoReturn:
    """One line on stderr and the error's exit code."""
    _say(f"edge-mnv2: error: {' '.join(str(error).split())}")
    raise SystemExit(error.exit_code)


def _results_lost(problem: OSError) -> NoReturn:
    if isinstance(problem, BrokenPipeError):
        # The reader of our stdout went away (`| head`): not an error, as with `--log -`.
        raise SystemExit(0)
    _say(f"edge-mnv2: error: stdout cannot be written: {problem.strerror or problem}")
    raise SystemExit(PARTIAL)


def _say(line: str) -> None:
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr)


def build_app(arguments: Sequence[str]) -> typer.Typer:
    """The command line as far as `arguments` need it: the command that they call, else all of them.

    Describing every option of every command takes as long as `import typer`.
    """
    app = typer.Typer(
        name="edge-mnv2",
        cls=_Group,
        help="MobileNetV2 on small boards: from trained weights to a real-time camera classifier.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
        add_completion=False,
    )
    app.callback()(_global)
    # None of the options before a command takes a value.
    word = next((argument for argument in arguments if not argument.startswith("-")), None)
    for command in [word] if word in COMMANDS else COMMANDS:
        importlib.import_module(f"edge_mnv2.cli.{command}").register(app)
    return app


def main() -> None:
    """The console script."""
    # 32-bit tflite-runtime switches subnormal numbers off, and numpy then warns of it at each start.
    warnings.filterwarnings("ignore", message="The value of the smallest subnormal")
    streams.prepare()
    # The parser puts another in its place when the reader goes away.
    stdout = sys.stdout
    try:
        build_app(sys.argv[1:])()
    except SystemExit as end:
        problem = streams.problem(stdout)
        # 1 is the parser's for a reader that went away; the codes of commands stand.
        if problem is not None and end.code in (None, 0, 1):
            _results_lost(problem)
        raise
    except EdgeMnv2Error as error:
        if _debug:
            raise
        fail(error)
    except Exception as error:
        problem = streams.problem(stdout) if isinstance(error, OSError) else None
        if problem is not None:
            _results_lost(problem)
        if _debug:
            raise
        name = type(error).__name__
        _say(f"edge-mnv2: unexpected {name}: {' '.join(str(error).split())} (see --debug)")
        raise SystemExit(1) from None
