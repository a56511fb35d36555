"""Checkpoints `.pt`, computed by PyTorch; see `backend.checkpoint` for what is believed of them."""

from __future__ import annotations

from pathlib import Path

from soundsight.backend import checkpoint
from soundsight.backend.compat import training_arguments
from soundsight.checks import choose_device
from soundsight.config import SpectrogramConfig
from soundsight.errors import ModelError
from soundsight.models.classifier import Classifier, checked

KINDS = (".pt",)


def read(
    path: Path, *, device: str | None, spectrogram: SpectrogramConfig | None, trust: bool, threads: int | None
) -> Classifier:
    """Build the network of a checkpoint and load its weights; see `load.load_classifier`."""
    import torch

    chosen = choose_device(device)
    data = checkpoint.read_file(path)
    content = checkpoint.parse_checkpoint(data, path, trust=trust)
    model = checkpoint.checkpoint_model(content)
    preprocessing = checkpoint.read_preprocessing(
        getattr(model, "soundsight", None), path, checkpoint.class_names(model, path), supplied=spectrogram
    )
    trained = training_arguments(content).get("imgsz")
    if preprocessing.supplied and isinstance(trained, int) and trained != preprocessing.spectrogram.image_size:
        raise ModelError(
            f"{path} was trained on images of {trained} pixels, but the given spectrogram settings have image_size="
            f"{preprocessing.spectrogram.image_size}; give settings with image_size={trained}."
        )
    if threads:
        torch.set_num_threads(threads)
    try:
        network = model.float().eval().fuse(verbose=False).to(chosen).to(memory_format=torch.channels_last)
    except Exception as error:  # whatever layers that lack their parts provoke
        raise ModelError(f"{path} holds a network that does not fit together; it is damaged.") from error
    classifier = Classifier(network, preprocessing, device=chosen, model_hash=checkpoint.hash_of(data)[:12])
    return checked(classifier, path)
