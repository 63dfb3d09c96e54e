"""What every test stands on: the network is off, and torch keeps to one thread so that runs repeat."""

import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).parent))
