"""ExecuTorch: `export.py` leads; its steps are fx_rewrites, translate (weights, graph), program."""
