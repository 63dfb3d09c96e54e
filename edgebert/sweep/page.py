"""The report of a sweep: one page that works offline, and the same as a table and as text for a pull request."""

import csv
import json
import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from edgebert.errors import MissingDependency
from edgebert.files import ASSETS, replaced
from edgebert.profiling.rows import Row
from edgebert.runtimes.devices.device import SIMULATED
from edgebert.sweep import budget
from edgebert.sweep.plan import TORCH, Plan
from edgebert.sweep.records import COLUMNS, DONE, Record, flat

PAGE, TABLE, TEXT = "report.html", "results.csv", "report.md"
LOSS = 0.5  # points of 100 of the figure that the answer may lose where no budget says how many

# The themes of the page, and Plotly's templates for them.
THEMES = {"light": "plotly_white", "dark": "plotly_dark"}


@dataclass(frozen=True, slots=True)
class Answer:
    """The fastest cell on one device.

    Attributes:
        device: its name.
        how: what kind of numbers it gives.
        record: the cell; None where none runs there, or none keeps to the loss.
        ms: what it takes at its longest length.
        told: its quality in words.
        command: that makes the file.
    """

    device: str
    how: str
    record: Record | None
    ms: float | None
    told: str
    command: str


def write(folder: Path, plan: Plan, records: Sequence[Record], missing: int, profiles: Sequence[Row] = ()) -> None:
    """Write the report's three files.

    Args:
        folder: of the sweep.
        plan: what was asked for.
        records: what came of its cells.
        missing: cells that are not done as yet.
        profiles: rows that `edgebert profile` found, to stand beside.

    Raises:
        MissingDependency: Plotly is not installed.
    """
    rows = [*flat(records), *_profiled(profiles)]
    answers = [_answer(plan, records, device) for device in plan.device]
    with replaced(folder / TABLE) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows(rows)
    for name, content in (
        (TEXT, _text(plan, records, answers, missing)),
        (PAGE, _page(plan, records, rows, answers, missing)),
    ):
        with replaced(folder / name) as beside:
            beside.write_text(content, encoding="utf-8")


def _profiled(profiles: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """Rows of `profile` as those of a sweep."""
    for row in profiles:
        told = row.flat()
        own = {
            "model": row.file,
            "target": row.target,
            "recipe": row.recipe,
            "status": DONE,
            "machine": told.get("machine"),
        }
        yield {name: own.get(name, told.get(name)) for name in COLUMNS}


def _allowed(plan: Plan) -> float:
    """Hundredths that the answer may lose."""
    limits = [one.limit for one in map(budget.parse, plan.budget) if one.what == budget.LOSS]
    return min(limits, default=LOSS)


def _answer(plan: Plan, records: Sequence[Record], device: str) -> Answer:
    """The fastest cell on a device that loses no more than is allowed."""
    whole, best = budget.figures_of_torch(records), None
    for one in records:
        ms = budget.latency(one, device)
        lost = budget.measured(one, budget.Budget(budget.LOSS, _allowed(plan)), whole.get(one.model))
        keeps = lost is not None and lost <= _allowed(plan) if plan.eval else True
        if one.status == DONE and ms is not None and keeps and (best is None or ms < best[0]):
            best = ms, one
    how = next((row["how"] for one in records for row in one.rows if row["device"] == device), "")
    if best is None:
        return Answer(device, how, None, None, "", "")
    ms, record = best
    return Answer(device, how, record, ms, quality(record, whole.get(record.model)), command(plan, record))


def quality(record: Record, whole: float | None) -> str:
    """How good a file is, in words."""
    if record.figure is not None:
        name, value = record.figure
        return f"{name} {100 * value:.1f}%" + ("" if whole is None else f" (torch {100 * whole:.1f}%)")
    return "equal to torch" if record.sqnr_db is None else f"{record.sqnr_db:.1f} dB from torch"


def command(plan: Plan, record: Record) -> str:
    """The line that makes a cell's file."""
    parts = ["edgebert", "export", record.model, "--target", record.target, "--recipe", record.recipe]
    parts += ["--lengths", ",".join(map(str, record.lengths))] if plan.lengths else []
    parts += ["--task", plan.task] if plan.task else []
    return shlex.join(parts + ["--random-init"] * plan.random_init)


def _text(plan: Plan, records: Sequence[Record], answers: Sequence[Answer], missing: int) -> str:
    """The report for a pull request."""
    lines = ["# Sweep", "", *([f"{missing} cells are not done as yet.", ""] if missing else [])]
    lines += [_row(("phone", "fastest", "ms", "quality", "MB", "made by")), _row(("---",) * 6)]
    for one in answers:
        if one.record is None:
            lines.append(_row((_device(one.device, one.how), "none", "", "", "", "")))
        else:
            what = f"{one.record.model} {one.record.target} {one.record.recipe}"
            numbers = (_number(one.ms), one.told, _number(one.record.size_mb), f"`{one.command}`")
            lines.append(_row((_device(one.device, one.how), what, *numbers)))
    heads = [_device(one.device, one.how) + " ms" for one in answers]
    lines += ["", _row(("model", "target", "recipe", "MB", "quality", *heads)), _row(("---",) * (5 + len(heads)))]
    whole = budget.figures_of_torch(records)
    for record in records:
        done = record.status == DONE
        told = quality(record, whole.get(record.model)) if done else f"{record.status}: {record.reason}"
        times = [_number(budget.latency(record, one.device)) for one in answers]
        cells = (record.model, record.target, record.recipe, _number(record.size_mb), told, *times)
        lines.append(_row(cells))
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _device(name: str, how: str) -> str:
    return f"{name} ({how})" if how else name


def _page(
    plan: Plan, records: Sequence[Record], rows: Sequence[dict[str, Any]], answers: Sequence[Answer], missing: int
) -> str:
    try:
        import plotly.io
        import plotly.offline
    except ImportError:
        raise MissingDependency('the report\'s page needs Plotly: run pip install "edgebert[sweep]"') from None
    loader = jinja2.FileSystemLoader(ASSETS)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    drawn = [
        (title, plotly.io.to_html(figure, full_html=False, include_plotlyjs=False, config={"responsive": True}))
        for title, figure in _figures(rows)
    ]
    templates = {theme: plotly.io.templates[name].to_plotly_json() for theme, name in THEMES.items()}
    return environment.get_template("report.html.jinja").render(
        plan=plan,
        allowed=_allowed(plan),
        answers=answers,
        figures=drawn,
        rows=rows,
        columns=COLUMNS,
        records=records,
        missing=missing,
        plotly=plotly.offline.get_plotlyjs(),
        templates=json.dumps(templates),
        number=_number,
    )


def _figures(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Titles and Plotly figures: quality against latency and latency against length on each device, and sizes."""
    rows = _named(rows)
    names = list(dict.fromkeys(row["device"] for row in rows if row["device"]))
    hows = {row["device"]: row["how"] for row in rows if row["device"]}
    for device in names:
        here = [row for row in rows if row["device"] == device and row["median_ms"] is not None]
        if here:
            yield f"Quality and latency on {_device(device, hows[device])}", _quality_figure(here)
            yield f"Latency and length on {_device(device, hows[device])}", _length_figure(here)
    sizes = {row["label"]: row["size_mb"] for row in rows if row["size_mb"] and row["target"] != TORCH}
    if sizes:
        yield "Size of the file", _size_figure(sizes)


def _named(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with a `label` each, in which a model stands where there are several."""
    several = len({row["model"] for row in rows}) > 1
    parts = ("model", "target", "recipe")[not several :]
    return [row | {"label": " ".join(row[part] for part in parts if row[part])} for row in rows]


def _quality_of(row: dict[str, Any]) -> float | None:
    """The figure in points of 100, or decibels where there is none."""
    value: float | None = 100 * row["value"] if row["value"] is not None else row["sqnr_db"]
    return value


def _quality_figure(rows: Sequence[dict[str, Any]]) -> Any:
    """Each cell at its longest length, and those that none beats in both."""
    import plotly.graph_objects as go

    longest: dict[str, dict[str, Any]] = {}
    for row in rows:
        kept = longest.get(row["label"])
        if _quality_of(row) is not None and (kept is None or (row["tokens"] or 0) > (kept["tokens"] or 0)):
            longest[row["label"]] = row
    points = sorted(longest.values(), key=lambda row: row["median_ms"])
    figure = go.Figure()
    for target in dict.fromkeys(row["target"] for row in points):
        own = [row for row in points if row["target"] == target]
        figure.add_scatter(
            x=[row["median_ms"] for row in own],
            y=[_quality_of(row) for row in own],
            text=[row["label"] for row in own],
            error_x={
                "array": [max((row["high_ms"] or row["median_ms"]) - row["median_ms"], 0) for row in own],
                "arrayminus": [max(row["median_ms"] - (row["low_ms"] or row["median_ms"]), 0) for row in own],
                "thickness": 1,
            },
            mode="markers",
            name=target,
            marker={"size": 10, "symbol": "circle" if own[0]["how"] == SIMULATED else "diamond"},
            hovertemplate="%{text}<br>%{x:.3g} ms, %{y:.4g}<extra></extra>",
        )
    front = _front(points)
    figure.add_scatter(
        x=[row["median_ms"] for row in front],
        y=[_quality_of(row) for row in front],
        mode="lines",
        line={"dash": "dot", "shape": "hv"},
        name="Pareto front",
        hoverinfo="skip",
    )
    named = next((row["figure"] for row in points if row["figure"]), None)
    figure.update_xaxes(title="ms (median, longest length)", type="log")
    figure.update_yaxes(title=f"{named}, %" if named else "signal to error, dB")
    return _laid_out(figure)


def _front(points: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those, by latency, that are better than all that are faster."""
    found: list[dict[str, Any]] = []
    best = -math.inf
    for row in points:
        quality = _quality_of(row)
        if quality is not None and quality > best:
            found.append(row)
            best = quality
    return found


def _length_figure(rows: Sequence[dict[str, Any]]) -> Any:
    """A line for each cell, with its band."""
    import plotly.colors
    import plotly.graph_objects as go

    figure, palette = go.Figure(), plotly.colors.qualitative.Dark24
    for i, label in enumerate(dict.fromkeys(row["label"] for row in rows)):
        own = sorted((row for row in rows if row["label"] == label), key=lambda row: row["tokens"] or 0)
        tokens, color = [row["tokens"] for row in own], palette[i % len(palette)]
        high, low = ([row[end] or row["median_ms"] for row in own] for end in ("high_ms", "low_ms"))
        figure.add_scatter(
            x=tokens, y=[row["median_ms"] for row in own], mode="lines+markers", name=label, line={"color": color},
            legendgroup=label, hovertemplate=f"{label}<br>%{{x}} tokens: %{{y:.3g}} ms<extra></extra>",
        )  # fmt: skip
        figure.add_scatter(
            x=[*tokens, *reversed(tokens)], y=[*high, *reversed(low)], fill="toself", fillcolor=color, opacity=0.15,
            line={"width": 0}, mode="lines", hoverinfo="skip", showlegend=False, legendgroup=label,
        )  # fmt: skip
    figure.update_xaxes(title="tokens")
    figure.update_yaxes(title="ms", type="log")
    return _laid_out(figure)


def _size_figure(sizes: dict[str, float]) -> Any:
    import plotly.graph_objects as go

    ordered = sorted(sizes.items(), key=lambda pair: -pair[1])
    figure = go.Figure()
    figure.add_bar(
        x=[size for _, size in ordered], y=[name for name, _ in ordered], orientation="h",
        hovertemplate="%{y}: %{x:.3g} MB<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(title="MB")
    figure.update_yaxes(automargin=True)
    return _laid_out(figure, 120 + 22 * len(ordered))


def _laid_out(figure: Any, height: int = 420) -> Any:
    clear = "rgba(0,0,0,0)"
    return figure.update_layout(
        height=height, margin={"l": 10, "r": 10, "t": 10, "b": 10}, paper_bgcolor=clear, plot_bgcolor=clear,
        legend={"orientation": "h", "yanchor": "top", "y": -0.2},
    )  # fmt: skip
