"""Pages and cards from the Jinja2 templates of this package; images as data inside them."""

from __future__ import annotations

import base64
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from jinja2 import Environment


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("soundsight.reports", "templates"),
        autoescape=lambda name: name is not None and name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": True, "separators": (",", ":")}
    draw = resources.files("soundsight.reports") / "static" / "draw.js"
    environment.globals["draw_js"] = draw.read_text(encoding="utf-8")
    return environment


def render_template(name: str, /, **values: Any) -> str:
    """A template of the folder `templates`, filled in; values are escaped in `.html` and not in `.md`."""
    return _environment().get_template(name).render(**values)


def image_uri(pixels: npt.NDArray[np.uint8], side: int = 0, *, kind: str = "png", level: int = 9) -> str:
    """A data URI of uint8 `(H, W)` or BGR `(H, W, 3)`, as "png" (with its `level` of compression, 0 to 9) or "jpeg".

    If it is larger than `side` pixels it is made smaller; 0 keeps its size.
    """
    shown: npt.NDArray[Any] = np.ascontiguousarray(pixels)
    if 0 < side < max(shown.shape[:2]):
        shown = cv2.resize(shown, (side, side), interpolation=cv2.INTER_AREA)
    options = [cv2.IMWRITE_PNG_COMPRESSION, level] if kind == "png" else [cv2.IMWRITE_JPEG_QUALITY, 82]
    _, data = cv2.imencode(f".{kind}", shown, options)
    return f"data:image/{kind};base64,{base64.b64encode(data.tobytes()).decode()}"
