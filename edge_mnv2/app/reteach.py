"""Teaching from collected pictures in a process of its own, beside a run that goes on.

`python -m edge_mnv2.app.reteach JOB` (JOB is JSON) writes JSON Lines: `{"progress": 0..1}`, then `{"report": {...}}` or
`{"error": "..."}`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

from edge_mnv2.board.cpus import usable_cpus
from edge_mnv2.errors import EdgeMnv2Error
from edge_mnv2.paths import module_command

_NICE = 10
_OOM_SCORE = 500
"""When memory runs out, the kernel ends the teaching and not the run."""
_MOST_COMPARED = 300

IDLE, TEACHING, TAUGHT, FAILED = "idle", "teaching", "taught", "failed"


@dataclass(frozen=True)
class Job:
    """What to teach: the answers in `collections`; `add` extends a taught model, else `backbone` is taught anew.

    `former` is the model that runs now, whose answers are compared; `threads` of the interpreter.
    """

    collections: Sequence[str]
    out: str
    add: Optional[str] = None
    backbone: Optional[str] = None
    former: Optional[str] = None
    threads: int = 1


class Reteaching:
    """A job under way, or what became of the last one. Any thread may look."""

    def __init__(self) -> None:
        self.state = IDLE
        self.text = "Answer some pictures, then teach."
        self.progress: Optional[float] = None
        self.report: Optional[dict[str, Any]] = None
        self._child: Optional[subprocess.Popen[str]] = None
        self._stopped = False
        self._lock = threading.Lock()

    def start(self, job: Job) -> bool:
        """Begin; False where a job is under way."""
        with self._lock:
            if self.state == TEACHING:
                return False
            command = module_command("edge_mnv2.app.reteach", json.dumps(asdict(job)))
            try:
                child = subprocess.Popen(
                    command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="replace"
                )
            except OSError as error:
                raise EdgeMnv2Error(f"teaching cannot begin: {error.strerror or error}") from None
            self.state, self.text, self.progress, self.report = TEACHING, "Looking at the pictures.", 0.0, None
            self._child, self._stopped = child, False
            threading.Thread(target=self._follow, args=(self._child,), name="reteach", daemon=True).start()
        return True

    def stop(self) -> None:
        """End the job that is under way."""
        child = self._child
        if child is not None and child.poll() is None:
            self._stopped = True
            child.terminate()

    def document(self) -> dict[str, Any]:
        """For the page."""
        return {"state": self.state, "text": self.text, "progress": self.progress, "report": self.report}

    def _follow(self, child: subprocess.Popen[str]) -> None:
        error: Optional[str] = None
        assert child.stdout is not None
        for line in child.stdout:
            with contextlib.suppress(ValueError):
                said = json.loads(line)
                if not isinstance(said, dict):
                    continue
                if "progress" in said:
                    self.progress = said["progress"]
                    self.text = "Looking at the pictures." if self.progress < 1 else "Learning."
                self.report = said.get("report", self.report)
                error = said.get("error", error)
        code = child.wait()
        if self.report is not None:
            self.state, self.text = TAUGHT, _in_words(self.report)
        elif self._stopped and error is None:
            self.state, self.text = IDLE, "Stopped: the model is as it was."
        else:
            killed = "was killed, most likely for want of memory"
            how = killed if code == -signal.SIGKILL else f"ended with exit code {code}"
            self.state, self.text = FAILED, error or f"Teaching {how}: the model is as it was."


def _in_words(report: dict[str, Any]) -> str:
    after, before = report["after"], report["before"]
    if after is None:
        return "The new model is ready; too few pictures to measure it."
    if before is None:
        return f"The new model is ready: {after:.0%} of held-out pictures are right."
    return f"The new model is ready: {after:.0%} of held-out pictures are right, {before:.0%} before."


def teach(job: Job) -> dict[str, Any]:
    """Do `job` in this process; what it would change. Raises EdgeMnv2Error."""
    from edge_mnv2.teach.lesson_request import LessonRequest
    from edge_mnv2.teach.teach_run import run

    folders = tuple(map(Path, job.collections))
    before = _document(job.add)
    request = LessonRequest(
        folders[0],
        Path(job.out),
        job.backbone,
        add=Path(job.add) if job.add else None,
        threads=job.threads,
        collected=folders,
    )
    outcome = run(request, lambda _: None, lambda done, total: _say({"progress": done / max(1, total)}))
    return {**compared(before, outcome.document), "changed": _changed(job, folders), "model": job.out}


def compared(before: Optional[dict[str, Any]], after: dict[str, Any]) -> dict[str, Any]:
    """Held-out accuracy by class and over all, of the former model's document (None: none) and the new one's.

    Each is measured as `teach` does: on the pictures that were held out of its own lesson.
    """
    former, now = _by_class(before), _by_class(after)
    return {
        "classes": [
            {"label": label, "pictures": pictures, "before": former.get(label, (0, None))[1], "after": share}
            for label, (pictures, share) in now.items()
        ],
        "before": before["metrics"]["top1"] if before else None,
        "after": after["metrics"]["top1"],
        "confusion": {
            "before": before["metrics"]["confusion"] if before else [],
            "after": after["metrics"]["confusion"],
        },
        "warnings": after["warnings"],
    }


def _by_class(document: Optional[dict[str, Any]]) -> dict[str, tuple[int, Optional[float]]]:
    """Label → (held-out pictures, share of them that is right)."""
    if document is None:
        return {}
    right: dict[str, int] = {}
    for cell in document["metrics"]["confusion"]:
        if cell["row"] == cell["predicted_row"]:
            right[cell["label"]] = right.get(cell["label"], 0) + cell["images"]
    return {
        one["label"]: (one["held_out"], right.get(one["label"], 0) / one["held_out"] if one["held_out"] else None)
        for one in document["classes"]
    }


def _changed(job: Job, folders: Sequence[Path]) -> Optional[int]:
    """How many collected pictures the new model calls otherwise than the former one; of many, a sample."""
    from edge_mnv2.camera.still import read_still
    from edge_mnv2.datasets.collection import Collection
    from edge_mnv2.runtime.opening import open_classifier

    if job.former is None:
        return None
    collections = [Collection(folder, create=False) for folder in folders]
    paths = [path for one in collections for item in one.items() if (path := one.path(item.id)) is not None]
    step = max(1, len(paths) // _MOST_COMPARED)
    changed = 0
    threads = job.threads
    with open_classifier(job.former, threads=threads)[0] as old, open_classifier(job.out, threads=threads)[0] as new:
        for path in paths[::step]:
            pixels = read_still(path)
            answers = [each.top(each.classify(pixels).scores, 1)[0].label for each in (old, new)]
            changed += answers[0] != answers[1]
    return changed * step


def _document(model: Optional[str]) -> Optional[dict[str, Any]]:
    if model is None:
        return None
    try:
        document = json.loads(Path(model).with_suffix(".json").read_bytes())
        return document if document["metrics"]["confusion"] is not None and document["classes"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _say(document: dict[str, Any]) -> None:
    print(json.dumps(document), flush=True)


def _yield_to_the_run() -> None:
    """Where there are several CPUs, only what the run leaves: its threads wait for each other in each frame, so that a
    slice taken from one is taken from all. On one CPU that could be nothing for ever, so there teaching has its share.
    """
    if usable_cpus() > 1:
        # A sandbox may forbid it.
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
            return
    os.nice(_NICE)


def main() -> None:
    """The child's side."""
    _yield_to_the_run()
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE))
    try:
        _say({"report": teach(Job(**json.loads(sys.argv[1])))})
    except EdgeMnv2Error as error:
        _say({"error": str(error)})
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
