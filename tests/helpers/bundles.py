"""A bundle as it stands on a disk, without a converter's work: its model file holds nothing."""

import dataclasses
import hashlib
import json
from pathlib import Path

import tiny

from edgebert.answers.reading import Reading
from edgebert.bundle.manifest import FORMAT, SEAL, VERSION, Manifest, describe_files, sealed
from edgebert.gate import golden


def write(folder: Path) -> Path:
    """Write a bundle that `bundle.read` takes: a manifest with its golden answers, and a model file of four bytes."""
    model = tiny.visible("bert", "sequence-classification")
    golden.make(model, None, (8,)).save(folder / "golden.npz")
    (folder / "model.onnx").write_bytes(b"none")
    spec = {"name": "input_ids", "dtype": "int64", "shape": [-1, 8]}
    module = {
        "name": "head.classifier", "type": "Linear", "part": "head", "parameters": 66, "dtype": "float32",
        "bytes_before": 264, "bytes_after": 264,
    }  # fmt: skip
    delegation = {"backend": "XNNPACK", "share": 1.0, "text": "all of it"}
    graph = {"nodes": 9, "ops": {"MatMul": 9}, "weight_bytes": {"float32": 264}, "delegation": delegation}
    Manifest(
        format=FORMAT, version=VERSION, family="bert", source="here", weights_sha256="random, seed 0",
        config=dataclasses.asdict(model.config), parameters=9, task="sequence-classification", target="onnx",
        recipe="fp32", floor="ONNX Runtime 1.17", lengths=[8], dynamic=True, vocab_size=120, pad_id=0,
        padding_invariant=True,
        labels=list(model.config.labels),
        reading=dataclasses.asdict(Reading("softmax")),
        model_file="model.onnx", inputs=[spec], outputs=[spec | {"name": "logits"}],
        files=describe_files(folder), graph=graph, modules=[module], parts={"head": 264}, keep_float=[],
        calibration="", headroom=None, peak_memory_bytes=None, parity={"passed": True}, tools={"onnx": "1"},
        notes=["made by hand"],
    ).write(folder)  # fmt: skip
    return folder


def tflite(folder: Path, model: bytes = b"model" * 5000, **changes: object) -> Path:
    """Write such a bundle for TensorFlow Lite in a new folder, its manifest with these changes."""
    folder.mkdir()
    write(folder)
    (folder / "model.onnx").unlink()
    (folder / "model.tflite").write_bytes(model)
    raw = json.loads((folder / "manifest.json").read_text())
    del raw[SEAL], raw["files"]["model.onnx"]
    raw["files"]["model.tflite"] = {"bytes": len(model), "sha256": hashlib.sha256(model).hexdigest()}
    raw |= {"target": "tflite", "model_file": "model.tflite"} | changes
    (folder / "manifest.json").write_bytes(sealed(raw))
    return folder
