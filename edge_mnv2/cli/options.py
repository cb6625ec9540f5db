"""How an option of ours is declared: its variable is always `EDGE_MNV2_<OPTION>`, without the command's name.

Nothing here imports click by name: newer typer carries its own.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from typing import Any, Optional

import typer

from edge_mnv2.errors import UsageError


def option(*names: str, help: str, default: Any = None, **more: Any) -> Any:
    """A `typer.Option` named `names`, with the variable that belongs to its first long name."""
    long = next(name for name in names if name.startswith("--")).split("/")[0]
    more = {"envvar": _variable(long), "show_default": False, "show_envvar": False, **more}
    return typer.Option(default, *names, help=help, **more)


def variables_named(text: str, arguments: Sequence[str]) -> str:
    """`text` with each option that was not typed in `arguments`, but set in the environment, called by its variable."""
    typed = {argument.partition("=")[0] for argument in arguments}

    def named(option: re.Match[str]) -> str:
        variable = _variable(option[0])
        return variable if option[0] not in typed and os.environ.get(variable) else option[0]

    return re.sub(r"(?<![\w-])--[a-z][a-z-]*[a-z]", named, text)


def _variable(long: str) -> str:
    return "EDGE_MNV2_" + long.lstrip("-").replace("-", "_").upper()


def given(context: typer.Context, name: str) -> Optional[str]:
    """Where parameter `name` came from: "command line", "environment" or None (not given)."""
    source = context.get_parameter_source(name)
    return {"COMMANDLINE": "command line", "ENVIRONMENT": "environment"}.get(source.name if source else "")


def setting_overrides(context: typer.Context) -> dict[str, tuple[Any, str]]:
    """What this call says about the settings of a device profile, by the profile's keys, with where it was said."""
    from edge_mnv2.settings.profile import environment_overrides, option_overrides

    typed = {
        name.replace("_", "-"): str(value)
        for name, value in context.params.items()
        if value is not None and given(context, name) == "command line"
    }
    replaced = {_variable(name) for name in typed}
    environment = {name: value for name, value in os.environ.items() if name not in replaced}
    return {**environment_overrides(environment), **option_overrides(typed, "command line")}


def parse_duration(name: str, text: Optional[str]) -> Optional[float]:
    """Seconds of option `name`: a positive number, with or without a final `s`. Raises UsageError."""
    if text is None:
        return None
    try:
        seconds = float(text[:-1] if text.endswith("s") else text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < 1e9:
        raise UsageError(f"{name} {text}", hint="a number of seconds above 0")
    return seconds


JSON = option("--json", help="One JSON document on stdout.", default=False)
WEB = option(
    "--web", help="Serve a live page; other machines are let in with HOST, such as 0.0.0.0.", metavar="[HOST:]PORT"
)
WEB_TOKEN = option("--web-token", help="What the page asks its visitors for.", metavar="TOKEN")
WEB_OPEN = option("--web-open", help="Let everyone who can reach it see and control.", default=False)


def check_web(context: typer.Context) -> None:
    """Raises UsageError where the command line says who may see a page that it does not ask for."""
    said = (given(context, "web_token"), given(context, "web_open"))
    if context.params["web"] is None and "command line" in said:
        raise UsageError("--web-token and --web-open need --web", hint="such as --web 0.0.0.0:8080")
