"""An app onto the phone that is attached."""

from pathlib import Path

from edgebert.errors import InputError
from edgebert.runtimes.devices.adb import client as adb
from edgebert.runtimes.devices.adb.client import Client

# What Android calls its reasons, and what to do.
REASONS = {
    "INSTALL_FAILED_UPDATE_INCOMPATIBLE": "an app of this id and another key is there: remove it, or give --id",
    "INSTALL_FAILED_NO_MATCHING_ABIS": "the app has no libraries for this phone's processor",
    "INSTALL_FAILED_OLDER_SDK": "its Android is older than the app takes",
    "INSTALL_FAILED_INSUFFICIENT_STORAGE": "its disk is full: free some of it",
    "INSTALL_FAILED_USER_RESTRICTED": "it allows no installing over USB: see its developer options",
}


def phone() -> Client:
    """The phone that is attached; ANDROID_SERIAL names one of several.

    Raises:
        MissingDependency: there is no adb, or no phone that lets this machine in.
        InputError: there are several.
    """
    return adb.find(None)


def install(client: Client, apk: Path) -> str:
    """Install an app, also over an older one of its id and key.

    Returns:
        The phone: its serial number and model.

    Raises:
        InputError: the phone does not take it.
        MissingDependency: the phone went away.
    """
    model = client.shell("getprop ro.product.model", "asking what it is").out.strip()
    told = client.install(apk)
    if told.code:
        reason = next((f"{name}: {advice}" for name, advice in REASONS.items() if name in told.err), told.last)
        raise InputError(f"{client.serial} did not take {apk}: {reason}.")
    return f"{client.serial} ({model})" if model else client.serial
