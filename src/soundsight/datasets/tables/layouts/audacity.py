"""Audacity's label tracks, also as `soundsight predict --format audacity` and DCASE's .ann files have them."""

from soundsight.datasets.tables.layout import Layout, number, register
from soundsight.datasets.tables.rows import Row


def parse(text: str, suffix: str) -> tuple[list[tuple[int, Row]], list[tuple[int, str]]] | None:
    """Rows (start, end, label) and bad lines of a track, which has no header; `None` for other text."""
    lines = enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1)
    rows: list[tuple[int, Row]] = []
    bad: list[tuple[int, str]] = []
    for line, content in lines:
        if not content.strip() or content.startswith("\\"):  # the frequency range of a spectral label
            continue
        start, end, label = (*(field.strip() for field in content.split("\t", 2)), "", "")[:3]
        if number(start) is not None and number(end) is not None:
            rows.append((line, [start, end, label]))
        elif not rows:
            return None
        else:
            bad.append((line, "the line does not begin with two numbers of seconds"))
    return (rows, bad) if rows or suffix == ".txt" else None  # an empty track says that nothing was there


register(Layout("Audacity label track", header=("start", "end", "label"), file=(), parse=parse))
