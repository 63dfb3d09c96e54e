"""What the tokenizer tests run on: texts, tokenizer configs, and what must be refused with which words."""

import random

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PROSE = """The quick brown fox jumps over the lazy dog, and nobody at the café minds. It's 7:45 o'clock; tea: $3.50!
Set an alarm for ten past six tomorrow, please. What is the weather like in Zürich? Play something by Björk (loudly).
Der schnelle braune Fuchs springt über den faulen Hund. Straßen und Gärten sind grün, schön und süß.
Où est la bibliothèque? L'été dernier, nous avons déjà mangé des crêpes à Besançon. El niño comió piñas mañana.
Быстрая лиса прыгает через ленивую собаку. Ёжик ест яблоки. Η γρήγορη αλεπού πηδάει πάνω από το σκυλί.
今天天气很好,我们去公园吧。東京は日本の首都です。とても美しい町だと思います。カタカナ 한국어 문장도 있습니다.
السلام عليكم ورحمة الله. שלום עולם. नमस्ते दुनिया, आप कैसे हैं? สวัสดีชาวโลก ฉันรักภาษาไทย 😀🎉 ½ ﬁ Ⅷ № ™ … — “so” ‘it’ ``is''
Playing, played, player, plays; unhappily unhappier; tokenization tokenizer tokens; one two three four five six."""
ALPHABET = "a b c d e f g h i j k l m n o p q r s t u v w x y z A B C D E 0 1 2 3 4 5 6 7 8 9 . , ! ? ' - é ü ß"
LINES = [line for line in (PROSE + "\n" + ALPHABET).splitlines() for _ in range(8)]

# What text is made of: prose, special tokens, accents and case, emoji and joiners, control characters, white space,
# scripts and width, punctuation, long words.
MATTER = [
    *PROSE.split(),
    *SPECIALS,
    *["<pad>", "<unk>", "</s>", "<user>", "[mask]", "[MASK", "[ MASK ]", "[MASK][MASK]", "x[SEP]y", "[extra]", "<ent>"],
    *["n\u00e9", "ne\u0301", "\u212b", "\u00c5", "A\u030a", "İ", "ı", "ǅ", "ﬃ", "\u2126", "a\u0300\u0301", "ก็"],
    *["\u1e9b\u0323", "S\u0323\u0307", "A\u030aa\u0308", "ΑΣ", "ς", "ẞ", "\u0301", "\u0345", "\u093c", "\u302a"],
    *["👍🏽", "👨‍👩‍👧‍👦", "🇨🇭", "❤️", "☺", "a\u200db", "\u200b", "\u200e", "\ufeff", "\u00ad", "\u2060"],
    *["\x00", "\x07", "\x1b[0m", "\x7f", "\x85", "\ufffd", "\ufffe", "\uffff", "\U0010ffff", "\ue000", "\U000e0041"],
    *[" ", "  ", "   ", "\t", "\n", "\r\n", "\v", "\f", "\u00a0", "\u1680", "\u2003", "\u2028", "\u3000", "▁", "▁▁a"],
    *["中", "㐀", "𠀀", "豈", "々", "ー", "ｱｲ", "ＡＢ", "①", "㍿", "가", "ᄀ", "ﷺ", "٣", "१२", "Ⅻ", "½"],
    *["``", "''", "'", "$", "€5", "3.14", "1,000,000", "e-mail@x.org", "http://a.b/c?d=e", "#tag", "_", "~", "^", "|"],
    *["a" * 99, "a" * 100, "a" * 101, "é" * 100, "q" * 300, "##ing", "##", "don't", "C++", "x" * 7 + "й"],
]  # fmt: skip


def strings(seed: int, count: int) -> list[str]:
    """Texts of nothing to forty pieces of MATTER, with and without spaces between, and characters from anywhere."""
    rng = random.Random(seed)
    made = ["", " ", "\u3000", "\x00", *MATTER]
    while len(made) < count:
        parts = rng.choices(MATTER, k=rng.choice([1, 2, 3, 4, 5, 6, 8, 10, 12, 40]))
        if rng.random() < 0.3:
            places = [rng.choice([0x250, 0x3000, 0x10000, 0x110000]) for _ in range(8)]
            parts += [chr(c) for c in map(rng.randrange, places) if not 0xD800 <= c < 0xE000]
            rng.shuffle(parts)
        made.append(rng.choice(["", " ", " ", "\n"]).join(parts))
    return made[:count]


TEXTS = strings(seed=1, count=2000)
SOME = TEXTS[:600]
PAIRS = list(zip(SOME, strings(seed=2, count=900)[300:], strict=True))
# transformers keeps all that it cuts off, of a pair each piece with each: long texts take minutes there
SHORT = [text for text in TEXTS if len(text) < 80][:300]
SHORT_PAIRS = list(zip(SHORT, reversed(SHORT), strict=True))

# tokenizer_config.json beside a vocab.txt of 700 lines
CONFIGS = [
    {"strip_accents": False},
    {"do_lower_case": False, "strip_accents": True, "tokenizer_class": "ConvBertTokenizer"},
    {"tokenize_chinese_chars": False, "strip_accents": None},
    {"mask_token": {"__type": "AddedToken", "content": "[MASK]", "lstrip": True, "rstrip": True, "normalized": False}},
    {"additional_special_tokens": ["[extra]", "<ent>"], "bos_token": "[BOS]"},
    {"extra_special_tokens": {"entity_token": "<ent>"}},
    {"added_tokens_decoder": {"0": {"content": "[PAD]", "special": True},
                              "700": {"content": "café", "normalized": True, "single_word": True}}},
    {"unk_token": "[PAD]"},
]  # fmt: skip

# and beside a SentencePiece model
REMBERT_CONFIGS = [
    {},
    {"do_lower_case": True},
    {"keep_accents": False},
    {"do_lower_case": True, "keep_accents": False, "add_prefix_space": False},
    {
        "mask_token": {"__type": "AddedToken", "content": "[MASK]", "lstrip": True},
        "tokenizer_class": "RemBertTokenizerFast",
    },
]

# the file, its config, and the class of transformers that its copy names
PIPELINES = [
    ("vocab_txt", {}, "BertTokenizer"),
    ("vocab_txt", {"do_lower_case": False, "strip_accents": True, "model_max_length": 128}, "BertTokenizer"),
    ("vocab_txt", {"extra_special_tokens": ["[extra]"], "bos_token": "[BOS]"}, "BertTokenizer"),
    ("sentencepiece_model", {}, "RemBertTokenizer"),
    ("sentencepiece_model", {"do_lower_case": True, "keep_accents": False}, "RemBertTokenizer"),
]

REFUSED_CALLS = [
    ("encode", ["ab\ud800c"], r"lone surrogate, U\+D800 at character 2"),
    ("encode", ["a", "\udfff"], r"lone surrogate, U\+DFFF at character 0"),
    ("batch", [["ok", "\ud800"]], "lone surrogate"),
    ("encode", [5], "a text is a str, and a int came"),
    ("batch", ["abc"], r"pass \[text\]"),
    ("batch", [["a", ("b", "c", "d")]], r"\(text, text\) pairs, and \('b', 'c', 'd'\) came"),
    ("batch", [[("a", None)]], "a NoneType came"),
    ("encode", ["a", None, 1], r"length 1 has no room .* give 2 or more"),
    ("batch", [["a", ("b", "c")], 2], r"length 2 has no room .* give 3 or more"),
    ("decode", [[-1]], "id -1 is not in the vocabulary"),
    ("decode", [[1 << 40]], "ids are 0 to "),
    ("get_special_tokens_mask", [[2], [3], True], "pass it without pair_ids"),
]

BERT = "\n".join([*SPECIALS, "a", "b"])
BPE_JSON = {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}
REFUSED_FOLDERS = [
    ({}, r"vocab\.txt, sentencepiece\.model, .*, vocab\.json or a single \*\.model, found none of them"),
    ({"a_model": b"1", "b_model": b"2"}, r"a single \*\.model, found a\.model, b\.model"),
    ({"tokenizer_json": '{"version": "1.0", "mod'}, r"tokenizer\.json is not JSON: Unterminated string"),
    ({"tokenizer_json": "{}"}, r"no usable tokenizer\.json"),
    ({"tokenizer": BPE_JSON}, "its bpe model has no ByteLevel before it, which makes characters of bytes"),
    ({"tokenizer": BPE_JSON | {"model": {"type": "WordLevel"}}}, "a wordlevel model; supported are wordpiece, unigram"),
    ({"vocab": {"a": 0}}, r"vocab\.json has no merges\.txt beside it, which says how its pieces are merged"),
    ({"vocab": {"a": 0}, "merges_txt": "a b c\n"}, r"are no usable vocabulary: its merge 'a b c' is no pair of texts"),
    ({"vocab": {"a": 0}, "merges_txt": b"\xff"}, r"merges\.txt are no usable vocabulary: .*can't decode"),
    ({"vocab": {"a": 0}, "merges_txt": ""}, r"lacks 255 of the 256 bytes, and has no unk_token for them"),
    ({"vocab_json": "{", "merges_txt": ""}, r"vocab\.json is not JSON"),
    ({"vocab": {"a": 0}, "merges_txt": "", "tokenizer_config": {"tokenizer_class": "CLIPTokenizer"}}, "for CLIPTok"),
    ({"sentencepiece.bpe_model": b"UNI"}, "is for XLMRoberta-or-CamembertTokenizer, and is read here as for RemBert"),
    ({"a_model": b"UNI", "config": {"model_type": "camembert"}}, "is for CamembertTokenizer, and .* tokenizer_class"),
    (
        {
            "a_model": b"UNI",
            "config": {"model_type": "xlm-roberta"},
            "tokenizer_config": {"mask_token": "[MASK]"},
        },
        r"has one of <s>, <pad>, </s>, <unk> and \[MASK\] among",
    ),
    ({"vocab_txt": BERT.replace("[UNK]", "x")}, r"vocab\.txt has no \[UNK\], which stands for what it cannot spell"),
    ({"vocab_txt": BERT.replace("[CLS]", "x")}, r"has no \[CLS\]: name the cls_token in tokenizer_config\.json"),
    ({"vocab_txt": BERT.replace("[PAD]", "x")}, r"has no \[PAD\]: name the pad_token"),
    ({"vocab_txt": b"[UNK]\n\xff\xfe"}, "no vocabulary, one token a line in UTF-8"),
    ({"vocab_txt": BERT, "tokenizer_config_json": '{"a": '}, "is not JSON: Expecting value"),
    ({"vocab_txt": BERT, "special_tokens_map_json": b"\xff"}, "is not JSON: .*codec can't decode"),
    ({"vocab_txt": BERT, "tokenizer_config_json": "[]"}, "holds a list; a JSON object is needed"),
    ({"vocab_txt": BERT, "tokenizer_config": {"cls_token": 5}}, "cls_token is 5; a text or .* belongs there"),
    ({"vocab_txt": BERT, "tokenizer_config": {"do_lower_case": "yes"}}, "do_lower_case is 'yes'; true or false"),
    ({"vocab_txt": BERT, "tokenizer_config": {"truncation_side": "left"}}, "'left'; edgebert has only 'right'"),
    ({"vocab_txt": BERT, "tokenizer_config": {"split_special_tokens": True}}, "split_special_tokens True"),
    ({"vocab_txt": BERT, "tokenizer_config": {"model_max_length": "long"}}, "model_max_length a number: invalid"),
    ({"vocab_txt": BERT, "tokenizer_config": {"added_tokens_decoder": {"9": 1}}}, "added tokens are objects by id"),
    ({"vocab_txt": BERT, "added_tokens": {"<ent>": 9}}, "'<ent>' is listed as 9 and is 7: not files of one model"),
    ({"vocab_txt": BERT, "tokenizer_config": {"tokenizer_class": "MPNetTokenizer"}}, "is for MPNetTokenizer"),
    ({"a_model": b"UNI", "tokenizer_config": {"tokenizer_class": "T5Tokenizer"}}, "for T5Tokenizer, .* as for RemBert"),
    ({"a_model": b"UNI", "tokenizer_config": {"unk_token": "[CLS]"}}, r"makes <unk> of .* unk_token is \[CLS\]"),
    ({"a_model": b"BPE"}, "its model type is BPE, and RemBERT's is Unigram"),
    ({"a_model": b"no protobuf at all"}, "not a usable SentencePiece Unigram model: wire type 6 at byte 0"),
    ({"a_model": b""}, "it holds no pieces"),
    ({"a_model": b"\x0a\xff\xff\xff\xff\x0f\x01"}, "a field at byte 0 says 4294967295 bytes and 1 are left"),
    ({"a_model": b"\x0a" + b"\xff" * 30}, "the number at byte 1 does not end"),
    ({"a_model": b"\x08\x01"}, "a field has a number where a message or a text belongs"),
    ({"a_model": b"\x0a\x03\x0a\x01\xff"}, r"the piece b'\\xff' is not UTF-8"),
    ({"a_model": b"\x0a\x03\x0a\x01a"}, "it holds 0 unknown pieces where one is needed"),
    ({"a_model": b"\x0a\x05\x0a\x01a\x18\x02" * 2}, "it holds the same piece twice"),
    ({"a_model": b"\x0a\x02\x18\x02"}, "piece 0 is empty"),
    ({"a_model": b"\x0a\x08\x0a\x01a\x15\x00\x00\xc0\x7f"}, "the piece 'a' has the score nan"),
    ({"a_model": b"\x0a\x05\x0a\x01a\x1a\x00"}, "a field has another type than the number that belongs there"),
]  # fmt: skip
