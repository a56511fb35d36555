"""`soundsight completion`."""

from __future__ import annotations

import argparse

from soundsight.cli import COMMANDS, available
from soundsight.cli.options import Given, grammar_of
from soundsight.config.commands import CompletionOptions

OPTIONS = CompletionOptions
SUMMARY = "Print what makes a shell complete commands, options and their values."
EXAMPLES = [
    "soundsight completion bash > ~/.local/share/bash-completion/completions/soundsight",
    "soundsight completion zsh > ~/.zfunc/_soundsight    # a folder of $fpath",
]


def run(options: CompletionOptions, given: Given) -> int:
    """Print it."""
    import shtab

    parser = argparse.ArgumentParser(prog="soundsight")
    commands = parser.add_subparsers()
    for name in available():
        own = grammar_of(name).parser()
        commands.add_parser(name, help=COMMANDS[name], parents=[own], add_help=False)
    print(shtab.complete(parser, options.shell))
    return 0
