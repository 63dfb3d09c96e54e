"""The workloads that the cycle model is calibrated on, as .tflite files with random weights.

One-layer matrix products, and MobileNet v1, v2 and v3 written from their papers (arXiv 1704.04861, table 1; arXiv
1801.04381, table 2; arXiv 1905.02244, tables 1 and 2), also narrower and wider ones. Latency does not depend on the
values of the weights, so they are drawn; batch norms are left out, for every runtime folds them into the convolutions.

    python tools/calibration_models.py FOLDER
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

# Channels after each depthwise pair and its stride: MobileNet v1, width 1.0.
V1 = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
# Expansion, channels, repeats, stride of the first: MobileNet v2, width 1.0.
V2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
# MobileNet v3: kernel, expanded channels, channels, squeeze and excite, hard swish, stride of each block.
V3_LARGE = (
    (3, 16, 16, False, False, 1), (3, 64, 24, False, False, 2), (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2), (5, 120, 40, True, False, 1), (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2), (3, 200, 80, False, True, 1), (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1), (3, 480, 112, True, True, 1), (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2), (5, 960, 160, True, True, 1), (5, 960, 160, True, True, 1),
)  # fmt: skip
V3_SMALL = (
    (3, 16, 16, True, False, 2), (3, 72, 24, False, False, 2), (3, 88, 24, False, False, 1),
    (5, 96, 40, True, True, 2), (5, 240, 40, True, True, 1), (5, 240, 40, True, True, 1),
    (5, 120, 48, True, True, 1), (5, 144, 48, True, True, 1), (5, 288, 96, True, True, 2),
    (5, 576, 96, True, True, 1), (5, 576, 96, True, True, 1),
)  # fmt: skip
STEM, LAST, CLASSES, SIDE = 32, 1280, 1000, 224


RELU = nn.ReLU6()


def conv(
    inside: int, outside: int, kernel: int = 1, stride: int = 1, groups: int = 1, then: nn.Module | None = RELU
) -> nn.Module:
    """A convolution with the padding that keeps the size (halves it at stride 2), and what follows it, if anything."""
    layer = nn.Conv2d(inside, outside, kernel, stride, kernel // 2, groups=groups)
    return layer if then is None else nn.Sequential(layer, then)


def even(channels: float) -> int:
    """Channels of a narrower or wider net: a multiple of 8, no more than a tenth fewer than asked."""
    near = max(8, int(channels + 4) // 8 * 8)
    return near + 8 if near < 0.9 * channels else near


class Classifier(nn.Module):
    """Features float32 (1, 3, 224, 224), their mean over the picture, and a linear layer to (1, 1000)."""

    def __init__(self, features: list[nn.Module], width: int) -> None:
        super().__init__()
        self.features, self.head = nn.Sequential(*features), nn.Linear(width, CLASSES)

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """Scores of the classes."""
        found: torch.Tensor = self.head(self.features(picture).mean((2, 3)))
        return found


class Squeeze(nn.Module):
    """Squeeze and excite: each channel times what a small net says of the means of all."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        fewer = even(channels / 4)
        self.tell = nn.Sequential(conv(channels, fewer, then=nn.ReLU()), conv(fewer, channels, then=nn.Hardsigmoid()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, C, H, W), the same."""
        return x * self.tell(x.mean((2, 3), keepdim=True))  # type: ignore[no-any-return]


class Inverted(nn.Module):
    """The block of MobileNet v2 and v3: wider by a 1x1 convolution, a depthwise one, narrower again without ReLU."""

    def __init__(
        self, inside: int, middle: int, outside: int, stride: int, kernel: int = 3, squeeze: bool = False,
        then: nn.Module = RELU,
    ) -> None:  # fmt: skip
        super().__init__()
        wider = [conv(inside, middle, then=then)] if middle != inside else []
        squeezed = [Squeeze(middle)] if squeeze else []
        self.path = nn.Sequential(
            *wider, conv(middle, middle, kernel, stride, middle, then), *squeezed, conv(middle, outside, then=None)
        )
        self.residual = stride == 1 and inside == outside

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The path, beside its input where the shapes agree."""
        found: torch.Tensor = self.path(x)
        return x + found if self.residual else found


def mobilenet_v1(width: float = 1.0) -> nn.Module:
    """MobileNet v1 224: at width 1.0 569 million multiply-accumulates, 4.2 million parameters."""
    inside = even(STEM * width)
    layers = [conv(3, inside, 3, 2)]
    for channels, stride in V1:
        outside = even(channels * width)
        layers += [conv(inside, inside, 3, stride, inside), conv(inside, outside)]
        inside = outside
    return Classifier(layers, inside)


def mobilenet_v2(width: float = 1.0) -> nn.Module:
    """MobileNet v2 224: at width 1.0 300 million multiply-accumulates, 3.5 million parameters."""
    inside = even(STEM * width)
    layers = [conv(3, inside, 3, 2)]
    for expansion, channels, repeats, stride in V2:
        outside = even(channels * width)
        for index in range(repeats):
            layers.append(Inverted(inside, inside * expansion, outside, stride if index == 0 else 1))
            inside = outside
    last = even(LAST * max(1.0, width))
    return Classifier([*layers, conv(inside, last)], last)


def mobilenet_v3(blocks: tuple[tuple[int, int, int, bool, bool, int], ...], last: int) -> nn.Module:
    """MobileNet v3 224, 219 (large) or 56 (small) million multiply-accumulates."""
    swish, inside = nn.Hardswish(), 16
    layers = [conv(3, inside, 3, 2, then=swish)]
    for kernel, middle, outside, squeeze, swishes, stride in blocks:
        layers.append(Inverted(inside, middle, outside, stride, kernel, squeeze, swish if swishes else nn.ReLU()))
        inside = outside
    middle = 6 * inside
    layers += [conv(inside, middle, then=swish), nn.AdaptiveAvgPool2d(1), conv(middle, last, then=swish)]
    return Classifier(layers, last)


def _picture() -> torch.Tensor:
    return torch.rand(1, 3, SIDE, SIDE)


NETS: dict[str, Callable[[], nn.Module]] = {
    "mobilenet-v1": mobilenet_v1,
    "mobilenet-v1-0.5": lambda: mobilenet_v1(0.5),
    "mobilenet-v2": mobilenet_v2,
    "mobilenet-v2-0.5": lambda: mobilenet_v2(0.5),
    "mobilenet-v2-1.5": lambda: mobilenet_v2(1.5),
    "mobilenet-v2-2.0": lambda: mobilenet_v2(2.0),
    "mobilenet-v3-large": lambda: mobilenet_v3(V3_LARGE, 1280),
    "mobilenet-v3-small": lambda: mobilenet_v3(V3_SMALL, 1024),
}
# Name of a workload: its module, an input, and what is quantized: "" nothing, dynamic weights alone, static both, half
# computes in half precision where the processor can.
WORKLOADS: dict[str, tuple[Callable[[], nn.Module], Callable[[], torch.Tensor], str]] = {
    "qs8-gemm-256-128-256": (lambda: nn.Linear(256, 128), lambda: torch.rand(256, 256), "static"),
    "qd8-gemm-196-512-512": (lambda: nn.Linear(512, 512), lambda: torch.rand(196, 512), "dynamic"),
    **{
        f"{kind}-{name}": (make, _picture, quantized)
        for kind, quantized in (("f32", ""), ("f16", "half"), ("qs8", "static"))
        for name, make in NETS.items()
    },
}


def build(name: str, folder: Path) -> Path:
    """Write a workload's file, unless it is there: `<folder>/<name>.tflite`."""
    path = folder / f"{name}.tflite"
    if path.is_file():
        return path
    import litert_torch
    from ai_edge_quantizer import quantizer, recipe

    make, example, quantized = WORKLOADS[name]
    torch.manual_seed(0)
    module, given = make().eval(), example()
    if given.dim() == 4:  # channels last, as phones hold pictures
        module, given = litert_torch.to_channel_last_io(module, args=[0]), given.permute(0, 2, 3, 1).contiguous()
    part = folder / f"{name}.part"
    litert_torch.convert(module, (given,)).export(str(part))
    if quantized == "half":
        part.write_bytes(in_half(part.read_bytes()))
    elif quantized:
        work = quantizer.Quantizer(str(part))
        work.load_quantization_recipe(recipe.static_wi8_ai8() if quantized == "static" else recipe.dynamic_wi8_afp32())
        signature = {"serving_default": [{"args_0": given.numpy().astype(np.float32)}]}
        found = work.quantize(work.calibrate(signature) if quantized == "static" else None)
        part.write_bytes(bytes(found.quantized_model))
    part.replace(path)
    return path


def in_half(content: bytes) -> bytes:
    """A .tflite file that lets XNNPACK compute in half precision."""
    from ai_edge_litert import schema_py_generated as schema
    from flatbuffers import Builder

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    entry, buffer = schema.MetadataT(), schema.BufferT()
    entry.name, entry.buffer = b"reduced_precision_support", len(model.buffers)
    buffer.data = np.frombuffer(b"fp16accfp16", np.uint8)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or ()), entry]
    builder = Builder()
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def main() -> None:
    """Write all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for name in WORKLOADS:
        print(build(name, folder), flush=True)


if __name__ == "__main__":
    main()
