"""Core ML packages: `session.py` answers, `package.py` reads the folder, `mil*.py` evaluate its program."""
