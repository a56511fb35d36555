"""Output formats of predictions, one file per format; a new file here is found by itself.

Command-line choices, endings of `--out`, the table in the docs and the tests are made from `FORMATS`.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from soundsight.inference.formats.base import Writer

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

FORMATS: dict[str, type[Writer]] = {writer.name: writer for writer in Writer.__subclasses__()}
BY_ENDING = {ending: writer for writer in FORMATS.values() for ending in writer.endings}
