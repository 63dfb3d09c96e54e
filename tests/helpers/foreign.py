"""Small model files that edgebert did not make: other names, other inputs, written with each format's own tools."""

from pathlib import Path
from typing import Any

import numpy as np

SIZE = 64  # width of the matrices, enough for every tile of a kernel


def _weights(rows: int = SIZE) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((rows, SIZE)).astype(np.float32)


def onnx_file(path: Path) -> Path:
    """Rows of a table times a scale: tokens int64 (free, free), scale float32 (free, 1); the table stands beside."""
    import onnx
    from onnx import TensorProto, helper

    table = _weights(32)
    np.save(path.with_name("table.npy"), table)
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "tokens"], ["looked"]),
            helper.make_node("Unsqueeze", ["scale", "axis"], ["factor"]),
            helper.make_node("Mul", ["looked", "factor"], ["rows"]),
        ],
        "foreign",
        [
            helper.make_tensor_value_info("tokens", TensorProto.INT64, ["batch", "time"]),
            helper.make_tensor_value_info("scale", TensorProto.FLOAT, ["batch", 1]),
        ],
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["batch", "time", SIZE])],
        [onnx.numpy_helper.from_array(table, "table"), onnx.numpy_helper.from_array(np.array([2]), "axis")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def endless_onnx(path: Path) -> Path:
    """Adds one to a number in a loop of 2^63 - 1 rounds: a well-formed graph that never answers."""
    import onnx
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Add", ["last", "one"], ["next"]), helper.make_node("Identity", ["going"], ["go_on"])],
        "body",
        [
            value("round", TensorProto.INT64, []),
            value("going", TensorProto.BOOL, []),
            value("last", TensorProto.FLOAT, [1]),
        ],
        [value("go_on", TensorProto.BOOL, []), value("next", TensorProto.FLOAT, [1])],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["rounds", "yes", "x"], ["y"], body=body)],
        "endless",
        [value("x", TensorProto.FLOAT, [1])],
        [value("y", TensorProto.FLOAT, [1])],
        [
            onnx.numpy_helper.from_array(np.array(2**63 - 1), "rounds"),
            onnx.numpy_helper.from_array(np.array(True), "yes"),
            onnx.numpy_helper.from_array(np.ones(1, np.float32), "one"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def onnx_product(path: Path, quantized: bool) -> Path:
    """A matrix product of 64 rows, in float32 or with dynamically quantized int8 factors."""
    import onnx
    from onnx import TensorProto, helper

    weights = _weights().T.copy()
    if quantized:
        constants = {"weights": np.clip(np.rint(weights * 30), -127, 127).astype(np.int8)}
        nodes = [
            helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
            helper.make_node("MatMulInteger", ["q", "weights", "zero"], ["whole"]),
            helper.make_node("Cast", ["whole"], ["y"], to=TensorProto.FLOAT),
        ]
    else:
        constants = {"weights": weights}
        nodes = [helper.make_node("MatMul", ["x", "weights"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [SIZE, SIZE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [SIZE, SIZE])],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def tflite_file(path: Path, signature: bool, quantized: bool = False, rows: int = 1) -> tuple[Path, np.ndarray]:
    """A fully connected layer, float32 (rows, 64) to (rows, 64); gives the path and the weights.

    Args:
        path: of the file.
        signature: with one, named `answer`.
        quantized: int8 weights with a scale a channel, so that the runtime quantizes what comes in.
        rows: of the input.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    weights = _weights()
    scales = np.abs(weights).max(axis=1) / 127
    whole = np.rint(weights / scales[:, None]).astype(np.int8)
    stored: np.ndarray = whole if quantized else weights

    def tensor(name: str, shape: list[int], buffer: int, kind: int) -> Any:
        made = schema.TensorT()
        made.name, made.shape, made.buffer, made.type = name, shape, buffer, kind
        return made

    def buffer(data: bytes | None = None) -> Any:
        made = schema.BufferT()
        made.data = None if data is None else np.frombuffer(data, np.uint8)
        return made

    real = schema.TensorType.FLOAT32
    matrix = tensor("weights", [SIZE, SIZE], 2, schema.TensorType.INT8 if quantized else real)
    if quantized:
        matrix.quantization = schema.QuantizationParametersT()
        matrix.quantization.scale = scales.astype(np.float32)
        matrix.quantization.zeroPoint = np.zeros(SIZE, np.int64)
    layer = schema.OperatorT()
    layer.inputs, layer.outputs = [0, 1, -1], [2]
    layer.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    layer.builtinOptions = schema.FullyConnectedOptionsT()
    layer.builtinOptions.asymmetricQuantizeInputs = quantized
    graph = schema.SubGraphT()
    graph.tensors = [tensor("x", [rows, SIZE], 1, real), matrix, tensor("y", [rows, SIZE], 3, real)]
    graph.inputs, graph.outputs, graph.operators = [0], [2], [layer]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    code.version = 5 if quantized else 1
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs = 3, [code], [graph]
    model.buffers = [buffer(), buffer(), buffer(stored.tobytes()), buffer()]
    if signature:
        model.signatureDefs = [_signature(schema)]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path, (whole * scales[:, None]).astype(np.float32) if quantized else weights


def _signature(schema: Any) -> Any:
    made = schema.SignatureDefT()
    made.signatureKey, made.subgraphIndex = "answer", 0
    for side, name, index in (("inputs", "x", 0), ("outputs", "y", 2)):
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name, index
        setattr(made, side, [entry])
    return made


def pte_file(path: Path, method: str) -> Path:
    """A lookup and two linear layers in XNNPACK: ids int32 (1, 16), scale float32 (1, 1); an answer stands beside."""
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from torch import nn

    class Foreign(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.up, self.down = nn.Embedding(50, SIZE), nn.Linear(SIZE, SIZE), nn.Linear(SIZE, 3)

        def forward(self, ids: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
            return self.down(torch.relu(self.up(self.table(ids)))) * scale  # type: ignore[no-any-return]

    torch.manual_seed(0)
    model = Foreign().eval()
    inputs = (torch.arange(16, dtype=torch.int32).reshape(1, 16), torch.full((1, 1), 2.0))
    with torch.no_grad():
        np.save(path.with_name("expected.npy"), model(*inputs).numpy())
    program = to_edge_transform_and_lower(
        {method: torch.export.export(model, inputs)}, partitioner=[XnnpackPartitioner()]
    )
    path.write_bytes(program.to_executorch().buffer)
    return path
