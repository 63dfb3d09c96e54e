"""Run an .onnx file with ONNX Runtime's own profiler, in a process of its own: `python trace.py job.json`.

The job is the guest script's, and so is everything that is done here but turning the profiler on. The result's `trace`
is the path of the profiler's JSON.
"""

import importlib.util
import json
import os
import sys
import types
from typing import Any


def main(path: str) -> int:
    """Carry out the job with the profiler on; the exit code is the guest script's."""
    spec = importlib.util.spec_from_file_location("guest", os.path.join(os.path.dirname(__file__), "guest.py"))
    assert spec is not None
    assert spec.loader is not None
    guest: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(guest)
    with open(path) as file:
        job = json.load(file)
    opened: list[Any] = []

    class Traced(guest._Onnx):  # type: ignore[misc]
        """The guest's runtime, its options with the profiler."""

        def __init__(self, asked: Any) -> None:
            super().__init__(asked)
            library: Any = sys.modules["onnxruntime"]
            self._options = library.SessionOptions
            self._library = types.SimpleNamespace(
                InferenceSession=library.InferenceSession, SessionOptions=self._traced
            )
            opened.append(self)

        def _traced(self) -> Any:
            options = self._options()
            options.enable_profiling, options.profile_file_prefix = True, job["result"]
            return options

    guest.RUNTIMES["onnx"] = Traced
    code: int = guest.main(path)
    if code == 0:
        with open(job["result"]) as file:
            result = json.load(file)
        result["trace"] = opened[0]._session.end_profiling()
        with open(job["result"], "w") as file:
            json.dump(result, file)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
