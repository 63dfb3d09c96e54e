"""Files that other tools make of one small BERT: each profiles as it is, with inputs that fit its tables."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import clients
import numpy as np
import pytest
import torch
from shared import shared
from tiers import quick
from torch import nn

import edgebert
from edgebert.errors import InputError
from edgebert.runtimes import RUNTIMES, SUFFIXES
from edgebert.runtimes.devices.guest import guest

VOCABULARY, POSITIONS, LENGTH = 100, 64, 16
TARGETS = {suffix: target for target, suffix in SUFFIXES.items()}
pytestmark = pytest.mark.parity


def model() -> nn.Module:
    """As transformers makes it, with ids, mask and types in order."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    config = BertConfig(vocab_size=VOCABULARY, max_position_embeddings=POSITIONS, attn_implementation="eager", **sizes)
    return BertModel(config).eval()


class InOrder(nn.Module):
    """Without names: ids, mask, types and, where they are asked for, positions."""

    def __init__(self) -> None:
        super().__init__()
        self.bert = model()

    def forward(self, *given: torch.Tensor) -> torch.Tensor:
        """Hidden states (1, T, C)."""
        names = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
        found: torch.Tensor = self.bert(**dict(zip(names, given, strict=False))).last_hidden_state
        return found


def example(positions: bool = False) -> tuple[torch.Tensor, ...]:
    """Ids, mask, types, and positions."""
    ids = torch.arange(LENGTH)[None]
    return ids, torch.ones_like(ids), torch.zeros_like(ids), *([ids.clone()] if positions else [])


def litert_torch(folder: Path, positions: bool = False) -> Path:
    import litert_torch

    path = folder / "model.tflite"
    litert_torch.convert(InOrder().eval(), example(positions)).export(str(path))
    return path


def ai_edge_quantizer(folder: Path, recipe: str) -> Path:
    from ai_edge_quantizer import quantizer
    from ai_edge_quantizer import recipe as recipes

    plain = litert_torch(folder)
    work = quantizer.Quantizer(str(plain))
    work.load_quantization_recipe(getattr(recipes, recipe)())
    given = {f"args_{i}": value.numpy().astype(np.int32) for i, value in enumerate(example())}
    seen = work.calibrate({"serving_default": [given]}) if work.need_calibration else None
    plain.write_bytes(bytes(work.quantize(seen).quantized_model))
    return plain


def torch_onnx(folder: Path, dynamo: bool) -> Path:
    path = folder / "model.onnx"
    torch.onnx.export(InOrder().eval(), example(), str(path), dynamo=dynamo, opset_version=18 if dynamo else 17)
    return path


def onnxruntime_dynamic(folder: Path) -> Path:
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(torch_onnx(folder, False), folder / "quantized.onnx")
    return folder / "quantized.onnx"


def onnxruntime_optimizer(folder: Path) -> Path:
    from onnxruntime.transformers import optimizer

    fused = optimizer.optimize_model(str(torch_onnx(folder, False)), "bert", num_heads=4, hidden_size=32, opt_level=0)
    fused.save_model_to_file(str(folder / "fused.onnx"))
    return folder / "fused.onnx"


def executorch(folder: Path, xnnpack: bool) -> Path:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    program = torch.export.export(InOrder().eval(), example())
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()] if xnnpack else [])
    (folder / "model.pte").write_bytes(lowered.to_executorch().buffer)
    return folder / "model.pte"


def optimum(folder: Path) -> Path:
    _saved(folder / "bert")
    command = [clients.PYTHON / "bin/optimum-cli", "export", "onnx", "-m", folder / "bert", "--task",
               "feature-extraction", folder / "out"]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    return folder / "out" / "model.onnx"


def _saved(folder: Path) -> None:
    from transformers import BertTokenizerFast

    model().save_pretrained(folder)  # type: ignore[operator]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(VOCABULARY - 5))]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)


def sklearn_onnx(folder: Path) -> Path:
    """No encoder: a logistic regression over four numbers."""
    made = (
        "import numpy as np, skl2onnx; from sklearn.linear_model import LogisticRegression as L; "
        "x = np.eye(4, dtype=np.float32); "
        "open('model.onnx', 'wb').write(skl2onnx.to_onnx(L().fit(x, [0, 1, 0, 1]), x[:1]).SerializeToString())"
    )
    subprocess.run([clients.PYTHON / "bin/python", "-c", made], cwd=folder, check=True, capture_output=True)
    return folder / "model.onnx"


IDS, MASK, TYPES, PLACES = "ids", "mask", "types", "positions"
# What makes each file, and what its inputs are.
FILES: dict[str, tuple[Callable[[Path], Path], tuple[str, ...]]] = {
    "litert-torch": (litert_torch, (IDS, MASK, TYPES)),
    "litert-torch with positions": (lambda folder: litert_torch(folder, True), (IDS, MASK, TYPES, PLACES)),
    "ai-edge-quantizer dynamic": (lambda folder: ai_edge_quantizer(folder, "dynamic_wi8_afp32"), (IDS, MASK, TYPES)),
    "ai-edge-quantizer weights": (
        lambda folder: ai_edge_quantizer(folder, "weight_only_wi8_afp32"),
        (IDS, MASK, TYPES),
    ),
    "torch.onnx dynamo": (lambda folder: torch_onnx(folder, True), (IDS, MASK, TYPES)),
    "torch.onnx script": (lambda folder: torch_onnx(folder, False), (IDS, MASK, TYPES)),
    "onnxruntime dynamic": (onnxruntime_dynamic, (IDS, MASK, TYPES)),
    "onnxruntime optimizer": (onnxruntime_optimizer, (IDS, MASK, TYPES)),
    "executorch xnnpack": (lambda folder: executorch(folder, True), (IDS, MASK, TYPES)),
    "executorch portable": (lambda folder: executorch(folder, False), (IDS, MASK, TYPES)),
    "optimum": (optimum, (IDS, MASK, TYPES)),
    "sklearn-onnx": (sklearn_onnx, ()),
}
ELSEWHERE = ("optimum", "sklearn-onnx")  # made by tools in an environment of their own


def made(tmp_path_factory: pytest.TempPathFactory, kind: str) -> Path:
    if kind in ELSEWHERE and (reason := clients.missing()):
        pytest.skip(reason)
    found: Path = shared(tmp_path_factory, f"foreign {kind}", FILES[kind][0])
    return found


@pytest.mark.parametrize("kind", quick(FILES, ["litert-torch with positions", "torch.onnx dynamo"]))
def test_a_file_of_another_tool_profiles_with_inputs_that_fit(
    tmp_path_factory: pytest.TempPathFactory, kind: str
) -> None:
    path, roles = made(tmp_path_factory, kind), FILES[kind][1]
    target = TARGETS[path.suffix]
    if missing := RUNTIMES[target].missing():
        pytest.skip(missing)
    (row,) = edgebert.profile(path, lengths=(LENGTH,), runs=3).rows
    assert row.median_ms is not None
    assert row.median_ms > 0
    facts = RUNTIMES[target].facts(path)
    names = [f"input_{i}" if target == "executorch" else spec.name for i, spec in enumerate(facts.inputs)]
    specs = [
        (name, spec.dtype, [max(size, 1) for size in spec.shape])
        for name, spec in zip(names, facts.inputs, strict=True)
    ]
    given = guest.make_inputs(specs, {"length": LENGTH, "runtime": target, "rows": facts.rows})
    assert sorted(map(role, given.values())) == sorted(roles or ["floats"])
    tables = {IDS: VOCABULARY, TYPES: 2, PLACES: POSITIONS}
    assert sorted(facts.rows.values()) == sorted(tables[one] for one in roles if one in tables)


def role(values: Any) -> str:
    """What made-up values are good for."""
    if values.dtype.kind == "f":
        return "floats"
    if (values == 1).all():
        return MASK
    if (values == 0).all():
        return TYPES
    return PLACES if (values.ravel() == np.arange(values.size)).all() else IDS


def test_numbers_beyond_a_table_are_a_line(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    path = made(tmp_path_factory, "torch.onnx dynamo")
    ids, mask, types = (value.numpy() for value in example())
    np.savez(tmp_path / "good.npz", ids=ids, mask=mask, types=types)
    (row,) = edgebert.profile(path, runs=3, inputs=tmp_path / "good.npz").rows
    assert row.flat()["tokens"] == LENGTH
    names = [spec.name for spec in RUNTIMES["onnx"].facts(path).inputs]
    np.savez(tmp_path / "bad.npz", **dict(zip(names, (ids + VOCABULARY, mask, types), strict=True)))
    with pytest.raises(
        InputError, match=f"has numbers from 100 to 115; it is looked up in a table of {VOCABULARY} rows"
    ):
        edgebert.profile(path, runs=3, inputs=tmp_path / "bad.npz")


@pytest.mark.parametrize("content", [b"", b"nothing", b"PK\x03\x04 cut"])
def test_what_is_no_npz_is_a_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "in.npz"
    for told in ("cannot be read as inputs", "cannot be read as inputs"):
        with pytest.raises(InputError, match=told):
            edgebert.profile(tmp_path, inputs=path)
        path.write_bytes(content)
