"""An APK of a bundle: the template's entries and the bundle's, named, aligned and signed."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

from edgebert import bundle
from edgebert.app import archive, identity, key, manifest, resources, signature, template
from edgebert.app.archive import PAGE, WORD, Entry
from edgebert.bundle.manifest import MANIFEST, Manifest
from edgebert.errors import InputError, Unsupported
from edgebert.files import is_file, replaced

Progress = Callable[[str], None]

PLACE = "assets/bundle/"
XML, TABLE = "AndroidManifest.xml", "resources.arsc"
# Of a signature of the older kind, which this one is not.
SIGNED = ("META-INF/MANIFEST.MF", ".SF", ".RSA", ".DSA", ".EC")
LARGEST = (1 << 31) - 1  # bytes of an APK: Android reads its offsets as signed numbers of 32 bits


@dataclass(frozen=True, slots=True)
class Made:
    """What came of it.

    Attributes:
        path: the APK; size: its bytes.
        application_id, name: what the app is called.
        key: whose key signed it; new_key: where a debug key was made for it, if one was.
    """

    path: Path
    size: int
    application_id: str
    name: str
    key: str
    new_key: Path | None

    @property
    def install(self) -> str:
        """The command that puts it on a phone."""
        return f"adb install -r {shlex.quote(str(self.path))}"


def apk(
    folder: str | Path,
    out: str | Path,
    name: str | None = None,
    application_id: str | None = None,
    key_file: str | Path | None = None,
    force: bool = False,
    progress: Progress = lambda step: None,
) -> Made:
    """Put a bundle into the app, and sign it; the APK appears whole or not at all.

    Args:
        folder: the bundle, for tflite, or for onnx where the template carries its library.
        out: the APK.
        name: under the app's picture; None takes the folder's name.
        application_id: None takes one that only this bundle has.
        key_file: PKCS#12, its password in the environment's EDGEBERT_KEY_PASSWORD; None takes the user's debug key.
        force: replace an APK that is there already.
        progress: is told each step.

    Raises:
        InputError: the folder is no bundle, something given is not usable, or something stands at `out`.
        MissingDependency: the template is not built, or cryptography not installed.
        Unsupported: the app does not run the bundle's target.
    """
    folder, out = Path(folder), Path(out)
    _check_place(out, force)
    key.check()
    progress("look at the bundle")
    told = read(folder)
    own, shown = identity.application_id(application_id, folder, told), identity.name(name, folder)
    with template.opened(template.find()) as built:
        template.check(built, told.target)
        signer, new = (key.load(Path(key_file)), None) if key_file else key.debug()
        progress("put it into the app")
        entries = [*_of_template(built, own, shown, identity.version(told)), *_of_bundle(folder, told)]
    with replaced(out) as beside:
        archive.write(beside, entries)
        progress(f"sign it with the key of {signer.subject}")
        signature.sign(beside, signer)
        size = beside.stat().st_size
    return Made(out, size, own, shown, signer.subject, new)


def read(folder: Path) -> Manifest:
    """The manifest of a bundle that the app may run.

    Raises:
        InputError: the folder is no bundle.
        Unsupported: no app runs the bundle's target.
    """
    told = bundle.read(folder)
    if told.target not in template.LIBRARIES:
        raise Unsupported(
            f"{folder} is for {told.target}, and the app runs {' and '.join(template.LIBRARIES)} files: export it with "
            "--target tflite."
        )
    if refused := next((note for note in told.notes if note.startswith(bundle.NO_APP)), None):
        raise Unsupported(f"{folder}: {refused}; android_demo's library would have to learn it.")
    return told


def _check_place(out: Path, force: bool) -> None:
    """Refuse what may not be replaced before any work."""
    if out.suffix != ".apk":
        raise InputError(f"--out {out}: the name of an app ends in .apk.")
    if not out.absolute().parent.is_dir():
        raise InputError(f"--out {out}: {out.parent} is no folder.")
    if not out.exists() and not out.is_symlink():
        return
    if not is_file(out) or out.read_bytes()[:2] not in (b"PK", b""):
        raise InputError(f"{out} exists and is no APK, so it is left alone: choose another --out.")
    if not force:
        raise InputError(f"{out} exists already: pass --force to replace it, or choose another --out.")


def _of_template(built: ZipFile, own: str, shown: str, version: str) -> list[Entry]:
    """The template's entries, the two that name the app patched; without a bundle or an older signature of its own."""
    names = [info.filename for info in built.infolist() if not info.is_dir()]
    for needed in (XML, TABLE):
        if needed not in names:
            raise InputError(f"{built.filename} has no {needed}: run make app again.")
    xml, old = manifest.patch(built.read(XML), own, shown, version)
    patched = {XML: xml, TABLE: resources.patch(built.read(TABLE), old, own)}
    return [
        Entry(name, patched.get(name) or built.read(name), _alignment(built, name))
        for name in names
        if not name.startswith(PLACE) and not (name.startswith("META-INF/") and name.endswith(SIGNED))
    ]


def _alignment(built: ZipFile, name: str) -> int | None:
    """What an entry is aligned to: libraries to pages, all else that is stored to words."""
    if name.startswith("lib/") and name.endswith(".so"):
        return PAGE
    return WORD if name == TABLE or not built.getinfo(name).compress_type else None


def _of_bundle(folder: Path, told: Manifest) -> list[Entry]:
    """The bundle's files: the model stored where a page begins, to be mapped."""
    total = sum(said["bytes"] for said in told.files.values())
    if total > LARGEST:
        raise InputError(f"{folder} has {total:,} bytes, and an app holds at most {LARGEST:,}: export it in 8 bits.")
    odd = next((name for name in told.files if not name.isascii() or not name.isprintable() or "\\" in name), None)
    if odd is not None:
        raise InputError(f"{folder} has a file {odd!r:.80}, which no app takes: export the bundle again.")
    model = told.model_files
    return [Entry(f"{PLACE}{name}", folder / name, PAGE if name in model else None) for name in (MANIFEST, *told.files)]
