"""The classifier over real models and stubs of every dtype, shape and output that a user may bring."""

from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_mnv2.errors import LabelsError, ModelError, UsageError
from edge_mnv2.runtime import prediction
from edge_mnv2.runtime.classifier import Classifier, top_predictions
from edge_mnv2.runtime.interpreter import installed_runtimes, open_interpreter
from edge_mnv2.runtime.model_io import ModelSpec
from edge_mnv2.runtime.opening import model_spec
from edge_mnv2.runtime.table import TensorSpec
from edge_mnv2.teach.embedding import Embedder
from edge_mnv2.tflite.model_file import with_pool_output
from edge_mnv2.zoo.registry import DEFAULT_MODEL
from edge_mnv2.zoo.resolve import resolve
from tests.stubs import BLUE, GREEN, RED, colour_model, solid

COLOURS = {"red": RED, "green": GREEN, "blue": BLUE}


def saved(folder: Path, content: bytes) -> Path:
    path = folder / "stub.tflite"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("softmax", [True, False], ids=["softmax", "logits"])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "float32"])
def test_every_dtype_names_the_colour_with_a_probability(tmp_path: Path, dtype: str, softmax: bool) -> None:
    path = saved(tmp_path, colour_model(dtype, softmax=softmax))
    with Classifier.open(path, list(COLOURS)) as model:
        for name, colour in COLOURS.items():
            for order in ("rgb", "bgr"):
                pixels = solid(colour if order == "rgb" else colour[::-1])
                scores = model.scores(pixels, order)
                best = model.top(scores)[0]
                assert best.label == name
                assert 0.99 < best.score <= 1.0
                assert scores.dtype == np.float32 and scores.shape == (3,)
                assert scores.sum() == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_answers_in_a_row_are_their_own_where_a_runtime_gives_its_memory_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    """As an SDK does that lets people look at its output buffer."""
    with Classifier.open(saved(tmp_path, colour_model(dtype)), list(COLOURS)) as model:
        output, memory = model.interpreter.output, model.interpreter.output()

        def view(position: int = 0) -> np.ndarray:
            np.copyto(memory, output(position))
            return memory

        monkeypatch.setattr(model.interpreter, "output", view)
        prepared = [model.prepare(solid(colour), place=place) for place, colour in enumerate(COLOURS.values())]
        assert [model.top(one.scores)[0].label for one in model.answers(prepared)] == list(COLOURS)


@pytest.mark.parametrize("size", [(8, 8), (96, 96), (33, 64), (224, 224)])
def test_any_input_size_is_filled(tmp_path: Path, size: tuple[int, int]) -> None:
    path = saved(tmp_path, colour_model("int8", height=size[0], width=size[1]))
    with Classifier.open(path, list(COLOURS)) as model:
        assert model.input_size == size
        assert model.top(model.scores(solid(GREEN)))[0].label == "green"


def test_one_channel_takes_grey(tmp_path: Path) -> None:
    path = saved(tmp_path, colour_model("uint8", channels=1, outputs=2))
    with Classifier.open(path, ["bright", "dark"]) as model:
        assert model.top(model.scores(solid((255, 255, 255))))[0].label == "bright"
        assert model.top(model.scores(solid((0, 0, 0))))[0].label == "dark"


def test_a_dynamic_batch_is_one(tmp_path: Path) -> None:
    path = saved(tmp_path, colour_model("float32", batch_signature=-1))
    with Classifier.open(path, list(COLOURS)) as model:
        assert model.top(model.scores(solid(BLUE)))[0].label == "blue"


@pytest.mark.parametrize("channels", [2, 4])
def test_a_shape_that_is_no_picture_is_named(tmp_path: Path, channels: int) -> None:
    path = saved(tmp_path, colour_model("float32", channels=channels))
    with pytest.raises(ModelError, match=f"1x8x8x{channels}"):
        Classifier.open(path)


def test_a_coarse_output_scale_is_still_a_probability(tmp_path: Path) -> None:
    path = saved(tmp_path, colour_model("uint8", softmax=False, output_scale=0.5))
    with Classifier.open(path, list(COLOURS)) as model:
        scores = model.scores(solid(RED))
        assert scores.max() <= 1.0 and scores.min() >= 0.0


def test_mean_and_std_are_applied_to_quantized_inputs(tmp_path: Path) -> None:
    # The stub's real input is (pixel - 127.5) / 127.5; asking for exactly that must equal the default.
    path = saved(tmp_path, colour_model("int8"))
    picture = solid((200, 90, 30))
    with (
        Classifier.open(path, list(COLOURS)) as plain,
        Classifier.open(path, list(COLOURS), ModelSpec(mean=(127.5,), std=(127.5,))) as explicit,
    ):
        assert np.abs(plain.scores(picture) - explicit.scores(picture)).max() <= 1 / 64


def test_labels_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, colour_model())
    with pytest.raises(LabelsError) as refused:
        Classifier.open(path, ["one"])
    assert "1" in str(refused.value) and "3" in str(refused.value)


def test_without_labels_the_row_is_the_label(tmp_path: Path) -> None:
    with Classifier.open(saved(tmp_path, colour_model())) as model:
        assert model.top(model.scores(solid(BLUE)))[0].label == "2"


def test_equal_scores_keep_their_order() -> None:
    scores = np.array([0.1, 0.3, 0.3, 0.3, 0.0], np.float32)
    assert [one.index for one in top_predictions(scores, list("abcde"), 3)] == [1, 2, 3]
    assert [one.index for one in top_predictions(scores, list("abcde"), 99)] == [1, 2, 3, 0, 4]


@pytest.mark.parametrize("value", ["fast", "-1", "nan", "1e9"])
def test_a_simulated_time_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("EDGE_MNV2_SIMULATE_INFERENCE_MS", value)
    with pytest.raises(UsageError, match="EDGE_MNV2_SIMULATE_INFERENCE_MS"):
        Classifier.open(saved(tmp_path, colour_model()))


def test_simulated_time_is_the_least_that_an_inference_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_MNV2_SIMULATE_INFERENCE_MS", "30")
    with Classifier.open(saved(tmp_path, colour_model())) as model:
        assert model.classify(solid(RED)).inference_ns >= 30e6


def test_results_survive_the_next_inference(tmp_path: Path) -> None:
    with Classifier.open(saved(tmp_path, colour_model("float32"))) as model:
        first = model.scores(solid(RED))
        kept = first.copy()
        for _ in range(5):
            model.scores(solid(BLUE))
        assert np.array_equal(first, kept)


@pytest.mark.parametrize(
    "name", ["mobilenet_v2_1.0_224_quant", "tf2_mobilenet_v2_1.0_224_ptq", "mobilenet_v1_0.25_128_quant"]
)
def test_reference_models_know_a_cat(data: Path, name: str) -> None:
    picture = cv2.imread(str(data / "images" / "cat.bmp"))
    with Classifier.open(data / "models" / f"{name}.tflite") as model:
        best = model.top(model.scores(picture, "bgr"))[0]
        # Rows of a 1001-output model: tabby, tiger cat, Egyptian cat (and the small model's lynx).
        assert best.index in (282, 283, 286, 288)


@pytest.mark.parametrize("runtime", installed_runtimes())
@pytest.mark.parametrize(
    "name", ["mobilenet_v2_1.0_224_quant", "tf2_mobilenet_v2_1.0_224_ptq", "mobilenet_v1_0.25_128_quant", DEFAULT_MODEL]
)
def test_an_answer_brings_the_embedding_and_stays_the_same(data: Path, name: str, runtime: str) -> None:
    """What `run --collect` compares scenes by, without a second network."""
    model = resolve(name if name == DEFAULT_MODEL else str(data / "models" / f"{name}.tflite"))
    picture = cv2.imread(str(data / "images" / "cat.bmp"))[..., ::-1]
    with Classifier.open(model.path, spec=model_spec(model), runtime=runtime) as plain:
        expected = plain.classify(picture)
        assert expected.embedding is None and plain.embedder is None
    with Classifier.open(model.path, spec=model_spec(model), runtime=runtime, embeds=True) as classifier:
        answer = classifier.classify(picture)
        assert np.array_equal(answer.scores, expected.scores) and classifier.labels == plain.labels
    with Embedder(model, runtime=runtime) as embedder:
        assert answer.embedding is not None
        assert np.allclose(answer.embedding, embedder.layers[0].real(embedder.codes(picture)), atol=1e-5)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "float32"])
def test_the_embedding_of_every_dtype_is_real_and_there_once(tmp_path: Path, dtype: str) -> None:
    path = saved(tmp_path, colour_model(dtype))
    with Classifier.open(path, embeds=True) as model:
        answer = model.classify(solid(RED))
        assert answer.embedding is not None and answer.embedding.dtype == np.float32
        assert answer.embedding.argmax() == answer.scores.argmax() == 0 and answer.embedding.size == 3
    path.write_bytes(with_pool_output(path) or b"")
    assert with_pool_output(path) is None
    # As people export it themselves: it stays an output, and is the embedding too.
    with Classifier.open(path, spec=ModelSpec(output="0"), embeds=True) as model:
        again = model.classify(solid(RED))
        assert len(model.interpreter.outputs) == 2 and np.array_equal(again.scores, answer.scores)
        assert again.embedding is not None and np.array_equal(again.embedding, answer.embedding)


def test_what_has_no_embedding_is_opened_as_it_is(tmp_path: Path, data: Path) -> None:
    with pytest.raises(ModelError, match="Edge TPU"):
        Classifier.open(data / "models" / "mobilenet_v2_1.0_224_quant_edgetpu.tflite", embeds=True)
    path = data / "models" / "model_invoking_error.tflite"
    assert with_pool_output(path) is None
    for damaged in (b"\x1c\x00", b"\x1c\x00\x00\x00TFL3", bytes(5000), b""):
        assert with_pool_output(saved(tmp_path, damaged)) is None


def test_a_compiled_model_without_its_accelerator_is_explained(data: Path) -> None:
    with pytest.raises(ModelError, match="Edge TPU"):
        Classifier.open(data / "models" / "mobilenet_v2_1.0_224_quant_edgetpu.tflite")


def test_a_model_that_fails_when_it_runs_is_one_error(data: Path) -> None:
    with pytest.raises(ModelError):
        Classifier.open(data / "models" / "model_invoking_error.tflite").warm_up()


@pytest.mark.skipif(len(installed_runtimes()) < 2, reason="only one interpreter package is installed")
def test_both_runtimes_agree_bit_for_bit_without_delegates(data: Path) -> None:
    path = data / "models" / "mobilenet_v2_1.0_224_quant.tflite"
    picture = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), np.uint8)
    answers = []
    for runtime in installed_runtimes():
        with open_interpreter(path, runtime=runtime, xnnpack=False) as interpreter:
            interpreter.set_input(picture)
            interpreter.invoke()
            answers.append(interpreter.output())
    assert np.array_equal(*answers)


def test_no_folder_for_temporary_files_is_needed(stub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    # A full or read-only disk.
    monkeypatch.setattr(tempfile, "gettempdir", full)
    monkeypatch.setattr(tempfile, "_get_default_tempdir", full)
    monkeypatch.setattr(tempfile, "tempdir", None)
    for _ in range(2):
        with Classifier.open(stub) as classifier:
            assert classifier.scores(solid(RED)).argmax() == 0
        monkeypatch.delattr("os.memfd_create", raising=False)


def test_stderr_is_where_it_was_after_models_were_loaded_by_threads(stub: Path) -> None:
    def load() -> None:
        for _ in range(20):
            open_interpreter(stub).close()

    before = os.fstat(2), len(list(Path("/proc/self/fd").iterdir()))
    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = os.fstat(2), len(list(Path("/proc/self/fd").iterdir()))
    assert (before[0].st_dev, before[0].st_ino) == (after[0].st_dev, after[0].st_ino)
    assert before[1] == after[1]


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("scale", [0.17158737778663635, 1 / 256, 0.003])
def test_scores_that_are_looked_up_have_the_bits_of_the_arithmetic(dtype: str, scale: float) -> None:
    limits = np.iinfo(dtype)
    spec = TensorSpec("scores", 0, (1, 1000), np.dtype(dtype), scale, int(limits.min) + 88)
    looked_up, softmaxed = (prediction.score_reader(spec, logits) for logits in (False, True))
    random = np.random.default_rng(7)
    for low, high in ((limits.min, limits.max), (limits.min, limits.min), (limits.max - 3, limits.max), (-90, 20)):
        raw = random.integers(max(low, limits.min), high, 1000, np.dtype(dtype), endpoint=True)
        real = spec.dequantize(raw)
        assert looked_up(raw).tobytes() == real.tobytes()
        assert softmaxed(raw).tobytes() == prediction.softmax(real).tobytes()


@pytest.mark.parametrize("k", [1, 5, 16, 17, 40, 99])
def test_the_best_rows_are_those_of_a_stable_sort(k: int) -> None:
    random = np.random.default_rng(k)
    names = [str(row) for row in range(40)]
    for ties in (3, 1000):
        scores = (random.integers(0, ties, 40) / ties).astype(np.float32)
        for hidden in ([], [0, 7, 39], list(range(38))):
            shown = scores.copy()
            shown[hidden] = -np.inf
            best = top_predictions(shown, names, k)
            order = np.argsort(-shown, kind="stable")[:k]
            assert [(one.index, one.score) for one in best] == [(row, shown[row]) for row in order]
