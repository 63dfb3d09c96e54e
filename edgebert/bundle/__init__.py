"""The bundle: the folder that an app embeds, written, read, opened, and compared with another.

What most readers need of its format stands here; `manifest.py` defines it.
"""

from edgebert.bundle.manifest import GOLDEN, MANIFEST, NO_APP, SENTENCES, TOKENIZER, Manifest, look, read

__all__ = ["GOLDEN", "MANIFEST", "NO_APP", "SENTENCES", "TOKENIZER", "Manifest", "look", "read"]
