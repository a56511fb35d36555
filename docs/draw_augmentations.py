"""Draw each spectrogram augmentation once: `python docs/draw_augmentations.py` writes images/augmentations.png."""

from pathlib import Path

import torch

from soundsight import augment
from soundsight.config import SpectrogramConfig
from soundsight.reports.plots import new_figure, save_figure
from soundsight.spectrogram import render
from soundsight.synthesis import dataset as demo


def main() -> None:
    config = SpectrogramConfig()
    db_range = config.db_ceiling - config.db_floor
    sounds = [demo.synthesise(name, seed=seed) for name, seed in (("birds", 4), ("siren", 9))]
    images = torch.stack([torch.from_numpy(render(sound, config)).permute(2, 0, 1) for sound in sounds])
    own, other = (images[:1].float() / 255, images[1:].float() / 255)
    half, tenth = torch.tensor([0.5]), torch.tensor([0.1])
    masked = augment.mask(own, torch.tensor([0.30]), torch.tensor([0.40]), 3)
    banded = augment.mask(own, torch.tensor([0.35]), torch.tensor([0.45]), 2)
    still = torch.zeros(1)
    corners = torch.tensor([[-0.2, 0.1, -0.2, 0.2, -0.1]])
    stretched = augment.warp(own, torch.tensor([[1.3, 1.0]]), still)
    warped = augment.warp(own, torch.tensor([[1.0, 1.2]]), still)
    cut = own.clone()
    cut[..., 112:] = other[..., 112:]
    erased = own.clone()
    erased[:, :, 60:120, 80:150] = torch.rand(3, 60, 70)
    panels = {
        "the picture": own,
        "shift: half a clip later": augment.shift_time(own, half),
        "time mask": masked,
        "frequency mask": banded,
        "gain: 8 dB louder": augment.change_gain(own, tenth[:, None]),
        "filter: up to 16 dB": augment.change_gain(own, augment.curve(corners, own.shape[2])),
        "stretch: time, by 1.3": stretched,
        "stretch: frequency, by 1.2": warped,
        "freq_shift: a tenth up": augment.warp(own, torch.ones(1, 2), -tenth),
        "another picture": other,
        "mixup, powers added": augment.mix_power(own, other, half, db_range),
        "mixup, pixels blended": augment.mix_image(own, other, half, db_range),
        "cutmix: half from each": cut,
        "erasing": erased,
    }
    figure = new_figure(11, 7)
    for number, (title, pixels) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(3, 5, number)
        axes.imshow(pixels[0, 0], cmap="magma", vmin=0, vmax=1, aspect="auto")
        axes.set_title(title, fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
    figure.tight_layout()
    save_figure(figure, Path(__file__).parent / "images" / "augmentations.png", dpi=120)


if __name__ == "__main__":
    main()
