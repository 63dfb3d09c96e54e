"""Reading a Hugging Face `config.json` strictly: an unknown key raises, for it may change what the model computes."""

import dataclasses
import fnmatch
import re
from collections.abc import Mapping
from typing import Any, TypeVar

from edgebert.errors import InputError, Unsupported

# Keys that every transformers version may write and that do not change an inference.
IGNORED = frozenset({
    "_attn_implementation_autoset", "_commit_hash", "_name_or_path", "_num_labels", "add_cross_attention",
    "architectures", "attention_probs_dropout_prob", "bad_words_ids", "begin_suppress_tokens", "bos_token_id",
    "chunk_size_feed_forward", "classifier_dropout", "classifier_dropout_prob", "cls_token_id",
    "cross_attention_hidden_size", "decoder_start_token_id", "directionality", "diversity_penalty", "do_sample",
    "dtype", "early_stopping", "encoder_no_repeat_ngram_size", "eos_token_id", "exponential_decay_length_penalty",
    "finetuning_task", "forced_bos_token_id", "forced_eos_token_id", "gradient_checkpointing", "hidden_dropout_prob",
    "id2label", "is_encoder_decoder", "label2id", "language", "length_penalty", "mask_token_id", "max_length",
    "min_length", "model_type", "name", "no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_labels",
    "num_return_sequences", "output_attentions", "output_hidden_states", "output_past", "output_scores",
    "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers", "pooler_size_per_head", "pooler_type",
    "prefix", "problem_type", "pruned_heads", "remove_invalid_values", "repetition_penalty", "return_dict",
    "return_dict_in_generate", "sep_token_id", "suppress_tokens", "task_specific_params", "temperature",
    "tf_legacy_loss", "tie_encoder_decoder", "tokenizer_class", "top_k", "top_p", "torch_dtype", "torchscript",
    "transformers.js_config", "transformers_version", "typical_p", "use_bfloat16", "use_cache",
})  # fmt: skip

# Keys, as patterns, that trainers, adapters and wrappers of models leave, and that do not change an inference either:
# they are told, for nobody but their own tool knows what they are for.
TOLD = (
    "_*", "adapter*", "attn_implementation", "auto_map", "base_model_name_or_path", "custom_pipelines", "eos_token_ids",
    "freeze*", "function_to_apply", "inference", "keys_to_ignore*", "license", "loss_*", "max_seq_len*",
    "model_max_length", "onnx*", "optimum*", "peft*", "pipeline_tag", "sbert_*", "sentence_transformers", "tags",
    "tokenizer_*", "train*", "unk_token_id", "unsloth*", "widget", "xla_device",
)  # fmt: skip

# Keys that do change an inference, and the values this project's definitions stand for.
FIXED: Mapping[str, tuple[Any, ...]] = {
    "is_decoder": (False, None),
    "add_cross_attention": (False, None),
    "is_encoder_decoder": (False, None),
    "position_embedding_type": ("absolute", None),
    "pruned_heads": ({}, None),
}

# Far above what any published encoder of these families has (501,153 pieces of LaBSE, 48 layers, 1.0 billion parameters
# of a RemBERT for masked-lm): what asks for more is damaged, and would fill the memory before anything else fails.
LARGEST = 1 << 20
DEEPEST = 256
PARAMETERS = 4_000_000_000
SHOWN = 10  # names in a message
ANGLES = 1 << 26  # of rotary positions: 64 channels of a million tokens
MINUTE = 1e-30  # an epsilon below is none in float32
DEPTHS = ("num_hidden_layers", "n_layers", "num_hidden_groups", "inner_group_num", "num_feedforward_networks")
BLOCKS = 1024  # a layer's parts that come several times, of all layers

Config = TypeVar("Config")


def within(default: Any, least: float, most: float) -> Any:
    """A config's field whose numbers may be others than from 1 to LARGEST, or a fraction up to 1."""
    return dataclasses.field(default=default, metadata={"least": least, "most": most})


def parse(cls: type[Config], raw: Mapping[str, Any], ignored: frozenset[str] = frozenset()) -> Config:
    """Make the frozen config `cls` from the parsed `config.json`.

    Args:
        cls: a frozen dataclass whose fields carry Hugging Face's names, plus `labels`.
        raw: the parsed `config.json`.
        ignored: further keys of this family that do not change an inference.

    Raises:
        InputError: a key is unknown, or a value has the wrong type or range.
        Unsupported: a known key asks for a variant that is not defined here.
    """
    fields = _fields(cls)
    for key, allowed in FIXED.items():
        if key in raw and key not in fields and raw[key] not in allowed:
            raise Unsupported(f"config.json: {key}={raw[key]!r:.80} is not supported; only {allowed[0]!r} is.")
    unknown = sorted(set(raw) - set(fields) - IGNORED - set(FIXED) - ignored)
    if odd := [key for key in unknown if raw[key] is not None and not _told(key)]:
        named = ", ".join(odd[:SHOWN]) + (f" and {len(odd) - SHOWN} more" if len(odd) > SHOWN else "")
        raise InputError(
            f"config.json: unknown key{'s' * (len(odd) > 1)} {named} for {cls.__name__}, which may change the model. "
            f"Known: {', '.join(sorted(fields))}. Leave out what does not with --ignore-config {odd[0]}."
        )
    values = {key: _typed(cls, fields[key], raw[key]) for key in fields if key in raw}
    values["labels"] = _labels(raw)
    return cls(**values)


def unread(raw: Mapping[str, Any]) -> list[str]:
    """The keys of a `config.json` that `parse` lets pass and that only their own tool knows the meaning of."""
    return sorted(key for key in raw if key not in IGNORED and _told(key))


def _told(key: str) -> bool:
    return any(fnmatch.fnmatchcase(key, pattern) for pattern in TOLD)


def _fields(cls: type) -> dict[str, Any]:
    """The fields that stand in a `config.json` under their own names."""
    return {field.name: field for field in dataclasses.fields(cls) if field.name not in ("labels", "pooling")}


def _typed(cls: type, field: Any, value: Any) -> Any:
    """Check a JSON value against the type of the field's default."""
    kind = type(field.default)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if value is None and field.name == "pad_token_id":
        return field.default
    if type(value) is not kind:
        raise InputError(
            f"config.json: {field.name}={_shown(value)} in a {cls.__name__}; a value of type {kind.__name__} is needed."
        )
    # A token id or a spread may be 0; a size, a count or an epsilon may not.
    usual = 0 if field.name in ("pad_token_id", "initializer_range") else 1 if kind is int else MINUTE
    least = field.metadata.get("least", usual)
    if kind in (int, float) and value < least:
        bound = f"at least {least} is taken" if "least" in field.metadata else "it must be positive"
        raise InputError(f"config.json: {field.name}={value} in a {cls.__name__}; {bound}.")
    most = {int: DEEPEST if field.name in DEPTHS else LARGEST, float: 1.0}.get(kind)
    most = field.metadata.get("most", most)
    if most is not None and value > most:
        raise InputError(f"config.json: {field.name}={value} in a {cls.__name__}; at most {most:,} is taken.")
    return value


def _shown(value: Any) -> str:
    """A value in a message, cut short."""
    return f"{value!r:.80}"


def _labels(raw: Mapping[str, Any]) -> tuple[str, ...]:
    """Label names in id order; transformers' own two default labels when the file names none."""
    numbered = label_numbers(raw)
    if numbered is not None:
        return tuple(numbered[number] for number in sorted(numbered))
    count = raw.get("num_labels", raw.get("_num_labels", 2))
    if type(count) is not int or not 0 < count <= LARGEST:
        raise InputError(f"config.json: num_labels={_shown(count)}; an integer from 1 to {LARGEST:,} is needed.")
    return tuple(f"LABEL_{i}" for i in range(count))


def label_numbers(raw: Mapping[str, Any]) -> dict[int, str] | None:
    """Label names by number, which may start at 1 or have gaps; None when the file names none.

    Raises:
        InputError: it is no map from numbers to names.
    """
    named = raw.get("id2label")
    if named is None:
        return None
    if not isinstance(named, dict) or not all(
        re.fullmatch("[0-9]{1,7}", str(key)) and type(name) in (str, int, float) for key, name in named.items()
    ):
        raise InputError(f"config.json: id2label={_shown(named)}; a map from label number to name is needed.")
    by_number = {int(key): str(name) for key, name in named.items()}
    if not by_number or len(by_number) < len(named) or max(by_number) > LARGEST:
        raise InputError(f"config.json: id2label numbers {sorted(by_number)[:SHOWN]}; each is needed once, from 0 on.")
    return by_number


def only(raw: Mapping[str, Any], allowed: Mapping[str, tuple[Any, ...]]) -> None:
    """Raise Unsupported where a key of `raw` asks for another variant than the values that are defined here."""
    for key, values in allowed.items():
        if key in raw and raw[key] not in values:
            raise Unsupported(f"config.json: {key}={_shown(raw[key])} is not supported; only {values[0]!r} is.")


def words(cls: type, key: str, value: Any, known: tuple[str, ...]) -> tuple[str, ...]:
    """A list of `known` words from a `config.json`, or what `a|b` writes of one; none for null.

    Raises:
        InputError: it is no list, or has other words.
    """
    parts = [part.strip() for part in value.lower().split("|")] if isinstance(value, str) else value or []
    if not isinstance(parts, list | tuple) or not all(part in known for part in parts):
        raise InputError(
            f"config.json: {key}={_shown(value)} in a {cls.__name__}; a list of {' and '.join(known)} is needed."
        )
    return tuple(parts)


def rope_theta(raw: Mapping[str, Any], parameters: Any, key: str, default: float) -> Any:
    """The base of rotary angles: as `rope_parameters` have it, else under its older `key`, else the default.

    Args:
        raw: the parsed `config.json`.
        parameters: what it says of one kind of rotary positions, by transformers' newer names; None where nothing.
        key: the older name.
        default: transformers' own.

    Raises:
        InputError: the parameters are no map.
        Unsupported: angles that are not plain: scaled, or of a part of the channels.
    """
    if parameters is None:
        parameters = {}
    if not isinstance(parameters, dict):
        raise InputError(f"config.json: rope_parameters={_shown(parameters)}; a map is needed.")
    only(parameters, {"rope_type": ("default",), "type": ("default",), "partial_rotary_factor": (1.0, None)})
    if more := sorted(set(parameters) - {"rope_type", "type", "partial_rotary_factor", "rope_theta"}):
        raise InputError(f"config.json: unknown key {more[0]:.80} in rope_parameters, which may change the model.")
    theta = parameters.get("rope_theta")
    if theta is None:
        theta = raw.get(key)
    return default if theta is None else theta


def require_rotary(width: int, parts: int, positions: int) -> None:
    """Raise InputError where heads have no pairs of channels to turn, or the table of angles would fill the memory."""
    if width // parts % 2:
        raise InputError(f"config.json: heads are {width // parts} wide; rotary positions turn pairs of channels.")
    if width // parts * positions > ANGLES:
        raise InputError(f"config.json: {positions:,} positions of heads {width // parts:,} wide; fewer are taken.")


def require_divisible(total: int, parts: int, what: str) -> None:
    """Raise InputError unless `parts` divides `total`, as heads and groups must."""
    if total % parts:
        raise InputError(f"config.json: {what}: {total} is not a multiple of {parts}.")


def require_shallow(layers: int, each: int, what: str) -> None:
    """Raise InputError where `layers` of `each` parts are more than any model has."""
    if layers * each > BLOCKS:
        raise InputError(
            f"config.json: {what}={each} in {layers} layers make {layers * each:,}; at most {BLOCKS:,} fit."
        )
