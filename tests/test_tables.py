"""Every table that a target, recipe, task, family or phone needs a row in has it; the test names what is missing."""

import re
import tomllib
from collections.abc import Iterable, Mapping

import pytest
import torch
from paths import ROOT
from torch import nn

from edgebert.bundle.opened import ANSWERS
from edgebert.cli.doctor import EXTRAS
from edgebert.cli.support import INSTEAD
from edgebert.exporters import EXPORTERS
from edgebert.exporters.tflite.weights import FORMS
from edgebert.gate.parity import TOLERANCES
from edgebert.lowering.channels_first import FORMS as CHANNEL_FORMS
from edgebert.models import MODELS, Model, heads
from edgebert.models.family import executed
from edgebert.models.layers import NoNorm
from edgebert.profiling.extrapolate import cut
from edgebert.quantization.recipes import FLOORS, NOT_TAKEN, RECIPES, TARGET_RECIPES
from edgebert.runtimes import RUNTIMES, SUFFIXES, UNROUNDED
from edgebert.runtimes.devices import device_names, open_device
from edgebert.runtimes.devices.adb.payload import PACKAGES
from edgebert.runtimes.devices.device import RUNTIME_OF
from edgebert.runtimes.devices.guest import guest
from edgebert.runtimes.devices.pixel.phones import CORES, PHONES, PROCESSORS

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
TARGETS = set(EXPORTERS) | set(RUNTIMES) | set(TARGET_RECIPES)
TASKS = {task for family in MODELS.values() for task in family.heads}
PAIRS = {(target, recipe) for target in TARGET_RECIPES for recipe in RECIPES}
TAKEN = {(target, recipe) for target, recipes in TARGET_RECIPES.items() for recipe in recipes}
ON_DEVICES = set(RUNTIME_OF.values())

# What needs rows, the tables by the place they stand in, and whether they may have others too.
EXACT: list[tuple[str, Iterable[object], Mapping[str, Iterable[object]]]] = [
    (
        "target",
        TARGETS,
        {
            "exporters/__init__.py EXPORTERS": EXPORTERS,
            "runtimes/__init__.py RUNTIMES": RUNTIMES,
            "runtimes/__init__.py SUFFIXES": SUFFIXES,
            "runtimes/__init__.py UNROUNDED": UNROUNDED,
            "edgebert/quantization/recipes.py TARGET_RECIPES": TARGET_RECIPES,
        },
    ),
    ("pair of target and recipe", TAKEN, {"edgebert/gate/parity.py TOLERANCES": TOLERANCES}),
    ("pair that has a floor", TAKEN, {"edgebert/quantization/recipes.py FLOORS": FLOORS}),
    ("pair that is not taken", PAIRS - TAKEN, {"edgebert/quantization/recipes.py NOT_TAKEN": NOT_TAKEN}),
    ("recipe of tflite", TARGET_RECIPES["tflite"], {"exporters/tflite/weights.py FORMS": FORMS}),
    ("task", TASKS, {"edgebert/bundle/opened.py ANSWERS": ANSWERS}),
    (
        "runtime of devices",
        ON_DEVICES,
        {
            "runtimes/devices/guest/guest.py RUNTIMES": guest.RUNTIMES,
            "runtimes/devices/adb/payload.py PACKAGES": PACKAGES,
        },
    ),
]


def missing(wanted: Iterable[object], tables: Mapping[str, Iterable[object]]) -> list[str]:
    """Which row is missing where, or stands there for nothing."""
    wanted = set(wanted)
    lacks = [f"{table} has no row for {row}" for table, rows in tables.items() for row in wanted - set(rows)]
    idle = [
        f"{table} has a row for {row}, which nothing needs"
        for table, rows in tables.items()
        for row in set(rows) - wanted
    ]
    return sorted(lacks + idle)


@pytest.mark.parametrize(("what", "wanted", "tables"), EXACT, ids=[what for what, *_ in EXACT])
def test_every_table_has_its_rows(what: str, wanted: Iterable[object], tables: Mapping[str, Iterable[object]]) -> None:
    assert missing(wanted, tables) == []


def test_a_missing_row_is_named() -> None:
    table = {"runtimes/__init__.py SUFFIXES": {name: "" for name in TARGETS - {"onnx"}}}
    assert missing(TARGETS, table) == ["runtimes/__init__.py SUFFIXES has no row for onnx"]


def test_every_target_has_an_extra_and_packages_that_are_listed() -> None:
    extras = PYPROJECT["project"]["optional-dependencies"]
    assert [target for target in TARGETS if target not in extras or target not in EXTRAS] == []
    assert [
        target for target in TARGETS if f"[{target}" not in extras["all"][0] and f",{target}" not in extras["all"][0]
    ] == []
    listed = set(PYPROJECT["tool"]["setuptools"]["packages"])
    rooms = {
        ".".join(("edgebert", *path.parent.relative_to(ROOT).parts)).replace("edgebert.edgebert", "edgebert")
        for top in ("edgebert", "exporters", "runtimes")
        for path in (ROOT / top).rglob("__init__.py")
    }
    assert rooms == listed


def test_every_recipe_is_taken_somewhere() -> None:
    assert {recipe for _, recipe in TAKEN} == set(RECIPES)
    assert set(INSTEAD) <= TASKS


def test_every_head_has_a_form_for_channels_first() -> None:
    modules = {
        type(module)
        for family in MODELS.values()
        for task in family.heads
        for module in Model(family, family.config.tiny(), task).head.modules()
    }
    lacking = [kind.__name__ for kind in modules if kind.__module__ == heads.__name__ and kind not in CHANNEL_FORMS]
    assert lacking == [], "edgebert/lowering/channels_first.py FORMS"


@pytest.mark.parametrize("name", PHONES)
def test_every_phone_opens_by_its_name_and_is_made_of_cores_that_are_known(name: str) -> None:
    assert open_device(name).name == name
    for cluster in PHONES[name].clusters:
        assert cluster.core in CORES, f"phones.py CORES has no row for {cluster.core}"
        assert CORES[cluster.core].features in PROCESSORS


def test_a_phone_of_another_maker_opens_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PHONES, "galaxy-s24", PHONES["pixel-9"])
    assert "galaxy-s24" in device_names()
    assert open_device("galaxy-s24").name == PHONES["pixel-9"].name


CELLS = [(name, task) for name, family in MODELS.items() for task in family.heads]


@pytest.mark.parametrize(("name", "task"), CELLS)
def test_every_family_offers_what_its_docstring_says(name: str, task: str) -> None:
    family = MODELS[name]
    config = family.config.tiny()
    for field in (
        "vocab_size", "max_position_embeddings", "type_vocab_size", "pad_token_id", "tie_word_embeddings",
        "initializer_range", "labels", family.depth,
    ):  # fmt: skip
        assert hasattr(config, field), field
    model = Model(family, config, task)
    encoder = model.encoder
    embeddings = encoder.get_submodule("embeddings")
    for table, rows in (("word", config.vocab_size), ("position", config.max_position_embeddings)):
        found = getattr(embeddings, table, None)
        if found is None and table == "position":
            continue
        assert isinstance(found, nn.Embedding)
        assert found.num_embeddings == rows
    types = getattr(embeddings, "token_type", None)
    assert types is None or types.num_embeddings == config.type_vocab_size
    assert (types is None) <= (config.type_vocab_size in (0, 1))
    assert isinstance(embeddings.get_submodule("norm"), nn.LayerNorm | NoNorm)
    assert isinstance(getattr(encoder, "project", nn.Identity()), nn.Identity | nn.Linear)
    assert isinstance(getattr(encoder, "causal", False), bool)
    layers = encoder.get_submodule("layers")
    assert isinstance(layers, nn.ModuleList)
    assert len(executed(encoder)) == getattr(config, family.depth)
    assert set(executed(encoder)) == set(layers)
    for layer in layers:
        assert all(hasattr(layer, part) for part in ("attention", "attention_norm", "up", "down", "norm"))
        lacking = {name for name in layer.state_dict() if name.startswith("attention_norm.")}
        assert layer.state_dict().keys() - layers[0].state_dict().keys() in (set(), lacking)
        assert layers[0].state_dict().keys() <= layer.state_dict().keys()
    if task in ("masked-lm", "causal-lm"):
        decoder = model.head.get_submodule("decoder")
        assert isinstance(decoder, nn.Linear)
        assert decoder.out_features == config.vocab_size
        assert decoder.bias is not None
    if "classification" in task or task == "multiple-choice":
        assert isinstance(model.head.get_submodule("classifier"), nn.Linear)
    assert len(cut(model, 1).encoder.get_submodule("layers")) == 1
    bias = getattr(encoder, "position_bias", None)
    assert bias is None or bias(7).shape == (layers[0].attention.n_heads, 7, 7)
    kinds = {type(module) for module in model.modules()}
    assert set(family.parts) <= kinds
    ids = torch.ones(1, 5, dtype=torch.int32)
    assert encoder(ids, ids, torch.zeros_like(ids)).shape[:2] == (1, 5)
    page = (ROOT / "docs" / "choosing.md").read_text(encoding="utf-8")
    assert re.search(rf"\| {task} \|", page), f"docs/choosing.md's table of tasks has no row for {task}"
