"""Rows that were measured elsewhere: what the app on a phone shares, and what `edgebert profile --json` prints.

The file is one JSON object in UTF-8, without a byte order mark, of up to 8 MiB and 1,000 rows:

    {"rows": [ROW, ...], "operators": [], "calibrations": []}

The last two may be left out, and are not read. A ROW has these keys, all of them and no other, `sqnr_db` if it is
known; every text is printable, on one line:

    file          text, up to 200 characters: the bundle, as it is shown
    target        "tflite", "onnx" or "executorch"; runtime: the same
    recipe        text, or null where it is not known
    length        whole number: tokens that went in; null where there is no such
    file_bytes    whole number: size of the model file
    delegated     0 to 1: the manifest's `graph.delegation.share`; or null
    ratio         number or null; not read: it is made anew, over all rows that are shown together
    layers        null in the app
    sqnr_db       number: how far a bundle's least exact output is from torch, in decibel; or null
    device        text, up to 80 characters: the phone, as it is shown, such as "Google Pixel 8"
    how           "measured-on-phone", "measured-on-host" or "simulated"
    threads       whole number, of the runtime
    entry         text: the signature that ran, such as "tokens_32"; or null
    inputs        list of {"name": text, "dtype": text, "shape": [whole numbers]}; outputs: the same
    load_ms       number or null: opening the file; first_ms: the first run
    latency       {"median_ms", "p90_ms", "min_ms", "max_ms", "spread": numbers, "runs": whole number}, of steady runs;
                  spread is (90th percentile - 10th) / median; a quantile q of n sorted times is at q * (n - 1), between
                  its neighbours in proportion
    peak_bytes    whole number: the most memory that the process held (VmHWM); or null
    versions      object of texts, such as {"edgebert": "0.1.0", "tensorflow-lite": "2.21.0"}
    machine       object: what the device tells of itself, see below
    notes         list of texts
    estimate      null in the app; of a simulated phone what `edgebert.runtimes.devices.device.Estimate` holds

The app's `machine` has, of Android's `Build`, `model`, `manufacturer`, `abi` (the first that is supported),
`fingerprint`, `hardware`, `android`, `sdk` and `soc` (or null), and beside them `machine` ("aarch64"), `system`
("Android"), `cores`, `cpu` and `features` (a line of /proc/cpuinfo, or null).

A row is labelled measured-on-phone only where it says so and its machine is a phone's by `_is_phone`: its build is none
of an emulator's or of Robolectric's. Any other row of the app's gets the label measured-on-host and a note.
"""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from itertools import pairwise
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

from edgebert.errors import InputError
from edgebert.files import JSON_BYTES, parse_json, read
from edgebert.profiling.rows import Row
from edgebert.runtimes.devices.device import HOST, PHONE, RUNTIME_OF, SIMULATED, Latency, Measurement

ROWS, LONG, SHORT = 1000, 2000, 200  # rows of a file; characters of any text, and of those that are shown in a table
MOST = 1e15  # of any number: what plots and tables take
ALONE = "by the app, not on a phone"
TOP = {"rows", "operators", "calibrations"}
OWN = [field.name for field in fields(Row) if field.name != "found"]
LATER = ("sqnr_db",)  # what rows of older files and the app lack

# What builds of no phone have in what they call themselves.
NO_PHONE = ("robolectric", "sdk_gphone", "emulator", "goldfish", "ranchu", "cuttlefish", "vbox")
ABIS = ("arm", "x86")


def load(path: str | Path) -> list[Row]:
    """The rows in a file, without ratios.

    Raises:
        InputError: the file cannot be read, or holds anything else.
    """
    path = Path(path)
    raw = parse_json(read(path, JSON_BYTES), path)
    listed = raw.get("rows")
    if not isinstance(listed, list) or not 0 < len(listed) <= ROWS or set(raw) - TOP:
        raise InputError(
            f"{path} holds no rows: give the file that the app shared, or what edgebert profile --json printed "
            f"(up to {ROWS:,} rows)."
        )
    return [_row(one, f"{path}: row {number}") for number, one in enumerate(listed, 1)]


def _row(raw: Any, where: str) -> Row:
    """A row of what JSON holds.

    Raises:
        InputError: it is none; `where` stands before what is wrong.
    """
    names = {*OWN, *(field.name for field in fields(Measurement))}
    if isinstance(raw, dict):
        raw = {key: None for key in LATER} | raw
    if not isinstance(raw, dict) or set(raw) != names:
        odd = sorted(set(raw) ^ names) if isinstance(raw, dict) else [type(raw).__name__]
        raise InputError(f"{where} has missing or unknown fields: {', '.join(odd):.200}; share it again.")
    for text in _texts(raw):
        if len(text) > LONG or not text.isprintable():
            raise InputError(f"{where} has {text!r:.80} where a line of text belongs.")
    try:
        found = _made(Measurement, {key: value for key, value in raw.items() if key not in OWN})
        row: Row = _made(Row, {key: raw[key] for key in OWN} | {"found": found})
        _check(row)
    except ValueError as error:
        raise InputError(f"{where}: {error}; share it again.") from None
    return replace(row, ratio=None, found=_labelled(found))


def _texts(value: Any) -> Iterator[str]:
    """Every text in a value, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)


def _made(kind: Any, value: Any, name: str = "row") -> Any:
    """A value from JSON as a type has it; a whole number is a float too.

    Raises:
        ValueError: it is none of that type.
    """
    inner = get_args(kind)
    if isinstance(kind, UnionType):
        return None if value is None else _made(next(one for one in inner if one is not type(None)), value, name)
    if is_dataclass(kind) and isinstance(value, dict):
        if set(value) != {field.name for field in fields(kind)}:
            raise ValueError(f"{name} has other fields than it should")
        made: Any = kind
        return made(**{field.name: _made(field.type, value[field.name], field.name) for field in fields(kind)})
    if get_origin(kind) is tuple and isinstance(value, list):
        return tuple(_made(inner[0], one, name) for one in value)
    if get_origin(kind) is dict and isinstance(value, dict):
        return {key: _made(inner[1], one, name) for key, one in value.items()}
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) > MOST:
        raise ValueError(f"{name} is {value:.3g}, which is none that was measured")
    if kind is float and type(value) is int:
        return float(value)
    if kind is Any or type(value) is kind:
        return value
    if isinstance(kind, type) and is_dataclass(kind) and isinstance(value, kind):
        return value
    raise ValueError(f"{name} is {value!r:.60}, which does not belong there")


def _check(row: Row) -> None:
    """Raise ValueError unless the numbers of a row can be those of a run."""
    found = row.found
    for name, text in (("file", row.file), ("device", found.device), ("recipe", row.recipe or "-")):
        if not 0 < len(text) <= SHORT:
            raise ValueError(f"{name} has {len(text)} characters")
    if found.how not in (HOST, SIMULATED, PHONE):
        raise ValueError(f"how is {found.how!r:.40}; {HOST}, {SIMULATED} and {PHONE} are known")
    if row.target not in RUNTIME_OF.values() or found.runtime != row.target:
        raise ValueError(f"target and runtime are {row.target!r:.40} and {found.runtime!r:.40}")
    if found.how != SIMULATED and (found.latency is None or found.estimate is not None):
        raise ValueError("it has no latency, or an estimate in its place")
    whole = (row.length, row.file_bytes, found.threads, found.peak_bytes, row.layers)
    if min(number for number in whole if number is not None) < 1 or not 0 <= (row.delegated or 0) <= 1:
        raise ValueError("a size, a count or a share is none")
    if min(found.load_ms or 0, found.first_ms or 0) < 0:
        raise ValueError("a time is below 0")
    if found.latency is not None:
        _check_latency(found.latency)
    if found.estimate is not None and not 0 < found.estimate.low_ms <= found.estimate.ms <= found.estimate.high_ms:
        raise ValueError("the estimate is not within its own band")


def _check_latency(told: Latency) -> None:
    """Raise ValueError unless these are quantiles of times."""
    p10 = told.p90_ms - told.spread * told.median_ms
    ordered = (0.0, told.min_ms, p10, told.median_ms, told.p90_ms, told.max_ms)
    slack = 1e-6 * max(abs(value) for value in ordered)
    if told.runs < 1 or any(one > other + slack for one, other in pairwise(ordered)):
        raise ValueError("latency does not ascend from min_ms to max_ms")


def _labelled(found: Measurement) -> Measurement:
    """A measurement with the label that its machine bears out."""
    claims = found.how == PHONE or (found.how == HOST and found.machine.get("system") == "Android")
    if not claims or _is_phone(found):
        return found
    return replace(found, how=HOST, notes=(*(note for note in found.notes if note != ALONE), ALONE))


def _is_phone(found: Measurement) -> bool:
    """Whether a machine's facts are a phone's: as the app tells them, or as adb does."""
    facts = ("model", "fingerprint", "abi", "hardware", "manufacturer")
    model, build, abi, *rest = (str(found.machine.get(name) or "").lower() for name in facts)
    if found.device.startswith("adb") and found.machine.get("serial") and model:
        return True
    if not model or not build or not abi.startswith(ABIS) or "unknown" in model + build:
        return False
    emulated = any(word in name for name in (model, build, *rest) for word in NO_PHONE)
    return not emulated and not any(part.startswith("generic") for part in build.split("/"))
