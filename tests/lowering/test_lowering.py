"""Rewrites that several targets share say what the model says."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from reference import batch, cells
from tiers import quick
from tiny import visible
from torch import Tensor, nn

from edgebert import lowering
from edgebert.errors import ConversionFailed
from edgebert.exporters import EXPORTERS
from edgebert.lowering.last_layer import FORMS
from edgebert.lowering.rewrite import sources
from edgebert.lowering.single_query import SingleQueryAttention
from edgebert.models import MODELS, Model, bert, heads, mobilebert, squeezebert
from edgebert.models.family import executed
from edgebert.models.layers import NoNorm
from edgebert.quantization.recipes import RECIPES, TARGET_RECIPES


def test_positions_that_are_read_stay_and_one_type_is_part_of_them() -> None:
    model = Model(MODELS["roberta"], MODELS["roberta"].config.tiny(), "base").random_init()
    lively(model)
    lowered = lowering.trim_positions(model, 11)
    embeddings = lowered.encoder.embeddings
    assert embeddings.position.weight.shape == (11, model.config.hidden_size)
    assert embeddings.token_type is None
    assert set(sources(embeddings.position.weight)) == {
        model.encoder.embeddings.position.weight, model.encoder.embeddings.token_type.weight
    }  # fmt: skip
    given = batch(model.config.vocab_size)
    for name, expected in model(**given).items():
        torch.testing.assert_close(lowered(**given)[name], expected, rtol=0, atol=1e-6)


FIRST = ("sequence-classification", "multiple-choice")
# Families whose attention is not BERT's.
APART = ("deberta-v2", "modernbert", "nomic_bert", "mobilebert")


@pytest.mark.parametrize(("family", "task"), cells())
def test_the_last_layer_answers_for_the_first_token_where_the_head_reads_no_other(family: str, task: str) -> None:
    model = Model(MODELS[family], MODELS[family].config.tiny(), task).random_init()
    plain = lowering.tokens_before_channels(model)
    lowered = lowering.first_token_only(plain)
    given = batch(model.config.vocab_size)
    for name, expected in model(**given).items():
        torch.testing.assert_close(lowered(**given)[name], expected, rtol=0, atol=1e-5)
    *before, last = executed(lowered.encoder)
    # ConvBERT's multiple choice reads the last token, ModernBERT's heads the mean.
    reads_first = task in FIRST and (family, task) != ("convbert", "multiple-choice") and family != "modernbert"
    assert (type(last) in FORMS.values()) == reads_first
    assert not any(type(layer) in FORMS.values() for layer in before)
    assert {id(weight) for weight in lowered.parameters()} == {id(weight) for weight in plain.parameters()}


# Layers that tell tokens apart in other ways, and the heads that read the first.
FIRST_READ: list[tuple[str, dict[str, object]]] = [
    ("deberta-v2", {"share_att_key": False}),
    ("deberta-v2", {"pos_att_type": ("c2p",), "conv_kernel_size": 3}),
    ("deberta-v2", {"relative_attention": False, "position_biased_input": True}),
    ("mobilebert", {"use_bottleneck_attention": True}),
    ("mobilebert", {"key_query_shared_bottleneck": False, "intra_bottleneck_size": 32}),
    ("mobilebert", {"use_bottleneck": False, "intra_bottleneck_size": 32}),
    ("mobilebert", {"classifier_activation": False}),
    ("modernbert", {"classifier_pooling": "cls"}),
    ("modernbert", {"classifier_pooling": "cls", "num_hidden_layers": 4}),
    ("modernbert", {"classifier_pooling": "cls", "attention_bias": True}),
    ("nomic_bert", {"qkv_proj_bias": True}),
]


@pytest.mark.parametrize(("family", "changes"), FIRST_READ)
@pytest.mark.parametrize("task", ["sequence-classification", "sentence-embedding"])
def test_the_first_token_finds_what_it_found_among_all(family: str, changes: dict[str, object], task: str) -> None:
    pooling = heads.Pooling(modes=("cls",), normalize=True)
    config = replace(MODELS[family].config.tiny(), **changes, pooling=pooling)
    model = Model(MODELS[family], config, task).random_init()
    lively(model)
    # ModernBERT's windows are cut from 65 tokens on, or at every length.
    for before in (lowering.scale_keys, lowering.linears_in_blocks, lambda m: lowering.cut_windows(m, 80)):
        lowered = lowering.first_token_only(before(lowering.fold_distances(model, 64)))
        assert type(executed(lowered.encoder)[-1]) in FORMS.values()
        for tokens in (1, 9, 64):
            given = batch(config.vocab_size, tokens=tokens)
            for name, expected in model(**given).items():
                torch.testing.assert_close(lowered(**given)[name], expected, rtol=0, atol=2e-5)


def test_a_convolution_of_the_only_layer_needs_all_its_tokens() -> None:
    config = replace(MODELS["deberta-v2"].config.tiny(), num_hidden_layers=1, conv_kernel_size=3)
    model = Model(MODELS["deberta-v2"], config, FIRST[0]).random_init()
    lowered, given = lowering.first_token_only(model), batch(config.vocab_size)
    torch.testing.assert_close(lowered(**given)["logits"], model(**given)["logits"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("pooling", [heads.MEAN, heads.Pooling(modes=("cls", "mean"))])
def test_a_vector_of_more_than_the_first_token_needs_all(pooling: heads.Pooling) -> None:
    model = Model(MODELS["bert"], replace(MODELS["bert"].config.tiny(), pooling=pooling), "sentence-embedding")
    assert lowering.first_token_only(model.random_init()).lowerings["first_token_only"] == ()
    # Nor is one enough where hidden states are told beside the vector.
    model = Model(MODELS["bert"], replace(model.config, pooling=heads.Pooling(modes=("cls",))), "sentence-embedding")
    assert lowering.first_token_only(model.random_init()).lowerings["first_token_only"]
    model.head.states = True
    assert lowering.first_token_only(model).lowerings["first_token_only"] == ()


@pytest.mark.parametrize(("family", "task"), cells())
def test_the_only_query_meets_the_inputs_themselves(family: str, task: str) -> None:
    model = Model(MODELS[family], MODELS[family].config.tiny(), task).random_init()
    lively(model)
    given = batch(model.config.vocab_size)
    for form in (lowering.GroupedPointwise, lowering.SlicedLinears, lowering.TokenBlocks):
        for before in (
            lowering.tokens_before_channels,
            lambda m: lowering.scale_keys(lowering.tokens_before_channels(m)),
        ):
            plain = lowering.first_token_only(before(model))
            lowered = lowering.query_inputs(plain, form)
            for name, expected in model(**given).items():
                torch.testing.assert_close(lowered(**given)[name], expected, rtol=0, atol=2e-5)
    *before_it, last = (layer.attention for layer in executed(lowered.encoder))
    # ALBERT's would no longer share its keys and values with the layers before.
    lone = family not in ("convbert", "albert", *APART)
    assert isinstance(last, SingleQueryAttention) == (task in FIRST and lone)
    assert any("query_inputs" in note for note in lowered.notes) == (task in FIRST and family == "albert")
    assert not any(isinstance(attention, SingleQueryAttention) for attention in before_it)


@pytest.mark.parametrize(("family", "task"), cells())
def test_biases_of_norms_between_layers_pass_to_others(family: str, task: str) -> None:
    model = Model(MODELS[family], MODELS[family].config.tiny(), task).random_init()
    lively(model)
    given = batch(model.config.vocab_size)
    for form in (lowering.GroupedPointwise, lowering.SlicedLinears, lowering.TokenBlocks):
        plain = lowering.separate_convolutions(lowering.tokens_before_channels(model, form))
        plain = lowering.fold_distances(lowering.split_grouped_linears(plain, form), 11)
        lowered = lowering.fold_norm_biases(plain)
        for name, expected in model(**given).items():
            torch.testing.assert_close(lowered(**given)[name], expected, rtol=0, atol=2e-5)
        gone = plain.state_dict().keys() - lowered.state_dict().keys()
        assert all(name.endswith("norm.bias") for name in gone)
        assert (not gone) == (family == "modernbert")  # whose norms have none
        # The zeros beyond a span's ends have no bias in front of them; the last norm's is part of the answer.
        norm = "wide_norm" if family == "mobilebert" else "norm"
        assert not any(name.endswith(f"layers.1.{norm}.bias") for name in gone)
        # ALBERT's last norm is its first layer's too.
        kept = family in ("convbert", "albert", "modernbert")
        assert kept == (f"encoder.layers.0.{norm}.bias" not in gone)


PLAIN_NORMS: list[dict[str, object]] = [
    {},
    {"use_bottleneck_attention": True},
    {"key_query_shared_bottleneck": False, "intra_bottleneck_size": 32},
    {"use_bottleneck": False, "intra_bottleneck_size": 32},
    {"normalization_type": "layer_norm"},
]


@pytest.mark.parametrize("changes", PLAIN_NORMS)
def test_norms_that_divide_by_nothing_pass_to_what_stands_beside_them(changes: dict[str, object]) -> None:
    model = Model(MODELS["mobilebert"], replace(MODELS["mobilebert"].config.tiny(), **changes), "base").random_init()
    lively(model)
    lowered = lowering.fold_no_norms(lowering.fold_norm_biases(model))
    given = batch(model.config.vocab_size)
    for name, expected in model(**given).items():
        # Without norms that divide, numbers grow.
        torch.testing.assert_close(
            lowered(**given)[name], expected, rtol=0, atol=1e-5 * float(expected.detach().abs().max())
        )
    norms = [module for module in lowered.modules() if isinstance(module, NoNorm)]
    # The last one's bias is part of the answer.
    assert sum(norm.bias is not None for norm in norms) == (1 if norms else 0)
    narrowed = [module for module in lowered.modules() if isinstance(module, mobilebert.Narrow)]
    assert all(isinstance(part.norm, nn.Identity) for part in narrowed) == ("normalization_type" not in changes)


DISTANCES: list[dict[str, object]] = [
    {},
    {"share_att_key": False},
    {"share_att_key": False, "pos_att_type": ("p2c",), "position_buckets": -1},
    {"pos_att_type": ("c2p",), "norm_rel_ebd": "none", "conv_kernel_size": 3},
    {"pos_att_type": ()},
    {"relative_attention": False, "position_biased_input": True, "type_vocab_size": 1},
]


@pytest.mark.parametrize("changes", DISTANCES)
@pytest.mark.parametrize("spare", [0, 1])
def test_distances_are_constants_of_each_layer(changes: dict[str, object], spare: int) -> None:
    config = replace(MODELS["deberta-v2"].config.tiny(), **changes)
    model = Model(MODELS["deberta-v2"], config, "base").random_init()
    lively(model)
    lowered = lowering.fold_distances(lowering.trim_positions(model, 20), 20, spare)
    moved = lowering.move_distances(lowered)
    for tokens in (1, 2, 19, 20):
        given = batch(config.vocab_size, tokens=tokens)
        torch.testing.assert_close(lowered(**given), model(**given), rtol=0, atol=2e-5)
        torch.testing.assert_close(moved(**given), model(**given), rtol=0, atol=2e-5)
    assert not any("distances." in name for name in lowered.state_dict())
    tables = [one for name, one in lowered.state_dict().items() if name.endswith(("distance_keys", "distance_queries"))]
    kinds = config.pos_att_type if config.relative_attention else ()
    assert [tuple(table.shape) for table in tables] == [(4, 8, 2 * (20 + spare))] * len(kinds) * 2


@pytest.mark.parametrize("groups", [1, 2, 32])
def test_a_convolution_may_have_its_channels_last(groups: int) -> None:
    model = visible("deberta-v2", "base", conv_kernel_size=5, conv_groups=groups)
    lowered = lowering.convolve_tokens(model)
    assert type(lowered.encoder.convolution.conv) is not nn.Conv1d
    given = batch(model.config.vocab_size)
    torch.testing.assert_close(lowered(**given), model(**given), rtol=0, atol=2e-5)


def test_each_pair_of_tokens_has_its_bucket_or_its_term() -> None:
    model = visible("mpnet", "base")
    found, folded = lowering.find_buckets(model, 20), lowering.fold_bias(model, 20)
    assert found.encoder.position_bias.pairs.shape == (20, 20)
    assert folded.encoder.position_bias.terms.shape == (4, 20, 20)
    for tokens in (1, 2, 20):
        given = batch(model.config.vocab_size, tokens=tokens)
        torch.testing.assert_close(found(**given), model(**given), rtol=0, atol=1e-6)
        torch.testing.assert_close(folded(**given), model(**given), rtol=0, atol=1e-6)


def test_words_without_an_embedding_are_scored_by_a_linear_layer() -> None:
    model = visible("mobilebert", "masked-lm")
    lowered = lowering.columns_as_linears(model)
    assert type(lowered.head.rest) is nn.Linear
    given = batch(model.config.vocab_size)
    torch.testing.assert_close(lowered(**given), model(**given), rtol=0, atol=2e-5)


@pytest.mark.parametrize("family", ["modernbert", "nomic_bert"])
def test_rotary_tables_keep_the_rows_that_are_read(family: str) -> None:
    model = Model(MODELS[family], MODELS[family].config.tiny(), "base").random_init()
    lowered = lowering.trim_positions(model, 20)
    assert {len(buffer) for buffer in lowered.buffers()} == {20}
    given = batch(model.config.vocab_size, tokens=20)
    assert torch.equal(lowered(**given)["last_hidden_state"], model(**given)["last_hidden_state"])


@pytest.mark.parametrize(
    ("family", "task"), quick([cell for cell in cells() if cell[0] in APART], [(name, "masked-lm") for name in APART])
)
def test_each_target_says_what_the_model_says(family: str, task: str) -> None:
    model = visible(family, task)
    for (target, recipe), half in itertools.product(
        ((target, recipe) for target, recipes in TARGET_RECIPES.items() for recipe in recipes), (None, {})
    ):
        lowered = EXPORTERS[target].lower(model, RECIPES[recipe], 16, (), half)
        for tokens in (1, 9, 16):
            given = batch(model.config.vocab_size, rows=1, tokens=tokens)
            for name, expected in model(**given).items():
                torch.testing.assert_close(lowered(**given)[name], expected, rtol=0, atol=2e-5)


HEADS = [
    lambda transform, first: heads.MeanClassifier(transform, 32, 3),
    lambda transform, first: heads.Classifier(first, 32, 3),
    lambda transform, first: heads.TransformedTokens(transform, 32, 3),
    lambda transform, first: heads.TransformedSpans(transform, 32),
]


@pytest.mark.parametrize("make", HEADS)
def test_heads_with_a_transform_have_the_other_layout_too(make: object) -> None:
    model = Model(MODELS["bert"], MODELS["bert"].config.tiny(), "base").random_init()
    model.head = make(heads.Transform(32, nn.functional.gelu, 1e-5), heads.TransformFirst(32, nn.functional.gelu, 1e-5))
    lively(model)
    given = batch(model.config.vocab_size, rows=2)
    for row in ({name: value[i : i + 1] for name, value in given.items()} for i in range(2)):
        for name, expected in model(**row).items():
            answered = lowering.channels_before_tokens(model, 16)(**row)[name]
            torch.testing.assert_close(answered, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("tokens", [65, 66, 80, 100])
def test_windows_are_cut_only_where_the_length_is_known(tokens: int) -> None:
    config = replace(MODELS["modernbert"].config.tiny(), max_position_embeddings=100)
    model = Model(MODELS["modernbert"], config, "base").random_init()
    lively(model)
    given = batch(config.vocab_size, tokens=tokens)
    with torch.no_grad():
        cut = model(**given)["last_hidden_state"]
        free = torch.export.export(
            model, tuple(given.values()), dynamic_shapes=({1: torch.export.Dim("tokens", max=100)},) * 3, strict=False
        )
        whole = free.module()(*given.values())["last_hidden_state"]
    kept = given["attention_mask"] == 1
    torch.testing.assert_close(cut[kept], whole[kept], rtol=0, atol=2e-5)
    ranks = {node.meta["val"].dim() for node in free.graph.nodes if node.target is torch.ops.aten.softmax.int}
    assert ranks == {4}  # of a block it would be five


@pytest.mark.parametrize("changes", [{}, {"classifier_pooling": "cls", "num_hidden_layers": 5}])
@pytest.mark.parametrize("tokens", [32, 48, 96])
def test_windows_are_shifted_where_there_are_whole_blocks(tokens: int, changes: dict[str, Any]) -> None:
    """The last of five layers is local, and computed for the first token alone."""
    config = replace(MODELS["modernbert"].config.tiny(), max_position_embeddings=100, **changes)
    model = Model(MODELS["modernbert"], config, "sequence-classification" if changes else "base").random_init()
    lively(model)
    assert lowering.window_block(model) == 16
    given = {name: value[:1] for name, value in batch(config.vocab_size, tokens=tokens).items()}
    kept = given["attention_mask"] == 1
    for before in (lowering.duplicate, lowering.first_token_only):
        (told,), (want,) = (form(**given).values() for form in (lowering.shift_windows(before(model)), model))
        pairs = (told, want) if changes else (told[kept], want[kept])
        torch.testing.assert_close(*pairs, rtol=0, atol=2e-5)
    assert lowering.window_block(Model(MODELS["bert"], MODELS["bert"].config.tiny(), "base")) == 0


@pytest.mark.parametrize("tokens", [1, 2, 15, 16, 17, 64, 65, 100])
def test_windows_are_cut_at_every_length_where_the_longest_is_worth_it(tokens: int) -> None:
    config = replace(MODELS["modernbert"].config.tiny(), max_position_embeddings=100)
    model = Model(MODELS["modernbert"], config, "base").random_init()
    lively(model)
    assert lowering.cut_windows(model, 64).encoder.near is None
    given = batch(config.vocab_size, tokens=tokens)
    told = lowering.cut_windows(model, 65)(**given)["last_hidden_state"]
    kept = given["attention_mask"] == 1
    torch.testing.assert_close(told[kept], model(**given)["last_hidden_state"][kept], rtol=0, atol=2e-5)


@pytest.mark.parametrize("family", ["squeezebert", "rembert", "bert", "mpnet", "albert"])
def test_projections_of_one_input_are_joined(family: str) -> None:
    model = Model(MODELS[family], MODELS[family].config.tiny(), "token-classification").random_init()
    lively(model)
    given = batch(model.config.vocab_size)
    for form in (lowering.GroupedPointwise, lowering.TokenBlocks):
        plain = lowering.scale_keys(lowering.tokens_before_channels(model, form))
        lowered = lowering.fuse_qkv(plain, form)
        torch.testing.assert_close(lowered(**given)["logits"], model(**given)["logits"], rtol=0, atol=2e-5)
        # Three weights are one, which carries the names of all.
        layers = len(lowered.encoder.get_submodule("layers"))
        assert len(lowered.state_dict()) == len(plain.state_dict()) - layers * 2 * 2
        assert any(".query+key+value." in name for name in lowered.state_dict())


def test_a_stream_of_another_layout_comes_back_as_it_is() -> None:
    model = Model(MODELS["squeezebert"], MODELS["squeezebert"].config.tiny(), FIRST[0]).random_init()
    assert lowering.fold_norm_biases(model).state_dict().keys() == model.state_dict().keys()


def lively(model: Model) -> None:
    """Give vectors values too, which start as zeros and ones."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))


# Layers that run once and several times, alone and in groups; the last has four layers for four.
SHARED = [
    {},
    {"num_hidden_layers": 5, "num_hidden_groups": 3},
    {"num_hidden_layers": 3, "num_hidden_groups": 2, "inner_group_num": 2},
    {"num_hidden_layers": 3, "inner_group_num": 2},
    {"num_hidden_layers": 4, "num_hidden_groups": 4},
]
POINTWISE = lowering.GroupedPointwise
ALONE: list[Callable[[Model], Model]] = [
    lowering.scale_keys,
    lowering.fold_norm_biases,
    lowering.first_token_only,
    lowering.linears_in_blocks,
    lambda model: lowering.trim_positions(model, 16),
    lambda model: norms_in_half(model),
    lambda model: lowering.query_inputs(lowering.first_token_only(model), POINTWISE),
    lambda model: lowering.fuse_qkv(lowering.scale_keys(model), POINTWISE),
    lambda model: lowering.fold_norm_biases(lowering.first_token_only(model)),
    lambda model: norms_in_half(lowering.first_token_only(lowering.fold_norm_biases(model))),
]


@pytest.mark.parametrize("changes", SHARED)
@pytest.mark.parametrize("task", [FIRST[0], "base"])
def test_layers_that_run_several_times_answer_the_same_after_each_rewrite(changes: dict[str, int], task: str) -> None:
    family = MODELS["albert"]
    model = Model(family, replace(family.config.tiny(), **changes), task).random_init()
    lively(model)
    given = batch(model.config.vocab_size)
    for place, rewrite in enumerate(ALONE):
        lowered = rewrite(model)
        for name, expected in model(**given).items():
            torch.testing.assert_close(lowered(**given)[name], expected, rtol=0, atol=5e-5, msg=f"{place}: {name}")


def test_what_is_for_the_last_run_alone_leaves_a_shared_layer_as_it_is() -> None:
    family = MODELS["albert"]
    model = Model(family, family.config.tiny(), FIRST[0])
    lowered = lowering.first_token_only(model)
    first, last = executed(lowered.encoder)
    assert (type(first), type(last)) == (bert.Layer, FORMS[bert.Layer])
    assert dict(first.named_parameters()) == dict(last.named_parameters())
    assert lowered.lowerings["first_token_only"] == ("encoder.layers.1",)
    assert model.encoder.order == (0, 0)
    assert len(model.encoder.layers) == 1


@pytest.mark.parametrize("tokens", [1, 2, 9])
@pytest.mark.parametrize("n_heads", [1, 4])
def test_one_token_asks_under_a_mask_for_each_head(tokens: int, n_heads: int) -> None:
    """MPNet's, (B, H, T, T), of which the first row is left; with groups as SqueezeBERT has them, too."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    plain = bert.Attention(32, n_heads)
    x, mask = draw(3, tokens, 32), draw(3, n_heads, 1, tokens)
    groups = n_heads // 2 or 1
    for name in ("key", "value"):
        made = lowering.GroupedPointwise(draw(32, 32 // groups), draw(32), groups)
        setattr(plain, name, made)
    single = SingleQueryAttention(plain, lowering.SlicedLinears)
    torch.testing.assert_close(single(x[:, :1], x, mask), plain(x[:, :1], x, mask), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("family", "task"), [cell for cell in cells() if cell[0] in ("mpnet", "albert", "mobilebert")])
def test_channels_come_before_tokens(family: str, task: str) -> None:
    model = Model(MODELS[family], MODELS[family].config.tiny(), task).random_init()
    lively(model)
    lowered = lowering.channels_before_tokens(model, 16)
    for row in range(3):
        given = {name: value[row : row + 1] for name, value in batch(model.config.vocab_size).items()}
        for name, expected in model(**given).items():
            torch.testing.assert_close(lowered(**given)[name], expected, rtol=0, atol=5e-5)


def test_a_causal_mask_keeps_its_first_row() -> None:
    config = MODELS["rembert"].config.tiny()
    causal = Model(MODELS["rembert"], replace(config, is_decoder=True), FIRST[0]).random_init()
    given = batch(causal.config.vocab_size)
    answer = lowering.first_token_only(causal)(**given)["logits"]
    torch.testing.assert_close(answer, causal(**given)["logits"], rtol=0, atol=1e-5)


def test_other_layouts_come_back_as_they_are() -> None:
    model = Model(MODELS["squeezebert"], MODELS["squeezebert"].config.tiny(), FIRST[0]).random_init()
    *_, last = lowering.first_token_only(model).encoder.get_submodule("layers").children()
    assert type(last) not in FORMS.values()


class LoudAttention(bert.Attention):
    """A fork's: it computes something else."""

    def forward(self, queries: Tensor, x: Tensor, mask: Tensor) -> Tensor:
        return 2 * super().forward(queries, x, mask)


class LoudLayer(bert.Layer):
    """Another fork's."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return super().forward(x, mask) + 1


class LoudSqueezeAttention(squeezebert.Attention):
    """And one of SqueezeBERT."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return 2 * super().forward(x, mask)


def fork(name: str, kind: type[nn.Module], declared: bool, layers: int = 2) -> Model:
    """A family whose layers, or their attention, are a subclass; `layers` of them."""
    parts = MODELS[name].parts if declared else ()
    model = Model(replace(MODELS[name], parts=parts), MODELS[name].config.tiny(), FIRST[0]).random_init()
    lively(model)
    base = next(one for one in kind.__mro__ if not one.__name__.startswith("Loud"))
    chosen = [module for module in model.modules() if type(module) is base][:layers]
    for module in chosen:
        module.__class__ = kind
    return model


def norms_in_half(model: Model) -> Model:
    return lowering.norms_in_half(model, {})


REWRITES = [
    ("bert", LoudAttention, lowering.scale_keys),
    ("bert", LoudAttention, lowering.fold_norm_biases),
    ("bert", LoudAttention, norms_in_half),
    ("bert", LoudLayer, lowering.first_token_only),
    ("bert", LoudLayer, lowering.fold_norm_biases),
    ("squeezebert", LoudSqueezeAttention, lowering.tokens_before_channels),
]


@pytest.mark.parametrize(("name", "kind", "rewrite"), REWRITES)
def test_a_part_that_a_family_declares_and_does_not_have_is_an_error(name: str, kind: type, rewrite: object) -> None:
    with pytest.raises(
        ConversionFailed, match=rf"found no \w+ in {name}, whose family declares it; .* is a {kind.__name__}"
    ):
        rewrite(fork(name, kind, declared=True))


@pytest.mark.parametrize(("name", "kind", "rewrite"), REWRITES)
@pytest.mark.parametrize("layers", [1, 2])
def test_a_subclass_is_left_as_it_is_and_told(name: str, kind: type, rewrite: object, layers: int) -> None:
    model = fork(name, kind, declared=False, layers=layers)
    lowered = rewrite(model)
    assert any(kind.__name__ in note for note in lowered.notes), lowered.notes
    given = batch(model.config.vocab_size)
    torch.testing.assert_close(lowered(**given)["logits"], model(**given)["logits"], rtol=0, atol=1e-4)


def test_a_rewrite_says_what_it_matched() -> None:
    model = Model(MODELS["bert"], MODELS["bert"].config.tiny(), FIRST[0])
    lowered = lowering.first_token_only(lowering.scale_keys(model))
    assert lowered.lowerings == {
        "scale_keys": ("encoder.layers.0.attention", "encoder.layers.1.attention"),
        "first_token_only": ("encoder.layers.1",),
    }
    assert model.lowerings == {}
    assert lowered.notes == []


def test_a_layer_of_unknown_layout_is_refused_for_channels_first() -> None:
    with pytest.raises(ConversionFailed, match="attention is a LoudAttention, whose layout is not known"):
        lowering.channels_before_tokens(fork("bert", LoudAttention, declared=False), 8)
