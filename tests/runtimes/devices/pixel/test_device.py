"""The simulated Pixel: the phone's own kernels run, and counts of them are exact.

Runs on an emulated core are skipped where the sandbox is not set up: `edgebert device setup pixel` makes it.
"""

import shutil
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from foreign import SIZE, onnx_product, pte_file, tflite_file
from kernels import Kernel, kernels, multiplies
from tiers import quick

from edgebert.errors import InputError, MissingDependency
from edgebert.runtimes import RUNTIMES
from edgebert.runtimes.devices import open_device
from edgebert.runtimes.devices.device import SIMULATED, Job
from edgebert.runtimes.devices.guest import guest
from edgebert.runtimes.devices.pixel import counter, packages, phones, sandbox, setup
from edgebert.runtimes.devices.pixel.counter import Block, Counts
from edgebert.runtimes.devices.pixel.device import Pixel
from edgebert.runtimes.devices.pixel.symbols import Library, Namer

simulated = pytest.mark.skipif(sandbox.missing() is not None, reason=f"needs the sandbox: {sandbox.missing()}")
with_executorch = pytest.mark.skipif(
    sandbox.missing("executorch") is not None or RUNTIMES["executorch"].missing() is not None,
    reason="needs executorch, here and in the sandbox",
)


def phone(name: str) -> Pixel:
    device = open_device(name)
    assert isinstance(device, Pixel)
    return device


def product(path: Path, kind: str) -> Path:
    """A file with one matrix product of 64 rows and columns: `tflite-int8` and the like."""
    runtime, dtype = kind.split("-")
    if runtime == "tflite":
        return tflite_file(path / "a.tflite", False, dtype == "int8", rows=SIZE)[0]
    return onnx_product(path / "a.onnx", dtype == "int8")


# The kernel that each phone runs, by the name that the library gives it or by its arithmetic and tile where it gives
# none. LiteRT's float32 ones are those of XNNPACK's table by core: A75 and A76 6x8, X1 7x8, X3 8x8, X4 4x16; its int8
# ones on cores with dot products are Arm's KleidiAI in this build, and XNNPACK's own multiply-add without.
KERNELS = {
    ("pixel-3", "tflite-float32"): ("fmla32", 12, "6x8__asm_aarch64_neonfma_cortex_a75_prfm"),
    ("pixel-6", "tflite-float32"): ("fmla32", 14, "7x8__asm_aarch64_neonfma_ld128_2"),
    ("pixel-8", "tflite-float32"): ("fmla32", 16, "8x8__asm_aarch64_neonfma_ld128_2"),
    ("pixel-9", "tflite-float32"): ("fmla32", 16, "4x16__aarch64_neonfma_lane_ld128"),
    ("pixel-3", "tflite-int8"): ("smlal", 12, "xnn_qd8_f32_qc8w_gemm_minmax_ukernel_2x8c2s4__neon_mlal"),
    ("pixel-4", "tflite-int8"): ("sdot", 16, "neon_dotprod"),
    ("pixel-8", "tflite-int8"): ("smmla", 16, "neon_i8mm"),
    ("pixel-8", "onnx-float32"): ("fmla32", 16, None),
    ("pixel-3", "onnx-int8"): ("smlal", 4, None),
    ("pixel-4", "onnx-int8"): ("udot", 16, None),
    ("pixel-8", "onnx-int8"): ("ummla", 24, None),  # of SVE: 12 rows at once
    ("pixel-2", "tflite-float32"): ("fmla32", 12, "6x8__asm_aarch64_neonfma_cortex_a73"),
    ("pixel-2", "tflite-int8"): ("smlal", 12, "xnn_qd8_f32_qc8w_gemm_minmax_ukernel_2x8c2s4__neon_mlal"),
    ("pixel-10", "tflite-float32"): ("fmla32", 16, "4x16__aarch64_neonfma_lane_ld128"),
    ("pixel-10", "tflite-int8"): ("smmla", 16, "neon_i8mm"),
}


# A kernel of floats, and one of integers in each of two runtimes.
QUICK = [
    ("pixel-9", "tflite-float32"),
    ("pixel-8", "tflite-int8"),
    ("pixel-4", "onnx-int8"),
]


@simulated
@pytest.mark.parametrize(("name", "kind"), quick(KERNELS, QUICK))
def test_the_phones_own_kernel_runs(tmp_path: Path, name: str, kind: str) -> None:
    counts = phone(name).count(Job(product(tmp_path, kind)))
    told = [str(kernel) for kernel in kernels(counts)]
    arithmetic, accumulators, symbol = KERNELS[name, kind]
    ran = [k for k in kernels(counts) if k.kind == arithmetic]
    assert ran, told
    assert ran[0].accumulators == accumulators, told
    # Tiles may reach beyond the matrix; the products themselves are all done in this kernel, and that of its last rows.
    assert SIZE**3 <= sum(kernel.macs for kernel in ran) < 1.5 * SIZE**3, told
    assert symbol is None or (ran[0].symbol is not None and symbol in ran[0].symbol), told
    if kind.endswith("int8"):
        others = {"sdot", "udot", "smmla", "ummla", "smlal"} - {arithmetic}
        assert not [k for k in kernels(counts, 0.1) if k.kind in others], told
    assert counts.guest["machine"]["part"] == f"{phones.CORES[phones.PHONES[name].prime.core].part:#05x}"


@simulated
def test_counts_repeat_and_the_phones_answer_is_the_models(tmp_path: Path) -> None:
    path, weights = tflite_file(tmp_path / "a.tflite", True, rows=SIZE)
    first, second = (phone("pixel-4").count(Job(path)) for _ in range(2))
    assert abs(first.instructions - second.instructions) < 0.001 * first.instructions
    assert first.instructions > SIZE**3 / 4  # four products an instruction
    assert sum(block.instructions for block in first.blocks) == first.instructions
    shares = {block.library for block in first.blocks}
    assert {"libpywrap_litert_common.so", "libc.so.6"} <= shares
    values = np.random.default_rng(0).standard_normal((SIZE, SIZE)).astype(np.float32)
    np.savez(tmp_path / "in.npz", x=values)
    found = phone("pixel-4").measure(Job(path, inputs=tmp_path / "in.npz", outputs=tmp_path / "out.npz"))
    assert (found.how, found.first_ms, found.load_ms, found.peak_bytes) == (SIMULATED, None, None, None)
    assert abs(found.machine["instructions"] - first.instructions) < 0.01 * first.instructions  # of other values
    (name,) = np.load(tmp_path / "out.npz").files
    assert np.abs(np.load(tmp_path / "out.npz")[name] - values @ weights.T).max() < 1e-4


@simulated
def test_a_loop_of_known_length_is_counted_exactly(tmp_path: Path) -> None:
    """Only what runs between the markers counts, and all of it, also where a block jumps to itself."""
    loop = (0xF1000400, 0x54FFFFE1)  # subs x0, x0, #1; b.ne back to it
    code = f"""
import ctypes, mmap, os, struct
page = mmap.mmap(-1, 4096, prot=7)
page.write(struct.pack("<III", {loop[0]}, {loop[1]}, 0xD65F03C0))
turn = ctypes.CFUNCTYPE(None, ctypes.c_ulong)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
def mark(number):
    try: os.getpgid(number)
    except OSError: pass
turn(1000)
mark({guest.MARK_START})
turn(1_000_003)
mark({guest.MARK_END})
turn(1000)
"""
    told = counter._run(sandbox.open(), phones.PHONES["pixel-4"], tmp_path, ["-c", code], timeout=120)
    assert told.returncode == 0, told.stderr
    blocks = counter.parse((tmp_path / "blocks").read_bytes())
    assert [block.times for block in blocks if block.words == loop] == [1_000_003]
    assert sum(block.instructions for block in blocks if block.words != loop) < 100_000  # Python's own


@simulated
@with_executorch
def test_executorch_runs_on_the_phone_without_torchs_python_side(tmp_path: Path) -> None:
    path = pte_file(tmp_path / "a.pte", "encode")
    given = {"ids": np.arange(16, dtype=np.int32).reshape(1, 16), "scale": np.full((1, 1), 2, np.float32)}
    np.savez(tmp_path / "in.npz", **given)  # type: ignore[arg-type]
    counts = phone("pixel-3").count(Job(path, inputs=tmp_path / "in.npz", outputs=tmp_path / "out.npz"))
    out = np.load(tmp_path / "out.npz")["output_0"]
    assert np.abs(out - np.load(tmp_path / "expected.npy")).max() < 1e-5
    top = kernels(counts)[0]
    assert (top.kind, top.accumulators) == ("fmla32", 12), [str(kernel) for kernel in kernels(counts)]
    assert counts.guest["versions"]["executorch"]


@pytest.mark.parametrize("name", ["pixel", "pixel-2"])
def test_a_core_that_torchs_libraries_end_at_is_told_before_they_do(tmp_path: Path, name: str) -> None:
    path = tmp_path / "m.pte"
    path.write_bytes(b"a file")
    with pytest.raises(InputError, match=r"Armv8\.0 core such as its .*: take a \.tflite or \.onnx file"):
        phone(name).measure(Job(path))


@simulated
def test_a_broken_file_is_told_from_a_broken_sandbox(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"nothing")
    with pytest.raises(InputError, match="InvalidProtobuf"):
        phone("pixel-4").count(Job(tmp_path / "a.onnx"))


def test_every_phone_has_a_processor_that_shows_what_its_core_has() -> None:
    for core in phones.CORES.values():
        processor = phones.PROCESSORS[core.features]
        assert set(core.features) <= set(processor.hwcaps.split())
        for feature in {"asimddp", "i8mm", "sve", "sve2", "sme"} - set(core.features):
            assert feature not in processor.hwcaps.split()
        assert f"midr={core.implementer << 24 | 0xF0001 | core.part << 4:#x}" in phones.qemu_cpu(core)
    for name, one in phones.PHONES.items():
        assert one.name == name
        assert sum(cluster.count for cluster in one.clusters) in (4, 8, 9)
        clocks = [cluster.ghz for cluster in one.clusters]
        assert clocks == sorted(clocks, reverse=True)
        assert {cluster.core for cluster in one.clusters} <= set(phones.CORES)


@simulated
@pytest.mark.parametrize("name", ["pixel-2", "pixel-3", "pixel-4", "pixel-8"])
def test_the_kernels_bits_the_files_and_the_register_agree(tmp_path: Path, name: str) -> None:
    """Software asks any of the three what core it is on."""
    code = """
import ctypes, json, mmap, struct
libc = ctypes.CDLL(None)
libc.getauxval.restype = ctypes.c_ulong
page = mmap.mmap(-1, 4096, prot=7)
page.write(struct.pack("<II", 0xD5380000, 0xD65F03C0))  # mrs x0, midr_el1; ret
read = ctypes.CFUNCTYPE(ctypes.c_ulong)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
cpu = open("/sys/devices/system/cpu/cpu3/regs/identification/midr_el1").read()
facts = dict(line.split(":") for line in open("/proc/cpuinfo") if ":" in line)
open(OUT, "w").write(json.dumps([libc.getauxval(16), libc.getauxval(26), read(), int(cpu, 16), facts]))
"""
    import json

    out = tmp_path / "out.json"
    told = counter._run(
        sandbox.open(), phones.PHONES[name], tmp_path, ["-c", code.replace("OUT", repr(str(out)))], timeout=120
    )
    assert told.returncode == 0, told.stderr
    low, high, register, file, facts = json.loads(out.read_text())
    # Bits of AT_HWCAP and AT_HWCAP2, see the kernel's arch/arm64/include/uapi/asm/hwcap.h.
    bits = {"fphp": low >> 9, "asimdhp": low >> 10, "asimddp": low >> 20, "sve": low >> 22, "i8mm": high >> 13,
            "atomics": low >> 8, "bf16": high >> 14, "sme": high >> 23, "sve2": high >> 1,
            "svei8mm": high >> 9}  # fmt: skip
    features = next(value for key, value in facts.items() if key.strip() == "Features").split()
    assert {bit for bit, value in bits.items() if value & 1} == set(bits) & set(features)
    core = phones.CORES[phones.PHONES[name].prime.core]
    assert register == file == core.midr
    assert int(next(value for key, value in facts.items() if key.strip() == "CPU part"), 16) == core.part


def test_instructions_are_told_by_their_words() -> None:
    # As GNU's assembler writes them.
    words = {
        0x4E22CC20: "fmla32",  # fmla v0.4s, v1.4s, v2.4s
        0x4F821020: "fmla32",  # fmla v0.4s, v1.4s, v2.s[0]
        0x4E420C20: "fmla16",  # fmla v0.8h, v1.8h, v2.8h
        0x4E829420: "sdot",  # sdot v0.4s, v1.16b, v2.16b
        0x4F82E020: "sdot",  # sdot v0.4s, v1.16b, v2.4b[0]
        0x6E829420: "udot",  # udot v0.4s, v1.16b, v2.16b
        0x4E82A420: "smmla",  # smmla v0.4s, v1.16b, v2.16b
        0x6E82A420: "ummla",  # ummla v0.4s, v1.16b, v2.16b
        0x0E628020: "smlal",  # smlal v0.4s, v1.4h, v2.4h
        0x0E22C020: "smlal",  # smull v0.8h, v1.8b, v2.8b
        0x4F422020: "smlal",  # smlal2 v0.4s, v1.8h, v2.h[0]
        0x4E62CC20: None,  # fmla v0.2d, v1.2d, v2.2d
        0x6E22DC20: None,  # fmul v0.4s, v1.4s, v2.4s
        0x4EA2CC20: None,  # fmls v0.4s, v1.4s, v2.4s
        0x3DC00020: None,  # ldr q0, [x1]
        0xD65F03C0: None,  # ret
    }
    assert {word: multiplies(word) for word in words} == words


def test_blocks_of_a_library_without_names_are_joined_where_they_are_neighbours() -> None:
    fmla, sdot = 0x4E22CC20, 0x4E829420

    def block(offset: int, times: int, *words: int, symbol: str | None = None) -> Block:
        return Block(offset + 0x1000, times, words, "lib.so", offset, symbol)

    counts = Counts(0, (
        block(0x100, 10, fmla, fmla + 1, 0), block(0x180, 2, fmla), block(0x900, 1, sdot), block(0x190, 1, sdot),
        block(0x5000, 3, fmla, symbol="named"), block(0x5010, 4, fmla + 2, fmla + 3, fmla + 3, symbol="named"),
    ), {}, "")  # fmt: skip
    assert kernels(counts) == (
        Kernel("fmla32", None, "lib.so", 0x100, 2, 88, 32),
        Kernel("fmla32", "named", "lib.so", 0x5010, 2, 60, 15),
        Kernel("sdot", None, "lib.so", 0x190, 1, 16, 1),
        Kernel("sdot", None, "lib.so", 0x900, 1, 16, 1),
    )
    assert kernels(counts, 0.2)[-1].symbol == "named"


def test_the_counters_file_is_read_to_its_end_or_refused() -> None:
    record = struct.pack("<QQII3I", 0x4000, 7, 3, 0, 1, 2, 3)
    assert counter.parse(record * 2) == [Block(0x4000, 7, (1, 2, 3))] * 2
    assert counter.parse(b"") == []
    for cut in (1, 20, len(record) - 1):
        with pytest.raises(InputError, match="cut short"):
            counter.parse(record[:cut])


def test_addresses_get_their_librarys_names() -> None:
    """On this interpreter's own files, whose names the system's linker knows."""
    import _ctypes as extension
    import ctypes

    path = Path(extension.__file__)
    if sys.platform != "linux":
        pytest.skip("reads ELF files")
    library = ctypes.CDLL(str(path))
    address = ctypes.cast(library.PyInit__ctypes, ctypes.c_void_p).value
    assert address is not None
    maps = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, access, offset, _, _, *name = line.split(None, 5)
        if name and name[0] == str(path) and "x" in access:
            start, end = (int(number, 16) for number in span.split("-"))
            maps.append([start, end, int(offset, 16), name[0]])
    namer = Namer(maps)
    place = namer.place(address)
    assert place is not None
    assert (place.library, place.symbol) == (path.name, "PyInit__ctypes")
    assert namer.place(8) is None
    assert Library(Path(__file__)).place(4).symbol is None  # no ELF file
    assert Library(path.with_name("nothing")).place(4).symbol is None


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, and package tools that make small files instead of asking a network."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def deb(folder: Path, names: tuple[str, ...], architecture: str | None = None) -> list[Path]:
        (folder / f"{names[0]}.deb").write_text(architecture or "")
        return [folder / f"{names[0]}.deb"]

    def unpack(deb: Path, part: Path) -> None:
        (part / "usr" / "bin").mkdir(parents=True)
        name = "python3.11" if deb.read_text() else "qemu-aarch64"
        (part / "usr" / "bin" / name).write_bytes(b"\x7fELF" + bytes(14) + b"\xb7\x00")

    def wheels(folder: Path, requirements: tuple[str, ...], python: str, needs: bool = True) -> list[Path]:
        assert python == "3.11"
        return [folder / f"{requirement.partition('=')[0]}-1.0-cp311.whl" for requirement in requirements]

    monkeypatch.setattr(packages, "fetch_debs", deb)
    monkeypatch.setattr(packages, "unpack_deb", unpack)
    monkeypatch.setattr(packages, "fetch_wheels", wheels)
    monkeypatch.setattr(packages, "unpack_wheel", lambda wheel, part, wanted: (part / wheel.name).write_text("x"))
    monkeypatch.setattr(setup, "_takes_plugins", lambda emulator, libraries: emulator.is_relative_to(tmp_path))
    monkeypatch.setattr(setup, "_try_out", lambda box: None)
    if not shutil.which("cc"):
        pytest.skip("needs a C compiler")
    return tmp_path / "cache" / "edgebert" / "pixel"


def test_setting_up_is_repeated_without_work_and_mends_what_was_damaged(cache: Path) -> None:
    lines: list[str] = []
    assert sandbox.missing() == sandbox.SETUP
    box = setup.setup(lines.append)
    assert [line.partition(":")[0] for line in lines[:-1:2]] == list(sandbox.PARTS)
    assert (box.python, box.sites) == ("usr/bin/python3.11", (cache / "runtimes", cache / "executorch"))
    assert box.counter.stat().st_size > 1000
    assert sandbox.missing("executorch") is None
    lines.clear()
    setup.setup(lines.append)
    assert lines[:-1] == [f"{part}: there, and whole" for part in sandbox.PARTS]
    (cache / "runtimes" / "onnxruntime-1.0-cp311.whl").write_text("y")
    (cache / "qemu" / "usr" / "bin" / "qemu-aarch64").unlink()
    lines.clear()
    setup.setup(lines.append)
    assert {line.partition(":")[0] for line in lines if "fetching" in line} == {"runtimes", "qemu"}


def test_an_interrupted_set_up_goes_on_where_it_was(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = packages.fetch_wheels

    def interrupted(folder: Path, *asked: object, **more: object) -> list[Path]:
        (folder / "half.whl").write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(packages, "fetch_wheels", interrupted)
    with pytest.raises(KeyboardInterrupt):
        setup.setup()
    assert {path.name for path in cache.iterdir()} == {"qemu", "system", "lock"}
    (cache / ".part-runtimes-left").mkdir()  # as a killed one leaves it
    monkeypatch.setattr(packages, "fetch_wheels", whole)
    lines: list[str] = []
    setup.setup(lines.append, executorch=False)
    assert lines[:2] == ["qemu: there, and whole", "system: there, and whole"]
    assert {path.name for path in cache.iterdir()} == {"qemu", "system", "runtimes", "counter", "lock"}
    assert sandbox.missing() is None
    assert sandbox.missing("executorch") == sandbox.SETUP
    with pytest.raises(MissingDependency, match="device setup pixel"):
        sandbox.open("executorch")


def test_a_sysroot_takes_the_place_of_debians_packages(cache: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "usr" / "bin").mkdir(parents=True)
    with pytest.raises(InputError, match=r"usr/bin/python3"):
        setup.setup(sysroot=root)
    (root / "usr" / "bin" / "python3.11").write_bytes(b"\x7fELF" + bytes(14) + b"\x3e\x00")
    with pytest.raises(InputError, match="not a program for aarch64"):
        setup.setup(sysroot=root)
    (root / "usr" / "bin" / "python3.11").write_bytes(b"\x7fELF" + bytes(14) + b"\xb7\x00")
    box = setup.setup(sysroot=root)
    assert (box.system / "usr").resolve() == root / "usr"
    assert sandbox.missing() is None


def test_what_the_machine_lacks_is_named(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependency, match=r"apt-get.*--sysroot DIR"):
        setup.setup()
    static = tmp_path / "qemu-aarch64"
    static.write_text("#!/bin/sh\necho \"qemu: unknown option 'plugin'\" >&2\nexit 1\n")
    static.chmod(0o755)
    assert not setup._takes_plugins(static, None)
    static.write_text("#!/bin/sh\necho 'qemu: Could not load plugin /x.so' >&2\nexit 1\n")
    assert setup._takes_plugins(static, None)
    with pytest.raises(MissingDependency, match=r"python3|apt-get"):
        setup.setup()
    with pytest.raises(MissingDependency, match="no C compiler"):
        setup._make_counter(tmp_path, tmp_path)
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(MissingDependency, match="Linux"):
        setup.setup()
