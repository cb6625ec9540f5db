"""The former name of `edge_mnv2.pipeline.result`."""

from edge_mnv2.pipeline.decision import Event
from edge_mnv2.pipeline.result import Result
from edge_mnv2.runtime.classifier import Prediction

__all__ = ["Event", "Prediction", "Result"]
