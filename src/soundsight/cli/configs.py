"""Write the settings files into a folder of your own: all commands, and yolo, then read them there.

soundsight configs                     # configs/train.yaml, configs/spectrogram.yaml, ...
yolo cfg=configs/train.yaml            # trains with them through the stock command
"""

from __future__ import annotations

from pathlib import Path

from soundsight.cli import console
from soundsight.cli.options import Given
from soundsight.config.commands import ConfigsOptions
from soundsight.config.files import packaged_configs
from soundsight.errors import ConfigError
from soundsight.files import write_bytes

OPTIONS = ConfigsOptions


def run(options: ConfigsOptions, given: Given) -> int:
    folder = Path(options.out)
    contents = {folder / file.name: file.read_bytes() for file in sorted(packaged_configs().glob("*.yaml"))}
    changed = [path for path, content in contents.items() if path.exists() and path.read_bytes() != content]
    if changed and not options.overwrite:
        raise ConfigError(f"{changed[0]} is there with other content; keep it, or replace it with --overwrite.")
    for path, content in contents.items():
        write_bytes(path, content)
    console.output(f"Settings files: {', '.join(str(path) for path in contents)}")
    return 0
