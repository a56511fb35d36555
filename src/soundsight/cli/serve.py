"""Open a page where a recording is dropped or recorded and predicted; and a JSON service.

soundsight serve runs/classify/train/weights/last.pt    # then open http://127.0.0.1:8000
soundsight serve last.pt --port 9000 --max-seconds 60 --max-megabytes 10
soundsight serve last.pt --host 0.0.0.0                 # for all who can reach this machine
curl -F file=@clip.wav http://127.0.0.1:8000/api/predict
"""

from __future__ import annotations

from soundsight import checks
from soundsight.cli import console
from soundsight.cli.options import Given
from soundsight.config.commands import ServeOptions

OPTIONS = ServeOptions


def run(options: ServeOptions, given: Given) -> int:
    for package in ("fastapi", "uvicorn", "python_multipart"):
        checks.require(package, "soundsight[web]")
    from soundsight.cli.predict import open_predictor
    from soundsight.serve.app import Limits
    from soundsight.serve.guard import LOOPBACK
    from soundsight.serve.server import bind, make_server

    limits = Limits(options.max_seconds, options.max_megabytes, options.queue)
    bound = bind(options.host, options.port)
    predictor = open_predictor(options)
    host, port = options.host, bound.getsockname()[1]
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

    make_server(predictor, host=host, limits=limits, log=options.log, ready=ready).run(sockets=[bound])
    return 0
