"""Metadata by which MediaPipe's TextClassifier and TextEmbedder run a file as it is.

They find inputs by names that stand in an entry TFLITE_METADATA, a flatbuffer of a schema of its own, and vocabulary
and labels in a zip archive behind the model. Schema and names:
https://github.com/google-ai-edge/mediapipe, tasks/metadata/metadata_schema.fbs and
tasks/cc/components/processors/text_model_type.proto. What they ask further: one subgraph, one output, a classifier's
scores with their activation applied.

MediaPipe splits texts by itself: of letters it lowers those of ASCII alone, and keeps accents where BERT's uncased
vocabularies have neither. For other texts than plain English the ids, and answers, are others.
"""

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

from edgebert.errors import Unsupported
from edgebert.models.heads import ACTIVATED
from edgebert.tokenizers.tokenizer import Tokenizer

ENTRY, IDENTIFIER, PARSER = "TFLITE_METADATA", b"M001", "1.1.0"
VOCABULARY, LABELS = "vocab.txt", "labels.txt"
NOTE = (
    "MediaPipe's own tokenizer lowers ASCII letters alone and keeps accents: texts with others get other ids there "
    "than from tokenizer.json"
)
# A task to what MediaPipe calls the one that runs it.
RUNNERS = {"sequence-classification": "TextClassifier", "sentence-embedding": "TextEmbedder"}
# An input here to its name there.
NAMES = {"input_ids": "ids", "attention_mask": "mask", "token_type_ids": "segment_ids"}
# The schema's numbers: of AssociatedFileType, ProcessUnitOptions and ContentProperties.
AXIS_LABELS, VOCABULARY_FILE, BERT_TOKENIZER, FEATURE = 2, 5, 4, 1
SPECIAL = ("[CLS]", "[SEP]", "[UNK]")

Table = Mapping[int, Any]  # the number of a field in its table to what it holds


def vocabulary(tokenizer: Tokenizer | None, padding_invariant: bool) -> bytes:
    """The vocab.txt of a tokenizer, one token a line, for MediaPipe to split texts by.

    Args:
        tokenizer: of the model.
        padding_invariant: whether the model answers the same whatever fills a row; MediaPipe fills it with id 0.

    Raises:
        Unsupported: MediaPipe has no tokenizer that makes the same ids of plain texts.
    """
    lacking = "the model came without a tokenizer" if tokenizer is None else _lacking(tokenizer)
    if tokenizer is not None and not lacking and not padding_invariant and tokenizer.pad_id != 0:
        lacking = f"it pads with id {tokenizer.pad_id}, which this model sees, and MediaPipe pads with 0"
    if lacking or tokenizer is None:
        raise Unsupported(
            f"MediaPipe takes an uncased WordPiece vocabulary as BERT's: {lacking}. "
            "Export without --metadata mediapipe."
        )
    known = {i: token for token, i in tokenizer.backend.get_vocab(with_added_tokens=False).items()}
    # A line that came twice has left an id without a token.
    lines = (known.get(i, f"[no token {i}]") for i in range(max(known) + 1))
    return "".join(f"{line}\n" for line in lines).encode()


def _lacking(tokenizer: Tokenizer) -> str:
    """In what MediaPipe's BertTokenizer is another than this; empty where it is none."""
    raw = json.loads(tokenizer.backend.to_str())
    model, normalizer, splitter = raw["model"], raw["normalizer"] or {}, raw["pre_tokenizer"] or {}
    if tokenizer.kind != "wordpiece":
        return f"this is {tokenizer.kind}"
    if (normalizer.get("type"), splitter.get("type")) != ("BertNormalizer", "BertPreTokenizer"):
        return "it prepares texts in another way than BERT's"
    if not normalizer["lowercase"]:
        return "this one is cased, and MediaPipe lowers every text"
    if not normalizer["handle_chinese_chars"]:
        return "it leaves Chinese characters together, which MediaPipe parts"
    if model["continuing_subword_prefix"] != "##" or model["unk_token"] != "[UNK]":
        return f"its pieces go on with {model['continuing_subword_prefix']!r}, or its unknown is {model['unk_token']!r}"
    if tokenizer.doubled:
        return "it has two [SEP] between texts"
    known = tokenizer.backend.get_vocab(with_added_tokens=False)
    if broken := [token for token in known if token != token.strip() or len(token.splitlines()) > 1]:
        return f"its token {broken[0]!r} has no place on a line"
    missing = [token for token in SPECIAL if token not in known]
    if missing or (tokenizer.cls_id, tokenizer.sep_id) != (known["[CLS]"], known["[SEP]"]):
        return f"texts are not framed by [CLS] and [SEP]{', ' if missing else ''}{', '.join(missing)}"
    return ""


def entry(task: str, outputs: Sequence[str], said: Mapping[str, str]) -> bytes:
    """The entry's bytes.

    Args:
        task: a key of RUNNERS.
        outputs: names of the file's outputs; MediaPipe takes one.
        said: what the file says of itself, see `edgebert.exporters.common.said`.
    """
    import flatbuffers  # type: ignore[import-untyped]

    words = {0: VOCABULARY, 1: "The tokens that ids stand for, one a line.", 2: VOCABULARY_FILE}
    labels = {0: LABELS, 1: "The labels, in the order of the scores.", 2: AXIS_LABELS}
    content = {0: FEATURE, 1: {}}
    graph = {
        2: [{0: theirs, 1: ours, 3: content} for ours, theirs in NAMES.items()],
        3: [{0: name, 3: content} | ({6: [labels]} if name in ACTIVATED.values() else {}) for name in outputs],
        5: [{0: BERT_TOKENIZER, 1: {0: [words]}}],
    }
    whole = {
        0: RUNNERS[task], 1: f"{said['family']} for {task}, {said['recipe']}", 2: "1", 3: [graph], 4: "edgebert",
        5: said["license"], 7: PARSER,
    }  # fmt: skip
    builder = flatbuffers.Builder(1024)
    builder.Finish(_table(builder, whole), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def _table(builder: Any, fields: Table) -> int:
    """Write a table: whole numbers are bytes, all else stands elsewhere and is pointed to."""
    held = {field: value if isinstance(value, int) else _place(builder, value) for field, value in fields.items()}
    builder.StartObject(max(fields, default=-1) + 1)
    for field, value in held.items():
        if isinstance(fields[field], int):
            builder.PrependUint8Slot(field, value, 0)
        else:
            builder.PrependUOffsetTRelativeSlot(field, value, 0)
    return int(builder.EndObject())


def _place(builder: Any, value: Any) -> int:
    """Write a text, a table, or a list of tables."""
    if isinstance(value, str):
        return int(builder.CreateString(value))
    if isinstance(value, Mapping):
        return _table(builder, value)
    places = [_table(builder, each) for each in value]
    builder.StartVector(4, len(places), 4)
    for place in reversed(places):
        builder.PrependUOffsetTRelative(place)
    return int(builder.EndVector())


def files(words: bytes, labels: Sequence[str]) -> dict[str, bytes]:
    """The files that MediaPipe reads behind a model, by name."""
    listed = "".join(f"{' '.join(label.split())}\n" for label in labels)
    return {VOCABULARY: words} | ({LABELS: listed.encode()} if labels else {})


def behind(content: bytes, beside: Mapping[str, bytes]) -> bytes:
    """A model with a zip archive behind it: MediaPipe reads files where they stand, so nothing is packed."""
    if not beside:
        return content
    stream = io.BytesIO()
    stream.write(content)
    with zipfile.ZipFile(stream, "a", zipfile.ZIP_STORED) as into:
        for name, held in beside.items():
            into.writestr(zipfile.ZipInfo(name), held)  # dated 1980: one model makes one file
    return stream.getvalue()
