"""Make one page of a validation or cross-validation: figures, matrix, mistakes to look and listen to.

soundsight report runs/classify/val-test                        # writes report.html into it
soundsight report runs/crossval/esc-50-1a2b3c4d --out esc50.html
soundsight report runs/classify/val-test --root /data/ESC-50    # the recordings have moved
soundsight report runs/classify/val-test --folder paper/ --pdf  # figures and tables as files
"""

from __future__ import annotations

from soundsight.cli import console, outputs
from soundsight.cli.options import Given
from soundsight.config.commands import ReportOptions
from soundsight.errors import ConfigError
from soundsight.files import check_folder

OPTIONS = ReportOptions


def run(options: ReportOptions, given: Given) -> int:
    if (options.pdf or options.svg) and not options.folder:
        raise ConfigError("--pdf and --svg render figures into a folder; name it with --folder DIR.")
    console.check_ending(options.out, ".html", ".htm")
    console.check_exists(options.run, "run")
    if options.root:
        console.check_exists(options.root, "folder of recordings")
    from soundsight.reports.html import write_html
    from soundsight.reports.run_report import collect, read_run

    found = read_run(options.run)
    out = options.out or found.folder / "report.html"
    if options.folder:
        check_folder(options.folder, "mistakes.csv", overwrite=options.overwrite)
    with outputs.claimed(options, [out], outputs.REPORT, [options.run]):
        material = console.call(collect, options, found, trust=options.trust_checkpoint)
        page = write_html(material, out)
    for note in material.notes:
        console.status(f"soundsight: {note}")
    console.output(f"Page: {page} ({page.stat().st_size / 1e6:.1f} MB)")
    if options.folder:
        from soundsight.reports.figures import write_figures

        formats = ["png", *(["pdf"] if options.pdf else []), *(["svg"] if options.svg else [])]
        written = write_figures(found, material, options.folder, formats=formats)
        console.output(f"Figures and tables: {len(written)} files in {options.folder}")
    return 0
