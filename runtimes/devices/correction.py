"""How far the simulated Pixels' times were from a real phone's, kept in the user's cache and applied from then on.

One ratio for each phone, runtime and kind of file: the phone's median over the simulated one's, of the same model with
the same inputs and threads. It takes up what a model of one core leaves out on that phone, such as its governor.
"""

import json
import math
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from edgebert.errors import InputError
from edgebert.files import cache, replaced
from edgebert.runtimes.devices.device import PHONE, SIMULATED, Measurement
from edgebert.runtimes.devices.pixel.phones import PHONES

# Words of a name that change a phone's size, and not its processor.
SIZES = re.compile(r"-(xl|pro|fold)\b")


@dataclass(frozen=True, slots=True)
class Calibration:
    """What one comparison gave.

    Attributes:
        phone: a simulated phone's name, `pixel-4`.
        runtime: tflite, onnx or executorch.
        kind: dtype of most of the file's weights, such as `int8`.
        ratio: the phone's time over the simulated one's.
        simulated_ms, phone_ms: medians; threads: that both had.
        model: what the phone calls itself; clock_fell: whether its clock had fallen, None where it does not tell.
    """

    phone: str
    runtime: str
    kind: str
    ratio: float
    simulated_ms: float
    phone_ms: float
    threads: int
    model: str
    clock_fell: bool | None

    @property
    def key(self) -> str:
        """Under which it is kept."""
        return f"{self.phone}/{self.runtime}/{self.kind}"

    def __str__(self) -> str:
        """One line: `pixel-4 with tflite and int8 weights takes 1.1 times as long as simulated (102 ms, not 93)`."""
        fell = "; its clock had fallen, so measure a cool phone again" if self.clock_fell else ""
        return (
            f"{self.phone} with {self.runtime} and {self.kind} weights takes {self.ratio:.3g} times as long as "
            f"simulated ({self.phone_ms:.3g} ms on a {self.model}, not {self.simulated_ms:.3g}){fell}"
        )


def phone_of(model: str | None) -> str | None:
    """The simulated phone of what a phone calls itself, `pixel-4` of `Pixel 4 XL`; None where there is none."""
    name = re.sub(r"\s+", "-", (model or "").strip().lower())
    return name if name in PHONES else small if (small := SIZES.sub("", name)) in PHONES else None


def calibrate(simulated: Measurement, phone: Measurement, kind: str) -> Calibration:
    """Compare a simulated phone's time with the real one's.

    Args:
        simulated: of a `pixel-…` device, before any calibration.
        phone: of an `adb` device: the same file, inputs and threads.
        kind: dtype of most of the file's weights, such as `float32` or `int8`.

    Raises:
        InputError: the two are not of one model on one phone, or have no times.
    """
    if simulated.how != SIMULATED or phone.how != PHONE:
        raise InputError(f"a {SIMULATED} time and one {PHONE} are compared; {simulated.how} and {phone.how} came.")
    if "calibrated" in simulated.machine:
        raise InputError("the simulated time is calibrated already; compare one without.")
    for name in ("runtime", "threads", "inputs", "outputs"):
        left, right = getattr(simulated, name), getattr(phone, name)
        if left != right:
            raise InputError(f"{name} differ: {left} simulated, {right} on the phone; one model is compared.")
    model = str(phone.machine.get("model"))
    if phone_of(model) != simulated.device:
        known = phone_of(model) or f"none of {', '.join(PHONES)}"
        raise InputError(f"the phone is a {model} ({known}), the simulated one {simulated.device}.")
    mine, theirs = (found.latency.median_ms if found.latency else 0.0 for found in (simulated, phone))
    if min(mine, theirs) <= 0:
        raise InputError("one of the two has no time to compare.")
    fell = phone.machine.get("clock", {}).get("fell")
    return Calibration(simulated.device, phone.runtime, kind, theirs / mine, mine, theirs, phone.threads, model, fell)


def keep(calibration: Calibration) -> Path:
    """Keep a calibration in place of an older one of the same phone, runtime and kind; gives the file."""
    path = file()
    known = _read(path) | {calibration.key: calibration}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path) as beside:
        beside.write_text(json.dumps({key: asdict(known[key]) for key in sorted(known)}, indent=1))
    return path


def kept(phone: str, runtime: str, kind: str) -> Calibration | None:
    """The calibration of a phone, runtime and kind of file; None where there is none.

    Raises:
        InputError: the file that keeps them is damaged.
    """
    return _read(file()).get(f"{phone}/{runtime}/{kind}")


def apply(simulated: Measurement, kind: str | None) -> Measurement:
    """A simulated measurement with its times as the phone's own calibration has them, and a note; as it is without."""
    if kind is None or simulated.how != SIMULATED or simulated.latency is None or "calibrated" in simulated.machine:
        return simulated
    found = kept(simulated.device, simulated.runtime, kind)
    if found is None:
        return simulated
    old = simulated.latency
    names = ("median_ms", "p90_ms", "min_ms", "max_ms")
    latency = replace(old, **{name: getattr(old, name) * found.ratio for name in names})
    note = (
        f"times are {found.ratio:.3g} times the model's, as measured on a {found.model} "
        f"({found.runtime}, {found.kind}, {found.threads} thread{'s' if found.threads > 1 else ''})"
    )
    machine = simulated.machine | {"calibrated": found.ratio}
    return replace(simulated, latency=latency, machine=machine, notes=(*simulated.notes, note))


def file() -> Path:
    """Where calibrations are kept."""
    return cache("calibration.json")


def _read(path: Path) -> dict[str, Calibration]:
    if not path.exists():
        return {}
    try:
        known = {key: Calibration(**told) for key, told in json.loads(path.read_text()).items()}
        right = all(
            isinstance(one.ratio, float) and math.isfinite(one.ratio) and one.ratio > 0 for one in known.values()
        )
    except (OSError, ValueError, TypeError, AttributeError):
        right = False
    if not right:
        raise InputError(f"{path} holds no calibrations that can be read: remove it, and calibrate again.")
    return known
