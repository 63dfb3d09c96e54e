"""The cycle model: how long a phone's core takes for the blocks that an inference runs.

A block is a straight run of instructions. Cores that reorder instructions overlap the work of neighbouring blocks, so a
block takes as long as what it keeps busiest: the slots in which instructions start (issue), the vector unit (vector),
or the units of loads and stores (load). A chain of multiply-accumulates into one register, each waiting for the one
before, bounds the vector unit too: with latency 4, twelve accumulators let three start in a cycle. An in-order core
starts an instruction beside a vector one only where the two pair; the others cost their own slot.

Rates and latencies are those of `phones.CORES`. What a core makes of them is fitted on published measurements by
`tools/fit_cycles.py` and kept in `fit.json`:

- how much longer than its busiest unit a core takes (`stretch`);
- how long it waits for each byte of weights (`exposed`): they are new to its caches at every inference, and a core of
  before 2020 does not fetch them early enough. X1 and X3 were seen to stream weights at 19.7 and 16.9 GB/s while they
  computed, so nothing is taken from them and what came after;
- at what rate threads read weights that none of them reads faster than one (`unshared_gbs`): four threads lose to it
  what one thread does not.

Cores without a row have their next of kin's numbers, and a band that says so. Weights that no cache holds are streamed
from memory, and an inference takes no less than that.

What is assumed where nothing was published: of an in-order core's instructions beside those of its vector unit half
find a partner to start with; a matrix product instruction (SMMLA) starts as often as a dot product, for twice the
products; widening multiplies start as often as float ones, operations on whole numbers likewise, but twice as often on
A73 and A75 (at once a cycle all vector instructions of the published int8 MobileNet v1 would take longer than it did);
shuffles as float additions; a division or square root keeps the unit busy for 8 cycles; memory gives one core the share
of its rate on paper that it gave on Pixel 6.
"""

import dataclasses
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from edgebert.errors import InputError
from edgebert.runtimes.devices.device import Estimate, Hot
from edgebert.runtimes.devices.pixel.counter import Block, Counts
from edgebert.runtimes.devices.pixel.decode import KINDS, LOADS, MULTIPLY, PERMUTE, SHARES, STORES, VECTOR, decode
from edgebert.runtimes.devices.pixel.phones import CORES, Core, Phone

FIT = Path(__file__).with_name("fit.json")

# Vector operations a cycle, where that is not the rate of float ones.
WHOLE_NUMBERS = {"cortex-a73": 2.0, "cortex-a75": 2.0}
DIVIDE = 8.0  # cycles
UNPAIRED = 0.5  # of an in-order core's instructions beside the vector unit's
# Of cores without a published row: whose numbers they have.
KIN = {
    "cortex-a53": "cortex-a55", "cortex-a510": "cortex-a55", "cortex-a520": "cortex-a55", "cortex-a78": "cortex-a76",
    "cortex-a715": "cortex-a76", "cortex-a720": "cortex-a76", "cortex-a725": "cortex-a76", "cortex-x4": "cortex-x3",
}  # fmt: skip

PAIRED = ("cortex-a510", "cortex-a520")  # two of them have one vector unit

# GB/s at which one big core streamed weights; lower bounds derived from published latencies. Elsewhere the share of the
# memory's rate on paper that Pixel 6 gave: 19.7 of 51.2.
STREAMED = {"pixel-6": 19.7, "pixel-8": 16.9}
STREAM_SHARE = 19.7 / 51.2

# The largest part of one thread's time that threads were seen not to share: MobileNet v3 on Dimensity 9300.
MOST_UNSHARED = 0.4

HOTTEST = 20


@dataclass(frozen=True, slots=True)
class Work:
    """What a block asks of a core.

    Attributes:
        counts: instructions by kind; 128-bit loads and stores by register.
        carried: longest chain of accumulations into a register that goes on in the block's next turn.
        within: longest chain of accumulations into any register.
        length: instructions.
    """

    counts: Mapping[str, int]
    carried: int
    within: int
    length: int


@dataclass(frozen=True, slots=True)
class Known:
    """What was fitted on the rows of one core.

    Attributes:
        stretch: cycles over those of its busiest unit.
        exposed: ns that it waits for a byte of weights.
        one: published over modelled time of one thread, the least and the greatest of a band in which nine of ten rows
            are to lie, as far as rows tell that were left out.
        several: the same of several threads.
    """

    stretch: float
    exposed: float
    one: tuple[float, float]
    several: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Fit:
    """The fitted numbers.

    Attributes:
        cores: by name, of those that rows tell of.
        kin: the bands of a core that has the numbers of another; its stretch and exposure are of no core.
        unshared_gbs: GB/s at which several threads read weights together, beside what they compute.
    """

    cores: Mapping[str, Known]
    kin: Known
    unshared_gbs: float

    def of(self, core: str) -> Known:
        """What is known of a core, or of its kin with a band that says so."""
        if core in self.cores:
            return self.cores[core]
        return dataclasses.replace(self.cores[KIN[core]], one=self.kin.one, several=self.kin.several)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Cycles that one turn of a block takes of each of a core's resources, and the greatest of these."""

    vector: float
    load: float
    issue: float

    @property
    def cycles(self) -> float:
        """What the block takes."""
        return max(self.vector, self.load, self.issue)

    @property
    def name(self) -> str:
        """Of the resource that bounds it; the vector unit's where several do."""
        return max((self.vector, "vector"), (self.load, "load"), (self.issue, "issue"), key=lambda pair: pair[0])[1]


@lru_cache(maxsize=1)
def fit() -> Fit:
    """The numbers in `fit.json`."""
    told = json.loads(FIT.read_text())

    def known(one: dict[str, Any]) -> Known:
        return Known(one["stretch"], one["exposed"], tuple(one["one"]), tuple(one["several"]))

    return Fit({name: known(one) for name, one in told["cores"].items()}, known(told["kin"]), told["unshared_gbs"])


def whose_rows(core: str) -> str:
    """Whose published times a core's numbers and band come from, for people."""
    return core if core in fit().cores else f"other cores, for there are none of {core},"


@lru_cache(maxsize=1 << 15)
def work(words: tuple[int, ...]) -> Work:
    """What a block of these instructions asks for."""
    counts: Counter[str] = Counter()
    chains: Counter[int] = Counter()
    within = 0
    fresh: set[int] = set()
    for word in words:
        one = decode(word)
        counts[one.kind] += one.registers if one.kind in ("load_q", "store_q") else 1
        if one.accumulates and one.written is not None:
            chains[one.written] += 1
            within = max(within, chains[one.written])
        for register in one.overwritten:
            chains[register] = 0
            fresh.add(register)
    carried = max((length for register, length in chains.items() if register not in fresh), default=0)
    return Work(dict(counts), carried, within, len(words))


def rates(name: str, core: Core) -> dict[str, float | None]:
    """Instructions of each kind of the vector unit that start in a cycle; None for one that the core does not have."""
    found: dict[str, float | None] = {"dot": core.sdot, "mmla": core.sdot if "i8mm" in core.features else None}
    found |= dict.fromkeys(("fma32", "fma16", "long"), core.fmla4s)
    found |= {"integer": WHOLE_NUMBERS.get(name, core.fmla4s), "fmul": core.fmul4s, "divide": 1 / DIVIDE}
    return found | dict.fromkeys(("fadd", "float", *PERMUTE), core.fadd4s)


def bounds(asked: Work, name: str, fitted: Fit, shared: bool = False) -> Bounds:
    """Cycles that one turn of a block takes on a core.

    Args:
        asked: what the block asks for.
        name: of the core, a key of `phones.CORES`.
        fitted: see `fit`.
        shared: whether another core works with the same vector unit, see PAIRED.

    Raises:
        InputError: the block has instructions that the core does not have.
    """
    core, counts = CORES[name], asked.counts
    vector = _vector(asked, name, core) * (2 if shared else 1)
    load = (sum(counts.get(kind, 0) for kind in LOADS) + counts.get("prefetch", 0)) / core.load_q
    load = max(load, sum(counts.get(kind, 0) for kind in STORES) / core.store_q)
    # At most one branch is taken in a cycle.
    issue = max(sum(counts.values()) / core.dispatch, float(bool(counts.get("branch"))))
    if core.in_order:
        vector, load, issue = _in_order(core, asked, vector, load, issue)
    else:
        vector = max(vector, float(asked.carried * core.fmla_latency[0]))
    stretch = fitted.of(name).stretch
    return Bounds(vector * stretch, load * stretch, issue * stretch)


def _vector(asked: Work, name: str, core: Core) -> float:
    """Cycles that a block keeps the vector unit busy."""
    started, cycles = rates(name, core), 0.0
    for kind in (*MULTIPLY, *VECTOR, *PERMUTE):
        number = asked.counts.get(kind, 0)
        if not number or (kind == "insert" and core.in_order):  # which pair freely
            continue
        if (rate := started[kind]) is None:
            raise InputError(f"{name} has no known rate of {kind} instructions, which the model runs.")
        cycles += number / rate
    return cycles


def _in_order(core: Core, asked: Work, vector: float, load: float, issue: float) -> tuple[float, float, float]:
    """The same three where instructions start in order: what finds no partner waits for its own slot."""
    counts = asked.counts
    busy = sum(counts.get(kind, 0) for kind in (*MULTIPLY, *VECTOR, "permute"))
    if core.dispatch == 2:  # A53 and A55: a 128-bit load keeps both slots for two cycles
        loads = counts.get("load_q", 0)
        vector, busy = vector + 2 * loads, busy + loads
    rest = sum(counts.values()) - busy
    alone = UNPAIRED * rest / (core.dispatch - 1)
    vector = max(vector, float(asked.within * core.fmla_latency[0]))
    if vector >= alone:
        return vector + alone, load, issue
    return vector, load, max(issue, vector + alone)


def seconds(blocks: Iterable[tuple[Work, int]], name: str, ghz: float, fitted: Fit, shared: bool = False) -> float:
    """The time of blocks, each with how often it ran, on one core of a clock."""
    return sum(bounds(one, name, fitted, shared).cycles * times for one, times in blocks) / (ghz * 1e9)


def bandwidth(phone: Phone) -> float | None:
    """GB/s at which one core streams weights; None where not even the memory's rate on paper is known."""
    if phone.name in STREAMED:
        return STREAMED[phone.name]
    return phone.dram_gbs * STREAM_SHARE if phone.dram_gbs else None


def last_cache(phone: Phone) -> int | None:
    """KiB of the last cache before memory, None where it is not verified."""
    return phone.slc_kib or phone.l3_kib


def workers(phone: Phone, threads: int) -> list[tuple[str, float, bool]]:
    """Core, clock in GHz and whether its vector unit is shared, of the cores that threads run on, biggest first.

    Raises:
        InputError: the phone has fewer cores.
    """
    cores = [(cluster, index) for cluster in phone.clusters for index in range(cluster.count)]
    if not 1 <= threads <= len(cores):
        raise InputError(f"{phone.name} has {len(cores)} cores; {threads} threads were asked for.")
    taken = cores[:threads]
    pairs = Counter((id(cluster), index // 2) for cluster, index in taken if cluster.core in PAIRED)
    return [(c.core, c.ghz, pairs[id(c), index // 2] == 2) for c, index in taken]


def estimate(
    counts: Counts, phone: Phone, threads: int = 1, weights: int | None = None, whole: int | None = None
) -> Estimate:
    """Time and its parts, of one inference.

    Args:
        counts: of one thread on the phone's biggest core.
        phone: whose cores take the time.
        threads: on as many cores, biggest first; the blocks are shared out in proportion to the cores' speeds.
        weights: bytes that are read once an inference, None where they are not known.
        whole: the same of the model that this is a part of, which caches must hold; None where it is whole.

    Raises:
        InputError: the phone has fewer cores, or a core lacks instructions that were counted.
    """
    fitted, prime = fit(), phone.prime
    known = fitted.of(prime.core)
    cycles: dict[int, float] = {}
    held: defaultdict[str, float] = defaultdict(float)
    for index, block in enumerate(counts.blocks):
        found = bounds(work(block.words), prime.core, fitted)
        cycles[index] = found.cycles * block.times
        held[found.name] += cycles[index]
    read, cached = weights or 0, _cached(phone, weights if whole is None else whole)
    held["memory"] = 0.0 if cached else known.exposed * read * prime.ghz
    asked = [(work(block.words), block.times) for block in counts.blocks]
    took = took_together(asked, workers(phone, threads), read, fitted, cached)
    streamed = 0.0 if cached else _streaming(phone, weights)
    bound = max(held, key=lambda name: held[name], default="issue")
    if streamed > took:
        took, bound = streamed, "memory"
    low, high = known.one if threads == 1 else known.several
    kinds = _kinds(counts.blocks)
    total = sum(cycles.values()) or 1.0
    return Estimate(
        instructions=counts.instructions,
        cycles=took * prime.ghz * 1e9,
        ms=took * 1e3,
        low_ms=took * 1e3 * low,
        high_ms=took * 1e3 * high,
        core=prime.core,
        ghz=prime.ghz,
        bound=bound,
        bounds={name: part / sum(held.values()) for name, part in sorted(held.items()) if part},
        memory_ms=streamed * 1e3 if streamed else None,
        kinds=kinds,
        shares={share: _share(counts.blocks, cycles, members) / total for share, members in SHARES.items()},
        hot=_hottest(counts.blocks, cycles, total),
    )


def took_together(
    blocks: Sequence[tuple[Work, int]], given: Sequence[tuple[str, float, bool]], weights: int, fitted: Fit,
    cached: bool = False,
) -> float:  # fmt: skip
    """Seconds on one core or several.

    Args:
        blocks: each with how often it ran.
        given: core, clock in GHz and whether its vector unit is shared, biggest first; see `workers`.
        weights: bytes that are read once.
        fitted: see `fit`.
        cached: whether a cache holds the weights from one inference to the next.
    """
    took = {one: seconds(blocks, *one[:2], fitted, one[2]) for one in set(given)}
    exposed = 0.0 if cached else fitted.of(given[0][0]).exposed * weights * 1e-9
    alone = took[given[0]] + exposed
    if len(given) == 1:
        return alone
    unshared = min(weights / (fitted.unshared_gbs * 1e9), MOST_UNSHARED * alone)
    speed = sum(took[given[0]] / took[one] for one in given)
    return unshared + (alone - unshared) / speed


def _streaming(phone: Phone, weights: int | None) -> float:
    """Seconds to read the weights from memory, 0 where too little is known."""
    gbs = bandwidth(phone)
    return 0.0 if weights is None or gbs is None else weights / (gbs * 1e9)


def _cached(phone: Phone, weights: int | None) -> bool:
    """Whether the last cache holds the weights from one inference to the next."""
    cache = last_cache(phone)
    return cache is not None and (weights or 0) <= cache * 1024


def _kinds(blocks: tuple[Block, ...]) -> dict[str, int]:
    """Instructions by kind."""
    found: Counter[str] = Counter()
    for block in blocks:
        for word in block.words:
            found[decode(word).kind] += block.times
    return {kind: found[kind] for kind in KINDS if found[kind]}


def _share(blocks: tuple[Block, ...], cycles: dict[int, float], members: tuple[str, ...]) -> float:
    """Cycles of some kinds: each block's are shared out by its instructions."""
    found = 0.0
    for index, block in enumerate(blocks):
        counted = sum(decode(word).kind in members for word in block.words)
        found += cycles[index] * counted / max(len(block.words), 1)
    return found


def _hottest(blocks: tuple[Block, ...], cycles: dict[int, float], total: float) -> tuple[Hot, ...]:
    """The blocks that take longest."""
    order = sorted(range(len(blocks)), key=lambda index: (-cycles[index], blocks[index].address))
    found = []
    for index in order[:HOTTEST]:
        block = blocks[index]
        found.append(Hot(block.library, block.symbol, block.offset, cycles[index] / total, block.instructions))
    return tuple(found)
