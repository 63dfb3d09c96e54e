"""Names for addresses: which library a block of code came from, and which of its functions, where it has names."""

import bisect
import struct
from dataclasses import dataclass
from pathlib import Path

SHT_SYMTAB, SHT_DYNSYM, PT_LOAD, STT_FUNC = 2, 11, 1, 2


@dataclass(frozen=True, slots=True)
class Place:
    """Where an address lies: the file, the address in that file's own numbering, and the function or None."""

    library: str
    address: int
    symbol: str | None


class Library:
    """The functions of one 64-bit little-endian ELF file; without names where it was stripped or is no such file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            data = path.read_bytes()
            self._loads, symbols = _read(data)
        except (OSError, struct.error, ValueError, IndexError):
            self._loads, symbols = [], []
        self._symbols = sorted(symbols)
        self._starts = [start for start, _, _ in self._symbols]

    def place(self, offset: int) -> Place:
        """Name what stands at an offset in the file."""
        address = next((v + offset - o for o, v, size in self._loads if o <= offset < o + size), offset)
        index = bisect.bisect_right(self._starts, address) - 1
        symbol = None
        if index >= 0:
            start, size, name = self._symbols[index]
            symbol = name if address < start + size else None
        return Place(self.path.name, address, symbol)


def _read(data: bytes) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, str]]]:
    """Segments as (offset, address, size), functions as (address, size, name)."""
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError("no 64-bit little-endian ELF file")
    phoff, shoff = struct.unpack_from("<QQ", data, 32)
    phentsize, phnum, shentsize, shnum = struct.unpack_from("<HHHH", data, 54)
    loads = []
    for i in range(phnum):
        kind, _, offset, address, _, size = struct.unpack_from("<IIQQQQ", data, phoff + i * phentsize)
        if kind == PT_LOAD:
            loads.append((offset, address, size))
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, shoff + i * shentsize) for i in range(shnum)]
    # The full table where there is one has what the dynamic one has.
    tables = [s for s in sections if s[1] == SHT_SYMTAB] or [s for s in sections if s[1] == SHT_DYNSYM]
    symbols = []
    for _, _, _, _, offset, size, link, _, _, entry in tables:
        names = sections[link]
        for at in range(offset, offset + size, entry):
            name, info, _, _, value, length = struct.unpack_from("<IBBHQQ", data, at)
            if info & 0xF == STT_FUNC and value and length:
                start = names[4] + name
                symbols.append((value, length, data[start : data.index(b"\0", start)].decode(errors="replace")))
    return loads, symbols


class Namer:
    """Places for guest addresses.

    Args:
        maps: (start, end, offset, path) of executable memory, as the guest script tells it.
    """

    def __init__(self, maps: list[list[object]]) -> None:
        self._maps = sorted((int(str(a)), int(str(b)), int(str(c)), str(d)) for a, b, c, d in maps)
        self._starts = [start for start, _, _, _ in self._maps]
        self._libraries: dict[str, Library] = {}

    def place(self, address: int) -> Place | None:
        """Name an address; None for memory that comes from no file."""
        index = bisect.bisect_right(self._starts, address) - 1
        if index < 0 or address >= self._maps[index][1]:
            return None
        start, _, offset, path = self._maps[index]
        if path not in self._libraries:
            self._libraries[path] = Library(Path(path))
        return self._libraries[path].place(address - start + offset)
