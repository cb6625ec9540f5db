"""Pictures of "none of them": they lower false acceptance, are remembered, and contradictions are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.field_loop import photographs
from edge_mnv2.camera.still import read_still
from edge_mnv2.datasets.collection import Answer, Collection
from edge_mnv2.datasets.labelled_pictures import read_collected
from edge_mnv2.errors import UsageError
from edge_mnv2.runtime.opening import open_classifier
from edge_mnv2.teach.lesson_memory import recall
from edge_mnv2.teach.lesson_request import LessonRequest
from edge_mnv2.teach.teach_run import run
from tests.outputs.web.test_workbench import add

KNOWN, STRANGE = ("dog", "bird", "insect"), ("mammal", "reptile")


def answer(collection: Collection, paths: list[Path], label: object) -> None:
    collection.answer([add(collection, path.read_bytes()) for path in paths], Answer(label))  # type: ignore[arg-type]


def taught(collection: Collection, out: Path, add_to: object = None) -> Path:
    request = LessonRequest(
        collection.folder,
        out,
        holdout=0.0,
        add=add_to,
        collected=(collection.folder,),  # type: ignore[arg-type]
    )
    run(request, lambda line: None, lambda done, total: None)
    return out


def called_unknown(model: Path, paths: list[Path]) -> float:
    with open_classifier(str(model))[0] as classifier:
        best = [classifier.top(classifier.classify(read_still(path)).scores, 1)[0].label for path in paths]
    return best.count("unknown") / len(best)


@pytest.mark.slow
def test_pictures_of_no_class_lower_false_acceptance(data: Path, tmp_path: Path) -> None:
    photos = photographs(data)
    collection = Collection(tmp_path / "collected")
    for kind in KNOWN:
        answer(collection, photos[kind][:10], kind)
    before = taught(collection, tmp_path / "before.tflite")
    for kind in STRANGE:
        answer(collection, photos[kind][:10], None)
    after = taught(collection, tmp_path / "after.tflite", before)
    new = [path for kind in KNOWN for path in photos[kind][10:]]
    strangers = [path for kind in STRANGE for path in photos[kind][10:]]
    accepted = [1 - called_unknown(model, strangers) for model in (before, after)]
    recall_of_known = [1 - called_unknown(model, new) for model in (before, after)]
    assert accepted[1] <= 0.7 * accepted[0] and recall_of_known[1] >= recall_of_known[0] - 0.08
    # The file remembers them: teaching again without the collection keeps them, and none counts twice.
    memory = recall(after)
    assert memory.others is not None and len(memory.others) == 20 == len(set(memory.other_digests))
    again = recall(taught(collection, tmp_path / "again.tflite", after))
    assert again.others is not None and len(again.others) == 20
    # One of them is answered with a class now: it is no stranger any more.
    other = Collection(tmp_path / "other")
    answer(other, photos["mammal"][:1], "mammal")
    third = recall(taught(other, tmp_path / "third.tflite", after))
    assert third.others is not None and len(third.others) == 19
    # And the other way round it is refused.
    wrong = Collection(tmp_path / "wrong")
    answer(wrong, photos["bird"][:1], None)
    answer(wrong, photos["bird"][1:2], "bird")
    with pytest.raises(UsageError, match="taught as one of them"):
        taught(wrong, tmp_path / "fourth.tflite", after)


def test_two_boards_that_disagree_about_none_of_the_classes(data: Path, tmp_path: Path) -> None:
    path = photographs(data)["dog"][0]
    boards = [Collection(tmp_path / name) for name in "ab"]
    answer(boards[0], [path], "dog")
    answer(boards[1], [path], None)
    with pytest.raises(UsageError, match=r"is 'dog' in .*a and none of the classes in .*b"):
        read_collected([board.folder for board in boards])
