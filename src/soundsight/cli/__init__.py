"""The command line: the only package that parses arguments, prints and exits.

Each command is a module here with `OPTIONS` (see `options`) and `run(options, given) -> exit code`. Only the module of
the command that was asked for is imported, so help is instant.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from soundsight import __version__, interrupts, logs
from soundsight.errors import ConfigError, Renamed, SoundsightError, did_you_mean
from soundsight.files import printable

if TYPE_CHECKING:
    from soundsight.cli.options import Grammar

MESSAGE = 4000  # characters at most
# name: one line for `soundsight --help`; the module has the same name (with `_` for `-`)
COMMANDS = {
    "demo": "synthesise sounds, train on them, predict one: the whole way in minutes",
    "download": "fetch ESC-50 or UrbanSound8K, checked",
    "configs": "write the settings files into this folder, to be changed",
    "prepare": "render recordings as images and lay them out for training",
    "inspect": "look at a data set before training on it",
    "train": "train a classifier on the images",
    "val": "score a model on a split: figures, tables, confusion matrices",
    "crossval": "train and score all folds: the true score",
    "tune": "search for better training settings, on a cluster or here",
    "predict": "predict what is in recordings, and when",
    "clips": "cut what was detected out of recordings, as sound files",
    "review": "check what was detected, by keyboard in a page; annotations and thresholds from it",
    "activity": "count detections by hour and day, as a table and a figure",
    "score": "score predictions against annotated recordings",
    "listen": "classify a microphone, live",
    "embed": "write one vector per segment, for search and clustering",
    "export": "convert a model to ONNX, OpenVINO, TorchScript, ...",
    "explain": "show which parts of a sound spoke for a class",
    "report": "make one page of a validation or cross-validation",
    "serve": "open the web page and the JSON service",
    "info": "show versions, processors, GPU and codecs, for a bug report",
    "completion": "print what makes bash or zsh complete commands and options",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line: 0 on success, 2 on a usage or configuration error, 1 when some input failed."""
    _fill_gaps()
    try:
        with interrupts.terminable():
            code = _dispatch(list(sys.argv[1:] if argv is None else argv))
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except BrokenPipeError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return 0
    except KeyboardInterrupt as stop:
        print("soundsight: stopped.", file=sys.stderr)
        return 143 if isinstance(stop, interrupts.Terminated) else 130


def _fill_gaps() -> None:
    """What a bare environment lacks: open standard streams, whose numbers other files would get, and a home."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
    if os.path.expanduser("~") == "~":  # no HOME, and a user without a name
        import atexit
        import shutil
        import tempfile

        os.environ["HOME"] = tempfile.mkdtemp(prefix="soundsight-home-")
        atexit.register(shutil.rmtree, os.environ["HOME"], ignore_errors=True)


def available() -> list[str]:
    """Commands whose module is there."""
    return [name for name in COMMANDS if importlib.util.find_spec(f"soundsight.cli.{name}")]


def _dispatch(words: list[str]) -> int:
    command = next((word for word in words if not word.startswith("-")), None)
    if command not in available():
        return _top_level(words, command)
    from soundsight.cli.options import grammar_of

    grammar = grammar_of(command)
    words.remove(command)
    own = words[: words.index("--")] if "--" in words else words
    if "-h" in own or "--help" in own:
        print(grammar.parser().format_help(), end="")
        return 0
    if debug := "--debug" in own:
        words.remove("--debug")
    usual = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *more: Any) -> None:
        if category is Renamed:
            _say(str(message))
        else:
            usual(message, category, *more)

    with warnings.catch_warnings():
        warnings.simplefilter("always", Renamed)
        warnings.showwarning = show  # type: ignore[assignment]
        try:
            with logs.sent_to(lambda text: print(printable(text), file=sys.stderr, flush=True)):
                return _run(grammar, words)
        except SoundsightError as error:
            if debug:
                raise
            _say(str(error))
            return error.exit_code
        except BrokenPipeError:
            raise
        except OSError as error:
            if debug:
                raise
            where = f" ({error.filename})" if error.filename else ""
            _say(f"The system refused: {error.strerror or error}{where}.")
            return 1


def _run(grammar: Grammar, words: list[str]) -> int:
    from soundsight.cli.options import UsageError

    try:
        given = grammar.parse(words)
    except UsageError as error:
        raise UsageError(f"{error} `soundsight {grammar.name} --help` explains.") from None
    try:
        return int(grammar.module.run(given.options, given))
    except ConfigError as error:
        if hint := grammar.hint(str(error), given):
            raise ConfigError(f"{error}{hint}") from error
        raise


def _say(message: str) -> None:
    text = printable(message)
    text = text if len(text) <= MESSAGE else f"{text[: MESSAGE // 2]} … {text[-MESSAGE // 2 :]}"
    print(f"soundsight: {text}", file=sys.stderr)


def _top_level(words: Sequence[str], command: str | None) -> int:
    if "--version" in words:
        print(f"soundsight {__version__}")
        return 0
    listing = "\n".join(f"  {name:10} {COMMANDS[name]}" for name in available())
    text = (
        "usage: soundsight COMMAND [arguments] [key=value ...]\n\n"
        "Teach a vision model to hear: recordings become spectrogram images, images train YOLO.\n\n"
        f"commands:\n{listing}\n\n"
        "`soundsight COMMAND --help` explains a command by example; `soundsight --version` tells the version."
    )
    if command is None and ("-h" in words or "--help" in words or not words):
        print(text)
        return 0
    wanted = command or words[0]
    hint = did_you_mean(wanted, available(), f" Commands: {', '.join(available())}.")
    _say(f"There is no command {wanted!r}.{hint}")
    return 2
