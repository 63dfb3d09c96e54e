"""Everything that stands beside the model file in a bundle, and the manifest that speaks of it."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from edgebert.answers import reading
from edgebert.answers.reading import PLAIN, Reading
from edgebert.artifact import Artifact
from edgebert.bundle import hub
from edgebert.bundle.manifest import FORMAT, GOLDEN, NO_APP, SENTENCES, TOKENIZER, VERSION, Manifest, describe_files
from edgebert.checkpoints.checkpoint import Checkpoint
from edgebert.files import sha256
from edgebert.gate import golden, sentences
from edgebert.gate.half import Half
from edgebert.models import Model
from edgebert.quantization import sizes
from edgebert.quantization.recipes import Recipe, floor
from edgebert.quantization.samples import TEXTS
from edgebert.runtimes import RUNTIMES
from edgebert.runtimes.session import Delegation
from edgebert.tokenizers import on_phone


def write_bundle(
    folder: Path,
    source: Checkpoint,
    artifact: Artifact,
    answers: golden.Golden,
    target: str,
    recipe: Recipe,
    keep_float: tuple[str, ...],
    texts: Path | None,
    in_half: Half,
    told: tuple[str, ...] = (),
) -> Manifest:
    """Write everything beside the model file; the manifest still without a report, with what else is `told` in it."""
    answers.save(folder / GOLDEN)
    if target == "onnx":
        hub.describe(folder, source, recipe.name, artifact.lengths[-1])
    elif source.tokenizer is not None:
        source.tokenizer.save_json(folder / TOKENIZER)
    if source.tokenizer is not None:
        sentences.save(sentences.make(source.tokenizer), folder / SENTENCES)
    session = RUNTIMES[target].open(artifact.path, 1)
    facts = session.facts()
    session.close()
    model = source.model
    touched = sizes.touched(model, artifact.weights)
    sizes.check_size(
        sum(facts.weight_bytes.values()),
        sum(row.bytes_after for row in touched),
        sizes.estimate(model, recipe, keep_float),
        recipe,
    )
    manifest = Manifest(
        format=FORMAT,
        version=VERSION,
        family=model.family.name,
        source=source.source,
        weights_sha256=source.weights_sha256,
        config=asdict(model.config),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        task=model.task,
        target=target,
        recipe=recipe.name,
        floor=floor(target, recipe.name, artifact.lengths),
        lengths=list(artifact.lengths),
        dynamic=artifact.dynamic,
        vocab_size=model.config.vocab_size,
        pad_id=source.tokenizer.pad_id if source.tokenizer else 0,
        padding_invariant=model.family.padding_invariant,
        labels=list(model.config.labels) if "classification" in model.task else [],
        reading=asdict(_left(model, reading_of(source))),
        model_file=artifact.path.relative_to(folder).as_posix(),
        inputs=[asdict(spec) for spec in facts.inputs],
        outputs=[asdict(spec) for spec in facts.outputs],
        files=describe_files(folder),
        graph={
            "nodes": facts.nodes,
            "ops": facts.ops,
            "weight_bytes": facts.weight_bytes,
            "delegation": _told(facts.delegation),
        },
        modules=[asdict(row) for row in touched],
        parts=sizes.by_part((row.name, row.bytes_after) for row in touched),
        keep_float=list(keep_float),
        calibration=_calibration(source, recipe, texts),
        headroom=in_half.trial.headroom if in_half.trial else None,
        peak_memory_bytes=None,
        parity=None,
        tools=artifact.tools | {"runtime": facts.runtime},
        notes=[*source.notes, *artifact.notes, *([in_half.note] if in_half.note else []), *told, *_to_phones(folder)],
    )
    manifest.write(folder)
    return manifest


def reading_of(source: Checkpoint) -> Reading:
    """How the logits of a checkpoint's model are read."""
    config = source.model.config
    return reading.of(source.model.task, len(config.labels), source.raw_config, config.pooling.similarity)


def _left(model: Model, how: Reading) -> Reading:
    """How what a file gives is read, where it applies the activation itself."""
    return replace(how, activation=PLAIN) if getattr(model.head, "activation", "") else how


def _to_phones(folder: Path) -> list[str]:
    """What of a bundle's tokenizer the app does not know."""
    if not (folder / TOKENIZER).exists():
        return []
    lacking = on_phone.unknown(json.loads((folder / TOKENIZER).read_bytes()))
    return [f"{NO_APP}: its tokenizer has a {' and a '.join(lacking)}"] if lacking else []


def _told(delegation: Delegation | None) -> dict[str, Any] | None:
    """A delegation as plain values, with its share and its one line."""
    return None if delegation is None else asdict(delegation) | {"share": delegation.share, "text": str(delegation)}


def _calibration(source: Checkpoint, recipe: Recipe, texts: Path | None) -> str:
    """What scales or roundings were chosen on."""
    if not recipe.calibrated:
        return ""
    if source.tokenizer is None:
        return "random ids"
    return f"{texts.name if texts else 'edgebert'} (sha256 {sha256(texts or TEXTS)})"
