"""Windows: long recordings cut into clips, after the split and never before.

A window inherits label, fold and source of its recording, so all of them stay on one side of every split.
Only what is needed to know their lengths is read here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from soundsight import audio, parallel
from soundsight.datasets.catalogue import Catalogue, Clip
from soundsight.errors import AudioError

# Below this many recordings, starting worker processes takes longer than reading the headers.
FEW = 10_000


def cut_windows(
    catalogue: Catalogue, clip_seconds: float, *, workers: int | None = None, run: parallel.Run = parallel.run
) -> tuple[Catalogue, dict[Clip, Clip]]:
    """Cut whole recordings, and annotated stretches longer than a clip, into clips.

    Args:
        catalogue: The clips, with folds or splits already decided.
        clip_seconds: Length of a window.
        workers: Processes that read headers; `None` takes one a core.
        run: What gives out the work when there is much of it.

    Returns:
        The catalogue of windows, with the damage of recordings among its failures, and the recording that each
        window was cut from.
    """
    if not catalogue.whole_recordings:
        of = {part: clip for clip in catalogue.clips for part in _cut_annotation(clip, clip_seconds)}
        uncut = all(part is clip for part, clip in of.items())
        return catalogue if uncut else replace(catalogue, clips=list(of)), of
    found = measure(catalogue.clips, workers=workers, run=run)
    recording_of = {window: clip for clip in catalogue.clips for window in cut_clip(clip, found[clip][0], clip_seconds)}
    failures = [*catalogue.failures, *((clip.file, damage) for clip, (_, damage) in found.items() if damage)]
    return replace(catalogue, clips=list(recording_of), failures=failures, whole_recordings=False), recording_of


def cut_clip(clip: Clip, duration_seconds: float | None, clip_seconds: float) -> list[Clip]:
    """Windows of one recording, end to end, without overlap.

    A rest shorter than `audio.LEAST_SHARE` of a window is left out, a longer one becomes a window that is padded.
    A recording that yields one window stays as it is, as does one whose duration is not known.
    """
    if duration_seconds is None or clip.end_seconds is not None:
        return [clip]
    count, rest = divmod(duration_seconds - clip.start_seconds, clip_seconds)
    count = int(count) + (rest >= audio.LEAST_SHARE * clip_seconds)
    if count <= 1:
        return [clip]
    starts = [round(clip.start_seconds + index * clip_seconds, 6) for index in range(count)]
    return [
        replace(
            clip,
            name=f"{clip.name}@{start:.1f}",
            start_seconds=start,
            end_seconds=round(min(start + clip_seconds, duration_seconds), 6),
        )
        for start in starts
    ]


def _cut_annotation(clip: Clip, clip_seconds: float) -> list[Clip]:
    """As many clips as an annotated stretch gives, by the rules of `cut_clip`."""
    if clip.end_seconds is None:
        return [clip]
    parts = cut_clip(replace(clip, end_seconds=None), clip.end_seconds, clip_seconds)
    name = clip.name.rpartition("@")[0] or clip.name
    return [replace(part, name=f"{name}@{part.start_seconds:.1f}") for part in parts] if len(parts) > 1 else [clip]


def measure(
    clips: Sequence[Clip], *, workers: int | None = None, run: parallel.Run = parallel.run
) -> dict[Clip, tuple[float | None, str]]:
    """Length in seconds and damage of each clip's recording; `None` if it cannot be read, which rendering reports."""
    few = len(clips) < FEW
    results = (parallel.run if few else run)(_measure, clips, workers=1 if few else workers)
    return {clip: (None, "") if isinstance(found, parallel.WorkerLost) else found for clip, found in results}


def _measure(clip: Clip) -> tuple[float | None, str]:
    try:
        with audio.recording(clip.path) as recording:
            return recording.info.duration_seconds, recording.damage
    except (AudioError, OSError):
        return None, ""
