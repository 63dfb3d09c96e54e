"""The `adb` client of Android's platform tools: which phones are attached, and commands and files for one of them.

Every failure is told by what it means: no client, no phone, one that does not let this machine in, a full disk, or a
cable that was pulled out. adb's own exit codes do not tell the last from a command's, so each command's answer ends
with a mark.
"""

import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from edgebert.errors import InputError, MissingDependency

INSTALL = "install the package adb, or Android's platform tools, and put it on the PATH"
MARK = "edgebert-ended"
PATIENCE_S = 3.0  # a phone that was just plugged in, or a server that just started, takes a moment
ANSWER_S = 60.0  # for what is short; transfers and runs take as long as they take

# What adb calls a phone that cannot be used, and what to do.
STATES = {
    "unauthorized": "it does not let this computer in: unlock it and accept its question about USB debugging",
    "authorizing": "it does not let this computer in yet: unlock it and accept its question about USB debugging",
    "offline": "it is attached but does not answer: pull the cable out and plug it in again, or restart the phone",
    "no permissions": "this user may not open the USB device: see developer.android.com/tools/device",
}
STARTING = ("offline", "authorizing", "connecting")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command on the phone said, without the mark."""

    code: int
    out: str
    err: str

    @property
    def last(self) -> str:
        """The last line of its complaint."""
        return (self.err.strip().splitlines() or [""])[-1][:200]


def missing() -> str | None:
    """How to get the client; None where it is there."""
    return None if shutil.which("adb") else INSTALL


def attached() -> dict[str, str]:
    """The phones that adb sees, serial number to state; `device` is one that can be used.

    Raises:
        MissingDependency: there is no client, or its server does not start.
    """
    told = _call(["devices"])
    if told.returncode:
        said = (told.stderr.strip().splitlines() or ["it said nothing"])[-1][:200]
        raise MissingDependency(f"adb's server does not start: {said}")
    lines = told.stdout.partition("List of devices attached")[2].splitlines()
    found = (re.match(r"(\S+)\s+(no permissions|\S+)", line) for line in lines)
    return {match[1]: match[2] for match in found if match}


def find(serial: str | None) -> "Client":
    """A phone that can be used: the one of a serial number, or the only one that is attached.

    Args:
        serial: as `adb devices` lists it; None for `ANDROID_SERIAL`, which adb heeds too, or the only one.

    Raises:
        MissingDependency: it is not there, or does not let this machine in.
        InputError: there are several, and none was named.
    """
    wanted = serial or os.environ.get("ANDROID_SERIAL")
    until = time.monotonic() + PATIENCE_S
    while True:
        phones = attached()
        chosen = [one for one in phones if wanted in (None, one)]
        settled = chosen and not any(phones[one] in STARTING for one in chosen)
        if settled or time.monotonic() >= until:
            break
        time.sleep(0.2)
    told = ", ".join(f"{one} ({state})" for one, state in sorted(phones.items())) or "none"
    if not chosen and wanted:
        raise MissingDependency(f"adb does not see {wanted}; attached: {told}.")
    if not chosen:
        raise MissingDependency("no phone is attached: plug one in, with USB debugging on; `adb devices` lists it.")
    if len(chosen) > 1:
        raise InputError(
            f"{len(chosen)} phones are attached: {told}; name one as --device adb:{min(chosen)}, or in ANDROID_SERIAL."
        )
    state = phones[chosen[0]]
    if state != "device":
        raise MissingDependency(f"{chosen[0]} is {state}: {STATES.get(state, 'start Android on it')}.")
    return Client(chosen[0])


class Client:
    """One attached phone."""

    def __init__(self, serial: str) -> None:
        self.serial = serial

    def gone(self, doing: str) -> MissingDependency:
        """The error of a connection that ended."""
        return MissingDependency(
            f"{self.serial} was disconnected while {doing}; nothing came of it. Plug it in and run it again."
        )

    def features(self) -> set[str]:
        """What the phone's side of adb can do."""
        told = self._run("features", timeout=ANSWER_S)
        if told.returncode:
            raise self.gone("asking for its features")
        return set(told.stdout.split())

    def shell(self, script: str, doing: str, timeout: float | None = ANSWER_S) -> Answer:
        """Run a script in the phone's shell.

        Args:
            script: which must not end the shell.
            doing: what for, to be told if the phone goes away meanwhile.
            timeout: seconds; None for as long as it takes.

        Raises:
            MissingDependency: the phone went away.
        """
        told = self._run("shell", "-n", f'{script}\necho "{MARK} $?"', timeout=timeout)
        out, mark, code = told.stdout.rpartition(f"{MARK} ")
        if not mark or not code.strip().isdigit():
            raise self.gone(doing)
        return Answer(int(code), out, told.stderr)

    def push(self, local: Path, remote: str, doing: str) -> None:
        """Copy a file or folder to the phone.

        Raises:
            InputError: the phone does not take it; a full disk is told as such.
            MissingDependency: the phone went away.
        """
        told = self._run("push", str(local), remote)
        if told.returncode:
            raise self.refused(told.stdout + told.stderr, doing)

    def pull(self, remote: str, local: Path, doing: str) -> None:
        """Copy a file from the phone; raises as `push` does."""
        told = self._run("pull", remote, str(local))
        if told.returncode:
            raise self.refused(told.stdout + told.stderr, doing)

    def install(self, apk: Path) -> Answer:
        """Install an app, also over one of its own; the answer's code and complaint are the phone's.

        Raises:
            MissingDependency: the phone went away.
        """
        told = self._run("install", "-r", str(apk))
        said = told.stderr.partition(f"failed to install {apk}:")[2].strip()
        if told.returncode and not said:  # a phone that says no says why
            raise self.gone("installing")
        return Answer(told.returncode, told.stdout, said)

    def refused(self, said: str, doing: str) -> InputError | MissingDependency:
        """The error of a transfer or a write that failed; what the phone itself said starts with `remote`."""
        if "No space left" in said:
            return InputError(f"the disk of {self.serial} is full ({doing}): free some of it and run it again.")
        if "remote " in said:
            return InputError(f"{self.serial} refused ({doing}): {said.strip().splitlines()[-1][:200]}")
        return self.gone(doing)

    def hold(self, script: str) -> "subprocess.Popen[str]":
        """Start a script that reads its input; an interrupt of this program does not reach it."""
        return subprocess.Popen(
            ["adb", "-s", self.serial, "shell", script],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            start_new_session=True,
        )  # fmt: skip

    def _run(self, *arguments: str, timeout: float | None = None) -> "subprocess.CompletedProcess[str]":
        return _call(["-s", self.serial, *arguments], timeout)


def _call(arguments: list[str], timeout: float | None = ANSWER_S) -> "subprocess.CompletedProcess[str]":
    """Run the client."""
    if missing():
        raise MissingDependency(f"a phone is reached by adb, which is not on this machine: {INSTALL}.")
    try:
        return subprocess.run(
            ["adb", *arguments], capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL,
            timeout=timeout,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        what = arguments[2] if arguments[0] == "-s" else arguments[0]
        raise MissingDependency(
            f"adb {what} was not answered in {timeout:.0f} s: plug the phone in again, or adb kill-server."
        ) from None
