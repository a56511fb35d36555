"""`soundsight report`."""

from __future__ import annotations

import argparse

from soundsight.cli import console, outputs
from soundsight.errors import ConfigError
from soundsight.files import check_folder

SUMMARY = "Make one page of a validation or cross-validation: figures, matrix, mistakes to look and listen to."
EXAMPLES = [
    "soundsight report runs/classify/val-test                        # writes report.html into it",
    "soundsight report runs/crossval/esc-50-1a2b3c4d --out esc50.html",
    "soundsight report runs/classify/val-test --root /data/ESC-50    # the recordings have moved",
    "soundsight report runs/classify/val-test --folder paper/ --pdf  # figures and tables as files",
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare arguments."""
    parser.add_argument("run", help="a folder that `soundsight val` or `soundsight crossval` wrote")
    parser.add_argument("--out", metavar="FILE", help="the page (default: report.html in the run's folder)")
    outputs.add_overwrite(parser)
    parser.add_argument("--folder", metavar="DIR", help="also write each figure as PNG and each table as CSV")
    parser.add_argument("--pdf", action="store_true", help="with --folder: figures also as PDF")
    parser.add_argument("--svg", action="store_true", help="with --folder: figures also as SVG")
    parser.add_argument("--root", metavar="DIR", help="where the recordings are, if they have moved")
    parser.add_argument("--no-heat", action="store_true", help="leave heat maps out: no model is loaded")
    parser.add_argument("--device", help="cpu, 0, 1, ...; default: the first GPU, or else the CPU")
    parser.add_argument(
        "--trust-checkpoint", action="store_true", help="unpickle whatever a model file holds; it may run code"
    )


def run(arguments: argparse.Namespace) -> int:
    """Report."""
    if (arguments.pdf or arguments.svg) and not arguments.folder:
        raise ConfigError("--pdf and --svg render figures into a folder; name it with --folder DIR.")
    console.check_ending(arguments.out, ".html", ".htm")
    console.check_exists(arguments.run, "run")
    if arguments.root:
        console.check_exists(arguments.root, "folder of recordings")
    from soundsight.reports.html import write_html
    from soundsight.reports.run_report import collect, read_run

    found = read_run(arguments.run)
    out = arguments.out or found.folder / "report.html"
    if arguments.folder:
        check_folder(arguments.folder, "mistakes.csv", overwrite=arguments.overwrite)
    with outputs.claimed(arguments, [out], outputs.REPORT, [arguments.run]):
        material = collect(
            found,
            root=arguments.root,
            saliency=not arguments.no_heat,
            device=arguments.device,
            trust=arguments.trust_checkpoint,
        )
        page = write_html(material, out)
    for note in material.notes:
        console.status(f"soundsight: {note}")
    console.output(f"Page: {page} ({page.stat().st_size / 1e6:.1f} MB)")
    if arguments.folder:
        from soundsight.reports.figures import write_figures

        formats = ["png", *(["pdf"] if arguments.pdf else []), *(["svg"] if arguments.svg else [])]
        written = write_figures(found, material, arguments.folder, formats=formats)
        console.output(f"Figures and tables: {len(written)} files in {arguments.folder}")
    return 0
