"""From export to an app by the commands that the command line names, and what it refuses."""

import json
import shlex
import zipfile
from pathlib import Path

import bundles
import pytest
import templates
from answering import save

from edgebert.app import template
from edgebert.bundle.manifest import NO_APP
from edgebert.cli.main import _to_an_app, main


@pytest.fixture(autouse=True)
def stand_in(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A template that takes files for tflite alone."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(elsewhere))
    monkeypatch.setattr(template, "BUILT", templates.write(elsewhere / "template.apk"))
    return template.BUILT


def last(captured: pytest.CaptureFixture[str]) -> str:
    return captured.readouterr().out.splitlines()[-1]


@pytest.mark.parity
def test_what_comes_next_is_an_app_where_it_takes_the_target(
    tmp_path: Path, stand_in: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny = str(save(tmp_path.with_name(f"{tmp_path.name}-tiny"), "sequence-classification"))
    exported = ["export", tiny, "--target", "onnx", "--recipe", "fp32", "--lengths", "32", "--out", "my model", "--zip"]
    assert main(exported) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[-2:] == ["here: edgebert predict 'my model' \"...\"", "next: edgebert profile 'my model'"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my model", "my model.zip"]
    with zipfile.ZipFile("my model.zip") as archive:
        assert json.loads(archive.read("my model/golden.json"))["sentences"]
    assert main(["validate", "my model"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[-1] == "next: edgebert profile 'my model'"
    assert "[ok] golden sentences become their ids: 65 texts" in told
    assert main(["app", "my model", "--out", "a.apk"]) == 4
    assert "has no library that runs onnx files" in capsys.readouterr().err

    templates.write(stand_in, ("libonnxruntime.so",))
    assert main(["validate", "my model"]) == 0
    following = last(capsys)
    assert following == "next: edgebert app 'my model' --out 'my model.apk'"
    assert main(shlex.split(following)[2:]) == 0
    assert last(capsys) == "next: adb install -r 'my model.apk'"
    assert (tmp_path / "my model.apk").exists()

    assert main(exported) == 2
    assert "pass --force" in capsys.readouterr().err
    (tmp_path / "my model.zip").write_text("mine")
    assert main([*exported, "--force"]) == 2
    assert "is no zip" in capsys.readouterr().err
    (tmp_path / "my model.zip").unlink()
    assert main([*exported, "--force", "--no-validate", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["zip"] == "my model.zip"


def test_the_command_is_told_for_what_the_app_runs(stand_in: Path) -> None:
    assert _to_an_app("out/a b", "tflite", ["a note"]) == "edgebert app 'out/a b' --out 'a b.apk'"
    assert _to_an_app("out", "onnx", []) is None
    assert _to_an_app("out", "executorch", []) is None
    assert _to_an_app("out", "tflite", [f"{NO_APP}: its tokenizer has a normalizer Nmt"]) is None
    stand_in.unlink()
    assert (
        _to_an_app("out/", "tflite", []) == "edgebert app out/ --out out.apk"
    )  # and `edgebert app` says what is missing


def test_an_app_by_command_and_in_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    bundles.tflite(tmp_path / "assistant")
    assert main(["app", "assistant", "--out", "a.apk", "--name", "Hæ", "--id", "org.example.one"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("made ")
    assert told[1].startswith("wrote a.apk (")
    assert told[2:] == ["next: adb install -r a.apk"]
    assert main(["app", "assistant", "--out", "a.apk", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["exit_code"] == 2
    assert main(["app", "assistant", "--out", "a.apk", "--force", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert set(made) == {"apk", "bytes", "id", "name", "key", "install", "device"}
    assert (made["apk"], made["name"], made["device"]) == ("a.apk", "assistant", None)
    assert made["bytes"] == (tmp_path / "a.apk").stat().st_size


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["absent", "--out", "a.apk"], 2, "absent is no bundle"),
        (["assistant"], 2, "one of --out APK and --project FOLDER is needed"),
        (["assistant", "--out", "a.zip"], 2, "ends in .apk"),
        (["assistant", "--out", "a.apk", "--id", "one"], 2, "such as com.example.assistant"),
        (["assistant", "--out", "a.apk", "--name", "a\tb"], 2, "a name has 1 to 100 characters"),
        (["assistant", "--out", "a.apk", "--key", "absent.p12"], 2, "has no absent.p12"),
        (["pte", "--out", "a.apk"], 4, "export it with --target tflite"),
    ],
)
def test_bad_usage_is_one_line(
    arguments: list[str],
    code: int,
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    bundles.tflite(tmp_path / "assistant")
    bundles.tflite(tmp_path / "pte", target="executorch")
    assert main(["app", *arguments]) == code
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("[")]
    assert len(lines) == 1
    assert text in lines[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["assistant", "pte"]
