"""MIL's operators, each as a function of numpy arrays with the operator's own parameter names and defaults.

Meanings and defaults: https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html. Floats
of either precision come and go as float32; the caller rounds to float16 where the program says so. A parameter that
is not here, or a value of one, is refused and never guessed.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from edgebert.errors import InputError
from edgebert.runtimes.coreml import mil_constants

Array = np.ndarray
Op = Callable[..., Any]

# No tensor here has more elements: sizes are numbers in a file, and one changed bit makes a 1 a billion.
LARGEST = 2**30

# Names that programs have for dtypes, to the types arrays have here.
CASTS: dict[str, Any] = {
    "fp16": np.float32, "fp32": np.float32, "int32": np.int32, "int16": np.int16, "uint16": np.uint16,
    "int8": np.int8, "uint8": np.uint8, "bool": np.bool_,
}  # fmt: skip


def bounded(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape, if a tensor of it may be made."""
    sizes = tuple(int(n) for n in shape)
    if any(n < 0 for n in sizes) or math.prod(sizes) > LARGEST:
        raise InputError(f"a tensor of shape {sizes} is asked for; {LARGEST} elements are allowed.")
    return sizes


def _torch(x: Array) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(x))


def _numpy(x: torch.Tensor) -> Array:
    out: Array = x.numpy()
    return out


def _axes(axes: Array | None, rank: int) -> tuple[int, ...]:
    """Axes as non-negative numbers; none means all."""
    return tuple(range(rank)) if axes is None else tuple(_axis(axis, rank) for axis in np.atleast_1d(axes))


def _axis(axis: Array | int, rank: int) -> int:
    number = int(axis)
    if not -rank <= number < rank:
        raise InputError(f"axis {number} of {rank} axes.")
    return number % rank


def _binary(combine: Callable[[Array, Array], Array]) -> Op:
    def op(x: Array, y: Array) -> Array:
        bounded(np.broadcast_shapes(x.shape, y.shape))
        return combine(x, y)

    return op


def _unary(compute: Callable[[Array], Array]) -> Op:
    def op(x: Array) -> Array:
        return compute(x)

    return op


def _reduction(compute: Callable[..., Array]) -> Op:
    def op(x: Array, axes: Array | None = None, keep_dims: bool | Array = False) -> Array:
        return np.asarray(compute(x, axis=_axes(axes, x.ndim), keepdims=bool(keep_dims)))

    return op


def cast(x: Array, dtype: str) -> Array:
    """Floats to integers by cutting the fraction off."""
    if dtype not in CASTS:
        raise InputError(f"cast to {dtype!r} is not known.")
    return x.astype(CASTS[dtype])


def clip(x: Array, alpha: Array, beta: Array) -> Array:
    """Hold to a range."""
    out: Array = np.clip(x, alpha, beta).astype(x.dtype)
    return out


def gelu(x: Array, mode: str = "EXACT") -> Array:
    """GELU, by the error function or by tanh."""
    forms = {"EXACT": "none", "TANH_APPROXIMATION": "tanh"}
    if mode not in forms:
        raise InputError(f"gelu in mode {mode!r} is not known.")
    return _numpy(F.gelu(_torch(x), approximate=forms[mode]))


def leaky_relu(x: Array, alpha: Array) -> Array:
    """`x` above 0, `alpha * x` below."""
    return np.where(x >= 0, x, x * alpha)


def softmax(x: Array, axis: Array | int = -1) -> Array:
    """Softmax along one axis."""
    return _numpy(torch.softmax(_torch(x), _axis(axis, x.ndim)))


def rsqrt(x: Array, epsilon: Array | float = 1e-12) -> Array:
    """`1 / sqrt(x + epsilon)`."""
    return 1.0 / np.sqrt(x + np.float32(epsilon))


def log(x: Array, epsilon: Array | float = 1e-45) -> Array:
    """`log(x + epsilon)`."""
    return np.log(x + np.float32(epsilon))


def inverse(x: Array, epsilon: Array | float = 1e-4) -> Array:
    """`1 / (x + epsilon)`."""
    return 1.0 / (x + np.float32(epsilon))


def layer_norm(
    x: Array,
    axes: Array | None = None,
    gamma: Array | None = None,
    beta: Array | None = None,
    epsilon: Array | float = 1e-5,
) -> Array:
    """Normalize over the axes; `gamma` and `beta` have their sizes."""
    over = _axes(axes, x.ndim)
    sizes = tuple(x.shape[axis] for axis in over)
    spread = [n if axis in over else 1 for axis, n in enumerate(x.shape)]
    centred = x - x.mean(over, keepdims=True)
    out = centred / np.sqrt(np.square(centred).mean(over, keepdims=True) + np.float32(epsilon))
    for values, combine in ((gamma, np.multiply), (beta, np.add)):
        if values is not None:
            if values.shape != sizes or list(over) != sorted(over):
                raise InputError(f"layer_norm over axes {over} of {x.shape} with parameters of shape {values.shape}.")
            out = combine(out, values.reshape(spread))
    return np.asarray(out)


def batch_norm(
    x: Array,
    mean: Array,
    variance: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    epsilon: Array | float = 1e-5,
) -> Array:
    """Normalize each channel, axis 1, with given figures."""
    spread = (1, -1, *(1,) * (x.ndim - 2))
    out = (x - mean.reshape(spread)) / np.sqrt(variance.reshape(spread) + np.float32(epsilon))
    out = out if gamma is None else out * gamma.reshape(spread)
    return np.asarray(out if beta is None else out + beta.reshape(spread))


def conv(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    strides: Array | None = None,
    pad_type: str = "valid",
    pad: Array | None = None,
    dilations: Array | None = None,
    groups: Array | int = 1,
) -> Array:
    """A convolution over one or two axes."""
    if pad_type not in ("valid", "custom") or x.ndim not in (3, 4):
        raise InputError(f"conv over {x.ndim} axes with pad_type {pad_type!r} is not known.")
    axes = x.ndim - 2
    steps, spread = (tuple(map(int, v)) if v is not None else (1,) * axes for v in (strides, dilations))
    ends = [int(n) for n in pad] if pad is not None and pad_type == "custom" else [0] * 2 * axes
    if any(ends):
        before = [(0, 0), (0, 0), *((ends[2 * i], ends[2 * i + 1]) for i in range(axes))]
        bounded([n + sum(b) for n, b in zip(x.shape, before, strict=True)])
        x = np.pad(x, before)
    plain = not any(n != 1 for n in (*steps, *spread, *weight.shape[2:]))
    if plain and int(groups) == 1 and len(x) == 1:  # a matrix product, the bulk of the work here
        out = _torch(weight).flatten(1) @ _torch(x)[0].flatten(1)
        out = out if bias is None else out + _torch(bias)[:, None]
        return _numpy(out.reshape(1, -1, *x.shape[2:]))
    run = F.conv1d if axes == 1 else F.conv2d
    offset = None if bias is None else _torch(bias)
    return _numpy(run(_torch(x), _torch(weight), offset, stride=steps, dilation=spread, groups=int(groups)))


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """`x @ weight.T + bias`."""
    return _numpy(F.linear(_torch(x), _torch(weight), None if bias is None else _torch(bias)))


def matmul(x: Array, y: Array, transpose_x: bool | Array = False, transpose_y: bool | Array = False) -> Array:
    """A matrix product over the last two axes, the others broadcast."""
    if x.ndim < 2 or y.ndim < 2:
        raise InputError(f"matmul of shapes {x.shape} and {y.shape} is not known.")
    a = np.swapaxes(x, -1, -2) if transpose_x else x
    b = np.swapaxes(y, -1, -2) if transpose_y else y
    bounded((*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1]))
    return _numpy(torch.from_numpy(a) @ torch.from_numpy(b))


def shape(x: Array) -> Array:
    """The sizes, int32."""
    return np.array(x.shape, np.int32)


def reshape(x: Array, shape: Array) -> Array:
    """Another shape; one size may be -1."""
    sizes = [int(n) for n in shape]
    if 0 in sizes or min(sizes, default=1) < -1:
        raise InputError(f"reshape to {sizes} is not known.")
    return x.reshape(sizes)


def transpose(x: Array, perm: Array) -> Array:
    """Turn axes."""
    return np.ascontiguousarray(x.transpose([int(n) for n in perm]))


def expand_dims(x: Array, axes: Array) -> Array:
    """Put axes of size 1 in; places count in the result."""
    return np.expand_dims(x, tuple(int(n) for n in axes))


def squeeze(x: Array, axes: Array | None = None) -> Array:
    """Take axes of size 1 out."""
    return np.squeeze(x, None if axes is None else tuple(int(n) for n in axes))


def concat(values: Sequence[Array], axis: Array, interleave: bool | Array = False) -> Array:
    """Join along an axis; a scalar counts as a vector of one."""
    if interleave:
        raise InputError("concat with interleave is not known.")
    return np.concatenate([np.atleast_1d(value) for value in values], int(axis))


def stack(values: Sequence[Array], axis: Array) -> Array:
    """Join along a new axis."""
    return np.stack(values, int(axis))


def split(
    x: Array, axis: Array, num_splits: Array | None = None, split_sizes: Array | None = None
) -> tuple[Array, ...]:
    """Part along an axis, into equal parts or parts of given sizes."""
    along = _axis(axis, x.ndim)
    if split_sizes is None:
        if num_splits is None:
            raise InputError("split needs num_splits or split_sizes.")
        return tuple(np.split(x, int(num_splits), along))
    sizes = [int(n) for n in split_sizes]
    if sum(sizes) != x.shape[along] or min(sizes) < 0:
        raise InputError(f"split of {x.shape[along]} into {sizes}.")
    return tuple(np.split(x, np.cumsum(sizes)[:-1], along))


def slice_by_index(
    x: Array,
    begin: Array,
    end: Array,
    stride: Array | None = None,
    begin_mask: Array | None = None,
    end_mask: Array | None = None,
    squeeze_mask: Array | None = None,
) -> Array:
    """`x[begin:end:stride, ...]`; a mask leaves that end of an axis open, or takes one index and its axis out."""
    none = np.zeros(x.ndim, bool)
    open_begin, open_end, single = (none if m is None else m for m in (begin_mask, end_mask, squeeze_mask))
    steps = np.ones(x.ndim, np.int32) if stride is None else stride
    if any(len(v) != x.ndim for v in (begin, end, steps, open_begin, open_end, single)):
        raise InputError(f"slice_by_index of {x.ndim} axes with {len(begin)} begins and {len(end)} ends.")
    places: list[slice | int] = []
    for i in range(x.ndim):
        first, last = None if open_begin[i] else int(begin[i]), None if open_end[i] else int(end[i])
        places.append(int(begin[i]) if single[i] else slice(first, last, int(steps[i])))
    return np.ascontiguousarray(x[tuple(places)]) if x.ndim > int(sum(single)) else np.asarray(x[tuple(places)])


def gather(
    x: Array, indices: Array, axis: Array | int = 0, batch_dims: Array | int = 0, validate_indices: Any = False
) -> Array:
    """Rows by number. One outside the table is refused, whatever `validate_indices` says."""
    if int(batch_dims):
        raise InputError("gather with batch_dims is not known.")
    along = _axis(axis, x.ndim)
    if indices.size and not (0 <= int(indices.min()) and int(indices.max()) < x.shape[along]):
        raise InputError(f"indices from {indices.min()} to {indices.max()} of a table of {x.shape[along]} rows.")
    bounded((*x.shape[:along], *indices.shape, *x.shape[along + 1 :]))
    return np.take(x, indices.astype(np.int64), along)


def tile(x: Array, reps: Array) -> Array:
    """Repeat along each axis."""
    bounded([n * int(r) for n, r in zip(x.shape, reps, strict=True)])
    return np.tile(x, [int(r) for r in reps])


def fill(shape: Array, value: Array | float = 0.0) -> Array:
    """A tensor of one value."""
    return np.full(
        bounded([int(n) for n in shape]),
        value,
        np.asarray(value).dtype if isinstance(value, np.ndarray) else np.float32,
    )


def range_1d(start: Array, end: Array, step: Array) -> Array:
    """`start`, `start + step`, ... below `end`."""
    bounded([max(0, math.ceil((float(end) - float(start)) / float(step)))])
    return np.arange(start.item(), end.item(), step.item()).astype(start.dtype)


def pad(x: Array, pad: Array, mode: str = "constant", constant_val: Array | float = 0.0) -> Array:
    """Put more before and behind on the last axes, of one value."""
    if mode != "constant" or len(pad) % 2 or len(pad) > 2 * x.ndim:
        raise InputError(f"pad in mode {mode!r} with {len(pad)} sizes for {x.ndim} axes is not known.")
    sizes = [(0, 0)] * (x.ndim - len(pad) // 2) + [(int(pad[i]), int(pad[i + 1])) for i in range(0, len(pad), 2)]
    bounded([n + a + b for n, (a, b) in zip(x.shape, sizes, strict=True)])
    return np.pad(x, sizes, constant_values=np.asarray(constant_val, x.dtype))


def select(cond: Array, a: Array, b: Array) -> Array:
    """`a` where the condition holds, `b` elsewhere."""
    bounded(np.broadcast_shapes(cond.shape, a.shape, b.shape))
    return np.asarray(np.where(cond, a, b))


def _relu(x: Array) -> Array:
    return np.asarray(np.maximum(x, np.zeros((), x.dtype)))


def _by_torch(compute: Callable[[torch.Tensor], torch.Tensor]) -> Op:
    return _unary(lambda x: _numpy(compute(_torch(x))))


OPS: dict[str, Op] = {
    "abs": _unary(np.abs), "add": _binary(np.add), "batch_norm": batch_norm, "cast": cast, "ceil": _unary(np.ceil),
    "clip": clip, "concat": concat,
    "constexpr_affine_dequantize": mil_constants.constexpr_affine_dequantize,
    "constexpr_blockwise_shift_scale": mil_constants.constexpr_blockwise_shift_scale,
    "constexpr_cast": mil_constants.constexpr_cast,
    "constexpr_lut_to_dense": mil_constants.constexpr_lut_to_dense,
    "constexpr_sparse_to_dense": mil_constants.constexpr_sparse_to_dense,
    "conv": conv, "cos": _unary(np.cos), "dequantize": mil_constants.dequantize, "equal": _binary(np.equal),
    "erf": _by_torch(torch.erf), "exp": _unary(np.exp), "expand_dims": expand_dims, "fill": fill,
    "floor": _unary(np.floor), "gather": gather, "gelu": gelu, "greater": _binary(np.greater),
    "greater_equal": _binary(np.greater_equal), "identity": _unary(lambda x: x), "inverse": inverse,
    "layer_norm": layer_norm, "leaky_relu": leaky_relu, "less": _binary(np.less),
    "less_equal": _binary(np.less_equal), "linear": linear, "log": log, "logical_and": _binary(np.logical_and),
    "logical_not": _unary(np.logical_not), "logical_or": _binary(np.logical_or), "matmul": matmul,
    "maximum": _binary(np.maximum), "minimum": _binary(np.minimum), "mul": _binary(np.multiply),
    "not_equal": _binary(np.not_equal), "pad": pad, "pow": _binary(np.power), "quantize": mil_constants.quantize,
    "range_1d": range_1d, "real_div": _binary(np.true_divide), "reduce_max": _reduction(np.max),
    "reduce_mean": _reduction(np.mean), "reduce_min": _reduction(np.min), "reduce_sum": _reduction(np.sum),
    "relu": _unary(_relu), "reshape": reshape, "rsqrt": rsqrt, "select": select, "shape": shape,
    "sigmoid": _by_torch(torch.sigmoid), "silu": _by_torch(F.silu), "sin": _unary(np.sin),
    "slice_by_index": slice_by_index, "softmax": softmax, "softplus": _by_torch(F.softplus), "split": split,
    "sqrt": _unary(np.sqrt), "square": _unary(np.square), "squeeze": squeeze, "stack": stack,
    "sub": _binary(np.subtract), "tanh": _unary(np.tanh), "tile": tile, "transpose": transpose,
}  # fmt: skip
