"""What `make app` builds: the same bytes anywhere, for the phones that it names, and nothing else in it."""

import hashlib
import io
import re
import shutil
import struct
import subprocess
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest
from paths import ROOT
from shared import shared

from edgebert.app import template

DEMO, BUILT = template.CHECKOUT, template.CHECKOUT / "build"
RESULTS = ("app-template.apk", "edgebert.aar", "edgebert.jar", "edgebert-jvm.jar")
AAPT2 = DEMO / "app" / "target" / "tools" / "prebuilt" / "linux" / "aapt2_64"
PAGE = 16384
MACHINES = {"arm64-v8a": 183, "x86_64": 62}  # ELF's numbers of the processors
LOAD, RELRO = 1, 0x6474E552
JAVA_11 = 55

missing = shutil.which("javac") is None or shutil.which("mvn") is None
needs_maven = pytest.mark.skipif(missing, reason="there is no javac or no mvn to build android_demo by")
needs_built = pytest.mark.skipif(
    not all((BUILT / name).exists() for name in RESULTS),
    reason="android_demo/build is not complete: run make app, which needs java and mvn",
)


def rebuild(folder: Path) -> Path:
    """What the same sources give in a folder with another name: nobody's has to be called as ours."""
    demo = folder / "another place_é" / "android_demo"
    shutil.copytree(DEMO, demo, ignore=shutil.ignore_patterns("target", "build", ".gradle"))
    command = ["mvn", "--quiet", "--batch-mode", "package", "-Dmaven.test.skip=true"]
    done = subprocess.run(command, cwd=demo, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return demo / "build"


@pytest.fixture
def entries() -> dict[str, bytes]:
    with zipfile.ZipFile(BUILT / "app-template.apk") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@needs_maven
@needs_built
@pytest.mark.slow
@pytest.mark.parametrize("name", RESULTS)
def test_the_same_sources_give_the_same_bytes(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    there = shared(tmp_path_factory, "rebuilt", rebuild)
    first, second = (hashlib.sha256((folder / name).read_bytes()).hexdigest() for folder in (BUILT, there))
    assert first == second, "was make app run since the sources changed?"


@needs_built
def test_the_template_is_an_app_without_a_bundle(entries: dict[str, bytes]) -> None:
    assert {"AndroidManifest.xml", "resources.arsc", "classes.dex"} <= set(entries)
    assert entries["classes.dex"].startswith(b"dex\n035\0") or entries["classes.dex"].startswith(b"dex\n037\0")
    assert not [name for name in entries if name.startswith(("assets/", "META-INF/")) or name.endswith((".class", "/"))]
    libraries = sorted(name for name in entries if name.startswith("lib/"))
    abis = {name.split("/")[1] for name in libraries}
    assert "arm64-v8a" in abis
    assert libraries == sorted(
        f"lib/{abi}/{name}" for abi in abis for name in ("libjnijavacpp.so", "libjnitensorflowlite.so")
    )


@needs_built
def test_what_code_asks_for_by_name_is_in_it(entries: dict[str, bytes]) -> None:
    with zipfile.ZipFile(BUILT / "edgebert.jar") as jar:
        own = [name for name in jar.namelist() if not name.endswith((".class", "/", ".kotlin_module"))]
        asked = {name: jar.read(name) for name in own if not name.startswith("META-INF/")}
    assert asked
    assert {name: entries[name] for name in asked} == asked
    for abi, platform in (("arm64-v8a", "android-arm64"), ("x86_64", "android-x86_64")):
        if f"lib/{abi}/libjnijavacpp.so" in entries:
            assert f"platform={platform}" in entries[f"org/bytedeco/javacpp/properties/{platform}.properties"].decode()
    # Its native code looks these up.
    for kept in ("org/bytedeco/javacpp/Pointer", "org/bytedeco/tensorflowlite/Interpreter"):
        assert f"L{kept};".encode() in entries["classes.dex"]
    assert b"Ldev/edgebert/app/MainActivity;" in entries["classes.dex"]


@needs_built
def test_libraries_load_where_pages_are_16_kb(entries: dict[str, bytes]) -> None:
    """As Android's linker maps them: each segment begins at a page of its own, and what turns read-only ends there."""
    libraries = {name: content for name, content in entries.items() if name.endswith(".so")}
    assert libraries
    for name, content in libraries.items():
        assert content[:6] == b"\x7fELF\x02\x01", name
        assert struct.unpack_from("<H", content, 18)[0] == MACHINES[name.split("/")[1]]
        table, size, count = (*struct.unpack_from("<Q", content, 32), *struct.unpack_from("<HH", content, 54))
        segments = [struct.unpack_from("<IIQQQQQQ", content, table + i * size) for i in range(count)]
        pages: set[int] = set()
        for kind, _, offset, address, _, _, memory, alignment in segments:
            if kind != LOAD:
                continue
            assert alignment % PAGE == 0, name
            assert offset % PAGE == address % PAGE, name
            own = set(range(address // PAGE, (address + memory - 1) // PAGE + 1))
            assert not own & pages, f"{name}: two segments share a page"
            pages |= own
        for kind, _, _, address, _, _, memory, _ in segments:
            if kind == RELRO:
                end = -(-(address + memory) // PAGE) * PAGE
                others = [one[3] for one in segments if one[0] == LOAD and one[3] > address]
                assert all(end <= other // PAGE * PAGE for other in others), name


@needs_built
def test_the_manifest_says_what_it_should() -> None:
    tree = subprocess.run(
        [AAPT2, "dump", "xmltree", "--file", "AndroidManifest.xml", BUILT / "app-template.apk"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    told = dict(re.findall(r"android:(\w+)\(0x[0-9a-f]+\)=(\S+)", tree))
    assert (told["minSdkVersion"], told["targetSdkVersion"]) == ("24", "35")
    assert (told["allowBackup"], told["supportsRtl"], told["extractNativeLibs"]) == ("false", "true", "false")
    assert "permission" not in tree.lower()
    assert set(re.findall(r'android:label\(0x[0-9a-f]+\)="([^"]*)"', tree)) == {"edgebert"}
    assert re.findall(r"E: activity[^E]*?A: \S*android:name\(0x[0-9a-f]+\)=\"([^\"]*)\"", tree) == [
        "dev.edgebert.app.MainActivity"
    ]


@needs_built
def test_the_library_is_an_aar() -> None:
    with zipfile.ZipFile(BUILT / "edgebert.aar") as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    assert set(files) == {"AndroidManifest.xml", "classes.jar", "proguard.txt", "R.txt"}
    assert files["classes.jar"] == (BUILT / "edgebert.jar").read_bytes()
    assert files["proguard.txt"] == (DEMO / "edgebert" / "proguard.txt").read_bytes()
    assert files["R.txt"] == b""
    manifest = ElementTree.fromstring(files["AndroidManifest.xml"])
    assert manifest.get("package") == "dev.edgebert"
    uses = [(one.tag, list(one.attrib.values())) for one in manifest]
    assert uses == [("uses-sdk", ["24"])]
    with zipfile.ZipFile(io.BytesIO(files["classes.jar"])) as jar:
        classes = {name: jar.read(name) for name in jar.namelist() if name.endswith(".class")}
    assert "dev/edgebert/Edgebert.class" in classes
    assert all(name.startswith("dev/edgebert/") for name in classes)
    assert {struct.unpack_from(">H", content, 6)[0] for content in classes.values()} == {JAVA_11}
    assert not any(b"androidx/" in content for content in classes.values())


@needs_built
@pytest.mark.parametrize("name", RESULTS)
def test_no_folder_of_this_machine_is_in_it(name: str) -> None:
    with zipfile.ZipFile(BUILT / name) as archive:
        for entry in archive.namelist():
            assert str(ROOT).encode() not in archive.read(entry), entry


@pytest.mark.parametrize(
    ("options", "path", "text"),
    [
        ({}, "/nowhere", "make app needs Java 17 with its compiler, and Maven: javac or mvn is not here"),
        ({"ABIS": "armeabi-v7a"}, None, 'ABIS="armeabi-v7a": it takes arm64-v8a and x86_64'),
    ],
)
def test_make_app_says_what_is_missing(options: dict[str, str], path: str | None, text: str) -> None:
    make = shutil.which("make")
    if make is None:
        pytest.skip("there is no make")
    command = [make, "--directory", ROOT, "java", *(f"{name}={value}" for name, value in options.items())]
    environment = {"PATH": path} if path else None
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert text in done.stderr
