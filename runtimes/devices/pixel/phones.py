"""Google Pixel phones and their cores: what each is made of, and the files by which software tells them apart.

The runtimes choose their kernels by a core's identity and features, which they read from `/proc/cpuinfo`, from
`/sys/devices/system/cpu` and from the kernel's HWCAP bits. The first two are made here; the bits come from the emulated
processor, chosen to have what the phone's core has as far as kernels are concerned, and `Features` repeats them.

Sources: part numbers from the Linux kernel's arch/arm64/include/asm/cputype.h; clusters and clocks from the logs of
hiroog/vfpbench taken on the phones and from public tables and device trees (Pixel 4, 6); DRAM from the data sheets of
the SoCs; rates from those logs ("measured") or from LLVM's scheduling tables, seen to be up to two times optimistic.
"""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Core:
    """One kind of processor core; rates are instructions a cycle, latencies cycles, None where it is not known.

    Attributes:
        implementer: who made it, as `/proc/cpuinfo` has it: 0x41 Arm, 0x51 Qualcomm.
        part: the part number there.
        in_order: whether instructions issue in program order.
        dispatch: instructions that can start in a cycle.
        fmla4s: of 128-bit float multiply-accumulates; fmul4s, fadd4s, sdot likewise.
        load_q: 128-bit loads; store_q 128-bit stores.
        fmla_latency: from a factor to the result, and from the accumulator to the result.
        features: what kernels are chosen by: asimdhp float16 arithmetic, asimddp dot products, i8mm matrix products,
            sve, sve2 vectors of a length that is not told, svei8mm their matrix products.
    """

    implementer: int
    part: int
    in_order: bool
    dispatch: int
    fmla4s: float
    fmul4s: float
    fadd4s: float
    sdot: float | None
    load_q: float
    store_q: float
    fmla_latency: tuple[int, int]
    features: tuple[str, ...]

    @property
    def midr(self) -> int:
        """The identity register, revision 1 of variant 0: kernels are not chosen by these."""
        return self.implementer << 24 | 0xF << 16 | self.part << 4 | 1


PLAIN: tuple[str, ...] = ()
HALF = ("asimdhp",)
DOT = ("asimdhp", "asimddp")
SCALABLE = ("asimdhp", "asimddp", "i8mm", "sve", "sve2", "svei8mm")

CORES: dict[str, Core] = {
    # Kryo 280 Silver and Gold.
    "cortex-a53": Core(0x51, 0x801, True, 2, 1.0, 1.0, 1.0, None, 1.0, 1.0, (8, 4), PLAIN),
    "cortex-a73": Core(0x51, 0x800, False, 2, 1.0, 1.0, 1.0, None, 1.0, 1.0, (7, 4), PLAIN),
    # The first, of Qualcomm's own make.
    "kryo": Core(0x51, 0x205, False, 4, 1.0, 1.0, 1.0, None, 1.0, 1.0, (5, 4), PLAIN),
    # A 128-bit load costs 2 cycles and does not pair with FMLA; 64-bit ones and INS do (ncnn, onnxruntime #10754).
    "cortex-a55": Core(0x41, 0xD05, True, 2, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, (4, 4), DOT),
    # Kryo 385 Gold, measured.
    "cortex-a75": Core(0x51, 0x802, False, 3, 1.0, 1.0, 1.0, None, 2.0, 1.0, (5, 3), HALF),
    # Kryo 485 Gold, measured; plain A76 (0x41, 0xd0b) as the middle core of Pixel 6.
    "cortex-a76": Core(0x51, 0x804, False, 4, 2.0, 2.0, 2.0, 2.0, 2.0, 1.0, (4, 2), DOT),
    "cortex-a78": Core(0x41, 0xD41, False, 4, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, (4, 2), DOT),
    # Four pipes, by the guides of the server cores that are made of X1, X3 (Neoverse V1, V2) and by X4's own.
    "cortex-x1": Core(0x41, 0xD44, False, 5, 4.0, 4.0, 4.0, 4.0, 3.0, 2.0, (4, 2), DOT),
    # Pairs share one vector unit: about 1.0 each when all run.
    "cortex-a510": Core(0x41, 0xD46, True, 3, 2.0, 2.0, 2.0, 2.0, 2.0, 1.0, (4, 4), SCALABLE),
    # Two share a vector unit, as those of A510 do; each alone starts one of each a cycle (measured on CIX P1).
    "cortex-a520": Core(0x41, 0xD80, True, 3, 1.0, 1.0, 1.0, 1.0, 2.0, 1.0, (4, 4), SCALABLE),
    "cortex-a715": Core(0x41, 0xD4D, False, 5, 2.0, 2.0, 2.0, 2.0, 3.0, 2.0, (4, 2), SCALABLE),
    "cortex-x3": Core(0x41, 0xD4E, False, 6, 4.0, 4.0, 4.0, 4.0, 3.0, 2.0, (4, 2), SCALABLE),
    "cortex-a720": Core(0x41, 0xD81, False, 5, 2.0, 2.0, 2.0, 2.0, 3.0, 2.0, (4, 2), SCALABLE),
    "cortex-a725": Core(0x41, 0xD87, False, 5, 2.0, 2.0, 2.0, 2.0, 3.0, 2.0, (4, 2), SCALABLE),
    "cortex-x4": Core(0x41, 0xD82, False, 10, 4.0, 4.0, 4.0, 4.0, 3.0, 2.0, (4, 2), SCALABLE),
}


@dataclass(frozen=True, slots=True)
class Cluster:
    """Cores of one kind and clock: a key of `CORES`, how many, and the highest clock in GHz."""

    core: str
    count: int
    ghz: float


@dataclass(frozen=True, slots=True)
class Phone:
    """One phone.

    Attributes:
        name: as a device is named, `pixel-4`.
        soc: its system on a chip.
        clusters: biggest cores first.
        dram_gbs: what its memory gives on paper, GB/s; None where that is not verified.
        l2_kib: second-level cache of a core, by core; l3_kib and slc_kib are shared.
    """

    name: str
    soc: str
    clusters: tuple[Cluster, ...]
    dram_gbs: float | None = None
    l2_kib: dict[str, int] = field(default_factory=dict)
    l3_kib: int | None = None
    slc_kib: int | None = None

    @property
    def prime(self) -> Cluster:
        """The biggest core, on which one thread runs."""
        return self.clusters[0]


def _phone(
    name: str,
    soc: str,
    clusters: list[tuple[str, int, float]],
    dram_gbs: float | None = None,
    l2_kib: dict[str, int] | None = None,
    l3_kib: int | None = None,
    slc_kib: int | None = None,
) -> Phone:
    return Phone(name, soc, tuple(Cluster(*cluster) for cluster in clusters), dram_gbs, l2_kib or {}, l3_kib, slc_kib)


PHONES: dict[str, Phone] = {
    phone.name: phone
    for phone in (
        _phone("pixel", "Snapdragon 821", [("kryo", 2, 2.15), ("kryo", 2, 1.6)], 29.9),
        _phone("pixel-2", "Snapdragon 835", [("cortex-a73", 4, 2.457), ("cortex-a53", 4, 1.9)], 29.9),
        _phone("pixel-3", "Snapdragon 845", [("cortex-a75", 4, 2.803), ("cortex-a55", 4, 1.766)],
               29.9, {"cortex-a75": 256, "cortex-a55": 128}, 2048, 3072),
        _phone("pixel-3a", "Snapdragon 670", [("cortex-a75", 2, 1.997), ("cortex-a55", 6, 1.709)]),
        _phone("pixel-4", "Snapdragon 855", [("cortex-a76", 1, 2.84), ("cortex-a76", 3, 2.42), ("cortex-a55", 4, 1.80)],
               34.1, {"cortex-a76": 512, "cortex-a55": 128}, 2048, 3072),
        _phone("pixel-5", "Snapdragon 765G",
               [("cortex-a76", 1, 2.40), ("cortex-a76", 1, 2.208), ("cortex-a55", 6, 1.805)]),
        _phone("pixel-6", "Tensor G1", [("cortex-x1", 2, 2.802), ("cortex-a76", 2, 2.253), ("cortex-a55", 4, 1.803)],
               51.2, {"cortex-x1": 1024}, 4096, 8192),
        _phone("pixel-6a", "Tensor G1", [("cortex-x1", 2, 2.802), ("cortex-a76", 2, 2.253), ("cortex-a55", 4, 1.803)],
               51.2, {"cortex-x1": 1024}, 4096, 8192),
        *(_phone(name, "Tensor G2", [("cortex-x1", 2, 2.850), ("cortex-a78", 2, 2.348), ("cortex-a55", 4, 1.803)])
          for name in ("pixel-7", "pixel-7a")),
        *(_phone(name, "Tensor G3", [("cortex-x3", 1, 2.914), ("cortex-a715", 4, 2.367), ("cortex-a510", 4, 1.704)])
          for name in ("pixel-8", "pixel-8a")),
        _phone("pixel-9", "Tensor G4", [("cortex-x4", 1, 3.105), ("cortex-a720", 3, 2.600), ("cortex-a520", 4, 1.950)]),
        _phone("pixel-10", "Tensor G5", [("cortex-x4", 1, 3.78), ("cortex-a725", 5, 3.05), ("cortex-a520", 2, 2.25)]),
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Processor:
    """What QEMU is to emulate: its `-cpu` and the HWCAP names that a program then sees."""

    cpu: str
    hwcaps: str


# By the features that kernels are chosen by. QEMU 7.2 has no core of Armv8.2 with float16 arithmetic and without dot
# products but Fujitsu's, less its SVE; and none with matrix products but `max`, which has more than the phones: SME is
# taken away, and SVE's vectors have 128 bits, as Arm's own cores have. Pointer authentication is QEMU's own cheap hash.
PROCESSORS: dict[tuple[str, ...], Processor] = {
    PLAIN: Processor("cortex-a72", "fp asimd aes pmull sha1 sha2 crc32 cpuid"),
    HALF: Processor(
        "a64fx,sve=off",
        "fp asimd aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm fcma dcpop",
    ),
    DOT: Processor(
        "cortex-a76",
        "fp asimd aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp",
    ),
    SCALABLE: Processor(
        "max,sme=off,sve-max-vq=1,pauth-impdef=on",
        "fp asimd aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm jscvt fcma lrcpc dcpop sha3 sm3 sm4 "
        "asimddp sha512 sve asimdfhm ilrcpc flagm sb paca pacg dcpodp sve2 sveaes svepmull svebitperm svesha3 svesm4 "
        "flagm2 frint svei8mm svef32mm svef64mm svebf16 i8mm bf16 rng bti mte",
    ),
}

CPU_FOLDER = "sys/devices/system/cpu"
LISTED = 8  # cores that every phone has


def qemu_cpu(core: Core) -> str:
    """QEMU's `-cpu` for a core, with its identity register."""
    return f"{PROCESSORS[core.features].cpu},midr={core.midr:#x}"


def files(core: Core, ghz: float) -> dict[str, str]:
    """The files by which a core is known, path below the root to text.

    Every listed core is this one: a thread learns its core's number from the emulating host, which knows nothing of
    the phone, and a little core at that number would have a little core's kernels run.
    """
    hwcaps = PROCESSORS[core.features].hwcaps
    cpus = "".join(
        f"processor\t: {number}\nBogoMIPS\t: 38.40\nFeatures\t: {hwcaps}\nCPU implementer\t: {core.implementer:#04x}\n"
        f"CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: {core.part:#05x}\nCPU revision\t: 1\n\n"
        for number in range(LISTED)
    )
    everyone = f"0-{LISTED - 1}\n"
    found = {"proc/cpuinfo": cpus} | {f"{CPU_FOLDER}/{key}": everyone for key in ("present", "possible", "online")}
    for number in range(LISTED):
        cpu = f"{CPU_FOLDER}/cpu{number}"
        found |= {
            f"{cpu}/cpufreq/cpuinfo_max_freq": f"{round(ghz * 1e6)}\n",
            f"{cpu}/cpufreq/cpuinfo_min_freq": "300000\n",
            f"{cpu}/topology/physical_package_id": "0\n",
            f"{cpu}/topology/core_id": f"{number}\n",
            f"{cpu}/topology/core_siblings_list": everyone,
            f"{cpu}/topology/cluster_cpus_list": everyone,
            f"{cpu}/topology/thread_siblings_list": f"{number}\n",
            f"{cpu}/regs/identification/midr_el1": f"{core.midr:#018x}\n",
        }
    return found


def make_root(root: Path, parts: Path, phone: Phone) -> None:
    """Lay out a root folder for QEMU: the phone's own files beside links to an aarch64 system.

    Args:
        root: an empty folder.
        parts: an aarch64 root with `usr` and `lib`.
        phone: whose biggest core is to be played.
    """
    for entry in parts.iterdir():
        if entry.name not in ("proc", "sys"):
            (root / entry.name).symlink_to(entry.resolve())
    for path, text in files(CORES[phone.prime.core], phone.prime.ghz).items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
