"""The picture of `benchmarks.peers`: time against accuracy, one point per engine and type of numbers."""

from pathlib import Path
from typing import Any

from benchmarks.contestants import OURS
from benchmarks.peers_accuracy import BF16_DISTANCE
from benchmarks.peers_report import conditions

PANELS = ("text_121", "short")  # the workloads that are drawn: one text, and many
LEFT, FLOAT32_EDGE, RIGHT = 1e-15, 1e-9, 0.3  # of 1 - cosine
# Colours by Okabe and Ito, which colour-blind people can tell apart; so can everybody by the shapes.
STYLES = {
    "minilm_np": ("#d55e00", "o"),
    "OpenVINO": ("#0072b2", "s"),
    "ONNX Runtime": ("#009e73", "^"),
    "CTranslate2": ("#cc79a7", "D"),
    "torch": ("#56b4e9", "v"),
    "sentence-transformers": ("#666666", "P"),
}


def chart(found: dict[str, Any], path: Path) -> None:
    """Draw the time of each engine against 1 - cosine to float64; lower is faster, left is more accurate."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = [name for name in PANELS if name in found["workloads"]] or list(found["workloads"])[:2]
    figure, panels = pyplot.subplots(1, len(names), figsize=(5.2 * len(names), 5), layout="constrained", squeeze=False)
    handles: dict[str, Any] = {}
    for axes, name in zip(panels[0], names, strict=True):
        handles |= _panel(axes, found, name)
    panels[0][0].set_ylabel("time, ms (lower is faster)")
    figure.suptitle(f"all-MiniLM-L6-v2, text to vector\n{found['machine']['processor']}, {conditions(found)}", size=11)
    figure.legend(
        handles.values(), handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9,
        columnspacing=1.2, handletextpad=0.5,
    )  # fmt: skip
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _panel(axes: Any, found: dict[str, Any], workload: str) -> dict[str, Any]:
    """Draw one workload. Returns the lines for the legend, by engine."""
    rows, times = found["summary"]["rows"], found["summary"]["times"][workload]
    handles = {}
    for engine, (color, marker) in STYLES.items():
        points = sorted(
            (max(rows[name]["mean"], LEFT), 1e3 * times[name]["median"], rows[name]["counted"])
            for name in times
            if name.rsplit(" ", 1)[0] == engine
        )
        if not points:
            continue
        ours = engine == OURS.name
        [handles[engine]] = axes.plot(
            [point[0] for point in points], [point[1] for point in points],
            color=color, marker=marker, markersize=9 if ours else 7, markeredgecolor="white",
            linestyle="-" if ours else ":", linewidth=2.5 if ours else 1.2, zorder=3 if ours else 2,
        )  # fmt: skip
        for x, y in [point[:2] for point in points if not point[2]]:
            [handles["not counted"]] = axes.plot([x], [y], "x", color="black", zorder=4)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(LEFT, RIGHT)
    low, high = axes.get_ylim()
    axes.set_ylim(low / 1.1, high * 1.35)  # room for the names of the groups
    _bands(axes)
    _ticks(axes)
    load = found["workloads"][workload]
    axes.set_title(load["title"], size=10)
    axes.set_xlabel("mean of 1 - cosine to float64 (further left is more accurate)", size=9)
    axes.spines[["top", "right"]].set_visible(False)
    return {name: handles[name] for name in (*STYLES, "not counted") if name in handles}


def _bands(axes: Any) -> None:
    """Shade every other group, and name them at the top."""
    axes.axvspan(FLOAT32_EDGE, BF16_DISTANCE, color="#f0f0f0", zorder=0)
    for left, right, text in (
        (LEFT, FLOAT32_EDGE, "float32"),
        (FLOAT32_EDGE, BF16_DISTANCE, "as close as bf16"),
        (BF16_DISTANCE, RIGHT, "8 bits"),
    ):
        axes.text(
            (left * right) ** 0.5, 0.985, text, transform=axes.get_xaxis_transform(), ha="center", va="top", fontsize=9,
            color="#555555",
        )  # fmt: skip


def _ticks(axes: Any) -> None:
    """Label the times 1, 2, 5, 10, ... in plain numbers, and every third power of ten of 1 - cosine."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

    low, high = axes.get_ylim()
    ticks = [value * 10**power for power in range(-2, 6) for value in (1, 2, 5)]
    axes.yaxis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:,g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(FixedLocator([10.0**power for power in range(-15, 0, 3)]))
    axes.grid(axis="y", color="#dddddd", linewidth=0.6, zorder=0)
