"""What can be said of the image without building it; `docker/check` builds and runs it."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"


def instructions() -> list[tuple[str, str, str]]:
    """(stage, word, rest) of every instruction of the Dockerfile, continued lines joined."""
    lines = (DOCKER / "Dockerfile").read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#"))
    found, stage = [], ""
    for line in text.replace("\\\n", " ").splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            stage = rest.split(" AS ")[1]
        if word:
            found.append((stage, word, " ".join(rest.split())))
    return found


def parents() -> dict[str, str]:
    """The stage or image that each stage begins with."""
    starts = (rest for _, word, rest in instructions() if word == "FROM")
    return {name: base for base, name in (start.split(" AS ") for start in starts)}


def of_image(target: str, word: str) -> list[str]:
    """All that a stage and those it builds on say with one instruction, first to last."""
    chain = [target]
    while parents()[chain[0]] in parents():
        chain.insert(0, parents()[chain[0]])
    return [rest for stage in chain for s, w, rest in instructions() if (s, w) == (stage, word)]


@pytest.mark.parametrize("target", ["runtime", "jupyter", "page", "soundsight"])
def test_images_do_not_run_as_root(target):
    assert of_image(target, "USER")[-1] == "1000:1000"
    assert of_image(target, "WORKDIR")[-1] == "/workspace"


@pytest.mark.parametrize(
    ("target", "program"),
    [("soundsight", "soundsight"), ("page", "soundsight"), ("jupyter", "soundsight-jupyter")],
)
def test_the_entry_point_passes_signals_on(target, program):
    assert yaml.safe_load(of_image(target, "ENTRYPOINT")[-1]) == ["tini", "-g", "--", program]


def test_a_plain_build_makes_the_command_line():
    assert list(parents())[-1] == "soundsight"


def test_the_base_is_an_argument_with_a_version():
    stage, word, rest = instructions()[0]
    assert (stage, word) == ("", "ARG")
    assert re.fullmatch(r"BASE=\S+:(?!latest)\S+", rest)
    assert parents()["system"] == "${BASE}"


def test_no_caches_are_left():
    for _, word, rest in instructions():
        if word == "RUN" and "apt-get install" in rest:
            assert "--no-install-recommends" in rest and "rm -rf /var/lib/apt/lists/*" in rest
        if word == "RUN" and "pip install" in rest:
            mounted = "--mount=type=cache,target=/var/cache/pip" in rest and "PIP_CACHE_DIR=/var/cache/pip" in rest
            assert mounted or "--no-cache-dir" in rest
            assert "constraints.txt" in rest or "--no-deps" in rest, "versions are pinned"


def test_dependencies_come_before_the_source():
    for target in ("runtime", "jupyter"):
        copied = of_image(target, "COPY")
        assert copied[-1].startswith("--from=package"), "the source is the last layer"
        assert not any(" src" in rest for rest in copied), "the source reaches the image as a package only"
        last = [word for stage, word, _ in instructions() if stage == target and word in ("COPY", "RUN")][-1]
        assert last == "COPY"


def test_all_that_is_written_stays_in_the_workspace():
    settings = dict(pair.split("=", 1) for rest in of_image("soundsight", "ENV") for pair in rest.split())
    for name in ("MPLCONFIGDIR", "SOUNDSIGHT_CACHE", "XDG_CACHE_HOME", "YOLO_CONFIG_DIR"):
        assert settings[name].startswith("/workspace/.cache")


def test_the_image_asks_for_what_the_project_asks_for():
    line = next(rest for stage, word, rest in instructions() if (stage, word) == ("requirements", "RUN"))
    program = re.fullmatch(r"python3 -c '(.*)' > requirements\.txt", line).group(1)
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(project["dependencies"]) <= set(done.stdout.splitlines())
    assert any(name.startswith("fastapi") for name in done.stdout.splitlines()), "the page's extra"


def test_recordings_and_runs_are_no_part_of_the_build():
    words = [w for w in (ROOT / ".dockerignore").read_text().splitlines() if w and not w.startswith("#")]
    assert words[0] == "*"
    allowed = {word[1:] for word in words if word.startswith("!")}
    assert not allowed & {"data", "dataset", "runs", ".git", ".venv"}
    for _, word, rest in instructions():
        if word == "COPY" and "--from" not in rest:
            sources = [part for part in rest.split()[:-1] if not part.startswith("--")]
            assert all(any(source == a or source.startswith(a + "/") for a in allowed) for source in sources)


def compose() -> dict:
    return yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))["services"]


def test_compose_trains_on_gpus_with_shared_memory():
    train = compose()["train"]
    (device,) = train["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert train["ipc"] == "host"
    assert train["volumes"] == [{"type": "bind", "source": "..", "target": "/workspace"}]


def test_compose_builds_stages_that_exist():
    for service in compose().values():
        assert service["build"]["target"] in parents()
        assert (DOCKER / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_the_page_is_asked_for_its_health():
    assert "8000" in of_image("page", "EXPOSE")
    assert "http://127.0.0.1:8000/health" in of_image("page", "HEALTHCHECK")[-1]
    assert not of_image("soundsight", "HEALTHCHECK"), "a training predictions no requests"


@pytest.fixture
def jupyter(tmp_path):
    """Start the entry point of the notebook image with a program `jupyter` that tells how it was called."""
    program = tmp_path / "jupyter"
    program.write_text('#!/bin/sh\necho "token=${JUPYTER_TOKEN-none}" "$@"\n')
    program.chmod(0o755)

    def start(*words: str, token: str | None = None) -> subprocess.CompletedProcess[str]:
        env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", **({} if token is None else {"JUPYTER_TOKEN": token})}
        (tmp_path / "quickstart.ipynb").touch()
        command = ["sh", str(DOCKER / "jupyter"), *words]
        return subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True)

    return start


@pytest.mark.parametrize("token", [None, ""])
def test_jupyter_makes_a_token_when_none_is_given(jupyter, token):
    assert jupyter(token=token).stdout.startswith("token=none lab --ip=0.0.0.0 --port=8888")


def test_jupyter_takes_a_token(jupyter):
    assert jupyter(token="secret").stdout.startswith("token=secret ")


@pytest.mark.parametrize("word", ["--IdentityProvider.token=", "--ServerApp.token=''"])
def test_jupyter_is_never_without_a_token(jupyter, word):
    done = jupyter(word)
    assert (done.returncode, done.stdout) == (2, "")
    assert "would let anyone run programs" in done.stderr


def test_scripts_are_whole_and_name_no_mirror():
    assert os.access(DOCKER / "check", os.X_OK) and os.access(DOCKER / "jupyter", os.X_OK)
    for name in ("check", "jupyter"):
        if shutil.which("bash"):
            subprocess.run(["bash", "-n", str(DOCKER / name)], check=True)
    for file in DOCKER.iterdir():
        assert "debian.org" not in file.read_text(encoding="utf-8")


@pytest.mark.skipif(not shutil.which("hadolint"), reason="hadolint is not installed")
def test_hadolint_finds_nothing():
    done = subprocess.run(["hadolint", str(DOCKER / "Dockerfile")], capture_output=True, text=True)
    assert not done.stdout
