"""Pictures of profiles: latency against length, and against size."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgebert.errors import InputError, MissingDependency
from edgebert.files import replaced
from edgebert.profiling.rows import Row
from edgebert.runtimes.devices.device import SIMULATED

NEEDED = 'pip install "edgebert[plot]"'
# A colour for each file, a mark and a dash for each device.
MARKS = "os^DvPX*<>"
DASHES = ("-", "--", ":", "-.")
KINDS = (".png", ".svg", ".pdf")


def check(path: str | Path) -> Path:
    """Refuse a picture that could not be drawn, before anything is measured.

    Raises:
        MissingDependency: matplotlib is not installed.
        InputError: the ending is no picture's, or its folder is not there.
    """
    path = Path(path)
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingDependency(f"--plot needs matplotlib: run {NEEDED}")
    if path.suffix not in KINDS:
        raise InputError(f"--plot {path}: its name must end in one of {', '.join(KINDS)}.")
    if not path.absolute().parent.is_dir():
        raise InputError(f"--plot {path}: {path.parent} is no folder.")
    return path


def draw(rows: Sequence[Row], path: str | Path) -> None:
    """Draw the rows that have a time; the picture appears whole or not at all.

    Raises:
        InputError: no row has a time, or see `check`.
        MissingDependency: matplotlib is not installed.
    """
    path = check(path)
    timed = [row for row in rows if row.median_ms is not None]
    if not timed:
        raise InputError(f"--plot {path}: no device told a time, so there is nothing to draw.")
    figure = _figure(timed)
    with replaced(path) as beside:
        figure.savefig(beside, dpi=150)


def label(row: Row) -> str:
    """`assistant, tflite w8a8-dynamic, on pixel-4`; of a file that is no bundle its name alone."""
    what = f"{Path(row.file).name}, {row.target} {row.recipe}" if row.recipe else Path(row.file).name
    return f"{what}, on {row.found.device}"


def series(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by their label, those of one file together; two files of one label get their paths.

    The slowest series stands first, as the eye finds it in the picture.
    """
    labels = {(row.file, row.found.device): label(row) for row in rows}
    twice = {text for text in labels.values() if list(labels.values()).count(text) > 1}
    found: dict[str, list[Row]] = {}
    for row in rows:
        text = labels[row.file, row.found.device]
        name = f"{row.file}, on {row.found.device}" if text in twice else text
        found.setdefault(name, []).append(row)
    ordered = sorted(found.items(), key=lambda item: -max(row.median_ms or 0.0 for row in item[1]))
    return {name: sorted(rows, key=lambda row: row.length or 0) for name, rows in ordered}


def _figure(rows: Sequence[Row]) -> Any:
    """Two panels and one legend: against length where any row has one, and against size."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = series(rows)
    lengths = sorted({row.length for row in rows if row.length})
    columns = 2 if len(lengths) > 1 else 1
    figure = Figure(figsize=(5.2 * columns + 1, 4.2 + 0.25 * ((len(lines) + 1) // 2)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, columns, squeeze=False)[0]
    files = list(dict.fromkeys(points[0].file for points in lines.values()))
    devices = list(dict.fromkeys(row.found.device for row in rows))
    widest = 1.15 * max(row.file_bytes for row in rows) / 1e6
    for name, points in lines.items():
        place = devices.index(points[0].found.device)
        style = {
            "color": f"C{files.index(points[0].file) % 10}", "marker": MARKS[place % len(MARKS)],
            "linestyle": DASHES[place % len(DASHES)],
        }  # fmt: skip
        if columns > 1:
            _over_length(panels[0], [row for row in points if row.length], name, style)
        _over_size(panels[-1], points[-1], name, style)
    if columns > 1:
        panels[0].set(title="Latency against length", xlabel="tokens", ylabel="median latency, ms", ylim=(0, None))
        panels[0].set_xticks(lengths)
        panels[0].set_xlim(0, lengths[-1] * 1.05)
    last = {points[-1].length for points in lines.values()}
    where = f" at {lengths[-1]} tokens" if lengths and len(last) == 1 else ""
    panels[-1].set(
        title=f"Latency{where} against size", xlabel="model file, MB", ylabel="median latency, ms",
        xlim=(0, widest), ylim=(0, None),
    )  # fmt: skip
    for panel in panels:
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    shown: dict[str, Any] = {}
    for panel in panels:
        for handle, name in zip(*panel.get_legend_handles_labels(), strict=True):
            shown.setdefault(name, handle)
    figure.legend(
        [shown[name] for name in lines],
        list(lines),
        loc="outside lower center",
        ncols=min(2, len(lines)),
        frameon=False,
        fontsize=9,
        handlelength=4,
    )
    figure.suptitle(_caption(rows), fontsize=9, color="0.35")
    return figure


def _caption(rows: Sequence[Row]) -> str:
    """What kind of numbers these are, and what the bands say."""
    kinds: dict[str, dict[str, None]] = {}
    for row in rows:
        kinds.setdefault(row.found.how, {})[row.found.device] = None
    threads = sorted({row.found.threads for row in rows})
    told = [f"{', '.join(names)} {how.replace('-', ' ')}" for how, names in kinds.items()]
    told.append(f"{' and '.join(map(str, threads))} thread{'s' * (threads != [1])}")
    bands = "the 10th to the 90th percentile of runs"
    if SIMULATED in kinds:
        bands = "the simulation's error" + (f", where measured {bands}" if len(kinds) > 1 else "")
    return f"{'; '.join(told)}\nbands: {bands}"


def _over_length(panel: Any, points: Sequence[Row], name: str, style: dict[str, str]) -> None:
    if not points:
        return
    tokens = [row.length for row in points]
    panel.plot(tokens, [row.median_ms for row in points], label=name, **style)
    low, high = zip(*(row.band_ms for row in points), strict=True)
    panel.fill_between(tokens, low, high, color=style["color"], alpha=0.15, linewidth=0)


def _over_size(panel: Any, point: Row, name: str, style: dict[str, str]) -> None:
    low, high = point.band_ms
    middle = point.median_ms or 0.0
    panel.errorbar(
        point.file_bytes / 1e6, middle, yerr=[[max(middle - low, 0)], [max(high - middle, 0)]],
        capsize=3, label=name, **style | {"linestyle": "none"},
    )  # fmt: skip
