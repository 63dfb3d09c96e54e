"""Configurations drawn at random, such as nobody published too, against transformers: saved there, loaded here."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from reference import batch, outputs, reference, shared

import edgebert
from edgebert.models import MODELS
from edgebert.models.layers import ACTIVATIONS
from edgebert.models.signature import has_token_axis

# Of the largest number of an output, or of 1: sums in another order; seen up to 4e-6.
EXACT = 1e-5
LONGEST = 24  # tokens; the fewest positions that are drawn leave so many

Changes = dict[str, Any]
Draw = Callable[[st.SearchStrategy[Any]], Any]

ACTS = st.sampled_from(sorted(ACTIVATIONS))
WIDTHS = st.sampled_from([8, 16, 24, 40])


def sizes(draw: Draw, least: int = 1, **names: str) -> Changes:
    """What every encoder has; `names` are those of a config that calls it otherwise, `least` divides the widths."""
    n_heads = draw(st.integers(1, 5))
    drawn = {
        "num_attention_heads": n_heads,
        "hidden_size": least * n_heads * draw(st.sampled_from([2, 4, 6])),
        "intermediate_size": least * draw(st.integers(1, 9)),
        "num_hidden_layers": draw(st.integers(1, 3)),
        "hidden_act": draw(ACTS),
        "vocab_size": draw(st.integers(20, 90)),
        "max_position_embeddings": draw(st.integers(LONGEST, 40)),
        "pad_token_id": draw(st.integers(0, 9)),
        "layer_norm_eps": draw(st.sampled_from([1e-12, 1e-5, 1e-2])),
        "type_vocab_size": draw(st.integers(1, 4)),
        "tie_word_embeddings": draw(st.booleans()),
    }
    return {names.get(name, name): value for name, value in drawn.items() if names.get(name, name)}


def summary(draw: Draw) -> Changes:
    """How ELECTRA and ConvBERT sum up a sequence."""
    return {
        "summary_type": draw(st.sampled_from(["first", "last", "mean"])),
        "summary_use_proj": draw(st.booleans()),
        "summary_activation": draw(st.sampled_from(["", "gelu", "tanh"])),
    }


def squeezebert(draw: Draw) -> Changes:
    made, groups = sizes(draw, least=4), st.sampled_from([1, 2, 4])
    names = ("q_groups", "k_groups", "v_groups", "post_attention_groups", "intermediate_groups", "output_groups")
    return made | {"embedding_size": made["hidden_size"]} | {name: draw(groups) for name in names}


def convbert(draw: Draw) -> Changes:
    n_heads = draw(st.sampled_from([1, 2, 4, 8]))
    made = sizes(draw, least=4) | {"num_attention_heads": n_heads, "hidden_size": 8 * n_heads * draw(st.integers(1, 2))}
    return made | summary(draw) | {
        "head_ratio": draw(st.sampled_from([1, 2, 4])),
        "conv_kernel_size": draw(st.sampled_from([1, 3, 7])),
        "num_groups": draw(st.sampled_from([1, 2, 4])),
        "embedding_size": draw(st.sampled_from([made["hidden_size"], 8, 20])),
    }  # fmt: skip


def rembert(draw: Draw) -> Changes:
    widths = {"input_embedding_size": draw(WIDTHS), "output_embedding_size": draw(WIDTHS)}
    return sizes(draw) | widths | {"tie_word_embeddings": False, "is_decoder": draw(st.booleans())}


def electra(draw: Draw) -> Changes:
    made = sizes(draw)
    narrow = draw(st.sampled_from([made["hidden_size"], 8, 20]))
    return made | summary(draw) | {"embedding_size": narrow, "is_decoder": draw(st.booleans())}


def roberta(draw: Draw) -> Changes:
    made = sizes(draw)
    rows = made["max_position_embeddings"] + made["pad_token_id"] + 1
    return made | {"max_position_embeddings": rows, "is_decoder": draw(st.booleans())}


def mpnet(draw: Draw) -> Changes:
    made = sizes(draw, type_vocab_size="")
    rows = {"relative_attention_num_buckets": draw(st.integers(32, 40))}
    return made | rows | {"max_position_embeddings": made["max_position_embeddings"] + 2}


def albert(draw: Draw) -> Changes:
    made = sizes(draw) | {"num_hidden_layers": draw(st.integers(1, 6)), "embedding_size": draw(WIDTHS)}
    groups = draw(st.integers(1, made["num_hidden_layers"]))
    return made | {"num_hidden_groups": groups, "inner_group_num": draw(st.integers(1, 2))}


def mobilebert(draw: Draw) -> Changes:
    made = sizes(draw) | {
        name: draw(st.booleans())
        for name in (
            "trigram_input", "use_bottleneck", "use_bottleneck_attention", "key_query_shared_bottleneck",
            "classifier_activation",
        )
    }  # fmt: skip
    width = made["hidden_size"]
    narrowed = not made["use_bottleneck"] or made["use_bottleneck_attention"] or made["key_query_shared_bottleneck"]
    return made | {
        "intra_bottleneck_size": made["num_attention_heads"] * draw(st.integers(1, 6)) if narrowed else width,
        "embedding_size": draw(st.integers(1, width)),
        "num_feedforward_networks": draw(st.integers(1, 4)),
        "normalization_type": draw(st.sampled_from(["no_norm", "layer_norm"])),
    }


def distilbert(draw: Draw) -> Changes:
    return sizes(
        draw, type_vocab_size="", layer_norm_eps="", num_attention_heads="n_heads", hidden_size="dim",
        intermediate_size="hidden_dim", num_hidden_layers="n_layers", hidden_act="activation",
    ) | {"sinusoidal_pos_embds": draw(st.booleans())}  # fmt: skip


def deberta_v2(draw: Draw) -> Changes:
    made = sizes(draw) | {"type_vocab_size": draw(st.integers(0, 3)), "legacy": draw(st.booleans())}
    relative = draw(st.booleans())
    ways = draw(st.sampled_from([["c2p"], ["p2c"], ["c2p", "p2c"], []]))
    width = made["hidden_size"]
    return made | {
        "embedding_size": draw(st.sampled_from([width, 8, 20])) if made["legacy"] else width,
        "position_biased_input": draw(st.booleans()) or not (relative and ways),
        "relative_attention": relative,
        "pos_att_type": ways if relative else [],
        "position_buckets": draw(st.sampled_from([-1, 2, 5, 16])),
        "max_relative_positions": draw(st.sampled_from([-1, LONGEST, 50])),
        "norm_rel_ebd": draw(st.sampled_from(["none", "layer_norm"])),
        "share_att_key": draw(st.booleans()),
        "conv_kernel_size": draw(st.sampled_from([0, 3])),
        "conv_act": draw(st.sampled_from(["tanh", "gelu"])),
        "pooler_hidden_act": draw(ACTS),
    }


def modernbert(draw: Draw) -> Changes:
    made = sizes(draw, least=2, type_vocab_size="", layer_norm_eps="norm_eps", hidden_act="hidden_activation")
    flags = ("norm_bias", "attention_bias", "mlp_bias", "decoder_bias", "classifier_bias")
    return made | {name: draw(st.booleans()) for name in flags} | {
        "global_attn_every_n_layers": draw(st.integers(1, 3)),
        "local_attention": draw(st.sampled_from([1, 2, 6, 11, 40])),
        "classifier_pooling": draw(st.sampled_from(["cls", "mean"])),
        "classifier_activation": draw(ACTS),
    }  # fmt: skip


def nomic_bert(draw: Draw) -> Changes:
    return sizes(draw) | {"rope_theta": draw(st.sampled_from([10.0, 1000.0, 10000.0]))}


# A family to what of its config is drawn.
CHANGES: dict[str, Callable[[Draw], Changes]] = {
    "squeezebert": squeezebert,
    "convbert": convbert,
    "rembert": rembert,
    "bert": sizes,
    "distilbert": distilbert,
    "electra": electra,
    "roberta": roberta,
    "mpnet": mpnet,
    "albert": albert,
    "mobilebert": mobilebert,
    "deberta-v2": deberta_v2,
    "modernbert": modernbert,
    "nomic_bert": nomic_bert,
}


def test_every_family_has_its_configurations() -> None:
    assert set(CHANGES) == set(MODELS)


def inputs_of(config: Any, tokens: int, seed: int) -> dict[str, torch.Tensor]:
    """A full row, a padded row and one of a single token, with as many token types as there are."""
    pad = 1 if config.model_type == "mpnet" else config.pad_token_id  # by which MPNet's positions are counted
    made = batch(config.vocab_size, tokens=tokens, seed=seed, pad=pad)
    types = torch.arange(tokens, dtype=torch.int32) % max(getattr(config, "type_vocab_size", 1), 1)
    return made | {"token_type_ids": types * made["attention_mask"]}


@st.composite
def cases(draw: Any, name: str) -> tuple[str, Changes, int]:
    """A task that transformers has a class for, the config's changes, and a seed for the weights."""
    changes = CHANGES[name](draw)
    task = draw(st.sampled_from([task for family, task in shared() if family == name]))
    if task == "causal-lm":
        changes["is_decoder"] = True
    return task, changes, draw(st.integers(0, 99))


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("count", [3, pytest.param(30, marks=pytest.mark.slow)])
def test_equals_transformers(name: str, count: int) -> None:
    @settings(
        max_examples=count, derandomize=True, deadline=None, database=None,
        phases=[Phase.generate, Phase.shrink], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(cases(name))
    def compare(case: tuple[str, Changes, int]) -> None:
        task, changes, seed = case
        theirs = reference(name, task, seed=seed, **changes)
        with tempfile.TemporaryDirectory() as folder:
            theirs.save_pretrained(folder)
            model = edgebert.load(Path(folder)).model
        assert model.task == task
        for tokens in (1, 7, LONGEST):
            padded = inputs_of(theirs.config, tokens, seed)
            for given_them in (padded, {key: value[:1] for key, value in padded.items()}):
                rows = {key: value[None] if task == "multiple-choice" else value for key, value in given_them.items()}
                expected = outputs(theirs, rows)
                with torch.no_grad():
                    answered = model(**rows)
                assert set(answered) == set(expected)
                for key, value in expected.items():
                    apart = (answered[key] - value).abs()
                    if has_token_axis(key, value.dim()):
                        apart = apart[rows["attention_mask"] == 1]  # what padding says is nobody's concern
                    note(f"{key}: {apart.max().item()} of {value.abs().max().item()} at {tokens} tokens")
                    assert apart.max().item() < EXACT * max(1.0, value.abs().max().item())

    compare()
