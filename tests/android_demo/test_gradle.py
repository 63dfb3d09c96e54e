"""Gradle's files say what Maven's say: no test runs Gradle, so they are held to the build that is tested."""

import re
import tomllib
from xml.etree import ElementTree

import pytest
from paths import ROOT

DEMO = ROOT / "android_demo"
POM = "{http://maven.apache.org/POM/4.0.0}"
CATALOG = tomllib.loads((DEMO / "gradle" / "libs.versions.toml").read_text(encoding="utf-8"))
SETTINGS = (DEMO / "settings.gradle.kts").read_text(encoding="utf-8")
MODULES = {"edgebert": "dev.edgebert", "app": "dev.edgebert.app"}
# Android's number of the release that aapt2 links against.
LEVELS = {"14": 34, "15": 35, "16": 36}
# The same classes by another name: Maven takes what runs on the JVM.
PHONES = {"com.microsoft.onnxruntime:onnxruntime": "com.microsoft.onnxruntime:onnxruntime-android"}
# What the Kotlin plugin brings by itself, and what LiteRT's interface is called where a compiler can read it.
BROUGHT = {"org.jetbrains.kotlin:kotlin-stdlib", "dev.edgebert:litert-api", "org.robolectric:android-all"}


def script(module: str) -> str:
    return (DEMO / module / "build.gradle.kts").read_text(encoding="utf-8")


def pom(module: str = "") -> ElementTree.Element:
    return ElementTree.parse(DEMO / module / "pom.xml").getroot()


def properties(module: str = "") -> dict[str, str]:
    found = pom(module).find(f"{POM}properties")
    assert found is not None
    return {one.tag.removeprefix(POM): one.text or "" for one in found}


def dependencies(module: str) -> set[str]:
    """What Maven gives the module itself, not its tests, as Gradle spells it."""
    found = set()
    for one in pom(module).findall(f"{POM}dependencies/{POM}dependency"):
        name = f"{one.findtext(f'{POM}groupId')}:{one.findtext(f'{POM}artifactId')}"
        if one.findtext(f"{POM}scope") != "test":
            found.add(PHONES.get(name, name))
    return found


def accessors(module: str) -> set[str]:
    """The entries of the catalog that a module names, outside of comments."""
    code = re.sub(r"//.*", "", script(module))
    return {name.replace(".", "-") for name in re.findall(r"libs\.((?!versions|plugins)[a-z.]+[a-z])", code)}


@pytest.mark.parametrize(
    "name", ["kotlin", "tensorflowlite", "javacpp", "onnxruntime", "litert", "gson", "minSdk", "targetSdk", "jvmTarget"]
)
def test_versions_are_the_same(name):
    told = properties()
    key = {"jvmTarget": "jvm.target"}.get(name, name if name in told else f"{name}.version")
    assert CATALOG["versions"][name] == told[key]


def test_the_app_is_of_the_same_version():
    assert CATALOG["versions"]["versionName"] == pom().findtext(f"{POM}version")
    assert CATALOG["versions"]["versionCode"] == properties("app")["versionCode"]


def test_resources_are_linked_against_the_same_android():
    release = properties("app")["platform.version"].partition("-")[0]
    assert int(CATALOG["versions"]["compileSdk"]) == LEVELS[release] >= int(CATALOG["versions"]["targetSdk"])


def test_settings_name_the_modules_that_have_scripts():
    named = set(re.findall(r'":(\w+)"', SETTINGS))
    assert named == {path.parent.name for path in DEMO.glob("*/build.gradle.kts")} == set(MODULES)
    assert named <= {one.text for one in pom().findall(f"{POM}modules/{POM}module")}


@pytest.mark.parametrize("module", MODULES)
def test_sources_stand_where_both_look(module):
    folder = pom().findtext(f"{POM}build/{POM}sourceDirectory")
    # Android's plugin looks into src/main/kotlin where nothing else is said.
    assert folder == "src/main/kotlin"
    assert "srcDir" not in script(module)
    sources = list((DEMO / module / folder).rglob("*.kt"))
    assert sources
    assert not list((DEMO / module / "src" / "main").rglob("*.java"))
    packages = {re.search(r"^package ([\w.]+)", file.read_text(encoding="utf-8"), re.M).group(1) for file in sources}
    assert all(f"{name}.".startswith(f"{MODULES[module]}.") for name in packages)


@pytest.mark.parametrize("module", MODULES)
def test_the_namespace_is_the_package_that_maven_puts_into_the_manifest(module):
    assert re.findall(r'namespace = "([\w.]+)"', script(module)) == [MODULES[module]]
    ant = DEMO / module / {"edgebert": "aar.xml", "app": "resources.xml"}[module]
    assert set(re.findall(r"package=&quot;([\w.]+)&quot;", ant.read_text(encoding="utf-8"))) == {MODULES[module]}
    manifest = (DEMO / module / "src" / "main" / "AndroidManifest.xml").read_text(encoding="utf-8")
    # What the plugin refuses or warns of in a source manifest.
    assert not re.search(r"\bpackage=|uses-sdk|versionCode|extractNativeLibs", manifest)


@pytest.mark.parametrize("module", MODULES)
def test_dependencies_are_the_same(module):
    named = {CATALOG["libraries"][name]["module"] for name in accessors(module)}
    wanted = dependencies(module) - BROUGHT - {"dev.edgebert:edgebert"}
    if module == "edgebert":
        assert named == wanted | {"org.tensorflow:tensorflow-lite", "org.tensorflow:tensorflow-lite-api"}
        copied = {one.text for one in pom("litert").iter(f"{POM}artifactId")}
        assert {"tensorflow-lite", "tensorflow-lite-api"} <= copied
    else:
        assert named == wanted | {"org.bytedeco:javacpp"}  # for its native part
        assert 'project(":edgebert")' in script(module)
        unpacked = {one.text for one in pom(module).iter(f"{POM}classifier")}
        assert set(re.findall(r'"(android-\w+)"', script(module))) <= unpacked


@pytest.mark.parametrize("module", MODULES)
def test_rules_for_shrinking_are_the_same(module):
    assert '"proguard.txt"' in script(module)
    ant = (DEMO / "app" / "apk.xml").read_text(encoding="utf-8")
    assert 'file="proguard.txt"' in ant
    assert 'file="../edgebert/proguard.txt"' in ant
    assert (DEMO / module / "proguard.txt").is_file()


def test_the_catalog_has_no_entry_that_nothing_uses():
    scripts = "".join(script(module) for module in MODULES)
    used = {name.replace(".", "-") for name in re.findall(r"libs\.((?!versions|plugins)[a-z.]+[a-z])", scripts)}
    assert used == set(CATALOG["libraries"])
    versions = set(re.findall(r"libs\.versions\.(\w+)", scripts))
    versions |= {one["version"]["ref"] for kind in ("libraries", "plugins") for one in CATALOG[kind].values()}
    assert versions == set(CATALOG["versions"])
