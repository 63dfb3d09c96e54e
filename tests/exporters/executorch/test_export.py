"""ExecuTorch: the file, read back from disk by its own runtime, says what torch says and holds what it claims."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from shared import shared
from tiers import quick
from tiny import expected, samples, sqnr, visible

import edgebert
from edgebert import lowering
from edgebert.artifact import Artifact
from edgebert.checkpoints.checkpoint import Checkpoint
from edgebert.errors import ConversionFailed, InputError, Unsupported
from edgebert.exporters.executorch import export as exporter
from edgebert.exporters.executorch import weights as numbers
from edgebert.exporters.executorch.fx_rewrites import keep_groups_apart
from edgebert.gate import golden
from edgebert.models import MODELS, Model
from edgebert.models.signature import INPUTS
from edgebert.quantization.recipes import RECIPES, Recipe
from edgebert.runtimes.devices.guest.guest import machine
from edgebert.runtimes.executorch import program
from edgebert.runtimes.executorch import session as runtime
from edgebert.runtimes.session import Spec

pytestmark = pytest.mark.skipif(exporter.missing() is not None, reason=f"needs {exporter.missing()}")

LENGTHS = (8, 16)
# Together they hold every head, a pooled and an unpooled base model's parts, a tied decoder and a causal mask.
CASES = [
    ("squeezebert", "base"),
    ("squeezebert", "question-answering"),
    ("convbert", "multiple-choice"),
    ("convbert", "sequence-classification"),
    ("rembert", "causal-lm"),
    ("rembert", "token-classification"),
    ("bert", "masked-lm"),
]
QUANTIZED = [CASES[1], CASES[2], CASES[4], CASES[6]]
FLOOR = {"w8a8-dynamic": 24, "w8a8-static": 14, "w4a8-dynamic": 10}  # dB; 30 to 43, 14.5 to 40 and 13 to 25 seen


def batch(tokens: int, seed: int = 0) -> dict[str, np.ndarray]:
    """One scale for all of an input is set by whole texts: none here has a single token."""
    return tiny.batch(tokens, seed, max(tokens // 3, 1))


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str, str], tuple[Model, Artifact]]:
    """Export a case once for all tests that ask for it."""

    def get(family: str, task: str, recipe: str) -> tuple[Model, Artifact]:
        model, how = visible(family, task), RECIPES[recipe]

        def make(folder: Path) -> Artifact:
            return exporter.export(model, how, LENGTHS, folder / "model.pte", samples=samples())

        return model, shared(tmp_path_factory, f"executorch-{family}-{task}-{recipe}", make)

    return get


@pytest.mark.parity
@pytest.mark.parametrize(("family", "task"), CASES)
def test_fp32_says_what_torch_says(exported, family: str, task: str, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    model, artifact = exported(family, task, "fp32")
    session = runtime.open(artifact.path)
    assert artifact.lengths == LENGTHS
    assert artifact.dynamic
    worst = 0.0
    for tokens in (16, 11, 1, 8):
        inputs = batch(tokens)
        want, got = expected(model, inputs), session.run(inputs)
        assert got.keys() == want.keys()
        for name, value in want.items():
            assert got[name].dtype == np.float32
            assert got[name].shape == value.shape
            worst = max(worst, float(np.abs(got[name] - value).max()))
    # A table that is tied to the decoder too stands in the file once, and so do the weights of all lengths.
    floats = sum(p.numel() for p in model.parameters())
    extra = sum(w.bytes for w in session.facts().weights if w.name not in artifact.weights and "layers" not in w.name)
    assert session.facts().weight_bytes["float32"] <= 4 * floats + extra
    session.close()
    assert "".join(capfd.readouterr()) == ""
    print(f"max abs {worst:.1e}")
    assert worst < 1e-4  # 8e-7 to 6e-6 seen


@pytest.mark.parity
@pytest.mark.parametrize("recipe", FLOOR)
@pytest.mark.parametrize(("family", "task"), quick(QUANTIZED, QUANTIZED[:2]))
def test_quantized_files_are_integers_and_close(exported, family: str, task: str, recipe: str) -> None:
    model, artifact = exported(family, task, recipe)
    session = runtime.open(artifact.path)
    noise = []
    for tokens in (16, 7):
        inputs = batch(tokens, seed=9)
        want, got = expected(model, inputs), session.run(inputs)
        noise += [sqnr(want[name], got[name]) for name in want]
    print(f"SQNR {min(noise):.1f} dB")
    assert min(noise) > FLOOR[recipe]

    facts = session.facts()
    stored = {weight.name: weight for weight in facts.weights}
    matrices = {
        name for name, p in model.named_parameters() if p.dim() > 1 and p.shape[1] > 1 and "depthwise" not in name
    }
    for name in matrices:
        kind = artifact.weights[name].dtype
        table = "embeddings" in name
        assert kind == ("int4" if recipe.startswith("w4") and not table else "int8"), name
    floats = [w for w in stored.values() if w.dtype == "float32"]
    assert all(
        len([size for size in w.shape if size > 1]) <= 1 or "depthwise" in w.name or "kernel" in w.name for w in floats
    )
    session.close()


@pytest.mark.parity
@pytest.mark.parametrize(("family", "task"), [CASES[1], CASES[2]])
def test_grouped_layers_and_tables_are_int8(exported, family: str, task: str) -> None:
    _, artifact = exported(family, task, "w8a8-dynamic")
    facts = runtime.open(artifact.path).facts()
    stored = {weight.name: weight for weight in facts.weights}
    parts = [weight for name, weight in stored.items() if ".parts." in name and name.endswith("weight")]
    groups = 4 if family == "squeezebert" else 2
    assert len(parts) == 2 * groups * (5 if family == "squeezebert" else 2)
    assert {weight.dtype for weight in parts} == {"int8"}
    word = stored["encoder.embeddings.word.weight"]
    assert (word.dtype, word.shape, word.bytes) == ("int8", (120, word.shape[1]), 120 * (word.shape[1] + 4))
    static = runtime.open(exported(family, task, "w8a8-static")[1].path).facts()
    convolutions = [weight for weight in static.weights if weight.name.endswith("conv.weight")]
    assert len(convolutions) == len(parts) // groups
    assert {weight.dtype for weight in convolutions} == {"int8"}


@pytest.mark.parity
def test_a_tied_table_is_stored_once(exported) -> None:
    for recipe, dtype, item in (("fp32", "float32", 4), ("w8a8-dynamic", "int8", 1), ("w4a8-dynamic", "int8", 1)):
        model, artifact = exported("bert", "masked-lm", recipe)
        assert model.tied
        stored = [w for w in runtime.open(artifact.path).facts().weights if w.shape == (120, 32)]
        assert [(w.name, w.dtype) for w in stored] == [("encoder.embeddings.word.weight", dtype)]
        content, table = artifact.path.read_bytes(), model.encoder.embeddings.word.weight.detach().numpy()
        kept = table if item == 4 else numbers.quantize("", table, 8).data
        assert content.count(kept.tobytes()) == 1


@pytest.mark.parity
@pytest.mark.parametrize("recipe", ["fp32", *FLOOR])
def test_weights_told_are_weights_stored(exported, recipe: str) -> None:
    for family, task in QUANTIZED:
        model, artifact = exported(family, task, recipe)
        facts = runtime.open(artifact.path).facts()
        told: dict[str, int] = {}
        for stored in artifact.weights.values():
            told[stored.dtype] = told.get(stored.dtype, 0) + stored.bytes
        assert set(artifact.weights) == {name for name, _ in model.named_parameters()}
        for dtype in {"int8", "int4"} & set(told):
            assert facts.weight_bytes[dtype] == told[dtype]
        extra = {
            w.name: w.bytes for w in facts.weights if not w.name.startswith(("encoder", "head")) or "shift" in w.name
        }
        extra |= {w.name: w.bytes for w in facts.weights if w.name.endswith(("smooth", "rescale"))}
        assert facts.weight_bytes["float32"] == told["float32"] + sum(extra.values())
    if recipe != "fp32":
        plain = exported(family, task, "fp32")[1].path.stat().st_size
        assert artifact.path.stat().st_size < plain


@pytest.mark.parity
@pytest.mark.parametrize(("family", "task"), [*QUANTIZED, ("convbert", "sequence-classification")])
def test_half_numbers_between_products_say_the_same(
    exported, family: str, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The method for ARM cores with half arithmetic, on whatever this processor has for it."""
    model, artifact = exported(family, task, "w8a8-dynamic")
    float_session = runtime.open(artifact.path)
    monkeypatch.setattr(runtime, "machine", lambda: {"features": "fp asimd asimdhp"})
    session = runtime.open(artifact.path)
    assert session._form == "forward_half"
    for tokens in (16, 7, 1):
        inputs = batch(tokens, seed=9)
        try:
            got = session.run(inputs)
        except InputError as error:
            pytest.skip(f"this processor has no half arithmetic: {error}")
        for name, want in expected(model, inputs).items():
            assert sqnr(want, got[name]) > FLOOR["w8a8-dynamic"]
    assert float_session._form == ("forward_half" if "asimdhp" in machine().get("features", "") else "forward")


@pytest.mark.parity
def test_only_bytes_with_scales_found_at_run_time_have_a_half_method(exported) -> None:
    for recipe in ("fp32", *FLOOR):
        methods = program.load(exported("bert", "masked-lm", recipe)[1].path)[1].methods
        assert methods == (("forward", "forward_half") if recipe == "w8a8-dynamic" else ("forward",))


@pytest.mark.parity
def test_kept_modules_stay_float(tmp_path: Path) -> None:
    model = visible("squeezebert", "sequence-classification")
    patterns = ("head.classifier", "encoder.layers.0", "encoder.embeddings.word")
    for recipe in ("w8a8-dynamic", "w8a8-static"):
        path = tmp_path / f"{recipe}.pte"
        artifact = exporter.export(model, RECIPES[recipe], (16,), path, keep_float=patterns, samples=samples())
        session = runtime.open(path)
        assert {w.dtype for w in session.facts().weights if w.name.startswith(patterns)} == {"float32"}
        assert artifact.weights["encoder.layers.0.up.weight"].dtype == "float32"
        assert artifact.weights["encoder.layers.1.up.weight"].dtype != "float32"
        inputs = batch(9)
        assert sqnr(expected(model, inputs)["logits"], session.run(inputs)["logits"]) > FLOOR[recipe]
        session.close()


@pytest.mark.parity
def test_facts_tell_what_stands_in_the_file(exported) -> None:
    session = runtime.open(exported("squeezebert", "question-answering", "w8a8-dynamic")[1].path)
    facts = session.facts()
    assert facts.runtime.startswith("executorch 1.")
    assert facts.inputs == tuple(Spec(name, "int32", (1, 16)) for name in INPUTS)
    assert facts.outputs == tuple(Spec(name, "float32", (1, 16)) for name in ("start_logits", "end_logits"))
    assert facts.lengths == ()
    assert facts.nodes == sum(facts.ops.values())
    assert facts.metadata["recipe"] == "w8a8-dynamic"
    assert facts.metadata["get_vocab_size"] == "120"
    told = facts.delegation
    assert told is not None
    assert (told.taken, told.nodes) == (facts.nodes - sum(told.rest.values()), facts.nodes)
    # Five grouped projections and one plain a layer, the span, two products of heads; two means and a product a norm.
    layer = 16 * (3 * 32 * 32 // 4 + 32 * 32 + 2 * 32 * 64 // 4) + 2 * 16 * 16 * 32
    assert told.macs == told.taken_macs == 2 * layer + 16 * 32 * 2 + (1 + 2 * 2) * 3 * 16 * 32 + 2 * 16
    assert told.share == 1.0
    assert told.rest == {
        "dim_order_ops::_to_dim_order_copy": 3,
        "quantized_decomposed::embedding_byte": 3,
        "aten::sym_size": 1,
        "aten::slice_copy": 1,
    }
    assert set(told.reasons) == set(told.rest)
    # One graph: six linear layers or four parts of one, shared slices and scales for query, key and value.
    assert facts.ops["FullyConnected"] == 2 * (5 * 4 + 1) + 1 + 2 * 5
    assert facts.ops["StaticTranspose"] == 2 * 4
    session.close()


@pytest.mark.parity
def test_ids_outside_their_tables_are_refused(exported) -> None:
    for recipe in ("fp32", "w8a8-dynamic"):
        session = runtime.open(exported("bert", "masked-lm", recipe)[1].path)
        for name, wrong in (("input_ids", 120), ("input_ids", -1), ("token_type_ids", 2)):
            inputs = batch(8)
            inputs[name][1, 3] = wrong
            with pytest.raises(
                InputError, match=f"{name} from .* they must be from 0 to {119 if 'input' in name else 1}"
            ):
                session.run(inputs)
        with pytest.raises(InputError, match="17 tokens"):
            session.run(batch(17))
        assert session.run(batch(8))["logits"].shape == (4, 8, 120), "a refused input leaves the session usable"


@pytest.mark.parity
def test_the_file_is_mapped_and_must_not_change_before_it_is(exported, tmp_path: Path) -> None:
    """Weights that are read into memory instead would be the process' own, twice: see ExecutorchSession."""
    path = tmp_path / "m.pte"
    path.write_bytes(exported("bert", "masked-lm", "w8a8-dynamic")[1].path.read_bytes())
    session = runtime.open(path)
    session.run(batch(8))
    maps = Path("/proc/self/maps")
    if maps.is_file():  # elsewhere than on Linux nothing tells
        assert f"{path.resolve()}\n" in maps.read_text()
        session.close()
        assert f"{path.resolve()}\n" not in maps.read_text()
    waiting = runtime.open(path)
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(InputError, match=r"m\.pte: it has changed since it was opened"):
        waiting.run(batch(8))


@pytest.mark.parity
@pytest.mark.parametrize("groups", [1, 4])
def test_a_family_that_cuts_tokens_has_a_method_for_each_length(groups: int, tmp_path: Path) -> None:
    """DeBERTa, here with the convolution of the large ones."""
    model = visible("deberta-v2", "token-classification", conv_kernel_size=3, conv_groups=groups)
    both, one = tmp_path / "both.pte", tmp_path / "one.pte"
    artifact = exporter.export(model, RECIPES["w8a8-dynamic"], (8, 16), both)
    exporter.export(model, RECIPES["w8a8-dynamic"], (16,), one)
    session = runtime.open(both)
    assert (artifact.dynamic, session.facts().lengths) == (False, (8, 16))
    assert program.load(both)[1].methods == ("forward", "forward_half", "forward_8", "forward_half_8")
    # What both lengths read stands there once.
    assert sum(weight.bytes for weight in session.facts().weights) == sum(
        weight.bytes for weight in runtime.open(one).facts().weights
    )
    for tokens in (3, 8, 9, 16):
        inputs = batch(tokens) | {"token_type_ids": np.zeros((4, tokens), np.int32)}
        assert sqnr(expected(model, inputs)["logits"], session.run(inputs)["logits"]) > 24  # 34 seen
    for note in ("x", "0,8", "8,", "9" * 5000):  # of another maker's file
        assert replace(session._contents, metadata={"fixed_lengths": note}).fixed == ()
    with pytest.raises(InputError, match="17 tokens"):
        session.run(batch(17) | {"token_type_ids": np.zeros((4, 17), np.int32)})


@pytest.mark.parity
@pytest.mark.parametrize("recipe", ["fp32", "w8a8-dynamic"])
def test_long_texts_are_answered_in_blocks(recipe: str, tmp_path: Path) -> None:
    """ModernBERT's, of 16 tokens here; the last block is filled up inside the file, whose other methods take all."""
    model = visible("modernbert", "token-classification", max_position_embeddings=300)
    artifact = exporter.export(model, RECIPES[recipe], (170,), tmp_path / "m.pte")
    session = runtime.open(tmp_path / "m.pte")
    methods, forms = session._contents.methods, ("forward", "forward_half")[: 1 + (recipe != "fp32")]
    assert methods == (*forms, *(f"{form}_long" for form in forms))
    assert "forward_long is quicker for 128 to 160 tokens" in artifact.notes
    assert session._contents.method_for("forward", 127) == session._contents.method_for("forward", 161) == "forward"
    for session._form in forms:
        for tokens in (1, 127, 128, 129, 143, 144, 160, 161, 170):
            inputs = batch(tokens) | {"token_type_ids": np.zeros((4, tokens), np.int32)}
            assert (session._contents.method_for("forward", tokens) == "forward_long") == (128 <= tokens <= 160)
            told, want = session.run(inputs)["logits"], expected(model, inputs)["logits"]
            kept = inputs["attention_mask"] == 1
            assert told.shape == want.shape
            assert sqnr(want[kept], told[kept]) > (100 if recipe == "fp32" else 24)  # 120 and 29 seen
    # One copy of the weights, which a file for shorter texts has too.
    exporter.export(model, RECIPES[recipe], (120,), tmp_path / "short.pte")
    short = runtime.open(tmp_path / "short.pte")
    assert short._contents.methods == forms
    stored = [
        sorted(
            (entry["key"], len(file.segments[entry["segment_index"]]))
            for entry in file.program["named_data"]
            if entry["key"].endswith(".weight")
        )
        for file in (
            program.ProgramFile(memoryview((tmp_path / f"{name}.pte").read_bytes())) for name in ("m", "short")
        )
    ]
    assert stored[0] == stored[1] != []
    for note in ("x", "0,8", "128", ",", "9" * 5000):  # of another maker's file
        odd = replace(session._contents, metadata={**session._contents.metadata, "long_texts": note})
        assert odd.method_for("forward", 130) == "forward"


@pytest.mark.parity
@pytest.mark.parametrize(("lengths", "asked"), [((128,), [48, 128]), ((16, 200), [16, 200]), ((100,), [100])])
def test_the_gate_asks_short_and_long_texts(lengths: tuple[int, ...], asked: list[int], tmp_path: Path) -> None:
    model = visible("modernbert", "token-classification", max_position_embeddings=300)
    source = Checkpoint(model, None, "here", {}, "random, seed 0", ())
    made = edgebert.export(source, target="executorch", recipe="fp32", lengths=lengths, out=tmp_path / "out")
    assert made.report is not None
    assert made.report.passed
    batches = golden.load(tmp_path / "out" / "golden.npz").batches
    assert [batch.inputs["input_ids"].shape[1] for batch in batches] == asked


@pytest.mark.parametrize("family", MODELS)
def test_lowering_is_exact_and_leaves_the_original(family: str) -> None:
    # ConvBERT's multiple choice reads the last token.
    model = visible(family, "multiple-choice" if "multiple-choice" in MODELS[family].heads else "token-classification")
    before = copy.deepcopy(model)
    inputs = [torch.from_numpy(value) for value in batch(11).values()]
    lowered = lowering.avoid_token_slices(lowering.tokens_before_channels(model))
    with torch.no_grad():
        assert (lowered(*inputs)["logits"] - before(*inputs)["logits"]).abs().max() < 1e-5
    assert [type(m) for m in model.modules()] == [type(m) for m in before.modules()]
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before.parameters(), strict=True))


@pytest.mark.parametrize(("family", "groups"), [("squeezebert", 4), ("convbert", 2)])
def test_groups_stay_apart_in_the_feed_forward(family: str, groups: int) -> None:
    model = exporter.lower(visible(family, "base"), RECIPES["w8a8-dynamic"], 16)
    inputs = tuple(torch.from_numpy(value) for value in batch(11).values())
    program = torch.export.export(model, inputs, strict=False)

    def count(op: str) -> int:
        program.graph.eliminate_dead_code()
        return sum(str(node.target) == f"aten.{op}.default" for node in program.graph.nodes)

    before = {op: count(op) for op in ("cat", "chunk", "gelu")}
    wanted = program.module()(*inputs)
    keep_groups_apart(program.graph)
    program.graph_module.recompile()
    assert count("gelu") == groups * before["gelu"]
    assert [before[op] - count(op) for op in ("cat", "chunk")] == [before["gelu"]] * 2
    for name, value in program.module()(*inputs).items():
        assert torch.equal(value, wanted[name])


@pytest.mark.parity
@pytest.mark.slow
def test_other_activations_and_shapes_translate(tmp_path: Path) -> None:
    for act in ("gelu_new", "relu", "silu"):
        model = visible("bert", "sequence-classification", hidden_act=act)
        path = tmp_path / f"{act}.pte"
        exporter.export(model, RECIPES["fp32"], (16,), path)
        inputs = batch(11)
        assert np.abs(runtime.open(path).run(inputs)["logits"] - expected(model, inputs)["logits"]).max() < 1e-4
    model = visible("convbert", "multiple-choice", summary_type="mean")
    exporter.export(model, RECIPES["fp32"], (1,), tmp_path / "one.pte")  # a single token
    inputs = batch(1)
    assert (
        np.abs(runtime.open(tmp_path / "one.pte").run(inputs)["logits"] - expected(model, inputs)["logits"]).max()
        < 1e-4
    )


def test_check_and_export_refuse_before_any_work(tmp_path: Path) -> None:
    model = visible("bert", "base")
    with pytest.raises(Unsupported, match="executorch does not take w2; it takes fp32, w8a8-dynamic"):
        exporter.check(model, Recipe("w2", 2, 32, ""))
    with pytest.raises(InputError, match="sample texts, and none came"):
        exporter.export(model, RECIPES["w8a8-static"], (8,), tmp_path / "m.pte")
    with pytest.raises(InputError, match="cannot be written"):
        exporter.export(model, RECIPES["fp32"], (8,), tmp_path / "nowhere" / "m.pte")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parity
def test_a_converter_failure_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    model, path = visible("bert", "base"), tmp_path / "m.pte"
    path.write_bytes(b"before")
    model.encoder.layers[0].act = torch.special.erfcx
    with pytest.raises(ConversionFailed, match=r"bert for base in fp32: no translation of aten\.special_erfcx"):
        exporter.export(model, RECIPES["fp32"], (8,), path)
    model.encoder.layers[0].act = lambda x: x if x.sum() > 0 else -x
    with pytest.raises(ConversionFailed, match="conversion failed with") as error:
        exporter.export(model, RECIPES["fp32"], (8,), path)
    (log,) = tmp_path.glob("*.log")
    assert "\n" not in str(error.value)
    assert str(log) in str(error.value)
    assert "Traceback" in log.read_text()
    assert path.read_bytes() == b"before"
    assert not list(tmp_path.glob("*.part"))
