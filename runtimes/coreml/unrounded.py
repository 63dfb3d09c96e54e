"""What an .mlpackage's stored numbers stand for, and its program without rounding: evaluated in float32 throughout.

Both are read from the package alone. They answer what a run of it cannot: whether each single weight is right, and
whether the program is, down to what half precision and 8 bits would hide.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edgebert.runtimes.coreml import package
from edgebert.runtimes.coreml.mil import FLOATS, Program, Step, Value
from edgebert.runtimes.coreml.mil_constants import SUB_BYTE, along, spread
from edgebert.runtimes.coreml.session import CoremlSession, read_facts
from edgebert.runtimes.session import Constant, Unrounded

PACKED = "_quantized"  # what the exporter appends to the name of a weight that is unpacked


def constants(path: Path) -> Iterator[Constant]:
    """Every float or packed constant of a package that edgebert made, by its name there."""
    program = Program(package.read(path), unrounded=True)
    parts = {read for step in program.packed.values() for read in step.args.values() if isinstance(read, str)}
    for name, value in program.constants.items():
        if value.dtype not in FLOATS or name in parts:
            continue
        values = value.array
        if name in program.packed:
            bits, step = _packed(program.packed[name], program.constants, values.shape)
        elif value.dtype == "float16":
            with np.errstate(invalid="ignore", over="ignore"):  # a bound that bounds nothing is infinite
                bits, step = 16, np.spacing(np.abs(values).astype(np.float16)).astype(np.float32)
        else:
            bits, step = 32, np.zeros(1, np.float32)
        yield Constant(name.removesuffix(PACKED), values, step, bits)


def _packed(step: Step, known: dict[str, Value], shape: tuple[int, ...]) -> tuple[int, np.ndarray]:
    """Bits and steps of a weight that an operator unpacks."""
    parts = {key: known[value] if isinstance(value, str) else value for key, value in step.args.items()}
    data = parts["quantized_data"] if "quantized_data" in parts else parts["data"]
    bits, scale = SUB_BYTE.get(data.dtype, 8), parts["scale"].array.astype(parts["scale"].dtype)
    if "axis" in parts:
        return bits, along(scale, int(parts["axis"].array), len(shape))
    return bits, spread(scale, shape)


def open_unrounded(path: Path) -> tuple[Unrounded, ...]:
    """The package's program in float32, by the evaluator on a Mac too."""
    opened = package.read(path)
    program = Program(opened, unrounded=True)
    session = CoremlSession(opened, read_facts(opened), 1, program.run)
    return (Unrounded(session.run, exact=all(value.dtype != "float16" for value in program.constants.values())),)
