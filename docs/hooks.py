"""What the documentation site takes from the program itself: the help of each command, the table of formats."""

from __future__ import annotations

import argparse
import importlib
import os
from typing import Any

COMMANDS, FORMATS = "<!-- commands -->", "<!-- formats -->"


def command_help() -> str:
    """One section per command, as `soundsight COMMAND --help` prints it at 100 columns."""
    from soundsight import cli

    os.environ["COLUMNS"] = "100"
    sections = []
    for name in cli.available():
        module = importlib.import_module(f"soundsight.cli.{name}")
        parser = argparse.ArgumentParser(
            prog=f"soundsight {name}",
            description=module.SUMMARY,
            epilog="examples:\n" + "\n".join(f"  {line}" for line in module.EXAMPLES),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(parser)
        sections.append(f"## {name}\n\n```text\n{parser.format_help().strip()}\n```\n")
    return "\n".join(sections)


def format_table() -> str:
    """The output formats of `predict`, a row each."""
    from soundsight.inference.formats import FORMATS

    rows = [f"| `{writer.name}` | {writer.purpose} | {writer.content} |" for writer in FORMATS.values()]
    return "\n".join(["| `--format` | for | what it holds |", "|---|---|---|", *rows])


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs for every page."""
    for mark, make in ((COMMANDS, command_help), (FORMATS, format_table)):
        if mark in markdown:
            markdown = markdown.replace(mark, make())
    return markdown
