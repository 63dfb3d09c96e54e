"""What a bundle says of itself in words: README.md, labels.txt, and the card of its source."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import bundles
import pytest
from answering import save, save_sentence_encoder
from shared import shared

import edgebert
from edgebert import bundle
from edgebert.app.template import CHECKOUT
from edgebert.bundle import card
from edgebert.catalog import TASKS

CLASSES = "sequence-classification"
CARD = "---\nlanguage: en\nlicense: other\nlicense_name: 'Our Own'\n---\n\n# A model\nIts data is by {{ them }}.\n"
KOTLIN = CHECKOUT / "edgebert" / "src" / "main" / "kotlin" / "dev" / "edgebert"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a checkpoint that has a card."""

    def make(place: Path) -> Path:
        source = save(place / "kinds", CLASSES)
        (source / "README.md").write_text(CARD, encoding="utf-8")
        return edgebert.export(source, target="executorch", recipe="fp32", lengths=(16,), out=place / "a kind").folder

    folder: Path = shared(tmp_path_factory, "card", make)
    return folder


def blocks(folder: Path) -> dict[str, str]:
    return dict(re.findall(r"```(\w+)\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL))


@pytest.mark.parity
def test_it_tells_what_the_model_is(made: Path) -> None:
    text = (made / "README.md").read_text(encoding="utf-8")
    manifest = bundle.read(made)
    told = ["# a kind\n", "`kind_4`", "`input_ids` | int32 | 1, 16", "`logits` | float32 | 1, 5", "other, Our Own"]
    told += [
        manifest.floor,
        manifest.model_file,
        "from `kinds`",
        f"{manifest.parity['outputs']['logits']['sqnr_db']:.1f} dB",
    ]
    for each in told:
        assert each in text
    assert str(made.parent) not in text
    assert (made / "labels.txt").read_text().splitlines() == manifest.labels
    assert (made / "SOURCE_CARD.md").read_text() == CARD
    assert {"README.md", "labels.txt", "SOURCE_CARD.md"} <= set(manifest.files)


@pytest.mark.parity
def test_its_example_and_its_code_say_what_it_answers(made: Path) -> None:
    found = blocks(made)
    with edgebert.open(made) as opened:
        answer = opened.predict(*card.asked_of(CLASSES, made))
    assert json.loads(found["json"]) == {"label": answer["label"], "score": round(answer["score"], 3)}
    done = subprocess.run(
        [sys.executable, "-c", found["python"]], cwd=made.parent, capture_output=True, text=True, check=True
    )
    assert f"'label': '{answer['label']}'" in done.stdout


def test_every_task_is_explained() -> None:
    for table in (card.ABOUT, card.VERBS):
        assert set(table) == set(TASKS)
    kotlin = (KOTLIN / "Edgebert.kt").read_text(encoding="utf-8") + (KOTLIN / "Answers.kt").read_text(encoding="utf-8")
    for verb, answer in card.VERBS.values():
        assert re.search(rf"public fun {verb}\(", kotlin), verb
        assert re.search(rf"\bval {answer}:", kotlin), answer


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("target", ["executorch", "tflite", "coreml", "onnx"])
def test_every_target_has_code(task: str, target: str, tmp_path: Path) -> None:
    manifest = bundle.read(bundles.write(tmp_path))
    manifest = replace(manifest, task=task, target=target, lengths=[16, 32], parity=None)
    card.write(tmp_path, "assistant", manifest, "", "", {"label": "a", "score": 0.5})
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    languages = {
        "executorch": {"kotlin", "python"}, "tflite": {"kotlin", "python"}, "coreml": {"swift", "python"},
        "onnx": {"js", "kotlin", "python"},
    }  # fmt: skip
    lacking = {"js"} if task == "multiple-choice" else set()  # for which transformers.js has no pipeline
    assert set(blocks(tmp_path)) - {"sh", "json"} == languages[target] - lacking
    assert ("`tokens_16` or `tokens_32`" in text) == (target == "tflite")
    compile(blocks(tmp_path)["python"], "README.md", "exec")


def test_an_answer_equal_to_torchs_and_any_folders_name_are_told(tmp_path: Path) -> None:
    manifest = bundle.read(bundles.write(tmp_path))
    manifest = replace(manifest, target="onnx", parity={"passed": True, "outputs": {"logits": {"sqnr_db": None}}})
    card.write(tmp_path, 'my "own" model', manifest, "", "", {"label": "a"})
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "| compared with torch | logits equal |" in text
    assert "edgebert predict 'my \"own\" model' " in text
    assert 'edgebert.open("my \\"own\\" model")' in text
    compile(blocks(tmp_path)["python"], "README.md", "exec")


def test_labels_and_cards_of_any_kind_are_text(tmp_path: Path) -> None:
    odd = ["a\nb", "`tick`", "{{ 7 * 7 }}", "<script>", "## heading"]
    manifest = replace(bundle.read(bundles.write(tmp_path)), labels=odd, source="{% raw %}", parity=None)
    card.write(tmp_path, "{{ name }}", manifest, "no front matter", "", None)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "`` `tick` ``" in text
    assert "`{{ 7 * 7 }}`" in text
    assert "49" not in text
    assert "\n## heading" not in text
    assert (tmp_path / "labels.txt").read_text().splitlines() == ["a b", *odd[1:]]
    assert "predict" not in text, "an example that was not asked"


LICENCES = [
    ("---\nlicense: mit\n---\n", "mit"),
    ('---\r\nlicense: "apache-2.0"\r\n---\r\n', "apache-2.0"),
    ("---\nlicense: [mit]\ntags: []\n---\n", "[mit]"),
    ("license: mit\n", ""),
    ("---\ntags:\n- a\n---\nlicense: mit\n", ""),
    ("", ""),
]


@pytest.mark.parametrize(("text", "licence"), LICENCES)
def test_a_licence_is_what_the_front_matter_says(text: str, licence: str) -> None:
    assert replace(edgebert.load("default"), card=text).license == licence


@pytest.mark.parity
def test_a_sentence_encoders_prompt_is_told(tmp_path: Path) -> None:
    source = save_sentence_encoder(tmp_path / "source", prompts={"query": "query: "}, default_prompt_name="query")
    folder = edgebert.export(source, target="executorch", recipe="fp32", lengths=(16,), out=tmp_path / "out").folder
    assert "led by the prompt `query:`" in (folder / "README.md").read_text(encoding="utf-8")
