"""The kinds of data sets, one file each; a new file here is found by itself, and `config` lists its name."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
