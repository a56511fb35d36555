"""The options of every command, from the fields of its settings classes: `--some-key V`, `some_key=V`, `cfg=FILE`.

A command module's docstring is its help: a summary, and examples. It has `OPTIONS`, the class of its own options. It
may have `SETTINGS`, further classes whose keys it takes as well; `OPEN`, a line of help on keys that it passes on; and
`CHOICES`, the values of an option that a registry knows. `config.option` says what can be declared. `argparse` prints
the help, and `shtab` completes words in a shell, from one parser; reading the words is done here, since neither knows
`key=value`.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import re
import types
import typing
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, is_dataclass
from textwrap import dedent, indent
from typing import Any

from pydantic_core import PydanticUndefined

from soundsight.config import from_dict, unknown_key
from soundsight.config.files import parse_yaml, read_yaml, shown
from soundsight.errors import ConfigError, Renamed

KEY = re.compile(r"([A-Za-z][\w-]*(?:\.[\w-]+)*)=(.*)", re.DOTALL)
NUMBER = re.compile(r"-\.?\d.*|-")
LINE = "the command line"


class UsageError(ConfigError):
    """What was typed is not what the command takes."""


@dataclass(frozen=True)
class Setting:
    """One option, as the command line sees it."""

    owner: type  # the class whose field it is
    path: str  # of the field, with dots below a section
    info: Any  # pydantic's description of the field

    @property
    def key(self) -> str:
        """What users write; a field whose name would be a word of Python ends in `_`."""
        return self.path.rstrip("_")

    @property
    def kinds(self) -> set[type]:
        """The types of its value, with those inside."""
        return _kinds(self.info.annotation)

    @property
    def flag(self) -> str:
        """How it is written with dashes; of a switch that is on, what turns it off."""
        name = self.more("short", self.key)
        return f"--{'no-' if self.info.default is True else ''}{name.replace('_', '-')}"

    @property
    def place(self) -> str:
        """How it is written in a line of usage, where its place says what it is."""
        name = str(self.more("metavar", self.key.upper()))
        return f"{name} ..." if tuple in self.kinds else name if self.info.is_required() else f"[{name}]"

    def more(self, name: str, default: Any = None) -> Any:
        """What else was declared, see `config.option`."""
        return (self.info.json_schema_extra or {}).get(name, default)

    def read(self, text: str) -> Any:
        """The value of a text: as in YAML, unless a text is what the option takes."""
        kinds = self.kinds
        if str in kinds and not (tuple in kinds and text[:1] == "[" and text[-1:] == "]"):
            return None if text == "null" and type(None) in kinds else text
        value = yaml_value(text, self.key)
        return yaml_value(f"[{text}]", self.key) if tuple in kinds and isinstance(value, str) and "," in text else value


@dataclass
class Given:
    """What was typed, by whose setting it is."""

    words: list[str]  # the command and its arguments
    values: dict[type, dict[str, Any]] = field(default_factory=dict)  # of each settings class, by dotted key
    rest: dict[str, Any] = field(default_factory=dict)  # keys that are passed on, such as training arguments

    options: Any = None  # the command's own, validated

    def of(self, cls: type) -> dict[str, Any]:
        """What was typed of a settings class."""
        return self.values.setdefault(cls, {})

    def __getattr__(self, name: str) -> Any:
        return getattr(self.options, name)


class Grammar:
    """What one command takes."""

    def __init__(self, name: str, module: types.ModuleType) -> None:
        self.name, self.module = name, module
        self.classes = (module.OPTIONS, *getattr(module, "SETTINGS", ()))
        self.settings = [setting for cls in self.classes for setting in settings_of(cls)]
        self.open = getattr(module, "OPEN", "")
        self.choices = getattr(module, "CHOICES", {})
        self.names = {name: s for s in self.settings for name in (s.key, s.more("short")) if name}
        self.former = {name: s for s in self.settings for name in s.more("former", ())}  # `--x`: so with dashes only

    def parse(self, words: list[str]) -> Given:
        """The options of a command, validated, and what else was typed."""
        given, loose, files, left = Given([self.name, *words]), [], [], list(words)
        while left:
            word = left.pop(0)
            if word == "--":
                loose += left
                break
            if word.startswith("-") and not NUMBER.fullmatch(word):
                name, setting, values = self._flag(word, left)
            elif (found := KEY.fullmatch(word)) and (self._knows(found[1]) or not os.path.exists(word)):
                name, values = found[1].replace("-", "_"), [found[2]]
                setting = self._find(name, "{}=")
            else:
                loose.append(word)
                continue
            if setting is not None:
                self._set(given, setting, values)
            elif name == "cfg":
                files += values
            elif self.open:
                given.rest[name] = yaml_value(values[0], name)
            else:
                raise self._unknown(name)
        for file in files:
            self._read_file(given, file)
        self._place(given, loose)
        given.options = from_dict(self.module.OPTIONS, given.of(self.module.OPTIONS), where=LINE)
        for key, choices in self.choices.items():
            if (value := getattr(given.options, key)) is not None and value not in choices:
                raise ConfigError(f"{key}={shown(value)} is not allowed: it must be one of {', '.join(choices)}.")
        return given

    def parser(self) -> argparse.ArgumentParser:
        """Prints the help, and tells a shell what can be typed."""
        summary, _, examples = (self.module.__doc__ or "").partition("\n\n")
        places = [s.place for s in self.settings if s.more("positional")]
        parser = argparse.ArgumentParser(
            prog=f"soundsight {self.name}",
            usage=" ".join([f"soundsight {self.name}", *places, "[--some-option V | some_option=V ...]"]),
            description=summary,
            epilog=f"examples:\n{indent(dedent(examples).strip(), '  ')}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        for cls in self.classes:
            group = parser
            if cls is not self.module.OPTIONS:
                group = parser.add_argument_group((cls.__doc__ or "").splitlines()[0].rstrip("."))  # type: ignore
            for setting in settings_of(cls):
                if not setting.more("unlisted"):
                    self._describe(setting, group)
        if self.open:
            parser.add_argument_group("more", self.open)
        parser.add_argument("--debug", action="store_true", help="show tracebacks")
        return parser

    def _describe(self, setting: Setting, group: Any) -> None:
        kinds, default, text = setting.kinds, setting.info.default, setting.info.description or ""
        choices = [*_literals(setting.info.annotation), *self.choices.get(setting.key, ())]
        if default not in (None, (), "", PydanticUndefined) and bool not in kinds and "default" not in text:
            values = default if isinstance(default, tuple) else (default,)
            text += f" (default: {','.join(f'{v:g}' if isinstance(v, float) else str(v) for v in values)})"
        more: dict[str, Any] = {"help": text.replace("%", "%%")}
        positional = setting.more("positional")
        if bool in kinds:
            more["action"] = "store_true"
        elif choices:
            more["choices"] = choices
        if positional or not (bool in kinds or choices):
            name = "N" if int in kinds else "X" if float in kinds else setting.key.upper()
            more["metavar"] = setting.more("metavar") or name
        if positional:
            more["nargs"] = "*" if tuple in kinds else "?"
        action = group.add_argument(setting.key if positional else setting.flag, **more)
        if str in kinds and not choices:
            action.complete = {"bash": "_shtab_compgen_files", "zsh": "_files"}

    def _knows(self, name: str) -> bool:
        name = name.replace("-", "_")
        return bool(self.open) or name in self.names or name in self.former

    def _find(self, name: str, written: str) -> Setting | None:
        """The setting of a name that is `written` as in `--{}`; of a former name, the present one is told."""
        name, dashes = name.replace("-", "_"), written.startswith("--")
        former = self.former.get(f"--{name}") if dashes else None
        setting = former or self.names.get(name)
        if setting is None:
            setting = former = self.former.get(name)
        if former is not None:
            now = former.flag.removeprefix("--").removeprefix("no-") if dashes else former.key
            before = written.format(name.replace("_", "-") if dashes else name)
            warnings.warn(f"{before} is now {former.more('now') or written.format(now)}.", Renamed, stacklevel=2)
        return setting

    def _flag(self, word: str, left: list[str]) -> tuple[str, Setting | None, list[str]]:
        """The name, the setting and the values of an option with dashes; takes what follows from what is `left`."""
        name, equals, text = word.lstrip("-").partition("=")
        name = name.replace("-", "_")
        setting = self._find(name, "--{}")
        if setting is None and name.startswith("no_") and not equals:
            setting, equals, text = self._find(name[3:], "--no-{}"), "=", "false"
            if setting is None or bool not in setting.kinds:
                raise self._unknown(name)
        if not word.startswith("--") or (setting is None and name != "cfg" and not self.open):
            raise self._unknown(name)
        if equals:
            return name, setting, [text]
        if setting is not None and bool in setting.kinds:
            return name, setting, ["true"]
        values: list[str] = []
        several = setting is not None and setting.more("several")
        while left and (several or not values) and (not left[0].startswith("-") or NUMBER.fullmatch(left[0])):
            if (values or setting is None) and KEY.fullmatch(left[0]):
                break
            values.append(left.pop(0))
        if not values and (setting is not None or name == "cfg"):
            raise UsageError(f"{word} needs a value: {word} {setting.more('metavar', 'VALUE') if setting else 'FILE'}.")
        return name, setting, values or ["true"]  # of what is passed on, as `--cos-lr`

    def _set(self, given: Given, setting: Setting, texts: list[str]) -> None:
        values = given.of(setting.owner)
        for text in texts:
            value = setting.read(text)
            if setting.more("several") or setting.more("repeated"):
                value = [*values.get(setting.path, []), *(value if isinstance(value, list) else [value])]
            values[setting.path] = value

    def _read_file(self, given: Given, file: str) -> None:
        """Add what a file says and the words do not."""

        def flat(data: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
            for key, value in data.items():
                inside = isinstance(value, dict) and f"{above}{key}" not in self.names
                yield from flat(value, f"{above}{key}.") if inside else [(f"{above}{key}", value)]

        for key, value in flat(read_yaml(file)):
            if (setting := self._find(key, "{}:")) is not None:
                given.of(setting.owner).setdefault(setting.path, value)
            elif self.open:
                given.rest.setdefault(key, value)
            else:
                raise self._unknown(key, file)

    def _place(self, given: Given, loose: list[str]) -> None:
        """Give words without a name to the options that take them by their place."""
        for setting in (s for s in self.settings if s.more("positional")):
            values = given.of(setting.owner)
            if setting.path in values:
                continue
            if tuple in setting.kinds:
                values[setting.path], loose = loose, []
            elif loose:
                values[setting.path] = loose.pop(0)
            elif setting.info.is_required():
                raise UsageError(f"{setting.key.upper()} is missing: {setting.info.description}.")
        if loose:
            raise UsageError(f"{shown(loose[0])} is not understood; settings are written key=value or --key value.")

    def hint(self, message: str, given: Given) -> str:
        """How a key that was passed on in vain may have been meant, if as an option of the command itself."""
        for key in given.rest:
            close = difflib.get_close_matches(key, self.names, n=1, cutoff=0.75)
            if close and f"Unknown key {shown(key)}" in message:
                return f" Or did you mean {self.names[close[0]].flag}?"
        return ""

    def _unknown(self, name: str, where: str = LINE) -> UsageError:
        return UsageError(unknown_key(name, self.names, where))


def grammar_of(name: str) -> Grammar:
    """What a command takes."""
    return Grammar(name, importlib.import_module(f"soundsight.cli.{name}"))


def settings_of(cls: type, above: str = "") -> Iterator[Setting]:
    """The options that a settings class declares."""
    for name, info in cls.__pydantic_fields__.items():  # type: ignore[attr-defined]
        if is_dataclass(info.annotation):
            for inner in settings_of(info.annotation, f"{above}{name}."):  # type: ignore[arg-type]
                yield Setting(cls, inner.path, inner.info)
        elif not (info.json_schema_extra or {}).get("hidden"):
            yield Setting(cls, f"{above}{name}", info)


def yaml_value(text: str, key: str) -> Any:
    """A value as in YAML (`0.1`, `true`, `[1, 2]`, `null`); `1e-3` is a number, which YAML 1.1 reads as a text."""
    import yaml

    if re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", text):
        return float(text)
    try:
        return parse_yaml(text, f"{key[:40]}=...") if text else None
    except yaml.YAMLError:
        return text


def _kinds(annotation: Any) -> set[type]:
    inner = typing.get_args(annotation)
    match typing.get_origin(annotation):
        case None:
            return {annotation} if isinstance(annotation, type) else set()
        case typing.Literal:
            return {str}
        case typing.Annotated:
            return _kinds(inner[0])
        case origin:
            own: set[type] = set() if origin in (typing.Union, types.UnionType) else {origin}
            return own.union(*map(_kinds, inner))


def _literals(annotation: Any) -> list[str]:
    return [choice for choice in typing.get_args(annotation) if isinstance(choice, str)]
