"""The public Python interface: `from edge_mnv2 import Classifier, open_source, run`. `docs/api.md` shows it at work.

Options are named as on the command line (`top_k=3` is `--top-k 3`) and may be given as text or as Python values; the
environment's `EDGE_MNV2_*` and the board's profile stand behind them, as there. Errors are leaves of `EdgeMnv2Error`.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import queue
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, TypeVar, Union

from edge_mnv2.camera.frame import Frame
from edge_mnv2.errors import UsageError
from edge_mnv2.pipeline.result import Result
from edge_mnv2.runtime.classifier import Prediction
from edge_mnv2.settings.profile import Settings

if TYPE_CHECKING:
    import numpy as np

    from edge_mnv2.app.run import RunRequest

Option = Union[str, int, float, bool, Sequence[Union[str, int, float]], "os.PathLike[str]", None]
"""What an option may be given as: `size=(640, 480)` is "640x480", `allow=["cat", "dog"]` is "cat,dog"."""

Labels = Union[str, "os.PathLike[str]", Sequence[str], None]

_MODEL = ("labels", "mean", "std", "input-range", "input-size", "task", "model-output")
_CLASSIFIER = ("model", *_MODEL, "runtime", "delegate", "threads", "resize", "top-k", "threshold")
_CAMERA = ("size", "fps", "rotate", "flip", "roi")
_POLL_S = 0.2

_Self = TypeVar("_Self", bound="_Closing")


class _Closing:
    def close(self) -> None: ...

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Classifier(_Closing):
    """A model, ready to classify pictures. A context manager; use it from one thread at a time.

    `model` is a name of `edge-mnv2 models list` or a path (default: the profile's model, else the one that ships).
    `labels` is a label file or a list of names, one for each output row, `device` a profile. Options: mean, std,
    input_range, input_size, task, model_output, runtime, delegate, threads, resize, top_k, threshold. Raises UsageError
    for a wrong option, ModelError, LabelsError, AcceleratorError where the model cannot be opened.
    """

    def __init__(
        self,
        model: Union[str, os.PathLike[str], None] = None,
        *,
        labels: Labels = None,
        device: Union[str, os.PathLike[str], None] = None,
        **options: Option,
    ) -> None:
        from edge_mnv2.runtime.opening import open_classifiers

        settings = _settings("Classifier", {"model": model, "labels": labels, **options}, device, _CLASSIFIER)
        self._threshold = settings.output.least_score
        self._opened, self._closed = open_classifiers(settings, workers=1), False

    @property
    def model(self) -> str:
        """The model's name."""
        return self._opened.model

    @property
    def labels(self) -> Sequence[str]:
        """One name for each output row."""
        return self._opened.classifiers[0].labels

    @property
    def notes(self) -> list[str]:
        """What was assumed or could not be had, a sentence each."""
        return list(self._opened.notes)

    def classify(self, image: Union[str, os.PathLike[str], np.ndarray[Any, Any]]) -> list[Prediction]:
        """The best classes, best first: `label`, `index` (the model's own output row) and `score` (0..1) of each.

        `image` is RGB uint8 of shape (height, width, 3), or the path of a picture. Raises UsageError for another array,
        SourceError for a file that is no picture, ModelError where the model fails.
        """
        if self._closed:
            raise UsageError("classify() of a classifier that was closed", hint="open another one")
        classifier = self._opened.classifiers[0]
        best = classifier.top(classifier.classify(_pixels(image)).scores)
        return [one for one in best if one.unit is not None or one.score >= self._threshold]

    def close(self) -> None:
        """Free the model and its device. Safe to call twice."""
        self._closed = True
        self._opened.__exit__()


def open_source(source: str = "auto", *, every_frame: Optional[bool] = None, **options: Option) -> Frames:
    """The frames of a camera, stream, clip, picture, folder or test pattern, as `run --source` names them.

    Options: size, fps, rotate, flip, roi. Live sources give their newest frame each time, and drop what nobody took in
    time; everything else gives every frame, or with `every_frame=False` keeps the clip's own time. Nothing is opened
    before the first frame is asked for. Raises UsageError, SourceError, DownloadError.
    """
    from edge_mnv2.app.source_choice import choose_source

    settings = _settings("open_source", options, None, _CAMERA)
    return Frames(choose_source(source, None, settings.camera, hurry=every_frame is True).source, every_frame)


class Frames(_Closing):
    """A source: iterate it for `Frame`s (`image`: RGB uint8 HxWx3, `captured_at`: monotonic nanoseconds, `index`).

    A context manager; its end, or the end of this object, closes it too. Raises SourceError where it cannot be opened
    or is lost.
    """

    def __init__(self, source: Any, every_frame: Optional[bool] = None) -> None:
        from edge_mnv2.pipeline.capture import Capture

        self._source = source
        lossless = not source.live if every_frame is None else every_frame or not (source.live or source.paced)
        paced = every_frame is False
        self._capture = Capture(source, lossless=lossless, paced=paced, inline=lossless)
        self._close: Optional[weakref.finalize[..., Frames]] = None
        self._ended = False

    @property
    def description(self) -> str:
        """The source's name for a person, without credentials."""
        return str(self._source.description)

    @property
    def dropped(self) -> int:
        """Frames that were captured and not taken."""
        return self._capture.dropped

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        if self._close is None and not self._ended:
            self._source.open()
            self._capture.start()
            self._close = weakref.finalize(self, self._capture.stop)
        while not self._ended:
            frame = self._capture.take(_POLL_S)
            if frame is not None:
                return frame
            if self._capture.ended:
                self.close()
        raise StopIteration

    def close(self) -> None:
        """Close the source. Safe to call at any time, and twice."""
        self._ended = True
        if self._close is not None:
            self._close()


def run(
    source: Optional[str] = None,
    model: Union[str, os.PathLike[str], None] = None,
    *,
    camera: Optional[str] = None,
    labels: Labels = None,
    device: Union[str, os.PathLike[str], None] = None,
    on_tpu_loss: str = "cpu",
    every_frame: bool = False,
    loop: bool = False,
    max_frames: Optional[int] = None,
    duration: Optional[float] = None,
    give_up: Optional[float] = None,
    **options: Option,
) -> Run:
    """Classify frames as `edge-mnv2 run` does, and iterate the results: `for result in run(source="0"): ...`.

    Every option of `run` that stands for a setting can be given (threads, workers, top_k, threshold, smooth, appear,
    allow, gate, size, roi, ...). The caller's code is the output: there is no page, log or window. A live source drops
    frames while the caller is busy with a result. Raises UsageError for wrong options; the rest while iterating.
    """
    from edge_mnv2.app.run import RunRequest
    from edge_mnv2.outputs.table import OutputValues

    if on_tpu_loss not in ("cpu", "exit"):
        raise UsageError(f"on_tpu_loss={on_tpu_loss!r}", hint="cpu or exit")
    for name, value in (("max_frames", max_frames), ("duration", duration), ("give_up", give_up)):
        if value is not None and not (isinstance(value, (int, float)) and value > 0):
            raise UsageError(f"{name}={value!r}", hint="a number above 0")
    settings = _settings("run", {"model": model, "labels": labels, **options}, device)
    return Run(
        RunRequest(
            settings=settings,
            source=source,
            camera=camera,
            on_tpu_loss=on_tpu_loss,
            every_frame=every_frame,
            repeat=loop,
            max_frames=max_frames,
            duration_s=duration,
            give_up_s=give_up,
            outputs=OutputValues(status=False, take_stdout=False),
        )
    )


class Run(_Closing):
    """The results of a run: iterate it, with `with` or without. `close`, or leaving the loop for good, ends it early.

    Each `Result` has `top` (predictions, best first), `present` (the labels of what is present now), `events` (what
    appeared or went), `frame`, `latency_ns`, `fps`. Raises ModelError, SourceError, AcceleratorError, ... where the run
    cannot begin or cannot go on.
    """

    def __init__(self, request: RunRequest) -> None:
        self._work = _BackgroundRun(request)
        # Nothing but this object keeps the camera busy.
        self._close = weakref.finalize(self, self._work.close)

    @property
    def summary(self) -> dict[str, Any]:
        """What `run --json` prints, as far as the run has come."""
        return self._work.session.outcome().summary

    def __iter__(self) -> Iterator[Result]:
        return self

    def __next__(self) -> Result:
        if not self._close.alive:
            raise StopIteration
        try:
            result = self._work.take()
        except BaseException:
            self.close()
            raise
        if result is None:
            self.close()
            raise StopIteration
        return result

    def close(self) -> None:
        """End the run and close model and source. Safe to call twice."""
        self._close()


class _BackgroundRun:
    """A run in a thread of its own. It is a sink of its frame loop, which waits until each result has been taken."""

    def __init__(self, request: RunRequest) -> None:
        from edge_mnv2.app.run import Session

        self.session = Session(request)
        self._open = contextlib.ExitStack()
        self._results: queue.Queue[Optional[Result]] = queue.Queue(1)
        self._thread: Optional[threading.Thread] = None
        self._error: Optional[BaseException] = None
        self._stopped = threading.Event()

    def take(self) -> Optional[Result]:
        """The next result, None at the end. Raises what ended the run."""
        if self._thread is None:
            with contextlib.ExitStack() as stack:
                self.session.open(stack)
                self._open = stack.pop_all()
            assert self.session.loop is not None
            self.session.loop.add_sink(self)
            self._thread = threading.Thread(target=self._run, name="run", daemon=True)
            self._thread.start()
        result = self._results.get()
        error = self._error or self.session.outcome().error
        if result is None and error is not None:
            raise error
        return result

    def write(self, result: Optional[Result]) -> None:
        """Called by the frame loop with each result, and with None at its end."""
        while not self._stopped.is_set():
            with contextlib.suppress(queue.Full):
                self._results.put(result, timeout=_POLL_S)
                return

    def _run(self) -> None:
        try:
            self.session.work()
        except BaseException as error:
            self._error = error
        self.write(None)

    def close(self) -> None:
        self._stopped.set()
        if self._thread is not None:
            assert self.session.loop is not None
            self.session.loop.stop()
            self._thread.join()
        self._open.close()


def _settings(
    caller: str,
    options: Mapping[str, Option],
    device: Union[str, os.PathLike[str], None],
    known: Optional[Sequence[str]] = None,
) -> Settings:
    """The settings in force for these options; `known` are the ones that the caller takes (None: every setting's)."""
    from edge_mnv2.settings.option import as_text
    from edge_mnv2.settings.profile import environment_overrides, option_overrides, resolve
    from edge_mnv2.settings.schema import OPTIONS
    from edge_mnv2.zoo.labels import own_labels

    labels = options.get("labels")
    listed = labels is not None and not isinstance(labels, (str, os.PathLike))
    names = sorted(OPTIONS) if known is None else list(known)
    texts: dict[str, Optional[str]] = {}
    for name, value in options.items():
        option = name.replace("_", "-")
        if option not in names:
            close = difflib.get_close_matches(option, names, 1)
            meant = f"did you mean {close[0].replace('-', '_')}?" if close else "docs/api.md lists the options"
            raise UsageError(f"{caller}() has no option {name}", hint=meant)
        texts[option] = None if value is None or (listed and name == "labels") else as_text(option, value)
    try:
        overrides = {**environment_overrides(), **option_overrides(texts, "command line")}
        settings = resolve(None if device is None else os.fspath(device), overrides)
        return settings.changed("model.labels", own_labels(labels)) if listed else settings  # type: ignore[arg-type]
    except UsageError as error:
        # There is no command line here.
        raise type(error)(error.message.removeprefix("--"), hint=error.hint) from None


def _pixels(image: Any) -> Any:
    if isinstance(image, (str, os.PathLike)):
        from edge_mnv2.camera.still import read_still

        return read_still(Path(image))
    shape, dtype = getattr(image, "shape", None), getattr(image, "dtype", None)
    if shape is None or len(shape) != 3 or shape[2] != 3 or 0 in shape or str(dtype) != "uint8":
        seen = type(image).__name__ if shape is None else f"an array of shape {tuple(shape)} and type {dtype}"
        raise UsageError(f"classify() got {seen}", hint="give RGB uint8 of shape (height, width, 3), or a path")
    return image
