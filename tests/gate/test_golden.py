"""Golden files that are none: refused in one line, whatever they unpack to."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny

from edgebert.errors import InputError
from edgebert.gate import golden

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Arrays:
    """What stands in a golden file of two lengths."""
    path = tmp_path_factory.mktemp("golden") / "golden.npz"
    golden.make(tiny.visible("bert", "token-classification"), None, (8, 16)).save(path)
    with np.load(path) as file:
        return dict(file)


def spoil(key: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Arrays], Arrays]:
    return lambda arrays: arrays | {key: change(arrays[key])}


def without(*starts: str) -> Callable[[Arrays], Arrays]:
    return lambda arrays: {key: value for key, value in arrays.items() if not key.startswith(starts)}


IDS, MASK, LOGITS = "tokens_8/in/input_ids", "tokens_8/in/attention_mask", "tokens_8/out/logits"
DAMAGES = {
    "no damaged answers": (without("damaged/"), "it lacks batches"),
    "no types": (without("types_"), "it lacks batches"),
    "no batches": (without("tokens_"), "it lacks batches"),
    "no answers": (without("tokens_8/out"), ""),
    "no mask": (without(MASK), "attention_mask"),
    "another name": (lambda arrays: arrays | {"x": np.zeros(1)}, ""),
    "another side": (lambda arrays: arrays | {"tokens_8/over/x": np.zeros(1), "y/z/w": np.zeros(1)}, ""),
    "another input": (lambda arrays: arrays | {"tokens_8/in/x": arrays[IDS]}, "has other inputs"),
    "floats as ids": (spoil(IDS, lambda a: a.astype(np.float32)), "has input_ids of float32"),
    "complex answers": (spoil(LOGITS, lambda a: a.astype(np.complex64)), "no finite float32"),
    "texts as answers": (spoil(LOGITS, lambda a: a.astype(str)), "no finite float32"),
    "NaN in an answer": (spoil(LOGITS, lambda a: a * np.nan), "no finite float32"),
    "one row": (spoil("tokens_16/in/input_ids", lambda a: a[:1]), "input_ids of int32"),
    "ids of one axis": (spoil(IDS, np.ravel), ""),
    "a number as ids": (spoil(IDS, lambda a: a[0, 0]), ""),
    "a mask of twos": (spoil(MASK, lambda a: a * 2), "a mask of nothing"),
    "a mask of nothing": (spoil(MASK, lambda a: a * 0), "a mask of nothing"),
    "answers of other rows": (spoil(LOGITS, lambda a: a[:3]), "has the shape"),
    "answers of other tokens": (spoil(LOGITS, lambda a: a[:, :7]), "has the shape"),
    "answers of other labels": (spoil("tokens_16/out/logits", lambda a: a[..., :1]), "has the shape"),
    "batches of one length": (spoil("tokens_16/in/input_ids", lambda a: a[:, :8]), "not of ascending lengths"),
    "another output": (
        lambda arrays: without(LOGITS)(arrays) | {"tokens_8/out/scores": arrays[LOGITS]},
        "its batches have different outputs",
    ),
}


@pytest.mark.parametrize("how", DAMAGES)
def test_arrays_that_are_no_golden_ones_are_refused(tmp_path: Path, sound: Arrays, how: str) -> None:
    change, text = DAMAGES[how]
    np.savez(tmp_path / "golden.npz", **change(sound))
    with pytest.raises(InputError, match=f"is damaged .*{text}") as caught:
        golden.load(tmp_path / "golden.npz")
    assert "\n" not in str(caught.value)


def test_sound_arrays_are_read(tmp_path: Path, sound: Arrays) -> None:
    np.savez(tmp_path / "golden.npz", **sound)
    assert [batch.name for batch in golden.load(tmp_path / "golden.npz").batches] == ["tokens_8", "tokens_16"]


@pytest.mark.parametrize("task", ["token-classification", *golden.ONE_A_ROW])
def test_heads_with_one_answer_a_row_are_asked_more_rows_first(task: str) -> None:
    made = golden.make(tiny.visible("bert", task), None, (8, 16))
    first, later = ([len(value) for value in batch.expected.values()] for batch in made.batches)
    assert set(first) == {golden.ROWS * (1 + (task in golden.ONE_A_ROW)) + 3}
    assert set(later) == {golden.REPEATED + golden.ROWS + 3}
    assert len(made.types.inputs["input_ids"]) == first[0]


def header(shape: str, dtype: str = "<f4") -> bytes:
    """The head of a .npy file that says what is not there."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def archive(content: bytes, packed: bool = False) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as file:
        file.writestr("tokens_8/in/input_ids.npy", content)
    return out.getvalue()


FILES = {
    "empty": (b"", "BadZipFile"),
    "garbage": (b"\xff" * 999, "BadZipFile"),
    "a single array": (header("(1,)") + bytes(4), "BadZipFile"),
    "no array": (archive(b"hello"), "damaged"),
    "more than there is": (archive(header("(1000000000000000,)")), "damaged"),
    "objects": (archive(header("(1,)", "|O") + b"cos\nsystem\n(S'true'\ntR."), "Object arrays cannot be loaded"),
    "code in the header": (archive(header("(__import__('os').getpid(),)")), "damaged"),
    "a shape of 100,000 brackets": (archive(header("(" * 60_000 + ")" * 100)), "damaged"),
}


@pytest.mark.parametrize("how", FILES)
def test_files_that_are_no_archives_of_arrays_are_refused(tmp_path: Path, how: str) -> None:
    content, text = FILES[how]
    (tmp_path / "golden.npz").write_bytes(content)
    with pytest.raises(InputError, match=text) as caught:
        golden.load(tmp_path / "golden.npz")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_what_unpacks_to_more_than_memory_should_hold_is_not_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "golden.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for name in ("a", "b"):
            with file.open(f"{name}.npy", "w", force_zip64=True) as entry:
                for _ in range(600):
                    entry.write(bytes(1 << 20))
    assert (tmp_path / "golden.npz").stat().st_size < 10 << 20
    with pytest.raises(InputError, match="unpacked it has more than 1,073,741,824 bytes"):
        golden.load(tmp_path / "golden.npz")
