"""MediaPipe Tasks' ImageClassifier, as its Python guide shows it (image mode, top 5)."""

from __future__ import annotations

from typing import Any

import cv2
import mediapipe
from loop import Classify
from mediapipe.tasks.python import BaseOptions, vision


def open_peer(model: str, threads: int) -> Classify:
    """MediaPipe takes no number of threads: it is given the cores that the process may use."""
    options = vision.ImageClassifierOptions(base_options=BaseOptions(model_asset_path=model), max_results=5)
    classifier = vision.ImageClassifier.create_from_options(options)

    def classify(frame: Any) -> int:
        pixels = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=pixels)
        best = classifier.classify(image).classifications[0].categories
        return int(best[0].index) if best else -1

    # The classifier must outlive the function: its destructor fails at the end of the interpreter.
    classify.classifier = classifier  # type: ignore[attr-defined]
    return classify
