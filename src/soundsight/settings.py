"""Where settings files are found: in `configs/` where the user works, or else inside the package."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from soundsight.errors import ConfigError


def find_config(name: str | Path) -> Path:
    """The settings file to use.

    Args:
        name: A path, or a bare name such as "train.yaml" or "esc50".

    Raises:
        ConfigError: There is no such file.
    """
    path = Path(name)
    if path.is_file():
        return path
    if (found := _shipped(path)) is None:
        raise ConfigError(f"The settings file {name} does not exist; configs/ holds the ones to start from.")
    return found


def is_shipped(name: str) -> bool:
    """Whether a bare name means one of the settings files in `configs/`, even if a folder is called the same."""
    return _shipped(Path(name)) is not None


def _shipped(path: Path) -> Path | None:
    bare = path.name if path.suffix else f"{path.name}.yaml"
    here = Path(__file__).parent
    folders = (Path("configs"), here / "configs", here.parents[1] / "configs")
    return next((f / bare for f in folders if (f / bare).is_file() and path.parent == Path(".")), None)


def versions() -> dict[str, str]:
    """Versions of what decides a result, for the record."""
    found = {"python": platform.python_version()}
    for package in ("soundsight", "ultralytics", "torch", "librosa", "numpy", "scipy", "soundfile", "soxr"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
