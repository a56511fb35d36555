"""Kaleidoscope's CSV, also as BirdNET-Analyzer writes it."""

from soundsight.datasets.tables.layout import Layout, register

register(
    Layout(
        "Kaleidoscope table",
        header=("FOLDER", "IN FILE", "OFFSET", "DURATION"),
        file=("IN FILE",),
        folders=("INDIR", "FOLDER"),
        label=("MANUAL ID", "common_name", "scientific_name", "AUTO ID"),
        start=("OFFSET",),
        duration=("DURATION",),
    )
)
