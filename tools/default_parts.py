"""What `tools/train_default.py` trains with: sentences, tokenizer, augmentation, the student's forward pass.

No model is trained in this file. What is random takes a `random.Random`, so that one seed repeats the run.
"""

import json
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from torch.nn import functional
from transformers import SqueezeBertConfig, SqueezeBertForSequenceClassification

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
MAX_TOKENS = 64


@dataclass(frozen=True)
class Clinc:
    """The in-scope part of CLINC150.

    Attributes:
        labels: The intent names, sorted; a label's number is its place here.
        text: Per split (train, val, test) the sentences.
        label: Per split the number of each sentence's intent.
    """

    labels: list[str]
    text: dict[str, list[str]]
    label: dict[str, list[int]]


def load_clinc(path: Path) -> Clinc:
    """Read `data_full.json`, leaving the out-of-scope splits aside."""
    raw: dict[str, list[list[str]]] = json.loads(path.read_text(encoding="utf-8"))
    labels = sorted({intent for _, intent in raw["train"]})
    number = {name: i for i, name in enumerate(labels)}
    splits = ("train", "val", "test")
    text = {split: [sentence for sentence, _ in raw[split]] for split in splits}
    label = {split: [number[intent] for _, intent in raw[split]] for split in splits}
    return Clinc(labels, text, label)


def teacher_tokenizer(folder: Path) -> Tokenizer:
    """The teacher's own tokenizer, without the padding and truncation its file asks for."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def choose_vocabulary(tokenizer: Tokenizer, sentences: Sequence[str], size: int) -> dict[str, int]:
    """Choose the student's pieces out of the teacher's; returns piece to the teacher's id, in id order.

    Kept are the special pieces, every ASCII character (so that no English word becomes [UNK]) and each
    piece the sentences use, which makes the two tokenizers agree on them. The rest is filled with the
    lowest ids: BERT's WordPiece ids follow frequency.
    """
    ids = tokenizer.get_vocab()
    used = {i for encoding in tokenizer.encode_batch(list(sentences)) for i in encoding.ids}
    keep = used | {ids[special] for special in SPECIALS}
    keep |= {i for piece, i in ids.items() if len(piece.removeprefix("##")) == 1 and piece.isascii()}
    by_id = sorted(ids.items(), key=lambda item: item[1])
    for piece, i in by_id:
        if len(keep) >= size:
            break
        if not piece.startswith("[") and piece.isascii():
            keep.add(i)
    return {piece: i for piece, i in by_id if i in keep}


def student_tokenizer(pieces: Sequence[str]) -> Tokenizer:
    """A lower-case BERT tokenizer over the pieces; a piece's place is its id."""
    vocab = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.add_special_tokens(list(SPECIALS))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=True
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])],
    )
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    return tokenizer


def encode(tokenizer: Tokenizer, sentences: Sequence[str]) -> list[list[int]]:
    """Token ids per sentence, cut to what the student can take."""
    return [encoding.ids[:MAX_TOKENS] for encoding in tokenizer.encode_batch(list(sentences))]


def batches(encoded: Sequence[list[int]], picked: list[int], size: int, rng: random.Random) -> Iterator[list[int]]:
    """Shuffled batches of sentence numbers, of nearly equal length inside a batch: little padding to compute."""
    order = sorted(picked, key=lambda i: len(encoded[i]) + 1.5 * rng.random())
    chunks = [order[start : start + size] for start in range(0, len(order), size)]
    rng.shuffle(chunks)
    yield from chunks


def collate(encoded: Sequence[list[int]], picked: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Pad the picked sentences to one length; returns ids and the boolean mask of real tokens."""
    width = max(len(encoded[i]) for i in picked)
    ids = torch.tensor([encoded[i] + [0] * (width - len(encoded[i])) for i in picked])
    lengths = torch.tensor([len(encoded[i]) for i in picked])
    return ids, torch.arange(width)[None, :] < lengths[:, None]


class Augmenter:
    """Makes new sentences out of old ones; they carry no label, the teacher gives them one.

    Nothing here has to keep the meaning: the student learns what the teacher says about the sentence as
    it stands. What matters is that the sentences lie where real queries lie, and around them.
    """

    def __init__(self, data: Clinc, near: dict[str, list[str]], rng: random.Random) -> None:
        """Index the training sentences.

        Args:
            data: The data; only its train split is used.
            near: For a word, the words whose embeddings are nearest (see `nearest_words`).
            rng: Where the randomness comes from.
        """
        self.rng, self.near = rng, near
        self.sentences = [sentence.split() for sentence in data.text["train"]]
        self.label = data.label["train"]
        self.same: dict[int, list[int]] = defaultdict(list)
        self.places: dict[str, list[tuple[int, int]]] = defaultdict(list)
        self.between: dict[tuple[str, str], list[str]] = defaultdict(list)
        for number, words in enumerate(self.sentences):
            self.same[self.label[number]].append(number)
            padded = ["", *words, ""]
            for place, word in enumerate(words):
                self.places[word].append((number, place))
                self.between[padded[place], padded[place + 2]].append(word)

    def cross(self, words: list[str], label: int) -> list[str]:
        """The start of this sentence and the end of another of the same intent, cut at a shared word if any."""
        other = self.sentences[self.rng.choice(self.same[label])]
        shared = [(i, other.index(word)) for i, word in enumerate(words) if word in other]
        if shared:
            here, there = self.rng.choice(shared)
        else:
            here, there = self.rng.randint(0, len(words)), self.rng.randint(0, len(other))
        return words[:here] + other[there:]

    def leap(self, words: list[str]) -> list[str]:
        """The start of this sentence and, from a shared word on, the end of any other: between two intents."""
        place = self.rng.randrange(len(words))
        number, there = self.rng.choice(self.places[words[place]])
        return words[:place] + self.sentences[number][there:]

    def replace_near(self, words: list[str]) -> list[str]:
        """Replace some words by words of near meaning, which need not occur in the training data at all."""
        share = self.rng.choice((0.15, 0.3))
        return [
            self.rng.choice(self.near[word]) if word in self.near and self.rng.random() < share else word
            for word in words
        ]

    def replace_fitting(self, words: list[str]) -> list[str]:
        """Replace one or two words by words seen between the same two neighbours."""
        words = list(words)
        for _ in range(self.rng.randint(1, 2)):
            place = self.rng.randrange(len(words))
            left = words[place - 1] if place else ""
            right = words[place + 1] if place + 1 < len(words) else ""
            words[place] = self.rng.choice(self.between.get((left, right)) or [words[place]])
        return words

    def thin(self, words: list[str]) -> list[str]:
        """Drop words and sometimes exchange two neighbours."""
        kept = [word for word in words if self.rng.random() > 0.15] or list(words)
        if len(kept) > 1 and self.rng.random() < 0.4:
            place = self.rng.randrange(len(kept) - 1)
            kept[place], kept[place + 1] = kept[place + 1], kept[place]
        return kept

    def one(self) -> str:
        """One new sentence."""
        number = self.rng.randrange(len(self.sentences))
        words, dice = self.sentences[number], self.rng.random()
        if dice < 0.35:
            words = self.cross(words, self.label[number])
        elif dice < 0.5:
            words = self.leap(words)
        elif dice < 0.65:
            words = self.replace_fitting(words)
        elif dice < 0.75:
            words = self.thin(words)
        # Near words come on top of half of the others too: they carry the vocabulary beyond the data.
        if words and (dice >= 0.75 or self.rng.random() < 0.5):
            words = self.replace_near(words)
        return " ".join(words[:40])

    def pool(self, size: int) -> list[str]:
        """That many sentences, each different from the others and from the training data."""
        known = {" ".join(words) for words in self.sentences} | {""}
        made: dict[str, None] = {}
        while len(made) < size:
            sentence = self.one()
            if sentence not in known:
                made.setdefault(sentence)
        return list(made)


def nearest_words(pieces: Sequence[str], embeddings: Tensor, count: int) -> dict[str, list[str]]:
    """For each whole word among the pieces, the words whose embeddings point most nearly the same way."""
    places = [i for i, piece in enumerate(pieces) if piece.isalpha() and len(piece) > 1]
    rows = functional.normalize(embeddings[places] - embeddings[places].mean(0), dim=1)
    best = (rows @ rows.T).fill_diagonal_(-1.0).topk(count, dim=1).indices.tolist()
    words = [pieces[i] for i in places]
    return {word: [words[j] for j in row] for word, row in zip(words, best, strict=True)}


def grouped(hidden: Tensor, conv: nn.Conv1d) -> Tensor:
    """A grouped 1x1 convolution as one batched matrix product; hidden and result are [groups, tokens, channels]."""
    groups = conv.groups
    weight = conv.weight.view(groups, -1, conv.weight.shape[1])
    return torch.baddbmm(conv.bias.view(groups, 1, -1), hidden, weight.transpose(1, 2))


def split(hidden: Tensor, groups: int) -> Tensor:
    """[tokens, channels] to [groups, tokens, channels of a group]."""
    return hidden.view(len(hidden), groups, -1).transpose(0, 1)


def join(hidden: Tensor) -> Tensor:
    """The inverse of `split`."""
    return hidden.transpose(0, 1).reshape(hidden.shape[1], -1)


def student_forward(model: SqueezeBertForSequenceClassification, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Pooled vector and logits, as transformers' own forward gives them but faster on a CPU.

    Tokens come first and channels last, so that each grouped convolution is a batched matrix product. While
    training, only the embeddings and the pooled vector are dropped out: the augmented pool regularizes enough.
    """
    body, config = model.transformer, model.config
    batch, width = ids.shape
    hidden = body.embeddings(ids).flatten(0, 1)
    for layer in body.encoder.layers:
        attention = layer.attention
        parts = split(hidden, config.q_groups)
        query, key, value = (
            join(grouped(parts, conv)).view(batch, width, config.num_attention_heads, -1).transpose(1, 2)
            for conv in (attention.query, attention.key, attention.value)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None, :])
        mixed = mixed.transpose(1, 2).reshape(batch * width, -1)
        after = layer.post_attention
        mixed = functional.linear(mixed, after.conv1d.weight[:, :, 0], after.conv1d.bias)
        hidden = nn.LayerNorm.forward(after.layernorm, hidden + mixed)
        inner = functional.gelu(grouped(split(hidden, config.intermediate_groups), layer.intermediate.conv1d))
        inner = join(grouped(inner, layer.output.conv1d))
        hidden = nn.LayerNorm.forward(layer.output.layernorm, hidden + inner)
    pooled = body.pooler(hidden.view(batch, width, -1))
    return pooled, model.classifier(model.dropout(pooled))


@torch.no_grad()
def fit(conv: nn.Conv1d, inputs: Tensor, target: Tensor) -> None:
    """Set a grouped convolution to the least-squares answer: what of the target its groups can still say."""
    mean, aim = inputs.mean(0), target.mean(0)
    into, out = split(inputs - mean, conv.groups), split(target - aim, conv.groups)
    square = into.transpose(1, 2) @ into
    ridge = 1e-3 * square.diagonal(dim1=1, dim2=2).mean() * torch.eye(square.shape[1])
    weight = torch.linalg.solve(square + ridge, into.transpose(1, 2) @ out).transpose(1, 2)
    conv.weight.copy_(weight.reshape(conv.weight.shape))
    conv.bias.copy_(aim - (weight @ split(mean[None], conv.groups).transpose(1, 2)).flatten())


def student_config(labels: Sequence[str], vocabulary: int, layers: int, dropout: float) -> SqueezeBertConfig:
    """The student's architecture."""
    names = dict(enumerate(labels))
    return SqueezeBertConfig(
        vocab_size=vocabulary,
        hidden_size=384,
        embedding_size=384,
        num_hidden_layers=layers,
        num_attention_heads=12,
        intermediate_size=1536,
        max_position_embeddings=MAX_TOKENS,
        type_vocab_size=2,
        pad_token_id=0,
        layer_norm_eps=1e-12,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=0.0,
        id2label=names,
        label2id={name: i for i, name in names.items()},
    )


def write_json(file: Path, value: dict[str, Any]) -> None:
    """Write indented JSON."""
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_tokenizer(out: Path, tokenizer: Tokenizer) -> None:
    """Write tokenizer.json, and beside it what transformers' AutoTokenizer needs to load it."""
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)
    names = {f"{piece[1:-1].lower()}_token": piece for piece in SPECIALS}
    settings = {"do_lower_case": True, "strip_accents": None, "tokenize_chinese_chars": True}
    limits = {"model_max_length": MAX_TOKENS, "tokenizer_class": "BertTokenizer"}
    write_json(out / "tokenizer_config.json", names | settings | limits)


CARD = """# edgebert's default model: the intent of a voice command

A SqueezeBERT sequence classifier (grouped 1x1 convolutions, {layers} layers of width {width}, {heads} heads,
feed-forward {inner}, {vocabulary} lower-case WordPiece pieces, at most {tokens} tokens, {parameters} parameters
stored as float16). It reads a short English command and names one of {labels} intents (`config.json` lists them).

## How it was made

`tools/train_default.py` made it, from one seed, on one CPU thread:

1. The teacher, all-MiniLM-L6-v2, was fine-tuned on CLINC150's in-scope train split.
2. The student's embeddings, its head and, as far as grouping allows, its layers start from the teacher's.
3. The student learnt the teacher's answers on the train split and on sentences made out of it by recombining
   and replacing words; the round was chosen on the val split.

## What it reaches

In-scope accuracy, measured on the files of this folder in float32: test (4,500 queries) {test:.2%}, val (3,000
queries, used for choosing) {val:.2%}. The teacher reaches {teacher:.2%} on test.

## What it does not do

- It knows English only, and was trained on short commands and questions to a voice assistant: other text gets some
  intent too, and the answer means nothing.
- It has no out-of-scope class: CLINC150's out-of-scope queries were not used.
- The figures above are for text like the data's; typing errors, dialects and speech recognition errors cost more.

## Where it comes from

- Data: CLINC150, Larson et al., "An Evaluation Dataset for Intent Classification and Out-of-Scope Prediction",
  EMNLP-IJCNLP 2019, licence CC BY 3.0. None of its sentences is in this folder.
- Initial weights, vocabulary and teacher: sentence-transformers/all-MiniLM-L6-v2, Apache-2.0.
- This model: Apache-2.0, as edgebert; please keep the attribution of CLINC150.
"""


def write_card(out: Path, config: SqueezeBertConfig, parameters: int, scores: dict[str, float]) -> None:
    """Write the model card with the measured accuracies (test, val and the teacher's)."""
    shape = {"layers": config.num_hidden_layers, "width": config.hidden_size, "heads": config.num_attention_heads}
    shape |= {"inner": config.intermediate_size, "tokens": MAX_TOKENS, "labels": config.num_labels}
    text = CARD.format(**shape, vocabulary=f"{config.vocab_size:,}", parameters=f"{parameters:,}", **scores)
    (out / "README.md").write_text(text, encoding="utf-8")
