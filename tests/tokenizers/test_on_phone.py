"""What the phone's tokenizer knows is what its sources say; a bundle with anything else is told of."""

import json
import re
from pathlib import Path

import pytest
import tiny
from paths import ROOT
from words import trained_model

import edgebert
from edgebert.app import make
from edgebert.bundle.manifest import NO_APP
from edgebert.checkpoints.checkpoint import Checkpoint
from edgebert.errors import Unsupported
from edgebert.tokenizers import on_phone, structure, tokenizer

SOURCES = ROOT / "android_demo/edgebert/src/main/kotlin/dev/edgebert/tokenizer"
READERS = {
    "normalizer": "NormalizerReader", "pre_tokenizer": "PreTokenizerReader", "post_processor": "PostProcessorReader",
    "decoder": "DecoderReader",
}  # fmt: skip


@pytest.mark.parametrize("part", READERS)
def test_steps_are_those_of_the_phones_own_table(part: str) -> None:
    text = (SOURCES / "TokenizerFile.kt").read_text(encoding="utf-8")
    found = re.search(rf"object {READERS[part]} \{{.*?KINDS = listOf\((.*?)\)", text, re.DOTALL)
    assert found is not None
    assert tuple(re.findall(r'"(\w+)"', found[1])) == on_phone.KNOWN[part]
    # Each is read, and not only listed.
    inside = text[found.end() :].partition("\nprivate object")[0]
    for kind in set(on_phone.KNOWN[part]) - {"Sequence"}:
        assert f'"{kind}" ->' in inside or kind == last(part), kind


def last(part: str) -> str:
    """The one that its reader has for `else`."""
    return on_phone.KNOWN[part][-1]


def test_models_are_those_of_the_phones_reader() -> None:
    text = (SOURCES / "ModelReader.kt").read_text(encoding="utf-8")
    found = re.search(r"if \(kind != null((?: && kind != \"\w+\")+)\)", text)
    assert found is not None
    assert tuple(re.findall(r'"(\w+)"', found[1])) == on_phone.KNOWN["model"]


def test_all_that_this_package_takes_is_known_there() -> None:
    assert set(structure.NORMALIZERS) <= set(on_phone.KNOWN["normalizer"])
    assert set(structure.PRE_TOKENIZERS) <= set(on_phone.KNOWN["pre_tokenizer"])
    assert set(structure.POST_PROCESSORS) <= set(on_phone.KNOWN["post_processor"])
    assert set(structure.DECODERS) <= set(on_phone.KNOWN["decoder"])
    assert set(structure.MODELS) <= set(on_phone.KNOWN["model"])


def test_what_is_not_known_is_named_once_wherever_it_stands() -> None:
    inner = {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Odd"}, {"type": "Odd"}]}
    raw = {
        "normalizer": {"type": "Sequence", "normalizers": [inner]}, "pre_tokenizer": None,
        "model": {"vocab": {}}, "decoder": {"type": "Other"}, "post_processor": {"type": "BertProcessing"},
    }  # fmt: skip
    assert on_phone.unknown(raw) == ["normalizer Odd", "decoder Other"]


@pytest.mark.parity
def test_a_bundle_with_a_step_that_the_phone_lacks_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The phone lacks nothing today, so the table is made to."""
    from edgebert.cli.main import main

    (tmp_path / "words").mkdir()
    (tmp_path / "words/sentencepiece.model").write_bytes(trained_model())
    words = tokenizer.load(tmp_path / "words")
    model = tiny.visible("rembert", "sequence-classification", vocab_size=words.vocab_size)
    Checkpoint(model, words, "here", {}, "", ()).save(tmp_path / "checkpoint")
    known = {part: tuple(set(kinds) - {"Precompiled", "Metaspace"}) for part, kinds in on_phone.KNOWN.items()}
    monkeypatch.setattr(on_phone, "KNOWN", known)
    exported = [
        "export",
        str(tmp_path / "checkpoint"),
        "--recipe",
        "fp32",
        "--lengths",
        "8",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main([*exported, "--no-validate"]) == 0
    note = f"{NO_APP}: its tokenizer has a "
    told = capsys.readouterr().out.splitlines()
    assert [line for line in told if line.startswith(note)]
    assert told[-1].startswith("next: edgebert profile")
    raw = json.loads((tmp_path / "out/manifest.json").read_text())
    assert [one for one in raw["notes"] if one.startswith(note) and "normalizer Precompiled" in one]
    with pytest.raises(Unsupported, match="its tokenizer has a"):
        make.read(tmp_path / "out")
    assert edgebert.open(tmp_path / "out").predict("a word")["label"]
