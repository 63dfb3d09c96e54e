"""From a bundle to an Android app: the built template with the bundle in it, signed, or a project of one's own.

`make.py` first; Java is not needed, for what is done to the template is done to its bytes here: `archive.py` writes the
zip, `manifest.py` and `resources.py` patch the two binary files that name the app, `signature.py` signs with `key.py`.
"""
