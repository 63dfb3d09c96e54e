"""What every exporter does alike: its checks, and running a converter with its talk kept from the terminal."""

import contextlib
import importlib.util
import json
import logging
import os
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TextIO

import torch
from torch import Tensor

from edgebert.catalog import check_recipe
from edgebert.errors import ConversionFailed, EdgebertError, InputError, MissingDependency
from edgebert.files import interrupts
from edgebert.lowering import duplicate
from edgebert.models import Model
from edgebert.models.heads import Classifier, SentenceEmbedding
from edgebert.models.signature import INPUTS
from edgebert.quantization.recipes import Recipe

# Norms' factors where none were chosen for the model, see `lowering/half_norms.py`.
USUAL: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class About:
    """What a file tells that a model does not know.

    Attributes:
        license: of the weights, in their source's words; empty where it says nothing.
        words: the vocab.txt that MediaPipe is to split texts by; None in a file that is not for it.
        notes: what is to be known of what it is for.
    """

    license: str = ""
    words: bytes | None = None
    notes: tuple[str, ...] = ()


UNTOLD = About()


def missing(target: str, needs: Sequence[str]) -> str | None:
    """The command that installs what a target's exporter imports; None when all of it is there."""
    found = all(importlib.util.find_spec(name) for name in needs)
    return None if found else f'pip install "edgebert[{target}]"'


def check(target: str, needs: Sequence[str], model: Model, recipe: Recipe) -> None:
    """Refuse, before any work, what no exporter of the target takes.

    Raises:
        Unsupported: the target does not take the recipe.
        MissingDependency: a package is not installed.
    """
    check_recipe(target, recipe.name)
    if command := missing(target, needs):
        raise MissingDependency(f"exporting {model.family.name} to {target} needs {', '.join(needs)}: {command}")


def with_outputs(target: str, model: Model, activation: str = "") -> Model:
    """A model with the outputs that files of a target have.

    Clients of ONNX files pool `last_hidden_state`, the first output, by themselves: a sentence encoder has it too.

    Args:
        target: of the file.
        model: as it was loaded; it is not changed.
        activation: what a classifier's file applies to its logits, a key of `heads.ACTIVATED`; empty for nothing.
    """
    states = target == "onnx" and isinstance(model.head, SentenceEmbedding)
    if not states and not (activation and isinstance(model.head, Classifier)):
        return model
    made = duplicate(model)
    changed: Any = made.head
    if states:
        changed.states = True
    else:
        changed.activation = activation
    return made


def said(model: Model, recipe: Recipe, lengths: Sequence[int], about: About = UNTOLD) -> dict[str, str]:
    """What a file says in its metadata, that it can be told what it is without its bundle: lists as JSON."""
    labels = list(model.config.labels) if "classification" in model.task else []
    return {
        "family": model.family.name,
        "task": model.task,
        "recipe": recipe.name,
        "lengths": json.dumps(list(lengths)),
        "labels": json.dumps(labels, ensure_ascii=False),
        "license": about.license,
    }


def check_lengths(lengths: Sequence[int], positions: int) -> tuple[int, ...]:
    """The sequence lengths asked for, ascending and each once.

    Raises:
        InputError: there is none, or one is not between 1 and the model's positions.
    """
    if not lengths or not all(1 <= length <= positions for length in lengths):
        raise InputError(
            f"lengths {list(lengths)}; at least one is needed, and each from 1 to the model's {positions} positions."
        )
    return tuple(sorted(set(lengths)))


def examples(rows: int, tokens: int) -> dict[str, Tensor]:
    """Inputs (rows, tokens) int32 to trace a model with, each a tensor of its own: of type 0, which every model has."""
    kinds = {name: torch.zeros if name == "token_type_ids" else torch.ones for name in INPUTS}
    return {name: make(rows, tokens, dtype=torch.int32) for name, make in kinds.items()}


@contextlib.contextmanager
def contained(target: str, what: str) -> Iterator[None]:
    """Run a converter: what it says goes into a log, and a failure of its own becomes one line that names the log.

    Its talk is caught below Python too, for converters write to the descriptors of standard output and error from C++.
    The log stays only where the conversion failed. Errors of edgebert's own pass, and so does an OSError: a full disk
    or a place that may not be written to is not the converter's doing. An interrupt ends the block as one whatever the
    converter made of it: torch turns some into errors of its own, and modules that it tries to import swallow others.

    Args:
        target: for the log's name.
        what: the model and the stage, for the message.

    Raises:
        ConversionFailed: the block raised something else.
        KeyboardInterrupt: an interrupt came.
    """
    descriptor, log = tempfile.mkstemp(prefix=f"edgebert-{target}-", suffix=".log")
    quiet, failed = logging.root.manager.disable, False
    logging.disable(logging.CRITICAL)
    try:
        with (
            os.fdopen(descriptor, "w", errors="replace") as stream, _turned_to(stream), warnings.catch_warnings(),
            interrupts(put_off=False) as came,
        ):  # fmt: skip
            warnings.simplefilter("ignore")
            try:
                yield
            except Exception:
                traceback.print_exc(file=stream)
                if not came:
                    raise
            if came:
                raise KeyboardInterrupt
    except ConversionFailed as error:
        raise ConversionFailed(f"{what}: {error}") from error
    except (EdgebertError, OSError):
        raise
    except Exception as error:  # converters' own errors have no common kind
        failed = True
        reason = next(iter(str(error).strip().splitlines()), "")[:200]
        raise ConversionFailed(
            f"{what}: conversion failed with {type(error).__name__}: {reason} The whole log is in {log}."
        ) from error
    finally:
        logging.disable(quiet)
        if not failed:
            Path(log).unlink()


@contextlib.contextmanager
def _turned_to(stream: TextIO) -> Iterator[None]:
    """Send what Python and C++ write to standard output and error into a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = {number: os.dup(number) for number in (1, 2)}
    try:
        with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
            for number in kept:
                os.dup2(stream.fileno(), number)
            yield
            stream.flush()
    finally:
        for number, old in kept.items():
            os.dup2(old, number)
            os.close(old)
