"""Keep the pictures that android_demo/README.md shows, as the app's tests drew them, in few colours and so few bytes.

After `python -m pytest tests/android_demo/test_app.py`, which draws all of them, this takes those that are named there.
"""

import re
from pathlib import Path

from PIL import Image

DEMO = Path(__file__).resolve().parent.parent / "android_demo"
COLOURS = 96


def keep(name: str) -> None:
    """Write one picture of the last run of the tests to where README finds it."""
    drawn = Image.open(DEMO / "build" / "screenshots" / name).convert("RGB")
    few = drawn.quantize(COLOURS, dither=Image.Dither.NONE)
    few.save(DEMO / "screenshots" / name, optimize=True)


if __name__ == "__main__":
    (DEMO / "screenshots").mkdir(exist_ok=True)
    shown = set(re.findall(r"screenshots/([\w-]+\.png)", (DEMO / "README.md").read_text()))
    for old in (DEMO / "screenshots").glob("*.png"):
        if old.name not in shown:
            old.unlink()
    for name in sorted(shown):
        keep(name)
