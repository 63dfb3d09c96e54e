"""Recipes: what happens to the numbers on the way into a file, and the one table of which target takes which.

A name has a grammar. `fp32` and `fp16` are float. `w8` and `w4` store weights in 8 or 4 bits and compute in float.
`w8a8-dynamic` and `w4a8-dynamic` also turn activations into 8 bits as they come, with a scale found anew for each
input; `w8a8-static` does so with scales found beforehand on sample texts. Embedding tables follow the weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import accumulate


@dataclass(frozen=True, slots=True)
class Recipe:
    """A way to store and compute a model's numbers.

    Attributes:
        name: the recipe's name in the grammar above.
        weight_bits: bits of a stored weight of a linear layer, convolution or embedding.
        activation_bits: bits of the activations that meet these weights; 16 and 32 are float.
        about: one line for a person who chooses.
    """

    name: str
    weight_bits: int
    activation_bits: int
    about: str

    @property
    def quantized(self) -> bool:
        """Whether weights are stored as integers."""
        return self.weight_bits < 16

    @property
    def static(self) -> bool:
        """Whether activations have scales from sample texts."""
        return self.name.endswith("-static")

    @property
    def calibrated(self) -> bool:
        """Whether sample texts have a say: in static scales, and in how 4-bit weights are rounded."""
        return self.static or self.weight_bits == 4


RECIPES: dict[str, Recipe] = {
    "fp32": Recipe("fp32", 32, 32, "float as trained: the reference, four bytes a weight"),
    "fp16": Recipe("fp16", 16, 16, "half precision: half the size, and faster where the processor computes in it"),
    "w8": Recipe("w8", 8, 32, "8-bit weights, float arithmetic: a quarter of the size, close to float's answers"),
    "w4": Recipe("w4", 4, 32, "4-bit weights in small groups, float arithmetic: an eighth of the size"),
    "w8a8-dynamic": Recipe(
        "w8a8-dynamic", 8, 8, "8-bit weights, activations quantized as they come: a quarter of the size"
    ),
    "w8a8-static": Recipe(
        "w8a8-static", 8, 8, "8-bit weights and activations, scales found beforehand on sample texts (--calibration)"
    ),
    "w4a8-dynamic": Recipe(
        "w4a8-dynamic", 4, 8, "4-bit weights, activations quantized as they come: the smallest that still runs in int8"
    ),
}

TARGET_RECIPES: dict[str, tuple[str, ...]] = {
    "executorch": ("fp32", "w8a8-dynamic", "w8a8-static", "w4a8-dynamic"),
    "tflite": ("fp32", "fp16", "w8", "w8a8-dynamic", "w8a8-static", "w4a8-dynamic"),
    "coreml": ("fp32", "fp16", "w8", "w4", "w8a8-static"),
    "onnx": ("fp32", "fp16", "w4", "w8a8-dynamic", "w8a8-static"),
}

# Why a target does not take a recipe, and what to use in its place.
NOT_TAKEN: dict[tuple[str, str], str] = {
    ("executorch", "fp16"): "half precision is slow where a processor lacks it; use w8a8-dynamic, which chooses.",
    ("executorch", "w8"): "XNNPACK multiplies 8-bit weights with 8-bit activations only; use w8a8-dynamic.",
    ("executorch", "w4"): "XNNPACK multiplies 4-bit weights with 8-bit activations here; use w4a8-dynamic.",
    ("tflite", "w4"): "LiteRT's 4-bit kernels take 8-bit activations; use w4a8-dynamic.",
    ("coreml", "w8a8-dynamic"): "Core ML finds no scales while it runs; use w8a8-static, or w8.",
    ("coreml", "w4a8-dynamic"): "Core ML finds no scales while it runs; use w4.",
    ("onnx", "w8"): "ONNX Runtime has no 8-bit weights with float arithmetic that are fast; use w8a8-dynamic, or w4.",
    ("onnx", "w4a8-dynamic"): "ONNX Runtime's 4-bit product keeps activations in float here; use w4.",
}

# Tasks whose answers are told apart by small differences. A vector of all-MiniLM-L6-v2 has a cosine of 0.994 to the
# float one at least where each token has a scale of its own, over 200 short texts in ExecuTorch; 0.988 where four share
# one, as is quicker in LiteRT, and 0.979 where all do, as in ONNX Runtime.
TOLD_BY_LITTLE = ("sentence-embedding",)

# The release of a target's runtime from which on its files answer right. LiteRT 1.0 came after TensorFlow Lite 2.17.
# TFLite's and ONNX's floors, and the releases below them, which answer right or refuse, are run by `make floors` and
# tests/runtimes/test_floors.py. ExecuTorch 1.1 is what the simulated Pixels have; what came before it was not run. Core
# ML's are those of its program's format.
FLOORS: dict[tuple[str, str], str] = {
    ("executorch", "fp32"): "ExecuTorch 1.1",
    ("executorch", "w8a8-dynamic"): "ExecuTorch 1.1",
    ("executorch", "w8a8-static"): "ExecuTorch 1.1",
    ("executorch", "w4a8-dynamic"): "ExecuTorch 1.1",
    ("tflite", "fp32"): "TensorFlow Lite 2.13",
    ("tflite", "fp16"): "TensorFlow Lite 2.13",
    ("tflite", "w8"): "TensorFlow Lite 2.13",
    ("tflite", "w8a8-dynamic"): "TensorFlow Lite 2.13",
    ("tflite", "w8a8-static"): "TensorFlow Lite 2.13",
    ("tflite", "w4a8-dynamic"): "LiteRT 2.1",
    ("coreml", "fp32"): "iOS 17",
    ("coreml", "fp16"): "iOS 17",
    ("coreml", "w8"): "iOS 17",
    ("coreml", "w4"): "iOS 18",
    ("coreml", "w8a8-static"): "iOS 17",
    ("onnx", "fp32"): "ONNX Runtime 1.17",
    ("onnx", "fp16"): "ONNX Runtime 1.17",
    ("onnx", "w4"): "ONNX Runtime 1.23",
    ("onnx", "w8a8-dynamic"): "ONNX Runtime 1.17",
    ("onnx", "w8a8-static"): "ONNX Runtime 1.17",
}
# Where several lengths in one file need a later release.
SEVERAL_LENGTHS: dict[str, str] = {"coreml": "iOS 18"}


def floor(target: str, recipe: str, lengths: Sequence[int]) -> str:
    """The oldest runtime that a file with these lengths is for, its name and the first two numbers of its version."""
    one = FLOORS[target, recipe]
    return SEVERAL_LENGTHS.get(target, one) if len(lengths) > 1 else one


def scales_by_token(target: str, recipe: Recipe, task: str) -> bool:
    """Whether each token is sure to have a scale for its activations; in LiteRT four may share one."""
    dynamic = recipe.activation_bits == 8 and not recipe.static
    return dynamic and (target == "executorch" or task in TOLD_BY_LITTLE)


def kept(name: str, patterns: Sequence[str]) -> bool:
    """Whether `--keep-float` names this module of the torch model, or one that it is part of.

    Args:
        name: a module's path, such as `encoder.layers.0.attention.query`.
        patterns: shell patterns over such paths: `head.*`, `encoder.layers.0`, `*.attention.query`.
    """
    ancestors = list(accumulate(name.split("."), lambda path, part: f"{path}.{part}"))
    return any(fnmatchcase(path, pattern) for path in ancestors for pattern in patterns)
