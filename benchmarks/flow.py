"""Time and error of the flow estimators, side by side.

    python benchmarks/flow.py DATA [--repeats 3] [--opencv-pairs 72] [--parts times errors moved] [--json OUT]
    python benchmarks/flow.py DATA --choose

One process, one thread. DATA is a folder with `ut_interaction`, `body_gesture`, `ucf101_clips` and `flow` (pairs with
true flow). Three tables:

- **times** over the moving pairs that `flow_pairs.csv` lists (names and frame numbers only), resized to 340x256 luma,
  all estimators in turn on each pair, OpenCV's TV-L1 in the first repeat only; and how far the field of `reference` is
  from OpenCV's.
- **errors** against true flow. The first three pairs by name's rule (RubberWhale, chairs_0, chairs_1) are those that
  parameters were chosen on; they are judged on the others.
- **moved**: real frames with a known motion and a video's artefacts, from every second pair of the list. The second
  frame of a pair is warped by a field (DIS's for that pair, smoothed, times 1.5) and both are compressed as JPEG at
  quality 60. The field's maker is favoured here, so DIS's figure is no comparison. Parameters were chosen on 18 pairs
  made in this way from an earlier draw of clips, which shares some clips with this list.

`--choose` writes the list anew. Its rule: from clips spread over each data set, the pair in the middle of the clip,
else at a quarter, else at three quarters, if the frames differ by 1 grey level in the mean and DIS (fast) sees 0.3 px
in the mean; 24 clips of each set.
"""

import argparse
import csv
import dataclasses
import json
import math
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from twostream.flow.estimators import FlowEstimator, OpenCvTvl1, create_estimator, flow_sequence
from twostream.flow.tvl1 import PRESETS
from twostream.video import Video, resize_frame

LIST = Path(__file__).with_name("flow_pairs.csv")
SIZE = (340, 256)
SETS = ("ut_interaction", "body_gesture", "ucf101_clips")
CHOSEN_ON = ("middlebury_rubberwhale", "chairs_0", "chairs_1")
OPENCV = "tvl1-opencv"
# What OpenCV's TV-L1 has of ours.
SHARED = tuple(field.name for field in dataclasses.fields(OpenCvTvl1) if field.name != "gamma")

Array = npt.NDArray[Any]


def estimators() -> dict[str, FlowEstimator]:
    balanced = {key: PRESETS["balanced"][key] for key in SHARED}
    found: dict[str, FlowEstimator] = {f"tvl1 {q}": create_estimator("tvl1", quality=q) for q in PRESETS}
    found |= {f"dis {preset}": create_estimator("dis", preset=preset) for preset in ("medium", "fast", "ultrafast")}
    found["farneback"] = create_estimator("farneback")
    found[OPENCV] = create_estimator(OPENCV)
    found[f"{OPENCV} balanced"] = create_estimator(OPENCV, **balanced)
    return found


def read_pair(path: Path, frame: int) -> Array:
    """(2, 256, 340) luma."""
    frames = Video(path, on_error="truncate").frames([frame, frame + 1], luma=True)
    return np.stack([resize_frame(luma, SIZE) for luma in frames])


def choose(data: Path) -> None:
    dis = create_estimator("dis", preset="fast")
    rows: list[tuple[str, int]] = []
    for name in SETS:
        clips = sorted(p for p in (data / name / "videos").rglob("*") if p.suffix in (".avi", ".mp4"))
        # A step that is prime to the number of clips goes through all of them, every class early.
        step = next(k for k in range(math.isqrt(3 * len(clips)), 10 * len(clips)) if math.gcd(k, len(clips)) == 1)
        found = 0
        for i in range(len(clips)):
            path = clips[i * step % len(clips)]
            frames = len(Video(path, on_error="truncate"))
            for part in (1 / 2, 1 / 4, 3 / 4):
                frame = int(frames * part)
                if frame + 1 >= frames:
                    continue
                first, second = read_pair(path, frame)
                if np.abs(first.astype(int) - second).mean() >= 1 and np.hypot(*dis(first, second)).mean() > 0.3:
                    rows.append((path.relative_to(data).as_posix(), frame))
                    found += 1
                    break
            if found == 24:
                break
        print(f"{name}: {found} of {len(clips)} clips")
    with LIST.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("video", "frame"), *rows])


def seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    answer = call()
    return time.perf_counter() - began, answer


def in_sequence(estimator: FlowEstimator, pair: Array) -> float:
    """Time of a field whose first frame was the second one of the field before."""
    step = flow_sequence(estimator)
    step(pair[0])
    return seconds(lambda: step(pair[1]))[0]


def time_all(pairs: list[Array], repeats: int, opencv_pairs: int) -> dict[str, Any]:
    methods = estimators()
    for estimator in methods.values():
        estimator(pairs[0][0, :64, :64].copy(), pairs[0][1, :64, :64].copy())
        if OPENCV not in estimator.name:
            estimator(*pairs[0])
    alone = {name: np.full((repeats, len(pairs)), np.nan) for name in methods}
    streamed = {name: np.full((repeats, len(pairs)), np.nan) for name in methods}
    differences: list[float] = []
    for repeat in range(repeats):
        for k, pair in enumerate(pairs):
            fields = {}
            order = list(methods)
            # None is always the one that finds the caches as OpenCV's TV-L1 left them.
            for name in order[k % len(order) :] + order[: k % len(order)]:
                estimator = methods[name]
                if estimator.name == OPENCV and (repeat or k >= opencv_pairs):
                    continue
                alone[name][repeat, k], fields[name] = seconds(lambda e=estimator: e(*pair))  # noqa: B023
                if estimator.name == "tvl1":
                    streamed[name][repeat, k] = in_sequence(estimator, pair)
            if OPENCV in fields:
                differences.append(float(np.hypot(*(fields["tvl1 reference"] - fields[OPENCV])).mean()))
    slow = alone[OPENCV][0]
    both = ~np.isnan(slow)
    rows: dict[str, Any] = {}
    for name in methods:
        for kind, times in (("", alone[name]), (" in sequence", streamed[name])):
            counted = times[~np.isnan(times).all(axis=1)]
            if not len(counted):
                continue
            totals = counted[:, both].sum(axis=1)
            each = slow[both] / np.median(counted[:, both], axis=0)
            rows[name + kind] = {
                "ms_per_pair": 1000 * float(np.median(totals)) / both.sum(),
                "pairs_per_second": both.sum() / float(np.median(totals)),
                "ratio": float(slow[both].sum() / np.median(totals)),
                "ratio_of_repeats": [float(slow[both].sum() / t) for t in (totals.max(), totals.min())],
                "ratio_quartiles_over_pairs": [float(q) for q in np.quantile(each, (0.25, 0.5, 0.75))],
            }
    return {
        "pairs": int(both.sum()),
        "repeats": repeats,
        "estimators": rows,
        "reference_to_opencv_px": {
            "mean": float(np.mean(differences)),
            "quartiles": [float(q) for q in np.quantile(differences, (0.25, 0.5, 0.75))],
            "max": float(np.max(differences)),
        },
    }


def print_times(found: dict[str, Any]) -> None:
    print(f"\n## Times: {found['pairs']} moving pairs at {SIZE[0]}x{SIZE[1]}, {found['repeats']} repeats\n")
    print("| estimator | ms a pair | pairs/s | times as fast as OpenCV's TV-L1 | over repeats | quartiles over pairs |")
    print("|---|---|---|---|---|---|")
    for name, row in found["estimators"].items():
        low, high = row["ratio_of_repeats"]
        quartiles = ", ".join(f"{q:.1f}" for q in row["ratio_quartiles_over_pairs"])
        print(
            f"| {name} | {row['ms_per_pair']:.2f} | {row['pairs_per_second']:.1f} | {row['ratio']:.1f} "
            f"| {low:.1f} to {high:.1f} | {quartiles} |"
        )
    gap = found["reference_to_opencv_px"]
    quartiles = ", ".join(f"{q:.4f}" for q in gap["quartiles"])
    print(
        f"\nreference from OpenCV's field: mean {gap['mean']:.4f} px, quartiles {quartiles}, largest {gap['max']:.4f}"
    )


def true_flow(folder: Path) -> tuple[Array, Array, Array]:
    """Frames, field, and where it is known."""
    raw = np.fromfile(folder / "flow.flo", np.float32)
    W, H = raw[1:3].view(np.int32)
    truth = raw[3:].reshape(H, W, 2).transpose(2, 0, 1)
    frames = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in sorted(folder.glob("frame*"))]
    return np.stack(frames), truth, (np.abs(truth) < 1e9).all(axis=0)


def moved(pair: Array) -> tuple[Array, Array, Array]:
    """The pair's second frame moved by a known field, and itself; that field; and where it is judged."""
    field = create_estimator("dis")(*pair)
    field = np.stack([1.5 * cv2.GaussianBlur(plane, (0, 0), 2) for plane in field])
    H, W = pair[1].shape
    y, x = np.mgrid[:H, :W].astype(np.float32)
    second = pair[1].astype(np.float32)
    first = cv2.remap(second, x + field[0], y + field[1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    frames = []
    for image in (first, second):
        luma = np.clip(np.rint(image), 0, 255).astype(np.uint8)
        code = cv2.imencode(".jpg", luma, [cv2.IMWRITE_JPEG_QUALITY, 60])[1]
        frames.append(cv2.imdecode(code, cv2.IMREAD_GRAYSCALE))
    inside = np.zeros((H, W), bool)
    inside[8:-8, 8:-8] = True
    return np.stack(frames), field, inside


def measure_errors(cases: dict[str, tuple[Array, Array, Array]]) -> dict[str, dict[str, float]]:
    """Mean endpoint error in px of each estimator and case."""
    rows: dict[str, dict[str, float]] = {}
    for name, estimator in estimators().items():
        rows[name] = {}
        for case, (frames, truth, known) in cases.items():
            rows[name][case] = float(np.hypot(*(estimator(*frames) - truth))[known].mean())
    return rows


def geometric(ratios: list[float]) -> float:
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def print_errors(rows: dict[str, dict[str, float]], chosen: tuple[str, ...]) -> None:
    cases = [*(c for c in next(iter(rows.values())) if c in chosen)]
    judged = [c for c in next(iter(rows.values())) if c not in chosen]
    print("\n## Endpoint error against true flow in px (*: parameters were chosen on it; the others judge)\n")
    heads = [f"{c}*" for c in cases] + judged
    print("| estimator | " + " | ".join(heads) + " | ratio to OpenCV's TV-L1: all | chosen on | judged on | worst |")
    print("|---" * (len(heads) + 5) + "|")
    for name, errors in rows.items():
        ratios = {case: errors[case] / rows[OPENCV][case] for case in errors}
        figures = [geometric([ratios[c] for c in group]) for group in (ratios, cases, judged)]
        print(
            f"| {name} | "
            + " | ".join(f"{errors[c]:.3f}" for c in cases + judged)
            + " | "
            + " | ".join(f"{figure:.3f}" for figure in (*figures, max(ratios.values())))
            + " |"
        )


def print_moved(rows: dict[str, dict[str, float]]) -> None:
    print(f"\n## {len(rows[OPENCV])} real frames moved by a known field: endpoint error in px\n")
    print("| estimator | mean | ratio to OpenCV's TV-L1 | quartiles of the ratio |")
    print("|---|---|---|---|")
    for name, errors in rows.items():
        ratios = [errors[case] / rows[OPENCV][case] for case in errors]
        quartiles = ", ".join(f"{q:.3f}" for q in np.quantile(ratios, (0.25, 0.5, 0.75)))
        print(f"| {name} | {np.mean(list(errors.values())):.3f} | {geometric(ratios):.3f} | {quartiles} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--opencv-pairs", type=int, default=1000, help="OpenCV's TV-L1 only on that many; seconds each")
    parser.add_argument(
        "--parts", nargs="+", choices=("times", "errors", "moved"), default=["times", "errors", "moved"]
    )
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("--choose", action="store_true", help="write the list of pairs anew")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    if args.choose:
        choose(args.data)
        return
    found: dict[str, Any] = {"machine": platform.processor() or platform.machine(), "opencv": cv2.__version__}
    with LIST.open(newline="") as file:
        listed = [(args.data / row["video"], int(row["frame"])) for row in csv.DictReader(file)]
    pairs = [read_pair(*row) for row in listed] if set(args.parts) & {"times", "moved"} else []
    if "times" in args.parts:
        found["times"] = time_all(pairs, args.repeats, args.opencv_pairs)
        print_times(found["times"])
    if "errors" in args.parts:
        folders = sorted(path.parent for path in (args.data / "flow").glob("*/flow.flo"))
        found["errors"] = measure_errors({folder.name: true_flow(folder) for folder in folders})
        print_errors(found["errors"], CHOSEN_ON)
    if "moved" in args.parts:
        found["moved"] = measure_errors({str(k): moved(pair) for k, pair in enumerate(pairs[::2])})
        print_moved(found["moved"])
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
