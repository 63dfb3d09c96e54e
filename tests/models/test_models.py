"""The definitions against transformers' own, for every head, with random weights."""

import dataclasses

import pytest
import torch
from reference import batch, cells, given, outputs, reference, shared

from edgebert.checkpoints.weights import assemble, hf_names, hf_tensors
from edgebert.errors import InputError, Unsupported
from edgebert.models import MODELS, Model, outline
from edgebert.models.layers import ACTIVATIONS
from edgebert.models.signature import has_token_axis

# Sums in another order differ by rounding alone; seen: up to 2e-6 on outputs of size 1 to 5.
EXACT = 1e-5


def ours(name: str, task: str, theirs: torch.nn.Module) -> Model:
    """The same weights in this project's definition, by way of the strict loader."""
    family = MODELS[name]
    config = family.config.from_hf(theirs.config.to_dict())
    return assemble(family, config, task, dict(theirs.state_dict()))[0]


def assert_equal(model: Model, theirs: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> None:
    """Equal answers; what a padding token says is nobody's concern, and RoBERTa's here has another position."""
    expected = outputs(theirs, inputs)
    with torch.no_grad():
        answered = model(**inputs)
    assert set(answered) == set(expected)
    for key, value in expected.items():
        assert answered[key].shape == value.shape
        apart = (answered[key] - value).abs()
        if has_token_axis(key, value.dim()):
            apart = apart[inputs["attention_mask"] == 1]
        assert apart.max().item() < EXACT, key


@pytest.mark.parametrize(("name", "task"), shared())
def test_equals_transformers(name: str, task: str) -> None:
    theirs = reference(name, task)
    model = ours(name, task, theirs)
    for tokens in (1, 2, 11, 64):
        for seed in (0, 1):
            inputs = given(theirs, tokens=tokens, seed=seed)
            if task == "multiple-choice":
                inputs = {key: torch.stack([value, value.flip(0)]) for key, value in inputs.items()}  # (B, N, T)
            assert_equal(model, theirs, inputs)


VARIANTS = [
    ("squeezebert", "base", {"q_groups": 2, "k_groups": 1, "v_groups": 4, "output_groups": 2}),
    ("squeezebert", "base", {"layer_norm_eps": 1e-2}),
    ("convbert", "base", {"embedding_size": 32, "num_groups": 1}),
    ("convbert", "base", {"conv_kernel_size": 3, "head_ratio": 4}),
    ("convbert", "base", {"head_ratio": 8}),
    ("convbert", "multiple-choice", {"summary_type": "first", "summary_use_proj": True, "summary_activation": "gelu"}),
    ("convbert", "multiple-choice", {"summary_type": "mean"}),
    ("rembert", "causal-lm", {"is_decoder": True}),
    ("rembert", "base", {"is_decoder": True}),
    ("electra", "causal-lm", {"is_decoder": True}),
    ("electra", "masked-lm", {"embedding_size": 32, "hidden_act": "relu"}),
    ("electra", "sequence-classification", {"embedding_size": 48, "hidden_act": "gelu_new", "type_vocab_size": 3}),
    ("electra", "replaced-token-detection", {"hidden_act": "silu"}),
    ("electra", "multiple-choice", {"summary_use_proj": False, "summary_type": "mean"}),
    ("electra", "multiple-choice", {"summary_type": "last"}),
    ("electra", "multiple-choice", {"summary_activation": ""}),
    ("electra", "masked-lm", {"tie_word_embeddings": False}),
    ("distilbert", "base", {"sinusoidal_pos_embds": True, "n_layers": 3, "n_heads": 8}),
    ("distilbert", "masked-lm", {"activation": "relu", "tie_word_embeddings": False}),
    ("bert", "masked-lm", {"tie_word_embeddings": False}),
    ("bert", "base", {"type_vocab_size": 4}),
    ("roberta", "base", {"pad_token_id": 5, "type_vocab_size": 2}),
    ("roberta", "masked-lm", {"pad_token_id": 0, "hidden_act": "relu", "tie_word_embeddings": False}),
    ("roberta", "causal-lm", {"is_decoder": True}),
    ("mpnet", "base", {"relative_attention_num_buckets": 40, "num_attention_heads": 1, "hidden_act": "relu"}),
    ("mpnet", "masked-lm", {"pad_token_id": 5, "hidden_act": "relu", "tie_word_embeddings": False}),
    ("albert", "base", {"num_hidden_layers": 5, "num_hidden_groups": 3}),
    ("albert", "base", {"num_hidden_layers": 3, "num_hidden_groups": 2, "inner_group_num": 2}),
    ("albert", "base", {"num_hidden_layers": 18, "num_hidden_groups": 14}),
    ("albert", "masked-lm", {"embedding_size": 32, "hidden_act": "relu", "tie_word_embeddings": False}),
    ("albert", "sequence-classification", {"type_vocab_size": 1, "pad_token_id": 3, "embedding_size": 48}),
    ("mobilebert", "base", {"classifier_activation": True, "normalization_type": "layer_norm"}),
    ("mobilebert", "base", {"use_bottleneck": False, "num_feedforward_networks": 1}),
    ("mobilebert", "base", {"use_bottleneck_attention": True}),
    ("mobilebert", "base", {"use_bottleneck_attention": True, "key_query_shared_bottleneck": False}),
    ("mobilebert", "base", {"key_query_shared_bottleneck": False, "intra_bottleneck_size": 32}),
    ("mobilebert", "base", {"trigram_input": False}),
    ("mobilebert", "masked-lm", {"trigram_input": False, "embedding_size": 32, "hidden_act": "gelu"}),
    ("mobilebert", "masked-lm", {"tie_word_embeddings": False, "num_feedforward_networks": 5}),
    ("mobilebert", "multiple-choice", {"classifier_activation": True, "type_vocab_size": 1}),
    *(("bert", "base", {"hidden_act": act}) for act in ACTIVATIONS),
    ("deberta-v2", "base", {"share_att_key": False}),
    ("deberta-v2", "base", {"share_att_key": False, "pos_att_type": ["c2p"], "norm_rel_ebd": "none"}),
    ("deberta-v2", "base", {"share_att_key": False, "pos_att_type": "p2c", "position_buckets": 5}),
    ("deberta-v2", "base", {"pos_att_type": ["p2c"], "position_buckets": -1, "max_relative_positions": 7}),
    ("deberta-v2", "base", {"pos_att_type": ["c2p", "c2p"], "position_buckets": 2, "type_vocab_size": 1}),
    ("deberta-v2", "base", {"pos_att_type": None, "position_biased_input": True, "type_vocab_size": 3}),
    ("deberta-v2", "base", {"relative_attention": False, "position_biased_input": True, "norm_rel_ebd": "layer_norm"}),
    ("deberta-v2", "base", {"conv_kernel_size": 3, "conv_act": "gelu", "num_hidden_layers": 1}),
    ("deberta-v2", "base", {"conv_kernel_size": 5, "conv_groups": 4, "max_relative_positions": 200}),
    ("deberta-v2", "masked-lm", {"embedding_size": 16, "position_biased_input": True, "type_vocab_size": 2}),
    ("deberta-v2", "masked-lm", {"legacy": False, "hidden_act": "gelu_new"}),
    ("deberta-v2", "masked-lm", {"legacy": False, "tie_word_embeddings": False}),
    ("deberta-v2", "masked-lm", {"tie_word_embeddings": False, "layer_norm_eps": 1e-3}),
    ("deberta-v2", "sequence-classification", {"pooler_hidden_act": "tanh", "max_position_embeddings": 100}),
    ("modernbert", "base", {"attention_bias": True, "mlp_bias": True, "norm_bias": True}),
    ("modernbert", "base", {"local_attention": 1, "global_attn_every_n_layers": 1}),
    ("modernbert", "base", {"local_attention": 1, "max_position_embeddings": 67}),
    ("modernbert", "base", {"local_attention": 7, "global_attn_every_n_layers": 2, "max_position_embeddings": 90}),
    ("modernbert", "base", {"local_attention": 40, "max_position_embeddings": 171, "num_hidden_layers": 4}),
    ("modernbert", "base", {"local_attention": 34, "max_position_embeddings": 136, "num_attention_heads": 16}),
    ("modernbert", "base", {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}),
    ("modernbert", "base", {"global_rope_theta": 500.0, "local_rope_theta": 20.5, "hidden_activation": "silu"}),
    (
        "modernbert", "base",
        {"rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 99.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 7},
        }},
    ),
    ("modernbert", "masked-lm", {"decoder_bias": False, "classifier_bias": True, "norm_bias": True}),
    ("modernbert", "masked-lm", {"tie_word_embeddings": False, "sparse_prediction": True, "norm_eps": 1e-3}),
    ("modernbert", "sequence-classification", {"classifier_pooling": "cls", "classifier_activation": "relu"}),
    ("modernbert", "multiple-choice", {"classifier_pooling": "cls", "classifier_bias": True}),
    ("modernbert", "token-classification", {"classifier_activation": "silu", "num_hidden_layers": 1}),
    ("modernbert", "question-answering", {"classifier_bias": True, "norm_bias": True}),
    ("nomic_bert", "base", {"type_vocab_size": 1, "hidden_act": "gelu"}),
    ("nomic_bert", "base", {"type_vocab_size": 4, "num_attention_heads": 16}),
    ("nomic_bert", "base", {"num_attention_heads": 1, "intermediate_size": 7}),
    ("nomic_bert", "base", {"rope_theta": 50000.0, "max_position_embeddings": 300}),
    ("nomic_bert", "base", {"rope_parameters": {"rope_type": "default", "rope_theta": 3.5}, "rope_theta": 1000.0}),
    ("nomic_bert", "base", {"num_hidden_layers": 5, "layer_norm_eps": 1e-5, "head_dim": 8}),
    ("nomic_bert", "masked-lm", {"tie_word_embeddings": False, "hidden_act": "gelu_pytorch_tanh"}),
    ("nomic_bert", "masked-lm", {"pad_token_id": 3, "hidden_act": "relu"}),
    ("nomic_bert", "sequence-classification", {"num_hidden_layers": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "task", "changes"), VARIANTS)
def test_variant_equals_transformers(name: str, task: str, changes: dict[str, object]) -> None:
    theirs = reference(name, task, **changes)
    model = ours(name, task, theirs)
    for tokens in (11, model.family.longest(model.config)):
        inputs = given(theirs, rows=2, tokens=tokens)
        if task == "multiple-choice":
            inputs = {key: value[None] for key, value in inputs.items()}
        assert_equal(model, theirs, inputs)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "task"), [cell for cell in shared() if cell[0] in ("squeezebert", "convbert")])
def test_base_size_equals_transformers(name: str, task: str) -> None:
    theirs = reference(name, task, config=MODELS[name].config())
    inputs = given(theirs, tokens=48)
    if task == "multiple-choice":
        inputs = {key: value[None] for key, value in inputs.items()}
    assert_equal(ours(name, task, theirs), theirs, inputs)


@pytest.mark.parametrize("name", MODELS)
def test_base_size_has_the_published_tensors(name: str) -> None:
    """At full size by shape alone: every tensor transformers makes has its place, and none is left."""
    import transformers

    family = MODELS[name]
    architecture = next(cls for cls, of in family.architectures.items() if of == "masked-lm")
    with torch.device("meta"):
        model_class = getattr(transformers, architecture)
        theirs = model_class(model_class.config_class())
        model = Model(family, family.config.from_hf(theirs.config.to_dict()), "masked-lm")
    state = theirs.state_dict()
    shapes = model.state_dict()
    for hf, mine in hf_names(model).items():
        assert state[hf].shape == shapes[mine].shape
    assert len(state) - len(shapes) <= 3  # the decoder bias's alias, and SqueezeBERT's pooler


@pytest.mark.parametrize(("name", "task"), cells())
def test_rows_that_are_all_padding_stay_finite(name: str, task: str) -> None:
    family = MODELS[name]
    model = Model(family, family.config.tiny(), task).random_init(0)
    inputs = batch(100)
    inputs["attention_mask"][:] = 0
    with torch.no_grad():
        assert all(value.isfinite().all() for value in model(**inputs).values())


@pytest.mark.parametrize("name", MODELS)
def test_padding_further_changes_an_answer_only_where_the_paper_says_so(name: str) -> None:
    family = MODELS[name]
    theirs = reference(name, "base")
    model = ours(name, "base", theirs)
    short = batch(100, rows=1, tokens=8)
    long = {key: torch.nn.functional.pad(value, (0, 20)) for key, value in short.items()}
    long["input_ids"][:, 8:] = 3  # the row of padding's own id is zeros here, as no trained model's is
    with torch.no_grad():
        change = (model(**long)["last_hidden_state"][:, :8] - model(**short)["last_hidden_state"]).abs().max().item()
    assert (change < EXACT) == family.padding_invariant


@pytest.mark.parametrize("name", MODELS)
def test_int32_and_int64_ids_answer_alike(name: str) -> None:
    family = MODELS[name]
    model = Model(family, family.config.tiny(), "base").random_init(0)
    inputs = batch(100)
    with torch.no_grad():
        a, b = model(**inputs), model(**{key: value.long() for key, value in inputs.items()})
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("name", MODELS)
def test_constants_outlive_the_way_from_an_outline_into_memory(name: str) -> None:
    family = MODELS[name]
    model = Model(family, family.config.tiny(), "sentence-embedding")
    made = outline(family, family.config.tiny(), "sentence-embedding").in_memory()
    assert all(torch.equal(buffer, made.get_buffer(name)) for name, buffer in model.named_buffers())
    assert not any(tensor.is_meta for tensor in made.state_dict().values())


def test_groups_that_never_run_are_told_and_refused() -> None:
    theirs = reference("albert", "base", num_hidden_groups=3)
    with pytest.raises(InputError, match=r"left over 16: encoder\.albert_layer_groups\.2\."):
        ours("albert", "base", theirs)


def test_random_init_repeats_and_differs_by_seed() -> None:
    family = MODELS["squeezebert"]
    make = lambda seed: hf_tensors(Model(family, family.config.tiny(), "base").random_init(seed))  # noqa: E731
    one, same, other = make(0), make(0), make(1)
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not torch.equal(one["embeddings.word_embeddings.weight"], other["embeddings.word_embeddings.weight"])


BAD_CONFIGS = [
    ("bert", {"rope_theta": 1e4}, InputError, "unknown key rope_theta"),
    ("bert", {"hidden_size": 30}, InputError, "30 is not a multiple of 4"),
    ("bert", {"hidden_size": "32"}, InputError, "type int is needed"),
    ("bert", {"num_hidden_layers": 0}, InputError, "must be positive"),
    ("bert", {"hidden_act": "geluu"}, Unsupported, "'geluu' is not supported; choose one of gelu"),
    ("bert", {"is_decoder": True}, Unsupported, "is_decoder=True"),
    ("bert", {"position_embedding_type": "relative_key"}, Unsupported, "only 'absolute'"),
    ("bert", {"id2label": {"0": "a", "00": "b"}}, InputError, "each is needed once"),
    ("bert", {"id2label": ["a", "b"]}, InputError, "a map from label number"),
    ("squeezebert", {"embedding_size": 16}, InputError, "needs them equal"),
    ("squeezebert", {"q_groups": 3}, InputError, "split over the groups"),
    ("convbert", {"conv_kernel_size": 4}, InputError, "must be odd"),
    ("convbert", {"summary_type": "attn"}, InputError, "one of first, last, mean"),
    ("rembert", {"tie_word_embeddings": True}, Unsupported, "decoupled"),
    ("distilbert", {"dim": 30}, InputError, "dim must split over the heads: 30 is not a multiple of 4"),
    ("distilbert", {"hidden_size": 32}, InputError, "unknown key hidden_size"),
    ("distilbert", {"activation": "geluu"}, Unsupported, "'geluu' is not supported"),
    ("roberta", {"hidden_size": 30}, InputError, "30 is not a multiple of 4"),
    ("roberta", {"pad_token_id": 65}, InputError, "leaves no row for a token after pad_token_id=65"),
    ("mpnet", {"hidden_size": 30}, InputError, "30 is not a multiple of 4"),
    ("mpnet", {"relative_attention_num_buckets": 16}, InputError, "num_buckets=16; distances are in 32 buckets"),
    ("mpnet", {"max_position_embeddings": 2}, InputError, "leaves no row for a token after the 2"),
    ("mpnet", {"type_vocab_size": 2}, InputError, "unknown key type_vocab_size"),
    ("albert", {"hidden_size": 30}, InputError, "30 is not a multiple of 4"),
    ("albert", {"inner_group_num": 257}, InputError, "inner_group_num=257 in a AlbertConfig; at most 256"),
    ("albert", {"num_hidden_groups": 257}, InputError, "num_hidden_groups=257 in a AlbertConfig; at most 256"),
    ("albert", {"num_hidden_layers": 64, "inner_group_num": 17}, InputError, "in 64 layers make 1,088; at most 1,024"),
    ("mobilebert", {"intra_bottleneck_size": 18}, InputError, "18 is not a multiple of 4"),
    ("mobilebert", {"normalization_type": "rms"}, InputError, "normalization_type='rms'; it must be one of no_norm"),
    ("mobilebert", {"true_hidden_size": 24}, InputError, "true_hidden_size=24, and the other keys make 16"),
    ("mobilebert", {"key_query_shared_bottleneck": False}, InputError, "gives attention 32 channels .* weights for 16"),
    ("mobilebert", {"num_hidden_layers": 256, "num_feedforward_networks": 5}, InputError, "make 1,280; at most 1,024"),
    ("electra", {"hidden_size": 30}, InputError, "30 is not a multiple of 4"),
    ("electra", {"summary_type": "cls_index"}, InputError, "one of first, last, mean"),
    ("electra", {"add_cross_attention": True}, Unsupported, "add_cross_attention=True"),
    ("deberta-v2", {"hidden_size": 30}, InputError, "30 is not a multiple of 4"),
    ("deberta-v2", {"pos_att_type": ["c2c"]}, InputError, "a list of c2p and p2c is needed"),
    ("deberta-v2", {"conv_kernel_size": 4}, InputError, "conv_kernel_size=4; it must be odd"),
    ("deberta-v2", {"conv_kernel_size": 3, "conv_groups": 5}, InputError, "32 is not a multiple of 5"),
    ("deberta-v2", {"position_buckets": 1}, InputError, "position_buckets=1 for distances below 64"),
    ("deberta-v2", {"position_buckets": -2}, InputError, "position_buckets=-2 in a DebertaV2Config; at least -1"),
    ("deberta-v2", {"attention_head_size": 64}, Unsupported, "attention_head_size=64 is not supported; only 8"),
    ("deberta-v2", {"z_steps": 2}, Unsupported, "z_steps=2"),
    ("deberta-v2", {"legacy": False, "embedding_size": 16}, Unsupported, "as wide as hidden_size"),
    ("modernbert", {"num_attention_heads": 32}, InputError, "heads are 1 wide; rotary positions turn pairs"),
    ("modernbert", {"layer_types": ["full_attention"]}, InputError, "1 layer_types for num_hidden_layers=3"),
    ("modernbert", {"layer_types": ["chunked_attention"] * 3}, InputError, "a list of full_attention and"),
    ("modernbert", {"classifier_pooling": "max"}, InputError, "one of cls, mean"),
    ("modernbert", {"global_rope_theta": 0.5}, InputError, "global_rope_theta=0.5 .* at least 1 is taken"),
    ("modernbert", {"rope_scaling": {"rope_type": "yarn"}}, Unsupported, "rope_type='yarn'"),
    ("modernbert", {"rope_parameters": {"full_attention": {"factor": 2}}}, InputError, "unknown key factor"),
    ("modernbert", {"max_position_embeddings": 1 << 20, "hidden_size": 1 << 10}, InputError, "fewer are taken"),
    ("nomic_bert", {"num_experts": 8}, Unsupported, "num_experts=8"),
    ("nomic_bert", {"moe_every_n_layers": 2}, Unsupported, "moe_every_n_layers=2"),
    ("nomic_bert", {"rotary_emb_fraction": 0.5}, Unsupported, "rotary_emb_fraction=0.5"),
    ("nomic_bert", {"rotary_emb_interleaved": True}, Unsupported, "rotary_emb_interleaved=True"),
    ("nomic_bert", {"prenorm": True}, Unsupported, "prenorm=True"),
    ("nomic_bert", {"use_rms_norm": True}, Unsupported, "use_rms_norm=True"),
    ("nomic_bert", {"head_dim": 16}, Unsupported, "head_dim=16 is not supported; only 8"),
    ("nomic_bert", {"n_embd": 32}, Unsupported, "rotary_emb_fraction=0.0"),
    (
        "nomic_bert",
        {"n_embd": 32, "rotary_emb_fraction": 1.0, "activation_function": "gelu"},
        Unsupported,
        "whose feed-forward has a gate",
    ),
]


# What has no place in a config, and what would fill the memory: refused by the field's name.
BAD_CONFIGS += [
    ("bert", {"num_hidden_layers": 10**6}, InputError, "num_hidden_layers=1000000 in a BertConfig; at most 256"),
    ("distilbert", {"n_layers": 257}, InputError, "n_layers=257 in a DistilBertConfig; at most 256"),
    ("bert", {"hidden_size": 10**18}, InputError, "hidden_size=1000000000000000000 in a BertConfig; at most 1,048,576"),
    ("rembert", {"output_embedding_size": 10**30}, InputError, "output_embedding_size=10{30} in a RemBertConfig"),
    ("squeezebert", {"vocab_size": 2**31}, InputError, "vocab_size=2147483648 in a SqueezeBertConfig"),
    ("convbert", {"head_ratio": 10**9}, InputError, "head_ratio=1000000000 in a ConvBertConfig"),
    ("electra", {"max_position_embeddings": -1}, InputError, "max_position_embeddings=-1 .* must be positive"),
    ("bert", {"pad_token_id": -1}, InputError, "pad_token_id=-1 in a BertConfig; it must be positive"),
    ("bert", {"hidden_size": 32.0}, InputError, "hidden_size=32.0 in a BertConfig; a value of type int is needed"),
    ("bert", {"hidden_size": True}, InputError, "hidden_size=True in a BertConfig; a value of type int is needed"),
    ("bert", {"hidden_size": None}, InputError, "hidden_size=None in a BertConfig"),
    ("bert", {"hidden_size": [32] * 10**5}, InputError, r"hidden_size=\[32, 32, .{60,80} in a BertConfig"),
    ("bert", {"layer_norm_eps": -1e-12}, InputError, "layer_norm_eps=-1e-12 .* must be positive"),
    ("bert", {"layer_norm_eps": 0}, InputError, "layer_norm_eps=0.0 .* must be positive"),
    ("bert", {"layer_norm_eps": 1e300}, InputError, "layer_norm_eps=1e\\+300 in a BertConfig; at most 1.0"),
    ("bert", {"layer_norm_eps": "1e-12"}, InputError, "layer_norm_eps='1e-12' .* type float is needed"),
    ("bert", {"initializer_range": 10**30}, InputError, "initializer_range=1e\\+30 in a BertConfig"),
    ("bert", {"hidden_act": ["gelu"]}, InputError, "hidden_act=.* type str is needed"),
    ("bert", {"num_labels": 10**8}, InputError, "num_labels=100000000; an integer from 1 to 1,048,576"),
    ("bert", {"num_labels": "3"}, InputError, "num_labels='3'; an integer"),
    ("bert", {"num_labels": -3}, InputError, "num_labels=-3; an integer"),
    ("bert", {"id2label": {}}, InputError, "each is needed once"),
    ("bert", {"id2label": "ab"}, InputError, "id2label='ab'; a map"),
    ("bert", {"id2label": {"0": ["a"], "1": "b"}}, InputError, "a map from label number to name"),
    ("bert", {"id2label": {"0": None}}, InputError, "a map from label number to name"),
    ("bert", {"id2label": {"-1": "a", "0": "b"}}, InputError, "a map from label number to name"),
    ("bert", {"id2label": {"\u0660": "a"}}, InputError, "a map from label number to name"),
    ("bert", {"id2label": {"9" * 5000: "a"}}, InputError, "a map from label number to name"),
    ("bert", {"id2label": {"0": "a", "00": "b"}}, InputError, "each is needed once"),
    ("bert", {"is_decoder": []}, Unsupported, r"is_decoder=\[\] is not supported"),
    ("bert", {"pruned_heads": {"0": [1]}}, Unsupported, "pruned_heads="),
    (
        "bert", {"hidden_size": 2**20, "intermediate_size": 2**20}, InputError,
        "vocab_size=120, hidden_size=1048576, .* make [0-9,]+ parameters; at most 4,000,000,000",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "changes", "error", "text"), BAD_CONFIGS)
def test_bad_config_is_refused(name: str, changes: dict[str, object], error: type[Exception], text: str) -> None:
    family = MODELS[name]
    raw = {key: value for key, value in dataclasses.asdict(family.config.tiny()).items() if value != ()}
    del raw["labels"], raw["pooling"]
    with pytest.raises(error, match=text):
        outline(family, family.config.from_hf(raw | changes), "base")


def test_labels_are_named_by_texts_and_by_numbers() -> None:
    config = MODELS["bert"].config
    assert config.from_hf({"id2label": {"1": "b", "0": "a", "2": 7}}).labels == ("a", "b", "7")
    assert config.from_hf({"id2label": {"3": "c", "1": "a", "2": "b"}}).labels == ("a", "b", "c")
    assert config.from_hf({"num_labels": 3}).labels == ("LABEL_0", "LABEL_1", "LABEL_2")
