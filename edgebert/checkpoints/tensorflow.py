"""TensorFlow checkpoints of ConvBERT and RemBERT (`tf_model.h5`), read under the names of transformers' torch models.

The names and layouts are Keras's: `a/b/layer_._0/dense/kernel:0` is the transposed `a.b.layer.0.dense.weight`.
"""

import re
from pathlib import Path

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


def read(path: Path) -> dict[str, Tensor]:
    """Read every tensor of a `tf_model.h5` as torch would name and lay it out, in float32.

    Raises:
        InputError: the file is no HDF5 file, or a tensor has a name or rank that is not known.
        MissingDependency: h5py is not installed.
    """
    try:
        import h5py
    except ImportError:
        raise MissingDependency(f'{path.name} needs h5py: run pip install "edgebert[tf]".') from None
    tensors: dict[str, Tensor] = {}

    def visit(name: str, node: object) -> None:
        if isinstance(node, h5py.Dataset):
            array = np.asarray(node, dtype=np.float32)
            key, axes = torch_name(name, array.ndim)
            tensor = torch.from_numpy(np.ascontiguousarray(array.transpose(axes)))
            # The bias of ConvBERT's separable convolution is a column in torch.
            tensors[key] = tensor[:, None] if key.endswith("key_conv_attn_layer.bias") else tensor

    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)
    except OSError as error:
        raise InputError(f"{path} is damaged or no HDF5 file ({error}): fetch it again.") from None
    return tensors


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
