"""What an aarch64 instruction does, as far as the time it takes is concerned: its kind and the registers it writes.

Encodings are those of the Arm Architecture Reference Manual for A-profile, chapter C4. A word is first told by its top
level group (bits 28 to 25), then by the groups below; only what a neural network's kernels run in number is told
exactly, the rest falls into the kind of its group.
"""

from dataclasses import dataclass
from functools import lru_cache

# Kinds of multiply-accumulates. `long` is a widening multiply, what int8 is left with without dot products.
MULTIPLY = ("fma32", "fma16", "dot", "mmla", "long")
# Other work of the vector unit: float arithmetic, integer arithmetic, divisions and square roots, scalar floats.
VECTOR = ("fmul", "fadd", "integer", "divide", "float")
# Registers moved, turned and put together by the vector unit.
PERMUTE = ("permute", "insert")  # `insert` comes from a scalar register
LOADS = ("load_q", "load_d", "load")  # of 128-bit registers, of shorter ones, of scalar ones
STORES = ("store_q", "store_d", "store")
REST = ("prefetch", "branch", "scalar", "other")
KINDS = (*MULTIPLY, *VECTOR, *PERMUTE, *LOADS, *STORES, *REST)

# Of the result's three shares: the arithmetic that a product is made of, moving numbers about, everything else.
SHARES: dict[str, tuple[str, ...]] = {
    "arithmetic": MULTIPLY,
    "data movement": (*PERMUTE, *LOADS, *STORES, "prefetch"),
    "everything else": (*VECTOR, "branch", "scalar", "other"),
}

# Mask, value, kind of vector instructions, the first that fits.
VECTORS: tuple[tuple[int, int, str], ...] = (
    (0xBFA0FC00, 0x0E20CC00, "fma32"),  # FMLA, FMLS; two doubles take as long
    (0xBFA0FC00, 0x0EA0CC00, "fma32"),
    (0xBF80B400, 0x0F801000, "fma32"),  # by an element
    (0xBF60FC00, 0x0E400C00, "fma16"),
    (0xBFC0B400, 0x0F001000, "fma16"),
    (0xBF60FC00, 0x0E20EC00, "fma16"),  # FMLAL
    (0xBF60FC00, 0x2E20CC00, "fma16"),
    (0x9FE0FC00, 0x0E809400, "dot"),
    (0x9FC0F400, 0x0F80E000, "dot"),
    (0x9FE0FC00, 0x0E809C00, "dot"),
    (0x9F40F400, 0x0F00F000, "dot"),
    (0xDFE0FC00, 0x4E80A400, "mmla"),
    (0xFFE0FC00, 0x4E80AC00, "mmla"),
    (0xFFE0FC00, 0x6E40EC00, "mmla"),
    (0x9F20DC00, 0x0E208000, "long"),  # SMLAL, SMLSL
    (0x9F20FC00, 0x0E20C000, "long"),  # SMULL
    (0x9F00B400, 0x0F002000, "long"),
    (0x9F00F400, 0x0F00A000, "long"),
    (0xBFA0FC00, 0x2E20FC00, "divide"),
    (0xBFE0FC00, 0x2E403C00, "divide"),
    (0xBFBFFC00, 0x2EA1F800, "divide"),  # FSQRT
    (0xBFA0FC00, 0x2E20DC00, "fmul"),
    (0xBFE0FC00, 0x2E401C00, "fmul"),
    (0x9F80F400, 0x0F809000, "fmul"),
    (0x9FC0F400, 0x0F009000, "fmul"),
    (0x9F20C400, 0x0E20C400, "fadd"),  # the other operations on floats: add, compare, least and greatest
    (0x9F60C400, 0x0E400400, "fadd"),
    (0xFFE0FC00, 0x4E001C00, "insert"),  # INS from a scalar register
    (0x9FE08400, 0x0E000400, "permute"),  # DUP, UMOV
    (0xDFE08400, 0x6E000400, "permute"),
    (0xBF208C00, 0x0E000800, "permute"),  # ZIP, UZP, TRN
    (0xBF208C00, 0x0E000000, "permute"),  # TBL
    (0xBF208400, 0x2E000000, "permute"),  # EXT
    (0xBFE0FC00, 0x0EA01C00, "permute"),  # ORR: the move between registers
    (0xBF3FFC00, 0x0E212800, "permute"),  # XTN
    (0x9FF80400, 0x0F000400, "permute"),  # MOVI
    (0x9F3FFC00, 0x0E200800, "permute"),  # REV
)

# The same of SVE, whose vectors have 128 bits on every phone here. Of FMLA and its kin bits 23 and 22 tell the width.
SCALABLE: tuple[tuple[int, int, str], ...] = (
    (0xE2000000, 0xE0000000, "store_q"),
    (0x80000000, 0x80000000, "load_q"),  # one register, or an element repeated
    (0xFF20FC00, 0x45009800, "mmla"),  # SMMLA, UMMLA, USMMLA
    (0xFF20F800, 0x44000000, "dot"),
    (0xFFE0FC00, 0x44807800, "dot"),  # USDOT
    (0xFFA0F800, 0x44A00000, "dot"),  # by an element
    (0xFF20E000, 0x44004000, "long"),  # SMLALB and its kin
    (0xFF20E000, 0x45006000, "long"),  # SMULLB
    (0xFF200000, 0x65200000, "fma"),  # FMLA, FMLS, FMAD, FMSB and their negatives
    (0xFF20F800, 0x64200000, "fma"),  # by an element
    (0xFFA0D000, 0x64A08000, "fma16"),  # FMLALB, FMLALT
    (0xFF3EE000, 0x650C8000, "divide"),
    (0xFF3FE000, 0x650DA000, "divide"),  # FSQRT
    (0xFF3FE000, 0x65028000, "fmul"),
    (0xFF20FC00, 0x65000800, "fmul"),
    (0xFF20FC00, 0x65001800, "fmul"),  # FRECPS
    (0xFF20FC00, 0x64202000, "fmul"),
    (0xFE000000, 0x64000000, "fadd"),  # the other operations on floats
    (0xFFFFFC00, 0x0420BC00, "other"),  # MOVPRFX, which goes with what follows
    (0xFF30F800, 0x0420E000, "scalar"),  # CNTB and its kin
    (0xFFA0F000, 0x04205000, "scalar"),  # ADDVL, RDVL
    (0xFF3EC000, 0x2538C000, "permute"),  # DUP and FDUP of a number
    (0xFF000000, 0x25000000, "scalar"),  # WHILELO, PTRUE and other operations on predicates
    (0xFF20C000, 0x05200000, "permute"),  # DUP, TBL, REV
    (0xFF20E000, 0x05206000, "permute"),  # ZIP, UZP, TRN
    (0xFF20C000, 0x0520C000, "permute"),  # SEL
    (0xFF20C000, 0x05208000, "permute"),
    (0xFF30C000, 0x05104000, "permute"),  # a number where a predicate says so
)

# Of LD1 and its like, by bits 15 to 12: registers.
STRUCTURES = {0: 4, 2: 4, 4: 3, 6: 3, 7: 1, 8: 2, 10: 2}


@dataclass(frozen=True, slots=True)
class Instruction:
    """What one instruction does.

    Attributes:
        kind: one of `KINDS`.
        wide: whether the vector registers are of 128 bits.
        registers: that a load or store moves, 1 for other instructions.
        written: the vector register that an arithmetic instruction or a load writes, None for none. A load of several
            has the first here and the rest in `more`.
        accumulates: whether the written register is read too, and added to.
        more: further vector registers written.
    """

    kind: str
    wide: bool = False
    registers: int = 1
    written: int | None = None
    accumulates: bool = False
    more: tuple[int, ...] = ()

    @property
    def overwritten(self) -> tuple[int, ...]:
        """Vector registers whose old value is lost without being read."""
        return () if self.written is None or self.accumulates else (self.written, *self.more)


@lru_cache(maxsize=1 << 17)
def decode(word: int) -> Instruction:
    """What an instruction does; a word that is none is `other`."""
    group = word >> 25 & 15
    if group & 0b0101 == 0b0100:
        return _memory(word)
    if group & 0b0111 == 0b0111:
        return _vector(word)
    if group == 0b0010:
        return _scalable(word)
    if group in (0b1000, 0b1001) or group & 0b0111 == 0b0101:
        return Instruction("scalar")
    if group in (0b1010, 0b1011):
        return Instruction("other" if word >> 24 in (0xD4, 0xD5) else "branch")
    return Instruction("other")


def _vector(word: int) -> Instruction:
    """Vector and scalar float arithmetic."""
    target = word & 31
    if word & 0x5E000000 == 0x1E000000:  # scalar floats and their conversions
        return Instruction(_scalar_float(word), written=target)
    if word & 0x80000000:
        return Instruction("integer", wide=True, written=target)
    wide = bool(word & 0x40000000)
    if word & 0x10000000:  # vector instructions on one element
        return Instruction("float", written=target)
    kind = next((kind for mask, value, kind in VECTORS if word & mask == value), "integer")
    # The widening ones make 128 bits, whatever they read.
    return Instruction(kind, wide or kind == "long", written=target, accumulates=_accumulates(word, kind))


def _scalable(word: int) -> Instruction:
    """Instructions of SVE."""
    kind = next((kind for mask, value, kind in SCALABLE if word & mask == value), "integer")
    if kind == "fma":
        kind = "fma16" if word >> 22 & 3 == 1 else "fma32"
    if kind in ("scalar", "other"):
        return Instruction(kind)
    if kind == "store_q":
        return Instruction(kind, wide=True)
    # MLA, MLS and MAD of integers are read and added to as well; SMULLB is not.
    adds = word & 0xFF00C000 == 0x04004000 or word & 0xFF00C000 == 0x0400C000
    accumulates = (kind in MULTIPLY and word & 0xFF20E000 != 0x45006000) or (kind == "integer" and adds)
    return Instruction(kind, wide=True, written=word & 31, accumulates=accumulates)


def _scalar_float(word: int) -> str:
    divides = word & 0x5F20FC00 == 0x1E201800 or word & 0x5F3FFC00 == 0x1E21C000
    return "divide" if divides else "float"


def _accumulates(word: int, kind: str) -> bool:
    """Whether an arithmetic instruction adds to what stood in the register it writes."""
    if kind == "long":  # SMULL does not
        return not (word & 0x9F20FC00 == 0x0E20C000 or word & 0x9F00F400 == 0x0F00A000)
    # SADALP, and MLA and MLS of integers, which are rarer than dot products.
    added = word & 0x9F3FFC00 == 0x0E206800 or word & 0x9F20FC00 == 0x0E209400
    return kind in MULTIPLY or (kind == "integer" and added)


def _memory(word: int) -> Instruction:
    """Loads and stores."""
    vector, kind = bool(word & 1 << 26), word >> 28 & 3
    loads = bool(word & 1 << 22)
    if kind == 0:
        return _structure(word) if vector else Instruction("load" if loads else "store")
    if kind == 2:
        return _pair(word, vector, loads)
    if kind == 1:
        if word & 1 << 24:
            return Instruction("load" if word & 3 << 22 else "store")
        return _literal(word, vector)
    return _single(word, vector)


def _literal(word: int, vector: bool) -> Instruction:
    size = word >> 30
    if not vector:
        return Instruction("prefetch" if size == 3 else "load")
    return _move(True, size == 2, (word & 31,))


def _pair(word: int, vector: bool, loads: bool) -> Instruction:
    if not vector:
        return Instruction("load" if loads else "store", registers=2)
    return _move(loads, word >> 30 == 2, (word & 31, word >> 10 & 31))


def _single(word: int, vector: bool) -> Instruction:
    size, how = word >> 30, word >> 22 & 3
    if vector:
        return _move(bool(how & 1), size == 0 and how >= 2, (word & 31,))
    if size == 3 and how == 2:
        return Instruction("prefetch")
    atomic = not word & 1 << 24 and word & 1 << 21 and not word & 3 << 10
    return Instruction("load" if how or atomic else "store")


def _structure(word: int) -> Instruction:
    """LD1 to LD4, ST1 to ST4, of whole registers, of one element, or repeated."""
    loads, wide, first = bool(word & 1 << 22), bool(word & 1 << 30), word & 31
    if not word & 1 << 24:
        count = STRUCTURES.get(word >> 12 & 15, 1)
    else:
        count = (word >> 13 & 1) * 2 + (word >> 21 & 1) + 1
        wide = wide and word >> 14 & 3 == 3  # the repeated ones fill a register, the others one element
        if loads and word >> 14 & 3 != 3:  # the rest of the register stays
            return Instruction("load_d", registers=count)
    return _move(loads, wide, tuple((first + index) % 32 for index in range(count)))


def _move(loads: bool, wide: bool, registers: tuple[int, ...]) -> Instruction:
    kind = f"{'load' if loads else 'store'}_{'q' if wide else 'd'}"
    if not loads:
        return Instruction(kind, wide, len(registers))
    return Instruction(kind, wide, len(registers), written=registers[0], more=registers[1:])
