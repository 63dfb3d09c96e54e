"""A process apart: what comes back of a file, and what is told of one that crashes the runtime or keeps it for ever."""

import signal
from pathlib import Path

import pytest

from edgebert.errors import InputError
from edgebert.runtimes import apart

SAID = {
    "told": ("print('a word of its own'); print('{\"a\": [1]}')", None),
    "refused": (
        "raise ValueError('[Runtime] : 1 : FAIL : no such operator\\nand a long story')",
        "m.onnx does not open in Runtime: no such operator",
    ),
    "crashed": (
        "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
        r"m.onnx: Runtime crashes on it \(SIGSEGV\)",
    ),
    "given up": ("import os; os._exit(134)", r"m.onnx: Runtime crashes on it \(exit 134\)"),
    "ended": ("import os; os._exit(0)", r"m.onnx: Runtime crashes on it \(exit 0\)"),
    "greedy": (
        "held = bytearray(3 << 30)",
        "m.onnx does not open in Runtime: MemoryError",
    ),
    "never": ("while True: pass", "m.onnx: Runtime was not done opening it after 2 s"),
}


@pytest.mark.parametrize("what", SAID)
def test_what_a_script_comes_to_is_told_in_one_line(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, said = SAID[what]
    (tmp_path / "script.py").write_text(code)
    if what == "never":
        monkeypatch.setattr(apart, "SECONDS", 2)
    if said is None:
        assert apart.ask(str(tmp_path / "script.py"), "Runtime", Path("m.onnx")) == {"a": [1]}
        return
    with pytest.raises(InputError, match=said) as told:
        apart.ask(str(tmp_path / "script.py"), "Runtime", Path("m.onnx"))
    assert "\n" not in str(told.value)


def test_an_interrupt_ends_it_too(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "import os, signal, time\nos.kill(os.getppid(), signal.SIGINT)\ntime.sleep(60)\n"
    )
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            apart.ask(str(tmp_path / "script.py"), "Runtime", Path("m.onnx"))
    finally:
        signal.signal(signal.SIGINT, handler)


def test_it_gets_nothing_from_the_folder_it_is_called_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit(9)")
    (tmp_path / "script.py").write_text("import json, sys\nprint(json.dumps(sys.argv[1:]))")
    monkeypatch.chdir(tmp_path)
    assert apart.ask("script.py", "Runtime", Path("m.onnx"), "8") == ["m.onnx", "8"]
