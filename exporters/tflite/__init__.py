"""TFLite: `export.py` leads; its steps are draft, ranges, weights, pack."""
