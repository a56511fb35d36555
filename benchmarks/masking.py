"""Do heat maps mean anything? Mask the hottest tenth of each image, and see what that does to the prediction.

    python benchmarks/masking.py MODEL DATA --fold 1 [--clips 400] [--out FILE.json]

MODEL is a checkpoint that was not trained on that fold, DATA a prepared folder with the model's settings.
Masked is what `silence` looks like: black. Everything is masked in cells of a sixteenth of the image's side
(and, for comparison, pixel by pixel), chosen by: the heat map of `soundsight explain`; chance; loudness; and
Grad-CAM of the last layer. What is reported is the mean fall of the probability of the class that the model
had named. One processor thread, no network.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from soundsight.datasets import manifest
from soundsight.datasets.images import read_image
from soundsight.evaluation.scoring import check_preprocessing
from soundsight.inference.explain import explain
from soundsight.models.classifier import Classifier
from soundsight.models.load import load_classifier

SHARE, GRID, BATCH = 0.1, 16, 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--fold", default="5")
    parser.add_argument("--clips", type=int, help="at most so many, chosen at random")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    classifier = load_classifier(arguments.model, device="cpu", threads=1)
    rows = manifest.read_rows(Path(arguments.data) / manifest.MANIFEST)
    files = [Path(arguments.data, row.split, row.image) for row in rows if row.fold == arguments.fold]
    random = np.random.default_rng(0)
    files = [files[i] for i in sorted(random.permutation(len(files))[: arguments.clips])]
    check_preprocessing(files, classifier.preprocessing.spectrogram, arguments.model)
    falls: dict[str, list[np.ndarray]] = {}
    before, began = [], time.perf_counter()
    for first in range(0, len(files), BATCH):
        images = np.stack([read_image(file) for file in files[first : first + BATCH]])
        named, batch = measure(classifier, images, random)
        before.append(named)
        for key, fall in batch.items():
            falls.setdefault(key, []).append(fall)
    result = summarise(arguments, np.concatenate(before), {k: np.concatenate(v) for k, v in falls.items()})
    result["seconds"] = round(time.perf_counter() - began, 1)
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")


def measure(
    classifier: Classifier, images: np.ndarray, random: np.random.Generator
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Probability of the class named for each image, and how far it falls under each mask."""
    probabilities = classifier.probabilities(images)
    classes = probabilities.argmax(1)
    every = np.arange(len(images))
    maps = {
        "hottest (soundsight explain)": np.stack([explain(classifier, image).saliency for image in images]),
        "random": random.random(images.shape[:3]).astype(np.float32),
        "loudest": images.mean(3, dtype=np.float32),
        "hottest (Grad-CAM, last layer)": grad_cam(classifier, images, classes),
    }
    falls = {}
    for name, saliency in maps.items():
        for grain, cut in {"cells": cells, "pixels": pixels}.items():
            masked = np.where(cut(saliency)[..., None], 0, images).astype(np.uint8)
            after = classifier.probabilities(masked)
            falls[f"{name}, {grain}"] = (probabilities - after)[every, classes]
    return probabilities[every, classes], falls


def cells(saliency: np.ndarray) -> np.ndarray:
    """Mask of the tenth of all cells with the highest mean, `(batch, H, W)`."""
    height, width = saliency.shape[1:]
    means = np.stack([cv2.resize(item, (GRID, GRID), interpolation=cv2.INTER_AREA) for item in saliency])
    chosen = pixels(means).astype(np.uint8)
    grown = [cv2.resize(item, (width, height), interpolation=cv2.INTER_NEAREST) for item in chosen]
    return np.stack(grown).astype(bool)


def pixels(saliency: np.ndarray) -> np.ndarray:
    """Mask of the tenth of all pixels with the highest value, `(batch, H, W)`."""
    flat = saliency.reshape(len(saliency), -1)
    count = round(SHARE * flat.shape[1])
    mask = np.zeros(flat.shape, bool)
    np.put_along_axis(mask, np.argpartition(flat, -count, axis=1)[:, -count:], True, axis=1)
    return mask.reshape(saliency.shape)


def grad_cam(classifier: Classifier, images: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Grad-CAM (Selvaraju et al., ICCV 2017, equations 1 and 2) of the head's convolution."""
    import torch

    caught: list[Any] = []
    keep: Callable[..., None] = lambda _, __, output: caught.append(output)  # noqa: E731
    hook = classifier.network.model[-1].conv.register_forward_hook(keep)
    try:
        inputs = torch.from_numpy(images).permute(0, 3, 1, 2).float().div(255).requires_grad_()
        logits = classifier.network(inputs)[1]
    finally:
        hook.remove()
    score = logits.gather(1, torch.from_numpy(classes)[:, None]).sum()
    (gradient,) = torch.autograd.grad(score, caught)
    saliency = (gradient.mean((2, 3), keepdim=True) * caught[0]).sum(1).relu().detach().numpy()
    size = images.shape[2], images.shape[1]
    return np.stack([cv2.resize(item, size, interpolation=cv2.INTER_CUBIC) for item in saliency])


def summarise(arguments: argparse.Namespace, before: np.ndarray, falls: dict[str, np.ndarray]) -> dict[str, Any]:
    """Mean falls with 95 % intervals over clips."""
    half = 1.96 / len(before) ** 0.5
    table = {
        key: {"fall": round(float(v.mean()), 4), "interval_95": round(float(half * v.std(ddof=1)), 4)}
        for key, v in falls.items()
    }
    hot, chance = (falls[f"{name}, cells"] for name in ("hottest (soundsight explain)", "random"))
    return {
        "model": arguments.model,
        "fold": arguments.fold,
        "clips": len(before),
        "mean_probability_before": round(float(before.mean()), 4),
        "masked_share": SHARE,
        "mean_fall": table,
        "clips_where_hottest_fell_more_than_random": round(float((hot > chance).mean()), 4),
    }


if __name__ == "__main__":
    main()
