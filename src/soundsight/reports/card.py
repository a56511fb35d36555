"""The model card: a page of Markdown beside a trained model that says what it is and what it is not.

After Mitchell et al., Model Cards for Model Reporting (FAccT 2019): data and licence, how it was trained, how
good it is and on what, its limits, how to load it. Nothing is claimed that the run's own files do not say.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from soundsight.backend.compat import LAST, weights_of
from soundsight.datasets.published import Published, datasets
from soundsight.errors import ConfigError
from soundsight.files import read_json, write_text
from soundsight.reports.wording import calibration_lines, detection_lines, seen_message

CARD = "model-card.md"
RUN_FILE = "soundsight.json"  # what a training writes of itself


def write_card(run: str | Path, *, scored: str | Path | None = None) -> Path:
    """Write the card of a trained model.

    Args:
        run: The folder of a training: soundsight.json, weights/.
        scored: A folder that `val` wrote for this model; `None` says that there are no figures yet.

    Returns:
        The card: `model-card.md` in `run`, or `model-card-new.md` beside one that was edited by hand.

    Raises:
        ConfigError: The folder is no training, or the scores are of another model.
    """
    folder = Path(run)
    record = _read(folder / RUN_FILE, "a training of `soundsight train`")
    model = next((p for p in (weights_of(folder, best=best) for best in (False, True)) if p.is_file()), None)
    if model is None:
        raise ConfigError(f"{folder / 'weights'} holds no checkpoint, so there is no model to describe.")
    from soundsight.backend.checkpoint import checkpoint_model, load_checkpoint, short_file_hash

    network = checkpoint_model(load_checkpoint(model))
    preprocessing = getattr(network, "soundsight", None) or {}
    names = list(preprocessing.get("names") or [network.names[i] for i in sorted(network.names)])
    model_hash = short_file_hash(model)
    metrics = _scores(Path(scored), model_hash) if scored else None
    parameters = sum(p.numel() for p in network.parameters())
    sections = [
        f"# Model card: {folder.absolute().name}",
        f"A YOLO image classifier that names {len(names)} kinds of sound from spectrogram pictures, trained "
        f"with Soundsight. {parameters / 1e6:.2f} million parameters; fingerprint of `{model.name}`: "
        f"`{model_hash}`.",
        _data(record, names, folder),
        _protocol(record, preprocessing, model),
        _figures(metrics, model),
        _limits(_published(record, names), names, threshold=bool(preprocessing.get("threshold"))),
        _loading(model, preprocessing),
        _versions(record),
    ]
    text = "\n\n".join(sections) + "\n"
    edited = (folder / CARD).exists() and not _is_as_made((folder / CARD).read_bytes())
    return write_text(folder / ("model-card-new.md" if edited else CARD), text + _stamp(text.encode()).decode())


def _stamp(text: bytes) -> bytes:
    """The last line of a card, by which it is known whether somebody has edited it."""
    return b"\n<!-- as made by soundsight: %b -->\n" % hashlib.sha256(text).hexdigest().encode()


def _is_as_made(card: bytes) -> bool:
    card = card.replace(b"\r\n", b"\n")  # as git may have it
    text = card[: -len(_stamp(b""))]
    return card == text + _stamp(text)


def read_record(last: Path) -> dict[str, Any]:
    """What a training wrote beside its weights when it began; nothing if it was not begun by `train`."""
    try:
        return dict(json.loads((last.absolute().parent.parent / RUN_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _read(path: Path, what: str) -> dict[str, Any]:
    try:
        return dict(read_json(path))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{path} is missing or damaged, so {path.parent} is not {what}.") from error


def _scores(folder: Path, model_hash: str) -> dict[str, Any]:
    metrics = _read(folder / "metrics.json", "a validation of `soundsight val`")
    found = metrics.get("model_fingerprint")
    if found != model_hash:
        raise ConfigError(
            f"{folder} scored the model {found}, but the one to describe is {model_hash}; score this one."
        )
    return metrics


def _published(record: Mapping[str, Any], names: list[str]) -> Published | None:
    """The published data set that a run was trained on; other data in the same layout have other classes."""
    known = datasets().get(str((record.get("dataset") or {}).get("kind")))
    return known if known and known.classes == len(names) else None


def _data(record: Mapping[str, Any], names: list[str], folder: Path) -> str:
    dataset = record.get("dataset") or {}
    listed = ", ".join(name.replace("_", " ") for name in names)
    lines = ["## Data and licence", ""]
    known = _published(record, names)
    bases = [Path.cwd(), *folder.absolute().parents]
    if any((base / str(dataset.get("root", "")) / "demo.json").is_file() for base in bases):
        lines.append("- Sounds synthesised by `soundsight demo`, not recordings: a demonstration only.")
    elif known is not None:
        lines += [f"- {known.title}", f"- Licence: {known.licence}.", f"- Citation: {known.citation}"]
        lines.append("- The model was made from these recordings; their licence may bind its use as well.")
    else:
        lines.append(
            f"- Own data (`{dataset.get('root') or 'pictures of another tool'}`): fill in who recorded it, where, "
            "when, and under which licence."
        )
    lines.append(f"- Fingerprint of recordings, labels and splits: `{record.get('data_fingerprint') or 'unknown'}`.")
    lines.append(f"- Classes ({len(names)}): {listed}.")
    return "\n".join(lines)


def _protocol(record: Mapping[str, Any], preprocessing: Mapping[str, Any], model: Path) -> str:
    arguments, split = record.get("arguments") or {}, (record.get("dataset") or {}).get("split") or {}
    kept = ("model", "epochs", "batch", "imgsz", "optimizer", "lr0", "weight_decay", "seed", "pretrained")
    lines = ["## Protocol", ""]
    if split.get("strategy") == "fold":
        folds = {part: ", ".join(map(str, split.get(part) or ["none"])) for part in ("train", "val", "test")}
        lines.append(
            f"- Split by the data set's own folds: train {folds['train']}; val {folds['val']}; test {folds['test']}."
        )
    elif split:
        lines.append(f"- Split strategy `{split.get('strategy')}`, seed {split.get('seed')}.")
    else:
        lines.append("- How the data were split is not recorded.")
    if model.name == LAST:
        lines.append("- The model is the last epoch: none was chosen by its score.")
    else:
        lines.append("- The epoch was chosen by its score on the split `val`.")
    lines.append("- Training: " + ", ".join(f"{k} {arguments[k]}" for k in kept if k in arguments) + ".")
    augment = record.get("augment")
    listed = ", ".join(f"{k} {v}" for k, v in (augment or {}).items() if v) or "none"
    lines.append(f"- Augmentation: {listed if augment is not None else 'that of `yolo classify train`'}.")
    heard = preprocessing.get("spectrogram") or record.get("spectrogram")
    if heard:
        lines.append(
            f"- Hears {heard['clip_seconds']:g} s at {heard['sample_rate']} Hz, {heard['image_size']} mel bands from "
            f"{heard['fmin_hz']:g} Hz, windows of {', '.join(f'{w:g}' for w in heard['windows_ms'])} ms."
        )
    lines += [f"- {line}" for line in calibration_lines(preprocessing)]
    return "\n".join(lines)


def _figures(metrics: Mapping[str, Any] | None, model: Path) -> str:
    lines = ["## Figures", ""]
    if metrics is None:
        lines.append(f"Not scored yet: `soundsight val {shlex.quote(str(model))} --split test`.")
        return "\n".join(lines)
    low, high = metrics["top1_interval_95"]
    lines += [
        f"On {metrics['clips']:,} clips of the split `{metrics.get('split')}`:",
        "",
        "| top-1 | 95 % interval | top-5 | macro F1 | calibration error |",
        "|---|---|---|---|---|",
        f"| {metrics['top1']:.2%} | {low:.1%} to {high:.1%} | {metrics['top5']:.2%} | {metrics['macro_f1']:.3f} | "
        f"{metrics['ece']:.3f} |",
        "",
        seen_message(metrics.get("seen")),
        "",
        *detection_lines(metrics),
    ]
    worst = sorted(metrics["per_class"], key=lambda row: (row["recall"], row["class"]))[:5]
    named = ", ".join(f"{row['class'].replace('_', ' ')} {row['recall']:.0%}" for row in worst)
    lines.append(f"Classes that it misses most (recall): {named}.")
    return "\n".join(lines)


def _limits(known: Published | None, names: list[str], *, threshold: bool) -> str:
    unsure = ", or with unknown where it is unsure: it" if threshold else " and never with unknown. It"
    lines = [
        "## Limits",
        "",
        f"- It answers every sound with one of its {len(names)} classes{unsure} does not know what it does not know. "
        "`--threshold` sets how sure it must be.",
        "- One class a window: of sounds at the same time it names the one it finds strongest.",
        "- Its figures hold for recordings like those it was scored on; other microphones, rooms and distances "
        "can be far worse. Score it on your own clips before you rely on it.",
        "- It was not tested for alarms, for safety, or for decisions about people.",
    ]
    if known is not None and known.clips // known.classes < 100:
        lines.append(
            f"- {known.clips // known.classes} clips a class are few: differences of a few per cent between classes "
            "are noise."
        )
    return "\n".join(lines)


def _loading(model: Path, preprocessing: Mapping[str, Any]) -> str:
    supplied = "" if preprocessing.get("spectrogram") else " --spectrogram FILE.yaml"
    return "\n".join(
        [
            "## How to load it",
            "",
            "```",
            f"soundsight predict {shlex.quote(f'{model.parent.name}/{model.name}')} clip.wav{supplied}",
            "```",
            "",
            "```python",
            "import soundsight",
            "",
            f'listener = soundsight.load("{model.parent.name}/{model.name}")',
            'print(listener("clip.wav"))',
            "```",
        ]
    )


def _versions(record: Mapping[str, Any]) -> str:
    found = ", ".join(f"{name} {number}" for name, number in (record.get("versions") or {}).items())
    return f"## Versions\n\n{found or 'Not recorded.'}"
