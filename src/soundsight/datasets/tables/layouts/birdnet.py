"""BirdNET-Analyzer's CSV."""

from soundsight.datasets.tables.layout import Layout, register

register(
    Layout(
        "BirdNET-Analyzer table",
        header=("Start (s)", "End (s)", "Scientific name", "Common name"),
        file=("File",),
        label=("Common name", "Scientific name"),
    )
)
