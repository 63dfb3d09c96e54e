"""Open one model file in this process, run it once, and say what that took: `python peers_start.py job.json`.

A process of its own for each start, on one core: what is loaded once in a process would be paid by the first file
alone. The runtimes are driven by the guest script that devices run; a `cache` in the job has LiteRT's compiled model
do it instead, which can keep XNNPACK's packed weights: in memory (`:memory:`) or in a file.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from peers_race import load


class Compiled:
    """LiteRT's compiled model with XNNPACK's weight cache, in the place of the guest script's interpreter."""

    def __init__(self, job: dict[str, Any]) -> None:
        from ai_edge_litert import compiled_model, hardware_accelerator, options

        self._job, self._open = job, compiled_model.CompiledModel.from_file
        on_cpu = options.CpuOptions(num_threads=job["threads"], xnnpack_weight_cache_path=job["cache"])
        self._options = options.Options(hardware_accelerator.HardwareAccelerator.CPU, on_cpu)

    def load(self) -> None:
        """Open the file, and take the signature of the greatest length."""
        self._model = self._open(self._job["model"], options=self._options)
        details = {key: self._model.get_input_tensor_details(key) for key in self._model.get_signature_list()}
        self._key = max(details, key=lambda key: max(np.prod(one["shape"]) for one in details[key].values()))
        names, self._details = self._model.get_signature_list()[self._key], details[self._key]
        self._buffers = [
            {name: make(self._key, name) for name in names[side]}
            for side, make in (
                ("inputs", self._model.create_input_buffer_by_name),
                ("outputs", self._model.create_output_buffer_by_name),
            )
        ]

    def inputs(self) -> list[tuple[str, str, list[int]]]:
        """Name, dtype and shape of each input."""
        return [(name, np.dtype(one["dtype"]).name, list(one["shape"])) for name, one in self._details.items()]

    def run(self, row: dict[str, np.ndarray]) -> None:
        """One inference; its answer stays in the buffers."""
        for name, value in row.items():
            self._buffers[0][name].write(value)
        self._model.run_by_name(self._key, *self._buffers)


def own_bytes() -> int:
    """What this process holds that is in no file: the system cannot drop it and read it again."""
    with open("/proc/self/status") as file:
        told = dict(line.split(":", 1) for line in file)
    return sum(int(told[key].split()[0]) * 1024 for key in ("RssAnon", "RssShmem"))


def mapped_bytes(paths: list[Path]) -> int:
    """The pages of some files that stand in memory because this process mapped and read them."""
    names, total, ours = [str(path.resolve()) for path in paths], 0, False
    with open("/proc/self/smaps") as file:
        for line in file:
            head, *rest = line.split(None, 5)
            if not head.endswith(":"):
                ours = bool(rest) and rest[-1].strip() in names
            elif ours and head == "Rss:":
                total += int(rest[0]) * 1024
    return total


def start(guest: Any, job: dict[str, Any]) -> dict[str, float]:
    """Open a file and run it once: milliseconds of both, and MB that it takes from then on."""
    model = Compiled(job) if job.get("cache") else guest.RUNTIMES[job["runtime"]](job)
    before = own_bytes()
    _, load_ns = guest.timed(model.load)
    specs = model.inputs()
    row = guest.choose(specs, guest.read_cases(specs, job) if job["inputs"] else {}, job)
    _, first_ns = guest.timed(model.run, row)
    path = Path(job["model"])
    beside = (path.with_name(f"{path.name}{end}") for end in (".data", "_data"))
    files = [path, *beside, Path(job.get("cache") or path)]
    return {
        "load_ms": load_ns / 1e6,
        "first_ms": first_ns / 1e6,
        "start_ms": (load_ns + first_ns) / 1e6,
        "own_mb": (own_bytes() - before) / 1e6,
        "mapped_mb": mapped_bytes(files) / 1e6,
    }


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text())
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    Path(given["result"]).write_text(json.dumps(start(load(given["guest"]), given["job"])))
