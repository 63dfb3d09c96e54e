"""Which multiplication kernels ran: by the library's own name where it has one, else by the instructions of the block.

A matrix product is recognized by its arithmetic: float multiply-accumulates (FMLA), dot products of four bytes (SDOT),
8-byte matrix products (SMMLA, of i8mm), or widening multiplies (SMLAL, what is left of int8 without those). The number
of registers that one block accumulates into gives the tile: 6x8 floats are 12 registers of four.

Encodings are those of the Arm Architecture Reference Manual for A-profile, chapter C4, "Data Processing -- Scalar
Floating-Point and Advanced SIMD", and "SVE encodings".
"""

from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache

from edgebert.runtimes.devices.pixel.counter import Block, Counts

# Mask, value, kind: a word is of the kind where word & mask == value. Vectors first, then products by an element.
MULTIPLY_ACCUMULATE: tuple[tuple[int, int, str], ...] = (
    (0xBFE0FC00, 0x0E20CC00, "fmla32"),
    (0xBFC0F400, 0x0F801000, "fmla32"),
    (0xBFE0FC00, 0x0E400C00, "fmla16"),
    (0xBFC0F400, 0x0F001000, "fmla16"),
    (0xBFE0FC00, 0x0E20EC00, "fmlal"),
    (0xBFE0FC00, 0x0E809400, "sdot"),
    (0xBFC0F400, 0x0F80E000, "sdot"),
    (0xBFE0FC00, 0x2E809400, "udot"),
    (0xBFC0F400, 0x2F80E000, "udot"),
    (0xBFE0FC00, 0x0E809C00, "usdot"),
    (0xBFC0F400, 0x0F80F000, "usdot"),
    (0xFFE0FC00, 0x4E80A400, "smmla"),
    (0xFFE0FC00, 0x6E80A400, "ummla"),
    (0xFFE0FC00, 0x4E80AC00, "usmmla"),
    (0xFFE0FC00, 0x6E40EC00, "bfmmla"),
    (0xFFE0FC00, 0x45009800, "smmla"),  # of SVE
    (0xFFE0FC00, 0x45C09800, "ummla"),
    (0xFFA0E000, 0x65A00000, "fmla32"),
    (0xFFE0E000, 0x65600000, "fmla16"),
    (0xBF20FC00, 0x0E208000, "smlal"),
    (0xBF20FC00, 0x0E20C000, "smlal"),
    (0xBF00F400, 0x0F002000, "smlal"),
    (0xBF00F400, 0x0F00A000, "smlal"),
    (0xBF20FC00, 0x2E208000, "umlal"),
    (0xBF20FC00, 0x2E20C000, "umlal"),
    (0xBF00F400, 0x2F002000, "umlal"),
    (0xBF00F400, 0x2F00A000, "umlal"),
)

# Multiply-accumulates in one instruction on 128-bit registers.
PRODUCTS = {"fmla32": 4, "fmla16": 8, "fmlal": 4, "sdot": 16, "udot": 16, "usdot": 16, "smmla": 32, "ummla": 32,
            "usmmla": 32, "bfmmla": 16, "smlal": 8, "umlal": 8}  # fmt: skip

NEAR = 512  # bytes; the blocks of one kernel stand closer than that

Part = tuple[int, Block]  # multiply-accumulates that a block did, and the block


@dataclass(frozen=True, slots=True)
class Kernel:
    """A multiplication kernel that ran.

    Attributes:
        kind: of its arithmetic, a key of `PRODUCTS`.
        symbol: the function's name, None where the library tells none.
        library: file name.
        offset: address of its hottest block in the library.
        accumulators: registers that the hottest block accumulates into.
        macs: multiply-accumulates that it did in one inference; of lanes, so the padding of tiles counts.
        instructions: all that its blocks ran.
    """

    kind: str
    symbol: str | None
    library: str | None
    offset: int
    accumulators: int
    macs: int
    instructions: int

    def __str__(self) -> str:
        """`xnn_…_6x8__asm… (fmla32, 12 accumulators)`, or the library in the name's place."""
        name = self.symbol or f"{self.library}+{self.offset:#x}"
        return f"{name} ({self.kind}, {self.accumulators} accumulators)"


@lru_cache(maxsize=1 << 16)
def multiplies(word: int) -> str | None:
    """The kind of multiply-accumulate that an instruction is, None for another instruction."""
    return next((kind for mask, value, kind in MULTIPLY_ACCUMULATE if word & mask == value), None)


def kernels(counts: Counts, least: float = 0.01) -> tuple[Kernel, ...]:
    """The kernels that did the multiplications, greatest part first.

    Args:
        counts: of one inference.
        least: leave out kernels with a smaller share of all multiply-accumulates.
    """
    named: dict[tuple[str | None, str, str], list[Part]] = defaultdict(list)
    nameless: dict[tuple[str | None, str], list[Part]] = defaultdict(list)
    for block in counts.blocks:
        by_kind: dict[str, int] = defaultdict(int)
        for word in block.words:
            if kind := multiplies(word):
                by_kind[kind] += PRODUCTS[kind]
        for kind, products in by_kind.items():
            part = (products * block.times, block)
            if block.symbol:
                named[block.library, block.symbol, kind].append(part)
            else:
                nameless[block.library, kind].append(part)
    found = [_kernel(kind, parts) for (_, _, kind), parts in named.items()]
    found += [_kernel(kind, parts) for (_, kind), near in nameless.items() for parts in _neighbours(near)]
    total = sum(kernel.macs for kernel in found)
    return tuple(sorted((k for k in found if k.macs >= least * total), key=lambda k: (-k.macs, k.offset)))


def _neighbours(parts: list[Part]) -> list[list[Part]]:
    """Blocks of a library without names, those near each other together: a loop and its remainders."""
    groups: list[list[Part]] = []
    for part in sorted(parts, key=lambda part: part[1].offset):
        if groups and part[1].offset - groups[-1][-1][1].offset < NEAR:
            groups[-1].append(part)
        else:
            groups.append([part])
    return groups


def _kernel(kind: str, parts: list[Part]) -> Kernel:
    _, hottest = max(parts, key=lambda part: (part[0], -part[1].offset))
    return Kernel(
        kind=kind,
        symbol=hottest.symbol,
        library=hottest.library,
        offset=hottest.offset,
        accumulators=len({word & 0x1F for word in hottest.words if multiplies(word) == kind}),
        macs=sum(macs for macs, _ in parts),
        instructions=sum(block.instructions for _, block in parts),
    )
