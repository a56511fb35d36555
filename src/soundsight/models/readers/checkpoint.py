"""Checkpoints `.pt`, computed by PyTorch; see `backend.checkpoint` for what is believed of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from soundsight.backend import checkpoint
from soundsight.backend.compat import training_arguments
from soundsight.backend.device import choose_device
from soundsight.config import SpectrogramConfig
from soundsight.errors import ModelError
from soundsight.models.classifier import Classifier

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
    return check_prediction(classifier, path, preprocessing)


def check_prediction(classifier: Classifier, path: Path, preprocessing: checkpoint.Preprocessing) -> Classifier:
    """Ask for one black image, so that a file that lies about its network is found out."""
    size = preprocessing.spectrogram.image_size
    try:
        prediction = classifier.logits(np.zeros((1, size, size, 3), np.uint8))
    except Exception as error:  # whatever layers that do not fit together provoke
        text = " ".join(str(error).split())[:160] or type(error).__name__
        raise ModelError(
            f"{path} does not accept the {size} x {size} images that its settings render ({text})."
        ) from error
    if prediction.shape != (1, len(preprocessing.names)) or not np.isfinite(prediction).all():
        raise ModelError(
            f"{path} names {len(preprocessing.names)} classes, but its output has shape {prediction.shape} or "
            "values that are no numbers; it is damaged."
        )
    return classifier
