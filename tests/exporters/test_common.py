"""What every exporter does alike: lengths, refusals, and a converter that is contained."""

import errno
import os
import signal
import sys
from pathlib import Path

import pytest
from tiers import quick
from tiny import visible

import edgebert
from edgebert.errors import ConversionFailed, InputError
from edgebert.exporters import EXPORTERS
from edgebert.exporters.common import check_lengths, contained
from edgebert.quantization.recipes import RECIPES


@pytest.mark.parametrize("lengths", [(), (0,), (65,), (8, 65), (-1, 8)])
def test_lengths_outside_the_positions_are_refused(lengths: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="64 positions"):
        check_lengths(lengths, 64)


def test_lengths_come_back_ascending_and_each_once() -> None:
    assert check_lengths([16, 8, 16], 64) == (8, 16)


def test_lengths_are_refused_before_weights_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgebert.checkpoints.checkpoint.read_tensors", lambda folder: pytest.fail("read"))
    with pytest.raises(InputError, match=r"lengths \[0\]; .* from 1 to the model's \d+ positions"):
        edgebert.export("default", lengths=(0,), out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parity
@pytest.mark.parametrize("target", quick(EXPORTERS, ["executorch"]))
def test_an_export_checks_once(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked, check = [], EXPORTERS[target].check
    monkeypatch.setattr(EXPORTERS[target], "check", lambda *given: checked.append(given) or check(*given))
    edgebert.export("default", target=target, recipe="fp32", lengths=(4,), validate=False, out=tmp_path / "out")
    assert len(checked) == 1


def test_talk_is_kept_and_a_failure_is_one_line_and_a_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(ConversionFailed, match="bert: conversion failed with ValueError: no such operator The") as told:
        _chatter()
    (log,) = tmp_path.iterdir()
    assert str(log) in str(told.value)
    assert "\n" not in str(told.value)
    for words in ("from Python", "to standard error", "from below", "and a long story", "Traceback"):
        assert words in log.read_text()
    assert capfd.readouterr() == ("", "")
    with contained("onnx", "bert"):
        print("nothing went wrong")
    assert list(tmp_path.iterdir()) == [log]


OTHERS = [OSError(errno.ENOSPC, "No space left on device"), InputError("a place"), KeyboardInterrupt()]


@pytest.mark.parametrize("kind", OTHERS, ids=lambda kind: type(kind).__name__)
def test_what_is_not_the_converters_doing_passes(
    kind: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(type(kind)) as told, contained("tflite", "bert"):
        raise kind
    assert told.value is kind
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("makes", ["an error of its own", "nothing"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_is_one_whatever_a_converter_makes_of_it(
    number: signal.Signals, makes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As torch.export does, and as modules do that swallow whatever fails when they are imported."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    @contained("onnx", "bert")
    def convert() -> None:
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            if makes != "nothing":
                raise RuntimeError("the graph is broken") from None

    kept = signal.signal(number, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            convert()
    finally:
        signal.signal(number, kept)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", EXPORTERS)
def test_a_full_disk_is_no_failed_conversion(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line ends with exit code 2, whatever the target."""
    monkeypatch.setattr("edgebert.lowering.trim_positions", _full)
    with pytest.raises(OSError, match="No space left"):
        EXPORTERS[target].export(visible("bert", "base"), RECIPES["fp32"], (8,), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def _full(*given: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@contained("onnx", "bert")
def _chatter() -> None:
    print("from Python")
    print("to standard error", file=sys.stderr)
    os.write(1, b"from below\n")
    raise ValueError("no such operator\nand a long story")
