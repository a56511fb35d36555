"""UrbanSound8K's metadata, whose times are those of other files."""

from soundsight.datasets.tables.layout import Layout, register

register(
    Layout(
        "UrbanSound8K's metadata",
        header=("slice_file_name", "fsID", "start", "end"),
        refusal="gives times within recordings that are not part of the data set; use kind=urbansound8k",
    )
)
