"""An open bundle: text in, the task's answer out."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, overload

import numpy as np

from edgebert import bundle
from edgebert.answers import classes, entities, pieces, spans
from edgebert.answers.reading import Reading
from edgebert.answers.vectors import similarity
from edgebert.bundle import many
from edgebert.bundle.generate import Generated, greedy
from edgebert.bundle.manifest import Manifest
from edgebert.errors import InputError, MissingDependency
from edgebert.models.heads import ACTIVATED
from edgebert.models.signature import Arrays, check_ids, limit_types
from edgebert.runtimes import RUNTIMES
from edgebert.runtimes.session import EDITED, Facts, Session
from edgebert.tokenizers import tokenizer
from edgebert.tokenizers.tokenizer import Encoding, Tokenizer

# What answers are made of, and its rank, where that is not `logits` for each token.
OUTPUTS = {
    "base": {"last_hidden_state": 3},
    "sequence-classification": {"logits": 2},
    "multiple-choice": {"logits": 2},
    "sentence-embedding": {"sentence_embedding": 2},
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

    def __repr__(self) -> str:
        said = self.manifest
        return f"Bundle({str(self.folder)!r}, {said.family} for {said.task}, {said.target} {said.recipe})"

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """Answer int32 or int64 arrays (B, T) of `input_ids`, `attention_mask`, `token_type_ids`.

        T is padded to the smallest length that fits, and outputs are cut back to it.

        Raises:
            InputError: names, shapes or dtypes are wrong, T is too long, or an id is outside the vocabulary.
        """
        check_ids(inputs, self.manifest.vocab_size)
        return self.session.run(inputs)

    @overload  # a str is a sequence of them, too, and the first that fits counts
    def predict(  # type: ignore[overload-overlap]
        self, text: str, *pairs: str
    ) -> dict[str, Any]: ...

    @overload
    def predict(self, text: Sequence[str | Sequence[str]]) -> list[dict[str, Any]]: ...

    def predict(self, text: str | Sequence[str | Sequence[str]], *pairs: str) -> dict[str, Any] | list[dict[str, Any]]:
        """Answer a text the way its task does; values are plain and go into JSON as they are.

        Each answer has `truncated`, whether the text was cut to the longest length, and `token_count`, how many tokens
        it has. The rest is what the task's own verb gives: `classify`, `entities`, `answer`, `choose`, `fill`, `embed`
        or `similarity`.

        Args:
            text: a sentence, a question, or a prompt; or for a list of answers a list of them, or of (text, pair, ...).
            pairs: the second text where the task takes one: the context of a question, or the choices to score.

        Raises:
            InputError: the bundle has no tokenizer, the task takes another number of texts, or one has no words.
        """
        if not isinstance(text, str):
            if pairs:
                raise InputError("a list of texts holds the second texts too: pass (text, pair) in it.")
            if self.manifest.task == "sentence-embedding" and all(isinstance(one, str) for one in text):
                return self.embed([str(one) for one in text])
            return [self.predict(*((one,) if isinstance(one, str) else one)) for one in text]
        task = self.manifest.task
        least, most = {"question-answering": (1, 1), "multiple-choice": (2, 1 << 30)}.get(task, (0, 1))
        if not least <= len(pairs) <= most:
            wanted = {"question-answering": "a context", "multiple-choice": "two choices or more"}.get(
                task, "at most one"
            )
            raise InputError(f"{len(pairs)} further texts for {task}, which takes {wanted}: pass it with --pair.")
        return ANSWERS[task](self, text, *pairs)

    def classify(self, text: str, pair: str | None = None) -> dict[str, Any]:
        """A text's or pair's labels; see `edgebert.answers.classes.classify`."""
        self._only("sequence-classification")
        _, outputs, told = self._ask([(text, pair)])
        (name,) = self._outputs()
        return classes.classify(name, outputs[name][0], self.manifest.labels, self.reading) | told

    def choose(self, text: str, *choices: str) -> dict[str, Any]:
        """Which of several texts goes best with one; see `edgebert.answers.classes.choose`."""
        self._only("multiple-choice")
        _, outputs, told = self._ask([(text, choice) for choice in choices])
        return classes.choose(outputs["logits"][:, 0], choices, self.reading) | told

    def entities(self, text: str, pair: str | None = None) -> dict[str, Any]:
        """The tokens, words and entities of a text; see `edgebert.answers.entities.find`."""
        self._only("token-classification")
        encodings, outputs, told = self._ask([(text, pair)])
        words = self._words()
        logits = outputs["logits"][0]
        texts = (text,) if pair is None else (text, pair)
        return entities.find(texts, encodings[0], logits, self.manifest.labels, self.reading, words) | told

    def answer(self, question: str, context: str, may_be_none: bool = False) -> dict[str, Any]:
        """Where in a context of any length the answer stands; see `edgebert.answers.spans.answer`.

        A context that is too long is read in windows, with the whole question in each.
        """
        self._only("question-answering")
        words, longest = self._words(), self.manifest.lengths[-1]
        whole = words.encode(question, context)
        _check_words(whole, question)
        stride = min(longest // 2, self.reading.stride or 0)
        windows = words.windows(question, context, longest, stride)
        outputs = self._run(windows)
        found = spans.answer(
            context, windows, list(outputs["start_logits"]), list(outputs["end_logits"]), self.reading, may_be_none
        )
        return found | {"truncated": False, "token_count": len(whole.ids)}

    def fill(self, text: str, pair: str | None = None) -> dict[str, Any]:
        """The likeliest pieces for each [MASK], or after a prompt; see `edgebert.answers.pieces`."""
        self._only("masked-lm", "causal-lm")
        goes_on = self.manifest.task == "causal-lm"  # also from nothing, with the first piece of all
        (encoding,), outputs, told = self._ask([(text, pair)], empty=goes_on)
        words, logits = self._words(), outputs["logits"][0]
        if goes_on:
            return pieces.next_piece(encoding, logits, self.reading, words) | told
        return pieces.fill(encoding, logits, self.reading, words, told["token_count"]) | told

    def replaced(self, text: str, pair: str | None = None) -> dict[str, Any]:
        """How much each token looks replaced."""
        self._only("replaced-token-detection")
        (encoding,), outputs, told = self._ask([(text, pair)])
        return pieces.replaced(encoding, outputs["logits"][0], self.reading) | told

    def states(self, text: str, pair: str | None = None) -> dict[str, Any]:
        """The encoder's output: its `shape`, and the `mean` over the text's own tokens."""
        self._only("base")
        (encoding,), outputs, told = self._ask([(text, pair)])
        states = outputs["last_hidden_state"][0, : len(encoding.ids)]
        return {"shape": list(states.shape), "mean": states.mean(0).tolist()} | told

    @overload
    def embed(self, text: str) -> dict[str, Any]: ...  # type: ignore[overload-overlap]

    @overload
    def embed(self, text: Sequence[str]) -> list[dict[str, Any]]: ...

    def embed(self, text: str | Sequence[str]) -> dict[str, Any] | list[dict[str, Any]]:
        """A text as one vector: `embedding`. The prompt that the model was exported with stands before it.

        Of a list of texts a list of answers, each as if it were asked alone. A file of fixed lengths answers several
        short ones in a row, which takes less time than one after the other; see `edgebert.bundle.many`.

        Raises:
            InputError: the bundle has no tokenizer, is for another task, or a text has no words.
        """
        self._only("sentence-embedding")
        if isinstance(text, str):
            vectors, told = self._vectors(text)
            return {"embedding": vectors[0].tolist()} | told
        encoded, tells = self._encoded([(one, None) for one in self._prompted(*text)], bool(self._prompt))
        for encoding in encoded:
            check_ids({"input_ids": np.array(encoding.ids)}, self.manifest.vocab_size)
        found = many.vectors(
            encoded, self.session, self.manifest.lengths, lambda some: self._run(some)["sentence_embedding"]
        )
        return [{"embedding": vector.tolist()} | told for vector, told in zip(found, tells, strict=True)]

    def similarity(self, text: str, other: str) -> dict[str, Any]:
        """How alike two texts are, by the model's own measure; see `edgebert.answers.vectors`."""
        self._only("sentence-embedding")
        vectors, told = self._vectors(text, other)
        return {"similarity": similarity(vectors[0], vectors[1], self.reading.similarity or "cosine")} | told

    def _vectors(self, *texts: str) -> tuple[np.ndarray, dict[str, Any]]:
        """Vectors (B, D) of texts, and what an answer tells of them."""
        _, outputs, told = self._ask([(text, None) for text in self._prompted(*texts)], empty=bool(self._prompt))
        return outputs["sentence_embedding"], told

    @property
    def _prompt(self) -> str:
        """What the model was exported to have before each text."""
        return str(self.manifest.config["pooling"]["prompt"])

    def _prompted(self, *texts: str) -> list[str]:
        """Texts with the prompt before them; one without words is refused, for a prompt has words of its own."""
        for text in texts if self._prompt else ():
            _check_words(self._words().encode(text), text)
        return [self._prompt + text for text in texts]

    def _embed(self, text: str, other: str | None = None) -> dict[str, Any]:
        return self.embed(text) if other is None else self.similarity(text, other)

    @property
    def reading(self) -> Reading:
        """How its logits become an answer."""
        return Reading(**self.manifest.reading)

    def _only(self, *tasks: str) -> None:
        """Raise InputError unless the bundle is for one of these tasks."""
        if self.manifest.task not in tasks:
            raise InputError(f"{self.folder} is for {self.manifest.task}, and this is for {' and '.join(tasks)}.")

    def _words(self) -> Tokenizer:
        if self.tokenizer is None:
            raise InputError(f"{self.folder} has no tokenizer.json (its model came without one): call run() with ids.")
        return self.tokenizer

    def _ask(
        self, texts: Sequence[tuple[str, str | None]], empty: bool = False
    ) -> tuple[list[Encoding], Arrays, dict[str, Any]]:
        """Run texts and pairs, cut where they are too long; one without words is refused, unless it may be `empty`.

        Returns:
            The texts as they were run, the outputs, and what an answer tells of its text.
        """
        encodings, tells = self._encoded(texts, empty)
        longest = max(tells, key=lambda told: int(told["token_count"]))
        return encodings, self._run(encodings), longest

    def _encoded(
        self, texts: Sequence[tuple[str, str | None]], empty: bool
    ) -> tuple[list[Encoding], list[dict[str, Any]]]:
        """Texts and pairs as they are run, and what an answer tells of each; see `_ask`."""
        words, longest = self._words(), self.manifest.lengths[-1]
        encodings, tells = [], []
        for text, pair in texts:
            encoding = words.encode(text, pair)
            if not empty:
                _check_words(encoding, *(part for part in (text, pair) if part is not None))
            given = len(encoding.ids)
            encodings.append(encoding if given <= longest else words.encode(text, pair, longest))
            tells.append({"truncated": given > longest, "token_count": given})
        return encodings, tells

    def _run(self, encodings: Sequence[Encoding]) -> Arrays:
        """The outputs of encoded texts, none of them too long."""
        needed = max(len(encoding.ids) for encoding in encodings)
        # Filled up here, with the tokenizer's own padding: a ConvBERT's convolutions see it.
        length = needed if self.manifest.dynamic else next(n for n in self.manifest.lengths if n >= needed)
        types = self.manifest.config.get("type_vocab_size", 1)  # a config without the field has no token types
        outputs = self.run(limit_types(self._words().stack(encodings, length), types))
        self._check(outputs)
        return outputs

    def _outputs(self) -> dict[str, int]:
        """What answers are made of, and its rank; a classifier's file may apply the activation itself."""
        task, given = self.manifest.task, [spec["name"] for spec in self.manifest.outputs]
        applied = [name for name in ACTIVATED.values() if name in given]
        return {applied[0]: 2} if applied and task == "sequence-classification" else OUTPUTS.get(task, {"logits": 3})

    def _check(self, outputs: Arrays) -> None:
        """See that the file answers as its manifest says that it does."""
        task, labels = self.manifest.task, self.manifest.labels
        for name, rank in self._outputs().items():
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


def _check_words(encoding: Encoding, *texts: str) -> None:
    """Raise InputError where one of the texts, encoded whole, has nothing in it to answer for."""
    for number, text in enumerate(texts):
        if number not in encoding.sequences:
            raise InputError(f"the text {text!r:.40} has no words: there is nothing to answer.")


# The verb of each task.
ANSWERS: dict[str, Callable[..., dict[str, Any]]] = {
    "base": Bundle.states,
    "masked-lm": Bundle.fill,
    "causal-lm": Bundle.fill,
    "sequence-classification": Bundle.classify,
    "multiple-choice": Bundle.choose,
    "sentence-embedding": Bundle._embed,
    "token-classification": Bundle.entities,
    "replaced-token-detection": Bundle.replaced,
    "question-answering": Bundle.answer,
}
