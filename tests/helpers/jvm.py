"""Mains of the Kotlin library's test classes, run on the JVM here."""

import os
import shutil
import subprocess

from filelock import FileLock

from edgebert.app.template import CHECKOUT as DEMO

TARGET = DEMO / "edgebert" / "target"
JAR = DEMO / "build" / "edgebert-jvm.jar"  # has Kotlin and Gson in it too
MAVEN = ["mvn", "--quiet", "--batch-mode", "--offline", "--file", str(DEMO / "pom.xml")]


def missing() -> str | None:
    """Why nothing can be run; None where it can."""
    if shutil.which("java") is None or shutil.which("mvn") is None:
        return "there is no java or no mvn to run the library by"
    return (
        None if JAR.exists() else "android_demo/build has no edgebert-jvm.jar: run make app, which needs java and mvn"
    )


def options() -> list[str]:
    """Maven's, by which it takes the classes that `make app` left and checked, unless a source is newer."""
    sources = [path for path in DEMO.glob("*/src/main/**/*") if path.is_file()]
    old = max(path.stat().st_mtime for path in sources) > JAR.stat().st_mtime
    return ["-Danimal.sniffer.skip", *([] if old else ["-Dmain.phase=none", "-Dmaven.clean.skip"])]


def compiled() -> None:
    """Compiles the library's tests where a source is newer than they are; workers wait for one another."""
    with FileLock(DEMO / "build" / "test-classes.lock"):
        sources = [path for path in (DEMO / "edgebert" / "src").rglob("*") if path.is_file()]
        made = [path.stat().st_mtime for path in (TARGET / "test-classes").rglob("*.class")]
        if not made or max(path.stat().st_mtime for path in sources) > min(made):
            subprocess.run([*MAVEN, "--projects", "edgebert", "--also-make", *options(), "test-compile"], check=True)


def command(main: str, *options: str) -> list[str]:
    """The command that runs a class of the library or of its tests, less its arguments."""
    classes = [TARGET / "test-classes", TARGET / "classes", JAR]
    return ["java", *options, "-cp", os.pathsep.join(map(str, classes)), main]
