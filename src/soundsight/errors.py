"""The exceptions that Soundsight raises on purpose.

Every one of them carries a single sentence for the user: what was found, what is allowed, what to do
next. The command line prints that sentence and exits with `exit_code`; nothing here imports anything.
"""


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
    """Work finished, but some inputs failed; the sentence says how many and where they are listed."""
