"""edge-mnv2: MobileNetV2 from trained weights to a supervised real-time camera classifier on small boards.

    from edge_mnv2 import Classifier, open_source, run

Public are these names, those of `edge_mnv2.errors`, and what `docs/api.md` lists; everything else may change.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_mnv2.api import Classifier, Frames, Run, open_source, run
    from edge_mnv2.camera.frame import Frame
    from edge_mnv2.errors import EdgeMnv2Error
    from edge_mnv2.pipeline.decision import Event
    from edge_mnv2.pipeline.result import Result
    from edge_mnv2.runtime.classifier import Prediction

__version__ = "0.1.0"
__all__ = [
    "Classifier",
    "EdgeMnv2Error",
    "Event",
    "Frame",
    "Frames",
    "Prediction",
    "Result",
    "Run",
    "open_source",
    "run",
]

_MODULES = {
    "EdgeMnv2Error": "errors",
    "Event": "pipeline.decision",
    "Frame": "camera.frame",
    "Prediction": "runtime.classifier",
    "Result": "pipeline.result",
}
"""Where a public name is, when it is not in `edge_mnv2.api`."""


def __getattr__(name: str) -> Any:
    # Imported when it is used: `edge-mnv2 --help` pays nothing for it.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES.get(name, 'api')}"), name)
