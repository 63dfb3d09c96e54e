"""Files for MediaPipe's tasks: what they hold, what is refused, and that MediaPipe itself answers as edgebert does."""

import json
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import clients
import numpy as np
import pytest
from answering import TEXTS, VOCABULARY, labelled, save, save_sentence_encoder
from trained import minilm

import edgebert
from edgebert.answers.reading import applied
from edgebert.api import Exported
from edgebert.errors import EdgebertError
from edgebert.gate import golden
from edgebert.gate.parity import as_logits
from edgebert.runtimes.session import EDITED

CLASSES = "sequence-classification"
NEAR = 1e-5
EQUAL = 1e-4  # of MediaPipe and edgebert in every recipe; seen: none in 8 bits and in half


def export(source: Path | str, out: Path, **how: Any) -> Exported:
    return edgebert.export(source, metadata="mediapipe", out=out, **({"recipe": "fp32"} | how))


@pytest.mark.parity
def test_a_classifiers_file_gives_probabilities(tmp_path: Path) -> None:
    source = save(tmp_path / "source", CLASSES, **labelled("yes", "no", "per\nhaps"))
    made = export(source, tmp_path / "out")
    assert len(made.manifest.lengths) == 1
    assert [spec["name"] for spec in made.manifest.outputs] == ["probabilities"]
    assert made.manifest.reading["activation"] == "none"
    assert any("MediaPipe" in note for note in made.manifest.notes)
    assert edgebert.validate(made.folder).passed
    model = edgebert.load(source)
    assert model.tokenizer is not None
    with edgebert.open(made.folder) as opened:
        for text in TEXTS:
            inputs = model.tokenizer.batch([text], length=made.manifest.lengths[0])
            wanted = applied("softmax", golden.answer(model.model, inputs)["logits"][0])
            told = opened.classify(text)
            assert "logits" not in told
            assert {one["label"]: one["score"] for one in told["labels"]} == pytest.approx(
                dict(zip(made.manifest.labels, wanted, strict=True)), abs=NEAR
            )
    file = made.folder / made.manifest.model_file
    with zipfile.ZipFile(file) as archive:
        words = archive.read("vocab.txt").decode().splitlines()
        assert {token: words.index(token) for token in VOCABULARY} == model.tokenizer.backend.get_vocab(False)
        assert archive.read("labels.txt").decode().splitlines() == ["yes", "no", "per haps"]
    facts = edgebert.inspect(file).facts
    assert json.loads(facts.metadata["edgebert.labels"]) == ["yes", "no", "per\nhaps"]
    # What stands behind the model is sealed as the model is.
    content = file.read_bytes()
    file.write_bytes(content.replace(b"per haps", b"per hops"))
    assert edgebert.inspect(file).facts.seal == EDITED


REFUSED: dict[str, tuple[Callable[[Path], Path], dict[str, Any], str]] = {
    "no classifier": (lambda f: save(f, "token-classification"), {}, "not token-classification"),
    "plain numbers": (lambda f: save(f, CLASSES, problem_type="regression"), {}, "read by none"),
    "two lengths": (lambda f: save(f, CLASSES), {"lengths": (8, 16)}, "--lengths 16"),
    "another target": (lambda f: save(f, CLASSES), {"target": "onnx"}, "for tflite"),
    "a cased vocabulary": (lambda f: changed(save(f, CLASSES), lowercase=False), {}, "cased"),
    "whole Chinese words": (lambda f: changed(save(f, CLASSES), handle_chinese_chars=False), {}, "Chinese"),
    "no tokenizer": (lambda f: without_tokenizer(save(f, CLASSES)), {}, "without a tokenizer"),
}


def changed(folder: Path, **how: object) -> Path:
    """A checkpoint whose tokenizer prepares texts in another way."""
    raw = json.loads((folder / "tokenizer.json").read_bytes())
    raw["normalizer"] |= how
    (folder / "tokenizer.json").write_text(json.dumps(raw), encoding="utf-8")
    (folder / "tokenizer_config.json").unlink()  # which says how texts are prepared, too
    return folder


def without_tokenizer(folder: Path) -> Path:
    for name in ("tokenizer.json", "vocab.txt", "tokenizer_config.json"):
        (folder / name).unlink(missing_ok=True)
    return folder


@pytest.mark.parametrize("case", REFUSED)
def test_what_mediapipe_does_not_run_is_refused(case: str, tmp_path: Path) -> None:
    make, how, said = REFUSED[case]
    with pytest.raises(EdgebertError, match=said):
        export(make(tmp_path / "source"), tmp_path / "out", **how)
    assert not (tmp_path / "out").exists()


def test_other_metadata_is_not_known(tmp_path: Path) -> None:
    with pytest.raises(EdgebertError, match="metadata 'mediapip' is not known; did you mean mediapipe"):
        edgebert.export(metadata="mediapip", out=tmp_path / "out")


@pytest.mark.parametrize(("name", "activation"), [("probabilities", "softmax"), ("scores", "sigmoid")])
def test_what_a_classifier_gives_is_told_as_logits(name: str, activation: str) -> None:
    logits = np.array([[3.0, -1.0, 0.5], [0.0, 0.1, -0.1]])
    found = as_logits(name, applied(activation, logits).astype(np.float32))
    wanted = logits - logits.mean(-1, keepdims=True) if activation == "softmax" else logits
    assert found == pytest.approx(wanted, abs=1e-5)
    sure = as_logits(name, applied(activation, logits * 100).astype(np.float32))
    assert np.isfinite(sure).all()


CHECKPOINTS: dict[str, Callable[[Path], Path]] = {
    "classes": lambda folder: save(folder, CLASSES),
    "several-labels": lambda folder: save(folder, CLASSES, problem_type="multi_label_classification"),
    "relevance": lambda folder: save(folder, CLASSES, num_labels=1, **labelled("relevant")),
    "convbert": lambda folder: save(folder, CLASSES, "convbert"),
    "squeezebert": lambda folder: save(folder, CLASSES, "squeezebert"),
    "electra": lambda folder: save(folder, CLASSES, "electra"),
    "distilbert": lambda folder: save(folder, CLASSES, "distilbert"),
    "vectors": save_sentence_encoder,
    "cls-vectors": lambda folder: save_sentence_encoder(folder, modes="cls", normalize=False),
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """A bundle for MediaPipe, made once."""
    place = tmp_path_factory.mktemp("mediapipe")

    @cache
    def made(name: str, recipe: str) -> Path:
        source: Path | str = minilm() if name == "minilm" else name
        if name in CHECKPOINTS:
            source = CHECKPOINTS[name](place / f"{name}-{recipe}")
        return export(source, place / f"{name}-out-{recipe}", recipe=recipe).folder

    return made


ASKED = {"default": ("what is the weather like tomorrow", "wake me up at seven", "how much is on my account?")}
CASES = [(name, "fp32") for name in (*CHECKPOINTS, "default", "minilm")]
CASES += [(name, "w8a8-dynamic") for name in ("classes", "default", "minilm")] + [
    ("default", "fp16"),
    ("default", "w8"),
]


@pytest.mark.slow
@pytest.mark.skipif(clients.missing() is not None, reason=str(clients.missing()))
@pytest.mark.parametrize(("name", "recipe"), CASES)
def test_mediapipe_answers_as_edgebert(name: str, recipe: str, bundle: Callable[[str, str], Path]) -> None:
    folder, texts = bundle(name, recipe), ASKED.get(name, TEXTS)
    vectors = "vectors" in name or name == "minilm"
    told = clients.ask("mediapipe", "embedding" if vectors else "text-classification", folder, list(texts))
    with edgebert.open(folder) as opened:
        for text, theirs in zip(texts, told, strict=True):
            answer = opened.predict(text)
            if vectors:
                assert theirs == pytest.approx(answer["embedding"], abs=EQUAL)
                continue
            if "scores" in answer:
                wanted = dict(zip(opened.manifest.labels, answer["scores"], strict=True))
            else:
                wanted = {one["label"]: one["score"] for one in answer["labels"]}
            assert {label: theirs[label] for label in wanted} == pytest.approx(wanted, abs=EQUAL)
