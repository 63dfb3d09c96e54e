"""Devices: this host, a simulated Pixel, a real phone. One guest script runs a model file on each; see device.py.

A module of a device has `names() -> tuple[str, ...]`, what it can be called, and `open(name) -> Device`.
"""

from types import ModuleType

from edgebert.errors import InputError
from edgebert.runtimes.devices import host
from edgebert.runtimes.devices.adb import device as adb
from edgebert.runtimes.devices.device import Device
from edgebert.runtimes.devices.pixel import device as pixel

# Each kind of device; a module knows its own names.
DEVICES: dict[str, ModuleType] = {"host": host, "pixel": pixel, "adb": adb}


def device_names() -> tuple[str, ...]:
    """All names that devices have here."""
    return tuple(name for module in DEVICES.values() for name in module.names())


def open_device(name: str) -> Device:
    """The device of a name such as `host`, `pixel-4`; InputError names the known ones."""
    # `adb:SERIAL` is one of several that go by `adb`.
    module = next((one for one in DEVICES.values() if name.partition(":")[0] in one.names()), None)
    if module is None:
        raise InputError(f"no device {name!r}; there are {', '.join(device_names())}.")
    device: Device = module.open(name)
    return device
