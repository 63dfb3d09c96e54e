"""Flatbuffers read and written by their schema: ExecuTorch's package carries the schemas of its own files.

A schema is parsed from its text (https://flatbuffers.dev/schema/), so that no generated code has to be imported. A
table becomes a dict with every field in it, a union `(name of the table, dict)`, an enum its number. Reading trusts
nothing: every offset, length and index is checked, and a buffer whose tables are shared over and over ends in an
error, not in hours of work.
"""

import importlib.util
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

Table = dict[str, Any]

# Schema's scalar to numpy's; little-endian, whatever this machine is.
SCALARS = {
    "bool": "<u1", "byte": "<i1", "ubyte": "<u1", "short": "<i2", "ushort": "<u2", "int": "<i4", "uint": "<u4",
    "uint32": "<u4", "long": "<i8", "int64": "<i8", "ulong": "<u8", "uint64": "<u8", "float": "<f4", "double": "<f8",
}  # fmt: skip
FORMATS = {"<u1": "<B", "<i1": "<b", "<u2": "<H", "<i2": "<h", "<u4": "<I", "<i4": "<i", "<u8": "<Q", "<i8": "<q",
           "<f4": "<f", "<f8": "<d"}  # fmt: skip
WRITERS = {"<u1": "Uint8", "<i1": "Int8", "<u2": "Uint16", "<i2": "Int16", "<u4": "Uint32", "<i4": "Int32",
           "<u8": "Uint64", "<i8": "Int64", "<f4": "Float32", "<f8": "Float64"}  # fmt: skip

ENUM = re.compile(r"\benum\s+(\w+)\s*:\s*(\w+)\s*\{(.*?)\}", re.S)
UNION = re.compile(r"\bunion\s+(\w+)\s*\{(.*?)\}", re.S)
TABLE = re.compile(r"\btable\s+(\w+)\s*\{(.*?)\}", re.S)
FIELD = re.compile(r"(\w+)\s*:\s*(\[?)\s*(\w+)\s*\]?\s*(?:=\s*([\w.+-]+))?")


class Damage(ValueError):
    """The bytes are not what the schema says."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a table: its type, whether it is a vector of it, its slot in the vtable, its default."""

    name: str
    kind: str
    vector: bool
    slot: int
    default: float


@dataclass(frozen=True, slots=True)
class Schema:
    """What a .fbs file says."""

    identifier: bytes
    root: str
    enums: dict[str, tuple[str, dict[str, int]]] = field(default_factory=dict)
    unions: dict[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    tables: dict[str, tuple[Field, ...]] = field(default_factory=dict)

    def scalar(self, kind: str) -> str | None:
        """The numpy dtype of a scalar or enum; None for anything else."""
        return SCALARS.get(self.enums[kind][0] if kind in self.enums else kind)


@cache
def program_schema() -> Schema:
    """The schema of a .pte file's program, as shipped with the executorch that is installed."""
    return parse(_shipped("schema/scalar_type.fbs") + _shipped("schema/program.fbs"))


@cache
def delegate_schema() -> Schema:
    """The schema of a graph handed to XNNPACK."""
    return parse(_shipped("backends/xnnpack/serialization/runtime_schema.fbs"))


def _shipped(name: str) -> str:
    spec = importlib.util.find_spec("executorch")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    path = next(path for path in (Path(folder) / name for folder in folders) if path.is_file())
    return path.read_text(encoding="utf-8")


def parse(text: str) -> Schema:
    """Parse a schema of tables, enums and unions; structs are not among what these files use."""
    text = re.sub(r"//[^\n]*", "", text)
    enums = {name: (base, _members(body)) for name, base, body in ENUM.findall(text)}
    unions = {name: tuple(_union(body)) for name, body in UNION.findall(text)}
    tables = {name: tuple(_fields(body, enums, unions)) for name, body in TABLE.findall(text)}
    identifier = re.search(r'file_identifier\s+"(....)"', text)
    root = re.search(r"root_type\s+(\w+)", text)
    assert identifier, "a schema of a file names its magic"
    assert root, "and its root"
    return Schema(identifier[1].encode(), root[1], enums, unions, tables)


def _members(body: str) -> dict[str, int]:
    members: dict[str, int] = {}
    for item in filter(None, (part.strip() for part in body.split(","))):
        name, _, number = (part.strip() for part in item.partition("="))
        members[name] = int(number) if number else max(members.values(), default=-1) + 1
    return members


def _union(body: str) -> Iterable[tuple[str, str]]:
    for item in filter(None, (part.strip() for part in body.split(","))):
        name, _, table = (part.strip() for part in item.partition(":"))
        yield name, table or name


def _fields(body: str, enums: dict[str, tuple[str, dict[str, int]]], unions: Table) -> Iterable[Field]:
    slot = 0
    for line in filter(None, (part.strip() for part in body.split(";"))):
        found = FIELD.match(line)
        assert found, line
        name, vector, kind, default = found.groups()
        if kind in unions:
            slot += 1  # the slot before the table's holds its type
        names = enums[kind][1] if kind in enums else {}
        yield Field(name, kind, bool(vector), slot, names.get(default, 0) if names else float(default or 0))
        slot += 1


def read(schema: Schema, data: memoryview) -> Table:
    """Read the root table.

    Raises:
        Damage: the bytes are not a whole buffer of this schema.
    """
    if len(data) < 8 or bytes(data[4:8])[:2] != schema.identifier[:2]:
        raise Damage(f"bytes 4 to 7 are {bytes(data[4:8])!r}, not {schema.identifier!r}")
    reader = _Reader(schema, data)
    return reader.table(schema.root, reader.number("<I", 0))


class _Reader:
    """Reads tables out of one buffer."""

    def __init__(self, schema: Schema, data: memoryview) -> None:
        self.schema = schema
        self.data = data
        self.left = len(data)  # a table takes four bytes at least: more of them than bytes is no file of anyone's

    def number(self, form: str, at: int) -> int:
        """A number at a place."""
        if at < 0 or at + struct.calcsize(form) > len(self.data):
            raise Damage(f"an offset {at} in {len(self.data)} bytes")
        value: int = struct.unpack_from(form, self.data, at)[0]
        return value

    def table(self, name: str, at: int) -> Table:
        """A table at a place, with everything in it."""
        self.left -= 4
        if self.left < 0:
            raise Damage("more tables than bytes")
        vtable = at - self.number("<i", at)
        slots = (self.number("<H", vtable) - 4) // 2
        out: Table = {}
        for entry in self.schema.tables[name]:
            where = self.number("<H", vtable + 4 + 2 * entry.slot) if entry.slot < slots else 0
            if entry.kind in self.schema.unions:
                kind = self.number("<H", vtable + 2 + 2 * entry.slot) if entry.slot <= slots and entry.slot else 0
                out[entry.name] = self.union(entry.kind, at + kind if kind else None, at + where) if where else None
            else:
                out[entry.name] = self.value(entry, at + where) if where else self.absent(entry)
        return out

    def absent(self, entry: Field) -> Any:
        """What a field that is not stored stands for."""
        kind = self.schema.scalar(entry.kind)
        if kind is None or entry.vector:
            return None
        return float(entry.default) if kind[1] == "f" else int(entry.default)

    def union(self, name: str, kind: int | None, at: int) -> tuple[str, Table]:
        """A union's table, with the name of which one it is."""
        number = self.number("<B", kind) if kind is not None else 0
        members = self.schema.unions[name]
        if not 1 <= number <= len(members):
            raise Damage(f"{name} has no member {number}")
        member, table = members[number - 1]
        return member, self.table(table, at + self.number("<I", at))

    def value(self, entry: Field, at: int) -> Any:
        """One field's value."""
        scalar = self.schema.scalar(entry.kind)
        if scalar and not entry.vector:
            return self.number(FORMATS[scalar], at)
        target = at + self.number("<I", at)
        if not entry.vector:
            return self.text(target) if entry.kind == "string" else self.table(entry.kind, target)
        if scalar:
            return np.frombuffer(self.span(target, np.dtype(scalar).itemsize), scalar)
        places = np.frombuffer(self.span(target, 4), "<u4").tolist()
        starts = [target + 4 + 4 * i + place for i, place in enumerate(places)]
        return [self.text(start) if entry.kind == "string" else self.table(entry.kind, start) for start in starts]

    def span(self, at: int, size: int) -> memoryview:
        """The bytes of a vector whose elements have this size."""
        count = self.number("<I", at)
        if at + 4 + count * size > len(self.data):
            raise Damage(f"a vector of {count} elements of {size} bytes at {at} in {len(self.data)} bytes")
        return self.data[at + 4 : at + 4 + count * size]

    def text(self, at: int) -> str:
        """A string."""
        self.left -= 4
        return bytes(self.span(at, 1)).decode("utf-8")


def write(schema: Schema, root: Table) -> bytes:
    """Write a root table; fields that are left out or None are not stored. Enums may be given by name."""
    import flatbuffers  # type: ignore[import-untyped]

    writer = _Writer(schema, flatbuffers.Builder(1 << 16))
    writer.builder.Finish(writer.table(schema.root, root), file_identifier=schema.identifier)
    return bytes(writer.builder.Output())


class _Writer:
    """Writes tables into one builder: a table's parts first, then the table."""

    def __init__(self, schema: Schema, builder: Any) -> None:
        self.schema = schema
        self.builder = builder

    def table(self, name: str, values: Table) -> int:
        """Write a table; gives its place."""
        fields = self.schema.tables[name]
        unknown = set(values) - {entry.name for entry in fields}
        assert not unknown, f"{name} has no field {unknown}"
        given = [entry for entry in fields if values.get(entry.name) is not None]
        stored = [(entry, self.part(entry, values[entry.name])) for entry in given]
        self.builder.StartObject(max((entry.slot for entry in fields), default=-1) + 1)
        for entry, value in stored:
            kind = self.schema.scalar(entry.kind)
            if kind and not entry.vector:
                getattr(self.builder, f"Prepend{WRITERS[kind]}Slot")(entry.slot, value, None)
            elif entry.kind in self.schema.unions:
                self.builder.PrependUint8Slot(entry.slot - 1, value[0], 0)
                self.builder.PrependUOffsetTRelativeSlot(entry.slot, value[1], 0)
            else:
                self.builder.PrependUOffsetTRelativeSlot(entry.slot, value, 0)
        return int(self.builder.EndObject())

    def part(self, entry: Field, value: Any) -> Any:
        """Write what a field points to; gives its place, or the number itself."""
        kind = self.schema.scalar(entry.kind)
        if kind and not entry.vector:
            return self.schema.enums[entry.kind][1][value] if isinstance(value, str) else value
        if kind:
            return self.builder.CreateNumpyVector(np.asarray(value, kind))
        if entry.kind in self.schema.unions:
            names = [member for member, _ in self.schema.unions[entry.kind]]
            number = names.index(value[0])
            return number + 1, self.table(self.schema.unions[entry.kind][number][1], value[1])
        if not entry.vector:
            return self.builder.CreateString(value) if entry.kind == "string" else self.table(entry.kind, value)
        places = [self.builder.CreateString(v) if entry.kind == "string" else self.table(entry.kind, v) for v in value]
        self.builder.StartVector(4, len(places), 4)
        for place in reversed(places):
            self.builder.PrependUOffsetTRelative(place)
        return self.builder.EndVector()
