"""ONNX: `export.py` leads; its steps are names, rewrites (rewriter), quantizer (integers)."""
