"""Prepare: from a data set to `data/{train,val,test}/<class>/*.png`, repeatable and restartable.

The images of all clips lie once in a cache; `data/` holds hard links to them, so another split costs no
rendering. Order of work: catalogue, split, render what is missing or stale, link, manifest last.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from soundsight import audio, checks, files, parallel
from soundsight.config import BACKGROUND, DatasetConfig, SpectrogramConfig, to_dict
from soundsight.datasets import images, manifest
from soundsight.datasets.catalogue import Catalogue, Clip
from soundsight.datasets.findings import about_counts, about_groups, about_leaks
from soundsight.datasets.manifest import Row
from soundsight.datasets.names import class_order, image_paths, safe_name
from soundsight.datasets.segments import cut_windows, split_and_cut
from soundsight.datasets.split import SPLITS, Leaks, count, find_leaks
from soundsight.errors import ConfigError, DatasetError

Progress = Callable[[int, int], None]

# What file managers leave behind in folders that were looked at.
LITTER = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})


@dataclass(frozen=True)
class Prepared:
    """What `prepare` did."""

    data: Path
    cache: Path
    labels: list[str]
    counts: dict[str, int]  # clips of train, val, test
    leaks: Leaks
    versions: int  # further images of train, at other speeds
    rendered: int  # images rendered in this run
    kept: int  # images that were up to date
    seconds: float
    failures: list[tuple[str, str]] = field(default_factory=list)  # (file, reason)
    notes: Sequence[str] = ()  # how folders or tables were understood
    findings: Sequence[tuple[str, str]] = ()  # what `inspect` would say of the numbers of clips
    problem: str = ""  # why no model can be trained on this; empty where one can
    multi: bool = False  # whether clips may have several classes, or none
    background: int = 0  # multi-label data: clips without any class


def prepare(
    config: DatasetConfig | None = None,
    spectrogram: SpectrogramConfig | None = None,
    *,
    replace_data: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
    run: parallel.Run = parallel.run,
) -> Prepared:
    """Render a data set and lay it out for training.

    Args:
        config: Where the recordings are, how they are labelled and split.
        spectrogram: How they are rendered.
        replace_data: Replace what the data folder holds of another data set.
        workers: Processes; `None` takes one per core.
        progress: Called with (clips done, clips in all).
        run: What gives out the work: this machine's processes, or a cluster.

    Returns:
        Counts, leaks and failures (also in `data/failures.csv`).

    Raises:
        DatasetError: The data set as a whole is not usable.
        ConfigError: A folder cannot be written, or holds images that are not ours or of another data set.
    """
    started = time.monotonic()
    config, spectrogram = config or DatasetConfig(), spectrogram or SpectrogramConfig()
    if run is parallel.run:
        parallel.warm_up(images.__name__, workers=workers)
    catalogue, splits = split_and_cut(config, spectrogram.clip_seconds, workers=workers, run=run)
    versions = versions_of([clip for clip, split in splits.items() if split == "train"], config.speed_perturbation)
    catalogue = replace(catalogue, clips=[*catalogue.clips, *versions])
    multi = catalogue.multi
    paths = image_paths(catalogue.clips, multi=multi)
    cache, data = Path(config.cache), Path(config.data)
    with files.locked(cache), files.locked(data):
        _check_places(data, SPLITS)
        if not replace_data:
            manifest.check_same(data, config, {clip.file for clip in catalogue.clips})
        files.remove_drafts(data)
        rows, failures, rendered = render_all(
            catalogue, spectrogram, cache, workers=workers, progress=progress, run=run
        )
        split_of = {paths[clip]: split for clip, split in splits.items()} | {paths[clip]: "train" for clip in versions}
        rows = [replace(row, split=split_of.get(row.image, "")) for row in rows]
        _lay_out(rows, failures, catalogue, config, spectrogram)
    counts = manifest.counts(rows, multi=multi)
    background = sum(counts.pop(BACKGROUND, {}).values()) if multi else 0
    leaks = find_leaks(splits, catalogue.shared_sources, spectrogram.clip_seconds)
    groups = about_groups((row.source, row.labels(multi=multi)) for row in rows)
    return Prepared(
        data=data,
        cache=cache,
        labels=class_order(catalogue.labels),
        counts=count(row.split for row in rows if row.speed == 1),
        versions=sum(row.speed != 1 for row in rows),
        leaks=leaks,
        rendered=rendered,
        kept=len(rows) - rendered,
        seconds=time.monotonic() - started,
        failures=failures,
        notes=catalogue.notes,
        findings=[*groups, *about_counts(counts), *about_leaks(leaks)],
        problem=manifest.problem(rows, config.split.strategy, multi=multi),
        multi=multi,
        background=background,
    )


def _lay_out(
    rows: Sequence[Row],
    failures: Sequence[tuple[str, str]],
    catalogue: Catalogue,
    config: DatasetConfig,
    spectrogram: SpectrogramConfig,
) -> None:
    """Make the data folder hold these images and what is known of them, the manifest last."""
    data = Path(config.data)
    link(rows, Path(config.cache), data, multi=catalogue.multi)
    manifest.write_failures(data / manifest.FAILURES, failures)
    settings = {
        "format": spectrogram.renderer,
        "dataset": {**to_dict(config), "name": catalogue.name},
        "spectrogram": to_dict(spectrogram),
        "fingerprint": manifest.data_hash(rows),
        "labels": class_order(catalogue.labels),
    }
    if catalogue.multi:
        settings["label_mode"] = "multi"
    if catalogue.annotated:
        settings["annotated_recordings"] = True
    manifest.write_settings(data / manifest.SETTINGS, settings)
    manifest.write_rows(data / manifest.MANIFEST, rows)


def render_all(
    catalogue: Catalogue,
    spectrogram: SpectrogramConfig,
    cache: Path,
    speeds: Sequence[float] = (),
    *,
    workers: int | None = None,
    progress: Progress | None = None,
    run: parallel.Run = parallel.run,
) -> tuple[list[Row], list[tuple[str, str]], int]:
    """Bring the cache up to date with a catalogue, whose whole recordings are cut first, also at each of the `speeds`.

    Returns:
        A row for each image in the catalogue's order, the failures, and how many images were rendered.
    """
    checks.check_trainable(spectrogram.image_size)
    catalogue, _ = cut_windows(catalogue, spectrogram.clip_seconds, workers=workers, run=run)
    targets = image_paths([*catalogue.clips, *versions_of(catalogue.clips, speeds)], multi=catalogue.multi)
    settings = {"spectrogram": to_dict(spectrogram), "renderer": spectrogram.renderer}
    index = cache / manifest.MANIFEST
    _check_places(cache)
    former = {row.image: row for row in manifest.read_rows(index)}
    known = former if _same_settings(cache, settings) else {}
    folders = {image.rpartition("/")[0] for image in targets.values()}
    ours = folders | {label for label in (image.rpartition("/")[0] for image in former) if label == safe_name(label)}
    _check_places(cache, ours)
    for folder in folders:
        (cache / folder).mkdir(parents=True, exist_ok=True)
    for folder in ("", *ours):
        files.remove_drafts(cache / folder)

    done: dict[Clip, Row] = {}
    tasks = []
    for clip, image in targets.items():
        if (row := known.get(image)) is not None and _unchanged(row, clip, cache / image):
            done[clip] = replace(row, fold="" if clip.fold is None else str(clip.fold), source=clip.source)
        else:
            tasks.append(images.Task(clip, cache / image, spectrogram))
    tasks.sort(key=lambda task: (task.clip.file, task.clip.start_seconds))  # as recordings are decoded
    kept, rendered, failures = len(done), 0, dict.fromkeys(catalogue.failures)
    if tasks:
        index.unlink(missing_ok=True)  # until all is whole again
    for number, (task, found) in enumerate(run(images.render_task, tasks, workers=workers, together=_recording), 1):
        result = images.Rendered(None, failure=str(found)) if isinstance(found, parallel.WorkerLost) else found
        if result.failure:
            failures[task.clip.file, result.failure] = None  # once, however many clips of the recording it stops
        if result.row is None:
            task.target.unlink(missing_ok=True)
        else:
            rendered += result.again
            done[task.clip] = result.row
        if progress:
            progress(kept + number, len(targets))
    _remove_strangers(cache, ours, {f"{cache}/{image}" for clip, image in targets.items() if clip in done})
    manifest.write_settings(cache / manifest.SETTINGS, settings)
    rows = [done[clip] for clip in targets if clip in done]
    if tasks or len(known) != len(rows):
        damaged = {file for file, _ in failures}
        manifest.write_rows(index, [row for row in rows if row.file not in damaged])
    return rows, list(failures), rendered


def _recording(task: images.Task) -> str:
    return audio.decoded_once(task.clip.path)


def versions_of(clips: Iterable[Clip], speeds: Sequence[float]) -> list[Clip]:
    """The same clips at each of the speeds; 1.25 is a quarter faster, and higher by as much."""
    return [replace(clip, name=f"{clip.name}@x{speed:g}", speed=speed) for clip in clips for speed in speeds]


def _unchanged(row: Row, clip: Clip, image: Path) -> bool:
    """Whether a listed image and its recording are as they were when the row was written."""
    try:
        return row.key == manifest.row_of(clip, None, "", os.stat(clip.path), image).key and os.path.getsize(image) > 0
    except OSError:
        return False


def _same_settings(cache: Path, settings: dict[str, object]) -> bool:
    try:
        return manifest.read_settings(cache) == settings
    except DatasetError:
        return False


def link(rows: Sequence[Row], cache: Path, data: Path, *, multi: bool = False) -> None:
    """Make `data/` hold exactly the images of `rows` that have a split, each in the folder of each of its classes.

    Every split in use gets a folder for every class, empty or not, so that all of them number classes alike.
    """
    wanted = {
        f"{data}/{row.split}/{image}": f"{cache}/{row.image}"
        for row in rows
        if row.split
        for image in _images(row, multi)
    }
    used = {row.split for row in rows if row.split}
    classes = {image.rpartition("/")[0] for row in rows if row.split for image in _images(row, multi)}
    folders = {data / split for split in SPLITS} | {data / s / label for s in used for label in classes}
    _check_places(data, [*SPLITS, *(f"{split}/{label}" for split in used for label in classes)])
    stale = [target for target, source in wanted.items() if not _same_image(source, target)]
    extra = [Path(path) for split in SPLITS for path in files.files_below(f"{data}/{split}") if path not in wanted]
    if not stale and not extra and all(os.path.isdir(folder) for folder in folders):
        return
    foreign = [p for p in extra if not _is_ours(p)]
    if foreign:
        raise ConfigError(
            f"{data} holds {len(foreign)} files that `prepare` did not render (such as {foreign[0]}); "
            "choose an empty folder with data=FOLDER, or move them away."
        )
    for name in (manifest.MANIFEST, manifest.SETTINGS):
        (data / name).unlink(missing_ok=True)
    for split in SPLITS:  # Ultralytics' lists of images, which would go stale
        _remove_list(data / f"{split}.cache")
    for path in extra:
        path.unlink()
    for split in SPLITS:
        files.remove_empty_folders(data / split)
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    for target in stale:
        files.link_or_copy(Path(wanted[target]), Path(target))


def _images(row: Row, multi: bool) -> list[str]:
    """Where an image lies below its split."""
    folders = map(safe_name, row.labels(multi=True)) if multi and row.label else [row.image.rpartition("/")[0]]
    return [f"{folder}/{row.image.rpartition('/')[2]}" for folder in folders]


def _is_ours(path: Path) -> bool:
    """Whether `prepare` may delete a file: our image, our temporary file, or litter."""
    if files.is_draft(path.name) or path.name in LITTER:
        return True
    return images.read_key(path) is not None


def _same_image(source: str, target: str) -> bool:
    try:
        if os.path.samefile(source, target):
            return True
    except OSError:
        return False
    return images.read_key(Path(source)) == images.read_key(Path(target))


def _remove_strangers(cache: Path, folders: set[str], wanted: set[str]) -> None:
    """Delete images of ours, in folders of ours, that no clip asks for any more; leave everything else alone."""
    for folder in folders:
        for entry in os.scandir(cache / folder) if os.path.isdir(cache / folder) else ():
            path = f"{cache}/{folder}/{entry.name}"
            if path.endswith(".png") and path not in wanted and images.read_key(Path(path)) is not None:
                os.unlink(path)
        with suppress(OSError):  # it still holds something
            (cache / folder).rmdir()


def _remove_list(path: Path) -> None:
    """Delete a list that Ultralytics keeps of a split's images, which is NumPy's file of a dictionary."""
    if os.path.isfile(path):
        with open(path, "rb") as file:
            listed = file.read(6) == b"\x93NUMPY"
        if listed:
            path.unlink()


def _check_places(root: Path, folders: Iterable[str] = ()) -> None:
    """Refuse links and devices where files and folders of ours belong: what they lead to is not ours."""
    wanted = [(root / name, stat.S_ISREG) for name in (manifest.MANIFEST, manifest.SETTINGS, manifest.FAILURES)]
    for path, is_ours in [*wanted, *((root / folder, stat.S_ISDIR) for folder in folders)]:
        if os.path.lexists(path) and not is_ours(os.lstat(path).st_mode):
            what = "folder" if is_ours is stat.S_ISDIR else "file"
            raise ConfigError(f"{path} is no {what} of `prepare` but something else, such as a link; move it away.")
