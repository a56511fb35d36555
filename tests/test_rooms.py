"""The structure of the code, held to its plan: who may import whom, and how large things may grow."""

import ast
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "soundsight"

# Each room and the rooms it may import. `config`, `errors`, `files`, `interrupts` and `settings` are open to all.
OPEN = {"checks", "config", "errors", "files", "interrupts", "settings"}
ROOMS = {
    "config": {"errors"},
    "errors": set(),
    "files": {"errors"},
    "settings": {"errors"},
    "interrupts": set(),
    "audio": {"container", "decoding", "ffmpeg", "packed"},
    "container": {"packed"},
    "packed": set(),
    "decoding": {"container", "ffmpeg", "packed"},
    "ffmpeg": set(),
    "spectrogram": set(),
    "parallel": set(),
    "voices": set(),
    "demo": {"voices"},
    "dataset": {"audio", "ffmpeg", "spectrogram", "parallel"},
    "augment": set(),
    "yolo": {"augment"},
    "predict": {"audio", "spectrogram", "parallel", "yolo"},
    "live": {"audio", "spectrogram", "yolo", "predict"},
    "report": {"spectrogram"},
    "experiment": {"audio", "spectrogram", "parallel", "dataset", "augment", "yolo", "predict", "report", "explain"},
    "explain": {"audio", "spectrogram", "yolo", "predict"},
    "checks": set(),
    "cluster": {"audio", "spectrogram", "parallel", "dataset", "yolo", "predict", "experiment"},
    "web": {"audio", "spectrogram", "demo", "predict", "report", "explain"},
}


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    found = {name.split(".")[1] for name in names if name.startswith("soundsight.")}
    return {name for name in found if (SOURCE / name).is_dir() or (SOURCE / f"{name}.py").is_file()}


def test_rooms_import_only_rooms_to_their_left():
    for path in modules():
        room = room_of(path)
        if room in ("cli", "__init__", "__main__"):
            continue
        assert room in ROOMS, f"{path} is in no known room"
        strange = imported_rooms(path) - ROOMS[room] - OPEN - {room}
        assert not strange, f"{path} imports {strange}"


def test_only_the_yolo_room_touches_ultralytics():
    for path in modules():
        if room_of(path) == "yolo":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not any(name.split(".")[0] == "ultralytics" for name in names), path


def test_only_the_cluster_room_touches_ray():
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert room_of(path) == "cluster" or not any(name.split(".")[0] == "ray" for name in names), path


def test_files_and_functions_stay_small():
    for path in modules():
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= 350, f"{path} has {text.count(chr(10))} lines"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                doc = (ast.get_docstring(node, clean=False) or "").count("\n")
                lines = node.end_lineno - node.lineno + 1 - doc
                assert lines <= 60, f"{path}: {node.name} has {lines} lines"


def test_import_and_help_load_no_heavy_library():
    code = (
        "import sys, soundsight, soundsight.cli\n"
        "soundsight.cli.main(['--help'])\n"
        "heavy = {'torch', 'ultralytics', 'matplotlib', 'librosa', 'scipy', 'pandas', 'sklearn', 'cv2', 'ray'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip().splitlines()[-1] == "[]"
