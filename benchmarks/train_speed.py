"""Time of a training epoch: the stock `yolo` command, our wrapper around it, and our own trainer.

    python -m benchmarks.train_speed                                        # on 20 x 40 synthesised clips
    python -m benchmarks.train_speed --data data --model yolov8n-cls.pt     # on prepared pictures
    python -m benchmarks.train_speed --device 0 --epochs 5                  # on a GPU

All train on the same pictures with the same arguments (configs/train.yaml), in turn. The first epoch of each run is
left out, and so is validation. In mixed precision `yolo` computes on GPUs only; our trainer does on processors with
bfloat16 too, so it is timed with `amp=false` as well. Writes benchmarks/results/train_speed.json.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import machine

SCRIPTS = Path(sys.executable).parent
OURS = [str(SCRIPTS / "soundsight"), "train", "--no-calibrate"]
WAYS = {
    "yolo": [str(SCRIPTS / "yolo"), f"cfg={machine.ROOT / 'configs' / 'train.yaml'}"],
    "wrapper around the stock trainer": [*OURS, "--stock"],
    "our trainer, no augmentation, fp32": [*OURS, "--augment", "none", "amp=false"],
    "our trainer, our augmentation, fp32": [*OURS, "amp=false"],
    "our trainer, our augmentation": OURS,
}


def main() -> None:
    """Train every way, in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="prepared folder (default: synthesised sounds)")
    parser.add_argument("--model", default="yolov8n-cls.yaml", help="default: yolov8n-cls.yaml, untrained")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    described = machine.describe()
    with tempfile.TemporaryDirectory() as folder:
        data = arguments.data.absolute() if arguments.data else synthesise(Path(folder) / "demo")
        times: dict[str, list[float]] = {way: [] for way in WAYS}
        for turn in range(arguments.rounds):
            for number, way in enumerate(WAYS):
                times[way] += train(WAYS[way], data, Path(folder) / f"{turn}-{number}", arguments)
                print(f"{way}: {times[way][-1]:.1f} s an epoch", flush=True)
        images = len(list((data / "train").rglob("*.png")))
    medians = {way: statistics.median(seconds) for way, seconds in times.items()}
    for way, seconds in medians.items():
        print(f"{way:36} {seconds:6.1f} s  {images / seconds:6.0f} images/s  {seconds / medians['yolo']:.2f} x yolo")
    machine.write(
        "train_speed",
        {
            "machine": described,
            "images": images,
            "data": arguments.data.name if arguments.data else "synthesised",
            "model": Path(arguments.model).name,
            "device": arguments.device,
            "median_epoch_seconds": medians,
            "images_per_second": {way: images / seconds for way, seconds in medians.items()},
            "ratio_to_yolo": {way: seconds / medians["yolo"] for way, seconds in medians.items()},
            "epoch_seconds": times,
        },
    )


def synthesise(folder: Path) -> Path:
    """Pictures of the demonstration's sounds."""
    from soundsight import demo
    from soundsight.config import DatasetConfig
    from soundsight.dataset.prepare import prepare

    sounds = demo.write_dataset(folder / "sounds")
    prepare(DatasetConfig(root=str(sounds), cache=str(folder / "cache"), data=str(folder / "data")))
    return folder / "data"


def train(command: list[str], data: Path, project: Path, arguments: argparse.Namespace) -> list[float]:
    """Seconds of all epochs but the first, from Ultralytics' results.csv."""
    model = str(Path(arguments.model).absolute()) if Path(arguments.model).exists() else arguments.model
    words = [f"data={data}", f"model={model}", f"epochs={arguments.epochs}", f"device={arguments.device}"]
    words += ["val=false", "plots=false", "verbose=false", f"project={project}", "name=run"]
    environment = {**os.environ, "YOLO_OFFLINE": "true"}
    environment.pop("OMP_NUM_THREADS", None)
    subprocess.run(
        [*command, *words], check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    with open(project / "run" / "results.csv", encoding="utf-8") as file:
        times = [float(row["time"]) for row in csv.DictReader(file)]
    return [later - earlier for earlier, later in zip(times, times[1:], strict=False)]


if __name__ == "__main__":
    main()
