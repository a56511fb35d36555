"""Spectrogram augmentation, a whole batch at a time on the training device.

Pictures are levels in dB (see `spectrogram`), so the changes mimic what happens to sounds: they start
earlier or later, get louder, lose a stretch of time or a band, and add up with others. `Augmenter` is the
only entry; the functions below it are one change each and can be drawn one by one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from soundsight.config import AugmentConfig

FILTER_KNOTS = 5  # corners of a random filter, from the lowest to the highest band

# Pixels of a batch are float32 (batch, channel, band, frame) in [0, 1]: 0 is db_floor, 1 is db_ceiling.


class Augmenter:
    """Draws random changes and applies them to batches of pictures and labels."""

    def __init__(self, config: AugmentConfig, *, classes: int, db_range: float, seed: int = 0) -> None:
        """Set up.

        Args:
            config: Which changes, how strong.
            classes: Number of classes.
            db_range: dB from black to white (`db_ceiling - db_floor`).
            seed: Seed of all random choices; see `reseed`.
        """
        self.config = config
        self.classes = classes
        self.db_range = db_range
        self.seed = seed
        self.class_weight: Tensor | None = None
        self.random = torch.Generator()
        self.reseed(0)

    def reseed(self, epoch: int) -> None:
        """Restart the random choices of an epoch, so that a resumed run draws what an unbroken one would."""
        self.random.manual_seed(self.seed * 1_000_003 + epoch)

    def weigh_classes(self, labels: Tensor) -> None:
        """Weigh targets by the inverse of how often their class is in `labels` `(N,)`; mean weight 1 a clip."""
        counts = labels.bincount(minlength=self.classes).clamp_min(1).float()
        self.class_weight = len(labels) / (self.classes * counts)

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Augment one batch.

        Args:
            images: uint8 `(batch, 3, height, width)`.
            labels: int64 `(batch,)`.

        Returns:
            float32 pictures `(batch, 3, height, width)` in [0, 1] and float32 target probabilities
            `(batch, classes)`, each row summing to 1, or to its weight after `weigh_classes`.
        """
        config, device, batch = self.config, images.device, len(images)
        targets = functional.one_hot(labels, self.classes).float()
        targets = targets * (1 - config.label_smoothing) + config.label_smoothing / self.classes
        if config.shift:
            images = shift_time(images, _send(self._uniform(batch, -config.shift, config.shift), device))
        pixels = images.float().div_(255)  # ours from here on, so changed in place
        if config.stretch or config.freq_shift:
            low, high = 1 / (1 + config.stretch), 1 + config.stretch
            scale = torch.exp(self._uniform((batch, 2), math.log(low), math.log(high)))
            offset = self._uniform(batch, -config.freq_shift, config.freq_shift)
            pixels = warp(pixels, _send(scale, device), _send(offset, device))
        if config.gain_db:
            gain = self._uniform(batch, -config.gain_db, config.gain_db) / self.db_range
            pixels = change_gain(pixels, _send(gain, device)[:, None])
        if config.filter_db:
            gain = self._uniform((batch, FILTER_KNOTS), -config.filter_db, config.filter_db) / self.db_range
            pixels = change_gain(pixels, _send(curve(gain, pixels.shape[2]), device))
        if config.mixup or config.cutmix:
            pixels, targets = self._mix(pixels, targets)
        self._mask(pixels)
        if config.erasing:
            pixels = self._erase(pixels)
        if self.class_weight is not None:
            targets = targets * _send(self.class_weight, device)
        return pixels, targets

    def _uniform(self, size: int | tuple[int, ...], low: float, high: float) -> Tensor:
        shape = (size,) if isinstance(size, int) else size
        return torch.rand(shape, generator=self.random) * (high - low) + low

    def _spans(self, batch: int, width: float) -> tuple[Tensor, Tensor]:
        """Random stretches of [0, 1], each of a random length up to `width`: starts and ends `(batch,)`."""
        length = self._uniform(batch, 0, width)
        start = self._uniform(batch, 0, 1) * (1 - length)
        return start, start + length

    def _mix(self, pixels: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Mix a share of the batch with other members of it, and their targets alike."""
        batch, device = len(pixels), pixels.device
        partner = torch.randperm(batch, generator=self.random)
        draw, ratio = self._uniform(batch, 0, 1), self._uniform(batch, 0, 1)
        mixing = (draw < self.config.mixup).nonzero().flatten()
        cutting = (draw >= 1 - self.config.cutmix).nonzero().flatten() if self.config.cutmix else mixing[:0]
        share = torch.ones(batch)  # of the picture's own target
        changed = []
        if len(mixing):
            own, other = pixels[_send(mixing, device)], pixels[_send(partner[mixing], device)]
            mix = mix_power if self.config.mixup_domain == "power" else mix_image
            changed.append((mixing, mix(own, other, _send(ratio[mixing], device), self.db_range)))
            share[mixing] = ratio[mixing]
        if len(cutting):
            start, stop = self._spans(len(cutting), 1.0)
            cut = _inside(_send(start, device), _send(stop, device), pixels.shape[3], axis=3)
            own, other = pixels[_send(cutting, device)], pixels[_send(partner[cutting], device)]
            changed.append((cutting, torch.where(cut, other, own)))
            share[cutting] = 1 - cut.float().mean(dim=(1, 2, 3)).cpu()
        for rows, mixed in changed:
            pixels[_send(rows, device)] = mixed
        weight = _send(share, device)[:, None]
        return pixels, targets * weight + targets[_send(partner, device)] * (1 - weight)

    def _mask(self, pixels: Tensor) -> None:
        """Silence stretches of time and bands as `mask` does, all in one pass."""
        config = self.config
        masked = pixels.new_zeros((), dtype=torch.bool)
        for count, width, axis in (
            (config.time_masks, config.time_mask_width, 3),
            (config.freq_masks, config.freq_mask_width, 2),
        ):
            for _ in range(count):
                start, stop = self._spans(len(pixels), width)
                masked = masked | _inside(
                    _send(start, pixels.device), _send(stop, pixels.device), pixels.shape[axis], axis
                )
        pixels.masked_fill_(masked, 0)

    def _erase(self, pixels: Tensor) -> Tensor:
        batch, device = len(pixels), pixels.device
        chosen = _send(self._uniform(batch, 0, 1) < self.config.erasing, device)
        (left, right), (top, bottom) = self._spans(batch, 0.5), self._spans(batch, 0.5)
        time = _inside(_send(left, device), _send(right, device), pixels.shape[3], axis=3)
        band = _inside(_send(top, device), _send(bottom, device), pixels.shape[2], axis=2)
        noise = _send(torch.rand(pixels.shape[1:], generator=self.random), device)
        return torch.where(time & band & chosen[:, None, None, None], noise, pixels)


def _send(choices: Tensor, device: torch.device) -> Tensor:
    """Copy random choices to the training device, without waiting for what it has to do before."""
    return choices.to(device, non_blocking=True)


def shift_time(images: Tensor, fraction: Tensor) -> Tensor:
    """Rotate pictures `(B, C, H, W)` along time by `fraction` `(B,)` of their width; any dtype."""
    width = images.shape[3]
    offset = (fraction * width).round().long()
    index = (torch.arange(width, device=images.device)[None] - offset[:, None]) % width
    return images.gather(3, index[:, None, None].expand(images.shape))


def change_gain(pixels: Tensor, gain: Tensor) -> Tensor:
    """Add `gain` `(B, 1)` or `(B, bands)`, fractions of the dB range, to every pixel that is not at the floor."""
    heard = torch.sign(pixels)  # 0 at the floor, else 1; three times as fast as `where` on a processor
    return heard.mul_(gain[:, None, :, None]).add_(pixels).clamp_(0, 1)


def curve(knots: Tensor, bands: int) -> Tensor:
    """Gains `(B, knots)` at equal distances, joined by straight lines over the bands: `(B, bands)`.

    As another microphone or room colours a sound. Nam et al., FilterAugment, 2022, with fixed corners.
    """
    return functional.interpolate(knots[:, None], size=bands, mode="linear", align_corners=True)[:, 0]


def warp(pixels: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
    """Stretch time and frequency by `scale` `(B, 2)` and shift bands by `offset` `(B,)` of the height.

    Time wraps around the clip; beyond the lowest and highest band there is silence.
    """
    batch, _, height, width = pixels.shape
    device = pixels.device
    time = (torch.arange(width, device=device)[None] + 0.5) / width
    time = (0.5 + (time - 0.5) / scale[:, :1]) % 1 * 2 - 1
    band = (torch.arange(height, device=device)[None] + 0.5) / height * 2 - 1
    band = 1 + (band - 1) / scale[:, 1:] - 2 * offset[:, None]  # row H - 1, the lowest band, stays put
    grid = torch.empty(batch, height, width, 2, device=device)
    grid[..., 0] = time[:, None, :]
    grid[..., 1] = band[:, :, None]
    return functional.grid_sample(pixels, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def mix_power(own: Tensor, other: Tensor, ratio: Tensor, db_range: float) -> Tensor:
    """Add the powers of two pictures, as two sounds in one room do.

    With `ratio` r `(B,)` in [0, 1] as amplitude of `own` and 1 - r of `other`, powers are weighted by
    r^2 and (1 - r)^2 over their sum (Tokozume et al., Between-class learning, 2018, equation 2).
    """
    nepers = db_range * math.log(10) / 10
    weight = ratio.clamp(1e-4, 1 - 1e-4)[:, None, None, None]
    total = weight**2 + (1 - weight) ** 2
    mixed = torch.logaddexp(
        own * nepers + torch.log(weight**2 / total), other * nepers + torch.log((1 - weight) ** 2 / total)
    )
    return (mixed / nepers).clamp_(0, 1)


def mix_image(own: Tensor, other: Tensor, ratio: Tensor, db_range: float) -> Tensor:
    """Blend pixel values, `ratio` `(B,)` of `own` and the rest of `other` (Zhang et al., mixup, 2018)."""
    weight = ratio[:, None, None, None]
    return own * weight + other * (1 - weight)


def mask(pixels: Tensor, start: Tensor, stop: Tensor, axis: int) -> Tensor:
    """Silence the stretch from `start` to `stop`, fractions `(B,)`, along `axis` (2 bands, 3 time).

    Park et al., SpecAugment, 2019.
    """
    return pixels.masked_fill(_inside(start, stop, pixels.shape[axis], axis), 0)


def _inside(start: Tensor, stop: Tensor, size: int, axis: int) -> Tensor:
    """True between `start` and `stop` (fractions, `(B,)`) along `axis`; broadcasts to pictures."""
    position = (torch.arange(size, device=start.device) + 0.5) / size
    inside = (position[None] >= start[:, None]) & (position[None] < stop[:, None])
    return inside[:, None, None, :] if axis == 3 else inside[:, None, :, None]
