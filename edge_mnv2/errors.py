"""One root error. Each leaf knows its exit code and is also the builtin error that fits it.

The first line says what happened to which file, key or device; `hint` says what to do next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional


class EdgeMnv2Error(Exception):
    """Root of every error that this package raises on purpose.

    `exit_code` is what the command line ends with; `hint`, when given, is one sentence that says what to do.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: Optional[str] = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}: {self.hint}"


class UsageError(EdgeMnv2Error, ValueError):
    """The call is wrong: an option's value, two options that exclude each other, an unusable output path."""

    exit_code = 2


class ModelError(EdgeMnv2Error, ValueError):
    """A model, its weights or its labels cannot be used."""

    exit_code = 3


class LabelsError(ModelError):
    """Labels that cannot be read or do not fit the model."""


class SourceError(EdgeMnv2Error, OSError):
    """A camera, clip or picture cannot be opened or read."""

    exit_code = 4

    def __str__(self) -> str:
        return EdgeMnv2Error.__str__(self)


class SourceLost(SourceError):
    """A source that was open has stopped giving frames; opening it again may help."""


class AcceleratorError(EdgeMnv2Error, RuntimeError):
    """An accelerator was required and cannot be used."""

    exit_code = 5


class ProfileError(EdgeMnv2Error, ValueError):
    """A device profile or other configuration file is wrong."""

    exit_code = 6


class DownloadError(EdgeMnv2Error, OSError):
    """Something could not be fetched, or what came back is not what was asked for."""

    exit_code = 7

    def __str__(self) -> str:
        return EdgeMnv2Error.__str__(self)


class TrainingError(EdgeMnv2Error, ArithmeticError):
    """A training run that cannot go on: its loss is no number any more, or its batch does not fit into memory."""


@dataclass(frozen=True)
class Check:
    """One row of `doctor`: `status` is "ok", "warn" or "fail", `fix` is what to do, `code` a failure's exit code."""

    id: str
    status: str
    detail: str
    fix: Optional[str] = None
    code: int = 0

    def as_dict(self) -> dict[str, Any]:
        """As a row of the JSON document."""
        return {"id": self.id, "status": self.status, "detail": self.detail, "fix": self.fix}


PARTIAL = 8
"""Exit code where some inputs failed or some results could not be written."""
