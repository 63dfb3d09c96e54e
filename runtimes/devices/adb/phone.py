"""What a phone tells of itself to its own shell, without root: kind, cores, clocks, temperatures."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from edgebert.errors import InputError
from edgebert.runtimes.devices.adb.client import Client

ABI = "arm64-v8a"
PROPERTIES = ("ro.product.model", "ro.build.version.release", "ro.soc.model", "ro.product.cpu.abilist")
FOLDERS = ("/data/local/tmp", "/tmp")  # Android's, and that of an Arm board with another Linux
TOOLS = ("tar", "find", "xargs", "sha256sum")
CPU = "/sys/devices/system/cpu"
FELL = 0.95  # of the highest clock

ASK = f"""
for k in {" ".join(PROPERTIES)}; do echo "$k=$(getprop $k)"; done 2>/dev/null
echo "machine=$(uname -m)"
for d in {" ".join(FOLDERS)}; do [ -d $d ] && [ -w $d ] && echo "folder=$d" && break; done
for t in {" ".join(TOOLS)}; do command -v $t >/dev/null && echo "tool=$t"; done
while read k v; do [ "$k" = Cpus_allowed_list: ] && echo "allowed=$v"; done </proc/self/status
:"""

# `read` of the shell, and not a program for each of some hundred files.
STATE = f"""
for c in {CPU}/cpu[0-9]*; do
for f in cpuinfo_max_freq scaling_max_freq scaling_cur_freq scaling_governor; do
read v <$c/cpufreq/$f && echo "${{c##*/}} $f $v"
done; done 2>/dev/null
for z in /sys/class/thermal/thermal_zone*; do
read v <$z/temp && read n <$z/type && echo "zone $v $n"
done 2>/dev/null
:"""
# Where an app may not read the zones, the service that watches them tells: kinds 0 and 3 are processor and skin.
SERVICE = "dumpsys thermalservice 2>/dev/null\n:"

KINDS = {"cpu": r"cpu|^(big|mid|little)$", "soc": r"soc|^(tsens|aoss)", "skin": r"skin|quiet.therm"}


@dataclass(frozen=True, slots=True)
class Phone:
    """A phone that runs aarch64 programs.

    Attributes:
        model: as it is sold, `Pixel 4`; android: version; soc: its processor; None where it does not tell.
        folder: where programs may be put and run.
        tools: of `TOOLS`, those that it has.
        allowed: numbers of the cores that the shell may use.
    """

    model: str | None
    android: str | None
    soc: str | None
    folder: str
    tools: frozenset[str]
    allowed: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class State:
    """A moment: clocks in kHz and the governor by core, file name to text, and temperatures in degrees by kind."""

    cores: dict[int, dict[str, str]]
    celsius: dict[str, float]

    def clock(self, core: int, name: str) -> int | None:
        """A core's clock of `scaling_cur_freq` and the like; None where it is not told."""
        text = self.cores.get(core, {}).get(name, "")
        return int(text) if text.isdigit() else None


def probe(client: Client) -> Phone:
    """Ask a phone what it is.

    Raises:
        InputError: it does not run what is sent: not aarch64, too old, or no folder for programs.
        MissingDependency: it went away.
    """
    if "shell_v2" not in client.features():
        raise InputError(f"{client.serial} has an Android older than 7, whose shell tells no exit codes.")
    lines = [line.partition("=") for line in client.shell(ASK, "asking what it is").out.splitlines()]
    told = {key: value.strip() for key, _, value in lines}
    abis = told.get("ro.product.cpu.abilist") or {"aarch64": ABI}.get(told.get("machine", ""), told.get("machine", ""))
    if ABI not in abis.split(","):
        raise InputError(f"{client.serial} runs programs for {abis or 'nothing known'}; {ABI} is needed.")
    if "folder" not in told:
        raise InputError(f"the shell of {client.serial} may write neither {' nor '.join(FOLDERS)}.")
    model, android, soc = (told.get(key) or None for key in PROPERTIES[:3])
    tools = frozenset(value for key, _, value in lines if key == "tool")
    return Phone(model, android, soc, told["folder"], tools, _numbers(told.get("allowed", "")))


def _numbers(spans: str) -> tuple[int, ...]:
    """The numbers of `0-3,7`."""
    found = [re.fullmatch(r"(\d+)(?:-(\d+))?", span.strip()) for span in spans.split(",")]
    return tuple(n for match in found if match for n in range(int(match[1]), int(match[2] or match[1]) + 1))


def state(client: Client) -> State:
    """Clocks and temperatures as they are now."""
    told = client.shell(STATE, "asking for its clocks").out
    zones = [line.split(None, 2)[1:] for line in told.splitlines() if line.startswith("zone ")]
    readings = [(name, int(value) / (1000 if abs(int(value)) > 1000 else 1)) for value, name in zones if _whole(value)]
    if not readings:
        told_too = client.shell(SERVICE, "asking for its temperatures").out
        found = re.findall(r"mValue=(-?[\d.]+), mType=([03]), mName=", told_too)
        readings = [({"0": "cpu", "3": "skin"}[kind], float(value)) for value, kind in found]
    return State(clocks(told), _hottest(readings))


def _whole(text: str) -> bool:
    return re.fullmatch(r"-?\d+", text) is not None


def clocks(told: str) -> dict[int, dict[str, str]]:
    """The lines `cpu7 scaling_cur_freq 2841600` of what a phone said."""
    cores: dict[int, dict[str, str]] = {}
    for core, name, value in re.findall(r"^cpu(\d+) (\w+) (.+)$", told, re.MULTILINE):
        cores.setdefault(int(core), {})[name] = value.strip()
    return cores


def _hottest(readings: Iterable[tuple[str, float]]) -> dict[str, float]:
    """The hottest sensor of each kind; sensors that are switched off tell 0 or absurd values."""
    found: dict[str, float] = {}
    for name, value in readings:
        kind = next((kind for kind, words in KINDS.items() if re.search(words, name, re.IGNORECASE)), None)
        if kind and 0 < value < 150:
            found[kind] = max(value, found.get(kind, 0.0))
    return found


def big_cores(phone: Phone, now: State, threads: int) -> list[int] | None:
    """As many cores as threads, the fastest that may be used; None where the phone has not so many or does not tell."""
    highest = {core: now.clock(core, "cpuinfo_max_freq") for core in phone.allowed}
    known = sorted((core for core in highest if highest[core]), key=lambda core: (-(highest[core] or 0), -core))
    return sorted(known[:threads]) if 0 < threads <= len(known) else None


def clock_report(cores: list[int], before: State, after: State) -> tuple[dict[str, Any], str | None]:
    """How the clocks of the cores that ran stood at the end, and a sentence if they had fallen.

    Args:
        cores: their numbers.
        before: of a moment before, when cores may rest: its clocks are told, and not judged.
        after: of the very end of the run, when they are busy.
    """
    report: dict[str, Any] = {"fell": None}
    fallen = []
    for core in cores:
        most = after.clock(core, "cpuinfo_max_freq") or before.clock(core, "cpuinfo_max_freq")
        now, cap = (after.clock(core, name) for name in ("scaling_cur_freq", "scaling_max_freq"))
        seen = {"max": most, "before": before.clock(core, "scaling_cur_freq"), "after": now, "cap": cap}
        report[f"cpu{core}_mhz"] = {name: round(khz / 1000) for name, khz in seen.items() if khz}
        lowest = min((khz for khz in (now, cap) if khz), default=None)
        if most and lowest:
            report["fell"] = bool(report["fell"]) or lowest < FELL * most
            if lowest < FELL * most:
                fallen.append(f"core {core} ended at {round(lowest / 1000)} of {round(most / 1000)} MHz")
    return report, f"the clock had fallen: {', '.join(fallen)}" if fallen else None
