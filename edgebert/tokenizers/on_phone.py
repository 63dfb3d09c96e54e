"""What of a tokenizer.json the library of android_demo knows; a bundle with anything else is refused by the app.

It stands in `TokenizerFile.kt` and `ModelReader.kt` too, and a test holds the two together. Today it is all that
`structure.py` takes: what is added there and not here is told at export.
"""

from collections.abc import Iterator, Mapping
from typing import Any

# Part of the file to the kinds of step that are known in it, and the key under which a sequence has its own.
KNOWN: Mapping[str, tuple[str, ...]] = {
    "normalizer": (
        "BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Precompiled", "Prepend", "Replace",
        "Sequence", "Strip", "StripAccents",
    ),
    "pre_tokenizer": (
        "BertPreTokenizer", "ByteLevel", "Digits", "Metaspace", "Punctuation", "Sequence", "Whitespace",
        "WhitespaceSplit",
    ),
    "model": ("WordPiece", "Unigram", "BPE"),
    "post_processor": ("BertProcessing", "RobertaProcessing", "TemplateProcessing"),
    "decoder": ("ByteFallback", "ByteLevel", "Fuse", "Metaspace", "Replace", "Sequence", "WordPiece"),
}  # fmt: skip
INNER = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers", "decoder": "decoders"}


def unknown(raw: Mapping[str, Any]) -> list[str]:
    """The parts of a tokenizer.json that the app does not know, each once: `normalizer Nmt`.

    Args:
        raw: the parsed file, which `structure.check_json` has taken.
    """
    found = (f"{part} {kind}" for part, known in KNOWN.items() for kind in _kinds(raw, part) if kind not in known)
    return list(dict.fromkeys(found))


def _kinds(raw: Mapping[str, Any], part: str) -> Iterator[str]:
    """The kinds of the steps of a part, and of those of its sequences; a model of old does not name its own."""
    steps = [raw.get(part)]
    while steps:
        step = steps.pop(0)
        if isinstance(step, dict) and "type" in step:
            yield str(step["type"])
            steps += step.get(INNER.get(part, ""), [])
