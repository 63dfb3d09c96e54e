"""edgebert's ids against those of transformers, for the same files, on text of every kind."""

import json
import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import cases
import numpy as np
import pipelines
import pytest
import tokenizers
import transformers
from cases import PAIRS, PROSE, SHORT, SHORT_PAIRS, SOME, TEXTS
from hypothesis import given, settings
from hypothesis import strategies as st
from pipelines import PIPELINES
from sentencepiece import sentencepiece_model_pb2
from tokenizers import processors
from trained import minilm
from transformers.convert_slow_tokenizer import RemBertConverter
from words import trained_merges, trained_model, trained_vocab

from edgebert.errors import InputError
from edgebert.tokenizers import tokenizer, vocabulary
from edgebert.tokenizers.tokenizer import Tokenizer


def write(folder: Path, **files: object) -> Path:
    """Writes `tokenizer_config={...}` as JSON and `vocab_txt="..."` or `a_model=b"..."` as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if isinstance(content, dict):
            (folder / f"{name}.json").write_text(json.dumps(content))
        else:
            head, _, suffix = name.rpartition("_")
            (folder / f"{head}.{suffix}").write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


@pytest.fixture(scope="module")
def vocabs() -> dict[bool, str]:
    return {lowercase: trained_vocab(lowercase) for lowercase in (True, False)}


@pytest.fixture(scope="module")
def model() -> bytes:
    return trained_model()


def rembert(folder: Path) -> transformers.RemBertTokenizer:
    """transformers' tokenizer for a bare .model. 5.23 loses [CLS] and [SEP] on this path, so they are put back."""
    theirs = transformers.RemBertTokenizer.from_pretrained(folder)
    theirs.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(name, theirs.convert_tokens_to_ids(name)) for name in ("[CLS]", "[SEP]")],
    )
    return theirs


FIELDS = {name: name for name in ("attention_mask", "token_type_ids", "special_tokens_mask")}
FIELDS |= {"input_ids": "ids", "offset_mapping": "offsets"}


def assert_same(ours: Tokenizer, theirs: object, texts: list, max_length: int | None = None) -> None:
    """Every field of every encoding is equal, and so are the padded arrays."""
    firsts, seconds = [t if isinstance(t, str) else t[0] for t in texts], [t[1] for t in texts if isinstance(t, tuple)]
    wanted = theirs(
        firsts, seconds or None, truncation=max_length is not None, max_length=max_length, return_token_type_ids=True,
        return_offsets_mapping=True, return_special_tokens_mask=True,
    )  # fmt: skip
    for i, text in enumerate(texts):
        got = ours.encode(*([text] if isinstance(text, str) else text), max_length=max_length)
        for name, field in FIELDS.items():
            assert getattr(got, field) == wanted[name][i], (name, text)
        assert got.tokens == wanted.tokens(i), text
        assert [None if word < 0 else word for word in got.words] == wanted.word_ids(i), text
    arrays = ours.batch(texts, max_length=max_length)
    width = max(map(len, wanted["input_ids"]))
    for name, fill in (("input_ids", theirs.pad_token_id), ("attention_mask", 0), ("token_type_ids", 0)):
        rows = [row + [fill] * (width - len(row)) for row in wanted[name]]
        np.testing.assert_array_equal(arrays[name], np.array(rows, dtype=np.int32), strict=True)


def assert_same_everywhere(ours: Tokenizer, theirs: object) -> None:
    assert_same(ours, theirs, TEXTS)
    assert_same(ours, theirs, PAIRS)
    for max_length in (3, 4, 7, 32):
        assert_same(ours, theirs, SHORT, max_length)
        assert_same(ours, theirs, SHORT_PAIRS, max(max_length, ours.specials(2)))
    assert_same(ours, theirs, TEXTS[:200], 64)


@pytest.mark.parametrize("cased", [False, True])
def test_wordpiece_against_transformers(tmp_path: Path, vocabs: dict[bool, str], cased: bool) -> None:
    config = {"do_lower_case": False} if cased else {}
    folder = write(tmp_path, vocab_txt=vocabs[not cased], **({"tokenizer_config": config} if config else {}))
    name = "SqueezeBertTokenizer" if cased else "BertTokenizer"
    ours = tokenizer.load(folder)
    assert (ours.kind, ours.max_length, ours.vocab_size) == ("wordpiece", None, vocabs[not cased].count("\n"))
    assert (ours.pad_id, ours.unk_id, ours.cls_id, ours.sep_id, ours.mask_id) == (0, 1, 2, 3, 4)
    assert_same_everywhere(ours, getattr(transformers, name).from_pretrained(folder))


@pytest.mark.parametrize("config", cases.CONFIGS, ids=lambda config: "+".join(config))
def test_wordpiece_config_against_transformers(tmp_path: Path, vocabs: dict[bool, str], config: dict) -> None:
    lines = vocabs[True].splitlines()[:700]
    folder = write(tmp_path, vocab_txt="\n".join(lines), tokenizer_config=config)
    assert_same(tokenizer.load(folder), transformers.BertTokenizer.from_pretrained(folder), SOME)


def test_special_tokens_map_and_added_tokens_against_transformers(tmp_path: Path, vocabs: dict[bool, str]) -> None:
    size = vocabs[True].count("\n")
    names = {"mask_token": {"content": "<mask>", "lstrip": True, "normalized": True}, "cls_token": "[SEP]"}
    added = {"<mask>": size, "<ent>": size + 1}
    folder = write(tmp_path, vocab_txt=vocabs[True], special_tokens_map=names, added_tokens=added)
    ours = tokenizer.load(folder)
    assert (ours.cls_id, ours.mask_id, ours.vocab_size) == (3, size, size + 2)
    assert_same(ours, transformers.BertTokenizer.from_pretrained(folder), [*SOME, "a <mask> b", "<MASK>", "x<ent>y"])


def test_mask_token_that_the_vocabulary_lacks_gets_the_next_id(tmp_path: Path, vocabs: dict[bool, str]) -> None:
    folder = write(tmp_path, vocab_txt=vocabs[True].replace("[MASK]\n", ""))
    ours, theirs = tokenizer.load(folder), transformers.BertTokenizer.from_pretrained(folder)
    assert ours.mask_id == theirs.mask_token_id == ours.vocab_size - 1
    assert_same(ours, theirs, SOME)


def test_all_minilm_from_both_its_files(tmp_path: Path) -> None:
    source = minilm()
    theirs = transformers.BertTokenizer.from_pretrained(source)
    for file in ("tokenizer.json", "vocab.txt"):
        folder = write(tmp_path / file)
        for name in (file, "tokenizer_config.json", "special_tokens_map.json"):
            shutil.copy(source / name, folder)
        ours = tokenizer.load(folder)
        assert (ours.vocab_size, ours.max_length, ours.cls_id, ours.mask_id) == (30522, 512, 101, 103)
        assert_same(ours, theirs, TEXTS)
        assert_same(ours, theirs, SHORT_PAIRS, max_length=16)
        assert tokenizer.load(folder / file).encode("as a file").ids == ours.encode("as a file").ids


@pytest.mark.parametrize("config", cases.REMBERT_CONFIGS, ids=lambda config: "+".join(config) or "none")
def test_rembert_against_transformers(tmp_path: Path, model: bytes, config: dict) -> None:
    folder = write(tmp_path, sentencepiece_model=model, **({"tokenizer_config": config} if config else {}))
    ours = tokenizer.load(folder)
    assert (ours.kind, ours.pad_id, ours.unk_id, ours.cls_id, ours.sep_id, ours.mask_id) == ("unigram", 0, 2, 3, 4, 5)
    if config:
        assert_same(ours, rembert(folder), SOME)
    else:
        assert_same_everywhere(ours, rembert(folder))


def test_rembert_with_the_names_of_its_checkpoint(tmp_path: Path) -> None:
    """google/rembert calls them [PAD] and [UNK], and says so in its config; without one they are found."""
    content = trained_model(pad_piece="[PAD]", unk_piece="[UNK]", user_defined_symbols=[])
    bare = tokenizer.load(write(tmp_path / "bare", spiece_model=content))
    config = {"pad_token": "[PAD]", "unk_token": "[UNK]", "model_max_length": 1e30, "keep_accents": True}
    folder = write(tmp_path / "named", sentencepiece_model=content, tokenizer_config=config)
    assert_same(tokenizer.load(folder), rembert(folder), SOME)
    assert_same(bare, rembert(folder), SOME)
    assert (bare.pad_id, bare.unk_id, bare.max_length) == (0, 2, None)


@pytest.mark.parametrize("rule", ["identity", "nmt_nfkc_cf"])
def test_rembert_conversion_of_other_layouts(tmp_path: Path, rule: str) -> None:
    """Where the unknown piece is not 2, transformers' class is wrong and its converter is right."""
    content = trained_model(normalization_rule_name=rule, unk_id=1, eos_id=-1, byte_fallback=True)
    folder = write(tmp_path, odd_model=content, tokenizer_config={"keep_accents": False})
    ids = {"[CLS]": 2, "[SEP]": 3}
    slow = SimpleNamespace(vocab_file=str(folder / "odd.model"), keep_accents=False, do_lower_case=False)
    slow.convert_tokens_to_ids = ids.__getitem__
    with pytest.warns(UserWarning, match="byte fallback"):
        theirs = RemBertConverter(slow).converted()
    theirs.add_special_tokens(["<pad>", "<unk>"])
    ours = tokenizer.load(folder)
    assert (ours.unk_id, ours.cls_id, ours.sep_id) == (1, 2, 3)
    for text in SOME:
        assert ours.encode(text).ids == theirs.encode(text).ids, text


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.text(max_size=60), st.text(max_size=60), st.integers(3, 40))
def test_any_text_against_transformers(all_kinds: list, text: str, pair: str, max_length: int) -> None:
    for ours, theirs in all_kinds:
        assert_same(ours, theirs, [text, pair])
        assert_same(ours, theirs, [(text, pair)], max(max_length, ours.specials(2)))


@pytest.fixture(scope="module")
def both_kinds(tmp_path_factory: pytest.TempPathFactory, vocabs: dict[bool, str], model: bytes) -> list:
    words = write(tmp_path_factory.mktemp("wordpiece"), vocab_txt=vocabs[True])
    pieces = write(tmp_path_factory.mktemp("unigram"), sentencepiece_model=model)
    return [
        (tokenizer.load(words), transformers.BertTokenizer.from_pretrained(words)),
        (tokenizer.load(pieces), rembert(pieces)),
    ]


@pytest.fixture(scope="module")
def all_kinds(both_kinds: list, tmp_path_factory: pytest.TempPathFactory) -> list:
    """Byte-level models too: RoBERTa's old files and the tokenizer.json of ModernBERT."""
    old, modern = tmp_path_factory.mktemp("roberta"), tmp_path_factory.mktemp("modernbert")
    trained_merges([*pipelines.LIKE_ROBERTA, "<mask>"]).save(str(old))
    pipelines.modernbert().save(str(modern / "tokenizer.json"))
    write(modern, tokenizer_config=LIKE_MODERNBERT)
    return [
        *both_kinds,
        (tokenizer.load(old), transformers.RobertaTokenizer.from_pretrained(old)),
        (tokenizer.load(modern), transformers.AutoTokenizer.from_pretrained(modern)),
    ]


# As answerdotai/ModernBERT-base has it.
LIKE_MODERNBERT = {
    "tokenizer_class": "PreTrainedTokenizerFast", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]",
    "mask_token": "[MASK]", "unk_token": "[UNK]", "model_max_length": 8192, "clean_up_tokenization_spaces": True,
    "model_input_names": ["input_ids", "attention_mask"],
}  # fmt: skip


def test_very_long_texts(all_kinds: list) -> None:
    long = [" ".join(TEXTS[:700]), "a" * 50_000, "中" * 20_000, "\u0301" * 5_000]
    for ours, theirs in all_kinds:
        assert_same(ours, theirs, long)
        assert_same(ours, theirs, [("a b", long[2]), (long[2], "")], max_length=511)
        length = 508 + ours.specials(2)
        cut = ours.encode(long[0], "so " + long[0], max_length=length)  # which takes transformers minutes
        first, second = ours.encode(long[0]).ids[1:255], ours.encode("so " + long[0]).ids[1:255]
        assert cut.ids == ours.build_inputs_with_special_tokens(first, second)


def test_batch_shapes(all_kinds: list) -> None:
    for ours, theirs in all_kinds:
        mixed = ["one two three", ("four", "five six"), "", ("", "")]
        for length, max_length in ((4, None), (20, None), (20, 5), (None, 6)):
            arrays = ours.batch(mixed, length, max_length)
            limit = min(n for n in (length, max_length) if n)
            want = [ours.encode(*([t] if isinstance(t, str) else t), max_length=limit) for t in mixed]
            width = length or max(len(w.ids) for w in want)
            for name, array in arrays.items():
                assert (array.shape, array.dtype) == ((4, width), np.int32)
                rows = [getattr(w, FIELDS[name]) for w in want]
                assert [row[: len(w)].tolist() for row, w in zip(array, rows, strict=True)] == rows
            assert (arrays["input_ids"][arrays["attention_mask"] == 0] == theirs.pad_token_id).all()
        assert ours.batch([], length=8)["input_ids"].shape == (0, 8)
        assert ours.batch([])["input_ids"].shape == (0, 0)


def test_special_tokens_by_hand_are_those_of_encode(all_kinds: list) -> None:
    for ours, theirs in all_kinds:
        a, b = (ours.encode(text).ids[1:-1] for text in ("hello there", "the [MASK] dog"))
        for pair, encoding in ((None, ours.encode("hello there")), (b, ours.encode("hello there", "the [MASK] dog"))):
            built = ours.build_inputs_with_special_tokens(a, pair)
            assert built == encoding.ids
            assert ours.create_token_type_ids_from_sequences(a, pair) == encoding.token_type_ids
            assert ours.get_special_tokens_mask(a, pair) == encoding.special_tokens_mask
            done = ours.get_special_tokens_mask(built, already_has_special_tokens=True)
            assert done == theirs.get_special_tokens_mask(built, already_has_special_tokens=True)
            assert ours.decode(built) == theirs.decode(built, skip_special_tokens=True)
            assert ours.decode(np.array(built), False) == theirs.decode(built, skip_special_tokens=False)


def test_threads_share_one_tokenizer(all_kinds: list) -> None:
    for ours, _ in all_kinds:
        jobs = [(*pair, n) for pair in PAIRS[:200] for n in (5, 9, None)]
        alone = [ours.encode(*job) for job in jobs]
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(ours.encode, *zip(*jobs, strict=True))) == alone
        assert ours.backend.truncation is None
        assert ours.backend.padding is None


def test_truncation_and_padding_of_a_tokenizer_json_are_dropped(tmp_path: Path, both_kinds: list) -> None:
    for ours, _ in both_kinds:
        state = tokenizers.Tokenizer.from_str(ours.backend.to_str())
        state.enable_truncation(5)
        state.enable_padding(length=9)
        state.post_processor = None
        state.save(str(tmp_path / "tokenizer.json"))
        assert tokenizer.load(tmp_path).encode(PROSE) == ours.encode(PROSE)


@pytest.mark.parametrize(("name", "config", "class_name"), cases.PIPELINES)
def test_save_and_load(
    tmp_path: Path, vocabs: dict[bool, str], model: bytes, name: str, config: dict, class_name: str
) -> None:
    source = write(tmp_path / "a", **{name: vocabs[True] if name == "vocab_txt" else model}, tokenizer_config=config)
    ours = tokenizer.load(source)
    ours.save(tmp_path / "b" / "c")
    again = tokenizer.load(tmp_path / "b" / "c")
    assert (again.ids, again.max_length, again.vocab_size) == (ours.ids, ours.max_length, ours.vocab_size)
    assert json.loads((tmp_path / "b/c/tokenizer_config.json").read_text())["tokenizer_class"] == class_name
    for load in (transformers.AutoTokenizer, getattr(transformers, class_name)):
        theirs = load.from_pretrained(tmp_path / "b" / "c")
        assert type(theirs).__name__ == class_name
        assert_same(ours, theirs, SOME[:300])
        assert_same(again, theirs, SHORT_PAIRS[:200], max_length=12)


def test_save_what_no_class_of_transformers_makes(tmp_path: Path, vocabs: dict[bool, str]) -> None:
    odd = trained_model(unk_id=1, eos_id=-1)
    state = json.loads(tokenizer.load(write(tmp_path / "a", vocab_txt=vocabs[True])).backend.to_str())
    state["model"]["max_input_chars_per_word"] = 20
    words, pieces = write(tmp_path / "words", tokenizer=state), write(tmp_path / "pieces", spiece_model=odd)
    for folder in (words, pieces):
        ours = tokenizer.load(folder)
        ours.save(tmp_path / "out")
        again, theirs = tokenizer.load(tmp_path / "out"), transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
        assert_same(ours, theirs, SOME[:300])
        assert_same(again, theirs, SHORT_PAIRS, max_length=12)


# tokenizer_config.json beside RoBERTa's vocab.json and merges.txt, of 900 pieces and more.
ROBERTA_CONFIGS: list[dict] = [
    {},
    {"tokenizer_class": "RobertaTokenizerFast", "add_prefix_space": True, "model_max_length": 512},
    {"trim_offsets": False, "mask_token": {"__type": "AddedToken", "content": "<mask>", "lstrip": True}},
    {"add_prefix_space": True, "trim_offsets": False, "additional_special_tokens": ["<ent>"], "pad_token": "<unk>"},
    {
        "cls_token": "a",
        "sep_token": "<s>",
        "bos_token": "a",
        "mask_token": "[MASK]",
        "tokenizer_class": "BartTokenizer",
    },
]


@pytest.mark.parametrize("config", ROBERTA_CONFIGS, ids=lambda config: "+".join(config) or "none")
def test_roberta_against_transformers(tmp_path: Path, config: dict) -> None:
    """Its old files; saved and loaded again it is the same, as transformers and as edgebert load it."""
    folder = write(tmp_path / "old", **({"tokenizer_config": config} if config else {}))
    trained_merges([*pipelines.LIKE_ROBERTA, "<mask>"]).save(str(folder))
    ours, theirs = tokenizer.load(folder), transformers.RobertaTokenizer.from_pretrained(folder)
    texts = [*SOME, "a <mask> b", "<s>x<unk> y</s>", "  two  spaces ", " ", "\n\n a\t"]
    if config:
        assert_same(ours, theirs, texts)
    else:
        assert (ours.kind, ours.pad_id, ours.unk_id, ours.cls_id, ours.sep_id, ours.mask_id) == ("bpe", 1, 3, 0, 2, 4)
        assert_same_everywhere(ours, theirs)
    ours.save(tmp_path / "new")
    again = tokenizer.load(tmp_path / "new")
    assert (again.ids, again.max_length, again.vocab_size) == (ours.ids, ours.max_length, ours.vocab_size)
    for load in (transformers.AutoTokenizer, transformers.RobertaTokenizer):
        loaded = load.from_pretrained(tmp_path / "new")
        assert type(loaded) is transformers.RobertaTokenizer
        assert_same(ours, loaded, texts[:300])
        assert_same(again, loaded, SHORT_PAIRS[:100], max_length=12)


def test_modernbert_against_transformers(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", tokenizer_config=LIKE_MODERNBERT)
    pipelines.modernbert().save(str(folder / "tokenizer.json"))
    ours = tokenizer.load(folder)
    assert (ours.kind, ours.max_length, ours.doubled, ours.typed) == ("bpe", 8192, False, True)
    assert_same_everywhere(ours, transformers.AutoTokenizer.from_pretrained(folder))
    ours.save(tmp_path / "b")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "b")
    assert_same(tokenizer.load(tmp_path / "b"), theirs, SOME)
    assert_same(ours, theirs, SHORT_PAIRS[:100], max_length=12)


def test_merges_of_every_spelling_are_the_same(tmp_path: Path) -> None:
    """As pairs, as lines, and in a file whose model does not name its type."""
    state = json.loads(pipelines.roberta().to_str())
    lines = ["#version: 0.2", *(" ".join(pair) for pair in state["model"]["merges"])]
    nameless = {name: value for name, value in state["model"].items() if name not in ("type", "ignore_merges")}
    spelt = [state["model"], state["model"] | {"merges": lines}, nameless | {"merges": lines}]
    loaded = [
        tokenizer.load(write(tmp_path / str(i), tokenizer=state | {"model": model})) for i, model in enumerate(spelt)
    ]
    for text in SOME:
        assert loaded[1].encode(text) == loaded[2].encode(text) == loaded[0].encode(text)


def test_merges_in_files_are_those_of_the_model(tmp_path: Path) -> None:
    ours = tokenizer.load(write(tmp_path / "a", tokenizer=json.loads(pipelines.roberta().to_str())))
    paths = ours.save_vocabulary(tmp_path / "b", prefix="my")
    assert [Path(path).name for path in paths] == ["my-vocab.json", "my-merges.txt"]
    again = tokenizer.load(tmp_path / "b" / "my-vocab.json")
    assert [again.encode(text).ids for text in SOME] == [ours.encode(text).ids for text in SOME]
    state = json.loads(pipelines.roberta().to_str())
    state["model"]["vocab"] |= {"a b": 5000, "a bc": 5001}
    state["model"]["merges"] += [["a b", "c"]]
    with pytest.raises(InputError, match=r"the merge \('a b', 'c'\) has no place in a merges\.txt; use save"):
        tokenizer.load(write(tmp_path / "c", tokenizer=state)).save_vocabulary(tmp_path)


def test_what_spells_every_byte_needs_no_unknown_token(tmp_path: Path) -> None:
    state = json.loads(PIPELINES["bpe-whole"](tmp_path).to_str())
    state["model"]["vocab"] = {name: i for name, i in state["model"]["vocab"].items() if name != "[UNK]"}
    ours = tokenizer.load(write(tmp_path / "a", tokenizer=state))
    assert (ours.unk_id, "unk_token" in ours.ids) == (-1, False)
    ours.save(tmp_path / "b")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "b")
    assert theirs.unk_token is None
    assert_same(tokenizer.load(tmp_path / "b"), theirs, SOME[:300])
    named = tokenizer.load(write(tmp_path / "a", tokenizer_config={"unk_token": "[SEP]"}))
    assert named.unk_id == named.sep_id


@pytest.mark.parametrize("name", ["bpe-whole", "bpe-digits", "bpe-unknown", "bpe-fused"])
def test_odd_byte_level_models_against_transformers(tmp_path: Path, name: str) -> None:
    """Words taken whole, bytes that are no pieces, and what else no class of transformers makes."""
    PIPELINES[name](tmp_path).save(str(tmp_path / "tokenizer.json"))
    ours = tokenizer.load(tmp_path)
    ours.save(tmp_path / "b")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "b")
    assert_same(ours, theirs, SOME)
    assert_same(tokenizer.load(tmp_path / "b"), theirs, SHORT_PAIRS[:100], max_length=12)


# The file, its layout, the class that reads it and the model_type by which it is known; flags.
SENTENCEPIECE: list[tuple] = [
    ("sentencepiece.bpe_model", pipelines.FAIRSEQ, "XLMRobertaTokenizer", "xlm-roberta", {}),
    ("a_model", pipelines.FAIRSEQ, "XLMRobertaTokenizer", "xlm-roberta", {"add_prefix_space": False}),
    ("spm_model", pipelines.LIKE_DEBERTA, "DebertaV2Tokenizer", "deberta-v2", {}),
    (
        "a_model",
        pipelines.LIKE_DEBERTA,
        "DebertaV2Tokenizer",
        "deberta-v2",
        {"do_lower_case": True, "split_by_punct": True, "add_prefix_space": False},
    ),
]


@pytest.mark.parametrize(("file", "layout", "name", "model_type", "flags"), SENTENCEPIECE)
def test_sentencepiece_of_other_classes_against_transformers(
    tmp_path: Path, file: str, layout: dict, name: str, model_type: str, flags: dict
) -> None:
    """Whether the class is named, or the model's config beside the file tells it."""
    content = trained_model(normalization_rule_name="nmt_nfkc", **layout)
    folder = write(tmp_path / "a", **{file: content}, tokenizer_config=flags, config={"model_type": model_type})
    if file != "a_model":
        theirs = getattr(transformers, name).from_pretrained(folder)
    else:  # transformers looks for the usual name
        usual = {"xlm-roberta": "sentencepiece.bpe_model", "deberta-v2": "spm_model"}[model_type]
        theirs = getattr(transformers, name).from_pretrained(
            write(tmp_path / "usual", **{usual: content}, tokenizer_config=flags)
        )
    ours = tokenizer.load(folder)
    assert (ours.kind, ours.doubled) == ("unigram", model_type == "xlm-roberta")
    assert_same(ours, theirs, SOME)
    assert_same(ours, theirs, SHORT_PAIRS[:100], max_length=12)
    write(folder, tokenizer_config=flags | {"tokenizer_class": name}, config={"model_type": "bert"})
    assert [tokenizer.load(folder).encode(text) for text in SOME[:100]] == [ours.encode(text) for text in SOME[:100]]
    ours.save(tmp_path / "b")
    assert_same(tokenizer.load(tmp_path / "b"), transformers.AutoTokenizer.from_pretrained(tmp_path / "b"), SOME[:300])


def test_config_and_tokenizer_json_that_disagree(tmp_path: Path, vocabs: dict[bool, str]) -> None:
    """transformers follows the config, and its class's defaults where a class is named."""
    source = write(tmp_path / "a", vocab_txt=vocabs[True], tokenizer_config={"do_lower_case": False})
    tokenizer.load(source).save(tmp_path)
    for config in ({"do_lower_case": True, "strip_accents": False}, {"tokenizer_class": "BertTokenizerFast"}):
        write(tmp_path, tokenizer_config=config)
        assert_same(tokenizer.load(tmp_path), transformers.BertTokenizer.from_pretrained(tmp_path), SOME[:300])
    (tmp_path / "tokenizer_config.json").unlink()
    assert tokenizer.load(tmp_path).encode("The").ids != tokenizer.load(tmp_path).encode("the").ids


@pytest.mark.parametrize("prefixed", [False, True])
def test_config_and_byte_level_tokenizer_json_that_disagree(tmp_path: Path, prefixed: bool) -> None:
    pipelines.roberta(prefixed).save(str(tmp_path / "tokenizer.json"))
    for config in (
        {"add_prefix_space": True, "tokenizer_class": "RobertaTokenizer"},
        {"trim_offsets": False, "tokenizer_class": "BartTokenizerFast"},
        {"tokenizer_class": "RobertaTokenizer"},
    ):
        write(tmp_path, tokenizer_config=config)
        theirs = transformers.RobertaTokenizer.from_pretrained(tmp_path)
        assert_same(tokenizer.load(tmp_path), theirs, [*SOME[:300], "a <mask> b"])


def test_save_vocabulary(tmp_path: Path, vocabs: dict[bool, str], model: bytes) -> None:
    words = tokenizer.load(write(tmp_path / "words", vocab_txt=vocabs[True]))
    pieces = tokenizer.load(write(tmp_path / "pieces", spiece_model=model))
    assert words.save_vocabulary(tmp_path / "out") == (str(tmp_path / "out" / "vocab.txt"),)
    (path,) = pieces.save_vocabulary(tmp_path / "out", "my")
    assert (Path(path).name, Path(path).read_bytes()) == ("my-sentencepiece.model", model)
    words.save(tmp_path / "json")
    (path,) = tokenizer.load(tmp_path / "json").save_vocabulary(tmp_path / "json", prefix="b")
    assert Path(path).read_text() == (tmp_path / "out" / "vocab.txt").read_text() == vocabs[True]
    pieces.save(tmp_path / "json")
    with pytest.raises(InputError, match=r"does not hold its \.model: use save"):
        tokenizer.load(tmp_path / "json").save_vocabulary(tmp_path)
    with pytest.raises(InputError, match="cannot make the folder"):
        words.save(Path(path))
    with pytest.raises(InputError, match=r"the token 'a ' with id 0 has no place in a vocab\.txt"):
        vocabulary.vocab_txt({"a ": 0})


@pytest.mark.parametrize(("method", "arguments", "message"), cases.REFUSED_CALLS)
def test_calls_that_are_refused(both_kinds: list, method: str, arguments: list, message: str) -> None:
    for ours, _ in both_kinds:
        with pytest.raises(InputError, match=message):
            getattr(ours, method)(*arguments)


@pytest.mark.parametrize(
    ("files", "message"), cases.REFUSED_FOLDERS, ids=lambda value: "" if isinstance(value, dict) else value
)
def test_folders_that_are_refused(tmp_path: Path, model: bytes, files: dict, message: str) -> None:
    stand_ins = {b"UNI": lambda: model, b"BPE": lambda: trained_model("bpe")}
    files = {k: stand_ins[v]() if isinstance(v, bytes) and v in stand_ins else v for k, v in files.items()}
    with pytest.raises(InputError, match=message):
        tokenizer.load(write(tmp_path, **files))


def test_paths_that_are_refused(tmp_path: Path) -> None:
    write(tmp_path, words_bin=b"")
    for path in (tmp_path / "none", tmp_path / "words.bin"):
        with pytest.raises(InputError, match="is no tokenizer: give a folder that has one, or its tokenizer"):
            tokenizer.load(path)


def test_tokenizer_json_of_another_family_is_refused(tmp_path: Path, both_kinds: list) -> None:
    ours, _ = both_kinds[0]
    state = json.loads(ours.backend.to_str())
    roberta = {"type": "RobertaProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2], "trim_offsets": True,
               "add_prefix_space": True}  # fmt: skip
    pair = tokenizer.load(write(tmp_path / "roberta", tokenizer=state | {"post_processor": roberta})).encode("a", "a")
    a = ours.encode("a").ids[1]
    assert (pair.ids, set(pair.token_type_ids)) == ([2, a, 3, 3, a, 3], {0})
    ended = {"SpecialToken": {"id": "[SEP]", "type_id": 0}}
    parts = [[{"Sequence": {"id": name, "type_id": 0}} for name in names] + [ended] for names in ("A", "AB")]
    tokens = {"[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}}
    other = {"type": "TemplateProcessing", "single": parts[0], "pair": parts[1], "special_tokens": tokens}  # T5's way
    with pytest.raises(InputError, match=r"does not make \[CLS\] A \[SEP\] B \[SEP\] of two texts"):
        tokenizer.load(write(tmp_path, tokenizer=state | {"post_processor": other}))
    state["model"]["unk_token"] = "nowhere"
    with pytest.raises(InputError, match=r"is not usable: .*Missing"):
        tokenizer.load(write(tmp_path, tokenizer=state))


def test_damaged_models_are_refused_or_work(tmp_path: Path, model: bytes) -> None:
    """Cut short or with bytes changed, also in the normalization table: an InputError, or a tokenizer that encodes."""
    rng, worked, text = random.Random(3), 0, "".join(TEXTS[:40])
    table = sentencepiece_model_pb2.ModelProto.FromString(model).normalizer_spec.precompiled_charsmap
    start, refused = model.index(table), []
    damaged = [model[:cut] for cut in rng.sample(range(len(model)), 60)]
    for at in [*range(start, start + 8), *rng.sample(range(len(model)), 80), *rng.sample(range(start), 80)]:
        damaged.append(model[:at] + bytes([rng.randrange(256)]) + model[at + 1 :])
    for content in damaged:
        (tmp_path / "a.model").write_bytes(content)
        try:
            tokenizer.load(tmp_path / "a.model").encode(text)
            worked += 1
        except InputError as error:
            refused.append(str(error))
    assert worked > 20
    for reason in ("normalization table", "are left", "wire type"):
        assert any(reason in message for message in refused), reason
