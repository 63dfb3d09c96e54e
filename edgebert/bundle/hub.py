"""An ONNX bundle is a folder as Hugging Face's clients know it: where the file stands, and what they read beside it.

transformers.js, optimum, sentence-transformers and fastembed look for `onnx/model<dtype>.onnx`, `config.json`,
`tokenizer_config.json` and `special_tokens_map.json`; see https://huggingface.co/docs/transformers.js/guides/dtypes and
https://huggingface.co/docs/optimum-onnx.
"""

import json
from dataclasses import replace
from pathlib import Path

from edgebert.checkpoints.checkpoint import Checkpoint
from edgebert.runtimes import SUFFIXES

# What transformers.js calls a recipe, and what it then puts between `model` and `.onnx`.
DTYPES = {
    "fp32": ("fp32", ""),
    "fp16": ("fp16", "_fp16"),
    "w4": ("q4", "_q4"),
    "w8a8-dynamic": ("q8", "_quantized"),
    "w8a8-static": ("q8", "_quantized"),
}
SPECIAL = "special_tokens_map.json"


def model_file(target: str, recipe: str) -> str:
    """The path of the model file in a bundle, with / between folder and name."""
    return f"onnx/model{DTYPES[recipe][1]}.onnx" if target == "onnx" else f"model{SUFFIXES[target]}"


def describe(folder: Path, source: Checkpoint, recipe: str, longest: int) -> None:
    """Write what the clients read beside the model file.

    Args:
        folder: the bundle.
        source: the model, with its tokenizer.
        recipe: of the file.
        longest: tokens that the file takes, which tokenizers are to cut to.
    """
    words = source.tokenizer and replace(source.tokenizer, max_length=longest)
    # Which of the files that there may be is meant.
    browser: dict[str, str | bool] = {"dtype": DTYPES[recipe][0]}
    if (folder / f"{model_file('onnx', recipe)}_data").exists():
        browser["use_external_data_format"] = True
    config = {**source.raw_config, "transformers.js_config": browser}
    replace(source, tokenizer=words, raw_config=config).describe(folder)
    if words:
        named = {role: words.backend.id_to_token(number) for role, number in words.ids.items()}
        (folder / SPECIAL).write_text(json.dumps(named, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
