"""Sample inputs for static scales and 4-bit roundings."""

from pathlib import Path

import numpy as np
import pytest
from paths import DATA

from edgebert.checkpoints import checkpoint
from edgebert.errors import InputError
from edgebert.gate import golden
from edgebert.models import MODELS
from edgebert.quantization.samples import TEXTS, load_samples


def test_texts_kept_here_are_none_that_files_are_judged_by() -> None:
    ours = set(TEXTS.read_text(encoding="utf-8").lower().splitlines())
    judged = golden.SENTENCES.read_text(encoding="utf-8").lower().splitlines()
    utterances = (DATA / "utterances.tsv").read_text(encoding="utf-8").lower().splitlines()
    assert len(ours) >= 128
    assert not ours & set(judged)
    assert not ours & {line.split("\t")[1] for line in utterances}


def test_a_file_gives_one_unpadded_row_a_line(tmp_path: Path) -> None:
    default = checkpoint.load()
    file = tmp_path / "texts.txt"
    file.write_text("wake me up\n\nwho wrote it?\tNobody knows.\n", encoding="utf-8")
    one, pair = load_samples(default.tokenizer, default.model.config, 32, file)
    assert one["input_ids"].dtype == np.int32
    assert one["attention_mask"].all()
    assert one["input_ids"].shape[0] == 1
    assert not one["token_type_ids"].any()
    assert pair["token_type_ids"].any()
    cut = load_samples(default.tokenizer, default.model.config, 8, file)
    assert max(row["input_ids"].shape[1] for row in cut) <= 8


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\xfe\x00"])
def test_a_file_without_texts_is_refused(tmp_path: Path, content: bytes) -> None:
    default = checkpoint.load()
    (tmp_path / "texts.txt").write_bytes(content)
    with pytest.raises(InputError, match=r"texts\.txt"):
        load_samples(default.tokenizer, default.model.config, 32, tmp_path / "texts.txt")


def test_random_ids_stand_in_where_there_is_no_tokenizer(tmp_path: Path) -> None:
    config = MODELS["bert"].config.tiny()
    rows = load_samples(None, config, 16)
    assert max(int(row["input_ids"].max()) for row in rows) < config.vocab_size
    assert max(int(row["token_type_ids"].max()) for row in rows) < config.type_vocab_size
    with pytest.raises(InputError, match="without a tokenizer"):
        load_samples(None, config, 16, tmp_path / "texts.txt")
