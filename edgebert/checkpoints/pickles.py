"""A torch file's pickle looked through before it is opened: no more is asked of it than tensors take.

torch's own `weights_only` runs no code from a file, but calls `bytearray`, codecs and tensor classes with what the file
gives them, and builds any structure: a few hundred bytes can ask for all memory there is, or for years of hashing.
"""

import pickletools
import zipfile
from pathlib import Path
from typing import IO

from edgebert.errors import InputError

# What torch.save names in a pickle of tensors: of odd kinds too, which are refused later, by their own name.
GLOBALS = {
    "collections OrderedDict",
    "torch Size",
    "torch device",
    "torch.nn.parameter Parameter",
    "torch.serialization _get_layout",
    "torch.storage UntypedStorage",
    *(
        f"torch._utils _rebuild_{kind}"
        for kind in (
            "tensor", "tensor_v2", "tensor_v3", "parameter", "parameter_with_state", "qtensor", "sparse_tensor",
            "meta_tensor_no_storage", "nested_tensor",
        )
    ),
}  # fmt: skip
# Of module torch: types of numbers and ways to quantize. They are constants, and storages stand-ins: none has a size.
CONSTANTS = ("bfloat", "bits", "bool", "complex", "double", "float", "half", "int", "long", "per_", "q", "uint")

LARGEST = 4 << 20  # bytes of a pickle; a tensor takes some 200
PARTS = 5  # pickles at the head of the format from before 2020: magic number, version, system, tensors, storages
MAGIC = 0x1950A86A20F9469CFC6C.to_bytes(10, "little")  # of that format

PUTS = ("BINPUT", "LONG_BINPUT")
GETS = ("BINGET", "LONG_BINGET")
TUPLES = ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3")


def check(path: Path) -> None:
    """Look through the pickle, or pickles, of a file that torch.save wrote.

    Raises:
        InputError: it holds more than tensors take.
        Exception: any other, where the file is damaged.
    """
    with path.open("rb") as file:
        head = file.read(64)
        if not head.startswith(b"PK\x03\x04"):
            if MAGIC not in head:
                raise InputError(f"{path} is no file that torch.save wrote, and is not opened: use safetensors.")
            file.seek(0)
            for _ in range(PARTS):
                _look_through(file, path)
            return
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        pickled = [entry for entry in entries if entry.filename.lower().endswith("data.pkl")]
        # torch.save compresses nothing, and what grows when it is read may grow beyond the memory.
        if len(pickled) != 1 or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise _more(path)
        if pickled[0].file_size > LARGEST:
            raise _more(path)
        with archive.open(pickled[0]) as file:
            _look_through(file, path)


def _more(path: Path) -> InputError:
    return InputError(f"{path} is a pickle with more than tensors in it and is not opened: use safetensors.")


def _look_through(file: IO[bytes], path: Path) -> None:
    """Raise InputError where one pickle names what is no part of a tensor, or is no tree of modest size."""
    start = file.tell()
    top_is_tuple, kept = False, set[int]()
    for code, argument, place in pickletools.genops(file):
        if place is not None and place - start > LARGEST:
            raise _more(path)
        if code.name == "GLOBAL" and not _known(str(argument)):
            raise _more(path)
        if code.name in PUTS and top_is_tuple:
            kept.add(int(argument or 0))
        # A tuple that is taken up again and again is one that takes for ever to hash.
        if code.name in GETS and argument in kept:
            raise _more(path)
        if code.name not in (*PUTS, "PROTO"):
            top_is_tuple = code.name in TUPLES


def _known(name: str) -> bool:
    module, _, leaf = name.rpartition(" ")
    return name in GLOBALS or (module == "torch" and (leaf.endswith("Storage") or leaf.startswith(CONSTANTS)))
