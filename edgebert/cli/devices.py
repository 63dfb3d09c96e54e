"""The verbs `profile` and `device` of the command line."""

import argparse
import csv
import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from edgebert.catalog import known
from edgebert.cli import render
from edgebert.errors import InputError
from edgebert.profiling import fastest, plot
from edgebert.profiling.profile import profile as measure
from edgebert.profiling.rows import apart
from edgebert.profiling.subject import readiness
from edgebert.runtimes.devices import device_names, open_device
from edgebert.runtimes.devices.device import Device
from edgebert.runtimes.devices.pixel import sandbox, setup

Stop = Callable[[], bool]


def profile(arguments: argparse.Namespace, stop: Stop) -> int:
    """Time model files on devices."""
    if arguments.list_devices:
        return _list(arguments.json)
    if arguments.plot:
        plot.check(arguments.plot)
    if arguments.csv and arguments.json:
        raise InputError("--csv and --json: ask for one of them.")
    with render.Steps(0, arguments.json, stop) as steps:
        steps("look at the files")
        found = measure(
            arguments.files, arguments.device, arguments.lengths, arguments.threads, arguments.runs,
            arguments.per_op, arguments.extrapolate_layers, arguments.target, arguments.recipe, arguments.calibrate,
            arguments.shared, arguments.inputs, arguments.phone, steps,
        )  # fmt: skip
    if arguments.json:
        print(json.dumps(found.to_dict()))
    elif arguments.csv:
        rows = found.flat()
        table = csv.DictWriter(sys.stdout, rows[0])
        table.writeheader()
        table.writerows(rows)
    else:
        render.profile(apart(found.rows))
        for file in dict.fromkeys(row.file for row in found.rows) if arguments.phone else ():
            choices = fastest.rank([row for row in found.rows if row.file == file])
            render.choices(choices)
            print(f"next: edgebert export {shlex.quote(file)} --target {arguments.target} --for {arguments.phone}")
        for row in found.rows if arguments.per_op else ():
            render.hottest(row)
        for told in found.operators:
            render.operators(told)
        for one in found.calibrations:
            print(f"kept: {one}")
    if arguments.plot:
        plot.draw(apart(found.rows), arguments.plot)
        if not (arguments.json or arguments.csv):
            print(f"drew {arguments.plot}")
    return 0


def device(arguments: argparse.Namespace, stop: Stop) -> int:
    """List devices, or set one up."""
    if arguments.action == "list":
        return _list(arguments.json)
    known("device to set up", arguments.name or "", ["pixel"])
    with render.Steps(0, arguments.json, stop) as steps:
        box = setup.setup(steps, sysroot=Path(arguments.sysroot) if arguments.sysroot else None)
    if arguments.json:
        told = {"sandbox": sandbox.folder(), "qemu": box.qemu, "system": box.system, "python": box.python}
        print(json.dumps({key: str(value) for key, value in told.items()}))
    else:
        print("next: edgebert profile FILE --device pixel-4")
    return 0


def _list(as_json: bool) -> int:
    rows = [(one.name, one.how, _lacks(one)) for one in map(open_device, device_names())]
    if as_json:
        print(json.dumps([{"device": name, "how": how, "missing": missing} for name, how, missing in rows]))
    else:
        states = [(name, how, readiness(todo)) for name, how, todo in rows]
        render.table(("device", "numbers are", "state"), states)
    return 0


def _lacks(device: Device) -> str | None:
    """What is to be done before a device can be used; None where it is ready."""
    try:
        return device.missing()
    except InputError as error:
        return str(error)
