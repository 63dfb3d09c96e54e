"""The command line: `main.py` has the verbs, `render.py` what they print."""
