"""A Hugging Face checkpoint folder in and out, strictly; no file is trusted to run code or to be whole."""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from edgebert.checkpoints import sentence
from edgebert.checkpoints.read import locate, read_config, read_tensors
from edgebert.checkpoints.sentence import Modules
from edgebert.checkpoints.weights import BARE as HEADLESS
from edgebert.checkpoints.weights import assemble, hf_tensors
from edgebert.errors import InputError, Unsupported
from edgebert.files import is_file, is_folder, new_folder, read, sha256
from edgebert.models import MODEL_TYPES, MODELS, Family, Model
from edgebert.models import outline as outlined
from edgebert.models.config import label_numbers, unread
from edgebert.tokenizers import tokenizer
from edgebert.tokenizers.tokenizer import Tokenizer

# Bytes of weight files that a model may come with: doubles for each parameter, and what belongs to heads that are left
# out. What has more is not this model's, and is not read into memory to say so.
LARGEST_WEIGHT, BESIDE = 8, 1 << 30
CARD, LONGEST_CARD = "README.md", 1 << 20  # bytes
# The ends of names of layers with a row for each label.
CLASSES = ("classifier.weight", "classifier.out_proj.weight")


@dataclasses.dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model with everything that came with it.

    Attributes:
        model: the torch model, float32, ready for inference.
        tokenizer: the folder's tokenizer; None where it has none.
        source: the folder, hub name or preset that was asked for.
        raw_config: the `config.json` as it was read, for writing it out again.
        weights_sha256: of the weight files; for random weights, what made them.
        notes: what a careful reader wants to know: tied weights, tensors left out.
        card: the folder's README.md, which has the licence of the weights; empty where there is none.
    """

    model: Model
    tokenizer: Tokenizer | None
    source: str
    raw_config: Mapping[str, Any]
    weights_sha256: str
    notes: tuple[str, ...]
    card: str = ""

    def __repr__(self) -> str:
        count = sum(parameter.numel() for parameter in self.model.parameters())
        return f"Checkpoint({self.source!r}, {self.model.family.name} for {self.model.task}, {count:,} parameters)"

    @property
    def random(self) -> bool:
        """Whether the weights were drawn and not trained."""
        return self.weights_sha256.startswith("random")

    @property
    def license(self) -> str:
        """What the front matter of the card says of the licence; empty where it says nothing."""
        head = re.match(r"---\s*\n(.*?)\n---\s*\n", self.card.replace("\r\n", "\n"), re.DOTALL)
        lines = re.findall(r"^(license\w*):[ \t]*[\"']?([^\"'\n#]{1,200}?)[\"']?[ \t]*$", head[1], re.M) if head else []
        found = dict(lines)
        parts = (found.get(key, "") for key in ("license", "license_name", "license_link"))
        return ", ".join(part for part in parts if part)

    def save(self, folder: str | Path, force: bool = False) -> Path:
        """Write a folder that transformers loads: `config.json`, `model.safetensors` and the tokenizer's files."""
        with new_folder(Path(folder), force, "config.json") as staging:
            _save(sentence.by_file(hf_tensors(self.model))[sentence.WEIGHTS], staging / sentence.WEIGHTS)
            self.describe(staging)
        return Path(folder)

    def describe(self, folder: Path) -> None:
        """Write the files of that folder but the encoder's weights; those of a sentence encoder's dense layers too."""
        family, task = self.model.family, self.model.task
        saved = "base" if task in HEADLESS else task
        named = [name for name, of in family.architectures.items() if of == saved]
        own, kind = self.raw_config.get("architectures") or (), self.raw_config.get("model_type")
        config = {
            **self.raw_config,
            **_hf_config(self.model),
            "model_type": kind if MODEL_TYPES.get(str(kind)) is family else family.name,
            "architectures": [next((name for name in named if name in own), named[0])],
        }
        (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        if task == "sentence-embedding":
            width = len(self.model.encoder.get_submodule("layers")[0].get_parameter("norm.weight"))  # type: ignore
            for name, content in sentence.written(self.model.config.pooling, width).items():
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
            for name, tensors in sentence.by_file(hf_tensors(self.model)).items():
                if name != sentence.WEIGHTS:
                    _save(tensors, folder / name)
        if self.tokenizer is not None:
            self.tokenizer.save(folder)


def _card(folder: Path) -> str:
    """What a folder's README.md says; one that is no text, or too long to be read, says nothing."""
    if not is_file(folder / CARD):
        return ""
    try:
        return read(folder / CARD, LONGEST_CARD).decode("utf-8", "replace")
    except InputError:
        return ""


def _save(tensors: dict[str, Tensor], file: Path) -> None:
    """Write a file of weights."""
    try:
        save_file(tensors, file, metadata={"format": "pt"})
    except SafetensorError as error:  # what it makes of a full disk
        raise InputError(f"{file} cannot be written: {error}") from None


def load(
    source: str | Path = "default",
    task: str | None = None,
    random_init: bool = False,
    seed: int = 0,
    random_head: bool = False,
    prompt: str | None = None,
    ignore_config: Sequence[str] = (),
) -> Checkpoint:
    """Load a model with its tokenizer.

    Args:
        source: a checkpoint folder, a hub name such as `squeezebert/squeezebert-uncased`, `default` for the embedded
            intent classifier, or with `random_init` a preset such as `squeezebert-base`.
        task: the head to load; None takes the one that the checkpoint was saved with, which for a folder of
            sentence-transformers is `sentence-embedding`.
        random_init: take the config alone and draw the weights, for work on latency.
        seed: of the random weights.
        random_head: draw the head's weights where the checkpoint has none for the task.
        prompt: the name of a prompt that a sentence encoder was trained with, to stand before each text.
        ignore_config: keys of `config.json` to leave out, which are not known here and do not change the model.

    Raises:
        InputError: something is missing, damaged, left over or of the wrong shape; the message names it.
        Unsupported: the task or a variant in the config is not defined here.
        MissingDependency: the file format needs a package that is not installed.
    """
    if str(source) in _presets() and not is_folder(Path(source)):
        family, config = _presets()[str(source)]
        if not random_init:
            raise InputError(
                f"{source} is a preset, a config without weights: pass --random-init, or give a checkpoint."
            )
        return _drawn(family, config, task or "base", seed, None, str(source), {})
    stated = _read(source, task, random_init or random_head, prompt, ignore_config)
    family, config, task = stated.family, stated.config, stated.task
    size = sum(parameter.numel() for parameter in outlined(family, config, task).parameters())
    folder = stated.folder
    words = tokenizer.load(folder) if _has_tokenizer(folder) else None
    if stated.modules and stated.modules.lower and words and words.encode("A b").ids != words.encode("a b").ids:
        raise Unsupported(
            f"{folder / sentence.SETTINGS}: do_lower_case is true and the tokenizer's is not: set do_lower_case in "
            "tokenizer_config.json, for apps read the tokenizer alone."
        )
    if config.pooling.prompt:
        config = _prompted(config, stated.modules, words)
    if random_init:
        return _drawn(family, config, task, seed, words, str(source), stated.raw)
    tensors, files = read_tensors(folder, LARGEST_WEIGHT * size + BESIDE)
    if task == "sentence-embedding" and stated.modules:
        more, further = sentence.weights(stated.modules)
        tensors, files = tensors | more, [*files, *further]
    config = _named(config, stated.raw, tensors)
    model, notes = assemble(family, config, task, tensors, seed if random_head else None)
    notes = (*stated.notes, *notes)
    return Checkpoint(model, words, str(source), stated.raw, sha256(*files), notes, _card(folder))


@dataclasses.dataclass(frozen=True, slots=True)
class _Stated:
    """What a folder says of its model: its family, config and task, and what it is said by."""

    folder: Path
    raw: Mapping[str, Any]
    family: Family
    config: Any
    task: str
    modules: Modules | None
    notes: tuple[str, ...]


def _read(
    source: str | Path, task: str | None, any_head: bool, prompt: str | None = None, ignored: Sequence[str] = ()
) -> _Stated:
    """Read the files of a folder that say what its weights are."""
    folder = locate(source)
    # What it is without its modules is asked with --task.
    modules = sentence.find(folder, prompt) if task in (None, "sentence-embedding") else None
    folder = modules.encoder if modules else folder
    raw = read_config(folder)
    if absent := [key for key in ignored if key not in raw]:
        raise InputError(f"--ignore-config {absent[0]}: {folder / 'config.json'} has no such key.")
    raw = {key: value for key, value in raw.items() if key not in ignored} | sentence.activation(folder)
    family, config, task = interpret(raw, task or ("sentence-embedding" if modules else None), any_head)
    if prompt is not None and task != "sentence-embedding":
        raise InputError(f"--prompt {prompt!r}: only a sentence encoder has prompts, and this is for {task}.")
    if modules and task == "sentence-embedding":
        config = dataclasses.replace(config, pooling=modules.pooling)
    told = [*unread(raw), *ignored]
    notes = (f"config.json: not read, as it changes nothing here: {', '.join(told)}",) if told else ()
    return _Stated(folder, raw, family, config, task, modules, notes)


def _prompted(config: Any, modules: Modules | None, words: Tokenizer | None) -> Any:
    """A config that says how many tokens the prompt has, where they are not to be pooled."""
    if words is None:
        raise InputError("the checkpoint has a prompt and no tokenizer to read it with: add its tokenizer.json.")
    skipped = 0 if modules is None or modules.include_prompt else len(words.encode(config.pooling.prompt).ids) - 1
    return dataclasses.replace(config, pooling=dataclasses.replace(config.pooling, skipped=skipped))


def _named(config: Any, raw: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Any:
    """A config whose labels have the numbers that `id2label` gives them, where the head has rows for all of those."""
    numbered = label_numbers(raw)
    if numbered is None or sorted(numbered) == list(range(len(numbered))):
        return config
    rows = {len(tensor) for name, tensor in tensors.items() if name.endswith(CLASSES) and tensor.dim() == 2}
    count = max(numbered) + 1
    if count not in rows or len(numbered) in rows:
        return config
    return dataclasses.replace(config, labels=tuple(numbered.get(i, f"LABEL_{i}") for i in range(count)))


def _drawn(
    family: Family, config: Any, task: str, seed: int, words: Tokenizer | None, source: str, raw: Mapping[str, Any]
) -> Checkpoint:
    """A checkpoint with random weights."""
    model = outlined(family, config, task).in_memory()
    drawn = f"random, seed {seed}"
    return Checkpoint(model.random_init(seed), words, source, raw, drawn, (f"random weights, seed {seed}",))


def _presets() -> dict[str, tuple[Family, Any]]:
    """Preset name to its family and config."""
    return {name: (family, config) for family in MODELS.values() for name, config in family.presets.items()}


def outline(
    source: str | Path, task: str | None = None, any_head: bool = False, prompt: str | None = None,
    ignore_config: Sequence[str] = (),
) -> Model:  # fmt: skip
    """The model that `load` would give, on torch's `meta` device: sizes without weights, for a look before any work.

    Raises:
        InputError: as `load`, for what shows without reading weights.
        Unsupported: as `load`.
    """
    if str(source) in _presets() and not is_folder(Path(source)):
        family, config = _presets()[str(source)]
        return outlined(family, config, task or "base")
    stated = _read(source, task, any_head, prompt, ignore_config)
    return outlined(stated.family, stated.config, stated.task)


def interpret(raw: Mapping[str, Any], task: str | None, any_head: bool = False) -> tuple[Family, Any, str]:
    """Find the family, its config and the task that a `config.json` stands for.

    Args:
        raw: the file.
        task: the one that is wanted; None takes the checkpoint's own.
        any_head: whether another than the checkpoint's may be wanted that it has no weights for.

    Raises:
        InputError: it is another architecture, or its head is for another task.
        Unsupported: its class has no counterpart here.
    """
    kind = raw.get("model_type")
    if not isinstance(kind, str) or kind not in MODEL_TYPES:
        raise InputError(
            f"config.json: model_type={kind!r:.80} is another architecture; edgebert has {', '.join(MODEL_TYPES)}."
        )
    family = MODEL_TYPES[kind]
    config = family.config.from_hf(raw)
    classes = raw.get("architectures") or ["base"]
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise InputError(f"config.json: architectures={classes!r:.80}; a list of class names is needed.")
    named = classes[0]
    own = "base" if named == "base" else family.architectures.get(named)
    if task is None and own is None:
        raise Unsupported(
            f"config.json: {named} has no counterpart here; pass --task with one of {', '.join(family.heads)}."
        )
    if task is not None:
        family.head(task)  # which refuses one that the family does not have, whatever the checkpoint is
    known = named != "base" and own is not None
    if task is not None and known and task != own and task not in HEADLESS and not any_head:
        raise InputError(
            f"the checkpoint is a {named}, for {own}: --task {task} has no weights in it. Leave --task out, pass base "
            "for the encoder alone, or --random-head for a head that is to be trained."
        )
    return family, config, task or str(own)


def _hf_config(model: Model) -> dict[str, Any]:
    """The model's config under Hugging Face's keys; an empty list stands for a key that a file leaves out."""
    values = {key: value for key, value in dataclasses.asdict(model.config).items() if value != ()}
    labels = values.pop("labels")
    values.pop("pooling")
    named = {str(i): label for i, label in enumerate(labels)}
    return {
        **values,
        "id2label": named,
        "label2id": {label: i for i, label in enumerate(labels)},
    }


def _has_tokenizer(folder: Path) -> bool:
    names = ("tokenizer.json", "vocab.txt", "vocab.json")
    return any(is_file(folder / name) for name in names) or any(folder.glob("*.model"))
