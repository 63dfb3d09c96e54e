"""About how long the steps take that one waits for: by it a person decides whether to stay.

Seconds on two cores; `benchmarks/durations.py` measures them again. Another machine is quicker or slower by a factor,
and nothing but a line on the terminal depends on them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from edgebert.gate.half import WHERE
from edgebert.models import Model
from edgebert.models.family import executed
from edgebert.quantization.recipes import Recipe

SHORT = 10.0  # seconds about which nothing is said
TOKENS = 32 + 64 + 128  # in a row of each length, with which the figures were measured

# To convert one layer.
LAYER = {"tflite": 2.0, "onnx": 1.3, "executorch": 0.5, "coreml": 1.2}
# For each million parameters of the layers: torch's answers, those of a trial in half precision, the gate, and what
# four bits add to converting, where GPTQ chooses them, and to the gate, which rounds as they do.
TORCH = 0.055
HALF = {"tflite": 0.3, "onnx": 0.1, "executorch": 0.1}
GATE = {"tflite": 0.4, "onnx": 0.25, "executorch": 0.25, "coreml": 0.4}
CHOICE, ROUNDED = 1.3, 0.25

# On a simulated phone: to start, to load a megabyte, and for a token to go through one.
START, LOAD, TOKEN = 5.0, 0.05, 0.0015


@dataclass(frozen=True, slots=True)
class Export:
    """Seconds that an export's longer steps take: torch's answers, converting, the gate."""

    answers: float
    convert: float
    gate: float


def export(model: Model, target: str, recipe: Recipe, lengths: Sequence[int]) -> Export:
    """What is to be expected of an export of a model, for these lengths."""
    # A layer that runs several times is multiplied with as often.
    count = sum(parameter.numel() for layer in executed(model.encoder) for parameter in layer.parameters())
    work = count / 1e6 * sum(lengths) / TOKENS
    tried = HALF[target] if (target, recipe.name) in WHERE else 0.0
    chosen = CHOICE * count / 1e6 if recipe.weight_bits == 4 else 0.0
    depth = getattr(model.config, model.family.depth)
    return Export(work * (TORCH + tried), depth * LAYER[target] + chosen, gate(count, target, recipe, lengths))


def gate(count: int, target: str, recipe: Recipe, lengths: Sequence[int]) -> float:
    """Seconds to hold a file to torch's answers, of a model with so many parameters in its layers."""
    each = GATE[target] + (ROUNDED if recipe.weight_bits == 4 else 0.0)
    return count / 1e6 * each * sum(lengths) / TOKENS


def simulation(size: int, tokens: int) -> float:
    """Seconds to count one inference of a file of so many bytes on a simulated phone."""
    return START + size / 1e6 * (LOAD + TOKEN * tokens)


def told(seconds: float) -> str:
    """What follows a step's name: nothing where it is short, else the time to one digit, as `, about 40 s`."""
    if seconds < SHORT:
        return ""
    if seconds < 95:
        return f", about {round(seconds, -1):.0f} s"
    return f", about {max(round(seconds / 60), 2)} min"
