"""Well-formed model files whose graphs are wrong: each format's own writer wrote them, and no runtime can run them.

`CASES` has for each target the wrong graphs that have a name; `scramble` changes numbers, texts and lists of a file at
random places, those of its schema and not of its bytes. `change` also edits files of edgebert's as another tool may.
"""

import contextlib
import json
import math
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from foreign import SIZE, onnx_file, tflite_file

from edgebert.runtimes.coreml import package
from edgebert.runtimes.executorch import flatbuffer
from edgebert.runtimes.executorch.program import SEAL_KEY

Change = Callable[[Any], None]
HUGE = 2**31 - 1
# What the writers raise at a number that a type does not hold, or at a table less than they need.
NOT_TAKEN = (ValueError, TypeError, OverflowError, struct.error, AssertionError, AttributeError, LookupError)


def make(target: str, path: Path) -> Path:
    """A right file, small, which edgebert did not make."""
    if target == "tflite":
        return tflite_file(path, signature=True)[0]
    return {"onnx": onnx_file, "executorch": _program, "coreml": _package}[target](path)


def change(target: str, source: Path, path: Path, how: Change) -> Path:
    """A copy of a file with its graph changed, written by the format's own schema."""
    read, write = FORMATS[target]
    graph = read(source)
    how(graph)
    write(graph, source, path)
    return path


def scramble(target: str, source: Path, path: Path, seed: int) -> Path:
    """A copy of a file with one to three random changes; those that the schema has no room for are tried elsewhere."""
    rng = random.Random(seed)
    for _ in range(100):
        with contextlib.suppress(*NOT_TAKEN):
            return change(target, source, path, lambda graph: _scrambled(graph, rng))
    raise AssertionError("no change is taken by the writer")


def _scrambled(graph: Any, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 3)):
        rng.choice(list(_changes(graph, rng)))()


def _changes(node: Any, rng: random.Random) -> Iterator[Callable[[], None]]:
    """Every place of a tree of tables, objects or messages, as a call that changes it."""
    for get, put in _places(node):
        value = get()
        if isinstance(value, (bool, int, float, str, bytes)):
            yield lambda put=put, value=value: put(_other(value, rng))  # type: ignore[misc]
        elif _is_list(value):
            if len(value):
                yield lambda value=value: _shuffled(value, rng)  # type: ignore[misc]
            yield from _changes(value, rng)
        elif value is not None and not isinstance(value, np.ndarray):
            yield from _changes(value, rng)


def _is_list(value: Any) -> bool:
    return isinstance(value, list) or type(value).__name__ in {"RepeatedScalarContainer", "RepeatedCompositeContainer"}


def _places(node: Any) -> Iterator[tuple[Callable[[], Any], Callable[[Any], None]]]:
    """What reads and what writes each part of a node."""
    if hasattr(node, "ListFields"):  # a protobuf message
        for field, value in node.ListFields():
            if hasattr(value, "items"):
                for item in value.values():
                    yield (lambda item=item: item), lambda _: None  # type: ignore[misc]
            else:
                yield (lambda value=value: value), lambda new, name=field.name: setattr(node, name, new)  # type: ignore[misc]
        return
    keys: Any = (
        range(len(node))
        if _is_list(node) or isinstance(node, tuple)
        else dict(node if isinstance(node, dict) else vars(node))
    )
    for key in keys:
        if _is_list(node) or isinstance(node, (dict, tuple)):
            yield (lambda key=key: node[key]), lambda new, key=key: node.__setitem__(key, new)  # type: ignore[misc]
        else:
            yield (lambda key=key: getattr(node, key)), lambda new, key=key: setattr(node, key, new)  # type: ignore[misc]


def _other(value: Any, rng: random.Random) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice((0, 1, -1, 2, 3, 7, 100, 255, HUGE, -HUGE - 1, 2**40, value + 1, value - 1))
    if isinstance(value, float):
        return rng.choice((0.0, -1.0, 1e38, math.inf, math.nan))
    return value[:0] if rng.random() < 0.3 else value + value[:1] if rng.random() < 0.5 else value[1:]


def _shuffled(items: Any, rng: random.Random) -> None:
    """A list with an entry less, an entry twice, or two in each other's place."""
    place = rng.randrange(len(items))
    what = rng.randrange(4)
    if what == 0:
        del items[place]
    elif what == 1:
        del items[:]
    elif what == 2:
        items.append(items[place])
    elif isinstance(items[0], (int, float)):
        other = rng.randrange(len(items))
        items[place], items[other] = items[other], items[place]


# --- LiteRT: the classes that its own schema gives


def _read_tflite(path: Path) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(bytearray(path.read_bytes()), 0)
    return _with_lists(model)


def _with_lists(node: Any) -> Any:
    """A tree with plain lists for short vectors."""
    for key, value in vars(node).items():
        if isinstance(value, np.ndarray):
            if key != "data":
                setattr(node, key, value.tolist())
        elif isinstance(value, list):
            for item in value:
                if hasattr(item, "__dict__"):
                    _with_lists(item)
        elif hasattr(value, "__dict__"):
            _with_lists(value)
    return node


def _write_tflite(model: Any, source: Path, path: Path) -> None:
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))


def _annotated_tflite(model: Any) -> None:
    from ai_edge_litert import schema_py_generated as schema

    entry, buffer = schema.MetadataT(), schema.BufferT()
    buffer.data = np.frombuffer(b"me", np.uint8)
    entry.name, entry.buffer = b"reviewer", len(model.buffers)
    model.buffers.append(buffer)
    model.metadata.append(entry)


def _unsealed_tflite(model: Any) -> None:
    model.description, model.metadata = b"", []
    for buffer in model.buffers:
        if buffer.data is not None and bytes(buffer.data[:16]) == b"edgebert.sha256=":
            buffer.data = None


# --- ONNX and Core ML: protobuf


def _read_onnx(path: Path) -> Any:
    import onnx

    return onnx.ModelProto.FromString(path.read_bytes())


def _write_onnx(model: Any, source: Path, path: Path) -> None:
    path.write_bytes(model.SerializeToString())


def _spec(path: Path) -> Path:
    return path / "Data" / package.AUTHOR / "model.mlmodel"


def _read_package(path: Path) -> Any:
    return package.schema("Model_pb2").Model.FromString(_spec(path).read_bytes())


def _write_package(spec: Any, source: Path, path: Path) -> None:
    import shutil

    shutil.copytree(source, path, dirs_exist_ok=True)
    _spec(path).write_bytes(spec.SerializeToString())


def _package(path: Path) -> Path:
    """y = linear(x), x float32 (1, 4)."""
    spec = package.schema("Model_pb2").Model()
    kinds = package.schema("MIL_pb2").DataType
    spec.specificationVersion = 8
    for side, name, size in ((spec.description.input, "x", 4), (spec.description.output, "y", 3)):
        feature = side.add(name=name)
        feature.type.multiArrayType.shape.extend([1, size])
        feature.type.multiArrayType.dataType = 65568
    program = spec.mlProgram
    program.version = 1
    function = program.functions["main"]
    function.opset = "CoreML7"
    block = function.block_specializations["CoreML7"]

    def typed(named: Any, kind: int, *sizes: int) -> Any:
        named.type.tensorType.dataType, named.type.tensorType.rank = kind, len(sizes)
        for size in sizes:
            named.type.tensorType.dimensions.add().constant.size = size
        return named

    typed(function.inputs.add(name="x"), kinds.FLOAT32, 1, 4)
    for name, sizes in (("w", (3, 4)), ("b", (3,))):
        constant = block.operations.add(type="const")
        typed(constant.outputs.add(name=name), kinds.FLOAT32, *sizes)
        value = typed(constant.attributes["val"], kinds.FLOAT32, *sizes)
        value.immediateValue.tensor.floats.values.extend([0.5] * math.prod(sizes))
    layer = block.operations.add(type="linear")
    for key, name in (("x", "x"), ("weight", "w"), ("bias", "b")):
        layer.inputs[key].arguments.add(name=name)
    typed(layer.outputs.add(name="y"), kinds.FLOAT32, 1, 3)
    block.outputs.append("y")
    _spec(path).parent.mkdir(parents=True)
    entry = {"author": package.AUTHOR, "path": f"{package.AUTHOR}/model.mlmodel", "name": "model.mlmodel"}
    said = {"fileFormatVersion": "1.0.0", "itemInfoEntries": {"A": entry}, "rootModelIdentifier": "A"}
    (path / package.MANIFEST).write_text(json.dumps(said))
    _spec(path).write_bytes(spec.SerializeToString())
    return path


# --- ExecuTorch: the schema that it ships


def _program(path: Path) -> Path:
    """y = x + w by a plain kernel, x float32 (1, 4)."""

    def tensor(**where: Any) -> flatbuffer.Table:
        kind = {"scalar_type": "FLOAT", "sizes": [1, 4], "dim_order": [0, 1], "shape_dynamism": "STATIC"}
        return {"val": ("Tensor", kind | where)}

    def planned(offset: int) -> flatbuffer.Table:
        return {"memory_id": 1, "memory_offset_low": offset, "memory_offset_high": 0}

    plan = {
        "name": "forward",
        "container_meta_type": {"encoded_inp_str": "", "encoded_out_str": ""},
        "values": [
            tensor(allocation_info=planned(0)),
            tensor(data_buffer_idx=1),
            {"val": ("Int", {"int_val": 1})},
            tensor(allocation_info=planned(16)),
        ],
        "inputs": [0],
        "outputs": [3],
        "chains": [{
            "inputs": [], "outputs": [],
            "instructions": [{"instr_args": ("KernelCall", {"op_index": 0, "args": [0, 1, 2, 3, 3]})}],
        }],
        "operators": [{"name": "aten::add", "overload": "out"}],
        "delegates": [],
        "non_const_buffer_sizes": [0, 32],
    }  # fmt: skip
    constants = np.ones(4, np.float32).tobytes()
    root = {
        "version": 0, "execution_plan": [plan], "constant_buffer": [], "backend_delegate_data": [], "named_data": [],
        "segments": [{"offset": 0, "size": len(constants)}],
        "constant_segment": {"segment_index": 0, "offsets": [0, 0]},
    }  # fmt: skip
    path.write_bytes(_framed(flatbuffer.write(flatbuffer.program_schema(), root), constants))
    return path


def _framed(program: bytes, segments: bytes) -> bytes:
    """A file: the header stands between the magic and the tables, which moves the root by its length."""
    size = len(program) + 32
    base = -(-size // 128) * 128
    fields = ((32, 4), (size, 8), (base, 8), (len(segments), 8))
    header = b"eh00" + b"".join(number.to_bytes(width, "little") for number, width in fields)
    root = int.from_bytes(program[:4], "little") + len(header)
    return (root.to_bytes(4, "little") + program[4:8] + header + program[8:]).ljust(base, b"\0") + segments


def _read_program(path: Path) -> Any:
    data = path.read_bytes()
    size = int.from_bytes(data[16:24], "little")
    return _plain(flatbuffer.read(flatbuffer.program_schema(), memoryview(data)[:size]))


def _plain(node: Any) -> Any:
    """A tree with plain lists for vectors, and unions that can be changed."""
    if isinstance(node, np.ndarray):
        return node.tolist()
    if isinstance(node, dict):
        return {key: _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    return [node[0], _plain(node[1])] if isinstance(node, tuple) else node


def _write_program(root: Any, source: Path, path: Path) -> None:
    data = source.read_bytes()
    segments = data[int.from_bytes(data[24:32], "little") :]
    # Padded, for a seal is the last thing in a file.
    path.write_bytes(_framed(flatbuffer.write(flatbuffer.program_schema(), root), segments + bytes(16)))


def _unsealed_program(root: Any) -> None:
    root["named_data"] = [entry for entry in root["named_data"] if entry["key"] != SEAL_KEY]
    root["execution_plan"] = [plan for plan in root["execution_plan"] if plan["name"] != "producer"]


def _unsealed_package(spec: Any) -> None:
    for key in [key for key in spec.description.metadata.userDefined if key.startswith(package.MARK)]:
        del spec.description.metadata.userDefined[key]


FORMATS: dict[str, tuple[Callable[[Path], Any], Callable[[Any, Path, Path], None]]] = {
    "tflite": (_read_tflite, _write_tflite),
    "onnx": (_read_onnx, _write_onnx),
    "executorch": (_read_program, _write_program),
    "coreml": (_read_package, _write_package),
}


# What another tool may do to a file of edgebert's that changes none of its answers.
ANNOTATED: dict[str, Change] = {
    "tflite": _annotated_tflite,
    "onnx": lambda model: model.metadata_props.add(key="reviewer", value="me"),
    "executorch": lambda root: root["execution_plan"].append(root["execution_plan"][-1] | {"name": "reviewer"}),
    "coreml": lambda spec: spec.description.metadata.userDefined.update({"reviewer": "me"}),
}
# Takes out all that says that edgebert made a file.
UNSEALED: dict[str, Change] = {
    "tflite": _unsealed_tflite,
    "onnx": lambda model: (model.ClearField("metadata_props"), model.ClearField("producer_name")),
    "executorch": _unsealed_program,
    "coreml": _unsealed_package,
}


def _tflite_op(model: Any) -> Any:
    return model.subgraphs[0].operators[0]


def _tflite_tensor(model: Any, number: int = 1) -> Any:
    return model.subgraphs[0].tensors[number]


def opcode(name: str) -> Change:
    def change(model: Any) -> None:
        from ai_edge_litert import schema_py_generated as schema

        code = getattr(schema.BuiltinOperator, name)
        model.operatorCodes[0].builtinCode, model.operatorCodes[0].deprecatedBuiltinCode = code, min(code, 127)

    return change


def _call(root: Any) -> Any:
    return root["execution_plan"][0]["chains"][0]["instructions"][0]["instr_args"][1]


def _pte_tensor(root: Any, number: int = 1) -> Any:
    return root["execution_plan"][0]["values"][number]["val"][1]


def _block(spec: Any) -> Any:
    return spec.mlProgram.functions["main"].block_specializations["CoreML7"]


def _linear(spec: Any) -> Any:
    return _block(spec).operations[2]


def _dimension(spec: Any, size: int) -> None:
    _block(spec).operations[0].outputs[0].type.tensorType.dimensions[0].constant.size = size
    _block(spec).operations[0].attributes["val"].type.tensorType.dimensions[0].constant.size = size


def _onnx_dims(model: Any, *sizes: int) -> None:
    model.graph.initializer[0].dims[:] = sizes


CASES: dict[str, dict[str, Change]] = {
    "tflite": {
        "an operator without inputs": lambda m: setattr(_tflite_op(m), "inputs", []),
        "an operator without its weight": lambda m: setattr(_tflite_op(m), "inputs", [0, -1, -1]),
        "an operator without outputs": lambda m: setattr(_tflite_op(m), "outputs", []),
        "an input out of range": lambda m: setattr(_tflite_op(m), "inputs", [0, 99, -1]),
        "an output out of range": lambda m: setattr(_tflite_op(m), "outputs", [99]),
        "another opcode": opcode("CONV_2D"),
        "an opcode of control flow": opcode("WHILE"),
        "an opcode that writes elsewhere": opcode("SPLIT"),
        "a weight of text": lambda m: setattr(_tflite_tensor(m), "type", 5),
        "a weight of whole numbers": lambda m: setattr(_tflite_tensor(m), "type", 2),
        "a huge shape": lambda m: setattr(_tflite_tensor(m, 0), "shape", [HUGE, HUGE]),
        "a negative shape": lambda m: setattr(_tflite_tensor(m, 0), "shape", [-1, -5]),
        "a weight of no shape": lambda m: setattr(_tflite_tensor(m), "shape", []),
        "options of another operator": lambda m: setattr(_tflite_op(m), "builtinOptionsType", 1),
    },
    "onnx": {
        "an operator without inputs": lambda m: m.graph.node[0].ClearField("input"),
        "an operator without outputs": lambda m: m.graph.node[0].ClearField("output"),
        "an input that is nowhere": lambda m: m.graph.node[0].input.__setitem__(0, "nowhere"),
        "another operator": lambda m: setattr(m.graph.node[0], "op_type", "Conv"),
        "an operator of control flow": lambda m: setattr(m.graph.node[0], "op_type", "Loop"),
        "a circle": lambda m: m.graph.node[0].input.__setitem__(0, "rows"),
        "a weight of text": lambda m: setattr(m.graph.initializer[0], "data_type", 8),
        "a weight of an unknown type": lambda m: setattr(m.graph.initializer[0], "data_type", 99),
        "a huge shape": lambda m: _onnx_dims(m, 2**40, 2**40),
        "a negative shape": lambda m: _onnx_dims(m, -32, SIZE),
        "a weight of no shape": lambda m: _onnx_dims(m),
    },
    "executorch": {
        "an operator without inputs": lambda r: _call(r).update(args=[]),
        "an operator without outputs": lambda r: _call(r).update(args=[0, 1, 2]),
        "an input out of range": lambda r: _call(r).update(args=[0, 99, 2, 3, 3]),
        "a negative input": lambda r: _call(r).update(args=[0, -1, 2, 3, 3]),
        "an operator out of range": lambda r: _call(r).update(op_index=99),
        "another operator": lambda r: r["execution_plan"][0]["operators"][0].update(name="aten::mm"),
        "an unknown operator": lambda r: r["execution_plan"][0]["operators"][0].update(name="aten::nothing"),
        "a weight of another type": lambda r: _pte_tensor(r).update(scalar_type="DOUBLE"),
        "a huge shape": lambda r: _pte_tensor(r).update(sizes=[HUGE, HUGE]),
        "a negative shape": lambda r: _pte_tensor(r).update(sizes=[-1, 4]),
        "an order out of range": lambda r: _pte_tensor(r).update(dim_order=[0, 9]),
        "memory out of range": lambda r: _pte_tensor(r, 3)["allocation_info"].update(memory_offset_low=HUGE),
        "a constant out of range": lambda r: _pte_tensor(r).update(data_buffer_idx=99),
    },
    "coreml": {
        "an operator without inputs": lambda s: _linear(s).inputs.clear(),
        "an operator without outputs": lambda s: _linear(s).ClearField("outputs"),
        "a constant without an output": lambda s: _block(s).operations[0].ClearField("outputs"),
        "an input that is nowhere": lambda s: setattr(_linear(s).inputs["x"].arguments[0], "name", "nowhere"),
        "another operator": lambda s: setattr(_linear(s), "type", "conv"),
        "packed weights without parts": lambda s: setattr(_block(s).operations[0], "type", "constexpr_lut_to_dense"),
        "a weight of text": lambda s: setattr(_block(s).operations[0].outputs[0].type.tensorType, "dataType", 2),
        "an unknown type": lambda s: setattr(_block(s).operations[0].attributes["val"].type.tensorType, "dataType", 99),
        "a huge shape": lambda s: _dimension(s, 2**60),
        "a wrong rank": lambda s: setattr(_block(s).operations[0].outputs[0].type.tensorType, "rank", 9),
        "no output": lambda s: _block(s).ClearField("outputs"),
    },
}  # fmt: skip
