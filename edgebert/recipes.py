"""Recipes: what happens to the numbers on the way into a file, and the one table of which target takes which.

A name has a grammar. `fp32` is float. `w8a8-dynamic` keeps weights in 8 bits and turns activations into 8 bits as they
come, with a scale found anew for each input. Embedding tables follow the weights.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Recipe:
    """A way to store and compute a model's numbers.

    Attributes:
        name: the recipe's name in the grammar above.
        weight_bits: bits of a stored weight of a linear layer, convolution or embedding.
        activation_bits: bits of the activations that meet quantized weights; 32 is plain float.
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


RECIPES: dict[str, Recipe] = {
    "fp32": Recipe("fp32", 32, 32, "float as trained: the reference, four bytes a weight"),
    "w8a8-dynamic": Recipe(
        "w8a8-dynamic", 8, 8, "8-bit weights, activations quantized as they come: a quarter of the size"
    ),
}

TARGET_RECIPES: dict[str, tuple[str, ...]] = {
    "tflite": ("fp32", "w8a8-dynamic"),
    "onnx": ("fp32", "w8a8-dynamic"),
}
