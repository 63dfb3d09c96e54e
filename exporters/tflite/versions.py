"""The version that an operator with a weight asks for, by which a runtime that is too old refuses the file.

LiteRT does not act on `min_runtime_version`, but opens no file with an operator of a later version than it knows. The
converter gives versions to the float operators that it drew; what became of weights raises some of them. The rules, and
the release of TensorFlow that first knew each version, are those of op_version.cc and runtime_version.cc in
https://github.com/google-ai-edge/LiteRT, tflite/converter/tools/versioning. Two operators get later versions than these
rules ask for, since older runtimes take them and answer wrong:
- fully connected in int8 with a scale for each output, where the rules say 4: TensorFlow Lite 2.9 is 15 dB from torch
  where 2.13 is 37 (SqueezeBERT); of the versions that came between them 10 is opened from 2.13 on;
- fully connected from float with weights in int4, where the rules say 1: LiteRT 2.0 is 2 dB from torch where 2.1 is 20
  (BERT), and 14 came with 2.1.
"""

from typing import Any

import numpy as np

# Types of an operator's input and weight to its version; a scale for each output is meant with all.
VERSIONS: dict[tuple[str, str, str], int] = {
    ("CONV_2D", "FLOAT32", "INT8"): 5,
    ("FULLY_CONNECTED", "INT8", "INT8"): 10,
    ("FULLY_CONNECTED", "FLOAT32", "INT4"): 14,
}

# The release of TensorFlow that first knew a version; 2.21 is LiteRT 2.1. The source has 2.11 for fully connected in
# version 10, but 2.12 does not open it.
RELEASES: dict[tuple[str, int], str] = {
    ("CONV_2D", 5): "2.4.0",
    ("DEQUANTIZE", 5): "2.7.0",
    ("FULLY_CONNECTED", 10): "2.13.0",
    ("FULLY_CONNECTED", 14): "2.21.0",
}
ENTRY = b"min_runtime_version"


def raise_release(model: Any, names: dict[int, str]) -> None:
    """State in a file's metadata the oldest release of TensorFlow that knows all of its operators.

    Args:
        model: the flatbuffer as objects of the runtime's schema, with what the converter stated of what it drew.
        names: an operator's number in the schema to its name.
    """
    used = {operator.opcodeIndex for graph in model.subgraphs for operator in graph.operators}
    codes = (model.operatorCodes[number] for number in used)
    known = [RELEASES.get((names[code.builtinCode], code.version), "") for code in codes]
    for entry in model.metadata or ():
        if entry.name == ENTRY:
            buffer = model.buffers[entry.buffer]
            stated = bytes(buffer.data).rstrip(b"\0").decode()
            newest = max([stated, *filter(None, known)], key=lambda text: [int(part) for part in text.split(".")])
            buffer.data = np.frombuffer(newest.encode(), np.uint8)
