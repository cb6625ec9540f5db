"""How an option of ours is declared: its variable is always `EDGE_MNV2_<OPTION>`, without the command's name.

Nothing here imports click by name: newer typer carries its own.
"""

from __future__ import annotations

from typing import Any, Optional

import typer


def option(*names: str, help: str, default: Any = None, **more: Any) -> Any:
    """A `typer.Option` named `names`, with the variable that belongs to its first long name."""
    long = next(name for name in names if name.startswith("--")).split("/")[0]
    variable = "EDGE_MNV2_" + long.lstrip("-").replace("-", "_").upper()
    return typer.Option(default, *names, help=help, envvar=variable, show_default=False, show_envvar=False, **more)


def given(context: typer.Context, name: str) -> Optional[str]:
    """Where parameter `name` came from: "command line", "environment" or None (not given)."""
    source = context.get_parameter_source(name)
    return {"COMMANDLINE": "command line", "ENVIRONMENT": "environment"}.get(source.name if source else "")


JSON = option("--json", help="One JSON document on stdout.", default=False, is_flag=True)
