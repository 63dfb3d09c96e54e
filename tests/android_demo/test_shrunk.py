"""The library's own rules are all that an app needs when R8 shrinks it.

The consumer is the command line, a module of its own that sees what the library makes public: shrunk with the rules of
the AAR alone, it has to answer as before, by both engines. R8 writes classes that a JVM runs, instead of a .dex.
"""

import os
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from answering import TEXTS, save
from shared import shared

import edgebert
from edgebert.app import template

pytestmark = pytest.mark.slow
TOOLS = template.CHECKOUT / "app" / "target" / "tools"
AAR = template.CHECKOUT / "build" / "edgebert.aar"
MAIN = "dev.edgebert.jvm.MainKt"
ENTRY = f"-keep class {MAIN} {{ public static void main(java.lang.String[]); }}"
TASKS = (("sequence-classification", "tflite"), ("token-classification", "onnx"))


@pytest.fixture(scope="module")
def shrunk(jar: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The command line's classes as R8 leaves them, and all in its jar that is no class."""
    return shared(tmp_path_factory, "shrunk", lambda folder: shrink(jar, folder))


def shrink(jar: Path, folder: Path) -> tuple[Path, Path]:
    given, rest, small = folder / "given.jar", folder / "rest.jar", folder / "small.jar"
    with zipfile.ZipFile(jar) as whole, zipfile.ZipFile(given, "w") as classes, zipfile.ZipFile(rest, "w") as others:
        for name in whole.namelist():
            (classes if name.endswith(".class") else others).writestr(name, whole.read(name))
    with zipfile.ZipFile(AAR) as archive:
        (folder / "rules.txt").write_bytes(archive.read("proguard.txt"))
    (folder / "entry.txt").write_text(ENTRY)
    lib = ["--lib", os.path.realpath(java_home()), "--lib", TOOLS / "platform.jar"]
    rules = ["--pg-conf", folder / "rules.txt", "--pg-conf", folder / "entry.txt"]
    quick = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
    r8 = ["java", *quick, "-cp", TOOLS / "r8.jar", "com.android.tools.r8.R8", "--release", "--classfile"]
    done = subprocess.run([*r8, *lib, *rules, "--output", small, given], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return small, rest


def java_home() -> str:
    """Where the JVM's own classes are."""
    told = subprocess.run(["java", "-XshowSettings:properties", "-version"], capture_output=True, text=True, check=True)
    return next(line.split("=")[1].strip() for line in told.stderr.splitlines() if "java.home" in line)


def classes(jar: Path) -> set[str]:
    with zipfile.ZipFile(jar) as archive:
        return {name for name in archive.namelist() if name.endswith(".class")}


def path_of(jars: tuple[Path, Path]) -> str:
    return os.pathsep.join(map(str, jars))


def ask(path: str, bundle: Path, file: Path) -> subprocess.CompletedProcess[str]:
    """What the command line says to a file's texts, from the classes on a path; its heap is swept all the time."""
    return subprocess.run(
        ["java", "-Xmx64m", "-XX:+UseSerialGC", "-cp", path, MAIN, bundle, file],
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_is_shrunk(jar: Path, shrunk: tuple[Path, Path]) -> None:
    left = classes(shrunk[0])
    assert len(left) < len(classes(jar)) / 2
    named = {name for name in left if name.startswith(("dev/edgebert/", "com/google/gson/", "kotlin/"))}
    assert named == {f"{MAIN.replace('.', '/')}.class"}  # all others have other names, or are in others


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """A bundle of a tiny model for a task and a target."""

    def made(task: str, target: str) -> Path:
        def make(folder: Path) -> Path:
            source = save(folder / "model", task)
            return edgebert.export(source, task=task, target=target, lengths=(16,), out=folder / "bundle").folder

        return shared(tmp_path_factory, f"shrunk-{task}-{target}", make)

    return made


@pytest.mark.parametrize(("task", "target"), TASKS)
def test_it_answers_as_before(
    task: str, target: str, jar: Path, shrunk: tuple[Path, Path], bundle: Callable[[str, str], Path], tmp_path: Path
) -> None:
    file = tmp_path / "texts.txt"
    # So many that what is held by nothing any more is collected while the model answers.
    file.write_text("".join(f"{text}\n" for text in TEXTS * 400), encoding="utf-8")
    whole, small = ask(str(jar), bundle(task, target), file), ask(path_of(shrunk), bundle(task, target), file)
    assert whole.returncode == 0, whole.stderr
    assert small.returncode == 0, small.stderr
    assert whole.stdout.count("\n") == 400 * len(TEXTS)
    assert small.stdout == whole.stdout


def test_what_is_kept_by_hand_is_needed(
    shrunk: tuple[Path, Path], bundle: Callable[[str, str], Path], tmp_path: Path
) -> None:
    """Without annotations JavaCPP finds no library: rules that forget them do not pass unseen."""
    broken = tmp_path / "broken.jar"
    with zipfile.ZipFile(shrunk[0]) as archive, zipfile.ZipFile(broken, "w") as copy:
        for name in archive.namelist():
            if not name.startswith("org/bytedeco/javacpp/annotation/"):
                copy.writestr(name, archive.read(name))
    file = tmp_path / "texts.txt"
    file.write_text("the red house\n", encoding="utf-8")
    assert ask(path_of((broken, shrunk[1])), bundle(*TASKS[0]), file).returncode != 0
