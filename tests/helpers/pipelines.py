"""tokenizer.json files of every kind that edgebert takes, by which android_demo's tokenizer is held to Python's."""

import importlib.util
import json
import random
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import transformers
from cases import MATTER, SPECIALS
from paths import ROOT
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from words import trained_merges, trained_model, trained_vocab

from edgebert.tokenizers import tokenizer

# Ranges of code points: those where rules differ most come more often.
BLOCKS = [
    *[(0, 0x250), (0x250, 0x530), (0x300, 0x370), (0x530, 0x900), (0x900, 0xE00), (0x900, 0xE00), (0xE00, 0x1100)],
    *[(0x1100, 0x1200), (0x1200, 0x2000), (0x2000, 0x2100), (0x2000, 0x3000), (0x3000, 0x3400), (0x3400, 0xA000)],
    *[(0xA000, 0xAC00), (0xA960, 0xA980), (0xAC00, 0xD800), (0xD7B0, 0xD800), (0xE000, 0xF900), (0xF900, 0x10000)],
    *[(0xFE00, 0xFE10), (0x10000, 0x12000), (0x12000, 0x1D000), (0x1D000, 0x1F000), (0x1F000, 0x1FB00)],
    *[(0x1F1E6, 0x1F200), (0x20000, 0x30000), (0xE0000, 0xE0200), (0, 0x110000)],
]
MARKS = [(0x300, 0x370), (0x20, 0x7F), (0x200B, 0x2010), (0x93C, 0x94E), (0xA8, 0xAF)]
# What grapheme clusters are made of: conjuncts of several scripts, pictures and joiners, prepended signs, jamo.
CLUSTERS = [
    chr(c) for c in (0x915, 0x937, 0x94D, 0x94D, 0x93C, 0x995, 0x9CD, 0xB15, 0x1780, 0x17D2, 0x1000, 0x1039, 0x1A20)
]
CLUSTERS += [
    chr(c) for c in (0x1A60, 0x200D, 0x200D, 0x200C, 0x301, 0x301, 0x327, 0x903, 0xFE0F, 0x1F3FD, 0xA9, 0xAE, 0x2764)
]
CLUSTERS += [
    chr(c) for c in (0x1F468, 0x600, 0x600, 0x110BD, 0x1100, 0x1161, 0x11A8, 0xAC00, 0xAC01, 0xA960, 0xD7B0, 0x1F1E6)
]
CLUSTERS += ["a", "a", "b", "\r", "\n", "\x01", "\xad", " "]
GLUE = ["", "", " ", " ", "  ", "\n", "\u3000"]


def texts(seed: int, count: int) -> list[str]:
    """Texts of words, signs and code points of a few blocks each, most short, a few of 10,000 characters."""
    rng = random.Random(seed)
    made: list[str] = ["", " ", "\u3000", "\x00", "\u0301", "a" * 10_000, "\u0301\u0327" * 5_000, "ก็" * 5_000]
    while len(made) < count:
        parts = rng.choices(MATTER, k=rng.choice([0, 1, 2, 3, 5, 8]))
        if not parts or rng.random() < 0.5:
            spans = [*rng.sample(BLOCKS, 2), rng.choice(MARKS), rng.choice(MARKS)]
            places = [rng.randrange(*rng.choice(spans)) for _ in range(rng.randrange(1, 30))]
            parts += [chr(c) for c in places if not 0xD800 <= c < 0xE000]
            rng.shuffle(parts)
        elif rng.random() < 0.2:
            parts.append("".join(rng.choices(CLUSTERS, k=rng.randrange(2, 25))))
        if rng.random() < 0.0005:
            parts *= 10_000 // (len("".join(parts)) + 1) + 1
        made.append(rng.choice(GLUE).join(parts)[:10_000])
    return made[:count]


def scored(content: bytes) -> tuple[models.Unigram, normalizers.Normalizer]:
    """The model and the normalization table of a SentencePiece file."""
    proto = sentencepiece_model_pb2.ModelProto.FromString(content)
    pieces = [(piece.piece, piece.score) for piece in proto.pieces]
    unknown = next(i for i, piece in enumerate(proto.pieces) if piece.type == 2)
    table = proto.normalizer_spec.precompiled_charsmap
    return models.Unigram(pieces, unk_id=unknown), normalizers.Precompiled(table)


def template(backend: Tokenizer, single: str, pair: str) -> processors.TemplateProcessing:
    names = {name for name in (single + " " + pair).replace(":0", "").replace(":1", "").split() if name[0] != "$"}
    return processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[(name, backend.token_to_id(name)) for name in sorted(names)]
    )


def xlm_roberta() -> Tokenizer:
    """As transformers converts XLM-R: the charsmap of nmt_nfkc, two </s> between texts, no types."""
    model, table = scored(trained_model(normalization_rule_name="nmt_nfkc", **LIKE_XLM_R))
    made = Tokenizer(model)
    made.normalizer = normalizers.Sequence([table, normalizers.Replace(Regex(" {2,}"), " ")])
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.post_processor = template(made, "<s> $A </s>", "<s> $A </s> </s> $B </s>")
    made.decoder = decoders.Metaspace()
    made.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", AddedToken("<mask>", lstrip=True)])
    return made


LIKE_XLM_R: Mapping[str, Any] = {
    "pad_id": 1, "eos_id": 2, "unk_id": 3, "bos_id": 0, "bos_piece": "<s>", "eos_piece": "</s>", "control_symbols": [],
}  # fmt: skip


def albert() -> Tokenizer:
    """As transformers converts ALBERT: quotes, NFKD without accents, lower case, the charsmap of nmt_nfkc_cf."""
    model, table = scored(trained_model(normalization_rule_name="nmt_nfkc_cf"))
    made = Tokenizer(model)
    made.normalizer = normalizers.Sequence(
        [
            normalizers.Replace("``", '"'), normalizers.Replace("''", '"'), normalizers.NFKD(),
            normalizers.StripAccents(), normalizers.Lowercase(), table, normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )  # fmt: skip
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    made.post_processor = template(made, "[CLS]:0 $A:0 [SEP]:0", "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1")
    made.decoder = decoders.Metaspace(prepend_scheme="first")
    made.add_special_tokens(["<pad>", "<unk>", "[CLS]", "[SEP]", AddedToken("[MASK]", lstrip=True, rstrip=True)])
    return made


def deberta() -> Tokenizer:
    """One word a text, as it is not split at spaces; stripped; RoBERTa's own post-processor."""
    model, table = scored(trained_model(normalization_rule_name="nmt_nfkc", **LIKE_XLM_R))
    made = Tokenizer(model)
    made.normalizer = normalizers.Sequence([normalizers.Strip(), table, normalizers.Replace(Regex(r"\s+"), " ")])
    made.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    made.decoder = decoders.Sequence([
        decoders.Replace("▁", " "),
        decoders.ByteFallback(),
        decoders.Fuse(),
        decoders.Replace(Regex(r"\s{2,}"), " "),
    ])
    made.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", AddedToken("<mask>", lstrip=True)])
    made.add_tokens([AddedToken("wo rd", normalized=True, single_word=True), AddedToken("é", normalized=True)])
    return made


LIKE_ROBERTA = ["<s>", "<pad>", "</s>", "<unk>"]


def roberta(prefixed: bool = False) -> Tokenizer:
    """As transformers makes RoBERTa: no normalizer, white space trimmed from where tokens are said to be."""
    made = Tokenizer(trained_merges([*LIKE_ROBERTA, "<mask>"]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefixed)
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=prefixed)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([*LIKE_ROBERTA, AddedToken("<mask>", lstrip=True)])
    return made


def modernbert() -> Tokenizer:
    """As ModernBERT comes: NFC, runs of spaces as added tokens of the normalized text, BERT's own frame."""
    made = Tokenizer(trained_merges([]))
    made.add_tokens([AddedToken(" " * count, normalized=True) for count in range(8, 1, -1)])
    made.add_tokens([AddedToken("|||IP_ADDRESS|||", normalized=True), AddedToken("<|endoftext|>", special=True)])
    made.add_special_tokens(["[UNK]", "[CLS]", "[SEP]", "[PAD]", AddedToken("[MASK]", lstrip=True)])
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.post_processor = template(made, "[CLS]:0 $A:0 [SEP]:0", "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1")
    made.decoder = decoders.ByteLevel()
    return made


def bytes_of(
    pre_tokenizer: pre_tokenizers.PreTokenizer,
    normalizer: normalizers.Normalizer | None = None,
    drop: Iterable[str] = (),
    **options: Any,
) -> Tokenizer:
    """A byte-level BPE behind any pipeline, less some pieces; with no token for what is unknown where none is named."""
    state = json.loads(trained_merges(SPECIALS).__getstate__())
    lost = set(drop)
    merges = [(a, b) for a, b in state["merges"] if not lost & {a, b, a + b}]
    vocab = {piece: i for piece, i in state["vocab"].items() if piece not in lost}
    made = Tokenizer(models.BPE(vocab, merges, **options))
    made.normalizer, made.pre_tokenizer, made.decoder = normalizer, pre_tokenizer, decoders.ByteLevel()
    made.add_special_tokens([name for name in SPECIALS if name not in ("[UNK]", *lost)])
    made.post_processor = processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2), trim_offsets=False)
    return made


def deberta_v3(folder: Path, **flags: Any) -> Tokenizer:
    """As transformers 5 makes DeBERTa-v3, whose charsmap it leaves out."""
    model, _ = scored(trained_model(**LIKE_DEBERTA))
    pieces = [(text, score) for text, score in json.loads(model.__getstate__())["vocab"]]
    made = transformers.DebertaV2Tokenizer(vocab=pieces, unk_id=3, **flags)
    made.save_pretrained(folder)
    return made.backend_tokenizer


LIKE_DEBERTA: Mapping[str, Any] = {
    "pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3, "pad_piece": "[PAD]", "bos_piece": "[CLS]",
    "eos_piece": "[SEP]", "unk_piece": "[UNK]", "control_symbols": [], "user_defined_symbols": [],
}  # fmt: skip


def deberta_v3_of_old() -> Tokenizer:
    """As transformers 4 converts it."""
    model, table = scored(trained_model(normalization_rule_name="nmt_nfkc", **LIKE_DEBERTA))
    made = Tokenizer(model)
    made.normalizer = normalizers.Sequence([normalizers.Strip(), table, normalizers.Replace(Regex(" {2,}"), " ")])
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace()])
    made.post_processor = template(made, "[CLS]:0 $A:0 [SEP]:0", "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1")
    made.decoder = decoders.Metaspace()
    made.add_special_tokens(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"])
    return made


def xlm_roberta_of_transformers(folder: Path) -> Tokenizer:
    """As transformers 5 makes XLM-R of its file: the charsmap alone, words split at white space before Metaspace."""
    (folder / "sentencepiece.bpe.model").write_bytes(trained_model(normalization_rule_name="nmt_nfkc", **FAIRSEQ))
    return transformers.XLMRobertaTokenizer.from_pretrained(folder).backend_tokenizer


FAIRSEQ: Mapping[str, Any] = {
    "pad_id": -1, "unk_id": 0, "bos_id": 1, "eos_id": 2, "bos_piece": "<s>", "eos_piece": "</s>",
    "control_symbols": [], "user_defined_symbols": [],
}  # fmt: skip


def clusters() -> Tokenizer:
    """A table that shows where grapheme clusters end: a "Q" for each character of three bytes, and for a few others."""
    pieces = [("<pad>", 0.0), ("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), ("▁", -2.0), ("a", -3.0), ("Q", -4.0)]
    made = Tokenizer(models.Unigram(pieces, unk_id=1))
    few = [text.encode() for text in ("b", "\xa9", "\u0301", "\u0600")]
    made.normalizer = unicode_tables().charsmap(few, bytes(range(0xE0, 0xF0)))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.post_processor = processors.BertProcessing(("</s>", 3), ("<s>", 2))
    made.add_special_tokens(["<pad>", "<unk>", "<s>", "</s>"])
    return made


def unicode_tables() -> ModuleType:
    """tools/unicode_tables.py, which is in no package."""
    spec = importlib.util.spec_from_file_location("unicode_tables", ROOT / "tools" / "unicode_tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def bytes_below() -> Tokenizer:
    """Byte pieces, all but those of the character that is asked for the unknown token."""
    pieces = [("<pad>", 0.0), ("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), ("▁", -2.0), ("a", -3.0), ("xx", -60.0)]
    pieces += [(f"<0x{byte:02X}>", -9.5) for byte in range(256) if byte != 0xBE]
    made = Tokenizer(models.Unigram(pieces, unk_id=1, byte_fallback=True))
    made.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), normalizers.Prepend("▁")])
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    made.post_processor = processors.BertProcessing(("</s>", 3), ("<s>", 2))
    made.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    made.add_special_tokens(["<pad>", "<unk>", "<s>", "</s>"])
    return made


def rembert(folder: Path, **config: object) -> Tokenizer:
    """edgebert's own pipeline for a .model with types and flags."""
    (folder / "odd.model").write_bytes(trained_model(normalization_rule_name="nmt_nfkc"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return tokenizer.load(folder).backend


def words(
    normalizer: normalizers.Normalizer | None,
    pre_tokenizer: pre_tokenizers.PreTokenizer,
    *added: AddedToken,
    **model: Any,
) -> Tokenizer:
    """A WordPiece model behind any pipeline."""
    vocab = {piece: i for i, piece in enumerate(trained_vocab(lowercase=False).splitlines())}
    options = {"unk_token": "[UNK]", "max_input_chars_per_word": 100, "continuing_subword_prefix": "##"} | model
    made = Tokenizer(models.WordPiece(vocab, **options))
    made.normalizer, made.pre_tokenizer, made.decoder = normalizer, pre_tokenizer, decoders.WordPiece(cleanup=False)
    made.add_special_tokens([name for name in SPECIALS if name != "[MASK]"])
    made.add_tokens(list(added))
    return made


def bert(**flags: bool | None) -> Callable[[Path], Tokenizer]:
    settings = {"clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True} | flags
    return lambda _: words(normalizers.BertNormalizer(**settings), pre_tokenizers.BertPreTokenizer())


ADDED = (
    AddedToken("[MASK]", lstrip=True, rstrip=True),
    AddedToken("<ent>", normalized=True),
    AddedToken("Café", normalized=True, single_word=True),
    AddedToken("ab", single_word=True),
    AddedToken("x7 ", rstrip=True),
    AddedToken(" x", lstrip=True),
    AddedToken("ing", special=True, normalized=True),
    AddedToken("😀", lstrip=True, special=True),
)
PIPELINES: Mapping[str, Callable[[Path], Tokenizer]] = {
    "bert": bert(),
    "bert-cased": bert(lowercase=False),
    "bert-cased-without-accents": bert(lowercase=False, strip_accents=True),
    "bert-with-accents": bert(strip_accents=False, handle_chinese_chars=False),
    "bert-unclean": bert(clean_text=False),
    "bert-added": lambda _: words(normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer(), *ADDED),
    "rembert": rembert,
    "rembert-lower": lambda folder: rembert(folder, do_lower_case=True, keep_accents=False),
    "albert": lambda _: albert(),
    "xlm-roberta": lambda _: xlm_roberta(),
    "deberta": lambda _: deberta(),
    "deberta-v3": deberta_v3,
    "deberta-v3-punctuation": lambda folder: deberta_v3(folder, do_lower_case=True, split_by_punct=True),
    "deberta-v3-of-old": lambda _: deberta_v3_of_old(),
    "xlm-roberta-of-transformers": xlm_roberta_of_transformers,
    "byte-pieces": lambda _: bytes_below(),
    "roberta": lambda _: roberta(),
    "roberta-prefixed": lambda _: roberta(prefixed=True),
    "modernbert": lambda _: modernbert(),
    "bpe-whole": lambda _: bytes_of(
        pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False), normalizers.Lowercase(), ignore_merges=True
    ),
    "bpe-digits": lambda _: bytes_of(
        pre_tokenizers.Sequence([pre_tokenizers.Digits(), pre_tokenizers.ByteLevel(add_prefix_space=False)]),
        ignore_merges=True,
    ),
    "bpe-unknown": lambda _: bytes_of(
        pre_tokenizers.ByteLevel(add_prefix_space=False), drop=["e", "Ġ", "Ã", "Ī", "Ŀ"], unk_token="[UNK]"
    ),
    "bpe-fused": lambda _: bytes_of(
        pre_tokenizers.ByteLevel(use_regex=False), drop=["e", "Ã", "ð", "Ł"], unk_token="[UNK]", fuse_unk=True
    ),
    "clusters": lambda _: clusters(),
    "nfc": lambda _: words(normalizers.NFC(), pre_tokenizers.Whitespace(), *ADDED),
    "nfd": lambda _: words(
        normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()]),
        pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Digits(individual_digits=True)]),
        continuing_subword_prefix="",
    ),
    "nfkc": lambda _: words(
        normalizers.Sequence([normalizers.Strip(right=False), normalizers.NFKC(), normalizers.Lowercase()]),
        pre_tokenizers.Sequence([pre_tokenizers.Digits(), pre_tokenizers.Punctuation("merged_with_previous")]),
        max_input_chars_per_word=12,
    ),
    "nfkd": lambda _: words(normalizers.NFKD(), pre_tokenizers.Punctuation("merged_with_next")),
    "contiguous": lambda _: words(None, pre_tokenizers.Punctuation("contiguous")),
    "removed": lambda _: words(normalizers.Nmt(), pre_tokenizers.Punctuation("removed")),
}


def save(folder: Path, name: str) -> Path:
    """Writes the tokenizer.json of a pipeline."""
    backend = PIPELINES[name](folder)
    target = folder / name
    target.mkdir()
    backend.save(str(target / "tokenizer.json"))
    return target / "tokenizer.json"
