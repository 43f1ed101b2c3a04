"""The figures of `benchmarks.peers`, from its measurements."""

import statistics
from typing import Any

from benchmarks.common import percentile, quartiles
from benchmarks.contestants import CONTESTANTS, OURS
from benchmarks.peers_accuracy import CLOSE, EIGHT_BITS, FLOAT32, GROUPS, LOST, Accuracy

# by heading: our numbers, and the group of the peers that they are compared with
COMPARISONS = {
    "float32": ("float32", FLOAT32),
    "int16, against bf16": ("int16", CLOSE),
    "int16, against all": ("int16", EIGHT_BITS),
    "int8, against all": ("int8", EIGHT_BITS),
}


def summary(found: dict[str, Any]) -> dict[str, Any]:
    """Return the figures by row (an engine with its numbers), and by workload."""
    rows = _rows(found)
    times = {workload: _times(keys) for workload, keys in found["times"].items()}
    ratios = {}
    for workload, engines in times.items():
        counted = {name: engines[name] for name in engines if rows[name]["counted"]}
        ratios[workload] = {heading: _ratio(counted, rows, *which) for heading, which in COMPARISONS.items()}
    return {"rows": rows, "times": times, "ratios": ratios, "starts": _starts(found)}


def _rows(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the accuracy of each row, which is that of its least accurate variant, with the group that follows."""
    rows: dict[str, dict[str, Any]] = {}
    for key, figures in found["accuracy"].items():
        way, accuracy = CONTESTANTS[key], Accuracy(**figures)
        group = accuracy.group()
        row = rows.get(way.name)
        if row is None or GROUPS.index(group) > GROUPS.index(row["group"]) or accuracy.mean > row["mean"]:
            rows[way.name] = figures | {"group": group, "ours": way.engine == OURS}
    best = rows[f"{OURS.name} float32"]["spearman"]
    for row in rows.values():
        row["counted"] = best is None or best - row["spearman"] <= LOST
    return rows


def _times(keys: dict[str, list[list[float]]]) -> dict[str, dict[str, Any]]:
    """Return the figures of the fastest variant of each row, for one workload."""
    engines: dict[str, dict[str, Any]] = {}
    for key, rounds in keys.items():
        calls = [seconds for calls in rounds for seconds in calls]
        low, median, high = quartiles(calls)
        name = CONTESTANTS[key].name
        if name not in engines or median < engines[name]["median"]:
            engines[name] = {
                "contestant": key,
                "calls": len(calls),
                "lower_quartile": low,
                "median": median,
                "upper_quartile": high,
                "percentile_90": percentile(calls, 90),
                "rounds": [statistics.median(calls) for calls in rounds],
            }
    return engines


def _ratio(
    engines: dict[str, dict[str, Any]], rows: dict[str, dict[str, Any]], numbers: str, group: str
) -> dict[str, Any] | None:
    """Return the time of the fastest peer of a group divided by ours; None without such a peer.

    The same for the 90th percentiles, whose fastest peer may be another one.
    """
    ours = engines.get(f"{OURS.name} {numbers}")
    peers = [
        name for name in engines if not rows[name]["ours"] and GROUPS.index(rows[name]["group"]) <= GROUPS.index(group)
    ]
    if ours is None or not peers:
        return None
    best = min(peers, key=lambda name: engines[name]["median"])
    best_tail = min(peers, key=lambda name: engines[name]["percentile_90"])
    return {
        "best_peer": best,
        "ratio": engines[best]["median"] / ours["median"],
        "ratio_of_rounds": [
            theirs / mine for theirs, mine in zip(engines[best]["rounds"], ours["rounds"], strict=True)
        ],
        "best_peer_percentile_90": best_tail,
        "ratio_percentile_90": engines[best_tail]["percentile_90"] / ours["percentile_90"],
    }


def _starts(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return, by row, the start of the variant that starts fastest."""
    starts: dict[str, dict[str, Any]] = {}
    for key, figures in found["starts"].items():
        low, median, high = quartiles(figures["seconds"])
        name = CONTESTANTS[key].name
        if name not in starts or median < starts[name]["median"]:
            starts[name] = {
                "contestant": key,
                "lower_quartile": low,
                "median": median,
                "upper_quartile": high,
                "memory": quartiles(figures["memory"])[1],
                "sizes": found["sizes"][CONTESTANTS[key].engine.name],
            }
    return starts
