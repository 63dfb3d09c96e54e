"""Fit the cycle model of the simulated Pixels on published measurements, and print how well it fits.

    python tools/fit_cycles.py            fit on the counts kept beside this script, print, check fit.json
    python tools/fit_cycles.py --write    the same, and write fit.json
    python tools/fit_cycles.py --count    build the workloads, count them on emulated cores, and keep the counts first

How each published row is matched:

- Where the runtime of today runs the kernel that was measured, the workload is rebuilt, counted and modelled whole; the
  MobileNets are. Of the one-layer product on X1 only the kernel's own blocks count, as its benchmark timed no more.
- Where it runs another kernel, the measured one is written down by hand from its loop: what one turn asks for, and how
  often it turns. So are the 5x16 tile on X1 (today's runtime has the 4x16 one) and the 8x8 tile on A55 (today's runs
  KleidiAI's).
- The A76 row is weak: TFLite 2.1 had other kernels, and another build on the same phone took 56% longer. It is shown,
  not fitted.
- Two rows from the README of google/XNNPACK (Pixel 3a, one thread, fp32 MobileNets) are checks: no number is fitted on
  them, but they were known when the form of the model was chosen, as all rows were. So the errors that are printed,
  with rows left out too, are of three numbers within one form, and times of other workloads may lie further off.
"""

import argparse
import json
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from unittest import mock

from edgebert.runtimes.devices.pixel import phones
from edgebert.runtimes.devices.pixel.cycles import FIT, Fit, Work, seconds, work

COUNTS = Path(__file__).with_name("calibration_counts.json")

GIVEN, CHECK, WEAK = "fitted", "check", "weak"
# Which number of the fit a row tells of.
WAIT, STRETCH, UNPAIRED = "wait", "stretch", "unpaired"
SPAN = {WAIT: (4.0, 16.0), STRETCH: (1.0, 2.0), UNPAIRED: (0.0, 2.0)}
XNNPACK = "google/XNNPACK"


@dataclass(frozen=True, slots=True)
class Row:
    """A published measurement, one thread.

    Attributes:
        name: of the row.
        core, ghz: where it was taken.
        ms: the published time.
        workload: to be rebuilt and counted, or of the kernel written by hand.
        tells: the number of the fit that it tells of.
        source: where it was published.
        symbol: only blocks of functions with this in their name count.
        role: fitted, or only shown.
    """

    name: str
    core: str
    ghz: float
    ms: float
    workload: str
    tells: str
    source: str
    symbol: str = ""
    role: str = GIVEN


ROWS = (
    Row("x1-qs8-gemm-4x16", "cortex-x1", 2.82, 0.0906, "qs8-gemm-256-128-256", WAIT, f"{XNNPACK} 26b6e4c848",
        symbol="qs8_qc8w_gemm"),
    Row("x1-qs8-gemm-5x16", "cortex-x1", 2.82, 0.0802, "by hand", WAIT, f"{XNNPACK} 26b6e4c848"),
    Row("a55-qd8-gemm", "cortex-a55", 1.803, 3.090, "by hand", UNPAIRED, f"{XNNPACK} a0cdda2dc0"),
    Row("a75-qs8-mobilenet-v1", "cortex-a75", 2.803, 39.8, "qs8-mobilenet-v1", STRETCH, f"{XNNPACK} e696c3fb6f"),
    Row("a75-qs8-mobilenet-v2", "cortex-a75", 2.803, 29.0, "qs8-mobilenet-v2", STRETCH, f"{XNNPACK} e696c3fb6f"),
    Row("a55-f32-mobilenet-v1", "cortex-a55", 1.6, 170.0, "f32-mobilenet-v1", UNPAIRED, f"{XNNPACK} 64debceffb"),
    Row("a55-f32-mobilenet-v2", "cortex-a55", 1.6, 111.1, "f32-mobilenet-v2", UNPAIRED, f"{XNNPACK} 64debceffb"),
    Row("a76-f32-mobilenet-v1-tflite", "cortex-a76", 2.84, 43.3, "f32-mobilenet-v1", STRETCH,
        "microsoft/nn-Meter issue 83", role=WEAK),
    Row("pixel-3a-f32-mobilenet-v1", "cortex-a75", 1.997, 88.0, "f32-mobilenet-v1", STRETCH, f"{XNNPACK} README",
        role=CHECK),
    Row("pixel-3a-f32-mobilenet-v2", "cortex-a75", 1.997, 55.0, "f32-mobilenet-v2", STRETCH, f"{XNNPACK} README",
        role=CHECK),
)  # fmt: skip

Blocks = list[tuple[Work, int]]


def by_hand(counts: dict[str, int], accumulations: int) -> Work:
    """A block's work from what its loop has."""
    return Work(counts, accumulations, accumulations, sum(counts.values()))


# Tiles of 16 columns and 5 rows, M 256 N 128 K 256: 16 bytes of K a turn, each tile's sums then scaled, rounded,
# narrowed and stored. Tiles of 8 columns and 8 rows, M 196 N 512 K 512: 8 bytes of K a turn.
X1_TILES, A55_TILES = 52 * 8, 25 * 64
HAND: dict[str, Blocks] = {
    "x1-qs8-gemm-5x16": [
        (by_hand({"dot": 80, "load_q": 21, "scalar": 1, "branch": 1}, 4), X1_TILES * 16),
        (by_hand({"integer": 90, "fmul": 20, "permute": 16, "load_q": 8, "store_q": 5, "scalar": 20, "branch": 2}, 0),
         X1_TILES),
    ],
    "a55-qd8-gemm": [
        (by_hand({"dot": 32, "load_d": 8, "load_q": 4, "scalar": 1, "branch": 1}, 2), A55_TILES * 64),
        (by_hand({"integer": 32, "fmul": 16, "fma32": 16, "fadd": 32, "permute": 8, "load_q": 10, "store_q": 16,
                  "scalar": 30, "branch": 2}, 1), A55_TILES),
    ],
}  # fmt: skip


def count_all(tell: Callable[[str], None] = print) -> dict[str, list[object]]:
    """Count every workload that is rebuilt, on its row's core; gives what `read` takes, row to blocks."""
    import calibration_models

    from edgebert.runtimes.devices.device import Job
    from edgebert.runtimes.devices.pixel import counter

    files, kept = phones.files, {}

    def revised(core: phones.Core, ghz: float) -> dict[str, str]:
        """The A55 of the measurements is revision 1, which its kernels are chosen by; the variant tells it."""
        return {
            path: text.replace("CPU variant\t: 0x0", "CPU variant\t: 0x1") for path, text in files(core, ghz).items()
        }

    with tempfile.TemporaryDirectory() as made, mock.patch.object(phones, "files", revised):
        for row in ROWS:
            if row.name in HAND:
                continue
            path = calibration_models.build(row.workload, Path(made))
            phone = phones.Phone(row.core, "", (phones.Cluster(row.core, phones.LISTED, row.ghz),))
            counts = counter.count(Job(path), phone)
            blocks = [block for block in counts.blocks if row.symbol in (block.symbol or "")]
            tell(f"{row.name}: {sum(block.instructions for block in blocks)} instructions")
            kept[row.name] = condense([(work(block.words), block.times) for block in blocks])
    return kept


def condense(blocks: Blocks, share: float = 0.998) -> list[object]:
    """Blocks as they are kept, greatest first: [times, counts, carried, within]; the last is the sum of small ones."""
    order = sorted(blocks, key=lambda pair: -pair[0].length * pair[1])
    total = sum(one.length * times for one, times in order)
    kept: list[object] = []
    rest: Counter[str] = Counter()
    done = 0
    for one, times in order:
        if done < share * total:
            kept.append([times, dict(one.counts), one.carried, one.within])
        else:
            rest.update({kind: number * times for kind, number in one.counts.items()})
        done += one.length * times
    return [*kept, [1, dict(rest), 0, 0]]


def read(kept: dict[str, list[list[object]]]) -> dict[str, Blocks]:
    """Blocks of all rows: those that were kept, and those written by hand."""
    found: dict[str, Blocks] = dict(HAND)
    for name, blocks in kept.items():
        found[name] = [(Work(c, a, w, sum(c.values())), t) for t, c, a, w in blocks]  # type: ignore[attr-defined,misc,arg-type]
    return found


def modelled(row: Row, blocks: dict[str, Blocks], fitted: Fit) -> float:
    """The model's milliseconds for a row."""
    return seconds(blocks[row.name], row.core, row.ghz, fitted) * 1e3


def error(row: Row, blocks: dict[str, Blocks], fitted: Fit) -> float:
    """Modelled over published time, less one."""
    return modelled(row, blocks, fitted) / row.ms - 1


def fit(rows: Iterable[Row], blocks: dict[str, Blocks]) -> Fit:
    """The numbers that fit rows best, in squares of logarithms of modelled over published time.

    Each is found by cutting its span in three again and again, and all twice: the wait depends a little on the stretch.
    """
    found, rows = Fit(unpaired=0.9, stretch=1.2, wait=7.0, low=1.0, high=1.0), tuple(rows)
    for number in ("stretch", "wait", "unpaired") * 2:
        own = [row for row in rows if row.tells == number]
        low, high = SPAN[number]
        for _ in range(24):
            third = (high - low) / 3
            tried = [replace(found, **{number: at}) for at in (low + third, high - third)]
            left, right = (sum(math.log1p(error(row, blocks, one)) ** 2 for row in own) for one in tried)
            low, high = (low, high - third) if left <= right else (low + third, high)
        found = replace(found, **{number: round((low + high) / 2, 3)})
    return found


def left_out(rows: tuple[Row, ...], blocks: dict[str, Blocks]) -> dict[str, float]:
    """Each row's error where it is left out of the fit."""
    return {row.name: error(row, blocks, fit([r for r in rows if r is not row], blocks)) for row in rows}


def mean_absolute(errors: Iterable[float]) -> float:
    """Their mean, without signs."""
    found = [abs(one) for one in errors]
    return sum(found) / len(found)


def report(blocks: dict[str, Blocks]) -> Fit:
    """Fit, print the fit and its errors, and give it with its band."""
    rows = tuple(row for row in ROWS if row.role == GIVEN)
    found, without = fit(rows, blocks), left_out(rows, blocks)
    ratios = [1 / (1 + one) for one in without.values()]
    found = replace(found, low=round(min(1.0, *ratios), 3), high=round(max(1.0, *ratios), 3))
    print(f"{'row':30}{'core':12}{'published':>10}{'modelled':>10}{'error':>8}{'left out':>10}  role")
    for row in ROWS:
        own = f"{without[row.name]:+10.1%}" if row.name in without else f"{'':10}"
        took, off = modelled(row, blocks, found), error(row, blocks, found)
        print(f"{row.name:30}{row.core:12}{row.ms:10.4g}{took:10.4g}{off:+8.1%}{own}  {row.role}")
    fitted, alone = mean_absolute(error(row, blocks, found) for row in rows), mean_absolute(without.values())
    print(f"mean absolute error: {fitted:.1%} of {len(rows)} rows fitted, {alone:.1%} left out one at a time")
    for role in (CHECK, WEAK):
        off = mean_absolute(error(row, blocks, found) for row in ROWS if row.role == role)
        print(f"mean absolute error of {role} rows, which are never fitted: {off:.1%}")
    print(f"fitted: {asdict(found)}")
    return found


def main() -> None:
    """Count if asked, fit, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", action="store_true", help="build and count the workloads anew (two minutes)")
    parser.add_argument("--write", action="store_true", help="write fit.json")
    given = parser.parse_args()
    if given.count:
        lines = ",\n".join(f'"{name}": [\n{_lines(blocks)}\n]' for name, blocks in count_all().items())
        COUNTS.write_text(f"{{\n{lines}\n}}\n")
    found = report(read(json.loads(COUNTS.read_text())))
    if given.write:
        FIT.write_text(json.dumps(asdict(found), indent=1) + "\n")


def _lines(blocks: list[object]) -> str:
    return ",\n".join(json.dumps(block) for block in blocks)


if __name__ == "__main__":
    main()
