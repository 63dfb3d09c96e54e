"""Tokenizer files that would end the library in a panic, an abort or a hang, or fill the memory: refused beforehand."""

import base64
import json
import struct
import time
from pathlib import Path
from typing import Any

import pytest
from cases import SPECIALS
from tokenizers import pre_tokenizers
from words import trained_model

from edgebert.errors import InputError
from edgebert.files import peak_memory
from edgebert.tokenizers import structure, tokenizer

WORDPIECE = {
    "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
    "vocab": {piece: i for i, piece in enumerate([*SPECIALS, "a", "b", "##a"])},
}  # fmt: skip
UNIGRAM = {"type": "Unigram", "unk_id": 1, "vocab": [[piece, -1.0] for piece in [*SPECIALS, "a", "b"]]}
BYTES = pre_tokenizers.ByteLevel.alphabet()
BPE = {
    "type": "BPE", "vocab": {piece: i for i, piece in enumerate([*SPECIALS, *sorted(BYTES), "ab"])},
    "merges": [["a", "b"]],
}  # fmt: skip
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
NEEDED = {"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "BertPreTokenizer"}}
SPECIAL = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}


def bert(**changes: Any) -> dict[str, Any]:
    return NEEDED | {"model": WORDPIECE} | changes


def wordpiece(**changes: Any) -> dict[str, Any]:
    return NEEDED | {"model": WORDPIECE | changes}


def unigram(**changes: Any) -> dict[str, Any]:
    return NEEDED | {"model": UNIGRAM | changes}


def bpe(**changes: Any) -> dict[str, Any]:
    return NEEDED | {"model": BPE | changes, "pre_tokenizer": BYTE_LEVEL}


def sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return bert(normalizer={"type": "Sequence", "normalizers": list(steps)})


def charsmap(data: bytes) -> dict[str, Any]:
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(data).decode()}


def replace(pattern: Any, content: Any) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def nested(depth: int) -> dict[str, Any]:
    step: dict[str, Any] = {"type": "Lowercase"}
    for _ in range(depth):
        step = {"type": "Sequence", "normalizers": [step]}
    return step


TEMPLATE = {
    "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}], "pair": [],
    "special_tokens": {},
}  # fmt: skip
BERT_NORMALIZER = {
    "type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
    "lowercase": True,
}  # fmt: skip
WORDPIECE_DECODER = {"type": "WordPiece", "prefix": "##", "cleanup": True}
LONG = "x" * 300
REFUSED = {
    # Each of these ended the library: in an abort of the process, a panic, a hang or with the memory full.
    "table that points outside": (sequence(charsmap(b"\xff" * 11)), "normalization table says"),
    "table cut short": (sequence(charsmap(b"\0")), "normalization table says"),
    "table that grows": (
        sequence(charsmap(struct.pack("<I", 1024) + bytes(1024) + b"x" * 999 + b"\0")),
        "replaces a character by more than 256 bytes",
    ),
    "table that is no base64": (sequence({"type": "Precompiled", "precompiled_charsmap": "%"}), "no usable"),
    "table that is null": (sequence({"type": "Precompiled", "precompiled_charsmap": None}), "a text belongs there"),
    "template without its token": (bert(post_processor=TEMPLATE), "'type_id': 0}, which its special_tokens lack"),
    "chunks of nothing": (bert(pre_tokenizer={"type": "FixedLength", "length": 0}), "a step 'FixedLength' among"),
    "decoder that strips beyond": (
        bert(decoder={"type": "Strip", "content": "a", "start": 10**18, "stop": 10**18}),
        "a step 'Strip' among its decoders",
    ),
    "catastrophic split": (
        bert(pre_tokenizer={"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}),
        "a step 'Split' among its pretokenizers",
    ),
    "catastrophic replacement": (sequence(replace({"Regex": "(a|a)+$"}, "")), r"it replaces \{'Regex': '\(a\|a\)"),
    "replacements that grow": (sequence(*[replace({"String": "a"}, "aa")] * 20), "texts could grow without end"),
    "replacement of nothing": (sequence(replace({"String": ""}, "z")), "texts could grow without end"),
    "replacement of a list": (sequence(replace(["a"], "b")), "it replaces \\['a'\\]"),
    "long prefix": (sequence({"type": "Prepend", "prepend": LONG}), "prepends a long text"),
    "normalizers without end": (sequence(*[replace({"String": "a"}, "b")] * 40), "it has 40 normalizers: up to 32"),
    "twice the same": (sequence({"type": "NFKD"}, {"type": "NFKD"}), "of each kind but Replace one"),
    "steps in steps": (bert(normalizer=nested(60)), "nests too deep"),
    "steps that are no list": (bert(normalizer={"type": "Sequence", "normalizers": "NFC"}), "a list belongs there"),
    "step that is a text": (bert(normalizer="NFC"), "a step None among its normalizers"),
    "words of a million": (wordpiece(max_input_chars_per_word=10**6), "max_input_chars_per_word is 1000000; up to 256"),
    "long prefix of pieces": (wordpiece(continuing_subword_prefix=LONG), "continuing_subword_prefix is 'xxx"),
    "id beyond": (wordpiece(vocab=WORDPIECE["vocab"] | {"z": 2**32 - 1}), "a piece has the id 4294967295; ids"),
    "negative id": (wordpiece(vocab={"[UNK]": -1}), "a piece has the id -1"),
    "id that is a text": (wordpiece(vocab={"[UNK]": "0"}), "a piece has the id '0'"),
    "id of an added token": (
        bert(added_tokens=[SPECIAL | {"id": 10**12, "content": "x"}]),
        "a piece has the id 1000000000000",
    ),
    "added tokens of 2 MB": (
        bert(added_tokens=[SPECIAL | {"id": 8 + i, "content": f"{i}" + "y" * 99} for i in range(20_000)]),
        r"20,000 added tokens of 2,[0-9,]+ bytes",
    ),
    "added token without text": (bert(added_tokens=[SPECIAL | {"id": 8}]), "content of an added token is None"),
    "pieces of 3 MB": (
        unigram(vocab=[[f"{i:030d}", -1.0] for i in range(100_000)]),
        "it has 100,000 pieces of 3,000,000 bytes",
    ),
    "piece of 300 bytes": (unigram(vocab=[[LONG, -1.0]]), "the longest of 300"),
    "score that is a text": (unigram(vocab=[["a", "b"]]), "a text and its score belong there"),
    "piece that is a number": (unigram(vocab=[3]), "a piece of its vocabulary is 3"),
    "unknown piece beyond": (unigram(unk_id=99), "UnkIdNotInVocabulary"),
    "no unknown piece": (unigram(unk_id=None), "`unk_id` is missing"),
    "no piece": (unigram(vocab=[]), "EmptyVocabulary"),
    # Of byte-level models: what ends the library, what leaves ids to chance, and what the phone's tokenizer has not.
    "bytes after words": (bpe() | {"pre_tokenizer": {"type": "Whitespace"}}, "no ByteLevel before it"),
    "bytes before words": (
        bpe()
        | {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [BYTE_LEVEL, {"type": "Metaspace"}]}},
        "no ByteLevel before it",
    ),
    "prefix longer than a piece": (bpe(continuing_subword_prefix="xxx"), "continuing_subword_prefix is 'xxx'; a byte"),
    "suffix": (bpe(end_of_word_suffix="</w>"), "its end_of_word_suffix is '</w>'; a byte-level model has none"),
    "bytes as pieces": (bpe(byte_fallback=True), "its byte_fallback is True"),
    "dropout": (bpe(dropout=0.1), "its dropout is 0.1, by which ids are left to chance"),
    "dropout that is a text": (bpe(dropout="x"), "its dropout is 'x'"),
    "flag that is a text": (bpe(fuse_unk="x"), "no usable"),
    "unknown token that is a list": (bpe(unk_token=["a"]), r"its unk_token is \['a'\]; a text belongs there"),
    "merge of a piece that is not there": (bpe(merges=[["a", "zz"]]), "'a' and 'zz' are merged, and .* lacks 'zz'"),
    "merge to a piece that is not there": (bpe(merges=[["a", "c"]]), "'a' and 'c' are merged, and .* lacks 'ac'"),
    "merge of three": (bpe(merges=["a b c"]), "its merge 'a b c' is no pair of texts"),
    "merge of one": (bpe(merges=[["a"]]), r"its merge \['a'\] is no pair of texts"),
    "merge of numbers": (bpe(merges=[[1, 2]]), r"its merge \[1, 2\] is no pair of texts"),
    "merges in two ways": (bpe(merges=[["a", "b"], "a b"]), "its merge 'a b' is no pair of texts, or not written as"),
    "merges that are no list": (bpe(merges={"a": "b"}), "its merges is {'a': 'b'}; a list belongs there"),
    "no merges": (bpe(merges=None), "its merges is None; a list belongs there"),
    "merges of millions": (bpe(merges=["a b"] * 1_100_000), "it has 1,100,000 merges; up to 1,048,576 are taken"),
    "an id twice": (bpe(vocab=BPE["vocab"] | {"again": 7}), "two pieces of its vocabulary have the same id"),
    "an id that is a text": (bpe(vocab=BPE["vocab"] | {"again": "7"}), "a piece has the id '7'"),
    "bytes that are missing": (
        bpe(vocab={piece: i for piece, i in BPE["vocab"].items() if piece not in "abĠ"}),
        "its vocabulary lacks 3 of the 256 bytes, and has no unk_token for them",
    ),
    "vocabulary of scores": (bpe(vocab=[["a", 0.0]]), "where an object belongs"),
    "no model": (NEEDED, "it has None where an object belongs"),
    "model without vocabulary": (NEEDED | {"model": {"type": "WordPiece"}}, "its vocab is None"),
    "model of a list": (NEEDED | {"model": {"type": ["WordPiece"]}}, "holds a ..wordpiece.. model; supported"),
}  # fmt: skip


@pytest.mark.parametrize("how", REFUSED)
def test_a_tokenizer_json_that_ends_the_library_is_refused_before(tmp_path: Path, how: str) -> None:
    raw, text = REFUSED[how]
    (tmp_path / "tokenizer.json").write_text(json.dumps(raw))
    with pytest.raises(InputError, match=text) as caught:
        tokenizer.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_pipelines_of_the_family_are_taken(tmp_path: Path) -> None:
    spaces = replace({"Regex": " {2,}"}, " ")
    steps = [replace({"String": "``"}, '"'), replace({"String": "''"}, '"'), {"type": "NFKD"}, {"type": "StripAccents"}]
    for raw in (
        bert(),
        wordpiece(type=None) | {"normalizer": BERT_NORMALIZER},
        sequence(*steps, {"type": "Lowercase"}, spaces),
        bert(
            pre_tokenizer={"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, {"type": "Punctuation"}]}
        ),
    ):
        raw["model"] = {key: value for key, value in raw["model"].items() if value is not None}
        (tmp_path / "tokenizer.json").write_text(json.dumps(raw | {"decoder": WORDPIECE_DECODER}))
        assert tokenizer.load(tmp_path).encode("a  ba").tokens == ["[CLS]", "a", "b", "##a", "[SEP]"]


@pytest.mark.parametrize("panics", ["from_str", "encode", "encode_batch", "decode"])
def test_a_panic_of_the_library_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, panics: str) -> None:
    """A panic is no Exception; one that is not known yet is caught all the same."""
    (tmp_path / "tokenizer.json").write_text(json.dumps(bert()))
    words = tokenizer.load(tmp_path)
    monkeypatch.setattr(structure, "_steps", lambda part, inner, kinds: [])
    raw = bert(
        pre_tokenizer={"type": "FixedLength", "length": 0}, decoder=REFUSED["decoder that strips beyond"][0]["decoder"]
    )
    if panics == "from_str":
        raw = sequence(charsmap(b"\0"))
        (tmp_path / "tokenizer.json").write_text(json.dumps(raw))
        with pytest.raises(InputError, match=r"is no usable tokenizer\.json: Precompiled"):
            tokenizer.load(tmp_path)
        return
    broken = type(words)(words.backend.from_str(json.dumps(raw)), words.ids, words.vocab_size)
    arguments = {"encode": ("ab",), "encode_batch": (["ab", "b"],), "decode": ([5, 6],)}[panics]
    with pytest.raises(InputError, match=r"the tokenizer cannot (split|join)"):
        getattr(broken, panics.removeprefix("encode_"))(*arguments)


def test_an_interrupt_is_not_swallowed() -> None:
    for error in (KeyboardInterrupt, SystemExit):
        with pytest.raises(error), structure.contained("nothing"):
            raise error


def within(seconds: float, megabytes: int, path: Path, text: str) -> None:
    """Hold a refusal to a time and an amount of memory."""
    started, before = time.monotonic(), peak_memory() or 0
    with pytest.raises(InputError, match=text):
        tokenizer.load(path)
    assert time.monotonic() - started < seconds
    assert (peak_memory() or 0) - before < megabytes << 20


def test_vocabularies_of_millions_are_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("".join(f"{i}\n" for i in range(3_000_000)))
    within(2, 100, tmp_path, "has 3,000,000 lines, a token each; at most 1,048,576 are taken")
    (tmp_path / "vocab.txt").write_bytes(bytes(40 << 20))
    within(2, 100, tmp_path, "has 41,943,040 bytes or more")


@pytest.mark.parametrize("text", ["ab" * 50_000, "a" * 100_000, " " * 100_000, "\u00e9" * 50_000, "'s" * 50_000])
def test_long_runs_take_time_in_proportion(tmp_path: Path, text: str) -> None:
    """A word of a hundred thousand characters; also where all of it is one, which the pattern would split."""
    pieces = {2**power * "ab": 300 + power for power in range(1, 6)}
    merges = [["a", "b"], *([2**power * "ab"] * 2 for power in range(5))]
    whole = bpe(vocab=BPE["vocab"] | pieces, merges=merges) | {"pre_tokenizer": BYTE_LEVEL | {"use_regex": False}}
    for raw in (whole, whole | {"pre_tokenizer": BYTE_LEVEL}):
        (tmp_path / "tokenizer.json").write_text(json.dumps(raw))
        words = tokenizer.load(tmp_path)
        started = time.monotonic()
        assert len(words.encode(text).ids) > 1000
        assert time.monotonic() - started < 2


@pytest.mark.slow
def test_a_sentencepiece_model_of_millions_is_refused_in_seconds(tmp_path: Path) -> None:
    (tmp_path / "a.model").write_bytes(b"\x0a\x05\x0a\x03abc" * 1_100_000)
    within(20, 500, tmp_path / "a.model", "it has more than 1,048,576 pieces")


def test_a_vocabulary_with_a_word_twice_and_odd_bytes_has_the_ids_of_its_lines(tmp_path: Path) -> None:
    """As transformers has it, the later line counts."""
    lines = [*SPECIALS, "a", "b", "a", "", "\x00", "\u2028", "c\rd", "e "]
    (tmp_path / "vocab.txt").write_bytes("\n".join(lines).encode())
    words = tokenizer.load(tmp_path)
    assert words.encode("a b").ids == [2, 7, 6, 3]
    assert words.decode([5, 6, 8, 9], skip_special_tokens=False) is not None
    words.save(tmp_path / "again")
    assert tokenizer.load(tmp_path / "again").encode("a b").ids == [2, 7, 6, 3]


CONFIGS = [
    ("tokenizer_config", {"extra_special_tokens": 5}, "has the extra special tokens 5; a list of tokens"),
    ("tokenizer_config", {"extra_special_tokens": "ab"}, "has the extra special tokens 'ab'"),
    ("tokenizer_config", {"added_tokens_decoder": {"9" * 30: {"content": "x"}}}, "not files of one model"),
    ("tokenizer_config", {"added_tokens_decoder": [1]}, "added tokens are objects by id"),
    ("tokenizer_config", {"model_max_length": [1]}, "model_max_length a number"),
    ("tokenizer_config", {"unk_token": {"content": ["x"]}}, "unk_token is .* belongs there"),
    ("tokenizer_config", {"padding_side": ["right"]}, "edgebert has only 'right'"),
    ("tokenizer_config", {"extra_special_tokens": ["y" * (1 << 21)]}, "added tokens of 2,[0-9,]+ bytes; 1,048,576"),
    ("added_tokens", {"x": [9]}, "added tokens are objects by id"),
    ("added_tokens", {"x": None}, "added tokens are objects by id"),
    ("special_tokens_map", {"cls_token": ["[CLS]"]}, "cls_token is .* belongs there"),
]


@pytest.mark.parametrize(("name", "content", "text"), CONFIGS)
def test_configs_of_odd_shapes_are_refused(tmp_path: Path, name: str, content: dict[str, Any], text: str) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIALS, "a"]))
    (tmp_path / f"{name}.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=text) as caught:
        tokenizer.load(tmp_path)
    assert len(str(caught.value)) < 1000


def test_a_sentencepiece_table_that_grows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="replaces a character by more than 256 bytes"):
        structure.check_charsmap(struct.pack("<I", 1024) + b"\0\0\0\0" * 256 + b"x" * 999 + b"\0")
    model = trained_model()
    (tmp_path / "a.model").write_bytes(model + b"\x1a\x05\x12\x03abc")  # a second table, which is none
    with pytest.raises(InputError, match="its normalization table says"):
        tokenizer.load(tmp_path / "a.model")
