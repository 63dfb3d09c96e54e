"""ONNX files: `session.py` answers, `file.py` reads and vouches for the file."""
