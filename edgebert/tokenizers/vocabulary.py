"""From a vocabulary file (tokenizer.json, vocab.txt, vocab.json, a SentencePiece .model) to a `tokenizers` backend.

What happens to text before it meets the vocabulary follows models/bert/tokenization_bert.py,
models/rembert/tokenization_rembert.py and their like for RoBERTa, XLM-R and DeBERTa-v3 in transformers 5.23.
"""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.normalizers import Normalizer
from tokenizers.pre_tokenizers import PreTokenizer
from tokenizers.processors import PostProcessor

from edgebert.errors import InputError
from edgebert.files import is_file, is_folder, parse_json, read, read_json
from edgebert.tokenizers import sentencepiece, structure

Flags = Mapping[str, bool | None]

# In the order of preference; a vocab.json has its merges.txt beside it.
FILES = (
    "tokenizer.json", "vocab.txt", "sentencepiece.model", "spiece.model", "sentencepiece.bpe.model", "spm.model",
    "vocab.json",
)  # fmt: skip

LARGEST = 32 << 20  # bytes of a file; a tokenizer.json of 500,000 pieces has 20 million

# What a tokenizer_config.json can ask for, and what holds where it does not: the defaults of the class's __init__.
FLAGS: Mapping[str, Flags] = {
    "wordpiece": {"do_lower_case": True, "strip_accents": None, "tokenize_chinese_chars": True},
    "unigram": {"do_lower_case": False, "keep_accents": True, "add_prefix_space": True},
    "xlm-roberta": {"add_prefix_space": True},
    "deberta-v2": {"do_lower_case": False, "split_by_punct": False, "add_prefix_space": True},
    "bpe": {"add_prefix_space": False, "trim_offsets": True},
}

# Whose tokenizers, in transformers, read a vocab.txt, a .model or a vocab.json as it is read here; the first is written
# when saving.
CLASSES = {
    "wordpiece": ("Bert", "SqueezeBert", "ConvBert", "DistilBert", "Electra", "MobileBert"),
    "unigram": ("RemBert",),
    "bpe": ("Roberta", "Bart"),
}
ANY_CLASS = "PreTrained"  # PreTrainedTokenizerFast takes a tokenizer.json as it is

# Which of FLAGS a .model is read by, by the class of transformers; and the class where no config names one: by the
# config.json beside it, else by the file's name. The last two of its types are here to be refused.
SENTENCEPIECE = {"RemBert": "unigram", "XLMRoberta": "xlm-roberta", "DebertaV2": "deberta-v2"}
CLASS_OF_TYPE = {
    "rembert": "RemBert", "xlm-roberta": "XLMRoberta", "deberta-v2": "DebertaV2", "camembert": "Camembert",
    "albert": "Albert",
}  # fmt: skip
FAIRSEQ = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}  # first in XLM-R
CLASS_OF_FILE = {"spm.model": "DebertaV2", "sentencepiece.bpe.model": "XLMRoberta-or-Camembert"}

VOCAB_JSON, MERGES_TXT = "vocab.json", "merges.txt"

UNSEEN = "\U0010fffe"  # a noncharacter: in no vocabulary, so what a model makes of it is its unknown token


def find(path: Path) -> Path:
    """The file to read: `path` itself, or the first of FILES in it."""
    if path.suffix in {".json", ".txt", ".model"} and is_file(path):
        return path
    if not is_folder(path):
        raise InputError(f"{path} is no tokenizer: give a folder that has one, or its {', '.join(FILES)}")
    others = sorted(path.glob("*.model"))
    found = [path / name for name in FILES if is_file(path / name)] or others
    if not found or (len(others) > 1 and found is others):
        names = ", ".join(file.name for file in others) or "none of them"
        raise InputError(f"{path} has no tokenizer: looked for {', '.join(FILES)} or a single *.model, found {names}")
    return found[0]


def build(file: Path, config: Mapping[str, Any]) -> tuple[Tokenizer, list[str]]:
    """Makes the backend that `file` and the config beside it describe, special tokens not yet added.

    Returns:
        the backend, and the pieces that a .model keeps whole: its control and user-defined symbols.
    """
    if file.name.endswith(VOCAB_JSON):
        return _from_merges(file, config), []
    if file.suffix == ".json":
        return _from_json(file, config), []
    if file.suffix == ".txt":
        return _from_vocab(file, config), []
    model = sentencepiece.read(file)
    return _from_unigram(file, model, config), model.symbols


def kind_of(backend: Tokenizer) -> str:
    """Names the model: "wordpiece", "unigram" or "bpe", or another kind that is not supported."""
    return type(backend.model).__name__.lower()


def class_of(backend: Tokenizer, unk_id: int) -> tuple[str, Flags]:
    """The class of transformers that makes the same ids of a tokenizer.json, and the flags it needs.

    Its own classes build the pipeline anew from the flags, and the model from its vocabulary alone.

    Args:
        backend: the tokenizer.
        unk_id: the unknown token's id, -1 where there is none.
    """
    model, kind, found = backend.model, kind_of(backend), _flags_of(backend)
    if isinstance(model, models.WordPiece):
        usual = model.continuing_subword_prefix == "##" and model.max_input_chars_per_word == 100
    elif isinstance(model, models.BPE):
        # RobertaTokenizer has no unknown token in its model, and adds the special ones that it lacks.
        named = all(backend.token_to_id(name) is not None for name in ("<s>", "</s>"))
        usual = not model.ignore_merges and unknown_token(Path(), backend) is None and named and unk_id >= 0
    else:
        usual = unk_id == 2  # which RemBertTokenizer takes for granted
    if found is None or not usual:
        return f"{ANY_CLASS}TokenizerFast", {}
    return f"{CLASSES[kind][0]}Tokenizer", found[0]


def template(
    backend: Tokenizer, cls_id: int, sep_id: int, doubled: bool = False, typed: bool = True
) -> processors.TemplateProcessing:
    """[CLS] A [SEP] of one text and [CLS] A [SEP] B [SEP] of two, with the token type after each colon.

    Args:
        backend: names the tokens.
        cls_id: of [CLS].
        sep_id: of [SEP].
        doubled: two [SEP] stand between two texts.
        typed: the second text is of type 1, else all is of type 0.
    """
    cls, sep = backend.id_to_token(cls_id), backend.id_to_token(sep_id)
    single = [f"{cls}:0", "$A:0", f"{sep}:0"]
    second = [f"{sep}:0"] * doubled + [f"$B:{typed:d}", f"{sep}:{typed:d}"]
    tokens = [(cls, cls_id), (sep, sep_id)]
    return processors.TemplateProcessing(single=single, pair=[*single, *second], special_tokens=tokens)


def renumbered(
    old: PostProcessor, backend: Tokenizer, cls_id: int, sep_id: int, doubled: bool, typed: bool
) -> PostProcessor:
    """What frames texts as `old` does, with other ids; arguments as of `template`."""
    if isinstance(old, processors.RobertaProcessing):
        state = json.loads(old.__getstate__())
        sep, cls = ((str(backend.id_to_token(i)), i) for i in (sep_id, cls_id))
        return processors.RobertaProcessing(sep, cls, state["trim_offsets"], state["add_prefix_space"])
    return template(backend, cls_id, sep_id, doubled, typed)


def unknown_token(file: Path, backend: Tokenizer) -> str | None:
    """What the model makes of text that it cannot spell; None of one that has a piece for every byte."""
    if isinstance(backend.model, models.BPE):
        spelt = all(backend.model.token_to_id(character) is not None for character in structure.BYTES)
        return None if spelt else backend.model.unk_token
    with structure.contained(f"copy {file} again, it is not usable"):
        tokens = backend.model.tokenize(UNSEEN)
    if len(tokens) != 1:
        raise InputError(f"{file} spells unknown text as {len(tokens)} tokens; one unknown token is supported")
    return str(backend.id_to_token(tokens[0].id))  # Unigram's own value for it is the text as it came


def vocab_txt(vocab: Mapping[str, int]) -> bytes:
    """A WordPiece vocabulary as the file that `build` reads: one token a line, whose number is the id."""
    tokens = sorted(vocab, key=vocab.__getitem__)
    for i, token in enumerate(tokens):
        if vocab[token] != i or token != token.rstrip() or "\n" in token:
            raise InputError(f"the token {token!r} with id {vocab[token]} has no place in a vocab.txt; use save()")
    return "".join(f"{token}\n" for token in tokens).encode()


def merged_files(backend: Tokenizer) -> dict[str, bytes]:
    """A BPE model as the two files that `build` reads, by their names: vocab.json and merges.txt."""
    state = json.loads(backend.model.__getstate__())
    merges = [tuple(merge) for merge in state["merges"]]
    for merge in merges:
        if any(set(part) & set(" \r\n") for part in merge) or merge[0].startswith("#version"):
            raise InputError(f"the merge {merge!r:.80} has no place in a {MERGES_TXT}; use save()")
    lines = ["#version: 0.2", *(" ".join(merge) for merge in merges)]
    vocab = json.dumps(state["vocab"], ensure_ascii=False)
    return {VOCAB_JSON: vocab.encode(), MERGES_TXT: "".join(f"{line}\n" for line in lines).encode()}


def _pipeline(kind: str, flags: Flags, charsmap: bytes) -> tuple[Normalizer | None, PreTokenizer]:
    """What happens to text before the model sees it."""
    if kind == "xlm-roberta":
        split = [pre_tokenizers.WhitespaceSplit(), _metaspace(flags, "never")]
        return (normalizers.Precompiled(charsmap) if charsmap else None), pre_tokenizers.Sequence(split)
    if kind == "deberta-v2":  # the charsmap is left out, as transformers 5 leaves it
        lower = [normalizers.Lowercase()] if flags["do_lower_case"] else []
        white = normalizers.Replace(Regex(r"\s{2,}|[\n\r\t]"), " ")
        signs = [pre_tokenizers.Punctuation("isolated")] if flags["split_by_punct"] else []
        cleaned = [*lower, white, normalizers.NFC(), normalizers.Strip(left=False)]
        return normalizers.Sequence(cleaned), pre_tokenizers.Sequence([*signs, _metaspace(flags, "first")])
    if kind == "bpe":
        return None, pre_tokenizers.ByteLevel(add_prefix_space=bool(flags["add_prefix_space"]))
    if kind == "wordpiece":
        return normalizers.BertNormalizer(
            clean_text=True,
            handle_chinese_chars=bool(flags["tokenize_chinese_chars"]),
            strip_accents=flags["strip_accents"],
            lowercase=bool(flags["do_lower_case"]),
        ), pre_tokenizers.BertPreTokenizer()
    steps: list[Normalizer] = [normalizers.Replace(quote, '"') for quote in ("``", "''")]
    steps += [normalizers.Replace(Regex(" {2,}"), " ")]
    if not flags["keep_accents"]:
        steps += [normalizers.NFKD(), normalizers.StripAccents()]
    if flags["do_lower_case"]:
        steps += [normalizers.Lowercase()]
    if charsmap:
        steps += [normalizers.Precompiled(charsmap)]
    return normalizers.Sequence(steps), _metaspace(flags, "never")


def _metaspace(flags: Flags, otherwise: str) -> PreTokenizer:
    return pre_tokenizers.Metaspace("▁", "always" if flags["add_prefix_space"] else otherwise)


def _flags_of(backend: Tokenizer) -> tuple[Flags, bytes] | None:
    """The flags and the charsmap that `_pipeline` makes this backend's pipeline from; None where it cannot."""
    if kind_of(backend) == "bpe":
        return _byte_flags_of(backend)
    if backend.normalizer is None or backend.pre_tokenizer is None:
        return None
    states = backend.normalizer.__getstate__(), backend.pre_tokenizer.__getstate__()
    normalizer, pre_tokenizer = (json.loads(state) for state in states)
    flags: dict[str, bool | None] = {}
    charsmap = b""
    if kind_of(backend) == "wordpiece":
        theirs = {"do_lower_case": "lowercase", "tokenize_chinese_chars": "handle_chinese_chars"}
        flags = {name: normalizer.get(theirs.get(name, name)) for name in FLAGS["wordpiece"]}
    else:
        steps = {step["type"]: step for step in normalizer.get("normalizers", [])}
        flags["do_lower_case"], flags["keep_accents"] = "Lowercase" in steps, "StripAccents" not in steps
        flags["add_prefix_space"] = pre_tokenizer.get("prepend_scheme") == "always"
        charsmap = base64.b64decode(steps.get("Precompiled", {}).get("precompiled_charsmap", ""))
    rebuilt = [part for part in _pipeline(kind_of(backend), flags, charsmap) if part is not None]
    return (flags, charsmap) if states == tuple(part.__getstate__() for part in rebuilt) else None


def _byte_flags_of(backend: Tokenizer) -> tuple[Flags, bytes] | None:
    """The same of a byte-level BPE: RoBERTa's pipeline, whose flags its post-processor repeats."""
    split, framed = backend.pre_tokenizer, backend.post_processor
    if backend.normalizer is not None or not isinstance(framed, processors.RobertaProcessing):
        return None
    state = json.loads(framed.__getstate__())
    flags = {name: bool(state[name]) for name in FLAGS["bpe"]}
    _, rebuilt = _pipeline("bpe", flags, b"")
    # What the pre-tokenizer says of trimming has no effect.
    theirs = {} if split is None else json.loads(split.__getstate__()) | {"trim_offsets": True}
    decoded = isinstance(backend.decoder, decoders.ByteLevel)
    return (flags, b"") if decoded and theirs == json.loads(rebuilt.__getstate__()) else None


def _framed(backend: Tokenizer, flags: Flags) -> processors.RobertaProcessing:
    """RoBERTa's post-processor with these flags, and the tokens that it has."""
    state = json.loads(backend.post_processor.__getstate__())
    prefixed, trims = bool(flags["add_prefix_space"]), bool(flags["trim_offsets"])
    return processors.RobertaProcessing(tuple(state["sep"]), tuple(state["cls"]), trims, prefixed)


def _stated(kind: str, config: Mapping[str, Any]) -> Flags:
    """The flags that the config states."""
    flags = {name: config[name] for name in FLAGS[kind] if name in config}
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise InputError(f"tokenizer_config.json: {name} is {value!r:.80}; true or false belongs there")
    return flags


def _class(config: Mapping[str, Any]) -> str:
    """Whose tokenizer the config names, in the words of CLASSES; "" when it names none."""
    name = str(config.get("tokenizer_class", "")).removesuffix("Fast").removesuffix("Tokenizer")
    return ANY_CLASS if name == "TokenizersBackend" else name


def _flags(file: Path, kind: str, config: Mapping[str, Any]) -> Flags:
    """All flags of a vocabulary file, which says nothing of them itself."""
    if _class(config) not in {"", ANY_CLASS, *CLASSES[kind]}:
        raise InputError(
            f"{file} is for {config['tokenizer_class']}, and is read here as for {', '.join(CLASSES[kind])}: "
            "have transformers save it as a tokenizer.json"
        )
    return {**FLAGS[kind], **_stated(kind, config)}


def _from_json(file: Path, config: Mapping[str, Any]) -> Tokenizer:
    content = read(file, LARGEST)
    try:
        structure.check_json(parse_json(content, file))
    except ValueError as error:
        raise InputError(f"{file} is no usable tokenizer.json: {error}") from error
    with structure.contained(f"copy {file} again, it is no usable tokenizer.json"):
        backend = Tokenizer.from_str(content.decode())
    if (kind := kind_of(backend)) not in CLASSES:
        raise InputError(f"{file} holds a {kind} model; supported are {', '.join(CLASSES)}")
    backend.no_truncation()
    backend.no_padding()
    found, named = _flags_of(backend), _class(config)
    if found is not None and named != ANY_CLASS:
        # Where both speak, the classes of transformers follow the config and not the tokenizer.json.
        flags = {**(FLAGS[kind] if named in CLASSES[kind] else found[0]), **_stated(kind, config)}
        backend.normalizer, backend.pre_tokenizer = _pipeline(kind, flags, found[1])
        if kind == "bpe":
            backend.post_processor = _framed(backend, flags)
    return backend


def _from_vocab(file: Path, config: Mapping[str, Any]) -> Tokenizer:
    flags = _flags(file, "wordpiece", config)
    if (lines := read(file, LARGEST).count(b"\n")) > structure.LARGEST:
        raise InputError(f"{file} has {lines:,} lines, a token each; at most {structure.LARGEST:,} are taken.")
    with structure.contained(f"copy {file} again, it is no vocabulary, one token a line in UTF-8"):
        vocab = models.WordPiece.read_file(str(file))
    unk = str(config.get("unk_token", "[UNK]"))
    if unk not in vocab:
        raise InputError(f"{file} has no {unk}, which stands for what it cannot spell: is it a BERT vocabulary?")
    backend = Tokenizer(models.WordPiece(vocab, unk_token=unk))
    backend.normalizer, backend.pre_tokenizer = _pipeline("wordpiece", flags, b"")
    backend.decoder = decoders.WordPiece(prefix="##")
    return backend


def _from_merges(file: Path, config: Mapping[str, Any]) -> Tokenizer:
    """A vocab.json with the merges.txt beside it: RoBERTa's files before there was a tokenizer.json."""
    flags = _flags(file, "bpe", config)
    beside = file.with_name(file.name.removesuffix(VOCAB_JSON) + MERGES_TXT)
    if not is_file(beside):
        raise InputError(f"{file} has no {beside.name} beside it, which says how its pieces are merged: copy it too")
    try:
        lines = read(beside, LARGEST).decode("utf-8").split("\n")
        last = lines.pop()  # empty where the file ends with a line's end
        merges = structure.pairs_of([line.removesuffix("\r") for line in [*lines, *([last] if last else [])]])
        vocab = parse_json(read(file, LARGEST), file)
        structure.check_bpe({"vocab": vocab, "merges": [list(merge) for merge in merges]})
    except ValueError as error:
        raise InputError(f"{file} and {beside.name} are no usable vocabulary: {error}") from error
    with structure.contained(f"copy {file} and {beside.name} again, they are no usable vocabulary"):
        backend = Tokenizer(models.BPE(vocab, merges))
    backend.normalizer, backend.pre_tokenizer = _pipeline("bpe", flags, b"")
    backend.decoder = decoders.ByteLevel()
    # RobertaTokenizer has names of its own for the roles that a config leaves out.
    own = [usual for role, usual in (FAIRSEQ | {"mask_token": "<mask>"}).items() if role not in config]
    backend.add_special_tokens([name for name in own if name in vocab])
    roles = [_content(config, role, usual) for role, usual in (("sep_token", "</s>"), ("cls_token", "<s>"))]
    for role in roles:
        if role not in vocab:
            raise InputError(f"{file} has no {role}: name the tokens that frame a text in tokenizer_config.json")
    sep, cls = ((role, vocab[role]) for role in roles)
    backend.post_processor = processors.RobertaProcessing(
        sep, cls, bool(flags["trim_offsets"]), bool(flags["add_prefix_space"])
    )
    return backend


def _content(config: Mapping[str, Any], role: str, usual: str) -> str:
    """The text of a special token."""
    return str(config[role].content) if role in config else usual


def _from_unigram(file: Path, model: sentencepiece.UnigramModel, config: Mapping[str, Any]) -> Tokenizer:
    kind = _kind_of_model(file, config)
    flags = {**FLAGS[kind], **_stated(kind, config)}
    pieces, unk_id = model.pieces, model.unk_id
    # XLM-R's ids are fairseq's: its own four first, of the file's pieces all but three, and the mask.
    first = [_content(config, role, usual) for role, usual in FAIRSEQ.items()]
    if kind == "xlm-roberta":
        mask = _content(config, "mask_token", "<mask>")
        pieces, unk_id = [*((text, 0.0) for text in first), *pieces[3:], (mask, 0.0)], 3
        if len({text for text, _ in pieces}) < len(pieces):
            raise InputError(
                f"{file} has one of {', '.join(first)} and {mask} among its other pieces: it is not XLM-R's"
            )
    with structure.contained(f"{file} makes no tokenizer"):
        backend = Tokenizer(models.Unigram(pieces, unk_id=unk_id, byte_fallback=False))
        backend.normalizer, backend.pre_tokenizer = _pipeline(kind, flags, model.charsmap)
        otherwise = "first" if kind == "deberta-v2" else "never"
        backend.decoder = decoders.Metaspace("▁", "always" if flags["add_prefix_space"] else otherwise)
        if kind == "xlm-roberta":
            cls, _, sep, _ = first
            backend.post_processor = processors.TemplateProcessing(
                single=[cls, "$A", sep], pair=[cls, "$A", sep, sep, "$B", sep], special_tokens=[(cls, 0), (sep, 2)]
            )
    return backend


def _kind_of_model(file: Path, config: Mapping[str, Any]) -> str:
    """By which of FLAGS a .model is read: transformers decides by the class, or by the config.json that is beside it.

    Raises:
        InputError: it is another class's, whose ids would be others.
    """
    name = _class(config)
    if name in ("", ANY_CLASS):
        beside = file.with_name("config.json")
        stated = read_json(beside).get("model_type") if is_file(beside) else None
        name = CLASS_OF_TYPE.get(str(stated), CLASS_OF_FILE.get(file.name, "RemBert"))
    if name not in SENTENCEPIECE:
        raise InputError(
            f"{file} is for {name}Tokenizer, and is read here as for {', '.join(SENTENCEPIECE)}: have transformers "
            "save it as a tokenizer.json, or name its tokenizer_class in tokenizer_config.json"
        )
    return SENTENCEPIECE[name]
