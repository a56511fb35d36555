"""The images of the report room, rendered as a user does, then opened, measured and read."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from soundsight import metrics
from soundsight.config import SpectrogramConfig
from soundsight.errors import ConfigError
from soundsight.reports import plots, tables
from soundsight.reports import spectrograms as images
from soundsight.spectrogram import hz_to_mel, mel_to_hz, render

NAMES = ("cat", "dog", "sea_waves")
SMALL = SpectrogramConfig(sample_rate=8000, clip_seconds=1.0, image_size=64, n_fft=1024)


@pytest.fixture
def scores() -> metrics.Scores:
    rows = [[0.75, 0.25, 0.0], [0.75, 0.15, 0.1], [0.25, 0.75, 0.0], [0.0, 1.0, 0.0], [0.55, 0.2, 0.25]]
    return metrics.score([0, 0, 0, 1, 1], rows, NAMES)


def sine(hz: float, config: SpectrogramConfig = SMALL) -> np.ndarray:
    return np.sin(2 * np.pi * hz * np.arange(config.clip_samples) / config.sample_rate).astype(np.float32)


def png_size(path: Path) -> tuple[int, int]:
    height, width = imread(path).shape[:2]
    return width, height


# --- plots


def esc_like(size: int) -> tuple[np.ndarray, list[str]]:
    rng = np.random.default_rng(0)
    confusion = rng.multinomial(8, np.full(size, 1 / size), size) + 32 * np.eye(size, dtype=int)
    return confusion, [f"some_class_{i}" for i in range(size)]


def test_fifty_classes_fit_a_page_at_print_resolution(tmp_path):
    confusion, names = esc_like(50)
    path = plots.plot_confusion(confusion, names, tmp_path / "matrix.png", normalize=True, title="Fifty")
    width, height = png_size(path)
    assert 2000 < width < 300 * 8.5
    assert 2000 < height < 300 * 11
    assert [item.name for item in tmp_path.iterdir()] == ["matrix.png"]


def svg_texts(path: Path, names: list[str]) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return [name for name in names if f"<!-- {name} -->" in text]


def test_matrix_as_svg_shows_names_and_numbers(tmp_path):
    path = plots.plot_confusion([[3, 1], [0, 0]], ["sea_waves", "pay $5"], tmp_path / "m.svg", normalize=True)
    assert svg_texts(path, ["sea waves", "pay $5", "75", "25", "predicted", "true"]) == [
        "sea waves", "pay $5", "75", "25", "predicted", "true",
    ]  # fmt: skip
    counts = plots.plot_confusion([[3, 1], [0, 0]], ["a", "b"], tmp_path / "c.svg", normalize=False)
    assert svg_texts(counts, ["3", "clips"]) == ["3", "clips"]


def test_pictures_repeat_byte_for_byte(tmp_path):
    for suffix in plots.FORMATS:
        files = [
            plots.plot_confusion([[3, 1], [0, 2]], ["a", "b"], tmp_path / f"{i}{suffix}", normalize=False)
            for i in range(2)
        ]
        assert files[0].read_bytes() == files[1].read_bytes()
    assert (tmp_path / "0.pdf").read_bytes().startswith(b"%PDF")
    assert png_size(tmp_path / "0.png")[0] > 300


def test_an_empty_matrix_draws_without_a_warning(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for normalize in (True, False):
            plots.plot_confusion(np.zeros((3, 3), int), NAMES, tmp_path / f"{normalize}.png", normalize=normalize)


@pytest.mark.parametrize(
    ("confusion", "names", "path", "text"),
    [
        ([[1, 0]], ["a", "b"], "m.png", r"shape \(1, 2\) does not fit 2 class names"),
        ([[0.5, 0.5], [0.0, 1.0]], ["a", "b"], "m.png", "must hold counts .* pass counts and set normalize"),
        ([[1, -1], [0, 1]], ["a", "b"], "m.png", "smallest value of -1"),
        (
            [[1, 0], [0, 1]],
            ["a", "b"],
            "m.bmp",
            "m.bmp cannot be plotted: the name must end in .png, .pdf, .svg",
        ),
    ],
)
def test_draw_confusion_says_what_is_wrong(confusion, names, path, text, tmp_path):
    with pytest.raises(ConfigError, match=text):
        plots.plot_confusion(confusion, names, tmp_path / path, normalize=True)


def test_reliability_and_per_class_pictures(scores, tmp_path):
    assert png_size(plots.plot_reliability(scores, tmp_path / "r.png")) == (840, 1080)
    text = f"ECE {100 * scores.ece:.1f} %  (15 bins, 5 clips)"
    assert svg_texts(plots.plot_reliability(scores, tmp_path / "r.svg"), [text]) == [text]
    path = plots.plot_per_class(scores, tmp_path / "p.svg")
    assert svg_texts(path, ["cat", "dog", "sea waves (no clips)", "macro F1 58.3 %"]) == [
        "cat", "dog", "sea waves (no clips)", "macro F1 58.3 %",
    ]  # fmt: skip
    rendered = path.read_text()
    assert (
        rendered.index("<!-- cat -->")
        < rendered.index("<!-- dog -->")
        < rendered.index("<!-- sea waves (no clips) -->")
    )


RESULTS = """                  epoch,      time,  train/loss, metrics/accuracy_top1, metrics/accuracy_top5, val/loss, lr/pg0, lr/pg1
                      1,       3.1,         3.5,                   0.2,                   0.5,      3.2, 0.001,  0.001
                      2,       6.2,         2.5,                   0.4,                   0.7,      nan, 0.0005, 0.0005
                      3,       9.3,         2.0
"""  # noqa: E501


def test_training_curves_from_padded_and_cut_results(tmp_path):
    (tmp_path / "results.csv").write_text(RESULTS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path = plots.plot_training_curves(tmp_path / "results.csv", tmp_path / "curves.png")
    assert png_size(path) == (1860, 540)
    table = tables.read_results(tmp_path / "results.csv")
    assert table["train/loss"] == [3.5, 2.5, 2.0]
    assert table["lr/pg1"][:2] == [0.001, 0.0005]
    assert np.isnan(table["val/loss"][1:]).all()
    rendered = plots.plot_training_curves(tmp_path / "results.csv", tmp_path / "curves.svg")
    assert svg_texts(rendered, ["loss", "accuracy", "learning rate", "top-1", "val", "pg0"]) == [
        "loss", "accuracy", "learning rate", "top-1", "val",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, r"results.csv cannot be read \(No such file"),
        ("", "holds no epochs"),
        ("epoch,train/loss\n", "holds no epochs"),
        ("epoch,other\n1,2\n", "has no curve to draw"),
    ],
)
def test_training_curves_say_what_is_wrong(content, text, tmp_path):
    if content is not None:
        (tmp_path / "results.csv").write_text(content)
    with pytest.raises(ConfigError, match=text):
        plots.plot_training_curves(tmp_path / "results.csv", tmp_path / "curves.png")


# --- images


def test_a_sine_lies_on_its_tick_and_at_0_db():
    axes = Figure().subplots()
    image = images.plot_spectrogram(sine(1000), SMALL, axes, title="1_kHz $ sine", channel=2)
    level = np.asarray(image.get_array())
    left, right, low, high = image.get_extent()
    band = int(level.mean(axis=1).argmax())
    mel = low + (band + 0.5) * (high - low) / len(level)
    assert mel == pytest.approx(float(hz_to_mel(1000)), abs=(high - low) / len(level))
    assert level.max() == pytest.approx(0)
    assert (left, right) == (0, pytest.approx(1.0, abs=0.01))
    ticks = axes.yaxis.get_major_locator()()
    labels = [axes.yaxis.get_major_formatter()(tick) for tick in ticks]
    assert mel_to_hz(ticks) == pytest.approx([125, 250, 500, 1000, 2000, 4000])
    assert labels == ["125", "250", "500", "1k", "2k", "4k"]
    assert axes.get_title(loc="left") == r"1_kHz \$ sine"


def test_levels_are_the_pixels_of_render():
    noise = np.random.default_rng(0).normal(0, 0.1, SMALL.clip_samples).astype(np.float32)
    image = images.plot_spectrogram(noise, SMALL, Figure().subplots(), channel=2)
    level = np.asarray(image.get_array())
    assert np.round((level[::-1] + 80) / 80 * 255).astype(np.uint8).tolist() == render(noise, SMALL)[..., 2].tolist()


def test_spectrogram_picture_and_its_words(tmp_path):
    images.plot_spectrogram(sine(440), SMALL, tmp_path / "s.png", title="tone")
    assert png_size(tmp_path / "s.png") == (1280, 720)
    images.plot_spectrogram(sine(440), SMALL, tmp_path / "s.svg", title="tone")
    words = ["tone", "time (s)", "frequency (Hz, mel-spaced)", "level (dB re loudest point)", "1k"]
    assert svg_texts(tmp_path / "s.svg", words) == words


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (20, 8000, [125, 250, 500, 1000, 2000, 4000, 8000]),
        (15000, 90000, [20000, 40000, 60000, 80000]),
        (900, 1100, [900, 950, 1000, 1050, 1100]),
    ],
)
def test_frequency_ticks_suit_the_range(low, high, ticks):
    config = SpectrogramConfig(sample_rate=192000, n_fft=32768, fmin_hz=low, fmax_hz=high, clip_seconds=1)
    assert images.hertz_ticks(config) == ticks


def test_close_frequency_labels_give_way():
    kept = images.hertz_ticks(SpectrogramConfig(), spacing=0.1)
    assert kept == [125, 500, 1000, 2000, 4000, 8000]


def test_spectrogram_says_what_is_wrong(tmp_path):
    with pytest.raises(ConfigError, match=r"shape \(2, 8000\) cannot be plotted: mono"):
        images.plot_spectrogram(np.zeros((2, 8000), np.float32), SMALL, tmp_path / "s.png")
    with pytest.raises(ConfigError, match="channel=3 does not exist; 0, 1 or 2"):
        images.plot_spectrogram(sine(440), SMALL, tmp_path / "s.png", channel=3)
    assert not list(tmp_path.iterdir())


def test_gallery_grows_with_its_items(tmp_path):
    items = [(f"tone_{hz}", sine(hz)) for hz in (200, 400, 800, 1600, 3200, 200, 400)]
    five = png_size(images.plot_gallery(items[:5], SMALL, tmp_path / "five.png"))
    seven = png_size(images.plot_gallery(items, SMALL, tmp_path / "seven.png"))
    assert seven[0] == five[0]
    assert seven[1] - five[1] == pytest.approx(150 * (1.25 + 0.31), abs=2)
    path = images.plot_gallery(items, SMALL, tmp_path / "two.svg", columns=2)
    assert svg_texts(path, ["tone 200", "time (s)", "8k"]) == ["tone 200", "time (s)"]
    silent = [("silence", np.zeros(8000, np.float32)), ("nothing", np.zeros(0, np.float32))]
    images.plot_gallery(silent, SMALL, tmp_path / "silent.png")
    with pytest.raises(ConfigError, match="There is nothing to plot in the gallery"):
        images.plot_gallery([], SMALL, tmp_path / "none.png")
    with pytest.raises(ConfigError, match="columns=21 does not fit on a page; 1 to 20"):
        images.plot_gallery(items, SMALL, tmp_path / "wide.png", columns=21)


WINDOWS = [(0.0, 1.0, {"a": 1.0}), (0.5, 1.5, {"a": 0.5, "b": 0.5}), (2.0, 3.0, {"b": 1.0})]


def test_strips_average_where_windows_overlap():
    edges, strips = images.probability_strips(WINDOWS, ["a", "b"], 2.5)
    assert edges.tolist() == [0, 0.5, 1, 1.5, 2, 2.5]
    expected = [[1, 0.75, 0.5, np.nan, 0], [0, 0.25, 0.5, np.nan, 1]]
    np.testing.assert_allclose(strips, expected)


def test_timeline_from_levels(tmp_path):
    words = ["time (s)", "frequency (Hz)", "a", "b", "night.wav"]
    levels = np.full((64, 500), -40.0)
    path = images.plot_timeline(levels, WINDOWS, ["a", "b"], SMALL, tmp_path / "t.svg", 2.5, title="night.wav")
    assert svg_texts(path, words) == words
    long = images.plot_timeline(levels, WINDOWS, ["a"], SMALL, tmp_path / "long.svg", 7200.0)
    assert svg_texts(long, ["time (h:min:s)", "1:00:00"]) == ["time (h:min:s)", "1:00:00"]
    images.plot_timeline(levels, [], ["a"], SMALL, tmp_path / "unheard.png", 0.5)


@pytest.mark.parametrize(
    ("levels", "windows", "classes", "seconds", "text"),
    [
        (np.zeros(5), [], ["a"], 3.0, r"levels of shape \(5,\) and type float64"),
        (np.zeros((4, 4)), WINDOWS, [], 3.0, "There are no classes to draw"),
        (np.zeros((4, 4)), WINDOWS, ["a"], 0.0, "duration_seconds=0 cannot be plotted"),
        (np.zeros((4, 4)), [(1.0, 1.0, {})], ["a"], 3.0, "from 1 s to 1 s is empty"),
        (np.zeros((4, 4)), [(0.0, 1.0, {"a": 1.5})], ["a"], 3.0, "'a' has probability 1.5 at 0 s"),
    ],
)
def test_timeline_says_what_is_wrong(levels, windows, classes, seconds, text, tmp_path):
    with pytest.raises(ConfigError, match=text):
        images.plot_timeline(levels, windows, classes, SMALL, tmp_path / "t.png", seconds)


@pytest.mark.skipif(len(plots.font_families()) == 1, reason="no font of this machine knows Chinese letters")
def test_names_in_eastern_letters_are_drawn_as_letters(tmp_path, recwarn):
    """Letters that no font knows would all be the same box, with a warning for each."""
    pixels = []
    for number, name in enumerate(("狗叫", "猫叫")):
        path = plots.plot_confusion([[1, 0], [0, 1]], [name, "dog"], tmp_path / f"{number}.png", normalize=False)
        pixels.append(path.read_bytes())
    assert pixels[0] != pixels[1]
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]
