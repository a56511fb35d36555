"""FSD50K's ground truth: names without ending, several labels in one field."""

from soundsight.datasets.tables.layout import Layout, register

register(
    Layout(
        "FSD50K table",
        header=("fname", "labels", "mids"),
        file=("fname",),
        label=("labels",),
        below=("FSD50K.dev_audio", "FSD50K.eval_audio"),
    )
)
