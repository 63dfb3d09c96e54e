"""Projects for Android Studio: the sources with a bundle in them. No test builds one, for there is no Gradle here."""

import re
from pathlib import Path
from xml.etree import ElementTree

import bundles
import pytest

from edgebert.app import sources, template
from edgebert.app.project import PLACE, project
from edgebert.cli.main import main
from edgebert.errors import InputError, MissingDependency, Unsupported

LABEL = "{http://schemas.android.com/apk/res/android}label"
checkout = pytest.mark.skipif(
    not (template.CHECKOUT / sources.SETTINGS).exists(), reason="android_demo has no Gradle files yet"
)


@pytest.fixture(scope="module")
def assistant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundles.tflite(tmp_path_factory.mktemp("bundle") / "assistant")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout's folder of the app, as small as can be."""
    files = {
        "settings.gradle.kts": "include(\":app\")", "build.gradle.kts": "", "gradle/libs.versions.toml": "[versions]",
        "app/build.gradle.kts": 'android { defaultConfig { applicationId = "dev.edgebert.app" } }',
        "app/pom.xml": "<project/>",
        "app/src/main/AndroidManifest.xml":
            '<manifest xmlns:android="http://schemas.android.com/apk/res/android">'
            '<application android:label="edgebert"><activity android:label="edgebert"/></application></manifest>',
        "app/src/main/kotlin/Main.kt": "class Main", "app/src/test/kotlin/MainTest.kt": "class MainTest",
        "app/target/classes/Main.class": "built", "jvm/src/main/kotlin/Jvm.kt": "for Maven alone",
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / "demo" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "demo" / name).write_text(text)
    monkeypatch.setattr(template, "CHECKOUT", tmp_path / "demo")
    return tmp_path / "demo"


def paths(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_project_is_the_sources_with_the_bundle(assistant: Path, folder: Path, tmp_path: Path) -> None:
    made = project(assistant, tmp_path / "out", name='Tom & "Jerry\'s"', application_id="org.example.two")
    own = [f"{PLACE}/{path}" for path in paths(assistant)]
    assert paths(tmp_path / "out") == sorted([
        *own, "app/build.gradle.kts", "app/src/main/AndroidManifest.xml", "app/src/main/kotlin/Main.kt",
        "build.gradle.kts", "gradle/libs.versions.toml", "settings.gradle.kts",
    ])  # fmt: skip
    for path in paths(assistant):
        assert (tmp_path / "out" / PLACE / path).read_bytes() == (assistant / path).read_bytes()
    assert 'applicationId = "org.example.two"' in (tmp_path / "out/app/build.gradle.kts").read_text()
    tree = ElementTree.parse(tmp_path / "out/app/src/main/AndroidManifest.xml")
    # With the backslashes that Android's resources ask for.
    assert tree.find("application").get(LABEL) == 'Tom & \\"Jerry\\\'s\\"'
    assert tree.find("application/activity").get(LABEL) == "edgebert"
    assert (made.application_id, made.name) == ("org.example.two", 'Tom & "Jerry\'s"')


def test_what_is_packed_gives_the_same_project(
    assistant: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an installed package makes it, which has no checkout around it."""
    from edgebert.app import archive
    from edgebert.app.archive import Entry

    packed = tmp_path / "project.zip"
    archive.write(packed, [Entry(name, content, None) for name, content in sources.of(folder).items()])
    project(assistant, tmp_path / "a")
    monkeypatch.setattr(template, "CHECKOUT", tmp_path / "nowhere")
    monkeypatch.setattr(sources, "PACKED", packed)
    project(assistant, tmp_path / "b")
    assert paths(tmp_path / "a") == paths(tmp_path / "b")
    assert all(
        (tmp_path / "a" / one).read_bytes() == (tmp_path / "b" / one).read_bytes() for one in paths(tmp_path / "a")
    )
    packed.unlink()
    with pytest.raises(MissingDependency, match="run make app in a checkout"):
        project(assistant, tmp_path / "c")


def test_only_a_project_is_replaced(assistant: Path, folder: Path, tmp_path: Path) -> None:
    project(assistant, tmp_path / "out")
    with pytest.raises(InputError, match="pass --force"):
        project(assistant, tmp_path / "out")
    project(assistant, tmp_path / "out", force=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/note").write_text("mine")
    with pytest.raises(InputError, match=r"holds no settings\.gradle\.kts"):
        project(assistant, tmp_path / "mine", force=True)
    with pytest.raises(Unsupported):
        project(bundles.tflite(tmp_path / "pte", target="executorch"), tmp_path / "other")


def test_by_command(
    assistant: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["app", str(assistant), "--project", "out"]) == 0
    *_, told, following = capsys.readouterr().out.splitlines()
    assert "was not built here" in told
    assert following == "next: open out in Android Studio, or run gradle :app:assembleDebug in it"
    assert main(["app", str(assistant), "--project", "out2", "--install"]) == 2
    assert main(["app", str(assistant), "--project", "out2", "--out", "a.apk"]) == 2
    assert main(["app", str(assistant)]) == 2
    assert not (tmp_path / "out2").exists()


@checkout
def test_the_checkouts_own_sources_make_a_project(assistant: Path, tmp_path: Path) -> None:
    made = project(assistant, tmp_path / "out")
    found = paths(tmp_path / "out")
    settings = (tmp_path / "out" / sources.SETTINGS).read_text()
    modules = re.findall(r'":(\w+)"', settings)
    assert "app" in modules
    assert "edgebert" in modules
    for module in modules:
        assert f"{module}/build.gradle.kts" in found
    assert f'applicationId = "{made.application_id}"' in (tmp_path / "out/app/build.gradle.kts").read_text()
    assert any(path.startswith("edgebert/src/main/kotlin/dev/edgebert/") for path in found)
    assert not [path for path in found if "/test/" in path or "/target/" in path or path.endswith("pom.xml")]
