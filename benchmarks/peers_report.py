"""The results of `benchmarks.peers` as tables in Markdown, as the documentation shows them.

    python -m benchmarks.peers_report FILE.json [--chart FILE.png]

prints the tables of an earlier run, from the file that its --json wrote.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.common import describe, markdown
from benchmarks.contestants import CONTESTANTS
from benchmarks.peers_accuracy import GROUPS
from benchmarks.peers_figures import COMPARISONS


def tables(found: dict[str, Any]) -> str:
    """Return all tables."""
    parts = [
        describe(found["machine"]),
        f"Text to vector, {conditions(found)}. Medians in milliseconds, of the fastest variant of each engine; number "
        f"of rounds: {found['rounds']}.\n1 - cosine is measured against float64.",
        _times(found),
        "minilm_np and the fastest other engine of each group, in milliseconds.",
        _short(found),
        "The 90th percentile of one text, in milliseconds.",
        _tails(found),
        "The time of the fastest other engine divided by ours (lowest and highest ratio of a round), and that engine.",
        _ratios(found),
        "Process start to first vector, peak memory of that process, and installed size.",
        _starts(found),
        "GFLOP/s of minilm_np float32, and its share of the peak of fma that this machine sustains in the same "
        "milliseconds.",
        _sustained(found),
    ]
    parts += [f"left out: {name}: {reason}" for name, reason in found["left_out"].items()]
    return "\n\n".join(part for part in parts if part)


def conditions(found: dict[str, Any]) -> str:
    """Return the number of threads and of busy processes in words."""
    threads, others = found["threads"], found["busy"]
    beside = f", beside {others} busy process{'es' * (others > 1)}" if others else ""
    return f"{threads} thread{'s' * (threads > 1)} per engine{beside}"


def _times(found: dict[str, Any]) -> str:
    """Return the table of times and accuracy: one row per engine and numbers, the most accurate group first."""
    times, loads = found["summary"]["times"], found["workloads"]
    lines = []
    for name, row in _ordered(found):
        cells = [_milliseconds(times[load].get(name), "median") for load in loads]
        spearman = "-" if row["spearman"] is None else f"{row['spearman']:.2f}"
        lines.append(
            [
                _marked(name, row),
                *cells,
                f"{row['mean']:.1e}",
                f"{row['largest']:.1e}",
                spearman + (" (not counted)" if not row["counted"] else ""),
            ]
        )
    titles = [load["title"] for load in loads.values()]
    return markdown(["engine", *titles, "1 - cosine, mean", "largest", "Spearman"], lines)


def _short(found: dict[str, Any]) -> str:
    """Return the table of our times and of the fastest peers': one row per workload."""
    compared = {"float32": "float32", "int16, against bf16": "int16", "int8, against all": "int8"}
    lines = []
    for load, figures in found["workloads"].items():
        times, ratios = found["summary"]["times"][load], found["summary"]["ratios"][load]
        cells = [figures["title"]]
        for heading, numbers in compared.items():
            peer = ratios[heading]["best_peer"] if ratios[heading] else None
            cells.append(_milliseconds(times.get(f"minilm_np {numbers}"), "median"))
            cells.append(f"{_milliseconds(times[peer], 'median')} ({peer})" if peer else "-")
        lines.append(cells)
    headings = ("minilm_np float32", "fastest other", "minilm_np int16", "fastest other as close as bf16")
    return markdown(["workload", *headings, "minilm_np int8", "fastest other"], lines)


def _tails(found: dict[str, Any]) -> str:
    single = [name for name, load in found["workloads"].items() if load["texts"] == 1]
    times = found["summary"]["times"]
    lines = [
        [_marked(name, row), *(_milliseconds(times[load].get(name), "percentile_90") for load in single)]
        for name, row in _ordered(found)
    ]
    return markdown(["engine", *(found["workloads"][load]["title"] for load in single)], lines) if single else ""


def _ratios(found: dict[str, Any]) -> str:
    """Return the table of ratios: one row per workload, and one per workload of one text for the 90th percentile."""
    lines = []
    for load, figures in found["workloads"].items():
        ratios = found["summary"]["ratios"][load]
        lines.append([figures["title"], *(_ratio(ratios[heading]) for heading in COMPARISONS)])
        if figures["texts"] == 1:
            lines.append([f"{figures['title']}, p90", *(_tail_ratio(ratios[heading]) for heading in COMPARISONS)])
    return markdown(["workload", *COMPARISONS], lines)


def _ratio(figures: dict[str, Any] | None) -> str:
    if figures is None:
        return "-"
    rounds = figures["ratio_of_rounds"]
    return f"{figures['ratio']:.2f} ({min(rounds):.2f}-{max(rounds):.2f}) {figures['best_peer']}"


def _tail_ratio(figures: dict[str, Any] | None) -> str:
    if figures is None:
        return "-"
    return f"{figures['ratio_percentile_90']:.2f} {figures['best_peer_percentile_90']}"


def _starts(found: dict[str, Any]) -> str:
    starts = found["summary"]["starts"]
    lines = []
    for name in sorted(starts, key=lambda name: starts[name]["median"]):
        figures = starts[name]
        low, median, high = (figures[key] for key in ("lower_quartile", "median", "upper_quartile"))
        sizes = figures["sizes"]
        lines.append(
            [
                f"{name} ({CONTESTANTS[figures['contestant']].variant})",
                f"{median:.2f} s ({low:.2f}-{high:.2f})",
                f"{figures['memory'] / 1e6:.0f} MB",
                f"{sum(sizes.values()) / 1e6:.0f} MB in {len(sizes)} packages",
            ]
        )
    return markdown(["engine", "start to first vector", "peak memory", "installed dependencies"], lines)


def _sustained(found: dict[str, Any]) -> str:
    lines = []
    for name, figures in found["sustained"].items():
        load = found["workloads"][name]
        rate = load["flops"] / figures["seconds"]
        share = f"{100 * rate / figures['peak_flops']:.0f} %"
        lines.append([load["title"], f"{rate * 1e-9:.0f}", f"{figures['peak_flops'] * 1e-9:.0f}", share])
    return markdown(["workload", "GFLOP/s", "sustained peak", "share"], lines)


def _ordered(found: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return the rows, the most accurate group first, ours first in its group."""
    rows = found["summary"]["rows"]
    return sorted(rows.items(), key=lambda item: (GROUPS.index(item[1]["group"]), not item[1]["ours"]))


def _marked(name: str, row: dict[str, Any]) -> str:
    return f"**{name}**" if row["ours"] else name


def _milliseconds(figures: dict[str, Any] | None, key: str) -> str:
    if figures is None:
        return "-"
    value = 1e3 * figures[key]
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="what `benchmarks.peers --json` wrote")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw the chart, too")
    options = parser.parse_args()
    found = json.loads(options.file.read_text(encoding="utf-8"))
    print(tables(found))
    if options.chart:
        from benchmarks.peers_chart import chart

        chart(found, options.chart)


if __name__ == "__main__":
    main()
