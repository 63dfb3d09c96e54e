"""Core ML: `export.py` converts, `quantizer.py` rewrites the converted program."""
