"""Augmentation: each change alone, on images whose prediction is known by hand."""

import math
from dataclasses import replace

import pytest
import torch

from soundsight import augment
from soundsight.augment import Augmenter
from soundsight.backend.train import no_augment
from soundsight.config import AugmentConfig

SIZE = 16


def image(column: int = 0, row: int = SIZE - 1) -> torch.Tensor:
    """Black but for one white pixel, uint8 (1, 3, SIZE, SIZE)."""
    image = torch.zeros(1, 3, SIZE, SIZE, dtype=torch.uint8)
    image[:, :, row, column] = 255
    return image


def test_nothing_changes_when_all_is_off():
    images = torch.randint(0, 256, (4, 3, SIZE, SIZE), dtype=torch.uint8)
    pixels, targets = Augmenter(no_augment(), classes=5, db_range=80)(images, torch.tensor([0, 1, 4, 2]))
    assert torch.equal(pixels, images.float() / 255)
    assert torch.equal(targets.argmax(1), torch.tensor([0, 1, 4, 2])) and torch.equal(targets.sum(1), torch.ones(4))


def test_time_shift_goes_round():
    shifted = augment.shift_time(image(column=14), torch.tensor([0.25]))
    assert shifted[0, 0, -1].nonzero().flatten().tolist() == [2]
    assert torch.equal(augment.shift_time(shifted, torch.tensor([-0.25])), image(column=14))


def test_gain_moves_sound_but_not_silence():
    pixels = torch.tensor([0.0, 0.5, 0.9]).reshape(1, 1, 1, 3)
    louder = augment.change_gain(pixels, torch.tensor([[0.2]]))
    assert torch.allclose(louder.flatten(), torch.tensor([0.0, 0.7, 1.0]))


def test_a_filter_moves_bands_along_a_curve():
    gains = augment.curve(torch.tensor([[-0.2, 0.0, 0.2]]), 5)
    assert torch.allclose(gains, torch.tensor([[-0.2, -0.1, 0.0, 0.1, 0.2]]))
    pixels = torch.full((1, 3, 5, 2), 0.5)
    pixels[..., 1] = 0  # silence stays
    coloured = augment.change_gain(pixels, gains)
    assert torch.allclose(coloured[0, 2, :, 0], torch.tensor([0.3, 0.4, 0.5, 0.6, 0.7])) and not coloured[..., 1].any()


def test_filters_differ_from_picture_to_picture_and_stay_in_range():
    config = replace(no_augment(), filter_db=8.0)
    images = torch.full((4, 3, SIZE, SIZE), 128, dtype=torch.uint8)
    pixels, _ = Augmenter(config, classes=4, db_range=80)(images, torch.arange(4))
    change = (pixels - 128 / 255) * 80  # dB
    assert change.abs().max() <= 8.001 and (change.std(dim=2) > 0.5).all()
    assert torch.equal(change[:, :1, :, :1].expand_as(change), change)  # the same in every channel and frame
    assert not torch.allclose(change[0], change[1], atol=0.5)


def test_two_equal_sounds_in_one_room_are_the_same_picture():
    pixels = torch.rand(2, 3, SIZE, SIZE)
    mixed = augment.mix_power(pixels, pixels, torch.tensor([0.5, 0.1]), db_range=80)
    assert torch.allclose(mixed, pixels, atol=1e-5)


def test_a_loud_sound_covers_a_soft_one_as_powers_add():
    loud, soft = torch.full((1, 1, 1, 1), 1.0), torch.full((1, 1, 1, 1), 0.5)  # 0 dB and -40 dB
    mixed = augment.mix_power(loud, soft, torch.tensor([0.5]), db_range=80)
    by_hand = 1 + 10 * math.log10(0.5 * 1 + 0.5 * 1e-4) / 80
    assert mixed.item() == pytest.approx(by_hand, abs=1e-6)
    assert augment.mix_image(loud, soft, torch.tensor([0.5]), 80).item() == pytest.approx(0.75)


def test_masks_silence_the_given_stretch_only():
    ones = torch.ones(1, 1, SIZE, SIZE)
    time = ones.masked_fill(augment.inside(torch.tensor([[0.25, 0.5]]), ones.shape[3], 3), 0)
    assert time[0, 0, 0].tolist() == [1.0] * 4 + [0.0] * 4 + [1.0] * 8
    band = ones.masked_fill(augment.inside(torch.tensor([[0.0, 0.125]]), ones.shape[2], 2), 0)
    assert band[0, 0, :, 0].tolist() == [0.0] * 2 + [1.0] * 14


def test_warp_by_nothing_is_nothing_and_a_shift_moves_bands_up():
    pixels = torch.rand(1, 3, SIZE, SIZE)
    same = augment.warp(pixels, torch.ones(1, 2), torch.zeros(1))
    assert torch.allclose(same, pixels, atol=1e-5)
    up = augment.warp(pixels, torch.ones(1, 2), torch.tensor([-0.25]))
    assert torch.allclose(up[:, :, : SIZE - 4], pixels[:, :, 4:], atol=1e-5)


@pytest.mark.parametrize("part", ["mixup", "cutmix"])
def test_mixed_targets_stay_probabilities(part):
    config = AugmentConfig(**{"mixup": 0.0, "cutmix": 0.0, part: 1.0, "label_smoothing": 0.1})
    images = torch.randint(0, 256, (8, 3, SIZE, SIZE), dtype=torch.uint8)
    pixels, targets = Augmenter(config, classes=8, db_range=80)(images, torch.arange(8))
    assert pixels.min() >= 0 and pixels.max() <= 1 and pixels.shape == images.shape
    assert torch.allclose(targets.sum(1), torch.ones(8), atol=1e-6)
    assert (targets.topk(2).values[:, 1] > 0.02).any()  # some image has two sounds


def test_the_same_seed_and_epoch_draw_the_same():
    images, labels = torch.randint(0, 256, (6, 3, SIZE, SIZE), dtype=torch.uint8), torch.arange(6)
    augmenter = Augmenter(AugmentConfig(stretch=0.1, freq_shift=0.1, erasing=0.5), classes=6, db_range=80, seed=3)
    draws = []
    for epoch in (0, 1, 0):
        augmenter.reseed(epoch)
        draws.append(augmenter(images, labels)[0])
    assert torch.equal(draws[0], draws[2]) and not torch.equal(draws[0], draws[1])


def test_rare_classes_weigh_more_and_the_mean_weight_is_one():
    augmenter = Augmenter(no_augment(), classes=2, db_range=80)
    labels = torch.tensor([0, 0, 0, 1])
    augmenter.weigh_classes(labels)
    _, targets = augmenter(torch.zeros(4, 3, SIZE, SIZE, dtype=torch.uint8), labels)
    assert targets.sum(1).tolist() == pytest.approx([2 / 3, 2 / 3, 2 / 3, 2])


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_a_clip_is_weighed_by_its_own_class_whatever_smoothing_gives_to_others(smoothing):
    """192 clips to 5, as in a real report: no common clip may be taught to be the rare class."""
    labels = torch.tensor([0] * 192 + [1] * 5)
    augmenter = Augmenter(replace(no_augment(), label_smoothing=smoothing), classes=2, db_range=80)
    augmenter.weigh_classes(labels)
    _, targets = augmenter(torch.zeros(197, 3, SIZE, SIZE, dtype=torch.uint8), labels)
    common, rare = 197 / (2 * 192), 197 / (2 * 5)
    assert targets[0].tolist() == pytest.approx([common * (1 - smoothing / 2), common * smoothing / 2])
    assert targets[-1].tolist() == pytest.approx([rare * smoothing / 2, rare * (1 - smoothing / 2)])
    assert float(targets.sum()) == pytest.approx(197, abs=1e-3)


def test_the_balanced_sampler_shows_each_class_as_often(tmp_path):
    import cv2
    import numpy as np

    from soundsight.backend.trainer import BalancedImages, ImageSet, MemoryLoader

    for name, count in (("common", 90), ("rare", 10)):
        (tmp_path / name).mkdir()
        for number in range(count):
            cv2.imwrite(str(tmp_path / name / f"{number}.png"), np.zeros((SIZE, SIZE, 3), np.uint8))
    images = ImageSet(tmp_path, ["common", "rare"], SIZE)
    seen = {}
    for balanced in (False, True):
        loader = MemoryLoader(images, 10, shuffle=True, seed=0, device=torch.device("cpu"), balanced=balanced)
        rare = 0
        for epoch in range(20):
            loader.epoch = epoch
            rare += sum(int((batch["cls"] == 1).sum()) for batch in loader)
        seen[balanced] = rare / (20 * len(images))
    assert seen[False] == pytest.approx(0.1) and seen[True] == pytest.approx(0.5, abs=0.05)
    from_disk = BalancedImages(images)  # as several GPUs, or a set too large for memory, read it
    rendered = [from_disk[index]["cls"].item() for index in range(len(from_disk))]
    assert len(rendered) == 100 and sum(rendered) == 50
