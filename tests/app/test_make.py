"""Apps made of a bundle and a template that stands in for the built one: entries, alignment, names, keys, refusals."""

import hashlib
import io
import json
import os
import stat
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import bundles
import pytest
import templates
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    NoEncryption,
    load_der_public_key,
    pkcs12,
)

from edgebert.app import identity, key, make, template
from edgebert.bundle.manifest import SEAL, read, sealed
from edgebert.cli.main import main
from edgebert.errors import InputError, MissingDependency, Unsupported

MAGIC = b"APK Sig Block 42"


@pytest.fixture(scope="module")
def assistant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle for tflite, as far as its manifest goes."""
    return bundles.tflite(tmp_path_factory.mktemp("bundle") / "My Assistant")


def entries(apk: Path) -> dict[str, tuple[int, bool, bytes]]:
    """Where each entry's bytes begin, whether they are stored, and what they are."""
    found = {}
    with zipfile.ZipFile(apk) as archive, apk.open("rb") as file:
        for info in archive.infolist():
            file.seek(info.header_offset)
            head = file.read(30)
            name, extra = struct.unpack("<2H", head[26:30])
            begin = info.header_offset + 30 + name + extra
            found[info.filename] = (begin, info.compress_type == zipfile.ZIP_STORED, archive.read(info))
    return found


def test_an_app_has_the_templates_entries_and_the_bundles(assistant: Path, stand_in: Path, tmp_path: Path) -> None:
    made = make.apk(assistant, tmp_path / "a.apk")
    found = entries(made.path)
    own = read(assistant)
    for name in ("manifest.json", *own.files):
        assert found.pop(f"assets/bundle/{name}")[2] == (assistant / name).read_bytes()
    with zipfile.ZipFile(stand_in) as theirs:
        left = {name for name in theirs.namelist() if name not in ("META-INF/CERT.RSA", "assets/bundle/manifest.json")}
        assert set(found) == left
        same = left - {"AndroidManifest.xml", "resources.arsc"}
        assert all(found[name][2] == theirs.read(name) for name in same)
    assert found["resources.arsc"][2] == templates.resources(made.application_id)
    assert made.name == "My Assistant"
    assert made.application_id == f"dev.edgebert.app.my_assistant_{own.files['model.tflite']['sha256'][:8]}"
    assert made.size == made.path.stat().st_size
    assert made.install == f"adb install -r {tmp_path}/a.apk"


def test_what_android_maps_is_stored_and_begins_at_a_page(assistant: Path, stand_in: Path, tmp_path: Path) -> None:
    found = entries(make.apk(assistant, tmp_path / "a.apk").path)
    for name in ("assets/bundle/model.tflite", "lib/arm64-v8a/libjnitensorflowlite.so"):
        assert found[name][1]
        assert found[name][0] % 16384 == 0
    assert found["resources.arsc"][1]
    assert found["resources.arsc"][0] % 4 == 0
    assert not any(found[name][1] for name in ("classes.dex", "assets/bundle/manifest.json", "AndroidManifest.xml"))


def test_the_same_bundle_gives_the_same_bytes(assistant: Path, stand_in: Path, tmp_path: Path) -> None:
    one, other = (make.apk(assistant, tmp_path / name).path.read_bytes() for name in ("a.apk", "b.apk"))
    assert one == other


def test_two_bundles_are_two_apps(stand_in: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, other = bundles.tflite(tmp_path / "a/same"), bundles.tflite(tmp_path / "b/same", b"another")
    ids = {make.apk(folder, tmp_path / f"{folder.parent.name}.apk").application_id for folder in (one, other)}
    assert len(ids) == 2
    assert all(name.startswith("dev.edgebert.app.same_") for name in ids)


@pytest.mark.parametrize("name", ["助手", "7 days", "--", "a" * 300, "Ünï.Cødé", "_x_"])
def test_any_folders_name_makes_an_id_that_android_takes(assistant: Path, name: str) -> None:
    made = identity.application_id(None, Path("/nowhere") / name, read(assistant))
    assert identity.application_id(made, assistant, read(assistant)) == made


@pytest.mark.parametrize(
    "given",
    ["assistant", "", ".a.b", "a..b", "a.b.", "a.1b", "a.b-c", "a.é", "a b.c", "a._b", "a.b\n", "a." + "b" * 126],
)
def test_ids_that_android_refuses_are_refused(assistant: Path, stand_in: Path, tmp_path: Path, given: str) -> None:
    with pytest.raises(InputError, match="an application id has two parts or more"):
        make.apk(assistant, tmp_path / "a.apk", application_id=given)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stand-in.apk"]


@pytest.mark.parametrize("given", ["", "  ", "a\nb", "a" * 101, "a\ud800", "\u2028"])
def test_names_that_are_no_line_are_refused(assistant: Path, stand_in: Path, tmp_path: Path, given: str) -> None:
    with pytest.raises(InputError, match="a name has 1 to 100 characters"):
        make.apk(assistant, tmp_path / "a.apk", name=given)


def signature(apk: Path) -> tuple[int, bytes, bytes]:
    """The algorithm of an app's one signature, its certificate, and the digest that it is of; all lengths hold."""
    data = apk.read_bytes()
    (directory,) = struct.unpack_from("<I", data, len(data) - 6)
    size = struct.unpack_from("<Q", data, directory - 24)[0]
    begin = directory - size - 8
    assert data[directory - 16 : directory] == MAGIC
    assert struct.unpack_from("<Q", data, begin)[0] == size
    pair, number = struct.unpack_from("<QI", data, begin + 8)
    assert number == 0x7109871A
    assert pair == size - 24 - 8

    def parts(block: bytes) -> list[bytes]:
        found, at = [], 0
        while at < len(block):
            (length,) = struct.unpack_from("<I", block, at)
            found.append(block[at + 4 : at + 4 + length])
            assert len(found[-1]) == length
            at += 4 + length
        return found

    ((signer,),) = map(parts, parts(data[begin + 20 : begin + 16 + pair]))
    signed, signatures, public = parts(signer)
    digests, certificates, attributes = parts(signed)
    assert attributes == b""
    ((certificate,), (digest,), (made,)) = parts(certificates), parts(digests), parts(signatures)
    (algorithm,) = struct.unpack_from("<I", made)
    assert struct.unpack_from("<I", digest)[0] == algorithm
    assert x509.load_der_x509_certificate(certificate).public_key() == load_der_public_key(public)
    hashed = hashes.SHA256() if algorithm in (0x0103, 0x0201) else hashes.SHA512()
    theirs = load_der_public_key(public)
    if isinstance(theirs, rsa.RSAPublicKey):
        theirs.verify(parts(made[4:])[0], signed, padding.PKCS1v15(), hashed)
    else:
        assert isinstance(theirs, ec.EllipticCurvePublicKey)
        theirs.verify(parts(made[4:])[0], signed, ec.ECDSA(hashed))
    whole = data[:begin], data[directory:-22], data[-22:-6] + struct.pack("<I", begin) + data[-2:]
    chunks = [part[at : at + (1 << 20)] for part in whole for at in range(0, len(part), 1 << 20)]
    name = hashed.name
    each = [hashlib.new(name, b"\xa5" + struct.pack("<I", len(chunk)) + chunk).digest() for chunk in chunks]
    top = hashlib.new(name, b"\x5a" + struct.pack("<I", len(each)) + b"".join(each)).digest()
    assert parts(digest[4:]) == [top]
    return algorithm, certificate, top


def test_the_debug_key_is_made_once_for_its_user_alone(
    assistant: Path, stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    first = make.apk(assistant, tmp_path / "a.apk")
    path = tmp_path / "settings/edgebert/debug.p12"
    assert first.new_key == path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [one.name for one in path.parent.iterdir()] == ["debug.p12"]
    second = make.apk(assistant, tmp_path / "b.apk", name="another")
    assert second.new_key is None
    told = [signature(one.path) for one in (first, second)]
    assert told[0][:2] == told[1][:2]
    assert told[0][0] == 0x0103
    assert told[0][2] != told[1][2]


def test_two_at_once_sign_with_one_key(tmp_path: Path) -> None:
    code = "from edgebert.app import key; print(key.debug()[0].certificate.hex())"
    several = [
        subprocess.Popen(
            [sys.executable, "-c", code], env=os.environ | {"XDG_CONFIG_HOME": str(tmp_path)}, stdout=subprocess.PIPE
        )
        for _ in range(4)
    ]
    assert len({one.communicate()[0] for one in several}) == 1
    assert [path.name for path in (tmp_path / "edgebert").iterdir()] == ["debug.p12"]


OWN_KEYS = {
    "RSA of 2048": (lambda: rsa.generate_private_key(65537, 2048), 0x0103),
    "RSA of 4096": (lambda: rsa.generate_private_key(65537, 4096), 0x0104),
    "P-256": (lambda: ec.generate_private_key(ec.SECP256R1()), 0x0201),
    "P-384": (lambda: ec.generate_private_key(ec.SECP384R1()), 0x0202),
}


def save_key(path: Path, private: object, password: bytes | None = b"a word") -> Path:
    """A key with its certificate, as `keytool -storetype PKCS12` writes it."""
    from datetime import UTC, datetime, timedelta

    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "me")])
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(name, name, private.public_key(), 1, begin, begin + timedelta(days=9999))
    hashed = None if isinstance(private, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    lock = BestAvailableEncryption(password) if password else NoEncryption()
    data = pkcs12.serialize_key_and_certificates(b"me", private, builder.sign(private, hashed), None, lock)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("kind", OWN_KEYS)
def test_keys_of_ones_own_sign_as_their_kind_asks(
    kind: str, assistant: Path, stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh, algorithm = OWN_KEYS[kind]
    path = save_key(tmp_path / "own.p12", fresh())
    with pytest.raises(InputError, match="set EDGEBERT_KEY_PASSWORD to its password"):
        make.apk(assistant, tmp_path / "a.apk", key_file=path)
    monkeypatch.setenv("EDGEBERT_KEY_PASSWORD", "a word")
    made = make.apk(assistant, tmp_path / "a.apk", key_file=path)
    assert signature(made.path)[0] == algorithm
    assert (made.key, made.new_key) == ("CN=me", None)


def test_keys_that_android_does_not_take_are_refused(tmp_path: Path) -> None:
    for private in (ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256K1())):
        with pytest.raises(InputError, match="Android takes RSA and"):
            key.load(save_key(tmp_path / "own.p12", private, None))
    (tmp_path / "own.p12").write_bytes(b"no key")
    with pytest.raises(InputError, match=r"own\.p12 is no PKCS#12 file"):
        key.load(tmp_path / "own.p12")
    with pytest.raises(InputError, match=r"has no absent\.p12"):
        key.load(tmp_path / "absent.p12")


@pytest.mark.parametrize("target", ["executorch", "coreml"])
def test_targets_that_the_app_does_not_run_are_told(target: str, stand_in: Path, tmp_path: Path) -> None:
    folder = bundles.tflite(tmp_path / "other", target=target)
    with pytest.raises(Unsupported, match="the app runs tflite and onnx files: export it with --target tflite"):
        make.apk(folder, tmp_path / "a.apk")


def test_onnx_takes_a_template_with_its_library(stand_in: Path, tmp_path: Path) -> None:
    folder = tmp_path / "onnx"
    folder.mkdir()
    bundles.write(folder)
    assert not template.carries("onnx")
    with pytest.raises(Unsupported, match="has no library that runs onnx files: export with --target tflite"):
        make.apk(folder, tmp_path / "a.apk")
    templates.write(stand_in, ("libonnxruntime.so", "libonnxruntime4j_jni.so"))
    assert template.carries("onnx")
    assert not template.carries("tflite")
    assert entries(make.apk(folder, tmp_path / "a.apk").path)["assets/bundle/model.onnx"][1]


def test_a_template_that_is_missing_or_damaged_is_told(
    assistant: Path, stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = stand_in.read_bytes()
    for content in (b"", b"PK", whole[: len(whole) // 2], whole[:-30]):
        stand_in.write_bytes(content)
        with pytest.raises(InputError, match="run make app again"):
            make.apk(assistant, tmp_path / "a.apk")
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        entry = archive.getinfo("AndroidManifest.xml")
    start = entry.header_offset + 30 + len(entry.filename)
    for place in range(start, start + 20):  # in what is compressed, where zlib trips first, or the sum is another
        stand_in.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        with pytest.raises(InputError, match="run make app again"):
            make.apk(assistant, tmp_path / "a.apk")
    for lacking in ("manifest", "resources"):
        templates.write(stand_in, **{lacking: None})
        with pytest.raises(InputError, match="run make app again"):
            make.apk(assistant, tmp_path / "a.apk")
    stand_in.unlink()
    monkeypatch.setattr(template, "PACKED", tmp_path / "nowhere")
    with pytest.raises(MissingDependency, match="run make app in a checkout of edgebert"):
        make.apk(assistant, tmp_path / "a.apk")
    assert template.carries("tflite")
    assert not template.carries("onnx")
    assert list(tmp_path.iterdir()) == []


def test_what_stands_there_is_replaced_only_by_force(assistant: Path, stand_in: Path, tmp_path: Path) -> None:
    made = make.apk(assistant, tmp_path / "a.apk")
    with pytest.raises(InputError, match="exists already: pass --force"):
        make.apk(assistant, made.path)
    before = made.path.read_bytes()
    assert make.apk(assistant, made.path, name="another", force=True).path.read_bytes() != before
    (tmp_path / "text.apk").write_text("mine")
    (tmp_path / "folder.apk").mkdir()
    for name in ("text.apk", "folder.apk"):
        with pytest.raises(InputError, match="is no APK, so it is left alone"):
            make.apk(assistant, tmp_path / name, force=True)
    with pytest.raises(InputError, match=r"ends in \.apk"):
        make.apk(assistant, tmp_path / "a.zip")
    with pytest.raises(InputError, match="is no folder"):
        make.apk(assistant, tmp_path / "nowhere" / "a.apk")


def test_a_damaged_bundle_and_a_file_that_no_app_takes_are_refused(stand_in: Path, tmp_path: Path) -> None:
    folder = bundles.tflite(tmp_path / "odd")
    (folder / "model.tflite").write_bytes(b"other")
    with pytest.raises(InputError, match=r"model\.tflite is not the file that was exported"):
        make.apk(folder, tmp_path / "a.apk")
    raw = json.loads((folder / "manifest.json").read_text())
    (folder / "model.tflite").write_bytes(b"model" * 5000)
    (folder / "ü").write_bytes(b"")
    del raw[SEAL]
    raw["files"]["ü"] = {"bytes": 0, "sha256": hashlib.sha256(b"").hexdigest()}
    (folder / "manifest.json").write_bytes(sealed(raw))
    with pytest.raises(InputError, match="which no app takes"):
        make.apk(folder, tmp_path / "a.apk")


def test_a_bundle_that_is_larger_than_an_app_is_refused(
    assistant: Path, stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make, "LARGEST", 10_000)
    with pytest.raises(InputError, match="an app holds at most 10,000"):
        make.apk(assistant, tmp_path / "a.apk")


def test_without_cryptography_the_command_is_told(
    assistant: Path, stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(key, "missing", lambda: 'pip install "edgebert[app]"')
    assert main(["app", str(assistant), "--out", str(tmp_path / "a.apk")]) == 3
    assert 'run pip install "edgebert[app]"' in capsys.readouterr().err


def test_a_full_disk_leaves_nothing(
    assistant: Path, stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(make.signature, "sign", full)
    with pytest.raises(InputError, match="No space left"):
        make.apk(assistant, tmp_path / "a.apk")
    assert [path.name for path in tmp_path.iterdir()] == ["stand-in.apk"]
