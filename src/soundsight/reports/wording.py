"""Sentences about a score that the card, the report and the command line share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from soundsight.metrics import FEWEST_CLIPS, FEWEST_RIGHT, FEWEST_WRONG, KEPT_SHARE


def calibration_lines(preprocessing: Mapping[str, Any]) -> list[str]:
    """What a temperature and a threshold rest on, or why there is none; of what `calibrate_checkpoint` stored."""
    basis = preprocessing.get("calibration")
    temperature, threshold = preprocessing.get("temperature", 1.0), preprocessing.get("threshold", 0.0)
    if basis is None:
        clips = "on how many clips it was fitted is not known" if temperature != 1 else "none was fitted"
        lines = [f"Temperature of its probabilities: {temperature:.3f}; {clips}."]
    else:
        clips = f"the {basis['clips']} clips of `val`, {basis['wrong']} of them predicted wrong"
        if basis["interval"]:
            low, high = basis["interval"]
            lines = [
                f"Temperature of its probabilities: {temperature:.3f} (95 % interval {low:.2f} to {high:.2f}), fitted "
                f"on {clips}."
            ]
        else:
            lines = [
                f"No temperature was fitted on {clips}: {FEWEST_CLIPS} clips and {FEWEST_WRONG} wrong ones are needed. "
                "Its probabilities are as the network gives them."
            ]
    if preprocessing.get("labels") == "multi":
        found = preprocessing.get("thresholds") or {}
        own = sum(of["value"] is not None for of in found.values())
        precision = preprocessing.get("thresholds_precision")
        aim = f"with a precision of {precision:.0%}" if precision else "of the best F1"
        lines.append(
            f"Thresholds of {own} of {len(found)} classes are those {aim} on `val`"
            f"{'; the others have 0.50, since they have too few clips there' if own < len(found) else ''}."
            if found
            else "Its classes have no thresholds of their own: 0.50, unless --threshold is given."
        )
    elif threshold:
        lines.append(f"A best class below {threshold:.2f} is `unknown`: {KEPT_SHARE:.0%} of the right ones reach that.")
    else:
        few = f" ({FEWEST_RIGHT} right predictions on `val` are needed)" if basis else ""
        lines.append(f"It has no threshold{few}, so it names a class for every sound, unless --threshold is given.")
    return lines


def detection_lines(metrics: Mapping[str, Any]) -> list[str]:
    """Mean average precision and the like, of what metrics.json holds; nothing of files that have none."""
    shown = {"macro_map": "macro mAP", "micro_map": "micro mAP", "padded_cmap": "cmAP, padded", "macro_auroc": "AUROC"}
    said = [f"{name} {metrics[key]:.3f}" for key, name in shown.items() if metrics.get(key) is not None]
    return [f"Ranking of the clips by class: {', '.join(said)}.", ""] if said else []


def timed_lines(metrics: Mapping[str, Any]) -> list[str]:
    """Figures by segment and event, and false alarms per hour, of what metrics.json holds; nothing without them."""
    said = []
    if events := metrics.get("events"):
        macro, micro = events["macro_average"], events["micro_average"]
        said.append(
            f"{events['hours']:.2f} h of {events['recordings']} annotated recordings: segment-based F1 "
            f"{macro['segment_f1']:.3f} (macro), {micro['segment_f1']:.3f} (micro); event-based F1 "
            f"{macro['event_f1']:.3f} (macro), {micro['event_f1']:.3f} (micro); "
            f"{micro['false_alarms_per_hour']:.1f} false alarms per hour."
        )
    if background := metrics.get("background"):
        said.append(
            f"{background['hours']:.2f} h of background: {background['false_alarms']} false alarms, "
            f"{background['false_alarms_per_hour']:.1f} per hour."
        )
    return said


def threshold_lines(preprocessing: Mapping[str, Any]) -> list[str]:
    """The thresholds of single classes, and what each rests on, as a Markdown table; nothing where there are none."""
    found = preprocessing.get("thresholds") or {}
    if not found:
        return []
    lines = [
        "| class | threshold | 95 % interval | clips | precision on `val` | recall |",
        "|---|---|---|---|---|---|",
    ]
    for name, of in found.items():
        value = "none: too few clips" if of["value"] is None else f"{of['value']:.3f}"
        low, high = of["interval"] or (None, None)
        interval = "" if low is None else f"{low:.2f} to {high:.2f}"
        right, recall = "", ""
        if of.get("precision") is not None:
            low, high = of["precision_interval"]
            right, recall = f"{of['precision']:.0%} ({low:.0%} to {high:.0%})", f"{of['recall']:.0%}"
        elif of["value"] is not None:
            right = "not reached: above all that was seen"
        lines.append(f"| {name.replace('_', ' ')} | {value} | {interval} | {of['clips']} | {right} | {recall} |")
    return lines


def seen_message(seen: Mapping[str, Any] | None) -> str:
    """What a score is worth, of a `Seen` as metrics.json holds it."""
    if seen is None:
        return (
            "Whether the model was trained on any of these clips is not known: it does not say what it was trained on."
        )
    said = []
    if seen["clips"] or seen["siblings"]:
        said.append(
            f"The model was trained on {seen['clips']} of these {seen['scored']} clips, and on the recordings of "
            f"{seen['siblings']} more, so their score flatters."
        )
    else:
        said.append(
            f"The model was trained on none of these {seen['scored']} clips, nor on others of their recordings."
        )
    if seen["published"]:
        said.append(
            f"{seen['published']} have siblings in its training: their publisher put the recordings into several folds."
        )
    if seen["tuned"]:
        said.append(f"{seen['tuned']} of these clips {' and '.join(seen['uses'])}, so the figures flatter a little.")
    return " ".join(said)
