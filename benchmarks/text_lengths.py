"""What texts as short as real ones cost with lengths to choose from, against a peer's file that is fixed to 128.

    python benchmarks/peers.py --work DIR --models bert --precisions fp32 --devices pixel-4
    python benchmarks/text_lengths.py BUNDLE [BUNDLE ...] --work DIR [--data PATH/TO/data_full.json] [--device pixel-4]

A bundle is counted on the simulated phone at its lengths, and each text pays for the smallest length that holds it, as
the session picks it; a bundle of free length is counted at `KNOTS` and pays in between in proportion, which is a little
too much, for attention grows with the square. The peers are the kept counts of `peers.py` for the bundle's runtime.

Three mixes of texts: CLINC150's test queries in the embedded default's tokens (Larson et al., EMNLP 2019, CC BY 3.0; no
part of this project, and left out without it), and two made up, with a mean of 25 and of 60 tokens: 10,000 draws with a
fixed seed from a log-normal whose logarithm has a deviation of 0.6 (many short texts, a few long ones), rounded, and
clipped to 3 and 128 tokens as a tokenizer clips; its scale is what gives the mean after all that.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from export_speed import LENGTH
from rich.console import Console
from rich.table import Table

import edgebert
from edgebert import bundle
from edgebert.profiling.profile import profile

SHORTEST = 3  # [CLS], one token, [SEP]
MEANS = (25, 60)
SPREAD = 0.6
DRAWS = 10_000
KNOTS = (8, 16, 32, 64, 96, 128)


def mix(mean: float, seed: int = 0) -> np.ndarray:
    """Lengths (DRAWS,) of made-up texts with a mean of so many tokens, see above."""
    draws = SPREAD * np.random.default_rng(seed).standard_normal(DRAWS)
    low, high = 0.0, np.log(2.0 * LENGTH)
    for _ in range(50):  # the mean grows with the scale, so halving finds it
        middle = (low + high) / 2
        lengths = np.clip(np.rint(np.exp(middle + draws)), SHORTEST, LENGTH).astype(int)
        low, high = (middle, high) if lengths.mean() < mean else (low, middle)
    return lengths


def queries(data: Path) -> np.ndarray:
    """Lengths of CLINC150's test queries, cut at 128."""
    tokenizer = edgebert.load().tokenizer
    assert tokenizer is not None  # the embedded default has one
    texts = json.loads(data.read_text(encoding="utf-8"))["test"]
    return np.array([min(len(tokenizer.encode(text).ids), LENGTH) for text, _ in texts])


def cost(lengths: np.ndarray, counted: dict[int, float], free: bool) -> float:
    """The mean cost of texts.

    Args:
        lengths: tokens of each text.
        counted: length to what one inference at it costs.
        free: the file takes any length, and costs in between in proportion; else the next longer one is paid for.
    """
    places = sorted(counted)
    values = np.array([counted[place] for place in places])
    if free:
        return float(np.interp(lengths, places, values).mean())
    return float(values[np.searchsorted(places, lengths)].mean())


def peers(table: Path, target: str, model: str, precision: str, device: str) -> dict[str, float]:
    """Maker to the cycles of its file of a model, for a runtime, as `peers.py` counted them."""
    rows: list[dict[str, Any]] = json.loads(table.read_text()) if table.is_file() else []
    wanted = {"model": model, "precision": precision, "runtime": target}
    return {
        row["maker"]: row["devices"][device]["cycles"]
        for row in rows
        if row["maker"] != "edgebert" and device in row["devices"] and wanted.items() <= row.items()
    }


def counts(folder: Path, device: str, knots: Sequence[int]) -> dict[int, float]:
    """Length to modelled cycles of a bundle."""
    found: dict[int, float] = {}
    for row in profile([folder], [device], knots).rows:
        assert row.length is not None
        assert row.found.estimate is not None
        found[row.length] = row.found.estimate.cycles
    return found


def main() -> int:
    """Count each bundle, and print a row for each mix and peer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="+", type=Path, help="with lengths up to 128")
    parser.add_argument("--work", type=Path, required=True, help="the work folder of peers.py")
    parser.add_argument("--data", type=Path, help="CLINC150's data_full.json")
    parser.add_argument("--device", default="pixel-4", help="a simulated phone")
    parser.add_argument("--peer-model", default="bert", help="of peers.py, to compare with")
    parser.add_argument("--peer-precision", default="fp32")
    arguments = parser.parse_args()
    mixes = {f"mean {mean}": mix(mean) for mean in MEANS}
    if arguments.data and arguments.data.is_file():
        mixes = {"CLINC150": queries(arguments.data)} | mixes
    else:
        print("CLINC150 skipped: give its data_full.json as --data; it is not part of this project", file=sys.stderr)
    table = Table("bundle", "texts", "tokens", "up to 32", "up to 64", "G cycles", "at 128", "peer at 128", "times")
    for folder in arguments.bundles:
        manifest = bundle.read(folder)
        knots = [n for n in KNOTS if n <= manifest.lengths[-1]] if manifest.dynamic else manifest.lengths
        counted = counts(folder, arguments.device, knots)
        if LENGTH not in counted:
            sys.exit(f"{folder} takes up to {manifest.lengths[-1]} tokens; export it with --lengths 32,64,128.")
        beside = peers(
            arguments.work / "peers.json", manifest.target, arguments.peer_model, arguments.peer_precision,
            arguments.device,
        )  # fmt: skip
        if not beside:
            print(f"{folder}: peers.py has not counted its peers yet, see --help", file=sys.stderr)
        for name, lengths in mixes.items():
            own = cost(lengths, counted, manifest.dynamic)
            for maker, cycles in (beside or {"": 0.0}).items():
                table.add_row(
                    str(folder), name, f"{lengths.mean():.1f}", f"{(lengths <= 32).mean():.0%}",
                    f"{(lengths <= 64).mean():.0%}", f"{own / 1e9:.4f}", f"{counted[LENGTH] / 1e9:.4f}",
                    f"{maker} {cycles / 1e9:.3f}", f"{cycles / own:.1f}",
                )  # fmt: skip
    Console(width=160).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
