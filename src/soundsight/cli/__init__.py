"""The command line: the only package that parses arguments, prints and exits.

Each command is a module here with `SUMMARY`, `EXAMPLES`, `add_arguments(parser)` and `run(arguments) ->
exit code`. Only the module of the command that was asked for is imported, so help is instant.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import NoReturn

from soundsight import __version__, interrupts, logs
from soundsight.errors import SoundsightError, did_you_mean
from soundsight.files import printable

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
    "listen": "classify a microphone, live",
    "embed": "write one vector per segment, for search and clustering",
    "export": "convert a model to ONNX, OpenVINO, TorchScript, ...",
    "explain": "show which parts of a sound spoke for a class",
    "report": "make one page of a validation or cross-validation",
    "serve": "open the web page and the JSON service",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0 on success, 2 on a usage or configuration error, 1 when some input failed.
    """
    _fill_gaps()
    try:
        with nullcontext() if _is_child() else interrupts.terminable():
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
        if not _is_child():
            print("soundsight: stopped.", file=sys.stderr)
        return 143 if isinstance(stop, interrupts.Terminated) else 130
    finally:
        if _is_child():
            from soundsight.cluster import supervise

            supervise.finished()


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


def _is_child() -> bool:
    """Whether a command of a cluster started this process to do its work; see `cluster.supervise`."""
    return "SOUNDSIGHT_ENGINE_CHILD" in os.environ


def _dispatch(words: list[str]) -> int:
    command = next((word for word in words if not word.startswith("-")), None)
    if command not in available():
        return _top_level(words, command)
    module = importlib.import_module(f"soundsight.cli.{command}")
    parser = _Parser(
        prog=f"soundsight {command}",
        description=module.SUMMARY,
        epilog="examples:\n" + "\n".join(f"  {line}" for line in module.EXAMPLES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    module.add_arguments(parser)
    words.remove(command)
    parser.words = words
    try:
        arguments = parser.parse_intermixed_args(words)  # options and settings in any order
    except SystemExit as stop:
        return int(stop.code or 0)
    arguments.words = [command, *words]  # for a command that starts itself again
    return _guarded(module.run, arguments)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one message, and how the nearest thing is written."""

    words: Sequence[str] = ()  # of the command line

    def error(self, message: str) -> NoReturn:
        if found := re.match(r"unrecognized arguments: -*([^\s=]+)", message):
            message += f".{self._hint(found[1])}"
        text = f"{message[:1].upper()}{message[1:]}".rstrip(".?") + ("?" if message.endswith("?") else ".")
        self.exit(2, f"soundsight: {printable(text)} `{self.prog} --help` explains.\n")

    def _hint(self, name: str) -> str:
        """How an option that does not exist may have been meant."""
        options = [text for text in self._option_string_actions if text.startswith("--")]
        close = difflib.get_close_matches(f"--{name}", options, n=1, cutoff=0.75)
        if close and (f"--{name}" == close[0] or not any(action.dest == "settings" for action in self._actions)):
            return f" Did you mean {close[0]}?"
        if not any(action.dest == "settings" for action in self._actions):
            return ""
        given = re.search(rf"(?:^|\0)--{re.escape(name)}[=\0]([^-\0][^\0]*)", "\0".join(self.words))
        setting = f"{name.replace('-', '_')}={given[1] if given else 'VALUE'}"
        return f" Settings are written without dashes: {setting}." + (f" Or did you mean {close[0]}?" if close else "")


def available() -> list[str]:
    """Commands whose module is there."""
    return [name for name in COMMANDS if importlib.util.find_spec(f"soundsight.cli.{name}")]


def key_values(words: Sequence[str]) -> dict[str, object]:
    """Turn `key=value` words into settings; values are read as YAML (`0.1`, `true`, `[1, 2]`, `null`).

    Raises:
        ConfigError: A word is not of this form.
    """
    import yaml

    from soundsight.config.files import parse_yaml, shown
    from soundsight.errors import ConfigError

    settings: dict[str, object] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise ConfigError(f"{shown(word)} is not understood; settings are written key=value, such as epochs=50.")
        try:
            settings[key] = parse_yaml(value, f"{key[:40]}=...") if value else None
        except yaml.YAMLError:
            settings[key] = value
        if isinstance(settings[key], str):
            settings[key] = _number(value)
    return settings


def _number(text: str) -> object:
    """`1e-3` as a number, which YAML 1.1 reads as a text for want of a point."""
    return float(text) if re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", text) else text


def _guarded(run: object, arguments: argparse.Namespace) -> int:
    try:
        with logs.sent_to(lambda text: print(printable(text), file=sys.stderr, flush=True)):
            return run(arguments)  # type: ignore[operator, no-any-return]
    except SoundsightError as error:
        if arguments.debug:
            raise
        text = printable(str(error))
        text = text if len(text) <= MESSAGE else f"{text[: MESSAGE // 2]} … {text[-MESSAGE // 2 :]}"
        print(f"soundsight: {text}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        raise
    except OSError as error:
        if arguments.debug:
            raise
        where = f" ({error.filename})" if error.filename else ""
        print(f"soundsight: The system refused: {error.strerror or error}{where}.", file=sys.stderr)
        return 1


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
    print(f"soundsight: There is no command {wanted!r}.{hint}", file=sys.stderr)
    return 2
