"""Time of a training epoch: the stock `yolo` command, our wrapper around it, and our own trainer.

    python -m benchmarks.train_speed                                        # on 20 x 40 synthesised clips
    python -m benchmarks.train_speed --data data --model yolov8n-cls.pt     # on prepared images
    python -m benchmarks.train_speed --device 0 --epochs 5                  # on a GPU

All train on the same images with the same arguments (configs/train.yaml), in turn. The first epoch of each run is
left out, and so is validation. In mixed precision `yolo` computes on GPUs only; our trainer does on processors with
bfloat16 too, so it is timed with `amp=false` as well. On a GPU all are timed in mixed precision and nvidia-smi tells
how busy it is, several times a second from the second epoch to the last. Writes benchmarks/results/train_speed.json, or
train_speed_gpu.json.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import threading
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
GPU_WAYS = {
    "yolo": WAYS["yolo"],
    "wrapper around the stock trainer": WAYS["wrapper around the stock trainer"],
    "our trainer, no augmentation": [*OURS, "--augment", "none"],
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
    parser.add_argument("--batch", type=int, default=64)
    arguments = parser.parse_args()
    ways = WAYS if arguments.device == "cpu" else GPU_WAYS
    described = machine.describe()
    with tempfile.TemporaryDirectory() as folder:
        data = arguments.data.absolute() if arguments.data else synthesise(Path(folder) / "demo")
        times: dict[str, list[float]] = {way: [] for way in ways}
        busy: dict[str, list[float]] = {way: [] for way in ways}
        for turn in range(arguments.rounds):
            for number, way in enumerate(ways):
                project = Path(folder) / f"{turn}-{number}"
                with Callback(arguments.device, project / "run" / "results.csv", arguments.epochs) as callback:
                    times[way] += train(ways[way], data, project, arguments)
                busy[way] += callback.seen
                print(f"{way}: {times[way][-1]:.1f} s an epoch", flush=True)
        images = len(list((data / "train").rglob("*.png")))
    medians = {way: statistics.median(seconds) for way, seconds in times.items()}
    used = {way: statistics.mean(seen) for way, seen in busy.items() if seen}
    for way, seconds in medians.items():
        print(f"{way:36} {seconds:6.1f} s  {images / seconds:6.0f} images/s  {seconds / medians['yolo']:.2f} x yolo")
    for way, percent in used.items():
        print(f"{way:36} {percent:3.0f} % of the GPU's time")
    machine.write(
        "train_speed" if arguments.device == "cpu" else "train_speed_gpu",
        {
            "machine": described,
            "images": images,
            "data": arguments.data.name if arguments.data else "synthesised",
            "model": Path(arguments.model).name,
            "device": arguments.device,
            "batch": arguments.batch,
            "median_epoch_seconds": medians,
            "images_per_second": {way: images / seconds for way, seconds in medians.items()},
            "ratio_to_yolo": {way: seconds / medians["yolo"] for way, seconds in medians.items()},
            "gpu_busy_percent": used,
            "epoch_seconds": times,
        },
    )


def synthesise(folder: Path) -> Path:
    """Images of the demonstration's sounds."""
    from soundsight.config import DatasetConfig
    from soundsight.datasets.prepare import prepare
    from soundsight.synthesis import dataset as demo

    sounds = demo.write_dataset(folder / "sounds")
    prepare(DatasetConfig(root=str(sounds), cache=str(folder / "cache"), data=str(folder / "data")))
    return folder / "data"


def train(command: list[str], data: Path, project: Path, arguments: argparse.Namespace) -> list[float]:
    """Seconds of all epochs but the first, from Ultralytics' results.csv."""
    model = str(Path(arguments.model).absolute()) if Path(arguments.model).exists() else arguments.model
    words = [f"data={data}", f"model={model}", f"epochs={arguments.epochs}", f"device={arguments.device}"]
    words += [f"batch={arguments.batch}", f"nbs={arguments.batch}"]
    words += ["val=false", "plots=false", "verbose=false", f"project={project}", "name=run"]
    environment = {**os.environ, "YOLO_OFFLINE": "true"}
    environment.pop("OMP_NUM_THREADS", None)
    subprocess.run(
        [*command, *words], check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    with open(project / "run" / "results.csv", encoding="utf-8") as file:
        times = [float(row["time"]) for row in csv.DictReader(file)]
    return [later - earlier for earlier, later in zip(times, times[1:], strict=False)]


class Callback:
    """How busy a GPU is, in percent, while an Ultralytics run goes from its second epoch to its last: `seen`."""

    def __init__(self, device: str, table: Path, epochs: int) -> None:
        self.device, self.table, self.epochs = device, table, epochs
        self.seen: list[float] = []
        self.ended = threading.Event()
        self.reader = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Callback:
        if self.device != "cpu":
            self.reader.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.ended.set()

    def _read(self) -> None:
        while not self.ended.wait(0.1):
            done = self.table.read_text(encoding="utf-8").count("\n") - 1 if self.table.is_file() else 0
            if 1 <= done < self.epochs:
                self.seen.append(float(machine.ask_gpu("utilization.gpu", self.device)))


if __name__ == "__main__":
    main()
