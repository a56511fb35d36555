"""An Ultralytics trainer for spectrograms: images in memory, augmented by the batch on the device.

Plugs in through Ultralytics' own `trainer=` argument and the methods it documents for overriding; nothing
is patched. It also writes the model's preprocessing (spectrogram settings, class names) into every checkpoint.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any, ClassVar, Self

import soundsight.backend.quiet  # noqa: F401  (before Ultralytics)

# isort: split
import torch
from ultralytics.data import build_dataloader
from ultralytics.data.augment import classify_transforms
from ultralytics.utils import LOGGER, RANK, IterableSimpleNamespace
from ultralytics.utils.torch_utils import unwrap_model

from soundsight import checks
from soundsight.augment import Augmenter
from soundsight.backend import graphs
from soundsight.backend.guard import StockTrainer
from soundsight.backend.multilabel import BinaryLoss, MultiLabelValidator, begin_at_prior
from soundsight.backend.noise import noise_images
from soundsight.config import BACKGROUND, AugmentConfig, SpectrogramConfig, to_dict
from soundsight.datasets.images import read_image
from soundsight.datasets.multi import labelled
from soundsight.errors import ConfigError
from soundsight.files import TEMP_PREFIX
from soundsight.machine import Threads, free_memory
from soundsight.parallel import cores

# A set of images above this share of the free memory is read from disk batch by batch, and of the GPU's, kept off it.
MEMORY_SHARE = 0.4
# A number in the arguments of an unfinished checkpoint of ours, so that no other trainer goes on with it unawares.
_OURS = "off; Soundsight augments this training, so that `yolo` cannot resume it: use `soundsight train resume=last.pt`"
SAVE_SECONDS = 2.0  # from one checkpoint to the next: what a kill may cost


class ImageSet(torch.utils.data.Dataset):
    """The images of one split, as uint8 RGB; all of them in memory if they fit.

    `labels` are class indices `(N,)`, or with several labels per clip 0 or 1 `(N, classes)`.
    """

    def __init__(self, root: Path, names: list[str], image_size: int, *, multi: bool = False) -> None:
        self.files, targets = labelled(Path(root), names, multi=multi)
        self.labels = torch.from_numpy(targets)
        if not self.files:
            raise ConfigError(f"There are no images under {root}; run `soundsight prepare` first.")
        self.image_size = image_size
        size = len(self.files) * 3 * image_size**2
        self.images = self._read_all() if size < MEMORY_SHARE * free_memory() else None

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = self.images[index] if self.images is not None else self._read(self.files[index])
        return {"img": image, "cls": self.labels[index]}

    def _read_all(self) -> torch.Tensor:
        images = torch.empty(len(self.files), 3, self.image_size, self.image_size, dtype=torch.uint8)

        def place(row: int) -> None:
            images[row] = self._read(self.files[row])

        with ThreadPoolExecutor(cores()) as threads:
            for _ in threads.map(place, range(len(images))):
                pass
        return images

    def _read(self, file: Path) -> torch.Tensor:
        pixels = read_image(file)
        height, width = pixels.shape[:2]
        if (height, width) != (self.image_size, self.image_size):
            raise ConfigError(
                f"imgsz={self.image_size} does not match the images, which are {width} x {height} ({file}): "
                f"train with imgsz={width}, or prepare again with image_size={self.image_size}."
            )
        return torch.from_numpy(pixels).permute(2, 0, 1)


class BalancedImages(torch.utils.data.Dataset):
    """An `ImageSet` that shows every class as often: index i gives some image of class i modulo their number."""

    def __init__(self, images: ImageSet) -> None:
        self.images = images
        self.members = [column.nonzero().flatten() for column in _membership(images.labels).T]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        members = self.members[index % len(self.members)]
        return self.images[int(members[torch.randint(len(members), ())])]


class MemoryLoader:
    """Batches from an `ImageSet` in memory; offers what Ultralytics' trainer asks of a data loader."""

    num_workers = 0
    drop_last = False

    def __init__(
        self,
        dataset: ImageSet,
        batch_size: int,
        *,
        shuffle: bool,
        seed: int,
        device: torch.device,
        balanced: bool = False,
    ) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0
        members = _membership(dataset.labels)
        self.share = (members / members.sum(0)).amax(1) if balanced else None  # by the rarest of an image's classes
        self.sampler = range(len(dataset))
        assert dataset.images is not None
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else math.inf
        place = device if dataset.images.nbytes < MEMORY_SHARE * free else torch.device("cpu")
        self.images = dataset.images.to(place)
        self.labels = dataset.labels.to(place)

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.batch_size)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        order = torch.arange(len(self.dataset))
        if self.shuffle:
            random = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
            if self.share is None:
                order = torch.randperm(len(order), generator=random)
            else:  # every class as often, so images of rare ones come several times an epoch
                order = torch.multinomial(self.share, len(order), replacement=True, generator=random)
        for rows in order.to(self.images.device).split(self.batch_size):
            images = self.images[rows]
            yield {"img": images if self.shuffle else images.float() / 255, "cls": self.labels[rows]}

    def reset(self) -> None:
        """Nothing to restart: there are no worker processes."""


class SpectrogramTrainer(StockTrainer):
    """Ultralytics' classification trainer with our loader, augmentation and preprocessing.

    Use `configured` to bind the settings: several processes then rebuild the very same class.
    """

    model: Any  # Ultralytics first keeps a path here, then the network
    spectrogram: ClassVar[SpectrogramConfig | None] = None
    augment: ClassVar[AugmentConfig] = AugmentConfig()
    labels: ClassVar[Mapping[str, str]] = {}  # of class folders whose names are not their labels
    multi: ClassVar[bool] = False  # whether a clip has any number of the classes
    seen: ClassVar[Any] = None  # hashes of the clips of the training; None: not known
    threads: ClassVar[int | None] = None  # on a CPU; None: as other processes leave
    choice: Threads | None = None
    saved = -math.inf  # when a checkpoint was last written, in seconds of `time.monotonic`
    recorded = False  # whether CUDA graphs were made, or could not be

    @classmethod
    def configured(cls, spectrogram: SpectrogramConfig | None, augment: AugmentConfig, **more: Any) -> type[Self]:
        """A subclass that carries these settings; made on the fly, so it travels to other processes whole."""
        return type("SpectrogramTrainer", (cls,), {"spectrogram": spectrogram, "augment": augment, **more})

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.device.type == "cpu":
            self.choice = Threads() if self.threads is None and cores() > 1 else None
            torch.set_num_threads(self.threads or cores())
        ended = self.callbacks["on_fit_epoch_end"]  # Ultralytics reports to Ray Tune by itself, other figures than ours
        ended[:] = [callback for callback in ended if not callback.__module__.endswith("callbacks.raytune")]
        for event, callback in (
            ("on_pretrain_routine_end", _mix_precision),
            ("on_train_epoch_start", _start_epoch),
            ("on_train_batch_start", _record_passes),
        ):
            if callback not in self.callbacks[event]:  # a process of several gets them with the trainer
                self.add_callback(event, callback)

    def check_resume(self, overrides: dict[str, Any]) -> None:
        """Go on from a checkpoint with the arguments given, which `resumed_arguments` has read from it and checked."""
        self.resume = bool(self.args.resume)
        if self.resume:
            self.args.model = self.args.resume

    def get_dataset(self) -> dict[str, Any]:
        """See Ultralytics'; with several labels per clip `background` is no class."""
        data: dict[str, Any] = super().get_dataset()
        if self.multi:
            names = [name for name in data["names"].values() if name != BACKGROUND]
            data |= {"names": dict(enumerate(names)), "nc": len(names)}
        return data

    def get_validator(self) -> Any:
        """See Ultralytics'; with several labels per clip one that counts mean average precision."""
        if not self.multi:
            return super().get_validator()
        return MultiLabelValidator(self.test_loader, self.save_dir, args=copy(self.args), _callbacks=self.callbacks)

    def set_model_attributes(self) -> None:
        """Name the classes, and give the model its preprocessing."""
        super().set_model_attributes()
        from soundsight.backend.checkpoint import make_preprocessing

        names = [self.labels.get(folder, folder) for folder in self.data["names"].values()]
        self.model.names = dict(enumerate(names))
        self.model.soundsight = make_preprocessing(
            self.spectrogram,
            names,
            augment=to_dict(self.augment),
            seen=self.seen,
            **({"labels": "multi"} if self.multi else {}),
        )
        if self.device.type == "cpu":
            self.model = self.model.to(memory_format=torch.channels_last)
        config = self.spectrogram
        self.augmenter = Augmenter(
            self.augment,
            classes=len(names),
            db_range=config.db_ceiling - config.db_floor if config else 80.0,
            seed=self.args.seed + 7919 * max(RANK, 0),  # each process makes its own random choices
            multi=self.multi,
            noise=self._noise(),
        )
        self.change: Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]] = self.augmenter

    def get_dataloader(self, dataset_path: str, batch_size: int = 16, rank: int = 0, mode: str = "train") -> Any:
        """Batches of uint8 images (train) or float images in [0, 1] (val)."""
        if mode != "train":
            self.model.transforms = classify_transforms(self.args.imgsz)
        names = list(self.data["names"].values())
        dataset = ImageSet(Path(dataset_path), names, self.args.imgsz, multi=self.multi)
        if mode == "train":
            self._weigh(dataset.labels)
        if dataset.images is not None and rank == -1:
            return MemoryLoader(
                dataset,
                batch_size,
                shuffle=mode == "train",
                seed=self.args.seed,
                device=self.device,
                balanced=self.augment.balance == "sampler",
            )
        if mode != "train":
            if self.multi:
                return build_dataloader(dataset, batch_size, self.args.workers, rank=rank, device=self.device)
            return super().get_dataloader(dataset_path, batch_size, rank, mode)
        if rank == -1:
            checks.check_shared_memory(workers=self.args.workers, batch=batch_size, image_size=self.args.imgsz)
        shown = BalancedImages(dataset) if self.augment.balance == "sampler" else dataset
        return build_dataloader(shown, batch_size, self.args.workers, rank=rank, device=self.device)

    def _weigh(self, labels: torch.Tensor) -> None:
        """Balance classes by weights, and set the loss and the first bias where a clip has several labels."""
        weighed = self.augment.balance == "weights"
        if not self.multi:
            if weighed:
                self.augmenter.weigh_classes(labels)
            return
        counts = labels.sum(0).clamp_min(1).float()
        weight = (counts.mean() / counts).to(self.device) if weighed else None
        network: Any = unwrap_model(self.model)
        network.criterion = BinaryLoss(weight)
        if not self.resume:
            begin_at_prior(network.model[-1].linear, labels)

    def _noise(self) -> torch.Tensor | None:
        """Images of background to mix into those of the training, uint8 `(N, 3, size, size)` on its device."""
        if not self.augment.noise:
            return None
        if self.spectrogram is None:
            raise ConfigError(
                f"augment.noise={self.augment.noise} needs images that `soundsight prepare` rendered, whose settings "
                "are known; leave it out."
            )
        return torch.from_numpy(noise_images(self.augment.noise, self.spectrogram)).to(self.device)

    def preprocess_batch(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Augment the batch on the training device; labels become target probabilities."""
        images, labels = super().preprocess_batch(batch).values()
        batch["img"], batch["cls"] = self.change(images, labels)
        batch["img"] = batch["img"].contiguous(memory_format=torch.channels_last)
        return batch

    def save_model(self) -> bool:
        """Write checkpoints so that a kill leaves the former one, never a part of the new one.

        Epochs shorter than `SAVE_SECONDS` share one, unless they are the best or the last: writing it would take
        as long as they do.
        """
        wanted = self.stop or self.save_period > 0 or (self.fitness is not None and self.fitness == self.best_fitness)
        if not wanted and time.monotonic() < self.saved + SAVE_SECONDS:
            return False
        self.saved = time.monotonic()
        arguments = self.args
        if not self.stop:
            self.args = IterableSimpleNamespace(**{**vars(arguments), "erasing": _OURS})
        goals = self.last, self.best
        self.last, self.best = (goal.with_name(f"{TEMP_PREFIX}{goal.name}") for goal in goals)
        try:
            saved: bool = super().save_model()
            for written, goal in zip((self.last, self.best), goals, strict=True):
                if written.exists():
                    os.replace(written, goal)
        finally:
            self.last, self.best = goals
            self.args = arguments
        return saved

    def final_eval(self) -> None:
        """Make the checkpoints smaller at the end, on copies, so that a kill leaves the former ones whole."""
        if RANK not in (-1, 0):
            super().final_eval()
            return
        goals = self.last, self.best
        with smaller(self.last) as last, smaller(self.best) as best:
            self.last, self.best = last, best
            try:
                super().final_eval()
            finally:
                self.last, self.best = goals

    def plot_training_samples(self, batch: dict[str, torch.Tensor], ni: int) -> None:
        """Render a few augmented images, each with its strongest label."""
        super().plot_training_samples({**batch, "cls": batch["cls"].argmax(1)}, ni)


@contextmanager
def smaller(checkpoint: Path) -> Iterator[Path]:
    """Lend a copy of a checkpoint to change; it takes the place of the checkpoint if the block ends well."""
    draft = checkpoint.with_name(f"{TEMP_PREFIX}{checkpoint.name}")
    try:
        if checkpoint.exists():
            shutil.copyfile(checkpoint, draft)
        yield draft
        if draft.exists():
            os.replace(draft, checkpoint)
    finally:
        draft.unlink(missing_ok=True)


def _mix_precision(trainer: SpectrogramTrainer) -> None:
    """Honour `amp: true` on processors that multiply bfloat16; Ultralytics knows mixed precision on GPUs only."""
    if trainer.device.type == "cpu" and trainer.args.amp is True and _cpu_has_bfloat16():
        trainer.amp = True  # torch.autocast then computes convolutions in bfloat16
    if RANK in (-1, 0):
        precision = "mixed precision" if trainer.amp else "fp32"
        LOGGER.info(f"Soundsight trains on {trainer.device.type} in {precision}.")


def _record_passes(trainer: SpectrogramTrainer) -> None:
    """Before the first batch on one GPU: go on through CUDA graphs."""
    args = trainer.args
    sums = round(args.nbs / trainer.batch_size) > 1  # gradients of several batches, after the warm-up at the latest
    if trainer.device.type != "cuda" or RANK != -1 or trainer.recorded or args.compile or sums:
        return
    trainer.recorded = True
    shape = trainer.batch_size, trainer.data["channels"], args.imgsz, args.imgsz
    sample = torch.zeros(shape, device=trainer.device).contiguous(memory_format=torch.channels_last)
    mixed = torch.bfloat16 if args.amp == "bf16" else torch.float16
    try:
        graphs.record_network(trainer.model, sample, dtype=mixed if trainer.amp else None)
        if not trainer.augment.erasing:
            trainer.change = graphs.RecordedAugmenter(trainer.augmenter, shape[0], args.imgsz, trainer.device)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()  # Ultralytics will find a smaller batch, if need be


def _start_epoch(trainer: SpectrogramTrainer) -> None:
    if trainer.choice is not None and (threads := trainer.choice.choose()) != torch.get_num_threads():
        torch.set_num_threads(threads)
        LOGGER.info(f"From epoch {trainer.epoch + 1} with {threads} of {cores()} threads, as other processes leave.")
    trainer.augmenter.reseed(trainer.epoch)
    trainer.train_loader.epoch = trainer.epoch


def _membership(labels: torch.Tensor) -> torch.Tensor:
    """Which class each image counts for, bool `(N, classes)`; those without any make one more class.

    Classes without images are left out.
    """
    if labels.ndim == 1:
        members = torch.nn.functional.one_hot(labels).bool()
    else:
        labels = labels.bool()
        members = torch.cat([labels, ~labels.any(1, keepdim=True)], 1)
    return members[:, members.any(0)]


def _cpu_has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 natively (AVX512-BF16 or AMX on x86)."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
