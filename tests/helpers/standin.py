"""Stands in for what a worker of a sweep does with a cell, which takes minutes: it sleeps, and says who did it."""

import os
import time
from dataclasses import asdict
from typing import Any

from edgebert.sweep.records import DONE, Record


def nap(told: dict[str, Any], memory: int | None) -> dict[str, Any]:
    """A quarter of a second of nothing."""
    time.sleep(0.25)
    return at_once(told, memory)


def at_once(told: dict[str, Any], memory: int | None) -> dict[str, Any]:
    """Nothing at all."""
    return asdict(Record(told["key"], told["model"], told["target"], told["recipe"], DONE, machine=str(os.getpid())))


def deadly(told: dict[str, Any], memory: int | None) -> dict[str, Any]:
    """What takes its worker with it, in one of the cells."""
    if told["recipe"] == "w8":
        os._exit(1)
    return at_once(told, memory)
