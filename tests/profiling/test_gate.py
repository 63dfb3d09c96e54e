"""Rows of several texts on a device: the gate asks for them there too, and given ones are run as what they are."""

from pathlib import Path

import numpy as np
import pytest
from shared import shared
from tiny import visible

import edgebert
from edgebert.exporters.tflite import export as exporter
from edgebert.gate import golden, packing
from edgebert.profiling.profile import profile
from edgebert.profiling.subject import devices
from edgebert.quantization.recipes import RECIPES
from edgebert.runtimes.devices.device import Job
from edgebert.runtimes.devices.pixel import sandbox
from edgebert.runtimes.packing import lay
from edgebert.runtimes.tflite import session as runtime

pytestmark = [
    pytest.mark.parity, pytest.mark.skipif(exporter.missing() is not None, reason=f"needs {exporter.missing()}"),
]  # fmt: skip
needs_pixel = pytest.mark.skipif(sandbox.missing() is not None, reason=f"needs {sandbox.missing()}")
TEXTS = [np.array([7, 8, 9], np.int32), np.array([11, 5], np.int32), np.arange(20, 27, dtype=np.int32)]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(folder: Path) -> Path:
        source = folder / "encoder"
        source.mkdir()
        (source / "config.json").write_text(
            '{"model_type": "bert", "architectures": ["BertModel"], "vocab_size": 120, "hidden_size": 32, '
            '"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "type_vocab_size": 1, '
            '"max_position_embeddings": 64}'
        )
        edgebert.export(source, task="sentence-embedding", lengths=(8, 16), out=folder / "bundle", random_init=True)
        return folder / "bundle"

    return shared(tmp_path_factory, "packed-rows", make)


@pytest.mark.parametrize("device", ["host", pytest.param("pixel-4", marks=needs_pixel)])
def test_the_gate_asks_for_rows_of_several_texts_on_a_device(bundle: Path, device: str) -> None:
    told = edgebert.validate(bundle, device)
    assert told.passed
    (check,) = (check for check in told.checks if check.name == "texts that share a row")
    assert "texts in" in check.detail


def test_given_rows_are_run_by_the_entry_point_that_takes_them(bundle: Path, tmp_path: Path) -> None:
    rows, out = tmp_path / "rows.npz", tmp_path / "out.npz"
    np.savez(rows, **lay(TEXTS, 16))  # type: ignore[arg-type]
    (host,) = devices(["host"])
    host.measure(Job(bundle / "model.tflite", rows, 16, 1, 1, 1, out, {}))
    with np.load(out) as told, edgebert.open(bundle) as opened:
        vectors = told["sentence_embedding"]
        alone = [opened.run(_alone(text))["sentence_embedding"][0] for text in TEXTS]
    assert vectors.shape == (4, 32)
    np.testing.assert_array_equal(vectors[: len(TEXTS)], alone)
    # And those of a text alone where none were given.
    assert [row.length for row in profile([bundle / "model.tflite"], ["host"], runs=1).rows] == [16]


def test_a_file_without_such_rows_is_not_asked_for_them(tmp_path: Path) -> None:
    model = visible("bert", "sentence-embedding")
    one = exporter.export(model, RECIPES["fp32"], (8,), tmp_path / "one.tflite")
    assert runtime.facts(one.path).packed is None
    other = exporter.export(
        visible("convbert", "sentence-embedding"), RECIPES["fp32"], (8, 16), tmp_path / "two.tflite"
    )
    assert runtime.facts(other.path).packed is None


def test_what_one_row_takes_is_what_the_file_says(bundle: Path) -> None:
    facts = runtime.facts(bundle / "model.tflite")
    assert facts.packed == (16, 4)
    asked, _ = packing.questions(golden.load(bundle / "golden.npz"), *facts.packed, 0)
    assert asked["input_ids"].shape[1] == 16


def _alone(text: np.ndarray) -> dict[str, np.ndarray]:
    ids = text[None]
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
