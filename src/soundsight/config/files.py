"""Where settings files are found, in `configs/` where the user works or else inside the package, and their YAML."""

from __future__ import annotations

import platform
import reprlib
from functools import cache
from pathlib import Path
from typing import Any

from soundsight.errors import ConfigError

MOST_VALUES = 10_000  # of a settings file
LARGEST = 1 << 63
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80
_SHORT.maxlevel = 2


@cache
def _loader() -> Any:
    """YAML's safe loader without dates: `name: 2026-01-31` is a text. Imported here, since help needs none."""
    import yaml

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers = {  # noqa: RUF012
            first: [(tag, pattern) for tag, pattern in found if not tag.endswith(":timestamp")]
            for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    return Loader


def find_config(name: str | Path) -> Path:
    """The settings file that a path, or a bare name such as "train.yaml" or "esc50", means."""
    path = Path(name)
    if path.is_file():
        return path
    if (found := _shipped(path)) is None:
        raise ConfigError(f"The settings file {name} does not exist; `soundsight configs` writes those to start from.")
    return found


def is_shipped(name: str) -> bool:
    """Whether a bare name means one of the settings files in `configs/`, even if a folder is called the same."""
    return _shipped(Path(name)) is not None


def _shipped(path: Path) -> Path | None:
    bare = path.name if path.suffix else f"{path.name}.yaml"
    folders = (Path("configs"), packaged_configs())
    return next((f / bare for f in folders if (f / bare).is_file() and path.parent == Path(".")), None)


def packaged_configs() -> Path:
    """The folder of the settings files that come with the package, or lie beside its sources."""
    package = Path(__file__).parents[1]
    return inside if (inside := package / "configs").is_dir() else package.parents[1] / "configs"


def versions() -> dict[str, str]:
    """Versions of what decides a result, for the record."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for package in ("soundsight", "ultralytics", "torch", "librosa", "numpy", "scipy", "soundfile", "soxr"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file that holds one mapping."""
    import yaml

    try:
        data = parse_yaml(Path(path).read_text(encoding="utf-8"), f"The settings file {path}")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ConfigError(f"The settings file {path} cannot be read ({reason}).") from error
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())[:300]
        raise ConfigError(f"The settings file {path} is not valid YAML: {problem}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold `key: value` lines, but it holds a {type(data).__name__}.")
    return data


def parse_yaml(text: str, where: str) -> Any:
    """Plain data of YAML: dates stay texts, and what aliases stand for is counted before anybody writes it out.

    `where` begins the message, such as "The settings file x.yaml".
    """
    import yaml

    try:
        data = yaml.load(text, _loader())
    except RecursionError:
        raise ConfigError(f"{where} is nested too deeply; settings are `key: value` lines.") from None
    except (ValueError, OverflowError) as error:  # a number of 5,000 digits
        raise ConfigError(f"{where} holds a value that cannot be read ({str(error)[:100]}).") from error
    left, count = [data], 0
    while left:
        value, count = left.pop(), count + 1
        if count > MOST_VALUES:
            raise ConfigError(f"{where} stands for more than {MOST_VALUES} values, aliases written out; shorten it.")
        if isinstance(value, dict):
            left += [*value, *value.values()]
        elif isinstance(value, list | tuple | set):
            left += value
        elif isinstance(value, int | float) and not abs(value) <= LARGEST:
            raise ConfigError(f"{where} holds {shown(value)}; a number from -2^63 to 2^63 is allowed.")
    return data


def shown(value: Any) -> str:
    """A value for a message: as Python writes it, but cut."""
    try:
        text = _SHORT.repr(value)
    except ValueError:
        text = "a number of thousands of digits"
    return text if len(text) <= 120 else f"{text[:119]}…"
