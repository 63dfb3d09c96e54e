"""The workloads that the cycle model is calibrated on, as .tflite files with random weights.

One-layer matrix products, and MobileNet v1 and v2 written from their papers (arXiv 1704.04861, table 1; arXiv
1801.04381, table 2). Latency does not depend on the values of the weights, so they are drawn; batch norms are left out,
for every runtime folds them into the convolutions.

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
STEM, LAST, CLASSES, SIDE = 32, 1280, 1000, 224


def conv(inside: int, outside: int, kernel: int = 1, stride: int = 1, groups: int = 1, relu: bool = True) -> nn.Module:
    """A convolution with the padding that keeps the size (halves it at stride 2), and ReLU6 where asked."""
    layer = nn.Conv2d(inside, outside, kernel, stride, kernel // 2, groups=groups)
    return nn.Sequential(layer, nn.ReLU6()) if relu else layer


class Classifier(nn.Module):
    """Features float32 (1, 3, 224, 224), their mean over the picture, and a linear layer to (1, 1000)."""

    def __init__(self, features: list[nn.Module], width: int) -> None:
        super().__init__()
        self.features, self.head = nn.Sequential(*features), nn.Linear(width, CLASSES)

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """Scores of the classes."""
        found: torch.Tensor = self.head(self.features(picture).mean((2, 3)))
        return found


class Inverted(nn.Module):
    """MobileNet v2's block: wider by a 1x1 convolution, a depthwise 3x3 one, narrower again without ReLU."""

    def __init__(self, inside: int, outside: int, stride: int, expansion: int) -> None:
        super().__init__()
        middle = inside * expansion
        wider = [conv(inside, middle)] if expansion > 1 else []
        self.path = nn.Sequential(*wider, conv(middle, middle, 3, stride, middle), conv(middle, outside, relu=False))
        self.residual = stride == 1 and inside == outside

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The path, beside its input where the shapes agree."""
        found: torch.Tensor = self.path(x)
        return x + found if self.residual else found


def mobilenet_v1() -> nn.Module:
    """MobileNet v1 1.0 224: 569 million multiply-accumulates, 4.2 million parameters."""
    layers, width = [conv(3, STEM, 3, 2)], STEM
    for channels, stride in V1:
        layers += [conv(width, width, 3, stride, width), conv(width, channels)]
        width = channels
    return Classifier(layers, width)


def mobilenet_v2() -> nn.Module:
    """MobileNet v2 1.0 224: 300 million multiply-accumulates, 3.5 million parameters."""
    layers, width = [conv(3, STEM, 3, 2)], STEM
    for expansion, channels, repeats, stride in V2:
        for index in range(repeats):
            layers.append(Inverted(width, channels, stride if index == 0 else 1, expansion))
            width = channels
    return Classifier([*layers, conv(width, LAST)], LAST)


def _picture() -> torch.Tensor:
    return torch.rand(1, 3, SIDE, SIDE)


# Name of a workload: its module, an input, and what is quantized ("" nothing, dynamic weights alone, static both).
WORKLOADS: dict[str, tuple[Callable[[], nn.Module], Callable[[], torch.Tensor], str]] = {
    "qs8-gemm-256-128-256": (lambda: nn.Linear(256, 128), lambda: torch.rand(256, 256), "static"),
    "qd8-gemm-196-512-512": (lambda: nn.Linear(512, 512), lambda: torch.rand(196, 512), "dynamic"),
    "f32-mobilenet-v1": (mobilenet_v1, _picture, ""),
    "f32-mobilenet-v2": (mobilenet_v2, _picture, ""),
    "qs8-mobilenet-v1": (mobilenet_v1, _picture, "static"),
    "qs8-mobilenet-v2": (mobilenet_v2, _picture, "static"),
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
    if quantized:
        work = quantizer.Quantizer(str(part))
        work.load_quantization_recipe(recipe.static_wi8_ai8() if quantized == "static" else recipe.dynamic_wi8_afp32())
        signature = {"serving_default": [{"args_0": given.numpy().astype(np.float32)}]}
        found = work.quantize(work.calibrate(signature) if quantized == "static" else None)
        part.write_bytes(bytes(found.quantized_model))
    part.replace(path)
    return path


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
