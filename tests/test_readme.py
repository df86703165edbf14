"""The README's commands, as they stand there, on generated clips; and the links and names that it relies on."""

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from twostream import create_model, list_models
from twostream.cli import COMMANDS, main
from twostream.data import motion_shapes
from twostream.evaluation.protocols import PROTOCOLS
from twostream.experiments.suite import shipped_suites
from twostream.flow.estimators import ESTIMATORS
from twostream.video import Video, write_video

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()

# Added to what the README says, so that training takes seconds; nothing else is changed.
QUICK = (
    "--size 48 --model_args.width 8 --trainer.repeats 1 --trainer.tensorboard false --weights none "
    "--trainer.accelerator cpu"
)


def commands_to_test() -> list[str]:
    return re.findall(r"<!-- tested[^\n]*-->\n```sh\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture
def user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    made = motion_shapes.generate(tmp_path / "made", "same_motion", train=18, test=3, classes=3, size=64, frames=24)
    for video in sorted(made.glob("train/*/*.mp4")):
        place = tmp_path / "clips" / video.parent.name / video.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(video, place)
    frames = [frame.rgb() for video in sorted(made.glob("test/*/*.mp4")) for frame in Video(video).stream()]
    write_video(tmp_path / "new_video.mp4", frames, 25)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_commands_of_the_readme_run(user_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line for block in commands_to_test() for line in block.splitlines() if line.strip()]
    assert len(lines) > 10
    for line in lines:
        program, *words = shlex.split(line, comments=True)
        assert program == "twostream"
        if words[0] == "train":
            words += shlex.split(QUICK)
            if "--trainer.epochs" not in words:
                words += ["--trainer.epochs", "2"]
        status = main(words)
        printed = capsys.readouterr()
        assert status == 0, f"{line}: {printed.err}"
    for file in ("runs/first/report.html", "labelled.mp4", "comparison.html", "flow/store.json", "seen.mp4"):
        assert (user_folder / file).is_file(), file


def test_the_readme_names_every_command_and_those_of_its_blocks_exist() -> None:
    assert set(re.findall(r"twostream ([a-z]+)", README)) >= set(COMMANDS)
    texts = README + (ROOT / "docs/guide.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", texts, flags=re.DOTALL)
    words = [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
    named = {line[1] for line in words if line[:1] == ["twostream"]}
    assert len(named) > 8
    assert named <= set(COMMANDS)


def test_the_suite_of_the_readme_is_there() -> None:
    (suite,) = re.findall(r"twostream reproduce (\w+)", README)
    assert suite in shipped_suites()


def test_the_tables_of_the_guide_are_whole() -> None:
    guide = (ROOT / "docs/guide.md").read_text()
    for heading, names in (("protocol", PROTOCOLS), ("`--estimator`", ESTIMATORS)):
        table = re.findall(rf"^\| {heading} \|.*\n\|---.*\n((?:\|.*\n)+)", guide, flags=re.MULTILINE)
        assert len(table) == 1
        assert set(re.findall(r"^\| `([^`]+)`", table[0], flags=re.MULTILINE)) == set(names)


def test_the_python_lines_of_the_readme_are_true() -> None:
    assert 'twostream.create_model("two_stream_resnet18", num_classes=6)' in README
    model = create_model("two_stream_resnet18", num_classes=6)
    assert model.num_classes == 6
    names = set(list_models())
    for first in re.findall(r"^\| `(\w+18)` \.\.\. `152`", README, flags=re.MULTILINE):
        assert {first, first.replace("18", "152")} <= names
    families = re.findall(r"`(\w+_)\*`", README)
    assert len(families) == 4
    for family in families:
        assert {f"{family}{backbone}" for backbone in ("resnet18", "resnet152", "bn_inception", "vgg16")} <= names


@pytest.mark.parametrize(
    "file",
    [
        "README.md",
        "CONTRIBUTING.md",
        *(f"docs/{name}.md" for name in ("evidence", "guide", "motion_shapes", "results")),
    ],
)
def test_links_between_pages_lead_somewhere(file: str) -> None:
    page = ROOT / file
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_files_that_contributing_names_are_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for name in re.findall(r"`((?:data|models|weights|training|evaluation|tests)/[\w/]+\.py)`", text):
        assert (ROOT / name).exists() or (ROOT / "src/twostream" / name).exists(), name
