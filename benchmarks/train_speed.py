"""Time of a training epoch: the stock `yolo` command, our wrapper around it, and our own trainer.

    python -m benchmarks.train_speed --data data --model yolov8n-cls.pt [--epochs 3] [--device cpu]

All three train on the same pictures with the same arguments (configs/train.yaml), in turn. The first epoch
of each run is left out. Writes benchmarks/results/train_speed.json.
"""

import argparse
import csv
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def epoch_seconds(folder: Path) -> list[float]:
    """Durations of all epochs but the first, from Ultralytics' results.csv."""
    rows = list(csv.DictReader((folder / "results.csv").open(encoding="utf-8")))
    times = [float(row["time"]) for row in rows]
    return [later - earlier for earlier, later in zip(times, times[1:], strict=False)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="data")
    parser.add_argument("--model", default="yolov8n-cls.pt")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    data, model = Path(arguments.data).absolute(), arguments.model
    model = str(Path(model).absolute()) if Path(model).exists() else model
    shared = [f"data={data}", f"model={model}", f"epochs={arguments.epochs}", f"device={arguments.device}"]
    shared += ["val=false", "plots=false", "verbose=false"]
    scripts = Path(sys.executable).parent
    ways = {
        "yolo": [str(scripts / "yolo"), f"cfg={ROOT / 'configs' / 'train.yaml'}"],
        "wrapper around the stock trainer": [str(scripts / "soundsight"), "train", "--stock", "--no-calibrate"],
        "our trainer, no augmentation": [
            str(scripts / "soundsight"), "train", "--augment", "none", "--no-calibrate"
        ],
        "our trainer, our augmentation": [str(scripts / "soundsight"), "train", "--no-calibrate"],
    }  # fmt: skip
    times: dict[str, list[float]] = {way: [] for way in ways}
    environment = {**os.environ, "YOLO_OFFLINE": "true"}
    environment.pop("OMP_NUM_THREADS", None)
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(arguments.rounds):
            for number, (way, command) in enumerate(ways.items()):
                place = Path(folder) / f"{turn}-{number}"
                subprocess.run(
                    [*command, *shared, f"project={place}", "name=run"],
                    check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                )  # fmt: skip
                times[way] += epoch_seconds(place / "run")
                print(f"{way}: {times[way][-1]:.1f} s an epoch", flush=True)
    images = len(list((data / "train").rglob("*.png")))
    medians = {way: statistics.median(seconds) for way, seconds in times.items()}
    result = {
        "images": images,
        "model": Path(model).name,
        "device": arguments.device,
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "median_epoch_seconds": medians,
        "images_per_second": {way: images / seconds for way, seconds in medians.items()},
        "ratio_to_yolo": {way: seconds / medians["yolo"] for way, seconds in medians.items()},
        "epoch_seconds": times,
    }
    target = Path(__file__).parent / "results" / "train_speed.json"
    target.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for way, seconds in medians.items():
        print(f"{way:35} {seconds:6.1f} s  {images / seconds:6.0f} images/s  {seconds / medians['yolo']:.2f} x yolo")


if __name__ == "__main__":
    main()
