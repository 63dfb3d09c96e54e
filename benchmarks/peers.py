"""Edgebert's files beside what each ecosystem makes of the same weights: counted on simulated phones, timed here.

    python benchmarks/peers.py --work DIR [--models bert ...] [--runtimes onnx ...] [--precisions int8 ...]
                               [--devices pixel-4 ...] [--makers torch.onnx ...] [--rounds 20]

The ecosystems' own ways start at transformers' `AutoModel` (the encoder with its pooler, ConvBERT's without), batch 1,
128 tokens: torch.onnx with onnxruntime's `quantize_dynamic`, also after its optimizer, or with its MatMulNBits,
optimum-onnx, litert-torch with ai-edge-quantizer, also with LiteRT's metadata for half precision, and ExecuTorch's
XNNPACK partitioner and quantizer. Weights are random, and the same on both sides. Each file is held to
torch's float32 answers, on the simulated phone itself. On `host` a model's files of one runtime and precision are timed
in turn, A B A B, on one core, and each is started in processes of its own, see `start.py`.

The work folder gets the files, `peers.json`, `peers.md` and `peers-<device>.png`; pages in `docs/` keep what came of
it. A run that was ended goes on where it was; results that are kept there from other selections stay in the table. A
file that cannot be made or run is a row with its reason. Needs `pip install -e ".[all,test]"`, `edgebert device
setup`, and for optimum-onnx what its row tells. All of it takes hours: a float32 BERT is counted in 3 minutes.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peers_convert import MAKERS
from peers_count import count, race, size
from peers_files import MODELS, OURS, RECIPES, Failed, made, prepare
from peers_table import draw, markdown
from start import starts

from edgebert.errors import EdgebertError
from edgebert.profiling.subject import devices

RUNTIMES = tuple(dict.fromkeys(how.runtime for how in MAKERS.values()))
PHONES = ("pixel-4", "pixel-3", "pixel-8")
STARTS = 7  # of each file, on the host
Row = dict[str, Any]


def cells(arguments: argparse.Namespace) -> list[Row]:
    """What is asked for, edgebert's file first in each group of a model, precision and runtime."""
    return [
        {"model": model, "precision": precision, "runtime": runtime, "maker": maker}
        for model in arguments.models
        for precision in arguments.precisions
        for runtime in arguments.runtimes
        if (peers := [n for n, how in MAKERS.items() if how.runtime == runtime and precision in how.precisions])
        for maker in (OURS, *peers)
        if maker in arguments.makers
    ]


def measure(work: Path, row: Row, phones: Sequence[Any]) -> Row:
    """A row with its file's size, counts and parity, or the reason why there are none."""
    place = row["model"], row["runtime"], row["precision"], row["maker"]
    print(f"{' '.join(place)}: make", flush=True)
    found: Row = row | {"devices": {}}
    try:
        prepare(work, row["model"])
        path = made(work, *place)
        found |= {"bytes": size(path), "path": str(path.relative_to(work))}
        for phone in phones:
            print(f"{' '.join(place)}: count on {phone.name}", flush=True)
            told = count(path, phone, work / row["model"] / "inputs.npz", work / row["model"] / "expected.npz")
            found["devices"][phone.name] = told
            if phone is phones[0]:
                found |= {key: told[key] for key in ("max_abs", "sqnr_db", "compared")}
            print(
                f"{' '.join(place)}: {told['instructions'] / 1e9:.3f} G instructions, {told['ms']:.1f} ms", flush=True
            )
    except (Failed, EdgebertError) as error:
        print(f"{' '.join(place)}: {error}", flush=True)
        found["reason"] = str(error)
    return found


def race_all(work: Path, rows: list[Row], rounds: int) -> None:
    """Time the files of each group in turn, and write what came of it into their rows."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if "path" in row:
            groups.setdefault((row["model"], row["precision"], row["runtime"]), []).append(row)
    for group, files in groups.items():
        print(f"{' '.join(group)}: {', '.join(row['maker'] for row in files)} in turn on this host", flush=True)
        try:
            paths, inputs = [work / row["path"] for row in files], work / group[0] / "inputs.npz"
            told = race(paths, inputs, rounds)
            begun = starts([(path, "") for path in paths], inputs, STARTS)
        except RuntimeError as error:
            print(f"{' '.join(group)}: {error}", flush=True)
            for row in files:
                row["reason"] = f"on the host: {error}"
            continue
        for row, one, first in zip(files, told, begun, strict=True):
            row["devices"]["host"] = one | first


def merged(old: list[Row], new: list[Row]) -> list[Row]:
    """Rows of an earlier run with those of this one in their places; devices that were not asked for now are kept."""
    known = {_key(row): row for row in old}
    for row in new:
        before = known.get(_key(row), {"devices": {}})
        if before.get("bytes") != row.get("bytes") or "path" not in row:
            before = {"devices": {}}
        kept = {key: before[key] for key in ("max_abs", "sqnr_db", "compared") if key in before}
        known[_key(row)] = kept | row | {"devices": before["devices"] | row["devices"]}
    order = list(MODELS), list(RECIPES), list(RUNTIMES), [OURS, *MAKERS]
    return sorted(
        known.values(), key=lambda row: [names.index(part) for names, part in zip(order, _key(row), strict=True)]
    )


def _key(row: Row) -> tuple[str, ...]:
    return row["model"], row["precision"], row["runtime"], row["maker"]


def write(work: Path, new: list[Row]) -> tuple[list[Row], list[str]]:
    """Add rows to the work folder's table; gives all of its rows, and the devices that they tell of."""
    table = work / "peers.json"
    rows = merged(json.loads(table.read_text()) if table.is_file() else [], new)
    table.write_text(json.dumps(rows, indent=1) + "\n")
    told = {name for row in rows for name in row["devices"]}
    order = [name for name in (*PHONES, *sorted(told - {*PHONES, "host"}), "host") if name in told]
    (work / "peers.md").write_text(markdown(rows, order))
    return rows, order


def main() -> int:
    """Make, count and time what is asked for, and write the table as it grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of the files and results; several GB")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=list(RUNTIMES))
    parser.add_argument("--precisions", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--devices", nargs="+", default=[*PHONES, "host"], help="simulated phones, and host")
    parser.add_argument("--makers", nargs="+", choices=(OURS, *MAKERS), default=[OURS, *MAKERS])
    parser.add_argument("--rounds", type=int, default=20, help="inferences of each file in turn on the host")
    arguments = parser.parse_args()
    work: Path = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    phones = devices([name for name in arguments.devices if name != "host"])
    rows = []
    for cell in cells(arguments):
        rows.append(measure(work, cell, phones))
        write(work, rows)
    if "host" in arguments.devices:
        race_all(work, rows, arguments.rounds)
    told, names = write(work, rows)
    for name in names:
        draw(told, name, work / f"peers-{name}.png")
    print(f"{work / 'peers.md'}, peers.json and the pictures are written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
