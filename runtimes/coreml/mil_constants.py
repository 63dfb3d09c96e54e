"""MIL's operators on integers that stand for floats: packed weights, and activations rounded to 8 bits.

Meanings and defaults: https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html. Floats
of either precision come and go as float32; what is due to float16 is rounded by the caller.
"""

import math

import numpy as np

from edgebert.errors import InputError

# Bits of an element, by the name of its type, where they do not fill bytes.
SUB_BYTE = {"int4": 4, "uint1": 1, "uint2": 2, "uint3": 3, "uint4": 4, "uint6": 6}
LIMITS = {"int8": (-128, 127), "uint8": (0, 255)}


def unpack(data: np.ndarray, dtype: str, count: int) -> np.ndarray:
    """Elements packed from the least significant bit on: uint8 (bytes) to int8 or uint8 (count)."""
    bits = SUB_BYTE[dtype]
    if len(data) != -(-count * bits // 8):
        raise InputError(f"{count} elements of {dtype} take {-(-count * bits // 8)} bytes, and {len(data)} are there.")
    if bits == 4:
        whole = np.empty(2 * len(data), np.uint8)
        whole[0::2], whole[1::2] = data & 15, data >> 4
        whole = whole[:count]
    else:
        each = np.unpackbits(data, count=count * bits, bitorder="little").reshape(count, bits)
        whole = (each << np.arange(bits, dtype=np.uint8)).sum(1, dtype=np.uint8)
    if dtype == "int4":
        return ((whole.astype(np.int8) ^ 8) - 8).astype(np.int8)
    return whole


def along(values: np.ndarray, axis: int, rank: int) -> np.ndarray:
    """A scalar as it is; a vector along one axis of a tensor of this rank."""
    if values.ndim == 0:
        return values
    if values.ndim != 1 or not -rank <= axis < rank:
        raise InputError(f"a scale of shape {values.shape} along axis {axis} of {rank} axes.")
    shape = [1] * rank
    shape[axis] = len(values)
    return values.reshape(shape)


def spread(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """One value a block as one value an element; each axis is a whole number of blocks."""
    if values.ndim != len(shape) or any(v == 0 or n % v for n, v in zip(shape, values.shape, strict=True)):
        raise InputError(f"blocks of shape {values.shape} do not divide {shape}.")
    for axis, (n, v) in enumerate(zip(shape, values.shape, strict=True)):
        if v not in (1, n):
            values = np.repeat(values, n // v, axis)
    return values


def quantize(
    input: np.ndarray,
    scale: np.ndarray,
    output_dtype: str,
    zero_point: np.ndarray | None = None,
    axis: np.ndarray | None = None,
) -> np.ndarray:
    """`clip(round(input / scale) + zero_point)`, halves to the even neighbour."""
    if output_dtype not in LIMITS:
        raise InputError(f"quantize to {output_dtype!r} is not known.")
    place = 0 if axis is None else int(axis)
    whole = np.rint(input / along(scale, place, input.ndim))
    if zero_point is not None:
        whole = whole + along(zero_point, place, input.ndim)
    out: np.ndarray = np.clip(whole, *LIMITS[output_dtype]).astype(output_dtype)
    return out


def dequantize(
    input: np.ndarray, scale: np.ndarray, zero_point: np.ndarray | None = None, axis: np.ndarray | None = None
) -> np.ndarray:
    """`scale * (input - zero_point)`."""
    place = 0 if axis is None else int(axis)
    whole = input.astype(np.float32)
    if zero_point is not None:
        whole -= along(zero_point, place, input.ndim).astype(np.float32)
    out: np.ndarray = whole * along(scale, place, input.ndim)
    return out


def constexpr_affine_dequantize(
    quantized_data: np.ndarray, zero_point: np.ndarray, scale: np.ndarray, axis: np.ndarray
) -> np.ndarray:
    """8-bit weights with a scale for each index of one axis (iOS 16)."""
    return dequantize(quantized_data, scale, zero_point, axis)


def constexpr_blockwise_shift_scale(
    data: np.ndarray, scale: np.ndarray, offset: np.ndarray | None = None
) -> np.ndarray:
    """Weights with a scale for each block (iOS 18)."""
    whole = data.astype(np.float32)
    if offset is not None:
        if offset.shape != scale.shape:
            raise InputError(f"an offset of shape {offset.shape} for scales of {scale.shape}.")
        whole -= spread(offset, data.shape).astype(np.float32)
    whole *= spread(scale, data.shape)
    return whole


def constexpr_lut_to_dense(
    indices: np.ndarray,
    lut: np.ndarray,
    shape: np.ndarray | None = None,
    vector_axis: np.ndarray | None = None,
) -> np.ndarray:
    """Weights as places in a palette: of iOS 16 (indices packed, one palette, `shape`) and of iOS 18."""
    if shape is not None:
        if vector_axis is not None or lut.ndim != 1 or len(lut) not in (2, 4, 16, 64, 256):
            raise InputError(f"a palette of shape {lut.shape} with a shape of its own is not known.")
        sizes = tuple(int(n) for n in shape)
        bits = int(math.log2(len(lut)))
        places = indices if bits == 8 else unpack(indices, f"uint{bits}", math.prod(sizes))
        out: np.ndarray = lut[places].reshape(sizes)
        return out
    if lut.ndim != indices.ndim + 2 or lut.shape[-1] != 1:
        raise InputError(f"palettes of shape {lut.shape} for {indices.shape}: only those of single values are known.")
    tables = lut[..., 0].reshape(-1, lut.shape[-2])
    which = spread(np.arange(len(tables)).reshape(lut.shape[:-2]), indices.shape)
    return np.asarray(tables[np.broadcast_to(which, indices.shape), indices])


def constexpr_sparse_to_dense(nonzero_data: np.ndarray, mask: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """Weights most of which are 0 (iOS 16)."""
    sizes = tuple(int(n) for n in shape)
    count = math.prod(sizes)
    if len(mask) != -(-count // 8):
        raise InputError(f"a mask of {len(mask)} bytes for {count} weights.")
    dense = np.zeros(count, nonzero_data.dtype)
    dense[np.unpackbits(mask, count=count, bitorder="little").astype(bool)] = nonzero_data
    return dense.reshape(sizes)


def constexpr_cast(source_val: np.ndarray, output_dtype: str) -> np.ndarray:
    """Weights stored in float16 and used in float32."""
    if output_dtype != "fp32" or source_val.dtype != np.float32:
        raise InputError(f"constexpr_cast to {output_dtype!r} is not known.")
    return source_val
