"""Spectrogram augmentation, a whole batch at a time on the training device.

Images are levels in dB (see `spectrogram`), so the changes mimic what happens to sounds: they start
earlier or later, get louder, lose a stretch of time or a band, and add up with others. `Augmenter` is the
only entry; the functions below it are one change each and can be rendered one by one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from soundsight.config import AugmentConfig

# With several labels per clip, the least share of either of two mixed sounds: the weaker is 12 dB below at most and can
# be audible, so that the clip has the labels of both.
LEAST_SHARE = 0.2
NOISE_SNR_DB = -5.0, 25.0  # of a clip to the background that is mixed in: mean power over the image
FILTER_KNOTS = 5  # corners of a random filter, from the lowest to the highest band

# Pixels of a batch are float32 (batch, channel, band, frame) in [0, 1]: 0 is db_floor, 1 is db_ceiling.


class Augmenter:
    """Draws random changes and applies them to batches of images and labels."""

    def __init__(
        self,
        config: AugmentConfig,
        *,
        classes: int,
        db_range: float,
        seed: int = 0,
        multi: bool = False,
        noise: Tensor | None = None,
    ) -> None:
        self.config = config
        self.classes = classes
        self.db_range = db_range  # dB from black to white
        self.seed = seed
        self.multi = multi  # whether a clip has any number of the classes
        self.noise = noise  # images of background, uint8 (N, 3, height, width) on the device of the batches
        self.class_weight: Tensor | None = None
        self.columns: dict[str, int] = {}  # of `plot`, in order: how many each kind of change has
        self.random = torch.Generator()
        self.reseed(0)

    def reseed(self, epoch: int) -> None:
        """Restart the random choices of an epoch, so that a resumed run plots what an unbroken one would."""
        self.random.manual_seed(self.seed * 1_000_003 + epoch)

    def weigh_classes(self, labels: Tensor) -> None:
        """Weigh clips by the inverse of how often their class is in `labels` `(N,)`; mean weight 1 a clip."""
        counts = labels.bincount(minlength=self.classes).clamp_min(1).float()
        self.class_weight = len(labels) / (self.classes * counts)

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Augment one batch.

        Args:
            images: uint8 `(batch, 3, height, width)`.
            labels: int64 `(batch,)`, or with several labels per clip 0 or 1 `(batch, classes)`.

        Returns:
            float32 images `(batch, 3, height, width)` in [0, 1] and float32 target probabilities
            `(batch, classes)`: each row sums to 1, or to its weight after `weigh_classes`; with several labels per
            clip each is from 0 to 1 on its own.
        """
        choices = self.draw(len(images)).to(images.device, non_blocking=True)
        pixels, targets = self.apply(images, labels, choices)
        if self.config.erasing:
            pixels = self._erase(pixels)
        return pixels, targets

    def draw(self, batch: int) -> Tensor:
        """The random choices for a batch, all but those of erasing, as `apply` takes them: float32 `(batch, N)`."""
        config = self.config
        chosen: dict[str, Tensor] = {}
        if config.shift:
            chosen["shift"] = self._uniform(batch, -config.shift, config.shift)
        if config.stretch or config.freq_shift:
            low, high = 1 / (1 + config.stretch), 1 + config.stretch
            chosen["scale"] = torch.exp(self._uniform((batch, 2), math.log(low), math.log(high)))
            chosen["offset"] = self._uniform(batch, -config.freq_shift, config.freq_shift)
        if config.gain_db:
            chosen["gain"] = self._uniform(batch, -config.gain_db, config.gain_db) / self.db_range
        if config.filter_db:
            gain = self._uniform((batch, FILTER_KNOTS), -config.filter_db, config.filter_db)
            chosen["filter"] = gain / self.db_range
        if config.mixup or config.cutmix:
            chosen["partner"] = torch.randperm(batch, generator=self.random)
            least = LEAST_SHARE if self.multi else 0.0
            draw, chosen["ratio"] = self._uniform(batch, 0, 1), self._uniform(batch, least, 1 - least)
            chosen["mixing"] = draw < config.mixup
            chosen["cutting"] = draw >= 1 - config.cutmix if config.cutmix else torch.zeros(batch)
            cutting = chosen["cutting"].nonzero().flatten()
            chosen["cut"] = torch.zeros(batch, 2)
            if len(cutting):
                chosen["cut"][cutting] = self._spans(len(cutting), 1 - least, least)
        if self.noise is not None:
            chosen["noisy"] = self._uniform(batch, 0, 1) < config.noise_share
            chosen["noise"] = torch.randint(len(self.noise), (batch,), generator=self.random)
            chosen["roll"], chosen["snr"] = self._uniform(batch, 0, 1), self._uniform(batch, *NOISE_SNR_DB)
        for name, count, width in (
            ("time", config.time_masks, config.time_mask_width),
            ("band", config.freq_masks, config.freq_mask_width),
        ):
            for number in range(count):
                chosen[f"{name}{number}"] = self._spans(batch, width)
        columns = [value.reshape(batch, -1).float() for value in chosen.values()]
        self.columns = dict(zip(chosen, [column.shape[1] for column in columns], strict=True))
        return torch.cat(columns, 1) if columns else torch.zeros(batch, 0)

    def apply(self, images: Tensor, labels: Tensor, choices: Tensor) -> tuple[Tensor, Tensor]:
        """Change a batch as `draw` chose; on a GPU no step waits for it, so that a CUDA graph can record them."""
        config = self.config
        chosen = dict(zip(self.columns, choices.split(list(self.columns.values()), 1), strict=True))
        if self.multi:
            targets = labels.float()
        else:
            targets = (labels[:, None] == torch.arange(self.classes, device=labels.device)).float()
        targets = targets * (1 - config.label_smoothing) + config.label_smoothing / self.classes
        if self.class_weight is not None:  # of the clip's own class, whatever smoothing or mixing give to others
            self.class_weight = self.class_weight.to(targets.device)
            targets = targets * self.class_weight[labels.long()][:, None]
        if config.shift:
            images = shift_time(images, chosen["shift"][:, 0])
        pixels = images.float().div_(255)  # ours from here on, so changed in place
        if config.stretch or config.freq_shift:
            pixels = warp(pixels, chosen["scale"], chosen["offset"][:, 0])
        if config.gain_db:
            pixels = change_gain(pixels, chosen["gain"])
        if config.filter_db:
            pixels = change_gain(pixels, curve(chosen["filter"], pixels.shape[2]))
        if config.mixup or config.cutmix:
            pixels, targets = self._mix(pixels, targets, chosen)
        if self.noise is not None:
            pixels = self._add_noise(pixels, chosen)
        masked = pixels.new_zeros((), dtype=torch.bool)  # silent stretches of time and bands, all in one pass
        for count, name, axis in ((config.time_masks, "time", 3), (config.freq_masks, "band", 2)):
            for number in range(count):
                masked = masked | inside(chosen[f"{name}{number}"], pixels.shape[axis], axis)
        pixels.masked_fill_(masked, 0)
        return pixels, targets

    def _uniform(self, size: int | tuple[int, ...], low: float, high: float) -> Tensor:
        shape = (size,) if isinstance(size, int) else size
        return torch.rand(shape, generator=self.random) * (high - low) + low

    def _spans(self, batch: int, width: float, least: float = 0.0) -> Tensor:
        """Random stretches of [0, 1], each of a random length up to `width`: starts and ends `(batch, 2)`."""
        length = self._uniform(batch, least, width)
        start = self._uniform(batch, 0, 1) * (1 - length)
        return torch.stack([start, start + length], 1)

    def _mix(self, pixels: Tensor, targets: Tensor, chosen: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Mix a share of the batch with other members of it, and their targets alike."""
        partner, ratio = chosen["partner"][:, 0].long(), chosen["ratio"][:, 0]
        mixing, cutting = chosen["mixing"][:, 0] > 0, chosen["cutting"][:, 0] > 0
        share = torch.ones_like(ratio)  # of the image's own target
        changed = []
        if self.config.mixup:
            rows = _rows(mixing)
            mix = mix_power if self.config.mixup_domain == "power" else mix_image
            changed.append((rows, mixing, mix(pixels[rows], pixels[partner[rows]], ratio[rows], self.db_range)))
            share = torch.where(mixing, ratio, share)
        if self.config.cutmix:
            rows = _rows(cutting)
            cut = inside(chosen["cut"], pixels.shape[3], axis=3)
            changed.append((rows, cutting, torch.where(cut[rows], pixels[partner[rows]], pixels[rows])))
            share = torch.where(cutting, 1 - cut.float().mean(dim=(1, 2, 3)), share)
        for rows, wanted, mixed in changed:
            pixels = _put(pixels, rows, wanted, mixed)
        weight = share[:, None]
        if self.multi:  # both sounds are there
            return pixels, torch.where(weight < 1, torch.maximum(targets, targets[partner]), targets)
        return pixels, targets * weight + targets[partner] * (1 - weight)

    def _add_noise(self, pixels: Tensor, chosen: dict[str, Tensor]) -> Tensor:
        """Mix background into a share of the batch; the targets stay."""
        assert self.noise is not None
        noisy = chosen["noisy"][:, 0] > 0
        rows = _rows(noisy)
        noise = shift_time(self.noise[chosen["noise"][rows, 0].long()], chosen["roll"][rows, 0]).float() / 255
        mixed = mix_noise(pixels[rows], noise, chosen["snr"][rows, 0], self.db_range)
        return _put(pixels, rows, noisy, mixed)

    def _erase(self, pixels: Tensor) -> Tensor:
        batch, device = len(pixels), pixels.device
        chosen = (self._uniform(batch, 0, 1) < self.config.erasing).to(device)
        time = inside(self._spans(batch, 0.5).to(device), pixels.shape[3], axis=3)
        band = inside(self._spans(batch, 0.5).to(device), pixels.shape[2], axis=2)
        noise = torch.rand(pixels.shape[1:], generator=self.random).to(device)
        return torch.where(time & band & chosen[:, None, None, None], noise, pixels)


def _rows(wanted: Tensor) -> Tensor | slice:
    """The rows to compute: those wanted, or on a GPU all, since asking it which would mean to wait for it."""
    return slice(None) if wanted.is_cuda else wanted.nonzero().flatten()


def _put(pixels: Tensor, rows: Tensor | slice, wanted: Tensor, changed: Tensor) -> Tensor:
    """Pixels with the images of `rows` changed, or those that are `wanted` of all."""
    if isinstance(rows, slice):
        return torch.where(wanted[:, None, None, None], changed, pixels)
    pixels[rows] = changed
    return pixels


def shift_time(images: Tensor, fraction: Tensor) -> Tensor:
    """Rotate images `(B, C, H, W)` along time by `fraction` `(B,)` of their width; any dtype."""
    width = images.shape[3]
    offset = (fraction * width).round().long()
    index = (torch.arange(width, device=images.device)[None] - offset[:, None]) % width
    return images.gather(3, index[:, None, None].expand(images.shape))


def change_gain(pixels: Tensor, gain: Tensor) -> Tensor:
    """Add `gain` `(B, 1)` or `(B, bands)`, fractions of the dB range, to every pixel that is not at the floor."""
    sounding = torch.sign(pixels)  # 0 at the floor, else 1; three times as fast as `where` on a processor
    return sounding.mul_(gain[:, None, :, None]).add_(pixels).clamp_(0, 1)


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
    """Add the powers of two images, as two sounds in one room do.

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


def mix_noise(own: Tensor, noise: Tensor, snr_db: Tensor, db_range: float) -> Tensor:
    """Add the power of `noise` to `own`, both `(B, C, H, W)`, at a ratio of their mean powers of `snr_db` `(B,)`.

    The loudest point stays where it was, as that is what the levels of a clip are relative to.
    """
    nepers = db_range * math.log(10) / 10
    sound, background = own * nepers, noise * nepers
    level = [torch.logsumexp(image.flatten(1), 1) for image in (sound, background)]
    gain = level[0] - level[1] - snr_db * (math.log(10) / 10)
    mixed = torch.logaddexp(sound, background + gain[:, None, None, None])
    excess = (mixed.amax((1, 2, 3)) - sound.amax((1, 2, 3)))[:, None, None, None]
    return ((mixed - excess) / nepers).clamp_(0, 1)


def mix_image(own: Tensor, other: Tensor, ratio: Tensor, db_range: float) -> Tensor:
    """Blend pixel values, `ratio` `(B,)` of `own` and the rest of `other` (Zhang et al., mixup, 2018)."""
    weight = ratio[:, None, None, None]
    return own * weight + other * (1 - weight)


def inside(span: Tensor, size: int, axis: int) -> Tensor:
    """True from start to end, fractions `(B, 2)`, along `axis` (2 bands, 3 time); broadcasts to images.

    To silence such stretches: Park et al., SpecAugment, 2019.
    """
    position = (torch.arange(size, device=span.device) + 0.5) / size
    inside = (position[None] >= span[:, :1]) & (position[None] < span[:, 1:])
    return inside[:, None, None, :] if axis == 3 else inside[:, None, :, None]
