"""ExecuTorch files in their own runtime, through its Python bindings, with XNNPACK and the quantized kernels.

Only a file whose seal holds is handed to the runtime's C++, which takes a file's numbers on trust; of any other .pte
file facts are told, and it is not run. The bindings are imported by themselves: `executorch.runtime` brings the whole
exporter with it.
"""

import contextlib
import importlib.util
import io
import os
import sys
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from edgebert.errors import InputError
from edgebert.models.signature import INPUTS, Arrays
from edgebert.runtimes.devices.guest.guest import machine
from edgebert.runtimes.executorch import program
from edgebert.runtimes.executorch.program import FLOAT, HALF
from edgebert.runtimes.session import WHOLE, Delegation, Facts, refuse_edited, run_rows

# Why an operator of ours, or one that other files have often, is not XNNPACK's.
REASONS = {
    "aten::embedding": "XNNPACK looks nothing up",
    "quantized_decomposed::embedding_byte": "XNNPACK looks nothing up",
    "quantized_decomposed::embedding_4bit": "XNNPACK looks nothing up",
    "dim_order_ops::_to_dim_order_copy": "XNNPACK takes no integers from outside",
    "aten::slice_copy": "XNNPACK slices no axis of free size",
    "aten::sym_size": "a size is no tensor",
    "aten::native_layer_norm": "the converter does not offer norms to XNNPACK",
}


def missing() -> str | None:
    """The command that installs the runtime, None when it is there."""
    found = all(importlib.util.find_spec(name) for name in ("executorch", "flatbuffers"))
    return None if found else 'pip install "edgebert[executorch]"'


def open(path: Path, threads: int = 1) -> "ExecutorchSession":
    """Open a .pte file.

    Args:
        path: the file.
        threads: of XNNPACK's pool, which the whole process shares: the first session that runs decides.

    Raises:
        InputError: the file is not a whole .pte file, or was edited since edgebert made it.
    """
    checked = _stamp(path)
    data, contents = program.load(path)
    refuse_edited(path, contents.seal)
    return ExecutorchSession(path, checked, contents, _facts(len(data), contents), threads)


def facts(path: Path) -> Facts:
    """What a .pte file holds, and how much of its arithmetic XNNPACK does.

    Raises:
        InputError: the file is not a whole .pte file.
    """
    data, contents = program.load(path)
    return _facts(len(data), contents)


def load_bindings() -> Any:
    """The runtime's Python side, with the kernels for 8-bit tables."""
    import torch
    from executorch.extension.pybindings import _portable_lib as bindings

    torch.ops.load_library(_kernels())  # type: ignore[no-untyped-call]
    return bindings


# Sessions whose graphs are built.
RUNNING: "weakref.WeakSet[ExecutorchSession]" = weakref.WeakSet()


class ExecutorchSession:
    """An open .pte file; the runtime is loaded when the first input comes.

    The runtime maps the file by itself. Given its bytes instead, it answers as fast, but SqueezeBERT-base in int8 takes
    90 MB of the process' own memory after the first answer; mapped 41, and 22 more that are pages of the file.
    """

    def __init__(
        self, path: Path, checked: tuple[int, ...], contents: program.Contents, facts: Facts, threads: int
    ) -> None:
        self._path = path
        self._facts = facts
        self._checked = checked
        self._contents = contents
        self._threads = threads
        self._module: Any = None
        ours = contents.seal == WHOLE and {spec.name for spec in contents.inputs} == set(INPUTS)
        self._lengths = contents.lengths if ours else ()
        # Linux's name for ARM's half-precision arithmetic; where nothing tells of it, the other form is right too.
        halves = "asimdhp" in machine().get("features", "")
        self._form = HALF if halves and HALF in contents.methods else FLOAT

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """Answer a batch, row by row, at the length it comes in, or at the next of a file that has some alone.

        Raises:
            InputError: the inputs are not usable, an id lies outside its table, or edgebert did not make the file.
        """
        if not self._lengths:
            names = ", ".join(f"{s.name} {s.dtype} {s.shape}" for s in self._contents.inputs)
            raise InputError(f"{self._path}: takes {names}; only a file that edgebert made can be run.")
        self._check_ids(inputs)
        return run_rows(inputs, self._lengths, self._run_row)

    def _check_ids(self, inputs: Mapping[str, np.ndarray]) -> None:
        """The kernel that looks ids up ends the process at one outside its table."""
        for name, key in (("input_ids", "get_vocab_size"), ("token_type_ids", "get_type_vocab_size")):
            size = int(self._contents.metadata[key])
            ids = inputs.get(name)
            if ids is not None and ids.size and (ids.min() < 0 or ids.max() >= size):
                raise InputError(f"{name} from {ids.min()} to {ids.max()}; they must be from 0 to {size - 1}.")

    def _run_row(self, row: Arrays) -> Arrays:
        """Run one row."""
        import torch

        module = self._loaded()
        tensors = [torch.from_numpy(np.ascontiguousarray(row[name])) for name in INPUTS]
        method = self._contents.method_for(self._form, tensors[0].shape[1])
        try:
            with _hushed():
                answers = module.run_method(method, tensors)
        except RuntimeError as error:
            raise InputError(f"{self._path}: ExecuTorch refused the input: {_first_line(error)}") from error
        names = [spec.name for spec in self._contents.outputs]
        return {name: answer.numpy() for name, answer in zip(names, answers, strict=True)}

    def _loaded(self) -> Any:
        """The runtime's module, made at the first call."""
        if self._module is None:
            bindings = load_bindings()
            if _stamp(self._path) != self._checked:
                raise InputError(f"{self._path}: it has changed since it was opened; open it again.")
            try:
                with _hushed():
                    # A graph keeps the pool it was built with: a new one would pull it from under an open session.
                    if not RUNNING and bindings._threadpool_get_thread_count() != self._threads:
                        bindings._unsafe_reset_threadpool(self._threads)
                    self._module = bindings._load_for_executorch(str(self._path))
                RUNNING.add(self)
            except RuntimeError as error:
                raise InputError(f"{self._path}: ExecuTorch does not open it: {_first_line(error)}") from error
        return self._module

    def facts(self) -> Facts:
        """What the file holds, and how much of its arithmetic XNNPACK does."""
        return self._facts

    def close(self) -> None:
        """Free the module, and with it the file's map."""
        RUNNING.discard(self)
        self._module = None
        self._lengths = ()


def _facts(size: int, contents: program.Contents) -> Facts:
    """What stands in a file; no native code has a part in it."""
    ops = Counter([*contents.nodes, *contents.kernels])
    return Facts(
        runtime=f"executorch {version('executorch')}",
        file_bytes=size,
        inputs=contents.inputs,
        outputs=contents.outputs,
        lengths=contents.fixed,
        ops=dict(ops.most_common()),
        nodes=sum(ops.values()),
        weights=contents.weights,
        metadata=contents.metadata,
        delegation=_delegation(contents),
        seal=contents.seal,
        rows=contents.rows,
    )


def _delegation(contents: program.Contents) -> Delegation | None:
    """What XNNPACK takes; None where another backend has a part, for what is in that cannot be read here."""
    if contents.other:
        return None
    rest = dict(Counter(contents.kernels).most_common())
    return Delegation(
        backend="XNNPACK",
        nodes=len(contents.nodes) + len(contents.kernels),
        taken=len(contents.nodes),
        macs=sum(contents.macs),
        taken_macs=contents.macs[1],
        rest=rest,
        reasons={name: REASONS[name] for name in rest if name in REASONS},
    )


def _stamp(path: Path) -> tuple[int, ...]:
    """What tells a file that was replaced or written to since; empty where there is none, which reading it tells."""
    try:
        told = path.stat()
    except OSError:
        return ()
    return told.st_ino, told.st_size, told.st_mtime_ns


def _kernels() -> Path:
    """The library with the kernels of quantized operators, which registers them when it is loaded."""
    spec = importlib.util.find_spec("executorch")
    folders = (
        [Path(folder) / "kernels" / "quantized" for folder in spec.submodule_search_locations or ()] if spec else []
    )
    return next(path for folder in folders for path in folder.glob("*quantized_ops_aot_lib.*"))


def _first_line(error: BaseException) -> str:
    """The first line of what an error says, or its kind."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Keep what C++ writes to standard error from the terminal; errors come as exceptions.

    The bindings send a part of it through Python's own stream, and a part past it.
    """
    sys.stderr.flush()
    kept, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(sink)
