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
    bare = path.name if path.suffix else f"{path.name}.yaml"
    here = Path(__file__).parent
    for folder in (Path("configs"), here / "configs", here.parents[1] / "configs"):
        if (folder / bare).is_file() and path.parent == Path("."):
            return folder / bare
    raise ConfigError(f"The settings file {name} does not exist; configs/ holds the ones to start from.")


def versions() -> dict[str, str]:
    """Versions of what decides a result, for the record."""
    found = {"python": platform.python_version()}
    for package in ("soundsight", "ultralytics", "torch", "librosa", "numpy", "scipy", "soundfile", "soxr"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
