"""Settings: every bad key, type and range is named; files, defaults and the command line agree."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from soundsight import config
from soundsight.cli.options import Grammar
from soundsight.config import (
    AugmentConfig,
    ClusterConfig,
    DatasetConfig,
    SpectrogramConfig,
    SplitConfig,
    from_dict,
    load,
)
from soundsight.config.commands import InferenceOptions, ListenOptions
from soundsight.config.files import find_config
from soundsight.errors import ConfigError, Renamed

CONFIGS = Path(__file__).parents[1] / "configs"


def typed(cls, *words):
    """Settings as the words of a command line mean them."""
    return Grammar("test", SimpleNamespace(OPTIONS=cls)).parse(list(words)).options


@pytest.mark.parametrize(
    ("name", "cls"),
    [("spectrogram", SpectrogramConfig), ("augment", AugmentConfig), ("esc50", DatasetConfig)],
)
def test_files_spell_out_exactly_the_defaults(name, cls):
    spelled = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))
    assert config.load(cls, CONFIGS / f"{name}.yaml") == cls()
    if cls is not DatasetConfig:  # its table and folder settings belong to other kinds
        assert set(spelled) == set(config.to_dict(cls()))


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_file_is_found_by_its_bare_name_anywhere(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config(path.stem).read_text(encoding="utf-8") == path.read_text(encoding="utf-8")


def test_a_missing_file_is_named():
    with pytest.raises(ConfigError, match="nowhere.yaml does not exist"):
        find_config("nowhere.yaml")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sample_rat": 8000}, "Did you mean 'sample_rate'"),
        ({"sample_rate": "fast"}, "sample_rate='fast' .* a whole number"),
        ({"sample_rate": True}, "a whole number"),
        ({"sample_rate": 10}, "sample_rate=10 is out of range: 1000 to 384000"),
        ({"reference": "loud"}, "one of clip, full_scale"),
        ({"windows_ms": [25, 50]}, "3 values"),
        ({"windows_ms": [25, 50, 1000]}, "16000 samples .* n_fft=2048"),
        ({"fmax_hz": 9000}, "fmax_hz=9000 .* <= 8000"),
        ({"fmin_hz": 1000, "fmax_hz": 1000.5}, "fmin_hz=1000 and fmax_hz=1000.5 .* 1 Hz apart"),
        ({"db_floor": 3}, "db_floor=3 must lie below db_ceiling=0"),
        ({"db_floor": -0.5}, "db_floor=-0.5 must lie below db_ceiling=0, by 1 dB"),
        ({"db_floor": -500}, "db_floor=-500 is out of range: -200 to 100"),
        ({"db_ceiling": 500}, "db_ceiling=500 is out of range: -200 to 100"),
        ({"image_size": 1024, "clip_seconds": 0.1, "sample_rate": 1000, "n_fft": 2048}, "fewer samples than pixels"),
    ],
)
def test_bad_spectrogram_settings_are_named(settings, words):
    with pytest.raises(ConfigError, match=words):
        config.from_dict(SpectrogramConfig, settings)


def test_dotted_words_reach_into_sections_and_keep_the_rest():
    loaded = config.load(DatasetConfig, CONFIGS / "esc50.yaml", {"split.val": 5, "split.test": [4]})
    assert loaded.split == SplitConfig(train=(1, 2, 3), val=(5,), test=(4,))
    with pytest.raises(ConfigError, match="section 'split'.* Did you mean 'strategy'"):
        config.load(DatasetConfig, None, {"split.strateg": "fold"})
    with pytest.raises(ConfigError, match="'root' has no settings below it"):
        config.load(DatasetConfig, CONFIGS / "esc50.yaml", {"root.x": 1})


def test_splits_that_share_a_fold_or_do_not_add_up_are_refused():
    with pytest.raises(ConfigError, match=r"fold 4 is in both split.train and split.val"):
        SplitConfig(train=(1, 4), val=(4,))
    with pytest.raises(ConfigError, match="add up to 1"):
        SplitConfig(fractions=(0.5, 0.2, 0.2))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    ("cls", "key", "many"),
    [
        (SpectrogramConfig, "clip_seconds", 0),
        (SpectrogramConfig, "windows_ms", 3),
        (SpectrogramConfig, "fmax_hz", 0),
        (SpectrogramConfig, "db_floor", 0),
        (SplitConfig, "fractions", 3),
        (DatasetConfig, "speed_perturbation", 1),
        (AugmentConfig, "gain_db", 0),
        (ClusterConfig, "gpus", 0),
    ],
)
def test_what_is_no_finite_number_is_refused_wherever_settings_are_made(cls, key, many, value):
    values = {key: (value,) * many if many else value}
    for make in (lambda: cls(**values), lambda: replace(cls(), **values), lambda: from_dict(cls, values)):
        with pytest.raises(ConfigError, match=f"{key}=-?(nan|inf) in settings is not allowed: it must be a finite"):
            make()


def test_settings_are_validated_wherever_they_are_made():
    with pytest.raises(ConfigError, match="reference='loud' in settings is not allowed: it must be one of clip, full"):
        SpectrogramConfig(reference="loud")
    with pytest.raises(ConfigError, match="image_size=16 is out of range: 32 to 1024"):
        replace(SpectrogramConfig(), image_size=16)
    with pytest.raises(ConfigError, match="Unknown key 'sample_rat' in settings. Did you mean 'sample_rate'"):
        SpectrogramConfig(sample_rat=8000)
    with pytest.raises(ConfigError, match="split='fold' in settings .* must be a section"):
        DatasetConfig(split="fold")
    assert SpectrogramConfig(windows_ms=[25, 50, 100]) == SpectrogramConfig()


def test_augmentation_shares_cannot_exceed_the_batch():
    with pytest.raises(ConfigError, match="mixup=0.7 and cutmix=0.5"):
        AugmentConfig(mixup=0.7, cutmix=0.5)


@pytest.mark.parametrize(
    ("text", "words"),
    [("[1, 2]", "holds a list"), ("a: [", "not valid YAML"), ("\x00", "not valid YAML|cannot be read")],
)
def test_broken_yaml_is_one_sentence(tmp_path, text, words):
    file = tmp_path / "x.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=words) as caught:
        config.load(SpectrogramConfig, file)
    assert "\n" not in str(caught.value)


def test_plain_data_and_back_and_the_fingerprint():
    once = SpectrogramConfig(image_size=96, windows_ms=(10.0, 20.0, 40.0))
    assert config.from_dict(SpectrogramConfig, config.to_dict(once)) == once
    assert config.settings_hash(once) != config.settings_hash(SpectrogramConfig())
    assert config.settings_hash(SpectrogramConfig()) == config.settings_hash(SpectrogramConfig())


def test_whole_numbers_and_their_floats_have_one_fingerprint():
    whole = SpectrogramConfig(clip_seconds=5, windows_ms=(25, 50, 100), fmin_hz=20, fmax_hz=8000, db_floor=-80)
    assert config.settings_hash(whole) == config.settings_hash(SpectrogramConfig(fmax_hz=8000.0))


# What a stranger's file can hold

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
ODD_YAML = {
    "aliases": (BOMB + "fmin_hz: *i\n", "stands for more than 10000 values"),
    "a circle": ("fmin_hz: &a [*a]\n", "stands for more than 10000 values"),
    "depth": ("fmin_hz: " + "[" * 5000 + "\n", "nested too deeply"),
    "nan": ("fmin_hz: .nan\n", "holds nan; a number from"),
    "infinity": ("db_floor: -.inf\n", "holds -inf; a number from"),
    "a huge number": ("n_fft: " + "9" * 4000 + "\n", "a number from -2\\^63 to 2\\^63 is allowed"),
    "a number of too many digits": ("n_fft: " + "9" * 5000 + "\n", "holds a value that cannot be read"),
    "a date": ("fmin_hz: 2026-01-31\n", "fmin_hz='2026-01-31' in .* must be a number"),
    "no date": ("fmin_hz: 2026-99-99\n", "fmin_hz='2026-99-99' in .* must be a number"),
    "a long text": ("fmin_hz: " + "x" * 1_000_000 + "\n", "must be a number"),
    "a long key": ("x" * 1000 + ": 1\n", "Unknown key"),
    "bytes": ("fmin_hz: !!binary aGVsbG8=\n", "must be a number"),
    "an object": ("fmin_hz: !!python/object/apply:os.getcwd []\n", "is not valid YAML"),
    "a set": ("fmin_hz: !!set {a, b}\n", "must be a number"),
}


@pytest.mark.parametrize("case", ODD_YAML)
def test_odd_yaml_is_one_short_message(tmp_path, case):
    text, expected = ODD_YAML[case]
    (tmp_path / "odd.yaml").write_text(text)
    with pytest.raises(ConfigError, match=expected) as caught:
        load(SpectrogramConfig, tmp_path / "odd.yaml")
    assert len(str(caught.value)) < 1000
    key, _, value = text.rpartition("\n") and text.splitlines()[-1].partition(": ")
    if "*" not in value and case != "an object":
        with pytest.raises(ConfigError) as caught:
            typed(SpectrogramConfig, f"{key}={value}")
        assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "value",
    [10**5000, -(10**30), float("nan"), float("inf"), "x" * 10**6, [[["y"] * 99] * 99] * 99],
    ids=("huge", "large", "nan", "inf", "text", "deep"),
)
@pytest.mark.parametrize("key", ["n_fft", "fmin_hz", "windows_ms", "reference", "fmax_hz"])
def test_odd_values_inside_a_checkpoint_are_one_short_message(key, value):
    with pytest.raises(ConfigError, match="is not allowed") as caught:
        from_dict(SpectrogramConfig, {key: value})
    assert len(str(caught.value)) < 1000


def test_a_text_that_looks_like_a_date_stays_a_text():
    assert typed(DatasetConfig, "data=2026-01-31").data == "2026-01-31"
    assert typed(DatasetConfig, "--data", "2026").data == "2026"


def test_options_of_commands_are_validated_each_time_and_by_their_heirs():
    for _ in range(2):
        for cls in (InferenceOptions, ListenOptions):
            with pytest.raises(ConfigError, match="tta_shifts=0 is out of range: 1 to 1024 is allowed"):
                cls(tta_shifts=0)
            with pytest.warns(Renamed, match="The argument shifts is now tta_shifts"):
                assert cls(shifts=2).tta_shifts == 2
