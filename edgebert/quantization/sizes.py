"""What a recipe makes a model weigh, what a file does weigh, and which part of the model the bytes belong to."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgebert.artifact import Stored
from edgebert.errors import ConversionFailed
from edgebert.models import Model
from edgebert.quantization.recipes import Recipe, kept

# Names of tensors to parts of a model, the first that matches; transformers' names as well as ours, whole words or
# their parts, with dots or without.
PARTS: Mapping[str, re.Pattern[str]] = {
    "head": re.compile(r"^head\b|^head_|classifier|pooler|predictions|lm_head|qa_outputs|decoder|^vocab_"),
    "embeddings": re.compile(r"embed|project|word|position|token_type"),
    "attention": re.compile(
        r"attention|attn|sa_layer_norm|layers?[._]\d+[._]out\b|layers?_\d+_out_|query|key|value|distance"
    ),
    "feed-forward": re.compile(
        r"[._](up|gate|down|norm)\b|_(up|gate|down|norm)_|convolution|narrow|widen|intermediate|output|ffn|mlp|fc\d"
    ),
}

# Weights may be this much larger than a recipe implies: alignment, masks, scales of narrow rows.
LARGER = 1.15
# Below this nothing is concluded: a small model's constants other than weights count as much as its weights.
SLACK = 2**16


@dataclass(frozen=True, slots=True)
class Touched:
    """What became of one module's weights.

    Attributes:
        name: the module's path in the torch model.
        type: its class.
        part: embeddings, attention, feed-forward or head.
        parameters: how many numbers.
        dtype: how they stand in the file; several types joined by `+`.
        bytes_before: in the torch model, float32.
        bytes_after: in the file, scales and zero points included.
    """

    name: str
    type: str
    part: str
    parameters: int
    dtype: str
    bytes_before: int
    bytes_after: int


def part(name: str) -> str:
    """The part of a model that a tensor or module of this name belongs to; `other` where the name does not tell."""
    return next((label for label, pattern in PARTS.items() if pattern.search(name)), "other")


def by_part(sizes: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Bytes by part, largest first, of (name, bytes) pairs."""
    totals = Counter[str]()
    for name, size in sizes:
        totals[part(name)] += size
    return dict(totals.most_common())


def touched(model: Model, weights: Mapping[str, Stored]) -> list[Touched]:
    """For each module with weights of its own, what became of them.

    Args:
        model: the torch model.
        weights: parameter to how it is stored, as an exporter tells.
    """
    rows = []
    modules = dict(model.named_modules())
    owned: dict[str, list[str]] = {}
    for name, _ in model.named_parameters():
        owned.setdefault(name.rpartition(".")[0], []).append(name)
    for path, names in owned.items():
        stored = [weights[name] for name in names if name in weights]
        count = sum(model.get_parameter(name).numel() for name in names)
        dtypes = "+".join(dict.fromkeys(one.dtype for one in sorted(stored, key=lambda s: -s.bytes)))
        size = sum(one.bytes for one in stored)
        rows.append(Touched(path, type(modules[path]).__name__, part(path), count, dtypes or "-", 4 * count, size))
    return rows


def estimate(model: Model, recipe: Recipe, keep_float: Sequence[str] = ()) -> int:
    """Bytes of weights that a recipe implies: matrices in its bits, tables and head in no less than 8, vectors float.

    Args:
        model: the torch model; one on the `meta` device will do.
        recipe: what happens to the numbers.
        keep_float: patterns of modules that stay float.
    """
    total = 0
    for name, tensor in model.named_parameters():
        count = tensor.numel()
        if not recipe.quantized:
            total += count * recipe.weight_bits // 8
        elif tensor.dim() == 1 or kept(name.rpartition(".")[0], keep_float):
            total += 4 * count
        else:
            coarse = part(name) in ("embeddings", "head") or recipe.weight_bits == 8
            # 8 bits with a scale and a zero point a row, or 4 bits with a scale for every 32.
            total += count + 12 * tensor.shape[0] if coarse else count // 2 + count // 8 + 8 * tensor.shape[0]
    return total


def check_size(stored: int, attributed: int, implied: int, recipe: Recipe) -> None:
    """Refuse a file whose weights are far from what the recipe implies: it was not quantized, or holds them twice.

    Args:
        stored: bytes of the weights that were read back from the file.
        attributed: bytes that the exporter says the modules take in it.
        implied: what `estimate` says.
        recipe: for the message.

    Raises:
        ConversionFailed: they differ by more than LARGER and SLACK allow.
    """
    if abs(stored - attributed) > (LARGER - 1) * stored + SLACK:
        raise ConversionFailed(
            f"the file's weights take {stored / 1e6:.1f} MB, but those of the model's modules {attributed / 1e6:.1f} "
            "MB: the file holds something else than the model."
        )
    if stored > implied * LARGER + SLACK:
        raise ConversionFailed(
            f"the file's weights take {stored / 1e6:.1f} MB where {recipe.name} implies {implied / 1e6:.1f} MB: "
            "something was left in float or is stored twice; see the table of modules with --json."
        )
    if stored < implied / 2 - SLACK:
        raise ConversionFailed(
            f"the file's weights take {stored / 1e6:.1f} MB where {recipe.name} implies {implied / 1e6:.1f} MB: "
            "weights are missing."
        )
