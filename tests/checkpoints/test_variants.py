"""Checkpoints as people have them: what loads, and what is refused with a line that leads on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from answering import LETTERS, labelled, save, save_sentence_encoder
from safetensors.torch import load_file, save_file
from torch import Tensor

import edgebert
from edgebert.checkpoints.checkpoint import Checkpoint
from edgebert.errors import EdgebertError

Make = Callable[[Path], Path]
CLASSES = "sequence-classification"


def config(task: str = CLASSES, **changes: Any) -> Make:
    """A folder whose config.json has other values; None takes a key away."""

    def make(folder: Path) -> Path:
        path = save(folder, task) / "config.json"
        raw = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({key: value for key, value in raw.items() if value is not None}))
        return folder

    return make


def tensors(change: Callable[[dict[str, Tensor]], dict[str, Tensor]], task: str = CLASSES) -> Make:
    """A folder with other tensors."""

    def make(folder: Path) -> Path:
        path = save(folder, task) / "model.safetensors"
        save_file(change(load_file(path)), path, metadata={"format": "pt"})
        return folder

    return make


def prefixed(prefix: str, task: str = CLASSES) -> Make:
    return tensors(lambda found: {prefix + name: tensor for name, tensor in found.items()}, task)


def without(part: str, task: str) -> Make:
    return tensors(lambda found: {name: tensor for name, tensor in found.items() if part not in name}, task)


def plain(task: str = CLASSES, family: str = "bert", **changes: Any) -> Make:
    return lambda folder: save(folder, task, family, **changes)


def numbered_from_one(rows: int) -> Make:
    """Labels 1 to 5, and a head with so many rows."""

    def make(folder: Path) -> Path:
        names = [f"kind_{i}" for i in range(rows)]
        path = save(folder, CLASSES, **labelled(*names), num_labels=rows) / "config.json"
        raw = json.loads(path.read_text()) | {"id2label": {str(i): f"star {i}" for i in range(1, 6)}}
        path.write_text(json.dumps(raw))
        return folder

    return make


def inside(folder: Path) -> Path:
    """An old folder of sentence-transformers: the encoder below it."""
    save_sentence_encoder(folder)
    inner = folder / "0_Transformer"
    inner.mkdir()
    for path in list(folder.iterdir()):
        if path.is_file() and path.name != "modules.json":
            path.rename(inner / path.name)
    path = folder / "modules.json"
    path.write_text(path.read_text().replace('"path": ""', '"path": "0_Transformer"', 1))
    return folder


def without_modules(folder: Path) -> Path:
    (inside(folder) / "modules.json").unlink()
    return folder


def module(kind: str) -> Make:
    """A sentence encoder whose last module is of another kind."""

    def make(folder: Path) -> Path:
        path = save_sentence_encoder(folder) / "modules.json"
        path.write_text(path.read_text().replace("Normalize", kind))
        return folder

    return make


def adapter(folder: Path) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "bert-base-uncased", "peft_type": "LORA"}')
    return folder


def words(extra: int) -> Make:
    """A tokenizer with more entries than the table has rows, or fewer."""

    def make(folder: Path) -> Path:
        save(folder, CLASSES)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (folder / name).unlink()
        lines = (folder / "vocab.txt").read_text().splitlines()
        lines = lines[:extra] if extra < 0 else [*lines, *(f"more{i}" for i in range(extra))]
        (folder / "vocab.txt").write_text("\n".join(lines) + "\n")
        return folder

    return make


def japanese(*dropped: str) -> Make:
    """A folder whose tokenizer is said to be BertJapanese's, less some files."""

    def make(folder: Path) -> Path:
        save(folder, CLASSES)
        (folder / "tokenizer_config.json").write_text(
            '{"tokenizer_class": "BertJapaneseTokenizer", "word_tokenizer_type": "mecab"}'
        )
        for name in dropped:
            (folder / name).unlink()
        return folder

    return make


def xlmr(folder: Path) -> Path:
    """A BERT with XLM-R's tokenizer: a Unigram model, <s> A </s></s> B </s>, all of type 0."""
    import tokenizers
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

    save(folder, CLASSES)
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((f"▁{a}", -3.0) for a in LETTERS)]
    pieces += [*((a, -4.0) for a in LETTERS), ("<mask>", 0.0)]
    made = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=3))
    made.normalizer, made.pre_tokenizer = normalizers.NFKC(), pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    special = [("<s>", 0), ("</s>", 2)]
    made.post_processor = processors.TemplateProcessing("<s> $A </s>", "<s> $A </s> </s> $B </s>", special)
    (folder / "vocab.txt").unlink()
    (folder / "tokenizer.json").write_text(made.to_str())
    told = {"cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(told | {"tokenizer_class": "XLMRobertaTokenizer"}))
    return folder


# What loads: how it is made, how it is asked for, the task that comes, and what its notes say.
LOADS: dict[str, tuple[Make, dict[str, Any], str, str]] = {
    "as it comes": (plain(), {}, CLASSES, ""),
    **{
        f"key {key}": (config(**{key: value}), {}, CLASSES, key)
        for key, value in {
            "sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity",
            "sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"},
            "eos_token_ids": [3],
            "xla_device": True,
            "_attn_implementation": "sdpa",
            "attn_implementation": "eager",
            "adapters": {"adapters": {}},
            "auto_map": {"AutoModel": "modeling.Mine"},
            "train_batch_size": 8,
            "keys_to_ignore_at_inference": ["x"],
            "unsloth_version": "1",
            "model_max_length": 512,
        }.items()
    },
    "key of null": (config(sliding_window=None), {}, CLASSES, ""),
    "key that is left out": (
        config(sliding_window=4),
        {"ignore_config": ["sliding_window"]},
        CLASSES,
        "sliding_window",
    ),
    **{
        f"{prefix} before {task}": (prefixed(prefix, task), {}, task, prefix)
        for prefix in ("module.", "model.", "_orig_mod.", "base_model.model.", "module._orig_mod.", "0.auto_model.")
        for task in (CLASSES, "base")
    },
    "a loss": (tensors(lambda t: t | {"loss.weight": torch.ones(3)}), {}, CLASSES, "loss.weight"),
    "a second head": (tensors(lambda t: t | {"ner.weight": torch.ones(2, 2)}), {}, CLASSES, "ner.weight"),
    "no pooler": (without("pooler", "base"), {}, "base", "no pooler"),
    **{
        f"{wanted} of {task}": (plain(task), {"task": wanted}, wanted, "")
        for wanted in ("base", "sentence-embedding")
        for task in ("masked-lm", CLASSES, "multiple-choice", "token-classification", "question-answering")
    },
    "one token type": (plain(type_vocab_size=1), {}, CLASSES, ""),
    "labels from 1": (numbered_from_one(5), {}, CLASSES, ""),
    "labels from 1, a row without a name": (numbered_from_one(6), {}, CLASSES, ""),
    "labels in any order": (config(id2label={str(i): f"k{i}" for i in (3, 0, 4, 1, 2)}), {}, CLASSES, ""),
    "more words than rows": (words(30), {}, CLASSES, ""),
    "fewer words than rows": (words(-30), {}, CLASSES, ""),
    "XLM-R's tokenizer": (xlmr, {}, CLASSES, ""),
    "a tokenizer.json for Japanese": (japanese(), {}, CLASSES, ""),
    "no architectures": (config("base", architectures=None), {}, "base", ""),
    "no architectures, a task": (config(architectures=None), {"task": CLASSES}, CLASSES, ""),
    "text-classification": (plain(), {"task": "text-classification"}, CLASSES, ""),
    "ner": (plain("token-classification"), {"task": "ner"}, "token-classification", ""),
    "fill-mask": (plain("masked-lm"), {"task": "fill-mask"}, "masked-lm", ""),
    "feature-extraction": (plain("base"), {"task": "feature-extraction"}, "base", ""),
    "sentence-similarity": (plain("base"), {"task": "sentence-similarity"}, "sentence-embedding", ""),
    "a head that is drawn": (plain("base"), {"task": CLASSES, "random_head": True}, CLASSES, "are random, seed 0"),
    "another head, drawn": (plain("masked-lm"), {"task": CLASSES, "random_head": True}, CLASSES, "are random, seed 0"),
    "a sentence encoder": (save_sentence_encoder, {}, "sentence-embedding", ""),
    "a sentence encoder's states": (save_sentence_encoder, {"task": "base"}, "base", ""),
    "an old sentence encoder": (inside, {}, "sentence-embedding", ""),
}

# What is refused, and the part of its line that leads on.
REFUSED: dict[str, tuple[Make, dict[str, Any], str]] = {
    "a key that may change the model": (config(sliding_window=4), {}, "--ignore-config sliding_window"),
    "quantized weights": (config(quantization_config={"bits": 4}), {}, "unknown key quantization_config"),
    "a key that is not there": (plain(), {"ignore_config": ["x"]}, "has no such key"),
    "a layer more": (
        tensors(lambda t: t | {"bert.encoder.layer.7.output.dense.bias": torch.ones(3)}), {}, "left over 1: bert.enc",
    ),
    "an adapter in the encoder": (
        tensors(lambda t: t | {"bert.encoder.layer.0.output.adapter.bias": torch.ones(3)}), {}, "left over 1: bert",
    ),
    "a layer less": (without("layer.1", CLASSES), {}, r"missing 16: bert.encoder.layer.1.\(.* and 6 more"),
    "half a pooler": (without("pooler.dense.bias", "base"), {}, "missing 1: pooler.dense.bias"),
    "another task": (plain(), {"task": "token-classification"}, "is a BertForSequenceClassification, for sequence-cl"),
    "a head that is not there": (plain("base"), {"task": CLASSES}, "--random-head for a head that is to be trained"),
    "no such task": (plain(), {"task": "classification"}, "did you mean sequence-classification"),
    "words for Japanese": (japanese("tokenizer.json"), {}, "BertJapaneseTokenizer.* save it as a tokenizer.json"),
    "an adapter": (adapter, {}, "an adapter .* for 'bert-base-uncased': merge it"),
    "an older sentence encoder": (without_modules, {}, "0_Transformer in it have one: give that folder"),
    "a module that is not known": (module("Router"), {}, "modules Transformer, Pooling, Router"),
    "a sparse encoder": (module("SpladePooling"), {}, "SpladePooling; Transformer, Pooling"),
    "no such prompt": (save_sentence_encoder, {"prompt": "x"}, "has no prompt 'x'; there are document, query"),
    "a prompt for a classifier": (plain(), {"prompt": "query"}, "only a sentence encoder has prompts"),
    "another pooling": (lambda f: save_sentence_encoder(f, modes="weightedmean"), {}, "pooling weightedmean is not"),
}  # fmt: skip


def test_there_are_many() -> None:
    assert len(LOADS) + len(REFUSED) >= 60


@pytest.mark.parametrize("kind", LOADS)
def test_it_loads(tmp_path: Path, kind: str) -> None:
    make, how, task, told = LOADS[kind]
    loaded = edgebert.load(make(tmp_path / "checkpoint"), **how)
    assert loaded.model.task == task
    assert told in " ".join(loaded.notes)
    answered(loaded)


def answered(loaded: Checkpoint) -> None:
    """See that the model takes what its tokenizer makes of a pair."""
    assert loaded.tokenizer is not None
    made = loaded.tokenizer.batch([("the red house", "is it?")])
    types = made["token_type_ids"].clip(max=loaded.model.config.type_vocab_size - 1)
    outputs = loaded.model(*map(torch.from_numpy, (made["input_ids"], made["attention_mask"], types)))
    assert all(bool(torch.isfinite(value).all()) for value in outputs.values())


@pytest.mark.parametrize("kind", REFUSED)
def test_it_is_refused_with_a_line_that_leads_on(tmp_path: Path, kind: str) -> None:
    make, how, text = REFUSED[kind]
    folder = make(tmp_path / "checkpoint")
    with pytest.raises(EdgebertError, match=text) as caught:
        edgebert.load(folder, **how)
    assert "\n" not in str(caught.value)


def test_labels_keep_their_numbers(tmp_path: Path) -> None:
    for rows, first in ((5, "star 1"), (6, "LABEL_0")):
        loaded = edgebert.load(numbered_from_one(rows)(tmp_path / str(rows)))
        assert loaded.model.config.labels[0] == first
        assert loaded.model.config.labels[-1] == "star 5"


def test_a_wrapped_checkpoint_is_the_plain_one(tmp_path: Path) -> None:
    one, other = (edgebert.load(make(tmp_path / name)) for name, make in (("a", plain()), ("b", prefixed("module."))))
    for name, tensor in one.model.state_dict().items():
        assert torch.equal(tensor, other.model.state_dict()[name])


def test_xlmrs_tokenizer_makes_transformers_ids(tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    folder = xlmr(tmp_path / "checkpoint")
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    ours = edgebert.load(folder).tokenizer
    assert ours is not None
    for pair in (("abc de",), ("abc de", "fgh")):
        assert ours.encode(*pair).ids == theirs(*pair)["input_ids"]
        assert set(ours.encode(*pair).token_type_ids) == {0}
    assert [window.ids[0] for window in ours.windows("ab", "c d e f g h i j k l", 10, 2)] == [0, 0, 0, 0]
