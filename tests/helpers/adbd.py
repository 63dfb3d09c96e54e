"""A stand-in for a phone: a daemon on loopback that speaks adb's protocol, so that the real client talks to it.

It has what the project uses: connecting (with or without letting the client in), features, `shell,v2`, `sync`
(STAT, LST2, SEND, RECV), and installing an app. What it is given to run does run: shell scripts on this machine with
toybox and mksh, which Android has too, where they are installed, and aarch64 programs under the emulator. A folder
stands for the phone's root; the paths in scripts are turned to it. It can be unplugged at any message, and its disk can
be full.

The protocol is told in the files OVERVIEW, SERVICES, SYNC and protocol of Android's packages/modules/adb/docs.
"""

import contextlib
import os
import platform
import queue
import re
import shutil
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

from edgebert.runtimes.devices.pixel import phones, sandbox

CNXN, AUTH, OPEN, OKAY, WRTE, CLSE = (int.from_bytes(word, "little") for word in
                                      (b"CNXN", b"AUTH", b"OPEN", b"OKAY", b"WRTE", b"CLSE"))  # fmt: skip
VERSION, MOST = 0x01000001, 256 << 10
STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)
FEATURES = ("shell_v2", "cmd", "stat_v2", "ls_v2", "fixed_push_mkdir", "apex", "abb")
PROPERTIES = {
    "ro.product.model": "Pixel 4",
    "ro.build.version.release": "13",
    "ro.product.cpu.abilist": "arm64-v8a,armeabi-v7a,armeabi",
}
TOOLS = ("tar", "find", "xargs", "sha256sum", "df", "cat", "rm", "mv", "mkdir", "chmod", "sleep", "uname", "kill", "ls")
FOLDERS = re.compile(r"(?<![\w.-])/(data/local/tmp|sys/devices|sys/class/thermal)")
PROGRAM = re.compile(r"\S+/ld-linux-aarch64\.so\.1(?= --library-path)")


def make_root(root: Path) -> None:
    """A phone's folders: 8 cores, the last this machine may use the fastest; warm; and the tools that a phone has."""
    (root / "data/local/tmp").mkdir(parents=True)
    tools = root / "bin"
    tools.mkdir()
    toybox = shutil.which("toybox")
    for tool in TOOLS:
        (tools / tool).symlink_to(toybox or shutil.which(tool) or "/bin/false")
    fastest = max(os.sched_getaffinity(0))
    for number in range(max(8, fastest + 1)):
        khz = 2_841_600 if number == fastest else 1_785_600
        cpu = root / f"sys/devices/system/cpu/cpu{number}/cpufreq"
        cpu.mkdir(parents=True)
        told = {"cpuinfo_max_freq": khz, "scaling_max_freq": khz, "scaling_cur_freq": khz}
        for name, text in (told | {"scaling_governor": "schedutil"}).items():
            (cpu / name).write_text(f"{text}\n")
    zones = {"cpu-1-7-usr": 41300, "skin-therm": 30100, "battery": 27000, "aoss0-usr": 0}
    for number, (name, value) in enumerate(zones.items()):
        zone = root / f"sys/class/thermal/thermal_zone{number}"
        zone.mkdir(parents=True)
        (zone / "type").write_text(f"{name}\n")
        (zone / "temp").write_text(f"{value}\n")
    if sandbox.missing() is None and platform.machine() != "aarch64":
        (root / "emulated").mkdir()
        phones.make_root(root / "emulated", sandbox.open().system, phones.PHONES["pixel-4"])


class Stream:
    """One stream of a connection."""

    def __init__(self, connection: "Connection", own: int, theirs: int) -> None:
        self.connection, self.own, self.theirs = connection, own, theirs
        self.came: queue.Queue[bytes | None] = queue.Queue()
        self.taken = threading.Semaphore(1)
        self.open, self.rest = True, b""

    def write(self, data: bytes) -> None:
        for at in range(0, len(data), MOST):
            self.taken.acquire()
            if not self.open:
                raise ConnectionError
            self.connection.send(WRTE, self.own, self.theirs, data[at : at + MOST])

    def read(self, size: int | None = None) -> bytes:
        """So many bytes, or what there is; nothing at the end."""
        while not self.rest or (size is not None and len(self.rest) < size):
            part = self.came.get()
            if part is None:
                self.came.put(None)
                self.rest = b""  # of a message that will not be whole
                return b""
            self.rest += part
            self.connection.send(OKAY, self.own, self.theirs)
        cut = len(self.rest) if size is None else size
        data, self.rest = self.rest[:cut], self.rest[cut:]
        return data

    def end(self) -> None:
        self.open = False
        self.came.put(None)
        self.taken.release()


class Connection:
    """A client's connection."""

    def __init__(self, phone: "Daemon", wire: socket.socket) -> None:
        self.phone, self.wire, self.lock = phone, wire, threading.Lock()
        self.streams: dict[int, Stream] = {}

    def send(self, command: int, first: int, second: int, data: bytes = b"") -> None:
        head = struct.pack("<6I", command, first, second, len(data), sum(data) & 0xFFFFFFFF, command ^ 0xFFFFFFFF)
        with self.lock:
            self.wire.sendall(head + data)

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            part = self.wire.recv(size - len(data))
            if not part:
                raise ConnectionError
            data += part
        return bytes(data)

    def serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                command, first, second, size, _, _ = struct.unpack("<6I", self._exactly(24))
                self._take(command, first, second, self._exactly(size))
        for stream in list(self.streams.values()):
            stream.end()

    def _take(self, command: int, first: int, second: int, data: bytes) -> None:
        if command == CNXN and self.phone.locked:
            self.send(AUTH, 1, 0, os.urandom(20))
        elif command == CNXN:
            told = "".join(f"{name}={value};" for name, value in (("ro.product.model", "Pixel 4"),))
            banner = f"device::{told}features={','.join(self.phone.features)}"
            self.send(CNXN, VERSION, MOST, banner.encode())
        elif command == AUTH and first == 2:  # a signature, of a key that this phone was not told to let in
            self.send(AUTH, 1, 0, os.urandom(20))
        elif command == OPEN:
            stream = Stream(self, len(self.streams) + 1, first)
            self.streams[stream.own] = stream
            service = data.rstrip(b"\0").decode()
            threading.Thread(target=self._run, args=(stream, service), daemon=True).start()
        elif command == OKAY:
            self.streams[second].taken.release()
        elif command == WRTE:
            self.streams[second].came.put(data)
        elif command == CLSE and second in self.streams:
            self.streams[second].end()

    def _run(self, stream: Stream, service: str) -> None:
        with contextlib.suppress(OSError):
            self.send(OKAY, stream.own, stream.theirs)
            if service.startswith("shell,v2"):
                shell(self.phone, stream, service.partition(":")[2])
            elif service.startswith("sync:"):
                sync(self.phone, stream)
            elif service.startswith("exec:cmd package"):
                install(self.phone, stream, service)
            self.send(CLSE, stream.own, stream.theirs)


class Daemon:
    """The phone.

    Attributes:
        root: made by `make_root`; folder: where programs are put.
        locked: it never lets a client in.
        cut: asked at every message, `shell:…`, `SEND …` and `DATA …`; when it says true the cable is pulled out.
        room: bytes that can still be sent to it; None for as many as this machine's disk has.
        sent: those messages; program: its shell.
        verdict: what its package manager says to an app; apps: those that it was given.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.folder = root, root / "data/local/tmp"
        self.properties = dict(PROPERTIES)
        self.features, self.locked, self.room = FEATURES, False, None
        self.program = shutil.which("mksh") or "/bin/sh"
        self.cut: Callable[[str], bool] = lambda message: False
        self.sent: list[str] = []
        self.verdict, self.apps = "Success", list[bytes]()
        self.running: set[int] = set()
        self.connections: list[Connection] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.serial = f"127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._listen, daemon=True).start()

    features: tuple[str, ...]
    room: int | None

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                wire, _ = self.listener.accept()
                wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.connections.append(Connection(self, wire))
                threading.Thread(target=self.connections[-1].serve, daemon=True).start()

    def unplug(self) -> None:
        """End every connection, and take no new one."""
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.wire.shutdown(socket.SHUT_RDWR)

    def message(self, text: str) -> None:
        self.sent.append(text)
        if self.cut(text):
            self.unplug()

    def path(self, text: str) -> Path:
        return Path(FOLDERS.sub(lambda match: f"{self.root}{match[0]}", text))

    def environment(self) -> dict[str, str]:
        script = "\n".join(f"[ $1 = {name} ] && echo '{value}'" for name, value in self.properties.items())
        getprop, text = self.root / "bin" / "getprop", f"#!/bin/sh\n{script}\n:\n"
        if not getprop.exists() or getprop.read_text() != text:
            getprop.write_text(text)
            getprop.chmod(0o755)
        emulator = {}
        if self.emulated and (libraries := sandbox.open().libraries):
            emulator = {"LD_LIBRARY_PATH": str(libraries)}
        return {"PATH": str(self.root / "bin"), **emulator}

    @property
    def emulated(self) -> bool:
        return (self.root / "emulated").is_dir()

    def script(self, text: str) -> str:
        """A script as this machine runs it."""
        turned = FOLDERS.sub(lambda match: f"{self.root}{match[0]}", text)
        if not self.emulated:
            return turned
        cpu = phones.qemu_cpu(phones.CORES[phones.PHONES["pixel-4"].prime.core])
        call = f"{sandbox.open().qemu} -L {self.root / 'emulated'} -cpu {cpu} -U LD_LIBRARY_PATH"
        return PROGRAM.sub(lambda match: f"{call} {match[0]}", turned)


def shell(phone: Daemon, stream: Stream, text: str) -> None:
    """Run a script: when its stream ends, it is told by SIGHUP and its input is closed, as Android's daemon does."""
    process = subprocess.Popen(
        [phone.program, "-c", phone.script(text)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=phone.environment(), cwd=phone.root, start_new_session=True,
    )  # fmt: skip
    phone.running.add(process.pid)
    assert process.stdout is not None
    assert process.stderr is not None
    phone.message(f"shell:{text}")

    def tell(kind: int, pipe: int) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(pipe, 32 << 10):
                stream.write(struct.pack("<BI", kind, len(data)) + data)

    def listen() -> None:
        assert process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            while head := stream.read(5):
                kind, size = struct.unpack("<BI", head)
                data = stream.read(size) if size else b""
                if kind == STDIN:
                    process.stdin.write(data)
                    process.stdin.flush()
                elif kind == CLOSE_STDIN:
                    process.stdin.close()
        if process.poll() is None:
            process.send_signal(signal.SIGHUP)
        with contextlib.suppress(OSError):
            process.stdin.close()

    threading.Thread(target=listen, daemon=True).start()
    pumps = [
        threading.Thread(target=tell, args=(kind, pipe.fileno()), daemon=True)
        for kind, pipe in ((STDOUT, process.stdout), (STDERR, process.stderr))
    ]
    for pump in pumps:
        pump.start()
    for pump in pumps:
        pump.join()
    code = process.wait()
    phone.running.discard(process.pid)
    for pipe in (process.stdout, process.stderr):
        pipe.close()
    stream.write(struct.pack("<BIB", EXIT, 1, code & 0xFF if code >= 0 else 128 - code))


def install(phone: Daemon, stream: Stream, text: str) -> None:
    """Take an app, whose size stands in the command, and say what the package manager says."""
    phone.message(text)
    phone.apps.append(stream.read(int(text.rpartition(" ")[2].strip("'"))))
    stream.write(f"{phone.verdict}\n".encode())


def sync(phone: Daemon, stream: Stream) -> None:
    """Files to and from the phone."""
    while head := stream.read(8):
        name, size = head[:4].decode(), int.from_bytes(head[4:], "little")
        if name == "QUIT":
            return
        text = stream.read(size).decode()
        if name == "SEND":
            phone.message(f"SEND {text}")
            _receive(phone, stream, text)
        elif name == "RECV":
            phone.message(f"RECV {text}")
            _give(phone, stream, text)
        else:
            stream.write(_stat(name, phone.path(text)))


def _stat(name: str, path: Path) -> bytes:
    try:
        found, error = (os.lstat if name in ("STAT", "LST2") else os.stat)(path), 0
    except OSError as problem:
        found, error = os.stat_result((0,) * 10), problem.errno or 2
    if name == "STAT":
        return b"STAT" + struct.pack("<3I", found.st_mode, found.st_size, int(found.st_mtime))
    whole = (found.st_dev, found.st_ino, found.st_mode, found.st_nlink, found.st_uid, found.st_gid, found.st_size)
    return name.encode() + struct.pack("<IQQIIIIQqqq", error, *whole, *(int(found.st_mtime),) * 3)


def _receive(phone: Daemon, stream: Stream, text: str) -> None:
    place, mode = phone.path(text.rpartition(",")[0]), int(text.rpartition(",")[2])
    problem = "" if place.parent.exists() else "couldn't create file: No such file or directory"
    if "fixed_push_mkdir" in phone.features:
        place.parent.mkdir(parents=True, exist_ok=True)
        problem = ""
    ended = False
    with contextlib.nullcontext() if problem else place.open("wb") as file:
        while head := stream.read(8):
            name, size = head[:4].decode(), int.from_bytes(head[4:], "little")
            ended = name == "DONE"
            if ended:
                break
            data = stream.read(size)
            phone.message(f"DATA {text}")
            if phone.room is not None:
                phone.room -= len(data)
                problem = problem or ("write failed: No space left on device" if phone.room < 0 else "")
            if file is not None and not problem:
                file.write(data)
    if problem or not ended:
        place.unlink(missing_ok=True)
        stream.write(b"FAIL" + struct.pack("<I", len(problem)) + problem.encode())
    else:
        place.chmod(mode & 0o777)
        stream.write(b"OKAY" + bytes(4))


def _give(phone: Daemon, stream: Stream, text: str) -> None:
    try:
        data = phone.path(text).read_bytes()
    except OSError as problem:
        said = f"open failed: {problem.strerror}".encode()
        stream.write(b"FAIL" + struct.pack("<I", len(said)) + said)
        return
    for at in range(0, len(data), 64 << 10):
        part = data[at : at + (64 << 10)]
        stream.write(b"DATA" + struct.pack("<I", len(part)) + part)
    stream.write(b"DONE" + bytes(4))
