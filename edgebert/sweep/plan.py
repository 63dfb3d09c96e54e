"""What a sweep is asked for, on the command line or in a file, and the cells that it comes to."""

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from importlib import metadata
from pathlib import Path
from typing import Any

from edgebert.catalog import TASKS, asked_recipe, known
from edgebert.errors import InputError
from edgebert.quantization.recipes import RECIPES, TARGET_RECIPES
from edgebert.sweep.contents import Content

ALL = "all"
# Not a target: the model itself, of which a file's figure is told the loss.
TORCH = "torch"
# Whose versions a cell's file depends on, beside torch's own.
CONVERTERS = {
    TORCH: (),
    "tflite": ("litert-torch", "ai-edge-litert"),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "executorch": ("executorch", "torchao"),
    "coreml": ("coremltools",),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked for; each field is an option of `edgebert sweep` and a key of a plan file.

    Attributes:
        model: checkpoint folders, hub names, presets with `random_init`, or `default`.
        target: runtimes to export for; `all` stands for each.
        recipe: what happens to the numbers; `all` stands for each.
        lengths: sequence lengths of every file; empty takes 32, 64 and 128 where they fit.
        device: where files are timed, such as `pixel-4` or `host`.
        eval: a file of texts and labels, see `evaluate.read`; None compares nothing but the gate.
        task: the head; None takes the one that a checkpoint was saved with.
        random_init: take configs alone, with random weights.
        threads: of the runtimes.
        runs: that count, where a device measures.
        budget: what the cell to be picked must keep to, see `budget.parse`.
    """

    model: tuple[str, ...] = ("default",)
    target: tuple[str, ...] = (ALL,)
    recipe: tuple[str, ...] = (ALL,)
    lengths: tuple[int, ...] = ()
    device: tuple[str, ...] = ("host",)
    eval: str | None = None
    task: str | None = None
    random_init: bool = False
    threads: int = 1
    runs: int = 20
    budget: tuple[str, ...] = ()

    @property
    def targets(self) -> tuple[str, ...]:
        """Their names, each once.

        Raises:
            InputError: one is not known.
        """
        return _named("target", self.target, TARGET_RECIPES)

    def recipes(self, target: str) -> tuple[str, ...]:
        """Their names for a target, each once; `int8` is its own 8-bit default.

        Raises:
            InputError: one is not known.
        """
        return _named("recipe", [asked_recipe(target, name) for name in self.recipe], RECIPES)


def _named(what: str, names: Sequence[str], there: Mapping[str, Any]) -> tuple[str, ...]:
    found = [name for given in names for name in (there if given == ALL else [known(what, given, there)])]
    return tuple(dict.fromkeys(found))


def read(path: Path) -> dict[str, Any]:
    """The keys of a plan file (TOML), each as `Plan` has it.

    Raises:
        InputError: it is no such file, or has a key or value that a plan has not.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path} cannot be read as a plan: {error}") from None
    return values(path, content)


def values(path: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """What a file says, each key as `Plan` has it.

    Raises:
        InputError: it has a key or value that a plan has not.
    """
    return {known("key of a plan", key, KINDS): _value(path, key, value) for key, value in content.items()}


KINDS: Mapping[str, Any] = {field.name: field.default for field in fields(Plan)}


def _value(path: Path, key: str, value: Any) -> Any:
    """A value of a plan file as its field is; one alone is a list of one."""
    usual = KINDS[key]
    several = isinstance(usual, tuple)
    wanted: type = int if key == "lengths" else str if several or usual is None else type(usual)
    values = value if several and isinstance(value, list) else [value]
    if not all(type(one) is wanted for one in values):
        raise InputError(f"{path}: {key} = {value!r:.80}; {wanted.__name__}{' or a list of them' * several} is needed.")
    return tuple(values) if several else value


@dataclass(frozen=True, slots=True)
class Cell:
    """One file to make of one model, and all that is asked of it; or with TORCH for a target the model itself.

    Attributes:
        model: as it was given.
        content: what it is, whatever its place.
        target: a target, or TORCH.
        recipe: see `Plan`; so are all after it.
        figures: the sha256 of the texts with labels; None without.
        versions: of edgebert and of what converts for the target.
    """

    model: str
    content: Content
    target: str
    recipe: str
    lengths: tuple[int, ...]
    device: tuple[str, ...]
    figures: Content | None
    task: str | None
    random_init: bool
    threads: int
    runs: int
    versions: Mapping[str, str]

    @property
    def key(self) -> str:
        """What tells it from every other: the sha256 of all that its results depend on."""
        said = asdict(self) | {"content": self.content.sha256, "figures": self.figures and self.figures.sha256}
        del said["model"]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:32]

    @property
    def name(self) -> str:
        """For people."""
        return f"{Path(self.model).name} {self.target}" + ("" if self.target == TORCH else f" {self.recipe}")


def cells(plan: Plan, models: Mapping[str, Content], figures: Content | None) -> list[Cell]:
    """Each model for each target and recipe, and where there are texts with labels the models themselves first.

    Args:
        plan: what is asked for.
        models: what each name of the plan stands for.
        figures: texts with labels.
    """
    asked = [(TORCH, "fp32")] if figures else []
    asked += [(target, recipe) for target in plan.targets for recipe in plan.recipes(target)]
    return [
        Cell(
            model, models[model], target, recipe, plan.lengths, plan.device, figures, plan.task, plan.random_init,
            plan.threads, plan.runs, versions(target),
        )
        for model in dict.fromkeys(plan.model)
        for target, recipe in asked
    ]  # fmt: skip


def versions(target: str) -> dict[str, str]:
    """Of edgebert, torch and what converts for a target; "" for what is not installed."""
    return {name: _version(name) for name in ("edgebert", "torch", *CONVERTERS[target])}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def check(plan: Plan) -> None:
    """Refuse what no cell could do, before anything is loaded.

    Raises:
        InputError: a name is not known, or a number is too small.
    """
    if plan.task is not None:
        known("task", plan.task, TASKS)
    if not (plan.model and plan.targets and all(map(plan.recipes, plan.targets))):
        raise InputError("a sweep needs a model, a target and a recipe at least.")
    for name, numbers in (("lengths", plan.lengths), ("threads", (plan.threads,)), ("runs", (plan.runs,))):
        if any(number < 1 for number in numbers):
            raise InputError(f"{name} {min(numbers)}; at least 1 is needed.")
