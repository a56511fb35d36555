"""One page about a data set: figures, histograms, tables and images in a single HTML file.

The page needs no network and no script, follows the reader's light or dark setting, and stays small: long
tables are cut with a note, images are thumbnails. What it says is decided elsewhere; here it is only laid out.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import cv2
import numpy as np

from soundsight.files import write_text
from soundsight.spectrogram import Image

MOST_ROWS = 200  # of one table
MOST_IMAGES = 120  # of one page, together below 2 MB
THUMBNAIL = 160  # pixels, square


@dataclass(frozen=True)
class Histogram:
    """How often values occur."""

    title: str
    unit: str
    values: Sequence[float]
    note: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of text under a header."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    total: int | None = None  # rows there are, if more than are given


@dataclass(frozen=True)
class EmbeddedImage:
    """A spectrogram as the model sees it, uint8 `(H, W, 3)`; its last channel is shown."""

    title: str
    caption: str
    image: Image


@dataclass(frozen=True)
class SurveyPage:
    """All that the page shows, top to bottom."""

    title: str
    subtitle: str
    tiles: Sequence[tuple[str, str]]  # large figure, what it counts
    findings: Sequence[tuple[str, str]]  # "bad", "look" or "good", and a sentence
    classes: Mapping[str, Mapping[str, int]]  # clips by class and split
    histograms: Sequence[Histogram] = ()
    tables: Sequence[Table] = ()
    galleries: Sequence[tuple[str, Sequence[EmbeddedImage]]] = field(default=())


def write_survey_page(page: SurveyPage, path: str | Path) -> Path:
    """Write the page, whole or not at all.

    Raises:
        ConfigError: The path cannot be written.
    """
    return write_text(path, survey_html(page))


def survey_html(page: SurveyPage) -> str:
    """The page as HTML."""
    tiles = "".join(f"<div><b>{escape(value)}</b><span>{escape(what)}</span></div>" for value, what in page.tiles)
    findings = "".join(f'<li class="{tone}">{escape(text)}</li>' for tone, text in page.findings)
    parts = [
        f"<h1>{escape(page.title)}</h1><p class=sub>{escape(page.subtitle)}</p>",
        f"<div class=tiles>{tiles}</div>",
        f"<h2>What to look at</h2><ul class=findings>{findings}</ul>",
        f"<h2>Clips by class and split</h2>{_class_bars(page.classes)}",
    ]
    if page.histograms:
        charts = "".join(_histogram(item) for item in page.histograms)
        parts.append(f"<h2>Recordings and clips</h2><div class=charts>{charts}</div>")
    parts += [_table(table) for table in page.tables]
    left = MOST_IMAGES
    for title, images in page.galleries:
        parts.append(_gallery(title, images[:left]))
        left -= len(images[:left])
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="generator" content="Soundsight inspect">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">"
        f"<title>{escape(page.title)}</title><style>{_STYLE}</style></head>\n<body><main>\n{body}\n"
        "<footer>Made by soundsight inspect.</footer></main></body></html>\n"
    )


def _class_bars(classes: Mapping[str, Mapping[str, int]]) -> str:
    """One row a class: its clips as a bar of the splits' colours, and the numbers."""
    splits = list(dict.fromkeys(split for counts in classes.values() for split in counts))
    most = max((sum(counts.values()) for counts in classes.values()), default=0) or 1
    rows = []
    for label, counts in classes.items():
        bars = "".join(
            f'<i class="s{splits.index(split) % 4}" style="width:{100 * number / most:.2f}%"></i>'
            for split, number in counts.items()
            if number
        )
        cells = "".join(f"<td class=n>{counts.get(split, 0) or '–'}</td>" for split in splits)
        rows.append(
            f"<tr><th>{escape(label)}</th><td class=bar>{bars}</td>{cells}<td class=n>{sum(counts.values())}</td></tr>"
        )
    head = "".join(f'<th class=n><i class="key s{i % 4}"></i>{escape(s)}</th>' for i, s in enumerate(splits))
    return (
        f"<div class=scroll><table class=classes><thead><tr><th>class</th><th></th>{head}<th class=n>all</th></tr>"
        f"</thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _histogram(item: Histogram) -> str:
    """A histogram as inline SVG; where all values are equal, a sentence says so."""
    note = f"<p>{escape(item.note)}</p>" if item.note else ""
    head = f"<figure><figcaption>{escape(item.title)}</figcaption>"
    values = np.asarray(item.values, np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return f"{head}<p>Nothing to show.</p>{note}</figure>"
    if math.isclose(values.min(), values.max(), abs_tol=1e-9):
        same = f"{values[0]:,.4g} {item.unit}".strip()
        return f"{head}<p class=same><b>{escape(same)}</b> for all {len(values):,}</p>{note}</figure>"
    counts, edges = np.histogram(values, bins=24)
    width, height, left, foot = 336, 150, 40, 22
    step, top = (width - left - 8) / len(counts), max(counts)
    bars = []
    for index, count in enumerate(counts):
        tall = max(1.5, (height - foot - 12) * count / top) if count else 0
        tip = f"{edges[index]:.4g} to {edges[index + 1]:.4g} {item.unit}: {count:,}"
        bars.append(
            f'<rect x="{left + index * step:.1f}" y="{height - foot - tall:.1f}" width="{step - 1:.1f}" '
            f'height="{tall:.1f}"><title>{escape(tip)}</title></rect>'
        )
    base = height - foot
    marks = [
        f'<text x="{left - 5}" y="16" text-anchor="end">{top:,}</text>',
        f'<text x="{left - 5}" y="{base}" text-anchor="end">0</text>',
    ]
    for share, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
        value = edges[0] + share * (edges[-1] - edges[0])
        text = f"{value:,.3g} {item.unit}".strip() if share == 1 else f"{value:,.3g}"
        across = left + share * (width - left - 8)
        marks.append(f'<text x="{across:.0f}" y="{height - 5}" text-anchor="{anchor}">{escape(text)}</text>')
    return (
        f'{head}<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(item.title)}">{"".join(bars)}'
        f'<line x1="{left}" y1="{base}" x2="{width - 8}" y2="{base}"/>{"".join(marks)}</svg>{note}</figure>'
    )


def _table(table: Table) -> str:
    if not table.rows:
        return ""
    shown = table.rows[:MOST_ROWS]
    total = len(table.rows) if table.total is None else table.total
    note = f"{table.note} The first {len(shown):,} of {total:,} are shown." if total > len(shown) else table.note
    head = "".join(f"<th>{escape(name)}</th>" for name in table.header)
    rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in shown)
    return (
        f"<h2>{escape(table.title)}</h2><p class=note>{escape(note.strip())}</p><div class=scroll><table>"
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _gallery(title: str, images: Sequence[EmbeddedImage]) -> str:
    if not images:
        return ""
    cards = "".join(
        f'<figure><img alt="" width="{THUMBNAIL}" height="{THUMBNAIL}" src="{_data_url(image.image)}">'
        f"<figcaption>{escape(image.title)}<small>{escape(image.caption)}</small></figcaption></figure>"
        for image in images
    )
    return f"<h2>{escape(title)}</h2><div class=gallery>{cards}</div>"


def _data_url(image: Image) -> str:
    """A thumbnail in magma's colours, as a JPEG inside the page."""
    small = cv2.resize(image[..., -1], (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", cv2.applyColorMap(small, cv2.COLORMAP_MAGMA), [cv2.IMWRITE_JPEG_QUALITY, 82])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")


_STYLE = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1d2126;--pale:#5c6670;--line:#dde2e7;--soft:#f5f7f9;
--a:#2a78b5;--b:#e08a1e;--c:#1b9477;--d:#9a6fb0;--bad:#c0392b;--look:#b7791f;--good:#1b9477}
@media(prefers-color-scheme:dark){:root{--paper:#14171a;--ink:#e6e9ec;--pale:#98a3ad;--line:#2c3238;--soft:#1c2024;
--a:#5aa6df;--b:#f0a94e;--c:#43bd9d;--d:#b996cc;--bad:#ff7a6b;--look:#efb954;--good:#43bd9d}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,"Segoe UI",Roboto,sans-serif}
main{max-width:1120px;margin:0 auto;padding:32px 24px 64px}
h1{margin:0;font-size:28px;line-height:1.2}h2{margin:40px 0 10px;font-size:19px}
.sub,.note,footer,figure p{color:var(--pale)}.sub{margin:4px 0 20px}.note{margin:0 0 8px}
footer{margin-top:48px;font-size:13px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(130px,1fr));gap:12px}
.tiles div{background:var(--soft);border:1px solid var(--line);border-radius:8px;padding:10px 14px}
.tiles b{display:block;font-size:22px;font-variant-numeric:tabular-nums}.tiles span{color:var(--pale);font-size:13px}
.findings{list-style:none;padding:0;margin:0}.findings li{padding:6px 12px;margin:6px 0;background:var(--soft);
border-left:4px solid var(--good);border-radius:0 6px 6px 0}
.findings .bad{border-color:var(--bad)}.findings .look{border-color:var(--look)}
.scroll{overflow:auto;max-height:420px;border:1px solid var(--line);border-radius:8px}
table{border-collapse:collapse;width:100%;font-size:14px}
th,td{padding:4px 12px;text-align:left;border-bottom:1px solid var(--line);font-weight:400;white-space:nowrap}
thead th{position:sticky;top:0;background:var(--soft);color:var(--pale);font-size:13px}
.n{text-align:right;font-variant-numeric:tabular-nums}
.bar{width:60%;min-width:160px}.bar i{display:inline-block;height:12px;vertical-align:middle}
.key{display:inline-block;width:9px;height:9px;margin-right:5px;border-radius:2px}
.s0{background:var(--a)}.s1{background:var(--b)}.s2{background:var(--c)}.s3{background:var(--d)}
figure{margin:0}.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(300px,1fr));gap:16px}
.charts figure{border:1px solid var(--line);border-radius:8px;padding:12px 14px}
.charts figcaption{font-weight:600;margin-bottom:4px}.charts p{margin:4px 0 0;font-size:13px}
.charts .same{font-size:15px;margin:24px 0}.charts .same b{color:var(--ink);font-size:20px}
svg{width:100%;display:block}rect{fill:var(--a)}line{stroke:var(--pale);stroke-width:1}
text{fill:var(--pale);font:11px system-ui,sans-serif}
.gallery{display:grid;grid-template-columns:repeat(auto-fill,minmax(160px,1fr));gap:16px}
.gallery img{display:block;width:100%;height:auto;border-radius:6px;background:#000}
.gallery figcaption{font-size:13px;line-height:1.35;margin-top:4px;overflow-wrap:anywhere}
.gallery small{display:block;color:var(--pale)}
@media(max-width:600px){main{padding:20px 14px}.bar{width:40%;min-width:80px}}
"""
