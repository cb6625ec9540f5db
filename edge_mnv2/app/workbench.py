"""What the page can do with the model of a run, or with a collection alone: answer, teach, try, switch, step back."""

from __future__ import annotations

import contextlib
import statistics
import threading
from pathlib import Path
from typing import Any, Optional, Protocol

from edge_mnv2.app.board_models import TAUGHT_MODEL, home_in, registered, remember_in_use
from edge_mnv2.app.reteach import TAUGHT, Job, Reteaching
from edge_mnv2.camera.settings import Roi
from edge_mnv2.datasets.collection import AnyCollection
from edge_mnv2.errors import EdgeMnv2Error, ModelError, SourceError, UsageError
from edge_mnv2.outputs.records import as_entry
from edge_mnv2.pipeline.statistics import give_back_memory
from edge_mnv2.runtime.classifier import Classifier
from edge_mnv2.runtime.opening import Classifiers, open_classifier
from edge_mnv2.settings.schema import ModelOptions
from edge_mnv2.teach.lesson_memory import recall
from edge_mnv2.zoo import latest, versions
from edge_mnv2.zoo.model_facts import MovedThreshold

_TRIED = 10
_MOST_PIXELS = 64_000_000
"""Of a picture that is sent: a few kilobytes can hold many more, which would take memory and CPU from the run."""
_IDLE_S = 10.0
"""After so long without a picture to try, the network for that is closed."""
_SLOWER = 1.25
"""A model that takes so many times as long as the one in use is not taken by itself, unless it keeps the frame rate."""


class Running(Protocol):
    """The run that goes on beside the workbench."""

    @property
    def model(self) -> str: ...

    @property
    def frame_ms(self) -> Optional[float]:
        """Milliseconds between two frames, None where no frame rate is known."""

    def open(self, model: str, options: ModelOptions) -> Classifiers: ...

    def region(self) -> Any:
        """The newest picture that was classified, RGB uint8 HxWx3, or None."""

    def inference_ms(self) -> Optional[float]: ...

    def objection(self, classifiers: Classifiers) -> str:
        """Which class an option of the run names that these do not have, in a sentence; empty where there is none."""

    def switch(self, classifiers: Classifiers, model: str, forced: bool) -> None: ...

    def set_roi(self, roi: Optional[Roi]) -> None: ...

    def carry(self, unknown: Optional[MovedThreshold]) -> None:
        """Where somebody has moved the beginning of "unknown", move it in another classifier too."""


class ModelWorkbench:
    """The workbench over `collection` (None: nothing is collected) and `run` (None: `review` alone).

    `model` is the path or name of the model in use. A model that is taught here lives beside the collection, or where
    a taught model that was given lives; its former versions are kept.
    """

    def __init__(
        self,
        collection: Optional[AnyCollection],
        model: Optional[str],
        run: Optional[Running] = None,
        threads: int = 1,
        options: ModelOptions = ModelOptions(),
        in_use: Optional[str] = None,
    ) -> None:
        """`options`: what the command line says about `model`; `in_use`: what runs in its place."""
        self.collection = collection
        self._original = model
        self._run = run
        self._threads = threads
        self._options = options
        self._teaching = Reteaching()
        self._lock = threading.Lock()
        self._trial: tuple[Optional[str], Optional[Classifier]] = (None, None)
        self._forgetting = threading.Timer(_IDLE_S, self._forget_idle_trial)
        self.in_use = in_use or model
        # Where a taught model goes, and the model whose versions are listed: another one may have come by NAME@latest.
        self._home = self._listed = self._find_home(model)

    def close(self) -> None:
        """End what is under way."""
        self._teaching.stop()
        self._forget_trial()

    def document(self) -> dict[str, Any]:
        teaching = self._teaching.document()
        answered: list[str] = []
        if self.collection is not None:
            labels = (item.answer.label for item in self.collection.items() if item.answer is not None)
            answered = list(dict.fromkeys(label for label in labels if label))
        taught = self._taught_classes()
        return {
            "model": Path(self.in_use).name if self.in_use else None,
            "live": self._run is not None,
            "classes": list(dict.fromkeys([*taught, *answered])),
            "can_teach": self.collection is not None and bool(answered) and len({*taught, *answered}) > 1,
            "teaching": {**teaching, "model": "candidate" if teaching["state"] == TAUGHT else None},
            "versions": [self._row(version) for version in self._versions()],
            "models": self._models(),
        }

    def teach(self) -> None:
        """Teach from the answers, in a process of its own. Raises UsageError where that cannot begin."""
        if self.collection is None:
            raise UsageError("nothing is collected here", hint="start the run with --collect DIR")
        add = str(self._home) if self._taught_classes() else None
        backbone = None if add else self._original
        former = self.in_use
        job = Job(
            [str(folder) for folder in self.collection.folders],
            str(self._candidate),
            add,
            backbone,
            former,
            self._threads,
        )
        self._candidate.parent.mkdir(parents=True, exist_ok=True)
        if not self._teaching.start(job):
            raise UsageError("teaching is under way", hint="wait for its end, or stop it")

    def cancel(self) -> None:
        self._teaching.stop()

    def swap(self, model: str, force: bool) -> dict[str, Any]:
        """Take `model`, one that `document` names or NAME@latest of the team's registry, into the run.

        `{"taken": False, "why": ...}` where it is not taken.
        Raises EdgeMnv2Error where it cannot be opened; the run then goes on with what it has.
        """
        name = latest.name_of(model)
        # What was fetched is tried and taken before anything is fetched in its place.
        with contextlib.nullcontext() if name is None else latest.alone(name):
            return self._swap(model, name, force)

    def _swap(self, model: str, name: Optional[str], force: bool) -> dict[str, Any]:
        # Before anybody has to wait: it may take a while to come.
        newest = None if name is None else latest.fetch(name)
        with self._lock:
            if name is None:
                path, better = self._path_of(model)
            else:
                path, better = str(newest or latest.home_of(name)), None
                if path == self.in_use:
                    return {"taken": False, "why": f"The newest {name} is in use"}
            # What the command line says of the model that the run began with is true of no other one.
            options = self._options if model == "original" else ModelOptions()
            if self._run is None:
                if newest is not None:
                    open_classifier(path)[0].close()
                return self._taken(self._made_current(model, newest is not None) or path)
            classifiers = self._run.open(path, options)
            try:
                why = "" if force else self._why_not(classifiers, better)
                if why:
                    classifiers.__exit__()
                    return {"taken": False, "why": why}
                settled = self._made_current(model, newest is not None)
                if settled is not None and settled != path:
                    classifiers.__exit__()
                    path = settled
                    classifiers = self._run.open(path, options)
                self._run.switch(classifiers, path, force)
            except BaseException:
                classifiers.__exit__()
                raise
            return self._taken(path)

    def _taken(self, path: str) -> dict[str, Any]:
        self.in_use = path
        # The file of that name may hold another version now.
        self._forget_trial()
        if self.collection is not None and self._original is not None and self._home == home_in(self.collection.folder):
            remember_in_use(self.collection.folder, self._original, taught=path == str(self._home))
        return {"taken": True, "model": Path(path).name}

    def set_roi(self, roi: Any) -> None:
        from edge_mnv2.settings.schema import KEYS

        if self._run is None:
            raise UsageError("no run is going on here")
        try:
            region = None if roi is None else Roi(*KEYS["camera.roi"].kind.accept(roi))
            # In fractions: a region that lies outside of the next frame would end the run.
            inside = region is None or (region.x + region.width <= 1 and region.y + region.height <= 1)
        except ValueError:
            inside = False
        if not inside:
            raise UsageError(f"roi: {str(roi)[:80]} is not [x, y, width, height] in fractions of the picture")
        self._run.set_roi(region)

    def classify(self, name: str, picture: bytes) -> dict[str, Any]:
        """As one result of `classify --json`. Raises SourceError for what is no picture."""
        import tempfile

        from edge_mnv2.camera.still import read_still

        with tempfile.NamedTemporaryFile(prefix="edge-mnv2-") as file:
            file.write(picture)
            file.flush()
            try:
                pixels = read_still(file.name, most_pixels=_MOST_PIXELS)
            except SourceError as error:
                raise type(error)(error.message.replace(file.name, name), hint=error.hint) from None
        with self._lock:
            if self._trial[0] != self.in_use or self._trial[1] is None:
                self._forget_trial()
                options = self._options if self.in_use == self._original else ModelOptions()
                self._trial = self.in_use, open_classifier(self.in_use, options, threads=self._threads)[0]
            classifier = self._trial[1]
            assert classifier is not None
            if self._run is not None:
                self._run.carry(classifier.unknown)
            result = classifier.classify(pixels)
            top = classifier.top(result.scores)
            self._forgetting.cancel()
            self._forgetting = threading.Timer(_IDLE_S, self._forget_idle_trial)
            self._forgetting.daemon = True
            self._forgetting.start()
        return {
            "file": name,
            "top": [as_entry(one) for one in top],
            "inference_ms": round(result.inference_ns / 1e6, 3),
        }

    def _forget_idle_trial(self) -> None:
        """A second network beside the run takes its memory only while somebody tries pictures."""
        with self._lock:
            self._forget_trial()
        give_back_memory()

    def _forget_trial(self) -> None:
        self._forgetting.cancel()
        if self._trial[1] is not None:
            self._trial[1].close()
        self._trial = (None, None)

    @property
    def _candidate(self) -> Path:
        assert self.collection is not None
        # Under the name that it will have, which its sidecar names too.
        name = self._home.name if self._home is not None else TAUGHT_MODEL
        return self.collection.folder / "taught" / "next" / name

    def _find_home(self, model: Optional[str]) -> Optional[Path]:
        """Where the taught model lives: the model in use if it was taught, else a place in the collection."""
        if model is not None:
            path = Path(model)
            if latest.is_home(path):
                return path
            if path.suffix == ".tflite" and path.is_file():
                try:
                    recall(path)
                    return path
                except ModelError:
                    pass
        return None if self.collection is None else home_in(self.collection.folder)

    def _settle(self) -> str:
        """The candidate takes the taught model's name, with all its files at once; the former one is kept."""
        assert self._home is not None
        versions.keep(self._home)
        versions.put(self._candidate, self._home)
        self._listed = self._home
        return str(self._home)

    def _made_current(self, model: str, candidate: bool = True) -> Optional[str]:
        """The model's path, after a candidate or a former version has taken its place; None for other models."""
        if model == "candidate":
            return self._settle()
        if model.startswith("version:"):
            assert self._listed is not None
            versions.use(self._listed, int(model.partition(":")[2]))
            return str(self._listed)
        if (name := latest.name_of(model)) is not None:
            self._listed = latest.take(name) if candidate else latest.home_of(name)
            return str(self._listed)
        return None

    def _path_of(self, model: str) -> tuple[str, Optional[bool]]:
        """The path or name of a model that `document` names, and whether it measured better than the one in use."""
        if model == "candidate" and self._teaching.report is not None:
            report = self._teaching.report
            known = report["before"] is not None and report["after"] is not None
            return str(self._candidate), report["after"] >= report["before"] if known else None
        if model == "original" and self._original is not None:
            return self._original, None
        if model.startswith("version:"):
            for version in self._versions():
                if model == f"version:{version.number}":
                    return version.path, None
        if model in {row["model"] for row in self._models()}:
            return model, None
        raise UsageError(f"'{model[:80]}' is not a model of this board", hint="choose one of the list")

    def _why_not(self, classifiers: Classifiers, better: Optional[bool]) -> str:
        assert self._run is not None
        if objection := self._run.objection(classifiers):
            return objection
        if better is False:
            return "The new model is right less often than the one in use"
        pixels, before, frame = self._run.region(), self._run.inference_ms(), self._run.frame_ms
        if pixels is None or before is None:
            return ""
        classifier = classifiers.classifiers[0]
        now = statistics.median(classifier.classify(pixels).inference_ns for _ in range(_TRIED)) / 1e6
        if now > _SLOWER * before and not (frame is not None and now < frame):
            return f"The new model takes {now:.1f} ms a picture, the one in use {before:.1f} ms"
        return ""

    def _taught_classes(self) -> list[str]:
        if self._home is None or not self._home.is_file():
            return []
        try:
            return [str(name) for name in recall(self._home).about.get("classes", ())]
        except EdgeMnv2Error:
            return []

    def _versions(self) -> list[versions.Version]:
        if self._listed is None or not self._listed.is_file():
            return []
        return versions.versions(self._listed)

    def _row(self, version: versions.Version) -> dict[str, Any]:
        current = version.current and self.in_use == str(self._listed)
        return {**version.as_dict(), "current": current, "model": f"version:{version.number}", "path": None}

    def _models(self) -> list[dict[str, Any]]:
        """Models that can be switched to: what the run began with, and classifiers of the registry that are here."""
        rows = [] if self._original is None else [{"model": "original", "name": Path(self._original).name}]
        return [*rows, *registered()]
