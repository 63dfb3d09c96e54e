"""Which encoder for a phone: what each takes on simulated Pixels in 8 bits, beside what was published of its quality.

    python benchmarks/which_encoder.py --work DIR [--models squeezebert mobilebert ...]

Each is a classifier with random weights in `w8a8-dynamic`. The target that is the quickest on the first of PHONES at
the longest of LENGTHS is the one that the others are counted for. Counts are of one and two rounds of layers, extended
to all of them (`edgebert profile --extrapolate-layers`): the work folder keeps `encoders.json`, from which a run that
was ended goes on, and gets `encoders.md` and `encoders.png`; pages in `docs/` keep what came of it. Needs
`pip install -e ".[all]"` and `edgebert device setup pixel`; a model takes three minutes.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from edgebert.models import MODELS, Model
from edgebert.profiling import extrapolate
from edgebert.profiling.rows import Row
from edgebert.profiling.subject import devices

TASK, RECIPE = "sequence-classification", "w8a8-dynamic"
TARGETS = ("tflite", "executorch", "onnx")
PHONES = ("pixel-6", "pixel-3", "pixel-9")
LENGTHS = (32, 128)
TRIMMED = 30_000  # rows of a vocabulary of which an app in one language keeps these


@dataclass(frozen=True, slots=True)
class Encoder:
    """A published model's shape, and what its makers say of its quality.

    Attributes:
        family: of ours.
        preset: of the family.
        changes: what is changed of the preset.
        mnli: accuracy on MultiNLI's matched part; None where the source does not tell it.
        published: that figure's set, or another figure.
        source: where it is from, and its year.
    """

    family: str
    preset: str
    changes: dict[str, Any] = field(default_factory=dict)
    mnli: float | None = None
    published: str = ""
    source: str = ""

    @property
    def config(self) -> Any:
        """Its sizes."""
        return dataclasses.replace(MODELS[self.family].presets[self.preset], **self.changes)


MINILM = {"hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536}
SMALL = {"hidden_size": 512, "num_attention_heads": 8, "intermediate_size": 2048, "num_hidden_layers": 4}
# https://huggingface.co/YituTech/conv-bert-small/blob/main/config.json
CONVBERT_SMALL = {"hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024, "embedding_size": 128}
ENCODERS = {
    "SqueezeBERT": Encoder("squeezebert", "squeezebert-base", {}, 82.0, "test", "arXiv 2006.11316, 2020"),
    "MobileBERT": Encoder("mobilebert", "mobilebert-uncased", {}, 83.3, "test", "arXiv 2004.02984, 2020"),
    "MiniLM-L6-H384": Encoder(
        "bert", "bert-base", MINILM | {"num_hidden_layers": 6}, 83.3, "dev", "microsoft/unilm, minilm/README.md, 2020"
    ),
    "MiniLM-L12-H384": Encoder("bert", "bert-base", MINILM, 85.7, "dev", "arXiv 2002.10957, 2020"),
    "DistilBERT": Encoder("distilbert", "distilbert-base", {}, 82.2, "dev", "arXiv 1910.01108, 2019"),
    "BERT-small": Encoder("bert", "bert-base", SMALL, 77.6, "test", "google-research/bert, README.md, 2020"),
    "BERT-base": Encoder("bert", "bert-base", {}, 84.6, "test", "arXiv 1810.04805, 2018"),
    "ELECTRA-small": Encoder("electra", "electra-small", {}, 81.3, "test", "arXiv 2003.10555, 2020"),
    "ConvBERT-small": Encoder("convbert", "convbert-base", CONVBERT_SMALL, None, "", "arXiv 2008.02496, 2020"),
    "ConvBERT-base": Encoder(
        "convbert", "convbert-base", {}, None, "GLUE 86.4, test", "arXiv 2008.02496, 2020"
    ),
    "ALBERT-base": Encoder("albert", "albert-base", {}, 84.6, "dev, v2", "google-research/albert, README.md, 2019"),
    "RoBERTa-base": Encoder("roberta", "roberta-base", {}, 87.6, "dev", "arXiv 1907.11692, 2019"),
    "XLM-R-base, 30,000 words": Encoder(
        "roberta", "xlm-roberta-base", {"vocab_size": TRIMMED}, None, "XNLI English 84.6", "arXiv 1911.02116, 2019"
    ),
    "DeBERTa-v3-xsmall": Encoder(
        "deberta-v2", "deberta-v3-xsmall", {}, 88.1, "dev", "microsoft/deberta-v3-xsmall, README.md, 2022"
    ),
    "DeBERTa-v3-small": Encoder(
        "deberta-v2", "deberta-v3-small", {}, 88.3, "dev", "microsoft/deberta-v3-small, README.md, 2022"
    ),
    "ModernBERT-base": Encoder("modernbert", "modernbert-base", {}, 89.1, "dev", "arXiv 2412.13663, 2024"),
}  # fmt: skip


def counted(name: str, target: str, phones: Sequence[Any], lengths: tuple[int, ...]) -> list[Row]:
    """A model's rows for a target."""
    encoder = ENCODERS[name]
    with torch.device("meta"):
        model = Model(MODELS[encoder.family], encoder.config, TASK)
    whole = extrapolate.Whole(name, model, None, target, RECIPE, (), lengths, None)
    return extrapolate.count(whole, phones, progress=lambda step: print(f"{name}, {target}: {step}", flush=True))


def measure(name: str) -> dict[str, Any]:
    """What is told of a model: its parameters, the time with each target, and with the best one on each phone."""
    first, *_ = devices([PHONES[0]])
    with torch.device("meta"):
        model = Model(MODELS[ENCODERS[name].family], ENCODERS[name].config, TASK)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    targets = {}
    for target in TARGETS:
        (row,) = counted(name, target, [first], LENGTHS[-1:])
        targets[target] = row.median_ms
    best = min(targets, key=lambda target: targets[target])
    rows = counted(name, best, devices(PHONES), LENGTHS)
    return {
        "parameters": parameters, "targets": targets, "target": best, "bytes": rows[0].file_bytes,
        "ms": {f"{row.found.device} {row.length}": row.median_ms for row in rows},
        "instructions": {f"{row.found.device} {row.length}": row.instructions for row in rows},
    }  # fmt: skip


def markdown(found: dict[str, dict[str, Any]]) -> str:
    """The table, the quickest first."""
    order = sorted(PHONES)
    heads = ["encoder", "M parameters", "MB", "target"]
    heads += [f"{phone} {length}" for phone in order for length in LENGTHS]
    lines = [[*heads, "MNLI-m", "of", "source"], ["---", *["---:"] * 2, "---", *["---:"] * 7, "---", "---"]]
    for name in sorted(found, key=lambda name: found[name]["ms"][f"{PHONES[0]} {LENGTHS[-1]}"]):
        told, encoder = found[name], ENCODERS[name]
        cells = [name, f"{told['parameters'] / 1e6:.0f}", f"{told['bytes'] / 1e6:.0f}", told["target"]]
        cells += [f"{told['ms'][f'{phone} {length}']:.1f}" for phone in order for length in LENGTHS]
        lines.append([*cells, f"{encoder.mnli:.1f}" if encoder.mnli else "", encoder.published, encoder.source])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def draw(found: dict[str, dict[str, Any]], path: Path) -> None:
    """Accuracy over time: up and to the left is better, and a smaller disc is a smaller file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, told in found.items():
        encoder, ms = ENCODERS[name], told["ms"][f"{PHONES[0]} {LENGTHS[-1]}"]
        if encoder.mnli is None:
            continue
        colour = "C1" if encoder.family in ("squeezebert", "mobilebert") else "C0"
        axes.scatter(ms, encoder.mnli, s=told["bytes"] / 1e5, color=colour, alpha=0.4, linewidths=0)
        below = name in ("BERT-base", "SqueezeBERT")  # another's name stands above
        place = (0, -12) if below else (5, 4)
        axes.annotate(name, (ms, encoder.mnli), xytext=place, textcoords="offset points", fontsize=8)
    axes.set_xscale("log")
    axes.margins(0.08)
    axes.set_xticks([10, 20, 50, 100, 200], ["10", "20", "50", "100", "200"])
    axes.minorticks_off()
    axes.set_xlabel(
        f"ms for {LENGTHS[-1]} tokens in 8 bits, one thread, {PHONES[0]} (simulated); a disc is a file's size"
    )
    axes.set_ylabel("MNLI matched, %, as published")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.2)
    figure.savefig(path, dpi=130)


def main() -> int:
    """Count what is not counted yet, and write the table and the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of the results")
    parser.add_argument("--models", nargs="+", choices=ENCODERS, default=list(ENCODERS), metavar="NAME")
    arguments = parser.parse_args()
    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    kept = work / "encoders.json"
    found: dict[str, dict[str, Any]] = json.loads(kept.read_text()) if kept.is_file() else {}
    for name in arguments.models:
        if name not in found:
            found[name] = measure(name)
            kept.write_text(json.dumps(found, indent=1) + "\n")
    (work / "encoders.md").write_text(markdown(found))
    draw(found, work / "encoders.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
