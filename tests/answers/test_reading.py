"""How logits are read: the rules of transformers' text classification, and what sentence-transformers writes."""

import numpy as np
import pytest
from sentence_transformers.util import import_from_string
from torch import from_numpy

from edgebert.answers import reading
from edgebert.answers.reading import READINGS, Reading
from edgebert.errors import InputError, Unsupported
from edgebert.models import MODELS

TASKS = {task for family in MODELS.values() for task in family.heads}


def of(labels: int, **raw: object) -> Reading:
    return reading.of("sequence-classification", labels, raw, "cosine")


@pytest.mark.parametrize(
    ("labels", "raw", "activation", "threshold"),
    [
        (3, {}, "softmax", None),
        (1, {}, "sigmoid", None),
        (1, {"problem_type": "regression"}, "none", None),
        (3, {"problem_type": "regression"}, "none", None),
        (3, {"problem_type": "multi_label_classification"}, "sigmoid", 0.5),
        (3, {"problem_type": "single_label_classification"}, "softmax", None),
        (1, {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}, "none", None),
        (1, {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"}}, "sigmoid", None),
        (2, {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Tanh"}}, "tanh", None),
        (2, {"sentence_transformers": {"version": "5.0"}}, "softmax", None),
    ],
)
def test_a_config_says_how(labels: int, raw: dict[str, object], activation: str, threshold: float | None) -> None:
    assert of(labels, **raw) == Reading(activation, threshold)


def test_every_task_has_a_reading() -> None:
    assert TASKS - {"sequence-classification", "sentence-embedding"} == set(READINGS)
    for task in TASKS:
        assert reading.of(task, 2, {}, "dot").activation in reading.ACTIVATIONS
    assert reading.of("sentence-embedding", 2, {}, "dot").similarity == "dot"


def test_odd_configs_are_refused() -> None:
    with pytest.raises(InputError, match=r"problem_type='ranking'; regression"):
        of(2, problem_type="ranking")
    with pytest.raises(Unsupported, match=r"activation 'torch.nn.Mish' is not known"):
        of(1, sbert_ce_default_activation_function="torch.nn.Mish")


@pytest.mark.parametrize("name", ["activation.Sigmoid", "activation.Tanh", "linear.Identity"])
def test_activations_are_torchs(name: str) -> None:
    theirs = import_from_string(f"torch.nn.modules.{name}")()
    logits = np.array([[-700.0, -2.0, 0.0, 0.5, 30.0]], np.float32)
    ours = reading.applied(reading.WRITTEN[name.rpartition(".")[2]], logits)
    np.testing.assert_allclose(ours, theirs(from_numpy(logits)).numpy(), atol=1e-7)
