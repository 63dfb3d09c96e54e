"""Files that edgebert did not make, with graphs that nothing can run: an error in one line or the truth, and no more.

They are looked at, and run on this host, in a process of its own with a limit of memory: a crash is seen as what it is.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import wrong
from tiers import quick

from edgebert.api import inspect
from edgebert.runtimes import RUNTIMES, SUFFIXES

pytestmark = pytest.mark.parity

TARGETS = [
    pytest.param(target, marks=pytest.mark.skipif(RUNTIMES[target].missing() is not None, reason=f"needs {target}"))
    for target in RUNTIMES
]
RUN_HERE = TARGETS[:2] + TARGETS[3:]  # Core ML runs on Apple's devices
SCRAMBLED = 200  # of each format
SECONDS = 900  # for all files of a test

CHILD = """
import json, resource, sys, time
resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))
from edgebert import api
from edgebert.errors import EdgebertError
look = {"inspect": lambda path: api.inspect(path).facts.nodes, "profile": lambda path: api.profile([path], runs=1)}
for path in sys.stdin.read().splitlines():
    began = time.monotonic()
    try:
        look[sys.argv[1]](path)
        said = ""
    except EdgebertError as error:
        said = f"{error.exit_code} {error}"
    print(json.dumps([path, said, time.monotonic() - began]), flush=True)
"""


def outcomes(verb: str, files: list[Path]) -> dict[Path, str]:
    """What each file came to: its error, or nothing."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, verb], input="\n".join(map(str, files)), capture_output=True, text=True,
        timeout=SECONDS, check=False,
    )  # fmt: skip
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert (done.returncode, [Path(path) for path, *_ in rows]) == (0, files), done.stderr[-2000:]
    for _, said, seconds in rows:
        assert seconds < 25, said
        assert "\n" not in said
        assert not said or said.startswith("2 ")
    return {Path(path): said for path, said, _ in rows}


def base(target: str, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return wrong.make(target, folder / f"right{SUFFIXES[target]}")


def named(target: str, folder: Path) -> dict[str, Path]:
    """The wrong graphs that have a name, each in a file."""
    right = base(target, folder)
    return {
        what: wrong.change(target, right, folder / f"{i}{SUFFIXES[target]}", how)
        for i, (what, how) in enumerate(wrong.CASES[target].items())
    }


def scrambled(target: str, folder: Path, seeds: range) -> list[Path]:
    """Files with random changes, one for each seed."""
    right = base(target, folder / "whole")
    return [wrong.scramble(target, right, folder / f"seed-{i}{SUFFIXES[target]}", i) for i in seeds]


@pytest.mark.parametrize("target", TARGETS)
def test_a_wrong_graph_is_refused_in_one_line_or_told_as_it_stands(target: str, tmp_path: Path) -> None:
    files = named(target, tmp_path)
    found = outcomes("inspect", [*files.values(), *scrambled(target, tmp_path, range(8))])
    refused = {what for what, path in files.items() if found[path]}
    assert {what for what in files if "range" in what or what == "an unknown type"} - {"memory out of range"} <= refused
    if target != "coreml":  # whose operators' parameters are looked at when one is evaluated
        assert "an operator without inputs" in refused
    right = inspect(tmp_path / f"right{SUFFIXES[target]}").facts
    assert right.seal is None
    assert right.nodes == {"tflite": 1, "onnx": 3, "executorch": 1, "coreml": 1}[target]


@pytest.mark.parametrize("target", quick([p.values[0] for p in RUN_HERE], ["tflite"]))
def test_a_wrong_graph_is_not_run_on_this_host(target: str, tmp_path: Path) -> None:
    if RUNTIMES[target].missing():
        pytest.skip(f"needs {target}")
    files = named(target, tmp_path)
    if target == "tflite":
        files.pop("options of another operator")  # which this one has no use for
    found = outcomes("profile", list(files.values()))
    assert all(found.values())
    right = tmp_path / f"right{SUFFIXES[target]}"
    assert outcomes("profile", [right]) == {right: ""}


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_a_scrambled_graph_is_refused_in_one_line_or_told(target: str, tmp_path: Path) -> None:
    found = outcomes("inspect", scrambled(target, tmp_path, range(SCRAMBLED)))
    assert any(found.values())


@pytest.mark.slow
@pytest.mark.parametrize("target", RUN_HERE)
def test_a_scrambled_graph_is_refused_in_one_line_or_run(target: str, tmp_path: Path) -> None:
    found = outcomes("profile", scrambled(target, tmp_path, range(SCRAMBLED, SCRAMBLED * 3 // 2)))
    assert any(found.values())


@pytest.mark.slow
@pytest.mark.skipif(RUNTIMES["tflite"].missing() is not None, reason="needs tflite")
@pytest.mark.parametrize("verb", ["inspect", "profile"])
def test_every_operator_in_the_place_of_another(verb: str, tmp_path: Path) -> None:
    """LiteRT takes what an operator reads on trust: some of these end its process."""
    from ai_edge_litert import schema_py_generated as schema

    right = base("tflite", tmp_path)
    names = [name for name in vars(schema.BuiltinOperator) if not name.startswith("_")]
    files = [wrong.change("tflite", right, tmp_path / f"{name}.tflite", wrong.opcode(name)) for name in names]
    found = outcomes(verb, files)
    assert any("LiteRT crashes on it" in said for said in found.values())
