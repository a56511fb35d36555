"""What the documentation site takes from the program itself: the help of each command, the table of formats."""

from __future__ import annotations

import dataclasses
import html
import json
import os
import typing
from typing import Any

COMMANDS, FORMATS = "<!-- commands -->", "<!-- formats -->"


def command_help() -> str:
    """One section per command, as `soundsight COMMAND --help` prints it at 100 columns."""
    from soundsight import cli
    from soundsight.cli.options import grammar_of

    os.environ["COLUMNS"] = "100"
    sections = []
    for name in cli.available():
        text = grammar_of(name).parser().format_help().strip()
        sections.append(f"## {name}\n\n```text\n{text}\n```\n")
    return "\n".join(sections)


def format_table() -> str:
    """The output formats of `predict`, a row each."""
    from soundsight.inference.formats import FORMATS

    rows = [f"| `{writer.name}` | {writer.purpose} | {writer.content} |" for writer in FORMATS.values()]
    return "\n".join(["| `--format` | for | what it holds |", "|---|---|---|", *rows])


def settings_tables() -> str:
    """One table per settings class: key, default, allowed values, meaning."""
    from soundsight import config

    sections = []
    for name, cls in {
        "spectrogram.yaml": config.SpectrogramConfig,
        "esc50.yaml": config.DatasetConfig,
        "Section split": config.SplitConfig,
        "augment.yaml": config.AugmentConfig,
        "cluster.yaml": config.ClusterConfig,
    }.items():
        rows = [
            f"## {name}\n\n{cls.__doc__.splitlines()[0]}\n\n| key | default | allowed | meaning |\n|---|---|---|---|"
        ]
        for key, field in cls.__pydantic_fields__.items():
            value = getattr(cls(), key)
            choices = [repr(choice) for choice in typing.get_args(field.annotation) if isinstance(choice, str)]
            allowed = ", ".join(choices) or " to ".join(f"{end:,g}" for end in config.allowed_range(field))
            default = "see below" if dataclasses.is_dataclass(value) else f"`{json.dumps(value)}`"
            meaning = html.escape(field.description or "", quote=False)
            rows.append(f"| `{key}` | {default} | {allowed} | {meaning} |")
        sections.append("\n".join(rows) + "\n")
    return "\n".join(sections)


PARTS = {COMMANDS: command_help, FORMATS: format_table, "<!-- settings -->": settings_tables}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs for every page."""
    for mark, part in PARTS.items():
        if mark in markdown:
            markdown = markdown.replace(mark, part())
    return markdown
