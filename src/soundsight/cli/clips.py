"""Cut detections out of their recordings as sound files, one folder per class, with a manifest.

soundsight clips predictions.csv --out clips/
soundsight clips predictions.csv --out clips/ --number 50 --padding 1 --format flac
soundsight clips predictions.parquet --out best/ --sample best --number 10 --threshold owl=0.8
soundsight clips predictions.csv --out clips/ --root /media/card        # the recordings have moved
"""

from __future__ import annotations

from pathlib import Path

from soundsight.cli import console
from soundsight.cli.options import Given
from soundsight.config.detections import ClipsOptions
from soundsight.files import check_folder

OPTIONS = ClipsOptions


def run(options: ClipsOptions, given: Given) -> int:
    from soundsight.review import clips, detections

    check_folder(options.out, clips.MANIFEST, overwrite=options.overwrite)
    found = detections.load(options.predictions, threshold=options.threshold, root=options.root)
    rows = detections.sample(found.rows, how=options.sample, number=options.number, seed=options.seed)
    with console.progress_bar("cutting", "clips") as bar:
        count, failures = clips.write_clips(
            found, rows, options.out, padding_seconds=options.padding_seconds, ending=f".{options.format}", progress=bar
        )
    console.output(f"{count} clips of {len({row.label for row in rows})} classes: {Path(options.out, clips.MANIFEST)}")
    failures += found.failures()
    for failure in failures[:10]:
        console.status(f"  failed: {failure}")
    return 1 if failures else 0
