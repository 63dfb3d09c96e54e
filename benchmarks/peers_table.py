"""The table and the picture of a comparison: each row a file, edgebert's first, and its peers' against it."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgebert.runtimes.devices.device import HOST

# What a file is compared with: edgebert's own of the same three.
GROUP = ("model", "precision", "runtime")
OURS = "edgebert"
ABOUT = """One inference: batch 1, 128 tokens, one thread, the encoder with its pooler where the model has one.
A "times" column is the figure before it over that of edgebert's file of the same model, precision and runtime: above 1
edgebert is ahead. Phones are simulated: instructions counted, cycles and ms modelled. Differences and SQNR are from
torch in float32, on the first phone. Starts are of processes of their own, from the page cache: "load ms" to open the
file, "first ms" for the first answer, "start ms" for both; "own MB" is the memory that this takes beside files, "mapped
MB" the pages of the file in it, which the system can drop and read again.

"""


def ours(row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Edgebert's row of the same model, precision and runtime; empty where it is not among them."""
    return next((one for one in rows if one["maker"] == OURS and all(one[key] == row[key] for key in GROUP)), {})


def times(row: dict[str, Any], rows: Sequence[dict[str, Any]], device: str, what: str) -> float | None:
    """How many times what edgebert's file takes a row's takes; below 1 the peer is ahead."""
    own, beside = (one.get("devices", {}).get(device, {}).get(what) for one in (row, ours(row, rows)))
    return own / beside if own and beside else None


def markdown(rows: Sequence[dict[str, Any]], devices: Sequence[str]) -> str:
    """All rows, those that failed with their reason; ratios are a row's figure over edgebert's."""
    heads = ["model", "precision", "runtime", "made by", "MB"]
    for device in devices:
        heads += (
            ["host ms", "times", "load ms", "first ms", "start ms", "times", "own MB", "mapped MB"]
            if device == "host"
            else [f"{device} G instructions", "times", "G cycles", "times", "ms"]
        )
    heads += ["largest difference", "SQNR dB", "note"]
    lines = [heads, ["---"] * len(heads)]
    for row in rows:
        cells = [*(str(row[key]) for key in GROUP), row["maker"], _number(row.get("bytes", 0) / 1e6 or None, 1)]
        for device in devices:
            found = row.get("devices", {}).get(device, {})
            if device == "host":
                cells += [_number(found.get("median_ms"), 1), _number(times(row, rows, device, "median_ms"), 2)]
                cells += [_number(found.get(key), 0) for key in ("load_ms", "first_ms", "start_ms")]
                cells.append(_number(times(row, rows, device, "start_ms"), 2))
                cells += [_number(found.get(key), 0) for key in ("own_mb", "mapped_mb")]
            else:
                for what in ("instructions", "cycles"):
                    value = found.get(what)
                    cells += [_number(value and value / 1e9, 3), _number(times(row, rows, device, what), 2)]
                cells.append(_number(found.get("ms"), 1))
        largest, sqnr = row.get("max_abs"), row.get("sqnr_db")
        cells += [
            "" if largest is None else f"{largest:.1e}",
            _number(sqnr, 1),
            row.get("reason", "").replace("|", "/"),
        ]
        lines.append(cells)
    return ABOUT + "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def draw(rows: Sequence[dict[str, Any]], device: str, path: Path) -> None:
    """Bars of what one inference takes, a panel a model: edgebert's coloured, each with its figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    key = "median_ms" if device == "host" else "ms"
    models = list(dict.fromkeys(row["model"] for row in rows))
    most = max(4, *Counter(row["model"] for row in rows).values())
    down = (len(models) + 1) // 2
    figure = Figure(figsize=(12, down * (1.2 + 0.24 * most)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(down, min(2, len(models)), squeeze=False).flatten()
    for panel in panels[len(models) :]:
        panel.set_visible(False)
    for panel, model in zip(panels, models, strict=False):
        own = [row for row in rows if row["model"] == model]
        values = [row.get("devices", {}).get(device, {}).get(key) for row in own]
        places, labels = _places(own), [f"{row['precision']} {row['runtime']}, {row['maker']}" for row in own]
        colours = ["C0" if row["maker"] == OURS else "0.7" for row in own]
        panel.barh(places, [value or 0 for value in values], color=colours)
        for place, value in zip(places, values, strict=True):
            panel.text(value or 0, place, f" {value:.0f}" if value else " none", va="center", fontsize=8)
        panel.set_yticks(places, labels, fontsize=8)
        panel.invert_yaxis()
        panel.set_title(model)
        panel.set_xlabel("ms")
        panel.margins(x=0.1)
        panel.spines[["top", "right"]].set_visible(False)
    kind = HOST.replace("-", " ") if device == "host" else "simulated: counted instructions, modelled time"
    figure.suptitle(f"One inference of 128 tokens, one thread, on {device} ({kind})", fontsize=10)
    figure.savefig(path, dpi=130)


def _places(rows: Sequence[dict[str, Any]]) -> list[float]:
    """Where bars stand: one below the other, with a gap between what is not to be compared."""
    places, at, last = [], -1.0, None
    for row in rows:
        group = tuple(row[key] for key in GROUP)
        at += 1.0 if group == last else 1.6
        places.append(at)
        last = group
    return places
