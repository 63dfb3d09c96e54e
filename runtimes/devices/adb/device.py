"""A real phone, or an Arm board, over adb: the same guest script with the same runtimes, on its own cores.

No root and no app: Python, its libraries and a runtime are copied to the phone's folder for temporary files, where the
shell may run programs, and a loader of their own starts them. They stay there, checked by SHA-256 each time, as copying
100 MB takes longer than most runs; all else of a run stands in a folder that is removed whatever happens. A process on
the phone sees to that: it waits for the end of its input, which a lost connection brings as well, ends the guest and
removes the folder.
"""

import contextlib
import json
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgebert.errors import InputError, MissingDependency
from edgebert.runtimes.devices.adb import client as adb_client
from edgebert.runtimes.devices.adb import payload, phone
from edgebert.runtimes.devices.adb.client import Answer, Client
from edgebert.runtimes.devices.device import PHONE, Job, Measurement, measured, read_result
from edgebert.runtimes.devices.guest import guest

Tell = Callable[[str], None]

SPARE_BYTES = 32 << 20  # for results, and so that the phone does not run full
REMOVAL_S = 20.0  # for a phone that does not answer any more; it goes on by itself
LONGEST_NAMED = 64 << 20  # a model file with its weights in other files is smaller
# Nothing of the phone's own environment is for these libraries; a cache of compiled Python would change the folder.
ENVIRONMENT = (
    "PYTHONDONTWRITEBYTECODE=1 PYTHONNOUSERSITE=1 PYTHONUTF8=1 PYTHONHASHSEED=0 "
    "OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 LD_PRELOAD="
)


class Adb:
    """A phone that is plugged in.

    Attributes:
        name: `adb`, or `adb:SERIAL`.
        serial: None for the only one there is.
        tell: gets a line for each step that takes long.
    """

    how = PHONE

    def __init__(self, name: str, serial: str | None, tell: Tell = lambda line: None) -> None:
        self.name, self.serial, self.tell = name, serial, tell

    def missing(self) -> str | None:
        """What to install or to do with the phone; None where a run can start.

        Raises:
            InputError: there are several phones, or this one does not run what is sent.
        """
        if command := adb_client.missing() or payload.missing():
            return command
        try:
            phone.probe(adb_client.find(self.serial))
        except MissingDependency as error:
            return str(error)
        return None

    def measure(self, job: Job) -> Measurement:
        """Run a job on as many of the phone's fastest cores as it has threads.

        Raises:
            InputError: the file cannot be run as asked, or crashed the runtime; there are several phones; this one is
                full or not an aarch64 one.
            MissingDependency: there is no client, no phone that lets this machine in, or no sandbox to copy; or the
                phone was pulled out meanwhile.
        """
        found = payload.files(job.runtime)
        client = adb_client.find(self.serial)
        kind = phone.probe(client)
        with _folder(client, kind) as run, tempfile.TemporaryDirectory(prefix="edgebert-") as made:
            program = self._program(client, kind, run, job.runtime, found)
            before = phone.state(client)
            cores = phone.big_cores(kind, before, job.threads)
            self._send(client, run, job, Path(made), cores)
            told, after = self._run(client, run, program, job, cores)
            result = self._fetch(client, run, program, job, Path(made), told)
            return _measurement(self.name, client, kind, job, result, cores, (before, after))

    def _program(self, client: Client, kind: phone.Phone, run: str, runtime: str, found: dict[str, Path]) -> str:
        """Where Python and the runtime are on the phone, once they are there and whole."""
        digests = payload.sums(found)
        place = f"{kind.folder}/{payload.name_of(runtime, digests)}"
        keeps = {"find", "xargs", "sha256sum"} <= kind.tools
        if keeps and _whole(client, place, digests):
            return place
        client.shell(f"rm -rf {kind.folder}/edgebert-{runtime}-*", "removing an old sandbox")
        size = payload.size_of(found)
        _room(client, kind.folder, size * (2 if "tar" in kind.tools else 1))
        self.tell(f"copying Python and {runtime} to {client.serial}, {size / 1e6:.0f} MB")
        made = f"{run}/sandbox"
        with tempfile.TemporaryDirectory(prefix="edgebert-") as scratch:
            _copy(client, Path(scratch), run, found, tar="tar" in kind.tools)
        if not keeps:
            return made
        if not _whole(client, made, digests):
            raise InputError(f"what arrived on {client.serial} is not what was sent: is its disk full or damaged?")
        moved = client.shell(f"mv {made} {place}", "copying the sandbox")
        if moved.code:
            raise InputError(f"{client.serial} refused {place}: {moved.last}")
        self.tell(f"they stay in {place}; adb -s {client.serial} shell rm -r {place} removes them")
        return place

    def _send(self, client: Client, run: str, job: Job, made: Path, cores: list[int] | None) -> None:
        """Copy the guest script, the job, the model with the files it names, and the inputs."""
        asked = job.guest(Path("result.json"), affinity=cores) | {
            "model": f"model{job.model.suffix}",
            "inputs": "inputs.npz" if job.inputs else None,
            "outputs": "outputs.npz" if job.outputs else None,
        }
        path = made / "job.json"
        path.write_text(json.dumps(asked))
        sent = {"guest.py": Path(guest.__file__), "job.json": path, asked["model"]: job.model}
        sent |= {"inputs.npz": job.inputs} if job.inputs else {}
        sent |= {name: beside for name, beside in _named_by(job.model).items() if name not in sent}
        size = sum(local.stat().st_size for local in sent.values())
        _room(client, run, size)
        self.tell(f"copying {job.model.name} to {client.serial}, {size / 1e6:.1f} MB")
        for name, local in sent.items():
            client.push(local, f"{run}/{name}", f"copying {local.name}")

    def _run(
        self, client: Client, run: str, program: str, job: Job, cores: list[int] | None
    ) -> tuple[Answer, phone.State]:
        """Run the guest; its clocks are read the moment that it ends, before the cores rest."""
        self.tell(f"running {job.model.name} on {client.serial}")
        files = "scaling_cur_freq scaling_max_freq scaling_governor cpuinfo_max_freq"
        script = f"""cd {run}
{_python(program)} -P guest.py job.json </dev/null &
echo $! >pid
wait $!
code=$?
for n in {" ".join(str(core) for core in cores or [])}; do for f in {files}; do
read v <{phone.CPU}/cpu$n/cpufreq/$f && echo "cpu$n $f $v"
done; done 2>/dev/null
rm -f pid
(exit $code)"""
        told = client.shell(script, f"running {job.model.name}", timeout=None)
        return told, phone.State(phone.clocks(told.out), phone.state(client).celsius)

    def _fetch(self, client: Client, run: str, program: str, job: Job, made: Path, told: Answer) -> dict[str, Any]:
        """The guest's result, and its outputs where the job wants them; errors are the guest's own."""
        there = client.shell(f"[ -s {run}/result.json ]", "looking for the result").code == 0
        if "No space left" in told.err:
            raise client.refused(told.err, f"running {job.model.name}")
        if there:
            client.pull(f"{run}/result.json", made / "result.json", "fetching the result")
        else:
            self._try_out(client, program)
        ended = subprocess.CompletedProcess([], told.code, told.out, told.err)
        result = read_result(made / "result.json", job.model, ended)
        if job.outputs:
            client.pull(f"{run}/outputs.npz", made / "outputs.npz", "fetching the outputs")
            shutil.copyfile(made / "outputs.npz", job.outputs)
        return result

    def _try_out(self, client: Client, program: str) -> None:
        """Tell a phone that does not run the sandbox from a model that crashes its runtime."""
        told = client.shell(f"{_python(program)} -c 'import numpy' </dev/null", "trying out Python")
        if told.code:
            raise MissingDependency(f"{client.serial} does not run {program}: {told.last or f'exit {told.code}'}.")


def _python(program: str) -> str:
    """The command that starts Python on the phone, to be followed by its arguments."""
    home = f"PYTHONHOME={program}/usr PYTHONPATH={program}/site"
    # There is one interpreter; its version is the sandbox's matter.
    return (
        f"{ENVIRONMENT} {home} {program}/{payload.LOADER} --library-path {program}/lib {program}/usr/bin/python3.[0-9]*"
    )


@contextlib.contextmanager
def _folder(client: Client, kind: phone.Phone) -> Iterator[str]:
    """A new folder on the phone, which a process there removes when this block, or the connection, ends.

    Folders whose process is gone, as after the phone was switched off, are removed too.
    """
    run = f"{kind.folder}/edgebert-run-{secrets.token_hex(6)}"
    keeper = client.hold(f"""trap '' HUP INT TERM
for d in {kind.folder}/edgebert-run-*; do
[ -f $d/keeper ] && ! kill -0 $(cat $d/keeper) 2>/dev/null && rm -rf $d
done
mkdir {run} && chmod 700 {run} && echo $$ >{run}/keeper && echo ready
cat >/dev/null
[ -s {run}/pid ] && kill -9 $(cat {run}/pid) 2>/dev/null
rm -rf {run} || {{ sleep 1; rm -rf {run}; }}""")
    try:
        assert keeper.stdout is not None
        said = keeper.stdout.readline().strip()
        if said != "ready":
            raise client.refused(f"remote {said}" if said else "", f"making {run}")
        yield run
    finally:
        try:
            keeper.communicate(timeout=REMOVAL_S)
        except BaseException:  # also a second interrupt: the phone ends the process that waits there by itself
            keeper.kill()
            keeper.communicate()


def _copy(client: Client, scratch: Path, run: str, found: dict[str, Path], tar: bool) -> None:
    """Copy the sandbox into a run's folder: one archive where the phone has tar, else file by file."""
    doing = "copying the sandbox"
    if not tar:
        payload.lay_out(found, scratch / "sandbox")
        client.push(scratch / "sandbox", f"{run}/sandbox", doing)
        client.shell(f"chmod -R 755 {run}/sandbox", doing)
        return
    payload.pack(found, scratch / "sandbox.tar")
    client.push(scratch / "sandbox.tar", f"{run}/sandbox.tar", doing)
    # Its number is kept: should the connection end, it must not write on while the folder is removed.
    script = f"""mkdir {run}/sandbox
tar -x -f {run}/sandbox.tar -C {run}/sandbox </dev/null &
echo $! >{run}/pid
wait $!
code=$?
rm -f {run}/pid {run}/sandbox.tar
(exit $code)"""
    told = client.shell(script, doing, timeout=None)
    if told.code:
        raise client.refused(f"remote {told.err}", doing)


def _whole(client: Client, place: str, digests: dict[str, str]) -> bool:
    """Whether a folder on the phone holds exactly the files that it should."""
    script = f"cd {place} 2>/dev/null && find . -type f -print0 | xargs -0 sha256sum"
    told = client.shell(script, "checking the sandbox", timeout=None)
    lines = (line.split("  ./", 1) for line in told.out.splitlines())
    return {line[1]: line[0] for line in lines if len(line) == 2} == digests


def _room(client: Client, place: str, wanted: int) -> None:
    """Refuse what the phone's disk does not hold; where it does not tell, the copy itself will."""
    lines = client.shell(f"df -k {place}", "asking for free space").out.strip().splitlines()
    fields = lines[-1].split() if lines else []
    free = next((int(fields[i - 1]) << 10 for i, field in enumerate(fields) if field.endswith("%") and i), None)
    if free is not None and free < wanted + SPARE_BYTES:
        raise InputError(
            f"the disk of {client.serial} is full: {free >> 20} MB are free below {place}, "
            f"{(wanted + SPARE_BYTES) >> 20} MB are needed; free some of it and run it again."
        )


def _named_by(model: Path) -> dict[str, Path]:
    """Files beside an .onnx file whose names stand in it: its weights may be there."""
    if model.suffix != ".onnx" or model.stat().st_size > LONGEST_NAMED:
        return {}
    text = model.read_bytes()
    beside = [path for path in model.resolve().parent.iterdir() if path.is_file() and path.name != model.name]
    return {path.name: path for path in beside if len(path.name) > 3 and path.name.encode() in text}


def _measurement(
    name: str,
    client: Client,
    kind: phone.Phone,
    job: Job,
    result: dict[str, Any],
    cores: list[int] | None,
    states: tuple[phone.State, phone.State],
) -> Measurement:
    """What the guest told, with what the phone did meanwhile."""
    before, after = states
    found = measured(name, PHONE, job, result)
    clock, fell = phone.clock_report(cores or [], before, after)
    notes = [fell] if fell else []
    if cores is None:
        notes.append(f"{job.threads} big cores could not be chosen; the phone's scheduler chose")
    elif clock["fell"] is None:
        notes.append("the phone does not tell its clocks, so whether they fell is not known")
    governors = {after.cores.get(core, {}).get("scaling_governor") for core in cores or []} - {None}
    told = {
        "serial": client.serial,
        "model": kind.model,
        "android": kind.android,
        "soc": kind.soc,
        "governor": ", ".join(sorted(str(governor) for governor in governors)) or None,
        "clock": clock,
        "celsius": {"before": before.celsius, "after": after.celsius},
    }
    return replace(found, machine=found.machine | told, notes=(*found.notes, *notes))


def names() -> tuple[str, ...]:
    """The one name that is always there; `adb:SERIAL` names one of several phones."""
    return ("adb",)


def open(name: str) -> Adb:
    """The device of `adb` or `adb:SERIAL`; whether a phone is there is seen when it is used."""
    _, colon, serial = name.partition(":")
    if colon and not serial:
        raise InputError(f"{name!r} has no serial number: adb, or adb:SERIAL as `adb devices` lists it.")
    return Adb(name, serial or None)
