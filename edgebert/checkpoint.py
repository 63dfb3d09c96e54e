"""A Hugging Face checkpoint folder in and out, strictly; no file is trusted to run code or to be whole."""

import dataclasses
import json
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from edgebert import tf_checkpoint, tokenizer
from edgebert.errors import InputError, Unsupported
from edgebert.files import new_folder, sha256
from edgebert.models import MODELS, Family, Model
from edgebert.tokenizer import Tokenizer
from edgebert.weights import assemble, hf_tensors

ASSETS = Path(__file__).parent / "assets"

# What is looked for, in this order: the first that is there is read.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "tf_model.h5",
)


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
            save_file(hf_tensors(self.model), staging / "model.safetensors", metadata={"format": "pt"})
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
    if str(source) in presets and not Path(source).is_dir():
        family, config = presets[str(source)]
        if not random_init:
            raise InputError(
                f"{source} is a preset, a config without weights: pass --random-init, or give a checkpoint."
            )
        model = Model(family, config, task or "base").random_init(seed)
        return Checkpoint(model, None, str(source), {}, f"random, seed {seed}", (f"random weights, seed {seed}",))
    folder = locate(source)
    raw = read_config(folder)
    family, config, task = interpret(raw, task)
    words = tokenizer.load(folder) if _has_tokenizer(folder) else None
    if random_init:
        model = Model(family, config, task).random_init(seed)
        return Checkpoint(model, words, str(source), raw, f"random, seed {seed}", (f"random weights, seed {seed}",))
    tensors, files = read_tensors(folder)
    model, notes = assemble(family, config, task, tensors)
    if words is not None and words.vocab_size > config.vocab_size:
        raise InputError(
            f"{source}: the tokenizer has {words.vocab_size} entries, the model {config.vocab_size}: "
            "they do not belong together; fetch both from one checkpoint."
        )
    return Checkpoint(model, words, str(source), raw, sha256(*files), notes)


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
    if str(source) in presets and not Path(source).is_dir():
        family, config = presets[str(source)]
        chosen = task or "base"
    else:
        family, config, chosen = interpret(read_config(locate(source)), task)
    with torch.device("meta"):
        return Model(family, config, chosen)


def locate(source: str | Path) -> Path:
    """Find the folder behind a name: the embedded default, a folder here, or a download from the hub."""
    if str(source) == "default":
        return ASSETS / "default"
    if Path(source).is_dir():
        return Path(source)
    if Path(source).exists():
        raise InputError(f"{source} is a file; a checkpoint folder with config.json and weights is needed.")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)) or str(source).startswith("."):
        raise InputError(
            f"{source}: no such folder. Give a checkpoint folder, a hub name (owner/name), `default`, or with "
            f"--random-init one of {', '.join(name for family in MODELS.values() for name in family.presets)}."
        )
    return _download(str(source))


def _download(name: str) -> Path:
    """Fetch a checkpoint by its hub name into huggingface_hub's cache."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
    except ImportError:
        raise InputError(f'{name}: no such folder, and fetching it needs pip install "edgebert[hub]".') from None
    wanted = [
        "config.json",
        "*.safetensors",
        "*.index.json",
        "tokenizer*",
        "vocab.txt",
        "special_tokens_map.json",
        "*.model",
    ]
    try:
        folder = Path(snapshot_download(name, allow_patterns=wanted))
        if not any((folder / file).exists() for file in WEIGHT_FILES):
            folder = Path(snapshot_download(name, allow_patterns=[*wanted, "pytorch_model*.bin", "tf_model.h5"]))
    except RepositoryNotFoundError:
        raise InputError(
            f"{name}: no such folder here, and the hub has no such public model: check the name."
        ) from None
    except (OSError, HfHubHTTPError, ValueError, RuntimeError) as error:
        reason = type(error).__name__
        raise InputError(
            f"{name}: no such folder here, and the hub cannot be reached ({reason}): "
            "go online, or give a downloaded folder."
        ) from None
    return folder


def read_json(path: Path) -> dict[str, Any]:
    """Parse a JSON object from a file, or raise InputError in one line."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path.parent} has no {path.name}: give a folder that holds one.") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({error}): fetch it again.") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} holds a {type(value).__name__}; a JSON object is needed.")
    return value


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's `config.json`, parsed."""
    return read_json(folder / "config.json")


def interpret(raw: Mapping[str, Any], task: str | None) -> tuple[Family, Any, str]:
    """Find the family, its config and the task that a `config.json` stands for."""
    kind = raw.get("model_type")
    if kind not in MODELS:
        raise InputError(f"config.json: model_type={kind!r} is another architecture; edgebert has {', '.join(MODELS)}.")
    family = MODELS[kind]
    config = family.config.from_hf(raw)
    if task is not None:
        return family, config, task
    named = (raw.get("architectures") or ["base"])[0]
    if named != "base" and named not in family.architectures:
        raise Unsupported(
            f"config.json: {named} has no counterpart here; pass --task with one of {', '.join(family.heads)}."
        )
    return family, config, family.architectures.get(named, "base")


def read_tensors(folder: Path) -> tuple[dict[str, Tensor], list[Path]]:
    """Read every weight in the folder, from the first of WEIGHT_FILES that is there.

    Returns:
        Tensors under the checkpoint's own names, and the files they came from.
    """
    name = next((name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if name is None:
        raise InputError(f"{folder} has no weights: one of {', '.join(WEIGHT_FILES)} is needed (or --random-init).")
    path = folder / name
    if not name.endswith(".index.json"):
        return _read_file(path), [path]
    shards = read_json(path).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
        raise InputError(f"{path} has no weight_map from tensor to file: fetch it again.")
    tensors: dict[str, Tensor] = {}
    files = [folder / shard for shard in sorted(set(shards.values()))]
    for file in files:
        if file.parent != folder or not file.is_file():
            raise InputError(f"{path} names {file.name}, which is not in the folder: fetch it too.")
        tensors |= _read_file(file)
    absent = sorted(set(shards) - set(tensors))
    if absent:
        raise InputError(f"{path} names {', '.join(absent[:5])}, which its files do not hold: fetch them again.")
    return tensors, files


def _read_file(path: Path) -> dict[str, Tensor]:
    """Read one weight file, whatever its format, without ever running code from it."""
    if path.suffix == ".h5":
        return tf_checkpoint.read(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on odd pickles torch talks to its developers
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(
            f"{path} is a pickle with more than tensors in it and is not opened: use safetensors."
        ) from None
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise InputError(f"{path} is damaged ({str(error).splitlines()[0]}): fetch it again.") from None
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise InputError(f"{path} holds no map from names to tensors.")
    return tensors


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
    return any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt")) or any(folder.glob("*.model"))
