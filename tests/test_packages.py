"""The structure of the code, held to its plan: who may import whom, and how large things may grow."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "soundsight"

# From top to bottom: each package may import those below it, and no other (docs: CONTRIBUTING.md, "Code map").
ORDER = (
    "cli", "serve", "cluster", "review", "evaluation", "reports", "inference", "models", "backend", "datasets",
    "synthesis", "augment", "metrics", "detection", "frontend", "info", "spectrogram", "audio", "parallel", "checks",
    "config", "files", "machine", "interrupts", "deprecation", "logs", "errors",
)  # fmt: skip


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def package_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def all_imports(path: Path, *, top_level: bool = False) -> set[str]:
    """Names that a file imports: `a.b` and `a.b.c` of `from a.b import c`."""
    names = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imported_packages(path: Path) -> set[str]:
    found = {name.split(".")[1] for name in all_imports(path) if name.startswith("soundsight.")}
    return {name for name in found if (SOURCE / name).is_dir() or (SOURCE / f"{name}.py").is_file()}


def imported_modules(path: Path, known: set[str]) -> set[str]:
    """Modules of ours that are imported when the file is: those inside functions, and for types alone, are not."""
    names = all_imports(path, top_level=True) & known
    return {name for name in names if not any(other.startswith(f"{name}.") for other in names)}


def test_packages_import_only_those_below_them():
    for path in modules():
        package = package_of(path)
        if package in ("__init__", "__main__"):
            continue
        assert package in ORDER, f"{path} is in no known package"
        strange = imported_packages(path) - set(ORDER[ORDER.index(package) :])
        assert not strange, f"{path} imports {strange}"


def test_no_circle_of_imports():
    files = {
        ".".join(p.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__"): p for p in modules()
    }
    imports = {name: imported_modules(path, set(files)) - {name} for name, path in files.items()}
    while leaves := [name for name, names in imports.items() if not names & set(imports)]:
        for name in leaves:
            del imports[name]
    assert not imports, f"circles among {sorted(imports)}"


@pytest.mark.parametrize(("library", "package"), [("ultralytics", "backend"), ("ray", "cluster")])
def test_a_library_is_touched_by_one_package(library, package):
    for path in modules():
        used = {name.split(".")[0] for name in all_imports(path)}
        assert library not in used or package_of(path) == package, path


def test_files_and_functions_stay_small():
    for path in modules():
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= 450, f"{path} has {text.count(chr(10))} lines"
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
