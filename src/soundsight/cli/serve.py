"""`soundsight serve`."""

from __future__ import annotations

import argparse

from soundsight.cli import console
from soundsight.errors import ConfigError

SUMMARY = "Open a page where a recording is dropped or recorded and predicted; and a JSON service."
EXAMPLES = [
    "soundsight serve runs/classify/train/weights/last.pt    # then open http://127.0.0.1:8000",
    "soundsight serve last.pt --port 9000 --max-seconds 60 --max-megabytes 10",
    "soundsight serve last.pt --host 0.0.0.0                 # for all who can reach this machine",
    "curl -F file=@clip.wav http://127.0.0.1:8000/api/predict",
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare arguments."""
    parser.add_argument("model", help="a checkpoint .pt, or an exported .onnx or OpenVINO folder")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1, this machine only)"
    )
    parser.add_argument("--port", type=int, default=8000, help="default: 8000; 0 takes any free one")
    parser.add_argument("--max-seconds", type=float, default=600, metavar="S", help="longest recording (default: 600)")
    parser.add_argument("--max-megabytes", type=float, default=50, metavar="MB", help="largest upload (default: 50)")
    parser.add_argument("--queue", type=int, default=16, metavar="N", help="recordings that may wait (default: 16)")
    parser.add_argument("--threads", type=int, metavar="N", help="processor threads (default: all)")
    parser.add_argument("--log", action="store_true", help="print each request")
    console.add_model_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serve."""
    for package in ("fastapi", "uvicorn", "python_multipart"):
        try:
            __import__(package)
        except ImportError as error:
            raise ConfigError(
                f'The page needs the package {package}, which is not installed; run pip install "soundsight[web]".'
            ) from error
    from soundsight.cli.predict import open_predictor
    from soundsight.serve.app import Limits
    from soundsight.serve.guard import LOOPBACK
    from soundsight.serve.server import bind, make_server

    limits = Limits(arguments.max_seconds, arguments.max_megabytes, arguments.queue)
    bound = bind(arguments.host, arguments.port)
    predictor = open_predictor(arguments)
    host, port = arguments.host, bound.getsockname()[1]
    shown = f"[{host}]" if ":" in host else host

    def ready() -> None:
        print(
            f"{len(predictor.names)} classes, {predictor.clip_seconds:g} s at a time. Open http://{shown}:{port}",
            flush=True,
        )
        if host not in LOOPBACK:
            console.status(
                "soundsight: Everybody who can reach this machine can use the page; it has no passwords and no "
                "encryption, so put a proxy with both in front of it."
            )

    make_server(predictor, host=host, limits=limits, log=arguments.log, ready=ready).run(sockets=[bound])
    return 0
