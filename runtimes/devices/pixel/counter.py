"""Run a model on an emulated core and count exactly which blocks of code run, and how often, for one inference."""

import json
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgebert.errors import InputError
from edgebert.runtimes.devices.device import Job, read_result
from edgebert.runtimes.devices.guest import guest
from edgebert.runtimes.devices.pixel import phones, sandbox
from edgebert.runtimes.devices.pixel.symbols import Namer

GUEST = Path(guest.__file__)

# Without these the guest's counts would depend on the host: hashes, thread pools of numpy, and the language.
GUEST_ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "LC_ALL": "C.UTF-8",
    "HOME": "/",
    "TMPDIR": "/tmp",
}


@dataclass(frozen=True, slots=True)
class Block:
    """A straight run of instructions.

    Attributes:
        address: where it stood in the guest's memory.
        times: how often it ran.
        words: its instructions, as aarch64 encodes them.
        library: file name of the library that it is of, None for memory of no file.
        offset: its address in that library's own numbering.
        symbol: the function, where the library has names.
    """

    address: int
    times: int
    words: tuple[int, ...]
    library: str | None = None
    offset: int = 0
    symbol: str | None = None

    @property
    def instructions(self) -> int:
        """Instructions that it contributed."""
        return self.times * len(self.words)


@dataclass(frozen=True, slots=True)
class Counts:
    """What one inference ran on an emulated core.

    Attributes:
        instructions: in all.
        blocks: the blocks, those with most instructions first.
        guest: what the guest script told: load_ns and the like are the emulator's times, and say nothing of a phone.
        cpu: what QEMU emulated.
    """

    instructions: int
    blocks: tuple[Block, ...]
    guest: dict[str, Any]
    cpu: str


def count(job: Job, phone: phones.Phone, timeout: float | None = None) -> Counts:
    """Count the instructions of one steady inference on a phone's biggest core.

    The first inference, in which runtimes lay out weights and memory, goes uncounted. One after it is counted whatever
    the job's `runs` and `warmup` say: another one would count the same.

    Args:
        job: the file and its inputs. Counts are exact for one thread.
        phone: whose core is played.
        timeout: seconds, after which InputError is raised.

    Raises:
        MissingDependency: the sandbox is not there, or lacks the runtime.
        InputError: the file cannot be run as asked, or the runtime crashed on it, or has no build for that core.
    """
    core = phones.CORES[phone.prime.core]
    if job.runtime == "executorch" and not core.features:
        raise InputError(
            f"{phone.name}: ExecuTorch comes with torch's libraries for Linux, which end at an Armv8.0 core such as "
            f"its {phone.prime.core}: take a .tflite or .onnx file, or a Pixel 3 or later."
        )
    box = sandbox.open(job.runtime)
    with tempfile.TemporaryDirectory(prefix="edgebert-") as made:
        work = Path(made)
        asked = job.guest(work / "result.json", mark=True) | {"runs": 1, "warmup": 1}
        (work / "job.json").write_text(json.dumps(asked))
        told = _run(box, phone, work, [str(GUEST), str(work / "job.json")], timeout)
        result = read_result(work / "result.json", job.model, told)
        if not (work / "blocks").is_file():
            raise InputError(f"the counter wrote nothing: {told.stderr.strip()[-200:]}")
        blocks = parse((work / "blocks").read_bytes())
    namer = Namer(result.pop("maps"))
    named = sorted((_named(block, namer) for block in blocks), key=lambda b: (-b.instructions, b.address))
    total = sum(block.instructions for block in named)
    return Counts(total, tuple(named), result, phones.qemu_cpu(phones.CORES[phone.prime.core]))


def _run(
    box: sandbox.Sandbox, phone: phones.Phone, work: Path, program: list[str], timeout: float | None
) -> "subprocess.CompletedProcess[str]":
    """Run Python in the sandbox as on a phone's biggest core, with the counter."""
    root = work / "root"
    root.mkdir()
    phones.make_root(root, box.system, phone)
    # Short relative names: QEMU splits a plugin's arguments at commas, which the cache's path may have.
    (work / "counter.so").symlink_to(box.counter)
    seen = GUEST_ENVIRONMENT | {"PYTHONPATH": ":".join(str(site) for site in box.sites)}
    call = [str(box.qemu), "-L", str(root), "-cpu", phones.qemu_cpu(phones.CORES[phone.prime.core])]
    call += ["-U", "LD_LIBRARY_PATH", "-U", "PATH"]
    call += [part for key, value in seen.items() for part in ("-E", f"{key}={value}")]
    call += ["-plugin", "file=./counter.so,out=./blocks", str(root / box.python), *program]
    try:
        return subprocess.run(
            call, cwd=work, env=sandbox.environment(box.libraries), capture_output=True, text=True, errors="replace",
            stdin=subprocess.DEVNULL, timeout=timeout,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise InputError(f"the emulated core was not done after {timeout:.0f} s.") from None


def parse(raw: bytes) -> list[Block]:
    """Read what the plugin wrote.

    Raises:
        InputError: the bytes end within a record.
    """
    blocks = []
    at = 0
    try:
        while at < len(raw):
            address, times, length, _ = struct.unpack_from("<QQII", raw, at)
            words = struct.unpack_from(f"<{length}I", raw, at + 24)
            blocks.append(Block(address, times, words))
            at += 24 + 4 * length
    except struct.error:
        raise InputError("the counter's file is cut short: is the disk full?") from None
    return blocks


def _named(block: Block, namer: Namer) -> Block:
    place = namer.place(block.address)
    if place is None:
        return block
    return Block(block.address, block.times, block.words, place.library, place.address, place.symbol)


def try_out(box: sandbox.Sandbox) -> str | None:
    """Count a region of a small program; None where that works, else what was said."""
    program = (
        f"import os\nfor mark in ({guest.MARK_START}, {guest.MARK_END}):\n try: os.getpgid(mark)\n except OSError: pass"
    )
    with tempfile.TemporaryDirectory(prefix="edgebert-") as made:
        told = _run(box, next(iter(phones.PHONES.values())), Path(made), ["-c", program], timeout=120)
        blocks = Path(made, "blocks")
        if told.returncode == 0 and blocks.is_file() and parse(blocks.read_bytes()):
            return None
    return (told.stderr.strip().splitlines() or [f"it ended with {told.returncode}"])[-1][:300]
