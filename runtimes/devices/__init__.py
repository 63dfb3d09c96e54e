"""Devices: this host, a simulated Pixel, a real phone. One guest script runs a model file on each; see device.py.

A module of a device has `names() -> tuple[str, ...]`, what it can be called, and `open(name) -> Device`.
"""

import re
from types import ModuleType

from edgebert.errors import InputError
from edgebert.runtimes.devices import host
from edgebert.runtimes.devices.adb import device as adb
from edgebert.runtimes.devices.device import Device
from edgebert.runtimes.devices.pixel import device as pixel

# By the first word of a device's name: `pixel-4`, `adb:SERIAL`.
DEVICES: dict[str, ModuleType] = {"host": host, "pixel": pixel, "adb": adb}


def device_names() -> tuple[str, ...]:
    """All names that devices have here."""
    return tuple(name for module in DEVICES.values() for name in module.names())


def open_device(name: str) -> Device:
    """The device of a name such as `host`, `pixel-4`; InputError names the known ones."""
    module = DEVICES.get(re.split("[-:]", name)[0])
    if module is None or (":" not in name and name not in module.names()):
        raise InputError(f"no device {name!r}; there are {', '.join(device_names())}.")
    device: Device = module.open(name)
    return device
