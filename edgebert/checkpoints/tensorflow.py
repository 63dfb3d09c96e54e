"""TensorFlow checkpoints of ConvBERT and RemBERT (`tf_model.h5`), read under the names of transformers' torch models.

The names and layouts are Keras's: `a/b/layer_._0/dense/kernel:0` is the transposed `a.b.layer.0.dense.weight`.
"""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgebert.errors import InputError, MissingDependency

# Keras leaf, rank: torch leaf and the axes that turn one layout into the other.
LEAVES: dict[tuple[str, int], tuple[str, tuple[int, ...]]] = {
    ("kernel", 2): ("weight", (1, 0)),
    ("kernel", 3): ("weight", (2, 1, 0)),  # ConvBERT's grouped linear: (out, in, groups) to (groups, in, out)
    ("depthwise_kernel", 3): ("depthwise.weight", (1, 2, 0)),  # (K, C, 1) to (C, 1, K)
    ("pointwise_kernel", 3): ("pointwise.weight", (2, 1, 0)),  # (1, in, out) to (out, in, 1)
    ("gamma", 1): ("weight", (0,)),
    ("beta", 1): ("bias", (0,)),
    ("bias", 1): ("bias", (0,)),
    ("weight", 2): ("weight", (0, 1)),
    ("embeddings", 2): ("weight", (0, 1)),
}

NODES = 6_000  # groups and variables of a file; a model of 32 layers has 2,000


def read(path: Path) -> dict[str, Tensor]:
    """Read every tensor of a `tf_model.h5` as torch would name and lay it out, in float32.

    Raises:
        InputError: a tensor has a name or rank that is not known, or its numbers do not stand in the file.
        Exception: any other, where the file is damaged.
        MissingDependency: h5py is not installed.
    """
    try:
        import h5py
    except ImportError:
        raise MissingDependency(f'{path.name} needs h5py: run pip install "edgebert[tf]".') from None
    tensors: dict[str, Tensor] = {}
    with h5py.File(path, "r") as file:
        for name, dataset in _datasets(file):
            key, axes = torch_name(name, dataset.ndim)
            _check(dataset, name)
            tensor = torch.from_numpy(np.ascontiguousarray(np.asarray(dataset, dtype=np.float32).transpose(axes)))
            # The bias of ConvBERT's separable convolution is a column in torch.
            tensor = tensor[:, None] if key.endswith("key_conv_attn_layer.bias") else tensor
            # Keras writes what two of its layers share into the groups of both.
            if not torch.equal(tensors.setdefault(key, tensor), tensor):
                raise InputError(f"{path.name}: two variables are {key} with two values, one is {name}: save it again.")
    return tensors


def _datasets(file: Any) -> Iterator[tuple[str, Any]]:
    """Names and datasets of a file. Links to other files, and to elsewhere in this one, are not followed.

    HDF5's own walk ends in a crash where groups nest some thousand deep.
    """
    waiting = [("", file)]
    for _ in range(NODES):
        if not waiting:
            return
        name, node = waiting.pop()
        if hasattr(node, "keys"):
            for below in itertools.islice(node, NODES):
                if node.get(below, getlink=True, getclass=True).__name__ == "HardLink":
                    waiting.append((f"{name}/{below}".lstrip("/"), node[below]))
        elif hasattr(node, "shape"):
            yield name, node
    raise InputError(f"tf_model.h5: more than {NODES:,} groups and variables, which no checkpoint has.")


def _check(dataset: Any, name: str) -> None:
    """Raise InputError unless a dataset is floats that stand in the file, plain: others grow, or lead elsewhere."""
    if dataset.dtype.kind != "f":
        raise InputError(f"tf_model.h5: {name} is of {dataset.dtype}, and weights are floats.")
    if dataset.external or dataset.is_virtual or dataset.id.get_storage_size() < dataset.nbytes:
        raise InputError(f"tf_model.h5: {name} does not stand in the file as it is, but packed or elsewhere.")


def torch_name(name: str, rank: int) -> tuple[str, tuple[int, ...]]:
    """Turn a Keras variable's path into a torch tensor's name, and say which axes its array is to be transposed by."""
    parts = name.removesuffix(":0").split("/")
    # The path opens with the Keras layer and the model class, which torch's names do not have.
    model = next((i for i, part in enumerate(parts) if part.startswith("tf_")), 0)
    *modules, leaf = parts[model + 1 :]
    if (leaf, rank) not in LEAVES:
        raise InputError(f"tf_model.h5: {name} (rank {rank}) is not a weight that ConvBERT or RemBERT has.")
    torch_leaf, axes = LEAVES[leaf, rank]
    path = ".".join([*modules, torch_leaf])
    # `mlm___cls` says that layer `mlm` is `cls` in torch; `layer_._0` is an element of a list.
    return re.sub(r"[^.]*___", "", path.replace("_._", ".")), axes
