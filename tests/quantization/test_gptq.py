"""4-bit rounding that watches the outputs: exact where it can be, and better than rounding to the nearest."""

import numpy as np
import pytest
import torch
from torch import nn

from edgebert import lowering
from edgebert.checkpoints import checkpoint
from edgebert.errors import InputError
from edgebert.models import MODELS, Model
from edgebert.quantization.gptq import GROUP, HIGHEST, LOWEST, Rounded, round_weights
from edgebert.quantization.samples import load_samples


def tiny(name: str = "bert") -> Model:
    return Model(MODELS[name], MODELS[name].config.tiny(), "base").random_init(1)


def linears(model: Model) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]


def test_integers_and_scales_have_their_shapes_and_range() -> None:
    model = tiny()
    names = linears(model)
    rounded = round_weights(model, dict.fromkeys(names, GROUP), load_samples(None, model.config, 16))
    assert list(rounded) == names
    for name, matrix in rounded.items():
        outputs, inputs = model.get_submodule(name).get_parameter("weight").shape
        assert matrix.integers.shape == (outputs, inputs)
        assert matrix.integers.dtype == np.int8
        assert LOWEST <= matrix.integers.min() < matrix.integers.max() <= HIGHEST
        assert matrix.scales.shape == (outputs, -(-inputs // GROUP))
        assert matrix.floats().dtype == np.float32


def test_weights_that_4_bits_hold_come_back_exactly() -> None:
    model = tiny()
    name = "encoder.layers.0.up"
    weight = model.get_submodule(name).get_parameter("weight")
    whole = torch.randint(LOWEST, HIGHEST + 1, weight.shape, generator=torch.Generator().manual_seed(0)).float()
    whole[:, 0] = HIGHEST  # each row reaches the scale's end
    with torch.no_grad():
        weight.copy_((whole.clamp(-HIGHEST, HIGHEST)) * 0.125)
    rounded = round_weights(model, {name: GROUP}, load_samples(None, model.config, 16))[name]
    np.testing.assert_allclose(rounded.floats(), weight.detach().numpy(), atol=1e-6)


@pytest.mark.parametrize("grouped", [lowering.SlicedLinears, lowering.GroupedPointwise])
def test_outputs_on_samples_are_nearer_than_by_rounding_to_the_nearest(grouped: lowering.GroupedForm) -> None:
    default = checkpoint.load()
    assert default.tokenizer is not None
    model = lowering.tokens_before_channels(default.model, grouped)
    samples = load_samples(default.tokenizer, model.config, 32)
    name = next(n for n, m in model.named_modules() if n.startswith("encoder.layers.1.up") and hasattr(m, "weight"))
    module = model.get_submodule(name)
    weight = module.get_parameter("weight")
    seen: list[torch.Tensor] = []
    hook = module.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0]))
    with torch.no_grad():
        for sample in samples:
            model(**{key: torch.from_numpy(value) for key, value in sample.items()})
        hook.remove()
        rounded = round_weights(model, {name: GROUP}, samples)[name]
        scale = weight.flatten(1).unflatten(1, (-1, GROUP)).abs().amax(-1, keepdim=True) / HIGHEST
        blocks = weight.flatten(1).unflatten(1, (-1, GROUP))
        nearest = ((blocks / scale).round() * scale).reshape(weight.shape)
        errors = []
        for candidate in (torch.from_numpy(rounded.floats()).reshape(weight.shape), nearest):
            kept, weight.data = weight.data, candidate - weight.data
            bias, module.bias = module.bias, None
            errors.append(sum(float(module(x).square().sum()) for x in seen))
            weight.data, module.bias = kept, bias
    assert errors[0] < 0.6 * errors[1]


def test_the_model_is_not_changed_and_no_samples_are_refused() -> None:
    model = tiny()
    before = {name: p.clone() for name, p in model.named_parameters()}
    round_weights(model, dict.fromkeys(linears(model), GROUP), load_samples(None, model.config, 8))
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
    with pytest.raises(InputError, match="sample texts, and none came"):
        round_weights(model, dict.fromkeys(linears(model), GROUP), [])


def test_a_last_group_may_be_shorter() -> None:
    integers = np.array([[1, 2, 3, 4, 5]], np.int8)
    rounded = Rounded(integers, np.array([[1.0, 10.0]], np.float32), 3)
    np.testing.assert_array_equal(rounded.floats(), [[1, 2, 3, 40, 50]])
