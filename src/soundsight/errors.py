"""The exceptions that Soundsight raises on purpose, and the checks that many of them come from.

Each carries one message for the user: what was found, what is allowed, what to do next. The command line
prints it and exits with `exit_code`.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence


class SoundsightError(Exception):
    """Root of all errors that Soundsight raises on purpose."""

    exit_code = 1


class ConfigError(SoundsightError):
    """A setting, an argument or a file that the user named is not usable as it stands."""

    exit_code = 2


class AudioError(SoundsightError):
    """One recording cannot be read; others may be fine."""


class DatasetError(ConfigError):
    """A data set as a whole (its root, its table, its folds) is not usable."""


class ModelError(ConfigError):
    """A checkpoint or an exported model is missing, unsafe, or lacks its spectrogram settings."""


class InputsFailed(SoundsightError):
    """Work finished, but some inputs failed; the message says how many and where they are listed."""


def check_range(name: str, value: float, low: float, high: float, unit: str = "") -> None:
    """Raise `ConfigError` unless `value` lies between `low` and `high`, both included."""
    if not low <= value <= high:
        raise ConfigError(f"{name}={value:g}{unit} is out of range: {low:g} to {high:g}{unit} is allowed.")


def did_you_mean(given: str, known: Sequence[str], otherwise: str = "") -> str:
    """The end of a message about a name that does not exist: the nearest one that does, or `otherwise`."""
    close = difflib.get_close_matches(given, known, n=1)
    return f" Did you mean {close[0]!r}?" if close else otherwise


class Renamed(DeprecationWarning):
    """A former name was used; it goes on working for one release."""
