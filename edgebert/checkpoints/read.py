"""The files of a checkpoint: found, downloaded and read, without ever running code from them."""

import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from edgebert.checkpoints import pickles, tensorflow
from edgebert.errors import EdgebertError, InputError
from edgebert.files import ASSETS, check_file, is_file, is_folder, read_json
from edgebert.models import MODELS

# What is looked for, in this order: the first that is there is read.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "tf_model.h5",
)


def locate(source: str | Path) -> Path:
    """Find the folder behind a name: the embedded default, a folder here, or a download from the hub."""
    if str(source) == "default":
        return ASSETS / "default"
    if is_folder(Path(source)):
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
        "vocab.json",
        "merges.txt",
        "special_tokens_map.json",
        "added_tokens.json",
        "*.model",
        "modules.json",
        "config_sentence_transformers.json",
        "sentence_bert_config.json",
        "*_Pooling/config.json",
        "*_Dense/config.json",
        "*_Transformer/*.json",
        "adapter_config.json",
        "README.md",
    ]
    try:
        folder = Path(snapshot_download(name, allow_patterns=wanted))
        if not any((folder / file).exists() for file in WEIGHT_FILES):
            folder = Path(snapshot_download(name, allow_patterns=[*wanted, "*pytorch_model*.bin", "tf_model.h5"]))
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


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's `config.json`, parsed.

    Raises:
        InputError: there is none; where the folder is known for something else, the message says what to take.
    """
    if not is_file(folder / "config.json"):
        if is_file(folder / "adapter_config.json"):
            base = read_json(folder / "adapter_config.json").get("base_model_name_or_path")
            raise InputError(
                f"{folder} is an adapter (LoRA or the like) for {base!r:.80}: merge it into that model with peft's "
                "merge_and_unload(), save that, and give its folder."
            )
        if inner := [path.parent.name for path in sorted(folder.glob("*/config.json")) if _has_weights(path.parent)]:
            raise InputError(
                f"{folder} has no config.json, and {', '.join(inner[:5])} in it have one: give that folder."
            )
    return read_json(folder / "config.json")


def _has_weights(folder: Path) -> bool:
    return any(is_file(folder / name) for name in WEIGHT_FILES)


def read_tensors(folder: Path, room: int) -> tuple[dict[str, Tensor], list[Path]]:
    """Read every weight in the folder, from the first of WEIGHT_FILES that is there.

    Args:
        folder: the checkpoint.
        room: the most bytes that its weight files may have together.

    Returns:
        Tensors under the checkpoint's own names, and the files they came from.
    """
    name = next((name for name in WEIGHT_FILES if is_file(folder / name)), None)
    if name is None:
        raise InputError(f"{folder} has no weights: one of {', '.join(WEIGHT_FILES)} is needed (or --random-init).")
    path = folder / name
    if not name.endswith(".index.json"):
        check_file(path, room)
        return _read_file(path), [path]
    shards = read_json(path).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
        raise InputError(f"{path} has no weight_map from tensor to file: fetch it again.")
    tensors: dict[str, Tensor] = {}
    files = [folder / shard for shard in sorted(set(shards.values()))]
    for file in files:
        if file.parent != folder or file.suffix not in (".safetensors", ".bin") or not is_file(file):
            raise InputError(f"{path} names {file.name}, which is not in the folder: fetch it too.")
        room -= check_file(file, room)
    for file in files:
        more = _read_file(file)
        if twice := sorted(set(tensors) & set(more)):
            raise InputError(f"{path}: {twice[0]} stands in {file.name} and in a file before it: fetch them again.")
        tensors |= more
    absent = sorted(set(shards) - set(tensors))
    if absent:
        raise InputError(f"{path} names {', '.join(absent[:5])}, which its files do not hold: fetch them again.")
    return tensors, files


def _read_file(path: Path) -> dict[str, Tensor]:
    """Read one weight file, whatever its format, without ever running code from it."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if path.suffix == ".h5":
            return tensorflow.read(path)
        pickles.check(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on odd pickles torch talks to its developers
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except EdgebertError:
        raise
    except pickle.UnpicklingError:
        raise InputError(
            f"{path} is a pickle with more than tensors in it and is not opened: use safetensors."
        ) from None
    except Exception as error:  # the readers raise whatever a damaged file makes them trip over
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path} is damaged ({reason}): fetch it again.") from None
    if not isinstance(tensors, dict):
        raise InputError(f"{path} holds a {type(tensors).__name__}; a map from names to tensors is needed.")
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise InputError(f"{path} holds no map from names to tensors: {name!r:.80} is a {type(tensor).__name__}.")
    return dict(tensors)
