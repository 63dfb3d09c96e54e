"""Fit the cycle model of the simulated Pixels on published measurements, and print how well it fits.

    python tools/fit_cycles.py            fit on the counts kept beside this script, print
    python tools/fit_cycles.py --write    the same, and write fit.json
    python tools/fit_cycles.py --table    print the table of docs/evidence.md, what milliseconds are worth
    python tools/fit_cycles.py --count    build the workloads, count them on emulated cores, and keep the counts first

`pixel_rows.json` has the measurements, each with its source. A row's workload is rebuilt (`calibration_models.py`), run
by the runtime of today with the kernels of the row's core, counted, and modelled whole. What a row is for:

- fitted: rows of XNNPACK, whose kernels are those that are counted, and rows in float of other engines, for a product
  of floats is the same few instructions everywhere;
- check: other engines' rows in half precision and integers, which come of kernels that are not counted; a core's first
  rows before its kernels were the ones of today (two tiles on X1 that whole nets of a later source outrun, one on A55,
  each written down by hand from its loop). They are shown, and nothing is fitted on them;
- of several threads: the same, and the rate at which threads read weights is fitted on those that have a row of one
  thread from the same source.

How well the model foretells is told by leaving out one source at a time: its rows are modelled with what the others
give, a core that then has no row with what the other cores give. Bands are made of these errors, and counted the same
way: a source's rows against bands that were made without it.
"""

import argparse
import json
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from edgebert.runtimes.devices.pixel import phones
from edgebert.runtimes.devices.pixel.cycles import FIT, Fit, Known, Work, seconds, took_together, work
from edgebert.runtimes.devices.pixel.cycles import fit as kept_fit

HERE = Path(__file__).parent
COUNTS, PUBLISHED = HERE / "calibration_counts.json", HERE / "pixel_rows.json"

FITTED, CHECK = "fitted", "check"
SPAN = 0.5, 30.0  # GB/s at which threads may read weights together
EXPOSED = 0.0, 3.0  # ns that a core may wait for a byte
HIDES = ("cortex-x1", "cortex-x3", "cortex-x4")  # wait for none, see `cycles`
WIDTH = 1.645  # standard deviations: nine of ten lie within
NARROWEST = 0.06  # the least standard deviation that a band is made of
NOTHING = Known(1.0, 0.0, (1.0, 1.0), (1.0, 1.0))

Blocks = list[tuple[Work, int]]


@dataclass(frozen=True, slots=True)
class Row:
    """A published measurement.

    Attributes:
        id: its name.
        source: where it was published.
        engine: that was measured.
        workload: what was run; rebuilt, or of a kernel written by hand.
        core: on which; of several threads the biggest's.
        ghz: the clock of each thread's core, biggest first.
        ms: the published time.
    """

    id: str
    source: str
    engine: str
    workload: str
    core: str
    ghz: tuple[float, ...]
    ms: float

    @property
    def key(self) -> str:
        """Of its counts."""
        return f"{self.workload}@{self.core}"

    @property
    def role(self) -> str:
        """What it is for."""
        by_hand = "-gemm-" in self.workload
        counted = self.engine == "XNNPACK" or self.workload.startswith("f32")
        return FITTED if counted and not by_hand else CHECK

    @property
    def given(self) -> tuple[tuple[str, float, bool], ...]:
        """The cores, as `cycles.workers` gives them."""
        return tuple((self.core, ghz, False) for ghz in self.ghz)


@dataclass(frozen=True, slots=True)
class Counted:
    """What a workload asks of a core: its blocks, and the bytes of its weights."""

    blocks: Blocks
    weights: int


Counts = Mapping[str, Counted]


def by_hand(counts: dict[str, int], accumulations: int) -> Work:
    """A block's work from what its loop has."""
    return Work(counts, accumulations, accumulations, sum(counts.values()))


# Tiles of 16 columns and 5 rows, M 256 N 128 K 256: 16 bytes of K a turn, each tile's sums then scaled, rounded,
# narrowed and stored. Tiles of 8 columns and 8 rows, M 196 N 512 K 512: 8 bytes of K a turn.
X1_TILES, A55_TILES = 52 * 8, 25 * 64
HAND: dict[str, Counted] = {
    "hand-qs8-gemm-5x16@cortex-x1": Counted([
        (by_hand({"dot": 80, "load_q": 21, "scalar": 1, "branch": 1}, 4), X1_TILES * 16),
        (by_hand({"integer": 90, "fmul": 20, "permute": 16, "load_q": 8, "store_q": 5, "scalar": 20, "branch": 2}, 0),
         X1_TILES),
    ], 128 * 256),
    "hand-qd8-gemm-8x8@cortex-a55": Counted([
        (by_hand({"dot": 32, "load_d": 8, "load_q": 4, "scalar": 1, "branch": 1}, 2), A55_TILES * 64),
        (by_hand({"integer": 32, "fmul": 16, "fma32": 16, "fadd": 32, "permute": 8, "load_q": 10, "store_q": 16,
                  "scalar": 30, "branch": 2}, 1), A55_TILES),
    ], 512 * 512),
}  # fmt: skip


def rows() -> tuple[Row, ...]:
    """The measurements."""
    return tuple(Row(**told | {"ghz": tuple(told["ghz"])}) for told in json.loads(PUBLISHED.read_text()))


def count_all(tell: Callable[[str], None] = print) -> dict[str, Any]:
    """Count every workload on every core that a row has; gives what `read` takes."""
    import calibration_models

    from edgebert.runtimes.devices.device import Job
    from edgebert.runtimes.devices.pixel import counter

    files, kept = phones.files, {}

    def revised(core: phones.Core, ghz: float) -> dict[str, str]:
        """The A55 of the measurements is revision 1, which its kernels are chosen by; the variant tells it."""
        told = files(core, ghz)
        if core is not phones.CORES["cortex-a55"]:
            return told
        return {path: text.replace("CPU variant\t: 0x0", "CPU variant\t: 0x1") for path, text in told.items()}

    asked = dict.fromkeys((row.workload, row.core, row.key) for row in rows() if row.key not in HAND)
    with tempfile.TemporaryDirectory() as made, mock.patch.object(phones, "files", revised):
        for workload, core, key in asked:
            path = calibration_models.build(workload, Path(made))
            phone = phones.Phone(core, "", (phones.Cluster(core, phones.LISTED, 2.0),))
            counts = counter.count(Job(path), phone)
            tell(f"{key}: {counts.instructions} instructions")
            blocks = condense([(work(block.words), block.times) for block in counts.blocks])
            kept[key] = {"bytes": path.stat().st_size, "blocks": blocks}
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


def read(kept: Mapping[str, Any]) -> Counts:
    """What all rows ask: what was counted and kept, and what is written by hand."""
    found = dict(HAND)
    for key, told in kept.items():
        blocks = [(Work(c, a, w, sum(c.values())), t) for t, c, a, w in told["blocks"]]
        found[key] = Counted(blocks, told["bytes"])
    return found


def modelled(row: Row, counts: Counts, fitted: Fit) -> float:
    """The model's milliseconds for a row."""
    return took_together(counts[row.key].blocks, row.given, counts[row.key].weights, fitted) * 1e3


def error(row: Row, counts: Counts, fitted: Fit) -> float:
    """Modelled over published time, less one."""
    return modelled(row, counts, fitted) / row.ms - 1


def least(loss: Callable[[float], float], low: float, high: float) -> float:
    """Where a function with one minimum has it, by cutting its span in three again and again."""
    for _ in range(60):
        third = (high - low) / 3
        low, high = (low, high - third) if loss(low + third) <= loss(high - third) else (low + third, high)
    return (low + high) / 2


def fit(given: Iterable[Row], counts: Counts) -> Fit:
    """What fits rows best, in squares of logarithms of modelled over published time; without bands."""
    given = tuple(row for row in given if row.role == FITTED or len(row.ghz) > 1)
    cores = dict.fromkeys(row.core for row in given if row.role == FITTED and len(row.ghz) == 1)
    found = {core: _core([row for row in given if row.core == core], counts) for core in cores}
    pooled = Known(
        round(math.exp(mean(math.log(one.stretch) for one in found.values())), 3),
        round(mean(one.exposed for one in found.values()), 3), *[(1.0, 1.0)] * 2,
    )  # fmt: skip
    return Fit(found, pooled, _unshared(given, counts))


def _core(given: Sequence[Row], counts: Counts) -> Known:
    """The two numbers of one core, by its rows of one thread."""
    core = given[0].core
    plain = Fit({core: NOTHING}, NOTHING, 1.0)
    asked = [
        (_busy(row, counts, plain), counts[row.key].weights * 1e-9 * 1e3, row.ms)
        for row in given
        if row.role == FITTED and len(row.ghz) == 1
    ]

    def stretch(exposed: float) -> float:
        """The best one beside an exposure, nearly: the mean of logarithms."""
        return math.exp(mean(math.log(max(ms - exposed * weights, 0.05 * ms) / busy) for busy, weights, ms in asked))

    def loss(exposed: float) -> float:
        by = stretch(exposed)
        return sum(math.log((by * busy + exposed * weights) / ms) ** 2 for busy, weights, ms in asked)

    exposed = 0.0 if core in HIDES or len(asked) < 3 else round(least(loss, *EXPOSED), 3)
    return Known(round(stretch(exposed), 3), exposed, (1.0, 1.0), (1.0, 1.0))


def _busy(row: Row, counts: Counts, plain: Fit) -> float:
    return seconds(counts[row.key].blocks, row.core, row.ghz[0], plain) * 1e3


def _unshared(given: Sequence[Row], counts: Counts) -> float:
    """The rate at which threads read weights together, by what several take of the time of one in the same source."""
    alone = {(row.source, row.engine, row.key, row.ghz[0]): row.ms for row in given if len(row.ghz) == 1}
    pairs = [
        (row, alone[place])
        for row in given
        if len(row.ghz) > 1 and (place := (row.source, row.engine, row.key, row.ghz[0])) in alone
    ]

    def loss(gbs: float) -> float:
        total = 0.0
        for row, ms in pairs:
            plain = Fit({row.core: NOTHING}, NOTHING, gbs)
            # One kind of instruction, so often that a thread takes the published time.
            block = Work({"scalar": 1}, 0, 0, 1)
            times = round(ms * 1e-3 / seconds([(block, 1)], row.core, row.ghz[0], plain))
            took = took_together([(block, times)], row.given, counts[row.key].weights, plain)
            total += math.log(took * 1e3 / row.ms) ** 2
        return total

    return round(least(loss, *SPAN), 2) if pairs else 5.0


def mean(numbers: Iterable[float]) -> float:
    """Their mean."""
    found = list(numbers)
    return sum(found) / len(found)


def by_source(given: Sequence[Row]) -> Iterator[tuple[list[Row], list[Row]]]:
    """For each source the rows of all others, and its own."""
    for source in dict.fromkeys(row.source for row in given):
        yield [row for row in given if row.source != source], [row for row in given if row.source == source]


def left_out(given: Sequence[Row], counts: Counts) -> dict[str, float]:
    """Each row's error where its source is left out of the fit; a core without a row then has what others give."""
    found: dict[str, float] = {}
    for others, own in by_source(given):
        rest = fit(others, counts)
        found |= {row.id: error(row, counts, _with(rest, row.core)) for row in own}
    return found


def _with(fitted: Fit, core: str) -> Fit:
    """The fit with numbers for a core that no row told of."""
    if core in fitted.cores:
        return fitted
    kin = Known(fitted.kin.stretch, 0.0 if core in HIDES else fitted.kin.exposed, (1.0, 1.0), (1.0, 1.0))
    return Fit({**fitted.cores, core: kin}, fitted.kin, fitted.unshared_gbs)


def banded(given: Sequence[Row], counts: Counts) -> Fit:
    """The fit with its bands."""
    found, errors = fit(given, counts), left_out(given, counts)

    def band(those: Sequence[Row]) -> tuple[float, float]:
        squares = [math.log1p(errors[row.id]) ** 2 for row in those]
        wide = math.exp(WIDTH * max(NARROWEST, math.sqrt(mean(squares)) if squares else 0.0))
        return round(1 / wide, 3), round(wide, 3)

    def both(core: str | None) -> tuple[tuple[float, float], tuple[float, float]]:
        told = [row for row in given if row.role == FITTED or len(row.ghz) > 1]
        own = [row for row in told if core is None or row.core == core]
        one = [row for row in own if len(row.ghz) == 1]
        several = [row for row in own if len(row.ghz) > 1]
        # Without a row of several threads: as far off as all of those are, and as one thread of this core at least.
        others = [row for row in told if len(row.ghz) > 1]
        wide = max(band(several or others), band(one), key=lambda pair: pair[1])
        return band(one), wide

    cores = {name: Known(one.stretch, one.exposed, *both(name)) for name, one in found.cores.items()}
    widest = max((one.one for one in cores.values()), key=lambda pair: pair[1])
    kin = Known(found.kin.stretch, found.kin.exposed, widest, max(widest, both(None)[1], key=lambda pair: pair[1]))
    return Fit(cores, kin, found.unshared_gbs)


def inside(given: Sequence[Row], counts: Counts) -> dict[str, bool]:
    """Whether each row lies in the band of its core and number of threads, made without its source."""
    found = {}
    for others, own in by_source(given):
        rest = banded(others, counts)
        for row in own:
            known = rest.cores.get(row.core, rest.kin)
            low, high = known.one if len(row.ghz) == 1 else known.several
            found[row.id] = low <= row.ms / modelled(row, counts, _with(rest, row.core)) <= high
    return found


def mean_absolute(errors: Iterable[float]) -> float:
    """Their mean, without signs."""
    return mean(abs(one) for one in errors)


def report(given: Sequence[Row], counts: Counts) -> Fit:
    """Fit, print the fit and its errors, and give it with its bands."""
    found, without, within = banded(given, counts), left_out(given, counts), inside(given, counts)
    heads = f"{'row':8}{'workload':24}{'core':12}{'threads':>8}{'ms':>8}"
    print(f"{heads}{'modelled':>10}{'error':>8}{'left out':>10}  role")
    for row in sorted(given, key=lambda row: (row.core, len(row.ghz), row.workload)):
        took, off = modelled(row, counts, _with(found, row.core)), error(row, counts, _with(found, row.core))
        mark = "" if within[row.id] else " outside"
        print(
            f"{row.id:8}{row.workload:24}{row.core:12}{len(row.ghz):>8}{row.ms:8.4g}{took:10.4g}{off:+8.1%}"
            f"{without[row.id]:+10.1%}  {row.role}{mark}"
        )
    for what, those in groups(given).items():
        off, there = mean_absolute(without[row.id] for row in those), mean(within[row.id] for row in those)
        print(f"{what}: {len(those)} rows, off by {off:.1%} with their source left out, {there:.0%} inside their bands")
    print(f"fitted: {json.dumps(asdict(found))}")
    return found


def groups(given: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows that errors are told of together."""
    found: dict[str, list[Row]] = {}
    for row in given:
        threads = "one thread" if len(row.ghz) == 1 else "two threads" if len(row.ghz) == 2 else "four threads"
        found.setdefault(f"{threads}, {row.role}", []).append(row)
    return found


def table(given: Sequence[Row], fitted: Fit) -> str:
    """What milliseconds are worth, by core and threads, in Markdown."""
    lines = ["| core | biggest of | rows, sources | one thread | rows, sources | several threads |"]
    lines.append("| --- | --- | ---: | ---: | ---: | ---: |")
    for core in phones.CORES:
        known = fitted.of(core)
        of = ", ".join(name for name, phone in phones.PHONES.items() if phone.prime.core == core)
        one = [row for row in given if row.core == core and row.role == FITTED and len(row.ghz) == 1]
        several = [row for row in given if row.core == core and row.role == FITTED and len(row.ghz) > 1]
        if of:
            cells = core, of, _many(one), _band(known.one), _many(several), _band(known.several)
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _many(those: Sequence[Row]) -> str:
    return f"{len(those)}, {len({row.source for row in those})}" if those else "none"


def _band(band: tuple[float, float]) -> str:
    return f"{band[0] - 1:.0%} to {band[1] - 1:+.0%}".replace("-", "−")


def main() -> None:
    """Count if asked, fit, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", action="store_true", help="build and count the workloads anew (ten minutes)")
    parser.add_argument("--write", action="store_true", help="write fit.json")
    parser.add_argument("--table", action="store_true", help="print the table of docs/evidence.md, of the kept fit")
    given = parser.parse_args()
    if given.table:
        print(table(rows(), kept_fit()), end="")
        return
    if given.count:
        COUNTS.write_text("{\n" + ",\n".join(f'"{key}": {_told(told)}' for key, told in count_all().items()) + "\n}\n")
    found = report(rows(), read(json.loads(COUNTS.read_text())))
    if given.write:
        FIT.write_text(json.dumps(asdict(found), indent=1) + "\n")


def _told(told: Mapping[str, Any]) -> str:
    lines = ",\n".join(json.dumps(block) for block in told["blocks"])
    return f'{{"bytes": {told["bytes"]}, "blocks": [\n{lines}\n]}}'


if __name__ == "__main__":
    main()
