"""The model card: a page of Markdown beside a trained model that says what it is and what it is not.

After Mitchell et al., Model Cards for Model Reporting (FAccT 2019): data and licence, how it was trained, how
good it is and on what, its limits, how to load it. Nothing is claimed that the run's own files do not say.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from soundsight.backend.compat import LAST, weights_of
from soundsight.datasets.published import Published, datasets
from soundsight.errors import ConfigError
from soundsight.files import read_json, write_text
from soundsight.reports.templating import render_template
from soundsight.reports.wording import calibration_lines, detection_lines, seen_message, threshold_lines, timed_lines

CARD = "model-card.md"
TRAINING = ("model", "epochs", "batch", "imgsz", "optimizer", "lr0", "weight_decay", "seed", "pretrained")
RUN_FILE = "soundsight.json"  # what a training writes of itself


def write_card(run: str | Path, *, scored: str | Path | None = None) -> Path:
    """Write the card of a trained model: `model-card.md` in the folder of its training.

    Args:
        run: The folder of a training: soundsight.json, weights/.
        scored: A folder that `val` wrote for this model; `None` says that there are no figures yet.

    Returns:
        The card; `model-card-new.md` beside one that was edited by hand.
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
    dataset = record.get("dataset") or {}
    arguments = record.get("arguments") or {}
    bases = [Path.cwd(), *folder.absolute().parents]
    text = render_template(
        "model-card.md",
        name=folder.absolute().name,
        model=model,
        model_path=shlex.quote(str(model)),
        short_path=shlex.quote(f"{model.parent.name}/{model.name}"),
        model_hash=model_hash,
        parameters=sum(p.numel() for p in network.parameters()),
        names=names,
        record=record,
        dataset=dataset,
        synthesised=any((base / str(dataset.get("root", "")) / "demo.json").is_file() for base in bases),
        published=_published(record, names),
        split=dataset.get("split") or {},
        last=model.name == LAST,
        training=[f"{key} {arguments[key]}" for key in TRAINING if key in arguments],
        augment=[f"{key} {value}" for key, value in (record.get("augment") or {}).items() if value],
        spectrogram=preprocessing.get("spectrogram") or record.get("spectrogram"),
        own_spectrogram="spectrogram" in preprocessing,
        calibration=calibration_lines(preprocessing),
        thresholds=threshold_lines(preprocessing),
        threshold=preprocessing.get("threshold"),
        metrics=metrics,
        multi=preprocessing.get("labels") == "multi",
        worst=sorted(metrics["per_class"], key=_worth)[:5] if metrics else [],
        seen=seen_message(metrics.get("seen")) if metrics else "",
        detection=[*detection_lines(metrics), *"\n\n".join(timed_lines(metrics)).splitlines(), ""] if metrics else [],
        versions=record.get("versions") or {},
    )
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
    with suppress(OSError, ValueError, TypeError):
        return dict(read_json(last.absolute().parent.parent / RUN_FILE))
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


def _worth(row: Mapping[str, Any]) -> tuple[float, str]:
    """Recall of a class, or average precision with several labels per clip, and its name."""
    return row.get("recall", row["average_precision"]) or 0.0, row["class"]
