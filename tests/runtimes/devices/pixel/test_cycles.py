"""The cycle model: instructions by kind, each bound of a core on blocks made by hand, the fit on published times.

Words are as GNU's assembler writes the instruction beside them.
"""

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from foreign import SIZE, tflite_file
from paths import ROOT

from edgebert.errors import InputError
from edgebert.runtimes.devices import open_device
from edgebert.runtimes.devices.device import SIMULATED, Job
from edgebert.runtimes.devices.pixel import cycles, phones, sandbox
from edgebert.runtimes.devices.pixel.counter import Block, Counts
from edgebert.runtimes.devices.pixel.cycles import Fit, Known, Work, bounds, estimate, work
from edgebert.runtimes.devices.pixel.decode import KINDS, SHARES, Instruction, decode
from edgebert.runtimes.devices.pixel.device import streamed

simulated = pytest.mark.skipif(sandbox.missing() is not None, reason=f"needs the sandbox: {sandbox.missing()}")

FMLA, SDOT, SMMLA = 0x4E22CC00, 0x4E829400, 0x4E82A400  # into v0.4s
LDR_Q, STR_Q, ADD, BACK = 0x3DC00000, 0x3D800000, 0x91000400, 0x54FFFFE1
KNOWN = Known(1.0, 0.0, (0.9, 1.1), (0.8, 1.2))
PLAIN = Fit(dict.fromkeys(phones.CORES, KNOWN), KNOWN, 5.0)  # as the tables of cores say

WORDS: dict[int, tuple[str, int]] = {  # kind, registers
    0x4E22CC20: ("fma32", 1),  # fmla v0.4s, v1.4s, v2.4s
    0x4F821020: ("fma32", 1),  # fmla v0.4s, v1.4s, v2.s[0]
    0x4EA2CC20: ("fma32", 1),  # fmls v0.4s, v1.4s, v2.4s
    0x4E420C20: ("fma16", 1),  # fmla v0.8h, v1.8h, v2.8h
    0x4F021020: ("fma16", 1),  # fmla v0.8h, v1.8h, v2.h[0]
    0x4E829420: ("dot", 1),  # sdot v0.4s, v1.16b, v2.16b
    0x4F82E020: ("dot", 1),  # sdot v0.4s, v1.16b, v2.4b[0]
    0x6E829420: ("dot", 1),  # udot v0.4s, v1.16b, v2.16b
    0x4EA29420: ("integer", 1),  # mla v0.4s, v1.4s, v2.4s
    0x4E82A420: ("mmla", 1),  # smmla v0.4s, v1.16b, v2.16b
    0x6E82A420: ("mmla", 1),  # ummla v0.4s, v1.16b, v2.16b
    0x0E628020: ("long", 1),  # smlal v0.4s, v1.4h, v2.4h
    0x0E22C020: ("long", 1),  # smull v0.8h, v1.8b, v2.8b
    0x2E628020: ("long", 1),  # umlal v0.4s, v1.4h, v2.4h
    0x4E206820: ("integer", 1),  # sadalp v0.8h, v1.16b
    0x6E22DC20: ("fmul", 1),  # fmul v0.4s, v1.4s, v2.4s
    0x4F829020: ("fmul", 1),  # fmul v0.4s, v1.4s, v2.s[0]
    0x4E22D420: ("fadd", 1),  # fadd v0.4s, v1.4s, v2.4s
    0x4E22F420: ("fadd", 1),  # fmax v0.4s, v1.4s, v2.4s
    0x6E22FC20: ("divide", 1),  # fdiv v0.4s, v1.4s, v2.4s
    0x6EA1F820: ("divide", 1),  # fsqrt v0.4s, v1.4s
    0x1E221820: ("divide", 1),  # fdiv s0, s1, s2
    0x1F020C20: ("float", 1),  # fmadd s0, s1, s2, s3
    0x4EA28420: ("integer", 1),  # add v0.4s, v1.4s, v2.4s
    0x4E040420: ("permute", 1),  # dup v0.4s, v1.s[0]
    0x4E823820: ("permute", 1),  # zip1 v0.4s, v1.4s, v2.4s
    0x6E024020: ("permute", 1),  # ext v0.16b, v1.16b, v2.16b, #8
    0x4EA11C20: ("permute", 1),  # mov v0.16b, v1.16b
    0x4E181C20: ("insert", 1),  # mov v0.d[1], x1
    0x3DC00020: ("load_q", 1),  # ldr q0, [x1]
    0xAD400440: ("load_q", 2),  # ldp q0, q1, [x2]
    0x4CDF2020: ("load_q", 4),  # ld1 {v0.16b, v1.16b, v2.16b, v3.16b}, [x1], #64
    0x4D40C820: ("load_q", 1),  # ld1r {v0.4s}, [x1]
    0xFD400020: ("load_d", 1),  # ldr d0, [x1]
    0x6D400440: ("load_d", 2),  # ldp d0, d1, [x2]
    0xBC404420: ("load_d", 1),  # ldr s0, [x1], #4
    0x0D408020: ("load_d", 1),  # ld1 {v0.s}[0], [x1]
    0xF9400020: ("load", 1),  # ldr x0, [x1]
    0xA9400440: ("load", 2),  # ldp x0, x1, [x2]
    0xB9800020: ("load", 1),  # ldrsw x0, [x1]
    0x3D800020: ("store_q", 1),  # str q0, [x1]
    0xAD000440: ("store_q", 2),  # stp q0, q1, [x2]
    0xFD000020: ("store_d", 1),  # str d0, [x1]
    0xF9000020: ("store", 1),  # str x0, [x1]
    0xF9800020: ("prefetch", 1),  # prfm pldl1keep, [x1]
    0x54FFFFE1: ("branch", 1),  # b.ne
    0xD65F03C0: ("branch", 1),  # ret
    0x36180040: ("branch", 1),  # tbz w0, #3
    0x91000400: ("scalar", 1),  # add x0, x0, #1
    0x9B027C20: ("scalar", 1),  # mul x0, x1, x2
    0xD503201F: ("other", 1),  # nop
    0x00000000: ("other", 1),  # no instruction
    0x45C498CD: ("mmla", 1),  # ummla z13.s, z6.b, z4.b
    0x44820020: ("dot", 1),  # sdot z0.s, z1.b, z2.b
    0x65A681E0: ("fma32", 1),  # fmad z0.s, p0/m, z15.s, z6.s
    0x65A103A0: ("fma32", 1),  # fmla z0.s, p0/m, z29.s, z1.s
    0x65620020: ("fma16", 1),  # fmla z0.h, p0/m, z1.h, z2.h
    0x65428020: ("fmul", 1),  # fmul z0.h, p0/m, z0.h, z1.h
    0x658682C0: ("fadd", 1),  # fmax z0.s, p0/m, z0.s, z22.s
    0x654D8040: ("divide", 1),  # fdiv z0.h, p0/m, z0.h, z2.h
    0x04A00042: ("integer", 1),  # add z2.s, z2.s, z0.s
    0x05E96129: ("permute", 1),  # zip1 z9.d, z9.d, z9.d
    0x0420BF80: ("other", 1),  # movprfx z0, z28
    0x25621C60: ("scalar", 1),  # whilelo p0.h, x3, x2
    0x0420E3E6: ("scalar", 1),  # cntb x6
    0xA5444003: ("load_q", 1),  # ld1w {z3.s}, p0/z, [x0, x4, lsl #2]
    0xA4002846: ("load_q", 1),  # ld1rqb {z6.b}, p2/z, [x2]
    0xE5444020: ("store_q", 1),  # st1w {z0.s}, p0, [x1, x4, lsl #2]
}


def test_instructions_are_told_by_their_words() -> None:
    assert {word: (decode(word).kind, decode(word).registers) for word in WORDS} == WORDS
    assert {kind for kind, _ in WORDS.values()} | {"load"} == set(KINDS)
    shared = [kind for members in SHARES.values() for kind in members]
    assert sorted(shared) == sorted(KINDS)  # each in one share


def test_written_registers_and_accumulations_are_told() -> None:
    assert decode(0x4E22CC25) == Instruction("fma32", True, written=5, accumulates=True)  # fmla v5.4s
    assert decode(0x0E22C025).overwritten == (5,)  # smull v5.8h: the old value is lost
    assert decode(0x0E228025).overwritten == ()  # smlal v5.8h adds to it
    assert decode(0xAD407C5E).overwritten == (30, 31)  # ldp q30, q31, [x2]
    assert decode(0x4CDF203E).overwritten == (30, 31, 0, 1)  # ld1 of four goes round
    assert decode(0x0D408025).overwritten == ()  # ld1 of one element keeps the others
    assert not decode(0x0E22CC20).wide  # fmla v0.2s
    assert decode(0x45C498CD) == Instruction("mmla", True, written=13, accumulates=True)  # ummla z13.s
    assert decode(0xA5444003).overwritten == (3,)  # ld1w {z3.s}
    assert decode(0x04A00042).overwritten == (2,)  # add z2.s


def test_chains_end_where_a_register_is_set_anew() -> None:
    loop = work((LDR_Q + 8, FMLA, FMLA, FMLA + 1, BACK))
    assert (loop.carried, loop.within, loop.length) == (2, 2, 5)
    assert loop.counts == {"load_q": 1, "fma32": 3, "branch": 1}
    fresh = work((LDR_Q, FMLA, FMLA, BACK))  # the load sets v0
    assert (fresh.carried, fresh.within) == (0, 2)


@pytest.mark.parametrize(
    ("core", "words", "took", "bound"),
    [
        ("cortex-a76", tuple(FMLA + i for i in range(16)), 8.0, "vector"),  # two a cycle
        ("cortex-a76", (FMLA, FMLA + 1), 4.0, "vector"),  # two accumulators, latency 4
        ("cortex-a76", (FMLA,) * 8, 32.0, "vector"),
        ("cortex-a75", tuple(FMLA + i for i in range(16)), 16.0, "vector"),  # one a cycle
        ("cortex-a76", (LDR_Q,) * 8, 4.0, "load"),  # two a cycle
        ("cortex-a76", (STR_Q,) * 8, 8.0, "load"),  # one a cycle
        ("cortex-a76", (ADD,) * 8, 2.0, "issue"),  # four a cycle
        ("cortex-x4", (ADD, BACK), 1.0, "issue"),  # one branch a cycle
        ("cortex-x1", tuple(SDOT + i for i in range(20)), 5.0, "vector"),  # four a cycle
        ("cortex-x3", tuple(SMMLA + i for i in range(20)), 5.0, "vector"),  # as dot products
        ("cortex-a520", tuple(SMMLA + i for i in range(4)), 4.0, "vector"),
        ("cortex-a55", tuple(FMLA + i for i in range(4)), 4.0, "vector"),
    ],
)  # fmt: skip
def test_each_bound_holds_where_it_should(core: str, words: tuple[int, ...], took: float, bound: str) -> None:
    found = bounds(work(words), core, PLAIN)
    assert (found.cycles, found.name) == (pytest.approx(took), bound)


def test_in_order_cores_wait_for_wide_loads_and_for_what_finds_no_partner() -> None:
    """A55: a 128-bit load takes two cycles of the vector unit's; 64-bit ones and INS pair freely."""
    twelve = {"fma32": 12}

    def took(more: dict[str, int], core: str = "cortex-a55") -> float:
        return bounds(Work(twelve | more, 0, 1, 0), core, PLAIN).cycles

    assert took({}) == 12
    assert took({"load_q": 4}) == 20
    assert took({"load_d": 4}) == took({"insert": 4}) == 14  # half of them find a partner
    assert took({"load_d": 4, "insert": 4, "scalar": 4}) == 18
    assert took({"scalar": 4}, "cortex-a510") == 6 + 1  # two pipes, and two other slots
    shared = bounds(Work(twelve, 0, 1, 0), "cortex-a510", PLAIN, shared=True)
    assert shared.cycles == 12


def test_a_rate_that_is_not_known_is_refused() -> None:
    for words in ((SDOT,), (SMMLA,)):
        with pytest.raises(InputError, match="cortex-a75 has no known rate"):
            bounds(work(words), "cortex-a75", PLAIN)
    with pytest.raises(InputError, match="no known rate of mmla"):
        bounds(work((SMMLA,)), "cortex-a76", PLAIN)


@pytest.mark.parametrize("core", phones.CORES)
def test_more_work_never_takes_less(core: str) -> None:
    base = {"fma32": 8, "fmul": 2, "load_q": 3, "store_q": 1, "scalar": 3, "branch": 1}
    before = bounds(Work(base, 1, 1, 18), core, cycles.fit())
    for kind in ("fma32", "fadd", "permute", "insert", "load_q", "load_d", "load", "store_q", "scalar", "divide"):
        for more in (1, 10, 100):
            after = bounds(Work(base | {kind: base.get(kind, 0) + more}, 1, 1, 18), core, cycles.fit())
            assert after.cycles >= before.cycles, kind
    assert bounds(Work(base, 9, 9, 18), core, cycles.fit()).cycles >= before.cycles


def counts(*blocks: Block) -> Counts:
    return Counts(sum(block.instructions for block in blocks), blocks, {}, "")


HOT = Block(0x1000, 1000, tuple(FMLA + i for i in range(16)), "lib.so", 0x10, "gemm")
COLD = Block(0x2000, 500, (LDR_Q, LDR_Q, ADD, BACK), "libc.so.6", 0x20, None)


def test_an_estimate_tells_time_bounds_kinds_and_hot_blocks() -> None:
    found, known = estimate(counts(HOT, COLD), phones.PHONES["pixel-4"]), cycles.fit().of("cortex-a76")
    took = (1000 * 8 + 500 * 1) * known.stretch
    assert found.cycles == pytest.approx(took)
    assert found.ms == pytest.approx(took / 2.84e6)
    assert (found.core, found.ghz, found.bound, found.instructions) == ("cortex-a76", 2.84, "vector", 18_000)
    assert found.low_ms < found.ms < found.high_ms
    assert found.bounds == pytest.approx({"load": 1 / 17, "vector": 16 / 17})
    assert found.kinds == {"fma32": 16_000, "load_q": 1000, "branch": 500, "scalar": 500}
    assert sum(found.shares.values()) == pytest.approx(1)
    assert found.shares["arithmetic"] == pytest.approx(16 / 17)
    assert found.shares["data movement"] == pytest.approx(1 / 34)
    assert [(hot.symbol, hot.library, hot.offset) for hot in found.hot] == [
        ("gemm", "lib.so", 16),
        (None, "libc.so.6", 32),
    ]
    assert found.hot[0].share == pytest.approx(16 / 17)
    assert found.memory_ms is None
    assert estimate(counts(), phones.PHONES["pixel-4"]).ms == 0


def test_weights_bound_what_no_cache_holds() -> None:
    phone, model = phones.PHONES["pixel-6"], counts(HOT)
    assert estimate(model, phone, weights=8192 * 1024).bound == "vector"  # its last cache holds them
    found = estimate(model, phone, weights=197_000_000)
    assert (found.bound, found.ms, found.memory_ms) == ("memory", pytest.approx(10), pytest.approx(10))
    # A few layers are read from memory where the model that they are of does not fit a cache.
    part = estimate(model, phone, weights=1_970_000, whole=197_000_000)
    assert part.memory_ms == pytest.approx(0.1)
    assert estimate(model, phone, weights=1_970_000).memory_ms is None
    older = estimate(model, phones.PHONES["pixel-4"], weights=100_000_000)
    assert older.memory_ms == pytest.approx(100 / (34.1 * 19.7 / 51.2))
    # An older core waits for each byte, beside what it computes.
    known = cycles.fit().of("cortex-a76")
    assert older.ms == pytest.approx(1000 * 8 * known.stretch / 2.84e6 + 100 * known.exposed)
    assert older.bounds["memory"] > 0.5
    assert estimate(model, phones.PHONES["pixel-7"], weights=10**9).memory_ms is None  # its memory is not known


def test_threads_take_the_biggest_cores_and_give_less_each() -> None:
    phone, model = phones.PHONES["pixel-8"], counts(HOT)
    assert [core for core, _, _ in cycles.workers(phone, 6)] == ["cortex-x3"] + ["cortex-a715"] * 4 + ["cortex-a510"]
    assert [shared for *_, shared in cycles.workers(phone, 8)[5:]] == [True, True, False]  # pairs share a unit
    took = [estimate(model, phone, threads).ms for threads in range(1, 6)]
    assert took == sorted(took, reverse=True)
    two = [estimate(model, phones.PHONES["pixel-3a"], threads).ms for threads in (1, 2)]
    assert two[0] / two[1] == pytest.approx(2)  # no weights, which threads would wait for together


def test_threads_do_not_share_the_time_that_weights_take() -> None:
    blocks, rate = [(work(HOT.words), 10**6)], PLAIN.unshared_gbs
    one, four = ([("cortex-a76", 2.0, False)] * threads for threads in (1, 4))
    alone = cycles.took_together(blocks, one, 4_000_000, PLAIN)
    unshared = 4e6 / (rate * 1e9)
    assert cycles.took_together(blocks, four, 4_000_000, PLAIN) == pytest.approx(unshared + (alone - unshared) / 4)
    # No more than rows were seen to lose.
    most = cycles.took_together(blocks, four, 10**10, PLAIN)
    assert most == pytest.approx(alone * (cycles.MOST_UNSHARED + (1 - cycles.MOST_UNSHARED) / 4))


def test_a_core_without_rows_has_its_kins_numbers_and_a_wide_band() -> None:
    fitted = cycles.fit()
    assert set(cycles.KIN) | set(fitted.cores) == set(phones.CORES)
    assert set(cycles.KIN.values()) <= set(fitted.cores)
    for core, kin in cycles.KIN.items():
        found = fitted.of(core)
        assert found.stretch == fitted.of(kin).stretch
        assert found.one[1] >= max(known.one[1] for known in fitted.cores.values())
        assert found.several[1] >= found.one[1]
    assert "other cores" in cycles.whose_rows("cortex-x4")
    assert cycles.whose_rows("cortex-x3") == "cortex-x3"


def test_a_phone_refuses_more_threads_than_it_has_cores() -> None:
    phone, model = phones.PHONES["pixel-8"], counts(HOT)
    for threads in (0, 10):
        with pytest.raises(InputError, match="pixel-8 has 9 cores"):
            estimate(model, phone, threads)


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    path = ROOT / "tools" / "fit_cycles.py"
    spec = importlib.util.spec_from_file_location("fit_cycles", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fit_cycles"] = module  # its dataclasses look for it there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def counted(tool: ModuleType) -> Any:
    return tool.read(json.loads(tool.COUNTS.read_text()))


def test_the_kept_fit_is_what_the_kept_counts_give(
    tool: ModuleType, counted: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tool.rows()
    assert {row.key for row in rows} == set(counted)
    assert tool.report(rows, counted) == cycles.fit()
    told = capsys.readouterr().out
    assert all(row.id in told for row in rows)


def test_times_of_sources_that_are_left_out_are_foretold_as_well_as_was_asked(tool: ModuleType, counted: Any) -> None:
    """At most 12% off on one thread and 18% on four, and four of five inside a band that was made without them."""
    rows = tool.rows()
    errors, within = tool.left_out(rows, counted), tool.inside(rows, counted)
    most = {"one thread, fitted": 0.12, "two threads, fitted": 0.12, "four threads, fitted": 0.18}
    told = {what: those for what, those in tool.groups(rows).items() if what in most}
    assert {what: len(those) for what, those in told.items()} == {
        "one thread, fitted": 68, "two threads, fitted": 18, "four threads, fitted": 15
    }  # fmt: skip
    for what, those in told.items():
        assert tool.mean_absolute(errors[row.id] for row in those) <= most[what], what
        assert tool.mean(within[row.id] for row in those) >= 0.8, what


def test_the_docs_tell_what_the_milliseconds_are_worth(tool: ModuleType) -> None:
    assert tool.table(tool.rows(), cycles.fit()) in (ROOT / "docs" / "evidence.md").read_text(encoding="utf-8")


def test_what_was_published_of_one_row_does_not_foretell_it(tool: ModuleType, counted: Any) -> None:
    """A row's own time has no part in the error that is told of it."""
    rows = tool.rows()
    (one,) = (row for row in rows if row.id == "F2-03")
    other = tuple(replace(row, ms=row.ms * 3) if row.source == one.source else row for row in rows)
    before, after = (tool.left_out(those, counted)[one.id] for those in (rows, other))
    assert 1 + after == pytest.approx((1 + before) / 3)


def test_blocks_that_are_kept_are_worth_what_all_were(tool: ModuleType) -> None:
    some = [(work((FMLA, ADD, BACK)), 1000), (work((LDR_Q, FMLA)), 7), (work((ADD,)), 1)]
    read = lambda blocks: tool.read({"a": {"bytes": 5, "blocks": json.loads(json.dumps(blocks))}})["a"]  # noqa: E731
    (kept,) = read(tool.condense(some)).blocks[:1]
    assert kept == (replace(some[0][0], counts={"fma32": 1, "scalar": 1, "branch": 1}), 1000)
    assert read(tool.condense(some)).weights == 5
    rest = read(tool.condense(some, share=0.5)).blocks[1]
    assert rest == (Work({"load_q": 7, "fma32": 7, "scalar": 1}, 0, 0, 15), 1)


def test_tables_are_not_streamed(tmp_path: Path) -> None:
    path, weights = tflite_file(tmp_path / "a.tflite", True, rows=SIZE)
    assert streamed(Job(path)) == weights.nbytes
    broken = tmp_path / "b.tflite"
    broken.write_bytes(b"nothing at all")
    assert streamed(Job(broken)) == 14  # whoever runs it tells what is wrong with it


@simulated
def test_a_simulated_phone_gives_time(tmp_path: Path) -> None:
    path, _ = tflite_file(tmp_path / "a.tflite", True, rows=SIZE)
    found = open_device("pixel-4").measure(Job(path))
    assert found.how == SIMULATED
    assert found.estimate is not None
    assert found.latency is not None
    assert found.latency.median_ms == found.estimate.ms
    assert found.estimate.instructions == found.machine["instructions"]
    # 64 cubed products, eight a cycle, are part of it.
    assert found.estimate.cycles > SIZE**3 / 8
    assert sum(found.estimate.kinds.values()) == found.estimate.instructions
    assert found.estimate.kinds["fma32"] * 4 >= SIZE**3
    assert any("6x8" in (hot.symbol or "") for hot in found.estimate.hot)
    with pytest.raises(InputError, match="8 cores"):
        open_device("pixel-4").measure(Job(path, threads=9))
