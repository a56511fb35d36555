"""Raven's selection tables, also those of BirdNET-Analyzer and of `soundsight predict --format raven`."""

from soundsight.datasets.tables.layout import Layout, register

register(
    Layout(
        "Raven selection table",
        header=("Begin Time (s)",),
        file=("Begin Path", "Begin File"),
        label=(
            "Annotation", "Annotations", "Species", "Label", "Common Name", "Scientific Name", "Species Code",
            "Call Type", "Class", "Category", "Type", "Tags",
        ),
        start=("Begin Time (s)",),
        end=("End Time (s)",),
        duration=("Delta Time (s)",),
        offset="File Offset (s)",
        sequence="names several files but has no column 'File Offset (s)', so its times may count from the first "
        "of them; add that measurement in Raven, or say where a row starts in its file with start_column=NAME",
        repeats=True,  # a selection is written once for each view that shows it
    )
)  # fmt: skip
