# SPDX-License-Identifier: Apache-2.0
"""From lines of results to a table: quantiles, shares and Poisson intervals. Pure functions."""
import math
from collections import defaultdict

from trials import LOSSES, NUISANCES

CONFIDENCE = 0.95


def quantile(values, share):
    """Nearest rank; infinity where the value is missing (None counts as never)."""
    ordered = sorted(math.inf if v is None else v for v in values)
    if not ordered:
        return math.nan
    return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))]


def poisson_below(count, mean):
    """P(X <= count)."""
    term = total = math.exp(-mean)
    for i in range(1, count + 1):
        term *= mean / i
        total += term
    return total


def poisson_interval(count, confidence=CONFIDENCE):
    """Exact two-sided interval of the mean of a Poisson count (Garwood 1936)."""
    tail = (1 - confidence) / 2

    def solve(holds):
        low, high = 0.0, count + 10 * math.sqrt(count + 1) + 20
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if holds(middle) else (low, middle)
        return low
    lower = 0.0 if count == 0 else solve(lambda m: 1 - poisson_below(count - 1, m) < tail)
    return lower, solve(lambda m: poisson_below(count, m) > tail)


def seconds(value):
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return "never" if math.isinf(value) else f"{value:.2f}"


def losses(rows):
    """The figures of one system, size and kind of loss."""
    good = [r for r in rows if r["known"]]
    last = [r["last_s"] for r in rows]
    heard = sorted(v for v in last if v is not None)
    return {
        "trials": len(rows), "all_knew": len(heard),
        "suspected_p50_s": quantile([r["suspected_s"] for r in rows], 0.5),
        "first_p50_s": quantile([r["first_s"] for r in rows], 0.5),
        "median_p50_s": quantile([r["median_s"] for r in rows], 0.5),
        "last_p50_s": quantile(last, 0.5), "last_p90_s": quantile(last, 0.9),
        "last_mean_s": sum(heard) / len(heard) if heard else math.nan,
        "last_min_s": heard[0] if heard else math.nan,
        "last_max_s": heard[-1] if heard else math.nan,
        "rejoin_p50_s": quantile([r["rejoin_s"] for r in rows], 0.5),
        "noticed": len(good), "false_dead": sum(r["false_dead"] for r in rows),
        "stall_max_s": max(r["stall_s"] for r in rows)}


def nuisances(rows):
    return {"trials": sum(len(r["victims"]) for r in rows),
            "declared": sum(r["declared"] for r in rows),
            "others_declared": sum(r["others_declared"] for r in rows),
            "by_victim": sum(r["by_victim"] for r in rows),
            "window_s": rows[0]["window_s"]}


def slows(rows):
    hours = sum(r["node_hours"] for r in rows)
    figures = {"trials": len(rows), "node_hours": hours, "slow_nodes": len(rows[0]["slow"]),
               "stall_max_s": max(r["stall_s"] for r in rows)}
    for key in ("episodes", "episodes_at_healthy"):
        count = sum(r[key] for r in rows)
        low, high = poisson_interval(count)
        figures[key] = {"count": count, "per_node_hour": count / hours,
                        "interval": [low / hours, high / hours]}
    figures["declarations"] = sum(r["declarations"] for r in rows)
    return figures


def idles(rows):
    total = sum(r["window_s"] for r in rows)
    return {"trials": len(rows), "window_s": total,
            "bytes_per_s": sum(r["bytes_per_s"] * r["window_s"] for r in rows) / total,
            "packets_per_s": sum(r["packets_per_s"] * r["window_s"] for r in rows) / total,
            "cpu_share": sum(r["cpu_share"] * r["window_s"] for r in rows) / total,
            "false_dead": sum(r["false_dead"] for r in rows)}


def partitions(rows):
    return {"trials": len(rows), "partition_s": rows[0]["partition_s"],
            "healed": sum(1 for r in rows if r["healed_s"] is not None),
            "healed_s": sorted(quantile([r["healed_s"]], 0.5) for r in rows)}


def summary(results):
    """[{system, n, experiment, figures}] in order."""
    groups = defaultdict(list)
    for row in results:
        groups[(row["n"], row["experiment"], row.get("slow_nodes", 0), row["system"])].append(row)
    kinds = {**dict.fromkeys(LOSSES, losses), **dict.fromkeys(NUISANCES, nuisances),
             "slow": slows, "idle": idles, "partition": partitions}
    return [{"n": n, "experiment": experiment, "system": system, **kinds[experiment](rows)}
            for (n, experiment, _, system), rows in sorted(groups.items())]


def line(figures):
    """One group as a line for people."""
    kind = figures["experiment"]
    head = f"{figures['system']:<9} n={figures['n']:<3} {kind:<9} "
    if kind in LOSSES:
        return head + (
            f"last node knows: mean {seconds(figures['last_mean_s'])} s "
            f"({seconds(figures['last_min_s'])} to {seconds(figures['last_max_s'])}), p50 "
            f"{seconds(figures['last_p50_s'])}, p90 {seconds(figures['last_p90_s'])}; first "
            f"{seconds(figures['first_p50_s'])}, median {seconds(figures['median_p50_s'])}, "
            f"suspected {seconds(figures['suspected_p50_s'])}; back "
            f"{seconds(figures['rejoin_p50_s'])}; {figures['all_knew']} of {figures['trials']} "
            f"known to all, {figures['false_dead']} false")
    if kind in NUISANCES:
        return head + (f"declared dead in {figures['declared']} of {figures['trials']} windows of "
                       f"{figures['window_s']:g} s; {figures['others_declared']} declarations of "
                       f"others, {figures['by_victim']} by the victim")
    if kind == "slow":
        parts = []
        for key, text in (("episodes", "by any"), ("episodes_at_healthy", "by healthy")):
            f = figures[key]
            parts.append(f"{f['per_node_hour']:.2f} ({f['interval'][0]:.2f} to "
                         f"{f['interval'][1]:.2f}; {f['count']}) {text}")
        return head + (f"{figures['slow_nodes']} slow; false deaths per healthy node-hour: "
                       f"{', '.join(parts)}; {figures['node_hours']:.2f} node-hours")
    if kind == "idle":
        return head + (f"{figures['bytes_per_s']:.0f} bytes/s, {figures['packets_per_s']:.1f} "
                       f"packets/s, {100 * figures['cpu_share']:.2f} % of a core per node; "
                       f"{figures['false_dead']} false in {figures['window_s']:.0f} s")
    times = ", ".join(seconds(v) for v in figures["healed_s"])
    return head + (f"cut {figures['partition_s']:g} s, whole again after {times} s "
                   f"({figures['healed']} of {figures['trials']})")
