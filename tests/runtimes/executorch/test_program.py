"""ExecuTorch's files as bytes: damage in them, other makers' files, and the numbers and tables they are made of."""

import contextlib
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny import batch, visible

from edgebert.errors import InputError
from edgebert.exporters.executorch import export as exporter
from edgebert.exporters.executorch import weights as numbers
from edgebert.quantization.recipes import RECIPES
from edgebert.runtimes.executorch import flatbuffer, program
from edgebert.runtimes.executorch import session as runtime
from edgebert.runtimes.session import WHOLE, Spec

pytestmark = pytest.mark.skipif(exporter.missing() is not None, reason=f"needs {exporter.missing()}")


@pytest.mark.parity
def test_damaged_files_are_refused(tmp_path: Path) -> None:
    bad = tmp_path / "bad.pte"
    exporter.export(visible("bert", "masked-lm"), RECIPES["w8a8-dynamic"], (16,), bad)
    content = bad.read_bytes()
    for cut in (0, 4, 8, 39, 100, len(content) // 2, len(content) - 1):
        bad.write_bytes(content[:cut])
        with pytest.raises(InputError, match=r"not a \.pte file|damaged") as error:
            runtime.open(bad)
        assert "\n" not in str(error.value)
    generator = random.Random(0)
    for _ in range(200):
        flipped = bytearray(content)
        flipped[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        bad.write_bytes(flipped)
        with pytest.raises(InputError):
            runtime.open(bad)
    bad.write_bytes(content + b"\0")
    with pytest.raises(InputError, match="seal"):
        runtime.open(bad)


@pytest.mark.parity
def test_damage_below_an_unsealed_surface_is_an_error_or_harmless(foreign: Path, tmp_path: Path) -> None:
    """A file of another maker has no seal: every offset and length in it is checked as it is read, none by C++."""
    content = bytearray(foreign.read_bytes())
    bad, generator = tmp_path / "bad.pte", random.Random(1)
    for _ in range(300):
        flipped = bytearray(content)
        flipped[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        bad.write_bytes(flipped)
        with contextlib.suppress(InputError):
            session = runtime.open(bad)
            session.facts()
            with pytest.raises(InputError, match="only a file that edgebert made"):
                session.run(batch(2))
    refused = 0
    for at in range(0, 600, 4):
        wide = bytearray(content)
        wide[at : at + 4] = b"\xff\xff\xff\x7f"
        bad.write_bytes(wide)
        try:
            runtime.open(bad).facts()
        except InputError:
            refused += 1
    assert refused > 50


@pytest.fixture(scope="session")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A .pte file by ExecuTorch's own converter, with another method name, other inputs, and a norm left out."""
    path = tmp_path_factory.mktemp("foreign") / "foreign.pte"
    code = f"""
import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.LayerNorm(3), torch.nn.Linear(3, 5)).eval()
program = {{"encode": torch.export.export(module, (torch.zeros(2, 4),))}}
lowered = to_edge_transform_and_lower(program, partitioner={{"encode": [XnnpackPartitioner()]}}).to_executorch()
open({str(path)!r}, "wb").write(lowered.buffer)
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    return path


@pytest.mark.parity
def test_a_foreign_file_is_told_of_but_not_run(foreign: Path) -> None:
    session = runtime.open(foreign)
    facts = session.facts()
    assert facts.inputs == (Spec("input_0", "float32", (2, 4)),)
    assert facts.outputs[0].shape == (2, 5)
    assert facts.weight_bytes == {"float32": 4 * (12 + 3 + 3 + 3 + 15 + 5)}
    assert facts.ops["FullyConnected"] == 2
    told = facts.delegation
    assert told is not None
    assert told.rest == {"aten::native_layer_norm": 1}
    assert (told.taken_macs, told.macs) == (2 * (12 + 15), 2 * (12 + 15))
    with pytest.raises(InputError, match=r"takes input_0 float32 \(2, 4\); only a file that edgebert made"):
        session.run(batch(2))


def test_other_formats_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pte"
    with pytest.raises(InputError, match="cannot be read"):
        runtime.open(path)
    path.write_bytes(b"\x08\x07\x12\x07pytorch")
    with pytest.raises(InputError, match=r"not a \.pte file"):
        runtime.open(path)
    path.write_bytes(b"\x1c\x00\x00\x00ET12" + bytes(100))
    with pytest.raises(InputError, match="damaged"):
        runtime.open(path)


def test_flatbuffers_come_back_as_they_were_written() -> None:
    schema = flatbuffer.program_schema()
    values = [{"val": ("String", {"string_val": "é"})}, {"val": ("IntList", {"items": np.array([2**40, -1])})}]
    plan = {"name": "m", "values": values, "non_const_buffer_sizes": np.array([0, 7]), "outputs": np.array([1])}
    data = flatbuffer.write(schema, {"version": 3, "execution_plan": [plan], "named_data": []})
    back = flatbuffer.read(schema, memoryview(data))
    assert back["version"] == 3
    (read,) = back["execution_plan"]
    assert read["values"][0]["val"] == ("String", {"string_val": "é"})
    assert read["values"][1]["val"][1]["items"].tolist() == [2**40, -1]
    assert read["non_const_buffer_sizes"].tolist() == [0, 7]
    assert (read["chains"], back["named_data"], back["segments"]) == (None, [], None)
    for cut in range(0, len(data), 3):
        with contextlib.suppress(flatbuffer.Damage):
            flatbuffer.read(schema, memoryview(data[:cut]))


def test_quantized_numbers_on_a_grid_stay_there() -> None:
    rng = np.random.default_rng(0)
    steps = rng.integers(-127, 128, (6, 64))
    steps[:, 5] = 127
    grid = steps * np.linspace(0.01, 0.3, 6)[:, None]
    assert np.array_equal(numbers.quantize("w", grid.astype(np.float32), 8).data, steps)
    assert numbers.quantize("w", np.zeros((2, 4), np.float32), 8).data.tolist() == [[0] * 4] * 2
    small = rng.integers(-7, 8, (6, 64))
    small[:, ::32] = 7
    halves = numbers.from_bfloat16(numbers.to_bfloat16(rng.uniform(0.01, 0.1, (6, 2))))
    stored = numbers.quantize("w", (small * np.repeat(halves, 32, 1)).astype(np.float32), 4)
    assert (stored.kind, stored.block) == ("qbint4", 32)
    assert np.array_equal(stored.data & 15, small[:, ::2] + 8)
    assert np.array_equal(stored.data >> 4, small[:, 1::2] + 8)
    assert np.array_equal(numbers.from_bfloat16(stored.scale), halves)
    assert numbers.quantize("w", rng.normal(size=(3, 10)).astype(np.float32), 4).kind == "qcint4"
    assert numbers.quantize("w", rng.normal(size=(3, 9)).astype(np.float32), 4).kind == "qcint8"


def test_the_seal_is_over_all_bytes(tmp_path: Path) -> None:
    exporter.export(visible("bert", "token-classification"), RECIPES["fp32"], (4,), tmp_path / "m.pte")
    content = (tmp_path / "m.pte").read_bytes()
    assert content[-48:-32] == program.SEAL
    assert program.load(tmp_path / "m.pte")[1].seal == WHOLE
