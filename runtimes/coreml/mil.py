"""The MIL program of an .mlpackage, read from disk and evaluated operator by operator.

This is how a Core ML model is checked where Core ML does not run. Every result is rounded to the type that the program
declares for it, float16 included, and held to the declared shape; sums inside one operator are float32, where the
Neural Engine's are not documented. What is not known - an operator, a parameter, a type - is refused by name.
"""

import inspect
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from edgebert.errors import InputError
from edgebert.runtimes.coreml.mil_constants import SUB_BYTE, unpack
from edgebert.runtimes.coreml.mil_ops import OPS
from edgebert.runtimes.coreml.package import Package, schema
from edgebert.runtimes.session import Spec, Weight

Shape = tuple[int, ...]  # -1 stands for a free size

# Types of values here, to the arrays they are kept in; a float16 lies in a float32 that it fits exactly.
ARRAYS: dict[str, Any] = {
    "float16": np.float32, "float32": np.float32, "int8": np.int8, "uint8": np.uint8, "int16": np.int16,
    "uint16": np.uint16, "int32": np.int32, "bool": np.bool_, "int4": np.int8,
    **dict.fromkeys(("uint1", "uint2", "uint3", "uint4", "uint6"), np.uint8), "uint32": np.uint32,
}  # fmt: skip
FLOATS = ("float16", "float32")
# Fields of an immediate tensor that may hold a type's values; other types are packed bytes.
FIELDS: dict[str, tuple[str, ...]] = {"float32": ("floats",), "int32": ("ints",), "bool": ("bools",)}
FIELDS |= dict.fromkeys(("int16", "uint16", "uint32"), ("ints", "bytes"))
# Operators that take one float type and give another, and parameters that may have a type of their own.
CONVERT = ("cast", "constexpr_cast", "dequantize", "quantize", "select", "range_1d", "fill")
APART = ("alpha", "beta", "epsilon")
# What an operator raises when its inputs do not suit it.
FAILURES = (ValueError, TypeError, IndexError, RuntimeError, ArithmeticError, MemoryError, AttributeError, KeyError)
# Constants of these types are sizes, axes and the like, not weights.
NOT_WEIGHTS = ("int16", "int32", "int64", "uint16", "uint32", "bool", "string")


@dataclass(frozen=True, slots=True)
class Value:
    """An array and the type a program gives it; a string is kept as it is."""

    dtype: str
    array: Any


@dataclass(frozen=True, slots=True)
class Step:
    """One operator, its parameters given as names of values, values, or several of these."""

    kind: str
    name: str
    args: dict[str, Any]
    outputs: tuple[Spec, ...]


def main_block(package: Package) -> tuple[Any, Any]:
    """The function `main` of a program and its block of operators.

    Raises:
        InputError: the package holds no ML program, or one of several functions.
    """
    kind = package.spec.WhichOneof("Type")
    if kind != "mlProgram":
        raise InputError(f"{package.path} holds a model of type {kind}, no mlProgram: only its facts can be read.")
    functions = package.spec.mlProgram.functions
    if set(functions) != {"main"}:
        raise InputError(f"{package.path} has functions {sorted(functions)}; one, main, is needed.")
    function = functions["main"]
    if function.opset not in function.block_specializations:
        raise InputError(f"{package.path}: main has no block for its opset {function.opset!r}.")
    return function, function.block_specializations[function.opset]


def blocks(package: Package) -> list[Any]:
    """The blocks of all functions of a program."""
    functions = package.spec.mlProgram.functions
    return [block for name in sorted(functions) for block in functions[name].block_specializations.values()]


def dtype_name(number: int) -> str:
    """A type's name, such as `float16`."""
    kinds = schema("MIL_pb2").DataType
    if number not in kinds.values():
        raise InputError(f"type {number} is not known.")
    name: str = kinds.Name(number).lower()
    return name


def spec_of(named: Any) -> Spec:
    """Name, type and sizes that a program declares for a value."""
    name = getattr(named, "name", "a constant")
    if named.type.WhichOneof("type") != "tensorType":
        raise InputError(f"{name} is a {named.type.WhichOneof('type')}; only tensors are known.")
    kind = named.type.tensorType
    sizes = tuple(int(d.constant.size) if d.WhichOneof("dimension") == "constant" else -1 for d in kind.dimensions)
    if len(sizes) != kind.rank:
        raise InputError(f"{name} has {len(sizes)} sizes and rank {kind.rank}.")
    return Spec(name, dtype_name(kind.dataType), sizes)


def constant(package: Package, value: Any) -> Value:
    """Decode a constant; its bytes have to be as many as its shape asks for, so no size in a file makes memory.

    Raises:
        InputError: it is of a type or form not known, or its bytes are too few or too many.
    """
    spec = spec_of(value)
    count = math.prod(spec.shape)
    if any(n < 0 for n in spec.shape):
        raise InputError(f"a constant of {spec.dtype} without a fixed shape.")
    if spec.dtype == "string":
        texts = value.immediateValue.tensor.strings.values
        if spec.shape or len(texts) != 1:
            raise InputError("a constant of several strings is not known.")
        return Value("string", texts[0])
    if spec.dtype not in ARRAYS:
        raise InputError(f"a constant of type {spec.dtype} is not known.")
    flat = _stored(package, value, spec.dtype, count)
    if flat.size != count:
        raise InputError(f"a constant of {spec.dtype} {spec.shape} holds {flat.size} values.")
    return Value(spec.dtype, flat.astype(ARRAYS[spec.dtype], copy=False).reshape(spec.shape))


def _stored(package: Package, value: Any, dtype: str, count: int) -> np.ndarray:
    """A constant's elements as they stand in the weight file or in the program."""
    if value.WhichOneof("value") == "blobFileValue":
        blob = package.blob(value.blobFileValue.fileName, value.blobFileValue.offset)
        if blob.dtype != dtype:
            raise InputError(f"a constant of {dtype} is stored as {blob.dtype}.")
        data: Any = blob.data
    else:
        tensor = value.immediateValue.tensor
        field = tensor.WhichOneof("value")
        if field not in FIELDS.get(dtype, ("bytes",)):
            raise InputError(f"a constant of {dtype} holds {field}.")
        if field != "bytes":
            return np.array(getattr(tensor, field).values)
        data = bytearray(tensor.bytes.values)
    if dtype in SUB_BYTE:
        return unpack(np.frombuffer(data, np.uint8), dtype, count)
    kind = np.dtype("float16" if dtype == "float16" else ARRAYS[dtype])
    if len(data) != count * kind.itemsize:
        raise InputError(f"{count} elements of {dtype} are stored in {len(data)} bytes.")
    return np.frombuffer(data, kind)


def read_weights(package: Package) -> tuple[Weight, ...]:
    """Every constant tensor but sizes and axes; a packed weight counts with its scales, a shared one once.

    Raises:
        InputError: a constant is not where the program says.
    """
    weights: list[Weight] = []
    seen: set[tuple[str, int]] = set()
    for block in blocks(package):
        for op in _operations(block):
            weights += _weights(package, op, seen)
    return tuple(weights)


def _operations(block: Any) -> Iterator[Any]:
    """Every operator, those of nested blocks too."""
    for op in block.operations:
        yield op
        for nested in op.blocks:
            yield from _operations(nested)


def _weights(package: Package, op: Any, seen: set[tuple[str, int]]) -> Iterator[Weight]:
    """The constants that one operator holds; all parts of a packed one together."""
    constants = [(key, value) for key, value in op.attributes.items() if key != "name"]
    for key, argument in op.inputs.items():
        constants += [(key, bound.value) for bound in argument.arguments if bound.WhichOneof("binding") == "value"]
    parts = []
    for key, value in constants:
        spec = spec_of(value) if value.type.WhichOneof("type") == "tensorType" else None
        if spec is None or not spec.shape:
            continue
        size = -(-math.prod(spec.shape) * _bits(spec.dtype) // 8)
        place = (value.blobFileValue.fileName, value.blobFileValue.offset)
        held = _held(package, value, _bits(spec.dtype))
        if held < size:
            raise InputError(f"a constant of {spec.dtype} {spec.shape} holds {held} bytes.")
        parts.append((key, spec, 0 if place in seen else size))
        if value.WhichOneof("value") == "blobFileValue":
            seen.add(place)
    output = op.outputs[0].name if op.outputs else ""
    if op.type.startswith("constexpr_"):
        # The part that every packing begins with holds the weights; shapes and scales only say how to read them.
        main = [spec.dtype for key, spec, _ in parts if key in ("quantized_data", "data", "indices", "nonzero_data")]
        if main and sum(size for *_, size in parts):
            yield Weight(output, main[0], spec_of(op.outputs[0]).shape, sum(size for *_, size in parts))
        return
    for key, spec, size in parts:
        if spec.dtype not in NOT_WEIGHTS and size:
            yield Weight(output if op.type == "const" else f"{output}.{key}", spec.dtype, spec.shape, size)


def _held(package: Package, value: Any, bits: int) -> int:
    """Bytes of the elements that a constant holds, in the weight file or in the program."""
    if value.WhichOneof("value") == "blobFileValue":
        return len(package.blob(value.blobFileValue.fileName, value.blobFileValue.offset).data)
    tensor = value.immediateValue.tensor
    field = tensor.WhichOneof("value")
    if field is None:
        return 0
    elements = getattr(tensor, field).values
    return len(elements) if field == "bytes" else len(elements) * bits // 8


def _bits(dtype: str) -> int:
    """Bits of an element; 0 for types without a fixed size."""
    return SUB_BYTE.get(dtype) or int("".join(filter(str.isdigit, dtype)) or (8 if dtype == "bool" else 0))


def count_ops(block: Any) -> Counter[str]:
    """Operators by name, constants left out."""
    return Counter(op.type for op in _operations(block) if op.type != "const")


def half(x: np.ndarray) -> np.ndarray:
    """Round float32 to the nearest float16, kept in float32."""
    rounded: np.ndarray = torch.from_numpy(np.ascontiguousarray(x)).half().float().numpy()
    return rounded.reshape(x.shape)


class Program:
    """A program ready to run: constants decoded and unpacked once, operators looked up and their parameters known."""

    def __init__(self, package: Package, unrounded: bool = False) -> None:
        """Read the program.

        Args:
            package: the package that it stands in.
            unrounded: compute in float32 throughout: nothing is rounded to float16, and no activation to integers.

        Raises:
            InputError: it holds what is not known here.
        """
        self._path = package.path
        self._unrounded = unrounded
        self.packed: dict[str, Step] = {}  # name of an unpacked weight to the operator that unpacks it
        function, block = main_block(package)
        self.inputs = tuple(spec_of(named) for named in function.inputs)
        self._outputs = tuple(block.outputs)
        self.constants: dict[str, Value] = {}
        self._steps: list[Step] = []
        known = {spec.name for spec in self.inputs}
        for op in block.operations:
            step = self._read(package, op)
            missing = [name for name in _names(step) if name not in known]
            if missing:
                raise InputError(f"{self._path}: {step.kind} {step.name} reads {missing[0]}, which is not there.")
            known |= {spec.name for spec in step.outputs}
            if step.kind == "const":
                self._keep(step)
            elif step.kind.startswith("constexpr_"):
                self.constants |= self._evaluate(step, self.constants)
                self.packed[step.outputs[0].name] = step
            else:
                self._steps.append(step)
        if any(name not in known for name in self._outputs):
            raise InputError(f"{self._path}: an output of the program is computed nowhere.")
        self._last = {name: i for i, step in enumerate(self._steps) for name in _names(step)}

    def _read(self, package: Package, op: Any) -> Step:
        """Check one operator against what is known, and decode what it holds."""
        name = op.attributes["name"].immediateValue.tensor.strings.values if "name" in op.attributes else []
        where = f"{self._path}: {op.type} {name[0] if name else op.outputs[0].name if op.outputs else ''}"
        if op.blocks or (op.type != "const" and op.type not in OPS):
            raise InputError(f"{where}: the operator {op.type} is not known, so the program cannot be evaluated here.")
        try:
            held = {key: constant(package, value) for key, value in op.attributes.items() if key != "name"}
            args: dict[str, Any] = dict(held)
            for key, argument in op.inputs.items():
                bound = [b.name if b.WhichOneof("binding") == "name" else constant(package, b.value)
                         for b in argument.arguments]  # fmt: skip
                args[key] = bound if key == "values" or len(bound) != 1 else bound[0]
            outputs = tuple(spec_of(named) for named in op.outputs)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        wrong = [spec.dtype for spec in outputs if spec.dtype not in ARRAYS and spec.dtype != "string"]
        if wrong:
            raise InputError(f"{where}: type {wrong[0]} is not known.")
        # iOS 16's packed weights hold their parts as attributes, and constants their value.
        if op.type == "const" and set(args) != {"val"}:
            raise InputError(f"{where}: a const with {sorted(args)}; val alone is known.")
        if op.type != "const":
            if held and not op.type.startswith("constexpr_"):
                raise InputError(f"{where}: attribute {next(iter(held))} is not known.")
            try:
                inspect.signature(OPS[op.type]).bind(**args)
            except TypeError as error:
                raise InputError(f"{where}: {error}; its parameters are not known here.") from None
        return Step(op.type, where, args, outputs)

    def _keep(self, step: Step) -> None:
        """Keep a constant, if it is what the program declares."""
        value, (declared,) = step.args["val"], step.outputs
        if value.dtype != declared.dtype or (value.dtype != "string" and value.array.shape != declared.shape):
            raise InputError(f"{step.name} is declared {declared.dtype} {declared.shape}, and is {value.dtype}.")
        self.constants[declared.name] = value

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Evaluate the program.

        Args:
            inputs: one array for each of the program's inputs, of its type and shape.

        Raises:
            InputError: the inputs do not suit the program, or an operator its own inputs.
        """
        env = dict(self.constants)
        for spec in self.inputs:
            env[spec.name] = _declared(f"{self._path}: input", Value(spec.dtype, inputs[spec.name]), spec)
        for i, step in enumerate(self._steps):
            env |= self._evaluate(step, env)
            for name in _names(step):
                if self._last[name] == i and name not in self._outputs:
                    env.pop(name, None)
        return {name: env[name].array for name in self._outputs}

    def _evaluate(self, step: Step, env: Mapping[str, Value]) -> dict[str, Value]:
        """One operator's results, rounded to the declared types."""
        if self._unrounded and step.kind in ("quantize", "dequantize"):
            return {step.outputs[0].name: _resolve(step.args["input"], env)}
        values = {key: _resolve(arg, env) for key, arg in step.args.items()}
        floats = {v.dtype for key, value in values.items() if key not in APART
                  for v in (value if isinstance(value, list) else [value]) if v.dtype in FLOATS}  # fmt: skip
        declared = {spec.dtype for spec in step.outputs if spec.dtype in FLOATS}
        if step.kind not in CONVERT and len(floats | declared) > 1 and not step.kind.startswith("constexpr_"):
            raise InputError(f"{step.name} mixes {' and '.join(sorted(floats | declared))}.")
        try:
            with np.errstate(all="ignore"):
                result = OPS[step.kind](**{key: _arrays(value) for key, value in values.items()})
        except InputError as error:
            raise InputError(f"{step.name}: {error}") from None
        except FAILURES as error:
            reason = next(iter(str(error).splitlines()), "")[:200]
            raise InputError(f"{step.name} cannot be evaluated: {reason or type(error).__name__}.") from None
        results = result if isinstance(result, tuple) else (result,)
        if len(results) != len(step.outputs):
            raise InputError(f"{step.name} gives {len(results)} values, and {len(step.outputs)} are declared.")
        return {
            spec.name: _declared(step.name, Value(spec.dtype, np.asarray(array)), spec, self._unrounded)
            for spec, array in zip(step.outputs, results, strict=True)
        }


def _names(step: Step) -> Iterator[str]:
    """Names of the values that an operator reads."""
    for arg in step.args.values():
        yield from (part for part in (arg if isinstance(arg, list) else [arg]) if isinstance(part, str))


def _resolve(arg: Any, env: Mapping[str, Value]) -> Any:
    """A parameter's value, or values."""
    if isinstance(arg, list):
        return [_resolve(part, env) for part in arg]
    return env[arg] if isinstance(arg, str) else arg


def _arrays(value: Value | Sequence[Value]) -> Any:
    return value.array if isinstance(value, Value) else [part.array for part in value]


def _declared(where: str, value: Value, spec: Spec, unrounded: bool = False) -> Value:
    """A result as the declared type, unless that would round it, if it is of its kind and of the declared shape."""
    array = value.array
    fits = array.ndim == len(spec.shape) and all(
        want in (-1, got) for want, got in zip(spec.shape, array.shape, strict=True)
    )
    if not fits:
        raise InputError(f"{where}: {spec.name} is declared {spec.shape} and comes out {array.shape}.")
    kinds = {"f": spec.dtype in FLOATS, "b": spec.dtype == "bool"}
    if not kinds.get(array.dtype.kind, spec.dtype not in (*FLOATS, "bool")):
        raise InputError(f"{where}: {spec.name} is declared {spec.dtype} and comes out {array.dtype}.")
    array = array.astype(ARRAYS[spec.dtype], copy=False)
    return Value(spec.dtype, half(array) if spec.dtype == "float16" and not unrounded else array)
