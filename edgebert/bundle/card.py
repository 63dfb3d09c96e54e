"""A bundle explains itself: `README.md`, written for its model, `labels.txt`, and the card of the model's source."""

import json
import re
import shlex
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path, PurePath
from typing import Any

from jinja2 import Environment, FileSystemLoader

from edgebert.answers.reading import PLAIN, SIGMOID, SOFTMAX, TANH
from edgebert.bundle.manifest import TOKENIZER, Manifest
from edgebert.exporters.tflite.mediapipe import NOTE, RUNNERS
from edgebert.files import ASSETS
from edgebert.runtimes.executorch.program import FLOAT, method_name
from edgebert.tokenizers import tokenizer

README, LABELS, SOURCE_CARD = "README.md", "labels.txt", "SOURCE_CARD.md"
TEMPLATE = "bundle.md.jinja"

# A task to what its model does.
ABOUT = {
    "base": "An encoder: a vector for each token of a text, for what stands on top of it.",
    "masked-lm": "Tells which pieces go best in the gaps of a text.",
    "causal-lm": "Tells which piece comes next.",
    "sequence-classification": "Names what a text, or a pair of texts, is.",
    "multiple-choice": "Chooses which of several texts goes best with another.",
    "sentence-embedding": "Makes a vector of a text: texts that mean the same have vectors alike.",
    "token-classification": "Names what each word of a text is, and finds entities.",
    "replaced-token-detection": "Tells which words of a text look replaced.",
    "question-answering": "Finds the answer to a question in a text.",
}
# A task to what it may be asked, and the part of an answer that tells most.
GAP = "[MASK]"
WEATHER, HOUSE = "is it going to rain tomorrow", "The red house stands on a hill by the sea."
ASKED = {
    "masked-lm": (f"The house stands on a {GAP}.",),
    "multiple-choice": (HOUSE, "It is red.", "It is blue."),
    "question-answering": ("Where does the house stand?", HOUSE),
    "sentence-embedding": (WEATHER, "will there be rain"),
    "token-classification": (HOUSE,),
    "replaced-token-detection": (HOUSE,),
}
TOLD = ("label", "labels", "score", "entities", "answer", "similarity", "shape")
# A task to the method of edgebert's that asks it, and to what its answer is called in Kotlin.
VERBS = {
    "base": ("states", "mean"),
    "masked-lm": ("fill", "label"),
    "causal-lm": ("fill", "label"),
    "sequence-classification": ("classify", "label"),
    "multiple-choice": ("choose", "label"),
    "sentence-embedding": ("embed", "vector"),
    "token-classification": ("entities", "entities"),
    "replaced-token-detection": ("replaced", "tokens"),
    "question-answering": ("answer", "answer"),
}
# A task to transformers.js's pipeline for it.
PIPELINES = {
    "sequence-classification": "text-classification",
    "token-classification": "token-classification",
    "question-answering": "question-answering",
    "masked-lm": "fill-mask",
}


def asked_of(task: str, folder: Path) -> tuple[str, ...]:
    """Texts to ask a bundle for its task, a gap as its own tokenizer spells it."""
    texts = ASKED.get(task, (WEATHER,))
    if task != "masked-lm" or not (folder / TOKENIZER).exists():
        return texts
    words = tokenizer.load(folder / TOKENIZER)
    return tuple(text.replace(GAP, words.mask) for text in texts)


def write(
    folder: Path, name: str, manifest: Manifest, card: str, license: str, answer: Mapping[str, Any] | None
) -> None:
    """Write the three files.

    Args:
        folder: the bundle.
        name: of its final folder.
        manifest: what it says of itself.
        card: the README.md of the model's source, or nothing.
        license: what that says of it.
        answer: what `predict` says to `asked_of(task, folder)`; None where it has no tokenizer.
    """
    if manifest.labels:
        (folder / LABELS).write_text("".join(f"{' '.join(label.split())}\n" for label in manifest.labels), "utf-8")
    if card:
        (folder / SOURCE_CARD).write_text(card, "utf-8")
    example = asked_of(manifest.task, folder)
    asked = example if answer is not None else ()
    text = _environment().get_template(TEMPLATE).render(
        m=manifest, name=name, in_shell=shlex.quote(name), in_code=json.dumps(name, ensure_ascii=False),
        about=ABOUT[manifest.task], asked=asked, answer=_shortened(answer or {}),
        lengths=_lengths(manifest), reading=_reading(manifest), version=version("edgebert"),
        shape=partial(_shape, by_choice=len(manifest.inputs[0]["shape"]) == 3),
        quoted=[json.dumps(text, ensure_ascii=False) for text in example], verb=VERBS[manifest.task][0],
        told=VERBS[manifest.task][1], mediapipe=RUNNERS.get(manifest.task) if NOTE in manifest.notes else None,
        mediapipe_note=NOTE, pipeline=PIPELINES.get(manifest.task), licence=license,
        card=SOURCE_CARD if card else "", source=PurePath(manifest.source).name or manifest.source,
    )  # fmt: skip
    (folder / README).write_text(re.sub(r"\n{3,}", "\n\n", text).strip() + "\n", "utf-8")


def _environment() -> Environment:
    made = Environment(loader=FileSystemLoader(ASSETS), trim_blocks=True, lstrip_blocks=True, autoescape=False)
    made.filters["code"] = _code
    return made


def _code(text: str) -> str:
    """A text as it is, set as code: a label or a source can hold anything."""
    line = " ".join(text.split())
    ticks = "`" * (max(map(len, re.findall("`+", line)), default=0) + 1)
    return f"{ticks}{line}{ticks}" if ticks == "`" else f"{ticks} {line} {ticks}"


def _shortened(answer: Mapping[str, Any]) -> str:
    """What tells most of an answer, its first few of many, numbers with few digits."""

    def short(value: Any) -> Any:
        if isinstance(value, float):
            return round(value, 3)
        if isinstance(value, dict):
            return {key: short(each) for key, each in value.items()}
        return [short(each) for each in value[:3]] if isinstance(value, list) else value

    told = {key: short(answer[key]) for key in TOLD if key in answer}
    if "label" in told:
        told.pop("labels", None)
    return json.dumps(told, ensure_ascii=False)


def _shape(sizes: list[int], by_choice: bool) -> str:
    free = iter(("batch", "choices", "tokens") if by_choice else ("batch", "tokens"))
    return ", ".join(next(free, "any") if size == -1 else str(size) for size in sizes)


def _lengths(manifest: Manifest) -> str:
    """How long a row may be, and how a file with several lengths is called."""
    lengths, longest = manifest.lengths, manifest.lengths[-1]
    if manifest.target == "onnx":
        return f"A row has any length up to {longest} tokens."
    if manifest.target == "executorch" and manifest.dynamic:
        return f"Method `forward` takes one row of up to {longest} tokens."
    taken = f"One row of {' or '.join(map(str, lengths))} tokens"
    if manifest.target == "tflite":
        taken += f", by signature {' or '.join(f'`tokens_{length}`' for length in lengths)}"
    if manifest.target == "executorch":
        taken += f", by method {' or '.join(f'`{method_name(FLOAT, length, longest)}`' for length in lengths)}"
    return f"{taken}: the smallest that fits the text is the quickest." if len(lengths) > 1 else f"{taken}."


def _reading(manifest: Manifest) -> str:
    """How outputs become an answer, in words."""
    task, how = manifest.task, manifest.reading
    each = {
        SOFTMAX: "A softmax of the logits gives the scores",
        SIGMOID: "A sigmoid of each logit gives its score",
        TANH: "The hyperbolic tangent of the logit is the score",
        PLAIN: f"The {manifest.outputs[0]['name']} are the scores",
    }[how["activation"]]
    if task == "sentence-embedding":
        return f"`sentence_embedding` is the vector; two texts are as alike as the {how['similarity']} of theirs says."
    if task == "base":
        return "`last_hidden_state` has a vector for each token."
    if task == "question-answering":
        return (
            "A softmax over the tokens of the context, for the start and for the end; the answer is the span with the "
            f"largest product, of {how['longest_answer']} tokens at most. A longer context is read in windows that "
            f"have {how['stride']} tokens in common."
        )
    if task == "token-classification":
        return f"{each} of a token's labels; a word has the label of its first piece."
    if task == "sequence-classification" and how["threshold"] is not None:
        return f"{each}: each label from {how['threshold']:g} on applies."
    return f"{each}."
