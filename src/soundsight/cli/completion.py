"""Print what makes a shell complete commands, options and their values.

soundsight completion bash > ~/.local/share/bash-completion/completions/soundsight
soundsight completion zsh > ~/.zfunc/_soundsight    # a folder of $fpath
"""

from __future__ import annotations

import argparse

from soundsight.cli import COMMANDS, available
from soundsight.cli.options import Given, grammar_of
from soundsight.config.commands import CompletionOptions

OPTIONS = CompletionOptions


def run(options: CompletionOptions, given: Given) -> int:
    import shtab

    parser = argparse.ArgumentParser(prog="soundsight")
    commands = parser.add_subparsers()
    for name in available():
        own = grammar_of(name).parser()
        commands.add_parser(name, help=COMMANDS[name], parents=[own], add_help=False)
    print(shtab.complete(parser, options.shell))
    return 0
