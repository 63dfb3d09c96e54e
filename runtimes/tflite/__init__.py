"""TFLite files: `session.py` answers, `layout.py` reads the file."""
