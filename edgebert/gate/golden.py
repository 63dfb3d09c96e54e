"""Golden inputs and torch's answers to them: what every runtime, here or on a phone, is held to.

One batch for each length. The rows of a batch are real sentences of that length, the first batch's first rows padded
further, random ids with random padding, and a row of [CLS] alone. A batch with the token types exchanged stands apart.
"""

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from edgebert.errors import InputError
from edgebert.files import ASSETS, check_file
from edgebert.lowering import duplicate
from edgebert.models import Model
from edgebert.models.family import executed
from edgebert.models.signature import INPUTS, Arrays, check_ids, has_token_axis, limit_types
from edgebert.runtimes.session import run_rows
from edgebert.tokenizers.tokenizer import Tokenizer

SENTENCES = ASSETS / "sentences.txt"

ROWS = 12  # sentences a length
# Heads that give a row one label or number: their first batch, which alone tells of token types, has twice as many.
ONE_A_ROW = ("sequence-classification", "multiple-choice", "question-answering")
REPEATED = 3  # rows of the first batch that come back, padded further, in each later one
# Logits over a vocabulary are kept for so many rows and tokens: a RemBERT's are 1 MB a token.
WIDE, WIDE_ROWS, WIDE_TOKENS = 4096, 4, 4

AT_ONCE = 1 << 21  # pairs of tokens that torch answers for in one go

LARGEST = 1 << 30  # bytes that a file may unpack to; a RemBERT's for masked-lm has 300 million


@dataclass(frozen=True, slots=True)
class Batch:
    """Inputs (B, T) and what torch answers.

    Attributes:
        name: `tokens_32`, or `types_32` for the batch with exchanged token types.
        inputs: int32 arrays (B, T).
        expected: outputs by name, float32; those over a vocabulary are cut to their first tokens.
    """

    name: str
    inputs: Arrays
    expected: Arrays


@dataclass(frozen=True, slots=True)
class Golden:
    """The batches of a model, and what damaged copies of it answer to the first one.

    Attributes:
        batches: one for each length, ascending.
        types: the first batch with token types exchanged.
        damaged: what was broken to outputs for the first batch; a gate that lets one of them pass is blind.
    """

    batches: tuple[Batch, ...]
    types: Batch
    damaged: dict[str, Arrays]

    def save(self, path: Path) -> None:
        """Write everything into one `.npz`."""
        flat: Arrays = {}
        for batch in (*self.batches, self.types):
            flat |= {f"{batch.name}/in/{key}": value for key, value in batch.inputs.items()}
            flat |= {f"{batch.name}/out/{key}": value for key, value in batch.expected.items()}
        for what, outputs in self.damaged.items():
            flat |= {f"damaged/{what}/{key}": value for key, value in outputs.items()}
        np.savez_compressed(path, **flat)  # type: ignore[arg-type]


def load(path: Path) -> Golden:
    """Read what `Golden.save` wrote.

    Raises:
        InputError: the file holds anything else, or unpacks to more than LARGEST bytes.
    """
    check_file(path, LARGEST)
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > LARGEST:
                raise ValueError(f"unpacked it has more than {LARGEST:,} bytes")
        with np.load(path, allow_pickle=False) as file:
            found = _assembled({key: file[key] for key in file.files})
        _check(found)
    except Exception as error:  # numpy and zipfile raise a dozen kinds on damaged files
        raise InputError(f"{path} is damaged ({type(error).__name__}: {error}): export the bundle again.") from None
    return found


def _assembled(flat: Arrays) -> Golden:
    """The batches out of arrays under the names that `Golden.save` gives them."""
    sides: dict[tuple[str, str], Arrays] = {}
    for key, value in flat.items():
        name, side, array = key.split("/", 2)
        sides.setdefault((name, side), {})[array] = value
    damaged = {what: arrays for (name, what), arrays in sides.items() if name == "damaged"}
    names = dict.fromkeys(name for name, _ in sides if name != "damaged")
    batches = [Batch(name, sides[name, "in"], sides[name, "out"]) for name in names]
    plain = tuple(batch for batch in batches if batch.name.startswith("tokens_"))
    types = [batch for batch in batches if batch.name.startswith("types_")]
    if not plain or len(types) != 1 or not damaged:
        raise ValueError("it lacks batches")
    return Golden(plain, types[0], damaged)


def _check(golden: Golden) -> None:
    """Raise ValueError unless the arrays have the shapes and types that `make` gives them."""
    first, widths = golden.batches[0], [batch.inputs[INPUTS[0]].shape[-1] for batch in golden.batches]
    if widths != sorted(set(widths)) or golden.types.inputs[INPUTS[0]].shape != first.inputs[INPUTS[0]].shape:
        raise ValueError("its batches are not of ascending lengths")
    for batch in (*golden.batches, golden.types):
        shape = batch.inputs[INPUTS[0]].shape
        mask = batch.inputs["attention_mask"]
        for name in INPUTS:
            value = batch.inputs[name]
            if value.dtype != np.int32 or value.ndim != 2 or value.shape != shape or len(value) < REPEATED:
                raise ValueError(f"{batch.name} has {name} of {value.dtype} and {value.shape}")
        if set(batch.inputs) != set(INPUTS) or not np.isin(mask, (0, 1)).all() or not mask.any(1).all():
            raise ValueError(f"{batch.name} has other inputs, or a mask of nothing")
        _check_outputs(batch.expected, first.expected, shape)
    for outputs in golden.damaged.values():
        _check_outputs(outputs, first.expected, first.inputs[INPUTS[0]].shape)


def _check_outputs(outputs: Arrays, like: Arrays, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless these are the outputs of a batch of this shape (B, T), named and wide as the first's."""
    if not outputs or set(outputs) != set(like):
        raise ValueError("its batches have different outputs")
    for name, value in outputs.items():
        tokens = (shape[1], min(shape[1], WIDE_TOKENS)) if has_token_axis(name, value.ndim) else like[name].shape[1:2]
        if value.dtype != np.float32 or value.ndim not in (2, 3) or not np.isfinite(value).all():
            raise ValueError(f"{name} is no finite float32 of rank 2 or 3")
        if value.shape[0] != shape[0] or value.shape[1] not in tokens or value.shape[2:] != like[name].shape[2:]:
            raise ValueError(f"{name} has the shape {value.shape} for inputs of {shape}")


def make(model: Model, tokenizer: Tokenizer | None, lengths: tuple[int, ...], seed: int = 0) -> Golden:
    """Choose inputs for each length and let torch answer them.

    Args:
        model: the reference, in float32.
        tokenizer: turns the sentences kept with this package into ids; without one, random ids stand for them.
        lengths: at which the file is asked, ascending.
        seed: of the random rows.

    Raises:
        InputError: the tokenizer makes ids of these sentences that the model has not.
    """
    rng = np.random.default_rng(seed)
    vocabulary = model.config.vocab_size
    wide = model.task in ("masked-lm", "causal-lm") and vocabulary > WIDE
    pad_id = tokenizer.pad_id if tokenizer else 0
    types = model.config.type_vocab_size
    batches: list[Batch] = []
    for i, length in enumerate(lengths):
        shortest = lengths[i - 1] + 1 if i else 1
        rows = WIDE_ROWS if wide else 2 * ROWS if model.task in ONE_A_ROW and not i else ROWS
        parts = [pad({key: v[:REPEATED] for key, v in batches[0].inputs.items()}, length, pad_id)] if i else []
        parts.append(
            _sentences(tokenizer, shortest, length, rows) if tokenizer else _random(rng, vocabulary, length, rows)
        )
        parts += [_random(rng, vocabulary, length, 2), _single(tokenizer, length)]
        inputs = limit_types(join(parts), types)
        check_ids(inputs, vocabulary)
        batches.append(Batch(f"tokens_{length}", inputs, answer(model, inputs)))
    first = batches[0].inputs
    turned = limit_types(first | {"token_type_ids": 1 - np.minimum(first["token_type_ids"], 1)}, types)
    exchanged = Batch(f"types_{lengths[0]}", turned, answer(model, turned))
    damaged = {what: answer(broken, first) for what, broken in damage(model)}
    return Golden(tuple(batches), exchanged, damaged)


def answer(model: Model, inputs: Arrays) -> Arrays:
    """Torch's outputs for a batch, cut where they run over a vocabulary."""
    return {key: np.ascontiguousarray(cut(value)) for key, value in _run(model, inputs).items()}


def answer_rows(model: Model, inputs: Arrays, fixed: tuple[int, ...] = (), alone: bool = False) -> Arrays:
    """Torch's outputs to rows as a file gets them, each for itself.

    Args:
        model: any.
        inputs: a batch (B, T).
        fixed: lengths, ascending, to the smallest of which rows are padded; without any they are run as they come.
        alone: whether the model takes one row at a time, as some rewritten ones do.
    """
    if alone:
        made = run_rows(inputs, fixed, partial(_run, model))
    else:
        tokens = inputs["input_ids"].shape[1]
        length = next((one for one in fixed if one >= tokens), tokens)
        made = {
            key: value[:, :tokens] if has_token_axis(key, value.ndim) else value
            for key, value in _run(model, pad(inputs, length)).items()
        }
    return {key: np.ascontiguousarray(cut(value)) for key, value in made.items()}


def _run(model: Model, inputs: Arrays) -> Arrays:
    """A model's outputs for a batch (B, T), a few rows at once where they are long: memory grows with the square."""
    count, tokens = inputs["input_ids"].shape
    rows = max(1, AT_ONCE // tokens**2)
    with torch.no_grad():
        parts = [
            model(*(torch.from_numpy(inputs[name][start : start + rows]) for name in INPUTS))
            for start in range(0, count, rows)
        ]
    return {key: np.concatenate([part[key].numpy() for part in parts]) for key in parts[0]}


def cut(output: np.ndarray) -> np.ndarray:
    """The first tokens of an output (B, T, V) over a whole vocabulary; any other output as it is."""
    return output[:, :WIDE_TOKENS] if output.ndim == 3 and output.shape[2] > WIDE else output


def damage(model: Model) -> Iterator[tuple[str, Model]]:
    """Copies of a model, each broken in one way that a converter might break it in, small and gross."""
    broken = duplicate(model)
    word = broken.encoder.get_submodule("embeddings.word")
    # The word embeddings alone: a tied output embedding keeps its rows, or it would shift back what this shifts.
    word.weight = torch.nn.Parameter(word.get_parameter("weight").roll(1, 0), requires_grad=False)
    yield "word embeddings shifted by one row", broken
    broken = duplicate(model)
    down = _last_layer(broken).get_submodule("down")
    down.weight = torch.nn.Parameter(-down.get_parameter("weight"), requires_grad=False)
    yield "last layer's feed-forward negated", broken
    # Gross enough to be seen at any tolerance, whatever the head makes of it.
    broken = duplicate(model)
    norm = _last_layer(broken).get_submodule("norm")
    norm.weight = torch.nn.Parameter(-norm.get_parameter("weight"), requires_grad=False)
    yield "last norm's scale negated", broken


def _last_layer(model: Model) -> torch.nn.Module:
    last: torch.nn.Module = executed(model.encoder)[-1]
    return last


def texts() -> list[tuple[str, ...]]:
    """The sentences kept with this package; a line with a tab is a pair."""
    return [tuple(line.split("\t")) for line in SENTENCES.read_text(encoding="utf-8").splitlines()]


def _sentences(tokenizer: Tokenizer, shortest: int, length: int, rows: int) -> Arrays:
    """Up to `rows` texts that need this length, padded to it; longer ones, cut, where too few fit."""
    sizes = {text: len(tokenizer.encode(text[0], text[1] if len(text) == 2 else None).ids) for text in texts()}
    fitting = [text for text, size in sizes.items() if shortest <= size <= length]
    longer = [text for text, size in sizes.items() if size > length]
    # Half of them pairs where there are so many: they alone have both token types.
    pairs = [text for text in fitting if len(text) == 2][: rows // 2]
    chosen = list(dict.fromkeys([*pairs, *fitting, *longer]))[:rows]
    return tokenizer.batch([(text[0], text[1]) if len(text) == 2 else text[0] for text in chosen], length=length)


def _random(rng: np.random.Generator, vocabulary: int, length: int, rows: int) -> Arrays:
    """Random ids, the first row full and the others padded from a random place on; the second half is of type 1."""
    ids = rng.integers(0, vocabulary, (rows, length), dtype=np.int32)
    sizes = rng.integers(1, length + 1, rows)
    sizes[0] = length
    mask = (np.arange(length)[None, :] < sizes[:, None]).astype(np.int32)
    types = (np.arange(length)[None, :] * 2 >= sizes[:, None]).astype(np.int32) * mask
    return {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": types}


def _single(tokenizer: Tokenizer | None, length: int) -> Arrays:
    """One row with a single token."""
    ids = np.zeros((1, length), np.int32)
    ids[0, 0] = tokenizer.cls_id if tokenizer else 1
    mask = np.zeros((1, length), np.int32)
    mask[0, 0] = 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros((1, length), np.int32)}


def pad(inputs: Arrays, length: int, pad_id: int = 0) -> Arrays:
    """Pad rows further on the right."""
    more = ((0, 0), (0, length - inputs["input_ids"].shape[1]))
    return {
        key: np.pad(value, more, constant_values=pad_id if key == "input_ids" else 0) for key, value in inputs.items()
    }


def join(parts: list[Arrays]) -> Arrays:
    """Rows of several batches, all as long."""
    return {key: np.concatenate([part[key] for part in parts]).astype(np.int32) for key in parts[0]}
