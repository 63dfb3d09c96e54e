"""The modules of sentence-transformers beside an encoder: how a text's vector is made, and with which prompt.

The files are those of `SentenceTransformer.save` of versions 2 to 6, see sentence_transformers/base/modules.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from edgebert.checkpoints.read import read_tensors
from edgebert.errors import InputError, Unsupported
from edgebert.files import is_file, parse_json_list, read, read_json
from edgebert.models.heads import SIMILARITIES, Dense, Pooling

MODULES = "modules.json"
PROMPTS = "config_sentence_transformers.json"
SETTINGS = "sentence_bert_config.json"
WEIGHTS = "model.safetensors"
LARGEST = 1 << 20  # bytes of modules.json
WIDEST = 1 << 16  # of a dense layer

# `pooling_mode` and the older keys of a Pooling module, in the order in which several are joined.
MODES = {
    "cls": ("cls", "pooling_mode_cls_token"),
    "max": ("max", "pooling_mode_max_tokens"),
    "mean": ("mean", "pooling_mode_mean_tokens"),
    "mean_sqrt_len_tokens": ("", "pooling_mode_mean_sqrt_len_tokens"),
    "weightedmean": ("", "pooling_mode_weightedmean_tokens"),
    "lasttoken": ("last", "pooling_mode_lasttoken"),
}
# Of a Dense module, by the last part of the class's name, to those of models/layers.py.
ACTIVATIONS = {"Identity": "", "Tanh": "tanh", "ReLU": "relu", "GELU": "gelu", "SiLU": "silu"}


@dataclass(frozen=True, slots=True)
class Modules:
    """What `modules.json` says.

    Attributes:
        encoder: the folder of the transformer.
        pooling: what is done with its hidden states, its prompt still without a count of tokens.
        dense: folders of the dense layers.
        include_prompt: whether the prompt's tokens are pooled too.
        lower: whether texts are made lower case before the tokenizer reads them.
    """

    encoder: Path
    pooling: Pooling
    dense: tuple[Path, ...]
    include_prompt: bool
    lower: bool


def find(folder: Path, prompt: str | None = None) -> Modules | None:
    """Read the modules of a folder.

    Args:
        folder: a checkpoint.
        prompt: the name of a prompt in `config_sentence_transformers.json`; None takes the default one, if any.

    Returns:
        None where the folder has none, or none that pool: a cross-encoder's.

    Raises:
        InputError: the files are not what they should be, or there is no such prompt.
        Unsupported: a module, or a way to pool, that is not known here.
    """
    if not is_file(folder / MODULES):
        return None
    steps = [(kind, _inside(folder, path)) for kind, path in _listed(folder / MODULES)]
    kinds = [kind for kind, _ in steps]
    if "Pooling" not in kinds and kinds[:1] == ["Transformer"] and set(kinds[1:]) <= {"LogitScore"}:
        return None
    if kinds[:2] != ["Transformer", "Pooling"] or set(kinds[2:]) - {"Dense", "Normalize", "Dropout"}:
        raise Unsupported(
            f"{folder / MODULES}: modules {', '.join(kinds)}; Transformer, Pooling, then Dense, Normalize and Dropout "
            "are known here. Pass --task base for the encoder alone."
        )
    if "Normalize" in kinds[:-1]:
        raise Unsupported(f"{folder / MODULES}: Normalize stands before other modules; only at the end is known here.")
    modes, include = _modes(steps[1][1] / "config.json")
    dense = [path for kind, path in steps if kind == "Dense"]
    raw = read_json(folder / PROMPTS) if is_file(folder / PROMPTS) else {}
    pooling = Pooling(
        modes, tuple(map(_dense, dense)), "Normalize" in kinds, _prompt(folder / PROMPTS, raw, prompt),
        similarity=_similarity(folder / PROMPTS, raw),
    )  # fmt: skip
    settings = steps[0][1] / SETTINGS
    lower = bool(read_json(settings).get("do_lower_case")) if is_file(settings) else False
    return Modules(steps[0][1], pooling, tuple(dense), include, lower)


def activation(folder: Path) -> dict[str, Any]:
    """What a cross-encoder's own file says of its activation, as a `config.json` of version 4 has it; else nothing."""
    raw = read_json(folder / PROMPTS) if is_file(folder / PROMPTS) else {}
    named = raw.get("activation_fn")
    return {"sentence_transformers": {"activation_fn": named}} if named else {}


def weights(modules: Modules) -> tuple[dict[str, Tensor], list[Path]]:
    """The tensors of the dense layers, under names that `models/heads.py` knows, and their files."""
    tensors: dict[str, Tensor] = {}
    files: list[Path] = []
    for number, folder in enumerate(modules.dense):
        found, read_from = read_tensors(folder, 8 * WIDEST * WIDEST)
        tensors |= {f"dense.{number}.{name}": tensor for name, tensor in found.items()}
        files += read_from
    return tensors, files


def written(pooling: Pooling, width: int) -> dict[str, Any]:
    """The JSON files that say how to pool, by their names; a dense layer's weights go beside its config.

    Args:
        pooling: of a model.
        width: of its hidden states.
    """
    names = ["", "1_Pooling", *(f"{i + 2}_Dense" for i in range(len(pooling.dense)))]
    names += [f"{len(names)}_Normalize"] if pooling.normalize else []
    modules = [
        {"idx": i, "name": str(i), "path": name, "type": f"sentence_transformers.models.{_kind(name)}"}
        for i, name in enumerate(names)
    ]
    files: dict[str, Any] = {MODULES: modules}
    files["1_Pooling/config.json"] = {"word_embedding_dimension": width} | {
        key: bool(ours) and ours in pooling.modes for ours, key in MODES.values()
    }
    files["1_Pooling/config.json"]["include_prompt"] = not pooling.skipped
    known = {ours: name for name, ours in ACTIVATIONS.items()}
    before = width * len(pooling.modes)
    for i, layer in enumerate(pooling.dense):
        name = f"torch.nn.modules.{'activation' if layer.activation else 'linear'}.{known[layer.activation]}"
        files[f"{i + 2}_Dense/config.json"] = {
            "in_features": before, "out_features": layer.width, "bias": layer.bias, "activation_function": name,
        }  # fmt: skip
        before = layer.width
    prompts = {"prompts": {"default": pooling.prompt}, "default_prompt_name": "default"} if pooling.prompt else {}
    files[PROMPTS] = prompts | {"similarity_fn_name": pooling.similarity}
    return files


def _kind(path: str) -> str:
    return path.partition("_")[2] or "Transformer"


def _listed(path: Path) -> list[tuple[str, str]]:
    """Each module's kind, the last part of its class's name, and its folder."""
    listed = parse_json_list(read(path, LARGEST), path)
    found = []
    for entry in listed:
        if (
            not isinstance(entry, dict)
            or not isinstance(entry.get("type"), str)
            or not isinstance(entry.get("path"), str)
        ):
            raise InputError(f"{path}: {entry!r:.80} is no module: a type and a path are needed.")
        found.append((entry["type"].rpartition(".")[2], entry["path"]))
    return found


def _inside(folder: Path, path: str) -> Path:
    """A module's folder, which lies in the checkpoint's."""
    found = folder / path
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise InputError(f"{folder / MODULES}: path {path!r:.80} leads out of the folder.")
    return found


def _modes(path: Path) -> tuple[tuple[str, ...], bool]:
    """How a Pooling module pools, and whether it counts the prompt."""
    raw = read_json(path)
    named = raw.get("pooling_mode")
    modes = [named] if isinstance(named, str) else named
    if modes is None:
        modes = [name for name, (_, key) in MODES.items() if raw.get(key)] or ["mean"]
    if not isinstance(modes, list) or not all(isinstance(mode, str) for mode in modes):
        raise InputError(f"{path}: pooling_mode={named!r:.80}; {', '.join(MODES)} are known.")
    ours = [MODES.get(mode, ("",))[0] for mode in modes]
    if not all(ours):
        known = ", ".join(name for name, (here, _) in MODES.items() if here)
        raise Unsupported(f"{path}: pooling {', '.join(modes)} is not known here; {known} are.")
    return tuple(ours), bool(raw.get("include_prompt", True))


def _dense(folder: Path) -> Dense:
    """A Dense module's layer."""
    path = folder / "config.json"
    raw = read_json(path)
    width, bias, named = raw.get("out_features"), raw.get("bias", True), raw.get("activation_function")
    if type(width) is not int or not 0 < width <= WIDEST or not isinstance(bias, bool):
        raise InputError(
            f"{path}: out_features={width!r:.40}, bias={bias!r:.40}; a width and true or false are needed."
        )
    activation = ACTIVATIONS.get(str(named).rpartition(".")[2]) if named is not None else ""
    places = {raw.get(key, "sentence_embedding") for key in ("module_input_name", "module_output_name")}
    if activation is None or raw.get("use_residual") or places - {"sentence_embedding", None}:
        raise Unsupported(
            f"{path}: a dense layer with {named!r:.60}, a residual or other names is not known here; "
            f"{', '.join(ACTIVATIONS)} on the sentence embedding are."
        )
    return Dense(width, bias, activation)


def _prompt(path: Path, raw: Mapping[str, Any], name: str | None) -> str:
    """The prompt of a name, or the default one."""
    prompts = raw.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(prompt, str) for prompt in prompts.values()):
        raise InputError(f"{path}: prompts={prompts!r:.80}; texts by name are needed.")
    chosen = raw.get("default_prompt_name") if name is None else name
    if chosen is None:
        return ""
    if not isinstance(chosen, str) or chosen not in prompts:
        raise InputError(f"{path} has no prompt {chosen!r:.80}; there are {', '.join(prompts) or 'none'}.")
    return str(prompts[chosen])


def _similarity(path: Path, raw: Mapping[str, Any]) -> str:
    """How alike two vectors are to be called."""
    kind = raw.get("similarity_fn_name") or SIMILARITIES[0]
    if kind not in SIMILARITIES:
        raise Unsupported(f"{path}: similarity_fn_name={kind!r:.80} is not known here; {', '.join(SIMILARITIES)} are.")
    return str(kind)


def by_file(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Tensors under transformers' names by the file that they are saved in, dense layers beside their configs."""
    files: dict[str, dict[str, Tensor]] = {WEIGHTS: {}}
    for name, tensor in tensors.items():
        number, dot, leaf = name.removeprefix("dense.").partition(".")
        if name.startswith("dense.") and dot:
            files.setdefault(f"{int(number) + 2}_Dense/{WEIGHTS}", {})[leaf] = tensor
        else:
            files[WEIGHTS][name] = tensor
    return files
