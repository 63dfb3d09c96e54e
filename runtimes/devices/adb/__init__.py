"""Phones over adb: `device.py` measures, by `client.py`, on what `phone.py` knows, with what `payload.py` carries."""
