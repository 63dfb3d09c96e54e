"""Run one model file and say what it took: the one script for this host, an emulated core and a phone.

`python guest.py job.json`, in its own process. It needs the standard library, numpy and the file's runtime, nothing of
edgebert, so that it can be copied to where the runtime is. The job is a JSON object:

    model, runtime   path of the file; tflite, onnx or executorch
    result           path of the JSON file to write
    inputs           an .npz, one array an input, or a bundle's golden.npz; null for made-up inputs
    length           for axes of free size, and to choose among signatures; null for the file's longest
    warmup, runs     runs before those that count, the very first one told apart; runs that count
    threads          of the runtime's pool
    mark             tell the executable memory's maps, for the block counter
    affinity         numbers of the cores to run on, or null
    outputs          an .npz to write with what the model answered to all the given inputs, or null
    options          session options of ONNX Runtime, text to text
    rows             input whose numbers are rows of a table to how many that has
    patience         seconds until the first run must be done, or null; SIGALRM ends this process then
    memory           bytes that this process may take, or null

The result holds `error` and its `kind` (input, missing), or: load_ns, first_ns, steady_ns (one a run), peak_bytes,
inputs and outputs ([name, dtype, shape]), entry (signature or method), versions, machine, maps ([start, end, offset,
path]). The runs that count stand between two marker system calls, which a block counter sees.
"""

import contextlib
import ctypes
import glob
import importlib
import importlib.machinery
import json
import os
import platform
import re
import signal
import sys
import time
import types
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]
Specs = list[tuple[str, str, list[int]]]  # name, dtype and shape of each input; -1 is a free axis
Job = dict[str, Any]

# Marker arguments of getpgid, a system call that changes nothing; no process has such a number.
MARK_START, MARK_END = 0x45444201, 0x45444202

# ExecuTorch's numbers of dtypes, see runtime/core/portable_type/scalar_type.h there.
SCALARS = ("uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64", "", "", "", "bool")
DEFAULT_LENGTH = 128
# Names that say nothing: those of converters from torch and TensorFlow, and of files without names.
UNNAMED = re.compile(r"(serving_default_)?(input|inputs|arg|args|x|input_tensor)[_.]?[0-9]*(:0)?")
TYPES = 4  # a table of so few rows is of token types
# Inputs of rows of several texts, and how the key of an entry point for them begins.
TEXTS, PACKED = {"input_ids", "segment_ids"}, "packed_"


class GuestError(Exception):
    """The file cannot be run as asked; the message says why."""


class _Tflite:
    """LiteRT's interpreter, by a signature where the file has one."""

    package = "ai-edge-litert"
    largest_sizes = False  # whether the file tells a free axis by its largest size

    def __init__(self, job: Job) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError:
            from tflite_runtime.interpreter import Interpreter

            self.package = "tflite-runtime"
        self._job, self._open = job, Interpreter
        self._texts = bool(job["inputs"]) and names_in(job["inputs"]) == TEXTS
        self._shapes: list[tuple[int, ...]] = []

    def load(self) -> None:
        self._interpreter = self._open(model_path=self._job["model"], num_threads=self._job["threads"])
        runners = {key: self._interpreter.get_signature_runner(key) for key in self._interpreter.get_signature_list()}
        # An entry point for rows of several texts is meant where its inputs were given; another maker's file has none.
        rows = {key for key, r in runners.items() if key.startswith(PACKED) and set(r.get_input_details()) == TEXTS}
        meant = rows if rows and self._texts else runners.keys() - rows
        runners = {key: r for key, r in runners.items() if key in meant}
        sizes = {key: length_of(d["shape"] for d in r.get_input_details().values()) for key, r in runners.items()}
        self.entry = nearest(sizes, self._job["length"]) if sizes else None
        self._runner = runners.get(self.entry)
        details = self._runner.get_input_details().values() if self._runner else self._interpreter.get_input_details()
        names = self._runner.get_input_details() if self._runner else [d["name"] for d in details]
        self._inputs = dict(zip(names, details, strict=True))

    def inputs(self) -> Specs:
        found = []
        for name, detail in self._inputs.items():
            free = detail.get("shape_signature", ())
            shape = free if len(free) else detail["shape"]
            found.append((name, np.dtype(detail["dtype"]).name, [int(size) for size in shape]))
        return found

    def run(self, row: Arrays) -> Any:
        if self._runner is not None:
            return self._runner(**row)  # it takes shapes as they come
        if self._shapes != (shapes := [value.shape for value in row.values()]):
            for name, detail in self._inputs.items():
                self._interpreter.resize_tensor_input(detail["index"], row[name].shape)
            self._interpreter.allocate_tensors()
            self._shapes = shapes
        for name, detail in self._inputs.items():
            self._interpreter.set_tensor(detail["index"], row[name])
        self._interpreter.invoke()
        return {d["name"]: self._interpreter.get_tensor(d["index"]) for d in self._interpreter.get_output_details()}


class _Onnx:
    """ONNX Runtime on the CPU."""

    package, entry = "onnxruntime", None
    largest_sizes = False

    def __init__(self, job: Job) -> None:
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # its thread would be timed and counted, and it calls home
        self._library, self._job, self._by_choice = importlib.import_module("onnxruntime"), job, False

    def load(self) -> None:
        options = self._library.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self._job["threads"], 1
        options.log_severity_level = 4
        for key, value in self._job["options"].items():
            options.add_session_config_entry(key, value)
        self._session = self._library.InferenceSession(self._job["model"], options, providers=["CPUExecutionProvider"])
        self._names = [output.name for output in self._session.get_outputs()]

    def inputs(self) -> Specs:
        found = []
        for spec in self._session.get_inputs():
            kind = {"float": "float32", "double": "float64"}.get(inner := spec.type[7:-1], inner)
            shape = [size if isinstance(size, int) else -1 for size in spec.shape]
            if shape == [-1, -1, -1] and np.dtype(kind).kind == "i":  # ids of choices, of which a row is one
                self._by_choice, shape = True, shape[1:]
            found.append((spec.name, np.dtype(kind).name, shape))
        return found

    def run(self, row: Arrays) -> Arrays:
        given = {name: value[:, None] for name, value in row.items()} if self._by_choice else row
        return dict(zip(self._names, self._session.run(self._names, given), strict=True))


class _Executorch:
    """ExecuTorch's bindings, without torch's Python side: its import takes most of a minute on an emulated core."""

    package = "executorch"
    largest_sizes = True

    def __init__(self, job: Job) -> None:
        self._job, self._tensor, self._library = job, bare_torch(), bindings()

    def load(self) -> None:
        self._library._unsafe_reset_threadpool(self._job["threads"])
        self._module = self._library._load_for_executorch(self._job["model"])
        self._metas = {name: self._module.method_meta(name) for name in self._module.method_names()}
        # Methods without inputs are constants that describe the file.
        sizes = {name: length_of(s for _, _, s in self._specs(name)) for name in self._metas if self._specs(name)}
        form = "forward_half" if "forward_half" in sizes and "asimdhp" in machine().get("features", "") else "forward"
        # Of a file with a method for each length `forward_32` and its like; of another maker's, whatever it has.
        mine = {name: size for name, size in sizes.items() if name in (form, f"{form}_{size}")}
        self._base = nearest(mine or sizes, self._job["length"])
        if "fixed_lengths" in self._metas:  # its methods take rows of their own length, and no shorter ones
            self._job["length"] = sizes[self._base]
        # Where local layers cost less in blocks, long texts have a method of their own.
        told = self._module.run_method("long_texts", [])[0] if "long_texts" in self._metas else "1,0"
        first, last = map(int, told.split(","))
        self._long, self._long_form = range(first, last + 1), f"{form}_long"
        self.entry = self._method(self._job["length"] or sizes[self._base])

    def _method(self, tokens: int) -> str:
        return self._long_form if tokens in self._long else self._base

    def _specs(self, method: str) -> Specs:
        tensors = [self._metas[method].input_tensor_meta(i) for i in range(self._metas[method].num_inputs())]
        return [(f"input_{i}", SCALARS[tensor.dtype()], list(tensor.sizes())) for i, tensor in enumerate(tensors)]

    def inputs(self) -> Specs:
        return self._specs(self._base)

    def run(self, row: Arrays) -> Arrays:
        method = self._method(length_of(value.shape for value in row.values()))
        outputs = self._module.run_method(method, [self._tensor(value) for value in row.values()])
        return {f"output_{i}": o.numpy() if hasattr(o, "numpy") else np.asarray(o) for i, o in enumerate(outputs)}


RUNTIMES: dict[str, Any] = {"tflite": _Tflite, "onnx": _Onnx, "executorch": _Executorch}


def bare_torch() -> Any:
    """Load torch's libraries without its Python side, and give the function that makes a tensor of an array.

    ExecuTorch's bindings know `torch.Tensor` by its name; a class over the C++ base, made known to the libraries under
    the variable that torch itself sets, is all they ask of Python.
    """
    folder, stub = places("torch")[0], types.ModuleType("torch")
    stub.__path__ = [folder]
    sys.modules["torch"] = stub
    native = importlib.import_module("torch._C")
    tensor = type("Tensor", (native.TensorBase,), {"__module__": "torch"})
    stub.__dict__["Tensor"] = tensor
    library = ctypes.CDLL(glob.glob(os.path.join(folder, "lib", "*torch_python.*"))[0])
    ctypes.c_void_p.in_dll(library, "THPVariableClass").value = id(tensor)
    return native._VariableFunctions.from_numpy


def bindings() -> Any:
    """ExecuTorch's extension module and quantized kernels: the packages above them import the whole exporter."""
    place = places("executorch")[0]
    sys.path.insert(0, os.path.join(place, "extension", "pybindings"))
    module = importlib.import_module("_portable_lib")
    for library in glob.glob(os.path.join(place, "kernels", "quantized", "*quantized_ops_aot_lib.*")):
        ctypes.CDLL(library)  # its kernels register themselves
    return module


def places(package: str) -> list[str]:
    """The folders of a package, without importing it."""
    found = importlib.machinery.PathFinder.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ImportError(f"{package} is not installed")
    return list(found.submodule_search_locations)


def length_of(shapes: Any) -> int:
    """The token axis: axis 1 of the first shape of rank 2, 0 where there is none."""
    return next((int(shape[1]) for shape in shapes if len(shape) == 2), 0)


def nearest(sizes: dict[str, int], length: int | None) -> str:
    """The key of the smallest size that holds `length`, of the greatest where none was asked; 0 and 1 stand for any."""
    if not sizes:
        raise GuestError("the file has nothing that takes inputs")
    if length is None:
        return max(sizes, key=lambda key: sizes[key])
    fitting = {key: size for key, size in sizes.items() if size >= length or size <= 1}
    if not fitting:
        raise GuestError(f"length {length}; the file takes at most {max(sizes.values())}")
    return min(fitting, key=lambda key: (fitting[key] <= 1, fitting[key]))


def make_inputs(specs: Specs, job: Job) -> Arrays:
    """Inputs by dtype, name and table: small ids, a mask of ones, positions in order, types of zeros, floats to 1."""
    rng, row = np.random.default_rng(0), {}
    tables, whole = job["rows"], [name for name, dtype, _ in specs if np.dtype(dtype).kind in "iu"]
    most = max(tables.values(), default=0)
    length = job["length"] or DEFAULT_LENGTH
    job["guessed"] = not job["length"] and any(size < 0 for _, _, shape in specs for size in shape[1:])
    for name, dtype, shape in specs:
        # A free first axis is the batch, of one; any other is as long as was asked for.
        sizes = [size if size >= 0 else 1 if axis == 0 else length for axis, size in enumerate(shape)]
        if RUNTIMES[job["runtime"]].largest_sizes and job["length"] and len(sizes) == 2:
            sizes[1] = min(sizes[1], length)
        # Where tables are known, whole numbers that no table takes are a mask. Else names that say nothing go by place.
        place = whole.index(name) if name in whole and UNNAMED.fullmatch(name) else -1
        rows = tables.get(name, 0)
        values: np.ndarray = rng.integers(0, min(16, rows or 16), sizes)
        if np.dtype(dtype).kind not in "iub":
            values = rng.uniform(-1, 1, sizes)
        elif dtype == "bool" or "mask" in name:
            values = np.ones(sizes)
        elif "type" in name or "segment" in name or 0 < rows <= TYPES or (place > 1 and not most):
            values = np.zeros(sizes)
        elif "position" in name or 0 < rows < most:
            last = sizes[-1] if sizes else 1
            values = np.broadcast_to(np.arange(last) % max(rows or last, 1), sizes)
        elif (most and not rows) or (place == 1 and not most):
            values = np.ones(sizes)
        row[name] = values.astype(dtype)
    return row


def names_in(inputs: str) -> set[str]:
    """The names of the inputs in a file of them."""
    with np.load(inputs, allow_pickle=False) as file:
        return {key.rpartition("/in/")[2] for key in file.files if "/out/" not in key and "damaged/" not in key}


def read_cases(specs: Specs, job: Job) -> dict[str, Arrays]:
    """The given inputs, case to arrays by the file's names; what has no name there is taken in its order.

    A bundle's golden.npz has the arrays of a case under `<case>/in/<name>`; any other file is one case, `""`.
    """
    with np.load(job["inputs"], allow_pickle=False) as file:
        flat = {key: file[key] for key in file.files}
    golden = [key for key in flat if "/in/" in key]
    cases: dict[str, Arrays] = {} if golden else {"": flat}
    for key in golden:
        case, _, name = key.partition("/in/")
        cases.setdefault(case, {})[name] = flat[key]
    names = [name for name, _, _ in specs]
    for case, arrays in cases.items():
        if len(arrays) != len(names):
            raise GuestError(f"inputs {sorted(arrays)} were given; the file takes {names}")
        named = arrays if set(arrays) == set(names) else dict(zip(names, arrays.values(), strict=True))
        cases[case] = {name: np.ascontiguousarray(named[name].astype(dtype)) for name, dtype, _ in specs}
    return cases


def batches(specs: Specs, arrays: Arrays, job: Job) -> Iterator[Arrays]:
    """The arrays row by row, or as many rows at once as the file is fixed to."""
    fixed = max([1, *(shape[0] for _, _, shape in specs if shape)])
    for i in range(0, max(len(np.atleast_1d(value)) for value in arrays.values()), fixed):
        row = {name: value[i : i + fixed] if value.ndim else value for name, value in arrays.items()}
        yield row if RUNTIMES[job["runtime"]].largest_sizes else padded(specs, row)


def padded(specs: Specs, row: Arrays) -> Arrays:
    """Rows at the lengths of the file: zeros on the right where an axis is fixed and longer."""
    out = {}
    for name, _, shape in specs:
        have = row[name].shape
        more = [size - had if size >= 0 else 0 for size, had in zip(shape, have, strict=len(shape) == len(have))]
        if len(shape) != len(have) or min(more, default=0) < 0:
            raise GuestError(f"{name} is {list(have)}; the file takes {shape}")
        out[name] = np.pad(row[name], [(0, size) for size in more]) if any(more) else row[name]
    return out


def check_rows(given: Arrays, tables: dict[str, int]) -> None:
    """Refuse numbers of rows that a table has not: runtimes answer something, or crash."""
    for name, rows in tables.items():
        if name in given and given[name].size and not 0 <= int(given[name].min()) <= int(given[name].max()) < rows:
            least, most = int(given[name].min()), int(given[name].max())
            raise GuestError(f"{name} has numbers from {least} to {most}; it is looked up in a table of {rows} rows")


def choose(specs: Specs, cases: dict[str, Arrays], job: Job) -> Arrays:
    """The row that is timed: the first of the case as long as asked, or of the longest, or a made-up one."""
    if not cases:
        return make_inputs(specs, job)
    sizes = {case: length_of(value.shape for value in arrays.values()) for case, arrays in cases.items()}
    return next(batches(specs, cases[nearest(sizes, job["length"])], job))


def answers(model: Any, specs: Specs, cases: dict[str, Arrays], job: Job) -> Arrays:
    """What the model answers to all cases that fit it, at its own length, by `<case>/out/<name>` or `<name>`."""
    out, longest = {}, length_of(shape for _, _, shape in specs)
    for case, arrays in cases.items():
        if 1 < longest < length_of(value.shape for value in arrays.values()):
            continue  # for a longer signature of the same file
        rows = [{k: np.array(v) for k, v in model.run(row).items()} for row in batches(specs, arrays, job)]
        for name in rows[0]:
            out[f"{case}/out/{name}" if case else name] = np.concatenate([row[name] for row in rows])
    return out


def timed(call: Any, *arguments: Any) -> tuple[Any, int]:
    """What a call gives, and the nanoseconds it took."""
    start = time.perf_counter_ns()
    value = call(*arguments)
    return value, time.perf_counter_ns() - start


def mark(number: int) -> None:
    """Tell the block counter where the counted region starts or ends; elsewhere this asks for no process' group."""
    with contextlib.suppress(OSError):
        os.getpgid(number)


def peak_bytes() -> int:
    """The most memory this process held at once; an emulator's own is in it where there is one."""
    with contextlib.suppress(OSError), open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def machine() -> dict[str, Any]:
    """What this machine tells of itself."""
    facts: dict[str, Any] = {"machine": platform.machine(), "system": platform.system(), "cores": os.cpu_count()}
    if hasattr(os, "sched_getaffinity"):
        facts["affinity"] = sorted(os.sched_getaffinity(0))
    told: dict[str, str] = {}
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in file)}
    wanted = {"model name": "cpu", "CPU implementer": "implementer", "CPU part": "part", "Features": "features"}
    return facts | {name: told[key] for key, name in wanted.items() if key in told}


def maps() -> list[list[Any]]:
    """Start, end, offset and path of the executable memory that comes from files."""
    found = []
    with open("/proc/self/maps") as file:
        for span, access, offset, _, _, *path in (line.split(None, 5) for line in file):
            if "x" in access and path and path[0].startswith("/"):
                start, end = (int(number, 16) for number in span.split("-"))
                found.append([start, end, int(offset, 16), path[0].strip()])
    return found


def work(job: Job) -> dict[str, Any]:
    """Load, warm up, run, and tell."""
    if job["affinity"]:
        os.sched_setaffinity(0, job["affinity"])
    model: Any = RUNTIMES[job["runtime"]](job)
    if job["patience"] and hasattr(signal, "alarm"):
        signal.alarm(job["patience"])  # by its default action, which native code that never ends does not hold up
    if job["memory"]:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (job["memory"], job["memory"]))
    _, load_ns = timed(model.load)
    specs = model.inputs()
    cases = read_cases(specs, job) if job["inputs"] else {}
    row = choose(specs, cases, job)
    for given in (*cases.values(), row):
        check_rows(given, job["rows"])
    outputs, first_ns = timed(model.run, row)
    if job["patience"] and hasattr(signal, "alarm"):
        signal.alarm(0)
    described = [[name, str(np.asarray(value).dtype), list(np.shape(value))] for name, value in outputs.items()]
    for _ in range(job["warmup"] - 1):
        model.run(row)
    where = maps() if job["mark"] else []
    mark(MARK_START)
    steady = [timed(model.run, row)[1] for _ in range(job["runs"])]
    mark(MARK_END)
    versions = {"python": platform.python_version(), "numpy": np.__version__}
    with contextlib.suppress(PackageNotFoundError):
        versions[model.package] = version(model.package)
    if job["outputs"]:
        np.savez(job["outputs"], **answers(model, specs, cases or {"": row}, job))  # type: ignore[arg-type]
    return {
        "load_ns": load_ns,
        "first_ns": first_ns,
        "steady_ns": steady,
        "peak_bytes": peak_bytes(),
        "entry": model.entry,
        "inputs": [[name, str(value.dtype), list(value.shape)] for name, value in row.items()],
        "outputs": described,
        "versions": versions,
        "machine": machine(),
        "maps": where,
    }


def main(path: str) -> int:
    """Carry out the job in a JSON file; exit code 0, or 2 with an `error` in the result."""
    with open(path) as file:
        job = {"inputs": None, "length": None, "warmup": 1, "runs": 1, "threads": 1, "mark": False, "outputs": None,
               "affinity": None, "options": {}, "rows": {}, "patience": None,
               "memory": None} | json.load(file)  # fmt: skip
    try:
        result = work(job)
    except ImportError as error:
        result = {"error": f"the runtime {job['runtime']} is not usable: {error}", "kind": "missing"}
    except GuestError as error:
        result = {"error": str(error), "kind": "input"}
    except Exception as error:  # the runtimes' own exceptions share no base class; each is told, none is hidden
        guess = f" (axes of free size were {DEFAULT_LENGTH} long: say a length)" if job.get("guessed") else ""
        result = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:400]}{guess}", "kind": "input"}
    with open(job["result"], "w") as file:
        json.dump(result, file)
    return 2 if "error" in result else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
