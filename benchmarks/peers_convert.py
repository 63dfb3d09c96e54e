"""One file made the way a user of each ecosystem makes it: transformers' module, converted with the tools as they come.

    python benchmarks/peers_convert.py CHECKPOINT MAKER PRECISION FOLDER

`peers.py` calls it for every file, in a process of its own: a converter that crashes ends no more than its file. The
float file of a maker is made first and stays beside the others, which all but ExecuTorch's are made from.
"""

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export_speed import LENGTH, OWN_WAYS

FILES = {"fp32": "model", "int8": "int8", "fp16": "fp16"}  # precision to the file's name, less its ending


@dataclass(frozen=True, slots=True)
class Maker:
    """A way to a model file.

    Attributes:
        runtime: that the file is for.
        ending: of the file's name.
        precisions: that the maker has.
        make: takes the checkpoint, the precision and the folder to write into.
        beside: a folder of the work folder that has packages of the maker's own; empty where it has none.
        command: what installs them there, with `{folder}` for it.
    """

    runtime: str
    ending: str
    precisions: tuple[str, ...]
    make: Callable[[Path, str, Path], None]
    beside: str = ""
    command: str = ""


def convert(checkpoint: Path, runtime: str, recipe: str, folder: Path) -> None:
    """Load a checkpoint as `AutoModel` gives it, and convert it with `export_speed`'s way for the runtime."""
    import torch
    import transformers

    model: Any = transformers.AutoModel.from_pretrained(checkpoint).eval()
    # Three tensors of their own: of one given twice, the exported program would know no two inputs.
    inputs = tuple(torch.full((1, LENGTH), value, dtype=torch.long) for value in (1, 1, 0))
    if runtime == "executorch" and recipe != "fp32":
        model = masked_outside(model)
    with torch.no_grad():
        OWN_WAYS[runtime](model, inputs, recipe, folder)


def masked_outside(model: Any) -> Any:
    """The module with its mask made before it, in four axes, which transformers then takes as it is.

    Transformers 5 makes the mask with index arithmetic, whose integers torchao's `prepare_pt2e` turns to floats: as it
    comes no model gets through ("tensors used as indices must be long"). This is the least that a user must do.
    """
    import torch

    class Masked(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> Any:
            bias = (1.0 - mask[:, None, None, :].float()) * torch.finfo(torch.float32).min
            return self.model(ids, bias, types)

    return Masked().eval()


def torch_onnx(checkpoint: Path, precision: str, folder: Path) -> None:
    """`torch.onnx.export`, then onnxruntime's `quantize_dynamic` with its defaults."""
    if precision == "fp32":
        convert(checkpoint, "onnx", "fp32", folder)
    else:
        from onnxruntime.quantization import quantize_dynamic

        quantize_dynamic(folder / "model.onnx", folder / "int8.onnx")


def litert_torch(checkpoint: Path, precision: str, folder: Path) -> None:
    """`litert_torch.convert`, then ai-edge-quantizer: its dynamic recipe, or weights cast to half precision."""
    if precision == "fp32":
        convert(checkpoint, "tflite", "fp32", folder)
        return
    from ai_edge_quantizer import algorithm_manager, qtyping, quantizer, recipe

    work = quantizer.Quantizer(str(folder / "model.tflite"))
    if precision == "int8":
        work.load_quantization_recipe(recipe.dynamic_wi8_afp32())
    else:
        half = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
        work.update_quantization_recipe(
            regex=".*", operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
            op_config=qtyping.OpQuantizationConfig(
                weight_tensor_config=half, compute_precision=qtyping.ComputePrecision.FLOAT, explicit_dequantize=True
            ),
            algorithm_key=algorithm_manager.AlgorithmName.FLOAT_CASTING,
        )  # fmt: skip
    work.quantize().export_model(str(folder / f"{FILES[precision]}.tflite"))


def litert_torch_half(checkpoint: Path, precision: str, folder: Path) -> None:
    """`litert_torch`'s file, with the metadata by which LiteRT lets XNNPACK compute in half precision."""
    litert_torch(checkpoint, precision, folder)
    if precision == "int8":
        import flatbuffers
        import numpy as np
        from ai_edge_litert import schema_py_generated as schema

        path = folder / "int8.tflite"
        content = path.read_bytes()
        model = schema.ModelT.InitFromPackedBuf(content, 0)
        for one in model.buffers:  # those behind the flatbuffer come into it
            if one.offset > 1:
                one.data, one.offset, one.size = np.frombuffer(content, np.uint8, one.size, one.offset), 0, 0
        text = schema.BufferT()
        text.data = b"fp16accfp16"
        entry = schema.MetadataT()
        entry.name, entry.buffer = b"reduced_precision_support", len(model.buffers)
        model.buffers, model.metadata = [*model.buffers, text], [*(model.metadata or []), entry]
        builder = flatbuffers.Builder()
        builder.Finish(model.Pack(builder), b"TFL3")
        path.write_bytes(bytes(builder.Output()))


def torch_onnx_optimized(checkpoint: Path, precision: str, folder: Path) -> None:
    """`torch.onnx.export`, onnxruntime's own optimizer for transformers, then `quantize_dynamic`."""
    if precision == "fp32":
        import json

        from onnxruntime.transformers.optimizer import optimize_model

        convert(checkpoint, "onnx", "fp32", folder)
        config = json.loads((checkpoint / "config.json").read_text())
        path = str(folder / "model.onnx")
        whole = optimize_model(
            path, "bert", num_heads=config["num_attention_heads"], hidden_size=config["hidden_size"], opt_level=1
        )
        whole.save_model_to_file(path)
    else:
        torch_onnx(checkpoint, precision, folder)


def matmul_nbits(checkpoint: Path, precision: str, folder: Path) -> None:
    """`torch.onnx.export`, then onnxruntime's MatMulNBits: weights of 8 bits in blocks, inputs rounded as they come."""
    if precision == "fp32":
        convert(checkpoint, "onnx", "fp32", folder)
    else:
        import onnx
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

        work = MatMulNBitsQuantizer(
            onnx.load(folder / "model.onnx"), bits=8, block_size=128, is_symmetric=True, accuracy_level=4
        )
        work.process()
        work.model.save_model_to_file(str(folder / "int8.onnx"))


def executorch(checkpoint: Path, precision: str, folder: Path) -> None:
    """XNNPACK's partitioner, for int8 after XNNPACKQuantizer: dynamic, a scale for each channel."""
    with tempfile.TemporaryDirectory(dir=folder) as made:
        convert(checkpoint, "executorch", "fp32" if precision == "fp32" else "w8a8-dynamic", Path(made))
        Path(made, "model.pte").rename(folder / f"{FILES[precision]}.pte")


def optimum_onnx(checkpoint: Path, precision: str, folder: Path) -> None:
    """Optimum's exporter for hidden states, then its quantizer with its settings for arm64."""
    if precision == "fp32":
        from optimum.exporters.onnx import main_export

        main_export(str(checkpoint), folder, task="feature-extraction", do_validation=False)
    else:
        from optimum.onnxruntime import ORTQuantizer
        from optimum.onnxruntime.configuration import AutoQuantizationConfig

        settings = AutoQuantizationConfig.arm64(is_static=False, per_channel=False)
        with tempfile.TemporaryDirectory(dir=folder) as made:
            ORTQuantizer.from_pretrained(folder, file_name="model.onnx").quantize(settings, made)
            Path(made, "model_quantized.onnx").rename(folder / "int8.onnx")


# optimum-onnx wants an older transformers than the tests do, so it lives in a folder of its own.
OPTIMUM = (
    "pip install --no-deps --target {folder} optimum-onnx optimum 'transformers<4.58' 'tokenizers<0.23' "
    "'huggingface_hub<1'"
)
MAKERS = {
    "litert-torch": Maker("tflite", ".tflite", ("fp32", "int8", "fp16"), litert_torch),
    "litert-torch, half": Maker("tflite", ".tflite", ("int8",), litert_torch_half),
    "torch.onnx": Maker("onnx", ".onnx", ("fp32", "int8"), torch_onnx),
    "torch.onnx, optimized": Maker("onnx", ".onnx", ("int8",), torch_onnx_optimized),
    "MatMulNBits": Maker("onnx", ".onnx", ("int8",), matmul_nbits),
    "optimum-onnx": Maker("onnx", ".onnx", ("fp32", "int8"), optimum_onnx, "optimum", OPTIMUM),
    "executorch": Maker("executorch", ".pte", ("fp32", "int8"), executorch),
}


if __name__ == "__main__":
    given, maker, wanted, out = sys.argv[1:]
    MAKERS[maker].make(Path(given), wanted, Path(out))
