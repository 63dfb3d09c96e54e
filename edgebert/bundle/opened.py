"""An open bundle: text in, the task's answer out."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import numpy as np

from edgebert import bundle
from edgebert.bundle.generate import Generated, greedy
from edgebert.bundle.manifest import Manifest
from edgebert.errors import InputError, MissingDependency
from edgebert.models.signature import Arrays, check_ids, limit_types
from edgebert.runtimes import RUNTIMES
from edgebert.runtimes.session import EDITED, Facts, Session
from edgebert.tokenizers import tokenizer
from edgebert.tokenizers.tokenizer import Encoding, Tokenizer

TOP = 5

# What answers are made of, and its rank, where that is not `logits` for each token.
OUTPUTS = {
    "base": {"last_hidden_state": 3},
    "sequence-classification": {"logits": 2},
    "multiple-choice": {"logits": 2},
    "question-answering": {"start_logits": 2, "end_logits": 2},
}

# The package that is a floor's runtime here, where a version of it may be older than some floor.
PACKAGES = {"LiteRT": "ai-edge-litert", "ONNX Runtime": "onnxruntime", "ExecuTorch": "executorch"}


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle with its model open in the target's own runtime. Usable as a context manager.

    Attributes:
        folder: where it stands.
        manifest: what it says of itself.
        session: the open model file.
        tokenizer: None where the model came without one.
    """

    folder: Path
    manifest: Manifest
    session: Session
    tokenizer: Tokenizer | None

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """Answer int32 arrays (B, T) of `input_ids`, `attention_mask`, `token_type_ids`.

        T is padded to the smallest length that fits, and outputs are cut back to it.

        Raises:
            InputError: names, shapes or dtypes are wrong, T is too long, or an id is outside the vocabulary.
        """
        check_ids(inputs, self.manifest.vocab_size)
        return self.session.run(inputs)

    def predict(self, text: str, *pairs: str) -> dict[str, Any]:
        """Answer a text the way its task does; values are plain and go into JSON as they are.

        Args:
            text: a sentence, a question, or a prompt.
            pairs: the second text where the task takes one: the context of a question, or the choices to score.

        Raises:
            InputError: the bundle has no tokenizer, or the task takes another number of texts.
        """
        if self.tokenizer is None:
            raise InputError(f"{self.folder} has no tokenizer.json (its model came without one): call run() with ids.")
        task = self.manifest.task
        least, most = {"question-answering": (1, 1), "multiple-choice": (2, 1 << 30)}.get(task, (0, 1))
        if not least <= len(pairs) <= most:
            wanted = {"question-answering": "a context", "multiple-choice": "two choices or more"}.get(
                task, "at most one"
            )
            raise InputError(f"{len(pairs)} further texts for {task}, which takes {wanted}: pass it with --pair.")
        longest = self.manifest.lengths[-1]
        texts: list[str | tuple[str, str]] = [(text, pair) for pair in pairs] if pairs else [text]
        encodings = [self.tokenizer.encode(text, pair, max_length=longest) for pair in pairs or (None,)]
        needed = max(len(encoding.ids) for encoding in encodings)
        # Filled up here, with the tokenizer's own padding: a ConvBERT's convolutions see it.
        length = needed if self.manifest.dynamic else next(n for n in self.manifest.lengths if n >= needed)
        types = self.manifest.config.get("type_vocab_size", 1)  # a config without the field has no token types
        outputs = self.run(limit_types(self.tokenizer.batch(texts, length=length), types))
        self._check(outputs)
        return ANSWERS[task](self, encodings, outputs, pairs)

    def _check(self, outputs: Arrays) -> None:
        """See that the file answers as its manifest says that it does."""
        task, labels = self.manifest.task, self.manifest.labels
        for name, rank in OUTPUTS.get(task, {"logits": 3}).items():
            value = outputs.get(name)
            if value is None or value.ndim != rank or (labels and value.shape[-1] != len(labels)):
                shapes = ", ".join(f"{name} {value.shape}" for name, value in outputs.items())
                raise InputError(f"{self.folder} says {task} and answers {shapes}: export the bundle again.")

    def generate(self, text: str, max_new_tokens: int = 20) -> Generated:
        """Continue a text with the likeliest piece each time, until [SEP], `max_new_tokens` or the longest length.

        The file is run at growing length, over the whole sequence for each new piece. On a model whose tokens see only
        what came before (`is_decoder`) the first piece is the one that `predict` gives.

        Raises:
            InputError: the bundle has no tokenizer, its task is not causal-lm, the text leaves no room, or
                max_new_tokens is not positive.
        """
        if self.manifest.task != "causal-lm":
            raise InputError(
                f"{self.folder} is for {self.manifest.task}; only a bundle for causal-lm continues a text."
            )
        if self.tokenizer is None:
            raise InputError(f"{self.folder} has no tokenizer.json (its model came without one): call run() with ids.")
        return greedy(self.run, self.tokenizer, text, max_new_tokens, self.manifest.lengths[-1])

    def close(self) -> None:
        """Close the model file."""
        self.session.close()

    def __enter__(self) -> "Bundle":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_bundle(folder: str | Path, threads: int = 1) -> Bundle:
    """Open a bundle for use; see `edgebert.open`."""
    folder = Path(folder)
    manifest = bundle.read(folder)
    runtime = _runtime(folder, manifest)
    words = tokenizer.load(folder / bundle.TOKENIZER) if bundle.TOKENIZER in manifest.files else None
    return Bundle(folder, manifest, runtime.open(folder / manifest.model_file, threads), words)


def look_into(folder: str | Path) -> tuple[Manifest, Facts]:
    """What a bundle says of itself, and what its model file holds; also where that file was edited since.

    Raises:
        InputError: the folder is no bundle, or another of its files is not the one that was written.
        MissingDependency: the runtime is not installed.
    """
    folder = Path(folder)
    manifest, changed = bundle.look(folder)
    facts: Facts = _runtime(folder, manifest).facts(folder / manifest.model_file)
    # A file with a whole seal of its own may still be another bundle's.
    return manifest, replace(facts, seal=EDITED) if changed else facts


def _runtime(folder: Path, manifest: Manifest) -> ModuleType:
    if manifest.target not in RUNTIMES:
        raise InputError(
            f"{folder}: target {manifest.target!r} is not known; this edgebert runs {', '.join(RUNTIMES)}."
        )
    if command := RUNTIMES[manifest.target].missing():
        raise MissingDependency(f"the {manifest.target} runtime is not installed: run {command}")
    _check_floor(folder, manifest.floor)
    return RUNTIMES[manifest.target]


def _check_floor(folder: Path, floor: str) -> None:
    """Refuse a bundle whose runtime is installed in a version below its floor."""
    runtime, _, least = floor.rpartition(" ")
    if package := PACKAGES.get(runtime):
        installed = version(package)
        if _numbers(installed) < _numbers(least):
            raise MissingDependency(
                f"{folder} needs {floor} or later, and {package} {installed} is installed: "
                f"run pip install --upgrade {package}"
            )


def _numbers(text: str) -> list[int]:
    """The first two numbers of a version."""
    return [int(number) for number in re.findall(r"\d+", text)[:2]]


def _softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits.astype(np.float64) - logits.max())
    out: np.ndarray = shifted / shifted.sum()
    return out


def _top(logits: np.ndarray) -> list[tuple[int, float]]:
    """The most likely classes and their probabilities, likeliest first."""
    scores = _softmax(logits)
    return [(int(i), float(scores[i])) for i in np.argsort(-scores, kind="stable")[:TOP]]


def _ranked(names: Sequence[str], logits: np.ndarray) -> list[dict[str, Any]]:
    return [{"label": names[i], "score": score} for i, score in _top(logits)]


def _classes(opened: Bundle, encodings: list[Encoding], outputs: Arrays, pairs: Sequence[str]) -> dict[str, Any]:
    ranked = _ranked(opened.manifest.labels, outputs["logits"][0])
    return {"label": ranked[0]["label"], "score": ranked[0]["score"], "labels": ranked}


def _choices(opened: Bundle, encodings: list[Encoding], outputs: Arrays, pairs: Sequence[str]) -> dict[str, Any]:
    scores = _softmax(outputs["logits"][:, 0])
    best = int(scores.argmax())
    return {"choice": best, "label": pairs[best], "score": float(scores[best]), "scores": scores.tolist()}


def _tokens(opened: Bundle, encodings: list[Encoding], outputs: Arrays, pairs: Sequence[str]) -> dict[str, Any]:
    encoding = encodings[0]
    entries = [
        {"token": token, "start": start, "end": end, **_ranked(opened.manifest.labels, logits)[0]}
        for token, (start, end), special, logits in zip(
            encoding.tokens, encoding.offsets, encoding.special_tokens_mask, outputs["logits"][0], strict=False
        )
        if not special
    ]
    return {"tokens": entries}


def _replaced(opened: Bundle, encodings: list[Encoding], outputs: Arrays, pairs: Sequence[str]) -> dict[str, Any]:
    encoding = encodings[0]
    chances = 1 / (1 + np.exp(-outputs["logits"][0, :, 0].astype(np.float64)))
    entries = [
        {"token": token, "start": start, "end": end, "score": float(chance)}
        for token, (start, end), special, chance in zip(
            encoding.tokens, encoding.offsets, encoding.special_tokens_mask, chances, strict=False
        )
        if not special
    ]
    return {"tokens": entries}


def _span(opened: Bundle, encodings: list[Encoding], outputs: Arrays, pairs: Sequence[str]) -> dict[str, Any]:
    encoding = encodings[0]
    # The answer stands in the context: second type, no special token.
    inside = [
        bool(kind) and not special
        for kind, special in zip(encoding.token_type_ids, encoding.special_tokens_mask, strict=True)
    ]
    n = len(inside)
    start = np.where(inside, outputs["start_logits"][0][:n], -np.inf)
    end = np.where(inside, outputs["end_logits"][0][:n], -np.inf)
    if not any(inside):
        raise InputError("the context has no words to find an answer in: pass some with --pair.")
    scores = np.triu(start[:, None] + end[None, :])
    scores[np.tril_indices(n, -1)] = -np.inf
    first, last = np.unravel_index(int(scores.argmax()), scores.shape)
    a, b = encoding.offsets[first][0], encoding.offsets[last][1]
    return {"answer": pairs[0][a:b], "start": a, "end": b, "score": float(scores[first, last])}


def _fill(opened: Bundle, encodings: list[Encoding], outputs: Arrays, pairs: Sequence[str]) -> dict[str, Any]:
    words = opened.tokenizer
    assert words is not None
    ids = encodings[0].ids
    causal = opened.manifest.task == "causal-lm"
    # A causal model continues after the last piece of the text; the closing [SEP] is no part of it.
    places = [len(ids) - 2] if causal else [i for i, token in enumerate(ids) if token == words.mask_id]
    if not places:
        raise InputError("the text has no [MASK] to fill: put one where a word is wanted.")
    filled = [
        # Rows above the tokenizer's vocabulary only fill the table up to a round size.
        [
            {"label": words.decode([i], skip_special_tokens=False), "score": score}
            for i, score in _top(outputs["logits"][0, place, : words.vocab_size])
        ]
        for place in places
    ]
    return {"label": filled[0][0]["label"], "score": filled[0][0]["score"], "words": filled}


def _embedding(opened: Bundle, encodings: list[Encoding], outputs: Arrays, pairs: Sequence[str]) -> dict[str, Any]:
    states = outputs["last_hidden_state"][0]
    return {"shape": list(states.shape), "mean": states.mean(0).tolist()}


# What each task makes of its outputs.
ANSWERS = {
    "base": _embedding,
    "masked-lm": _fill,
    "causal-lm": _fill,
    "sequence-classification": _classes,
    "multiple-choice": _choices,
    "token-classification": _tokens,
    "replaced-token-detection": _replaced,
    "question-answering": _span,
}
