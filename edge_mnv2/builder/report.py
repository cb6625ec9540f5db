"""What a build says about itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from edge_mnv2.builder.comparison import Comparison
from edge_mnv2.builder.inference import LOGITS, Operation
from edge_mnv2.builder.request import BuildRequest
from edge_mnv2.network.layers import Convolution, Linear
from edge_mnv2.network.network import Network


@dataclass(frozen=True)
class BuildReport:
    """The model that was written and what is known about it; without pictures there is no `comparison`.

    `crops` is how many crops calibrated it, None where shipped ranges did, or none were needed.
    """

    request: BuildRequest
    network: Network
    sha256: str
    bytes: int
    weights_sha256: str
    inference_ms: Optional[float]
    steps: tuple[Operation, ...]
    comparison: Optional[Comparison] = None
    crops: Optional[int] = None
    written: tuple[Path, ...] = ()

    def layers(self) -> list[dict[str, Any]]:
        """One row a layer: its cost, and what quantization did to it."""
        costs = {
            layer.norm if isinstance(layer, Convolution) else LOGITS: layer
            for layer in self.network.layers()
            if isinstance(layer, (Convolution, Linear))
        }
        rows = []
        for step in self.steps:
            if step.kind == "pad":
                continue
            noise = self.comparison.layers.get(step.output) if self.comparison else None
            layer = costs.get(step.output)
            rows.append(
                {
                    "name": step.output,
                    "operator": step.kind,
                    "output": list(step.shape),
                    "parameters": layer.parameters if layer else 0,
                    "macs": layer.macs if layer else 0,
                    "snr_db": noise.snr_db if noise else None,
                    "saturation": noise.saturation if noise else None,
                }
            )
        return rows

    def as_dict(self) -> dict[str, Any]:
        """The JSON document of `build`, by the names of the command line's contract."""
        compared = self.comparison
        return {
            "out": str(self.request.out),
            "sha256": self.sha256,
            "bytes": self.bytes,
            "format": self.request.format,
            "agreement": compared.agreement if compared else None,
            "logit_cosine": round(compared.logit_cosine, 6) if compared else None,
            "saturation": compared.saturation if compared else None,
            "value_rms": compared.value_rms if compared else None,
            "pictures": compared.pictures if compared else None,
            "crops": self.crops,
            "network": self.network.name,
            "weights_sha256": self.weights_sha256,
            "parameters": self.network.parameters,
            "macs": self.network.macs,
            "inference_ms": self.inference_ms,
            "layers": self.layers(),
            "written": [str(path) for path in self.written],
        }
