"""Core ML packages: on macOS in Core ML itself, anywhere else by evaluating the MIL program (runtimes/coreml/mil.py).

The macOS path is written to coremltools' documentation; it has not been run, for want of a Mac. Facts are read from the
package itself on both.
"""

import importlib.util
import platform
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgebert.errors import InputError, MissingDependency
from edgebert.models.signature import INPUTS, Arrays
from edgebert.runtimes.coreml import mil, package
from edgebert.runtimes.coreml.package import Package
from edgebert.runtimes.session import Facts, Spec, refuse_edited, run_rows

# Core ML's names of element types (ArrayFeatureType.ArrayDataType).
ELEMENTS = {65552: "float16", 65568: "float32", 65600: "float64", 131104: "int32", 131080: "int8"}


def missing() -> str | None:
    """The command that installs what this runtime needs; None when it is there."""
    return None if importlib.util.find_spec("coremltools") else 'pip install "edgebert[coreml]"'


def open(path: Path, threads: int = 1) -> "CoremlSession":
    """Open an .mlpackage, by edgebert or not.

    Args:
        path: the folder.
        threads: threads that one operator may use; Core ML decides for itself.

    Raises:
        InputError: it is absent, damaged or something else, or was edited since edgebert made it.
        MissingDependency: coremltools, whose schema is needed, is not installed.
    """
    opened, told = _read(path)
    refuse_edited(path, opened.seal)
    return CoremlSession(opened, told, threads)


def facts(path: Path) -> Facts:
    """What an .mlpackage holds.

    Raises:
        InputError: it is absent, damaged or something else.
        MissingDependency: coremltools, whose schema is needed, is not installed.
    """
    return _read(path)[1]


def _read(path: Path) -> tuple[Package, Facts]:
    """A package and what it holds; no native code has a part in it."""
    if command := missing():
        raise MissingDependency(f"{path.name} needs coremltools: {command}")
    opened = package.read(path)
    try:
        return opened, read_facts(opened)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Exception as error:  # lists that lack an entry, text that is none, blocks in blocks without end
        raise InputError(f"{path} is damaged ({type(error).__name__}): export it again.") from None


class CoremlSession:
    """One open .mlpackage. Its program is made ready when it is first run."""

    def __init__(self, package: Package, facts: Facts, threads: int, row: Any = None) -> None:
        self._package: Package | None = package
        self._facts = facts
        self._threads = threads
        self._row = row

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """Answer a batch, row by row, at the smallest length that fits.

        Raises:
            InputError: the package takes other inputs than edgebert's, or these do not suit it, or its program holds
                what cannot be evaluated here.
        """
        if self._package is None:
            raise InputError("this Core ML session is closed; open the package again.")
        self._check_signature()
        if self._row is None:
            self._row = _native(self._package) if platform.system() == "Darwin" else mil.Program(self._package).run
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            outputs = run_rows(inputs, self._facts.lengths, self._row)
        finally:
            torch.set_num_threads(before)
        return {name: value.astype(np.float32, copy=False) for name, value in outputs.items()}

    def facts(self) -> Facts:
        """What the package holds."""
        return self._facts

    def close(self) -> None:
        """Let the package and its unpacked weights go."""
        self._package = self._row = None

    def _check_signature(self) -> None:
        """Refuse a package that does not take edgebert's three inputs at fixed lengths."""
        assert self._package is not None
        mil.main_block(self._package)
        takes = {spec.name: spec for spec in self._facts.inputs}
        fits = set(takes) == set(INPUTS) and all(
            spec.dtype == "int32" and len(spec.shape) == 2 and spec.shape[0] == 1 for spec in takes.values()
        )
        if not fits or not self._facts.lengths:
            found = ", ".join(f"{spec.name} {spec.dtype} {spec.shape}" for spec in self._facts.inputs)
            raise InputError(
                f"the package takes {found}; edgebert runs those that take {', '.join(INPUTS)}, int32 (1, tokens) at "
                "fixed lengths. Only its facts can be read."
            )


def _native(package: Package) -> Any:
    """Core ML's own answer to one row; on macOS only."""
    import coremltools

    # All units, as in an app: the program's own types say what is computed in which precision.
    model = coremltools.models.MLModel(str(package.path), compute_units=coremltools.ComputeUnit.ALL)

    def row(inputs: Arrays) -> Arrays:
        try:
            return {name: np.asarray(value) for name, value in model.predict(dict(inputs)).items()}
        except RuntimeError as error:
            reason = next(iter(str(error).splitlines()), "")[:200]
            raise InputError(f"{package.path}: Core ML refused the input: {reason}") from None

    return row


def read_facts(package: Package) -> Facts:
    """What a package says and holds."""
    description, kind = package.spec.description, package.spec.WhichOneof("Type")
    program = kind == "mlProgram"
    declared: dict[str, Spec] = {}
    if program:
        blocks = mil.blocks(package)
        ops = sum((mil.count_ops(block) for block in blocks), Counter())
        # The description leaves out the shapes of outputs; a size that goes with the length is -1.
        made = (out for block in blocks for op in block.operations for out in op.outputs if out.name in block.outputs)
        declared = {out.name: mil.spec_of(out) for out in made}
    else:
        layers = getattr(getattr(package.spec, kind), "layers", ())
        ops = Counter(layer.WhichOneof("layer") or "unknown" for layer in layers) or Counter({kind: 1})
    meta = description.metadata
    said = {"description": meta.shortDescription, "author": meta.author, "license": meta.license}
    said |= {"version": meta.versionString, **meta.userDefined}
    tool = f"coremltools {version('coremltools')}"
    apple = platform.mac_ver()[0]
    return Facts(
        runtime=f"Core ML of macOS {apple}, {tool}" if apple else f"edgebert's MIL evaluator, schema of {tool}",
        file_bytes=package.file_bytes,
        inputs=tuple(sorted((_spec(feature) for feature in description.input), key=_place)),
        outputs=tuple(declared.get(feature.name) or _spec(feature) for feature in description.output),
        lengths=_lengths(description.input),
        ops=dict(ops.most_common()),
        nodes=ops.total(),
        weights=mil.read_weights(package) if program else (),
        metadata={key: value for key, value in said.items() if value},
        seal=package.seal,
    )


def _place(spec: Spec) -> int:
    """Our inputs in our order, others after them in the package's."""
    return INPUTS.index(spec.name) if spec.name in INPUTS else len(INPUTS)


def _spec(feature: Any) -> Spec:
    """An input or output; of enumerated shapes the largest."""
    kind = feature.type.WhichOneof("Type")
    if kind != "multiArrayType":
        return Spec(feature.name, kind or "unknown", ())
    array = feature.type.multiArrayType
    shapes = _shapes(feature)
    return Spec(feature.name, ELEMENTS.get(array.dataType, "unknown"), max(shapes, key=np.prod) if shapes else ())


def _shapes(feature: Any) -> list[tuple[int, ...]]:
    """The shapes that a feature may have; a free size is -1."""
    array = feature.type.multiArrayType
    flexible = array.WhichOneof("ShapeFlexibility")
    if flexible == "enumeratedShapes":
        return [tuple(shape.shape) for shape in array.enumeratedShapes.shapes]
    if flexible == "shapeRange":
        return [tuple(size.lowerBound if size.lowerBound == size.upperBound else -1
                      for size in array.shapeRange.sizeRanges)]  # fmt: skip
    return [tuple(array.shape)]


def _lengths(features: Any) -> tuple[int, ...]:
    """The fixed lengths that all inputs have alike; none where the token axis is free or the inputs are others."""
    sets = {tuple(sorted({shape[1] for shape in _shapes(f) if len(shape) == 2})) for f in features}
    lengths = sets.pop() if len(sets) == 1 else ()
    return lengths if all(length > 0 for length in lengths) else ()
