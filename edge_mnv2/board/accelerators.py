"""Accelerators that a board may have, one row each: everything that depends on which one it is reads the row.

`--delegate` asks for one; `devices accelerators` and `doctor` look for it, a service's sandbox leaves it open,
`profile` compares it with the CPU, `inspect` says what it would make of a model. Runtimes, which `--runtime` asks for,
have a table of their own (`runtime.table`), and so have compilers (`builder.compilers`). An installed package brings
its row as an entry point that names an `Accelerator`:

    [project.entry-points."edge_mnv2.accelerators"]
    mine = "my_package.edge:ACCELERATOR"
"""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Optional

from edge_mnv2.errors import ModelError
from edge_mnv2.installed import check_declaration, rows_of_packages

log = logging.getLogger(__name__)

GROUP = "edge_mnv2.accelerators"


@dataclass(frozen=True)
class Accelerator:
    """A row. `name` is the first word of `--delegate`, `forms` are (what people see, pattern) of all that may be said:
    a pattern's groups are fields of `runtime.delegate.DelegateSpec`. `example` explains one of them. `module` has what
    `runtime.delegate` says. `title` and `product` are for messages: "Edge TPU", "Coral".

    `automatic`: `--delegate auto` takes it where it is, `profile` compares it with the CPU, and a board's profile may
    have figures of it. `visible`: `devices accelerators` and `doctor` look for it. `options`: key=value pairs follow
    the file that is named. `operator` stands for what it runs in a `.tflite` that is compiled for it, and `limits` is
    the module that says what its compiler takes (`verdict`, `check`).

    `devices` (device nodes, or systemd's `char-GROUP`) and the `groups` that own them are left open to a service that
    may use it; `unlisted`: nobody knows which those are.
    """

    name: str
    module: str
    forms: tuple[tuple[str, str], ...]
    title: str = ""
    product: str = ""
    example: str = ""
    automatic: bool = False
    visible: bool = False
    options: bool = False
    operator: str = ""
    limits: str = ""
    devices: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    unlisted: bool = False

    def __post_init__(self) -> None:
        check_declaration(self)
        if not re.fullmatch("[a-z][a-z0-9_-]*", self.name) or self.name in ("auto", "none"):
            raise ValueError(f"name={self.name!r} is no word of its own: lower case, not auto or none")
        if not self.forms:
            raise ValueError(f"{self.name}: no forms, so --delegate could not name it")
        for _, pattern in self.forms:
            if unknown := set(re.compile(pattern).groupindex) - {"kind", "index", "library"}:
                raise ValueError(
                    f"{self.name}: {pattern} has a group {min(unknown)}: kind, index and library are known"
                )

    def load(self) -> ModuleType:
        """Its module."""
        return importlib.import_module(self.module)

    def one(self) -> str:
        """ "an Edge TPU"."""
        return f"a{'n' if self.title[:1] in 'AEIOU' else ''} {self.title}"

    def share(self, left_on_cpu: int, operators: Optional[int]) -> str:
        """In words: `left_on_cpu` operators of a compiled graph run on the CPU; its CPU twin has `operators` (None: no
        twin to count in; the compiler melts all that the accelerator runs into one operator)."""
        if operators is not None and operators >= left_on_cpu:
            return f"the {self.title} runs {operators - left_on_cpu} of {operators} operators"
        if not left_on_cpu:
            return f"the {self.title} runs the whole graph"
        return f"the {self.title} runs all but {left_on_cpu} operator{'s' if left_on_cpu > 1 else ''}"

    def not_on_cpu(self, model: str) -> ModelError:
        """For a model that is compiled for it."""
        return ModelError(
            f"{model} is compiled for the {self.product} {self.title} and cannot run on a CPU",
            hint=f"use --delegate {self.name} with a {self.product} attached, or the same model without _{self.name} "
            "in its name",
        )


TABLE = (
    Accelerator(
        "edgetpu",
        "edge_mnv2.runtime.edgetpu.choice",
        (("edgetpu[:N|:usb[:N]|:pci[:N]]", "edgetpu(:(?P<kind>usb|pci))?(:(?P<index>[0-9]{1,3}))?"),),
        title="Edge TPU",
        product="Coral",
        example="edgetpu:usb is the first stick",
        automatic=True,
        visible=True,
        operator="edgetpu-custom-op",
        limits="edge_mnv2.tflite.edgetpu_limits",
        devices=("char-usb_device", "char-apex"),
        groups=("plugdev",),
    ),
    Accelerator(
        "rknn", "edge_mnv2.runtime.rknn", (("rknn[:0|1|2|auto]", "rknn(:(auto|(?P<index>[0-2])))?"),), title="NPU"
    ),
    Accelerator("imx500", "edge_mnv2.runtime.imx500", (("imx500[:FILE.rpk]", "imx500(:(?P<library>.+))?"),)),
    Accelerator(
        "external",
        "edge_mnv2.runtime.external",
        (("external:PATH[,key=value...]", "external:(?P<library>.+)"),),
        options=True,
        unlisted=True,
    ),
)


def rows() -> tuple[Accelerator, ...]:
    """Our rows, then those of installed packages; a name of ours is never replaced."""
    return (*TABLE, *of_packages())


def of_packages() -> tuple[Accelerator, ...]:
    ours = {one.name for one in TABLE}
    return tuple(one for _, one in rows_of_packages(GROUP, Accelerator) if one.name not in ours)


def answers(asked: Iterable[Accelerator], question: Callable[[Accelerator], Any]) -> Iterator[tuple[Accelerator, Any]]:
    """What the modules of these rows answer. That of a package that fails is said and left out: it must not end every
    run."""
    for one in asked:
        try:
            answer = question(one)
        except (Exception, SystemExit) as error:
            if one in TABLE:
                raise
            log.warning("%s of an installed package is left out: %s: %s", one.name, type(error).__name__, error)
        else:
            yield one, answer


def in_words(form: str) -> str:
    """`form`, which is filled with the row, for each that models are compiled for."""
    return "; ".join(form.format(one) for one in TABLE if one.operator)


def limited() -> list[Accelerator]:
    """Those of which is known what their compilers take."""
    return [one for one in rows() if one.limits]


def judged(graph: Any, compiled: Optional[Accelerator], printable: Callable[[str], str]) -> dict[str, Any]:
    """Under an accelerator's name: whether the model is `compiled` for it. Of a model that is for none, `NAME_compiles`
    says whether its compiler would take it, `NAME_operators` how many operators it would run, `NAME_problems` why not
    the others, made `printable`."""
    document: dict[str, Any] = {}

    def judge(one: Accelerator) -> tuple[Any, Any, list[str]]:
        verdict = None if compiled else importlib.import_module(one.limits).verdict(graph)
        if verdict is None:
            return None, None, []
        return verdict.compiles, verdict.mapped, list(map(printable, verdict.problems))

    for one, (compiles, mapped, problems) in answers(limited(), judge):
        document[one.name] = compiled is one
        document[f"{one.name}_compiles"] = compiles
        document[f"{one.name}_operators"] = mapped
        document[f"{one.name}_problems"] = problems
    return document


def named(delegate: str) -> Optional[Accelerator]:
    """The row of a `--delegate`, or of what a result says of one ("edgetpu:usb:0"), None where that is no row's."""
    name = delegate.partition(":")[0]
    return next((one for one in TABLE if one.name == name), None) or next(
        (one for one in of_packages() if one.name == name), None
    )


def automatic(delegate: str) -> Optional[Accelerator]:
    """As `named`, where it is one that is compared with the CPU."""
    row = named(delegate)
    return row if row is not None and row.automatic else None


def compiled_for(operators: Iterable[str]) -> Optional[Accelerator]:
    """What a `.tflite` with these (custom) operators is compiled for, None for an ordinary model."""
    known = set(operators)
    return next((one for one in rows() if one.operator and one.operator in known), None) if known else None
