"""A Hugging Face checkpoint folder in and out, strictly; no file is trusted to run code or to be whole."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file

from edgebert.checkpoints.read import locate, read_config, read_tensors
from edgebert.checkpoints.weights import assemble, hf_tensors
from edgebert.errors import InputError, Unsupported
from edgebert.files import is_file, is_folder, new_folder, sha256
from edgebert.models import MODELS, Family, Model
from edgebert.models import outline as outlined
from edgebert.tokenizers import tokenizer
from edgebert.tokenizers.tokenizer import Tokenizer

# Bytes of weight files that a model may come with: doubles for each parameter, and what belongs to heads that are left
# out. What has more is not this model's, and is not read into memory to say so.
LARGEST_WEIGHT, BESIDE = 8, 1 << 30


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
    """

    model: Model
    tokenizer: Tokenizer | None
    source: str
    raw_config: Mapping[str, Any]
    weights_sha256: str
    notes: tuple[str, ...]

    @property
    def random(self) -> bool:
        """Whether the weights were drawn and not trained."""
        return self.weights_sha256.startswith("random")

    def save(self, folder: str | Path, force: bool = False) -> Path:
        """Write a folder that transformers loads: `config.json`, `model.safetensors` and the tokenizer's files."""
        family, task = self.model.family, self.model.task
        architecture = next(name for name, of in family.architectures.items() if of == task)
        config = {**self.raw_config, **_hf_config(self.model), "architectures": [architecture]}
        with new_folder(Path(folder), force, "config.json") as staging:
            (staging / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
            try:
                save_file(hf_tensors(self.model), staging / "model.safetensors", metadata={"format": "pt"})
            except SafetensorError as error:  # what it makes of a full disk
                raise InputError(f"{folder} cannot be written: {error}") from None
            if self.tokenizer is not None:
                self.tokenizer.save(staging)
        return Path(folder)


def load(
    source: str | Path = "default", task: str | None = None, random_init: bool = False, seed: int = 0
) -> Checkpoint:
    """Load a model with its tokenizer.

    Args:
        source: a checkpoint folder, a hub name such as `squeezebert/squeezebert-uncased`, `default` for the embedded
            intent classifier, or with `random_init` a preset such as `squeezebert-base`.
        task: the head to load; None takes the one that the checkpoint was saved with.
        random_init: take the config alone and draw the weights, for work on latency.
        seed: of the random weights.

    Raises:
        InputError: something is missing, damaged, left over or of the wrong shape; the message names it.
        Unsupported: the task or a variant in the config is not defined here.
        MissingDependency: the file format needs a package that is not installed.
    """
    presets = _presets()
    if str(source) in presets and not is_folder(Path(source)):
        family, config = presets[str(source)]
        if not random_init:
            raise InputError(
                f"{source} is a preset, a config without weights: pass --random-init, or give a checkpoint."
            )
        return _drawn(family, config, task or "base", seed, None, str(source), {})
    folder = locate(source)
    raw = read_config(folder)
    family, config, task = interpret(raw, task)
    size = sum(parameter.numel() for parameter in outlined(family, config, task).parameters())
    words = tokenizer.load(folder) if _has_tokenizer(folder) else None
    if random_init:
        return _drawn(family, config, task, seed, words, str(source), raw)
    tensors, files = read_tensors(folder, LARGEST_WEIGHT * size + BESIDE)
    model, notes = assemble(family, config, task, tensors)
    return Checkpoint(model, words, str(source), raw, sha256(*files), notes)


def _drawn(
    family: Family, config: Any, task: str, seed: int, words: Tokenizer | None, source: str, raw: Mapping[str, Any]
) -> Checkpoint:
    """A checkpoint with random weights."""
    model = outlined(family, config, task).to_empty(device="cpu")
    model.tie()
    drawn = f"random, seed {seed}"
    return Checkpoint(model.random_init(seed), words, source, raw, drawn, (f"random weights, seed {seed}",))


def _presets() -> dict[str, tuple[Family, Any]]:
    """Preset name to its family and config."""
    return {name: (family, config) for family in MODELS.values() for name, config in family.presets.items()}


def outline(source: str | Path, task: str | None = None) -> Model:
    """The model that `load` would give, on torch's `meta` device: sizes without weights, for a look before any work.

    Raises:
        InputError: as `load`, for what shows without reading weights.
        Unsupported: as `load`.
    """
    presets = _presets()
    if str(source) in presets and not is_folder(Path(source)):
        family, config = presets[str(source)]
        chosen = task or "base"
    else:
        family, config, chosen = interpret(read_config(locate(source)), task)
    return outlined(family, config, chosen)


def interpret(raw: Mapping[str, Any], task: str | None) -> tuple[Family, Any, str]:
    """Find the family, its config and the task that a `config.json` stands for."""
    kind = raw.get("model_type")
    if not isinstance(kind, str) or kind not in MODELS:
        raise InputError(
            f"config.json: model_type={kind!r:.80} is another architecture; edgebert has {', '.join(MODELS)}."
        )
    family = MODELS[kind]
    config = family.config.from_hf(raw)
    if task is not None:
        return family, config, task
    classes = raw.get("architectures") or ["base"]
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise InputError(f"config.json: architectures={classes!r:.80}; a list of class names is needed.")
    named = classes[0]
    if named != "base" and named not in family.architectures:
        raise Unsupported(
            f"config.json: {named} has no counterpart here; pass --task with one of {', '.join(family.heads)}."
        )
    return family, config, family.architectures.get(named, "base")


def _hf_config(model: Model) -> dict[str, Any]:
    """The model's config under Hugging Face's keys."""
    values = dataclasses.asdict(model.config)
    labels = values.pop("labels")
    named = {str(i): label for i, label in enumerate(labels)}
    return {
        **values,
        "model_type": model.family.name,
        "id2label": named,
        "label2id": {label: i for i, label in enumerate(labels)},
    }


def _has_tokenizer(folder: Path) -> bool:
    return any(is_file(folder / name) for name in ("tokenizer.json", "vocab.txt")) or any(folder.glob("*.model"))
