"""The results of `benchmarks.peers` as tables and as a chart."""

from pathlib import Path
from typing import Any

from benchmarks.common import markdown, quartiles
from benchmarks.contestants import CONTESTANTS

OURS = "minilm_np"


def tables(found: dict[str, Any]) -> str:
    """Return all tables as Markdown."""
    peak = found["peak_flops"] * 1e-9
    return "\n".join(
        [
            f"\nText to vector, float32, {_conditions(found)}; measured FMA peak {peak:.0f} GFLOP/s.",
            "Median of all calls (quartiles; for one text also p90, the 90th percentile). Ratio: fastest peer / ours",
            "(lowest and highest ratio of a round). GFLOP/s and share of the peak: of minilm_np.\n",
            _times(found),
            "\nProcess start to first vector, peak memory, and installed size.\n",
            _starts(found),
            "",
        ]
    )


def _conditions(found: dict[str, Any]) -> str:
    threads, busy = found["threads"], found["busy"]
    beside = f", beside {busy} busy process{'es' * (busy > 1)}" if busy else ""
    return f"{threads} thread{'s' * (threads > 1)}{beside}"


def _times(found: dict[str, Any]) -> str:
    engines = _engines(found)
    rows = []
    for name, row in found["summary"].items():
        workload, ours = found["workloads"][name], row["engines"][OURS]
        unit = "ms" if ours["median"] < 0.5 else "s"
        cells = [f"{workload['title']} ({workload['tokens']:,} tokens), {unit}"]
        cells += [_time(row["engines"].get(engine), unit, workload["texts"] == 1) for engine in engines]
        cells += [
            f"{row['ratio']:.2f} ({min(row['ratio_of_rounds']):.2f}-{max(row['ratio_of_rounds']):.2f})"
            if "ratio" in row
            else "-",
            f"{ours['gflops']:.0f}",
            f"{100 * ours['share_of_peak']:.0f} %",
        ]
        rows.append(cells)
    return markdown(["workload", *engines, "ratio", "GFLOP/s", "of peak"], rows)


def _time(figures: dict[str, Any] | None, unit: str, with_tail: bool) -> str:
    if figures is None:
        return "-"
    scale = 1e3 if unit == "ms" else 1.0
    low, median, high, tail = (
        f"{figures[key] * scale:.3g}" for key in ("lower_quartile", "median", "upper_quartile", "percentile_90")
    )
    return f"{median} ({low}-{high}{f', p90 {tail}' if with_tail else ''})"


def _starts(found: dict[str, Any]) -> str:
    rows = []
    for engine in _engines(found):
        ways = {key: way for key, way in found["starts"].items() if CONTESTANTS[key].engine == engine}
        best = min(ways, key=lambda key: quartiles(ways[key]["seconds"])[1])
        low, median, high = quartiles(ways[best]["seconds"])
        packages = found["sizes"][engine]
        rows.append(
            [
                f"{engine} ({CONTESTANTS[best].variant})",
                f"{median:.2f} s ({low:.2f}-{high:.2f})",
                f"{quartiles(ways[best]['memory'])[1] / 1e6:.0f} MB",
                f"{sum(packages.values()) / 1e6:.0f} MB in {len(packages)} packages",
            ]
        )
    return markdown(["engine", "start to first vector", "peak memory", "installed dependencies"], rows)


def _engines(found: dict[str, Any]) -> list[str]:
    """Return the engines in the order of the contestants."""
    return list(dict.fromkeys(CONTESTANTS[key].engine for key in found["times"]))


# ---- the chart -------------------------------------------------------------------------------------------------------

COLORS = ("#d1495b", "#8d96a3", "#4f7cac", "#66a182", "#c9a227")


MOST = 4.0  # multiples of our time; longer bars are cut


def chart(found: dict[str, Any], path: Path) -> None:
    """Draw the time of each engine as a multiple of ours, by workload."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    engines, names = _engines(found), list(found["summary"])
    figure, axes = pyplot.subplots(figsize=(9.5, 1.6 + 1.05 * len(names)), layout="constrained")
    axes.axvline(1, color=COLORS[0], linewidth=1, zorder=0)
    height = 0.86 / len(engines)
    for place, name in enumerate(names):
        row = found["summary"][name]
        for number, engine in enumerate(engines):
            if engine in row["engines"]:
                at = place + (number - (len(engines) - 1) / 2) * height
                _bar(axes, at, height * 0.92, COLORS[number % len(COLORS)], row, engine, not place)
    axes.set_yticks(range(len(names)), [_title(found["workloads"][name]) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0, MOST * 1.01)
    axes.set_xlabel("time as a multiple of minilm_np's; shorter is faster; bold: minilm_np and the fastest peer")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.suptitle(
        f"all-MiniLM-L6-v2 in float32, text to vector ({found['machine']['processor']}, {_conditions(found)})", size=12
    )
    axes.legend(loc="lower center", bbox_to_anchor=(0.42, 1.0), ncols=len(engines), frameon=False, fontsize=9.5)
    figure.savefig(path, dpi=130)


def _bar(axes: Any, at: float, height: float, color: str, row: dict[str, Any], engine: str, with_label: bool) -> None:
    """Draw the time of one engine for one workload; a bar beyond the edge is cut and has its label inside."""
    seconds = row["engines"][engine]["median"]
    ratio = seconds / row["engines"][OURS]["median"]
    axes.barh(at, min(ratio, MOST), height, color=color, label=engine if with_label else None)
    text = _label(seconds) + (f"   {ratio:.2f} x" if engine != OURS else "")
    style: dict[str, Any] = {"va": "center", "fontsize": 8.5}
    style["weight"] = "bold" if engine in (OURS, row.get("best_peer")) else "normal"
    if ratio > 0.8 * MOST:
        axes.text(
            min(ratio, MOST), at, text + ("  \u25b6" if ratio > MOST else "") + " ", ha="right", color="white", **style
        )
    else:
        axes.text(ratio + 0.02, at, text, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6}, **style)


def _label(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds < 0.5 else f"{seconds:.2f} s"


def _title(workload: dict[str, Any]) -> str:
    return f"{workload['title']}\n({workload['tokens']:,} tokens)" if workload["texts"] > 1 else workload["title"]
