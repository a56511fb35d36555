"""Open a page where a recording is dropped or recorded and predicted; and a JSON service.

soundsight serve runs/classify/train/weights/last.pt    # then open http://127.0.0.1:8000
soundsight serve last.pt --port 9000 --max-seconds 60 --max-megabytes 10
soundsight serve last.pt --host 0.0.0.0                 # for all who can reach this machine
curl -F file=@clip.wav http://127.0.0.1:8000/api/predict
"""

from __future__ import annotations

from soundsight import checks
from soundsight.cli.options import Given
from soundsight.config.commands import ServeOptions

OPTIONS = ServeOptions


def run(options: ServeOptions, given: Given) -> int:
    require_packages()
    from soundsight.cli.predict import open_predictor
    from soundsight.serve.app import Limits, create_app
    from soundsight.serve.server import bind, serve

    limits = Limits(options.max_seconds, options.max_megabytes, options.queue)
    bound = bind(options.host, options.port)
    predictor = open_predictor(options)
    app = create_app(predictor, limits, host=options.host)
    message = f"{len(predictor.names)} classes, {predictor.clip_seconds:g} s at a time."
    serve(app, bound, host=options.host, message=message, log=options.log)
    return 0


def require_packages() -> None:
    """Raise `ConfigError` if a package that a page needs is missing."""
    for package in ("fastapi", "uvicorn", "python_multipart"):
        checks.require(package, "soundsight[web]")
