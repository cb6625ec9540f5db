"""Errors in options call a value by what it was given as: the option that was typed, or the variable that was set."""

from __future__ import annotations

from collections.abc import Callable

import pytest

Run = Callable[..., "tuple[int, str, str]"]

WRONG = [
    ("--web", "99999"),
    ("--duration", "soon"),
    ("--give-up", "-1"),
    ("--on-tpu-loss", "cry"),
    ("--threads", "x"),
    ("--size", "640"),
    ("--mqtt", "nowhere"),
    ("--max-frames", "0"),
    ("--max-frames", "x"),
    ("--log-keep", "0"),
]


@pytest.mark.parametrize(("option", "value"), WRONG)
def test_a_value_is_called_by_where_it_came_from(
    run: Run, option: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable = "EDGE_MNV2_" + option[2:].replace("-", "_").upper()
    code, _, err = run("run", "--source", "test", f"{option}={value}")
    assert code == 2 and option in err and variable not in err
    monkeypatch.setenv(variable, value)
    code, _, err = run("run", "--source", "test")
    assert code == 2 and variable in err and option not in err
    # The command line goes before the environment.
    code, _, err = run("run", "--source", "test", option, value)
    assert code == 2 and option in err and variable not in err


def test_only_what_came_from_the_environment(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_MNV2_JSON", "1")
    code, _, err = run("run", "--source", "test", "--log", "-")
    assert code == 2 and "EDGE_MNV2_JSON and --log - both" in err
    monkeypatch.setenv("EDGE_MNV2_MAX_FRAMES", "")
    code, _, err = run("run", "--source", "test", "--max-frames", "0")
    assert code == 2 and "--max-frames: '0'" in err


def test_commands_of_a_group(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_MNV2_JSON", "perhaps")
    code, _, err = run("devices", "list")
    assert code == 2 and "EDGE_MNV2_JSON" in err and "--json" not in err
