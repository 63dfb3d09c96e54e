"""ExecuTorch programs: `session.py` answers, `program.py` reads the file by `flatbuffer.py`."""
