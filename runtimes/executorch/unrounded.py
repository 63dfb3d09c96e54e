"""What a .pte file's stored numbers stand for, and its graphs without rounding: every integer product done in float.

Both are read from the file alone. They answer what a run of the file cannot: whether each single weight is right, and
whether the graph is, down to what 8-bit activations would hide. The graph for ARM cores with half precision, which
other processors cannot run, becomes one that they can.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgebert.models.signature import INPUTS, Arrays
from edgebert.runtimes.executorch import flatbuffer
from edgebert.runtimes.executorch.flatbuffer import Table
from edgebert.runtimes.executorch.program import (
    BACKEND,
    FLOAT,
    HALF,
    Contents,
    ProgramFile,
    frame_graph,
    frame_program,
)
from edgebert.runtimes.executorch.session import load_bindings
from edgebert.runtimes.session import Constant, Unrounded, run_rows

PACKED = {"qcint8": 8, "qcint4": 4, "qbint4": 4}
ROUNDED = ("qdint8", "qint8", "fp16")  # types of activations that are float32 without rounding
# What the exporter calls the factors of channels that meet fixed scales: before a layer, and after it.
SMOOTH, RESCALE = ".smooth", ".rescale"
ALIGNMENT = 128  # of what stands behind the program


def constants(path: Path) -> Iterator[Constant]:
    """Every float or packed constant of a file that edgebert made, by its name in the lowered model, once."""
    file = ProgramFile(memoryview(path.read_bytes()))
    found: dict[str, Constant] = {}
    for constant in (*_tables(file), *(one for graph in _graphs(file).values() for one in graph.constants())):
        found.setdefault(constant.name, constant)
    yield from found.values()


def open_unrounded(path: Path) -> tuple[Unrounded, ...]:
    """The file's methods with all arithmetic in float32, made in memory; the file is not touched."""
    file = ProgramFile(memoryview(path.read_bytes()))
    graphs = _graphs(file)
    contents = file.contents()
    content = _without_rounding(file, graphs)
    module = load_bindings()._load_for_executorch_from_buffer(content)
    forms = [name for name in (FLOAT, HALF) if name in contents.methods]
    return tuple(Unrounded(_Form(module, content, name, contents).run) for name in forms)


class _Form:
    """The methods of a loaded file in one form, FLOAT or HALF."""

    def __init__(self, module: Any, content: bytes, form: str, contents: Contents) -> None:
        self.module, self.content = module, content  # the runtime reads the bytes where they are
        self.form, self.contents = form, contents
        self.outputs = [spec.name for spec in contents.outputs]

    def run(self, inputs: Arrays) -> Arrays:
        """Answer a batch (B, T), row by row."""
        return run_rows({name: inputs[name] for name in INPUTS}, self.contents.lengths, self.row)

    def row(self, row: Arrays) -> Arrays:
        """Answer one row."""
        import torch

        method = self.contents.method_for(self.form, row[INPUTS[0]].shape[1])
        answers = self.module.run_method(method, [torch.from_numpy(row[name].copy()) for name in INPUTS])
        return {name: answer.numpy() for name, answer in zip(self.outputs, answers, strict=True)}


def _graphs(file: ProgramFile) -> dict[int, "_Graph"]:
    """XNNPACK's graphs by the number of their segment."""
    numbers = {
        delegate["processed"]["index"]
        for plan in file.program["execution_plan"]
        for delegate in plan["delegates"] or []
        if delegate["id"] == BACKEND
    }
    return {number: _Graph(file.segments[number], file.named) for number in sorted(numbers)}


def _tables(file: ProgramFile) -> Iterator[Constant]:
    """Constants that plain kernels read: tables, whose rows have a scale each in 8 bits."""
    for plan in file.program["execution_plan"]:
        held = {
            file.name(tensor): tensor
            for value in plan["values"]
            if value["val"] and value["val"][0] == "Tensor"
            for tensor in [value["val"][1]]
            if tensor["data_buffer_idx"] and tensor["allocation_info"] is None
        }
        for name, tensor in held.items():
            array = file.array(tensor)
            if array.dtype == np.int8:
                step = file.array(held[f"{name}.scale"]).reshape(-1, 1)
                yield Constant(name, array * step, step, 8)
            elif array.dtype == np.float32 and not name.endswith(".scale"):
                yield Constant(name, array, np.zeros(1, np.float32), 32)


class _Graph:
    """One graph of XNNPACK's."""

    def __init__(self, data: memoryview, named: dict[str, memoryview]) -> None:
        start, size = (int.from_bytes(data[a:b], "little") for a, b in ((10, 14), (14, 18)))
        schema = flatbuffer.delegate_schema()
        self.graph = flatbuffer.read(schema, data[start : start + size])
        self.named = named
        names = {number: name for name, number in schema.enums["XNNDatatype"][1].items()}
        self.kinds: dict[int, str] = {}
        self.tensors: dict[int, Table] = {}
        self.scales: dict[int, Table] = {}
        for value in self.graph["xvalues"]:
            kind, table = value["xvalue_union"]
            tensor = table if kind == "XNNTensorValue" else table["tensor_value"]
            self.tensors[tensor["id_out"]] = tensor
            self.kinds[tensor["id_out"]] = names[tensor["datatype"]].removeprefix("xnn_datatype_")
            if kind != "XNNTensorValue":
                self.scales[tensor["id_out"]] = table["quant_params"][1]
        self.makers = {node["xnode_union"][1]["output_id"]: node["xnode_union"] for node in self.graph["xnodes"]}

    def key(self, place: int) -> str:
        """The name of a constant's bytes."""
        name: str = self.graph["constant_data"][place]["named_key"]
        return name

    def stored(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """A constant's numbers and their steps, as they stand in the file."""
        tensor, kind = self.tensors[number], self.kinds[number]
        shape, data = tuple(map(int, tensor["dims"])), self.named[self.key(tensor["constant_buffer_idx"])]
        if kind == "fp32":
            return np.frombuffer(data, np.float32).reshape(shape), np.zeros(1, np.float32)
        scale = self.named[self.key(self.scales[number]["scale_buffer_idx"])]
        whole = np.frombuffer(data, np.int8 if kind == "qcint8" else np.uint8)
        if PACKED[kind] == 4:
            whole = np.stack([whole & 15, whole >> 4], -1).reshape(-1).astype(np.int8) - 8
        whole = whole.reshape(shape[0], -1)
        if kind == "qbint4":
            steps = (np.frombuffer(scale, np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(len(whole), -1)
            step = np.repeat(steps, self.scales[number]["group_size"], 1)
        else:
            step = np.frombuffer(scale, np.float32).reshape(-1, 1)
        return (whole * step).reshape(shape), step.reshape(len(step), *(1,) * (len(shape) - 2), step.shape[1])

    def constants(self) -> Iterator[Constant]:
        """Every float or packed constant; factors of channels are taken back out of what they were folded into."""
        for number, tensor in self.tensors.items():
            if not tensor["constant_buffer_idx"]:
                continue
            name = self.key(tensor["constant_buffer_idx"])
            values, step = self.stored(number)
            factors = self.factors(number, name, values.shape)
            if factors is not None:
                values, step = values * factors, step * factors
            yield Constant(name, values, step, PACKED.get(self.kinds[number], 32))

    def factors(self, number: int, name: str, shape: tuple[int, ...]) -> np.ndarray | None:
        """What the weights of a layer with fixed scales are to be multiplied by to be the model's; None for others."""
        module = name.removesuffix(".weight")
        reader = next((node for _, node in self.makers.values() if node.get("filter_id") == number), None)
        if reader is None or module + RESCALE not in self.named:
            return None
        before: Any = reader["input1_id"]
        while True:
            kind, node = self.makers[before]
            if kind == "XNNDepthwiseConv2d":
                break
            before = node["input_id"]
        enters = self.stored(node["filter_id"])[0].reshape(-1)
        leaves = np.frombuffer(self.named[module + RESCALE], np.float32)
        rows = np.repeat(enters.reshape(-1, shape[-1]), len(leaves) * shape[-1] // len(enters), 0)
        made: np.ndarray = (leaves[:, None] * rows).reshape(shape).astype(np.float32)
        return made

    def in_float(self) -> tuple[bytes, dict[str, np.ndarray]]:
        """The graph's bytes without rounding, and the constants that it reads beside the file's own."""
        same: dict[int, int] = {}
        nodes = []
        for node in self.graph["xnodes"]:
            kind, fields = node["xnode_union"]
            for field, number in fields.items():
                if field.endswith("_id") and field != "output_id":
                    fields[field] = same.get(number, number)
            if kind == "XNNConvert":
                same[fields["output_id"]] = fields["input_id"]
            else:
                nodes.append(node)
        added: dict[str, np.ndarray] = {}
        for value in self.graph["xvalues"]:
            table = value["xvalue_union"][1]
            tensor = table.get("tensor_value", table)
            number = tensor["id_out"]
            if self.kinds[number] in PACKED:
                name = self.key(tensor["constant_buffer_idx"]) + ".float"
                added[name] = np.ascontiguousarray(self.stored(number)[0], np.float32)
                self.graph["constant_data"].append({"offset": 2**64 - 1, "size": added[name].nbytes, "named_key": name})
                tensor["constant_buffer_idx"] = len(self.graph["constant_data"]) - 1
            if self.kinds[number] in (*PACKED, *ROUNDED):
                tensor["datatype"] = "xnn_datatype_fp32"
                value["xvalue_union"] = ("XNNTensorValue", tensor)
        self.graph["xnodes"] = nodes
        return frame_graph(self.graph), added


def _without_rounding(file: ProgramFile, graphs: dict[int, _Graph]) -> bytes:
    """The file's bytes with other graphs: new segments stand behind the old ones."""
    parts = [bytes(file.data[file.base :])]
    end, program = len(parts[0]), file.program

    def place(data: bytes | memoryview) -> int:
        nonlocal end
        start = -(-end // ALIGNMENT) * ALIGNMENT
        parts.extend((b"\0" * (start - end), bytes(data)))
        end = start + len(data)
        program["segments"].append({"offset": start, "size": len(data)})
        return len(program["segments"]) - 1

    moved, added = {}, dict[str, np.ndarray]()
    for number, graph in graphs.items():
        data, more = graph.in_float()
        moved[number] = place(data)
        added |= more
    for name, array in added.items():
        program["named_data"].append({"key": name, "segment_index": place(array.data.cast("B"))})
    for plan in program["execution_plan"]:
        for delegate in plan["delegates"] or []:
            delegate["processed"]["index"] = moved.get(delegate["processed"]["index"], delegate["processed"]["index"])
    return frame_program(program, parts, end)
