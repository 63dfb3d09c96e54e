"""Norms whose squares fit into half precision, in which XNNPACK, LiteRT's delegate, computes between int8 products."""

from torch import Tensor, nn

from edgebert.lowering.residual import multiply, stages, tell_stages
from edgebert.lowering.rewrite import duplicate
from edgebert.models.family import Model

# What norms multiply by, powers of two: embeddings' numbers are small, and a layer's have outliers.
EMBEDDED, INNER = 8.0, 1 / 8


class HalfNorm(nn.LayerNorm):
    """LayerNorm of its input times a factor, which has the same result where eps is times the factor's square.

    It averages squares of distances from the mean, and half precision holds 0.00006 to 65,504 there: XNNPACK lets what
    is smaller be zero. In the embedded default model distances go up to 700 in a layer and their squares' mean down to
    0.003 in the embeddings: without factors its answers were 7 dB from torch's.
    """

    factor: float

    def forward(self, x: Tensor) -> Tensor:
        """Normalize the last axis of (B, T, C)."""
        return super().forward(x * self.factor)


def norms_in_half(model: Model) -> Model:
    """Let every norm square numbers that fit into half precision, see HalfNorm.

    For accuracy, and free: between layers the factor is in the weights, of what gives a norm its input and in return of
    what reads the norm; as products they took 1.0 M of 362 M instructions. The last norm gives its plain numbers.

    Args:
        model: one whose layers work on (B, T, C).
    """
    lowered = duplicate(model)
    tell_stages(lowered, "norms_in_half")
    between = list(stages(lowered))
    for stage in between:
        for part in (stage.source, stage.joined):
            multiply(part, INNER, "weight", "bias")
        for reader in stage.readers:
            multiply(reader, 1 / INNER, "weight")
        stage.norm.eps *= INNER**2
    done = {stage.norm for stage in between}
    for module in lowered.modules():
        if type(module) is nn.LayerNorm and module not in done:
            module.__class__ = HalfNorm
            assert isinstance(module, HalfNorm)
            module.factor = EMBEDDED if module is lowered.encoder.get_submodule("embeddings.norm") else INNER
            module.eps *= module.factor**2
    return lowered
