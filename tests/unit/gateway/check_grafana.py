# SPDX-License-Identifier: Apache-2.0
"""schemas/grafana.json against what /metrics tells: every metric in it is in the gateway's tables,
and of the right kind for what is done with it. Usage: check_grafana.py ROOT."""
import json
import re
import sys
from pathlib import Path

root = Path(sys.argv[1])
gateway = root / "dataplane" / "gateway"
dashboard = json.loads((root / "schemas" / "grafana.json").read_text(encoding="utf-8"))

kinds = {}
for name in ("figures.def", "live.h"):
    text = (gateway / name).read_text(encoding="utf-8")
    for what, metric in re.findall(r'\b(COUNTER|HISTOGRAM|GAUGE|TOTAL)\(\w+, "([\w:]+)"', text):
        kinds[metric] = {"TOTAL": "counter"}.get(what, what.lower())
text = (gateway / "figures.c").read_text(encoding="utf-8")
kinds |= {metric: "gauge" for metric in re.findall(r'member_gauge\(out, members, "(\w+)"', text)}
kinds |= {metric: kind for metric, kind in
          re.findall(r'head_write\(out, "([\w:]+)",\s+"(\w+)"', text)}
text = (gateway / "figures.def").read_text(encoding="utf-8")
kinds |= {metric: kind for metric, kind in
          re.findall(r'WORKER\("\w+", "([\w:]+)", "(\w+)"', text)}
table = (root / "schemas" / "metrics.def").read_text(encoding="utf-8")
for part in ("ROUTE", "LOCAL"):
    block = re.search(rf"define WEFT_METRICS_{part}\(METRIC\)(.*?)\n\n", table, re.S)[1]
    kinds |= {f"weft_node_{name}_total": "counter" for name in re.findall(r"METRIC\((\w+),", block)}

wrong, used = [], set()
targets = [(panel["title"], target["expr"]) for panel in dashboard["panels"]
           for target in panel["targets"]]
targets += [("variables", v["query"]) for v in dashboard["templating"]["list"]
            if v["type"] == "query"]
for title, expression in targets:
    bare = re.sub(r"\{[^}]*\}|by \([^)]*\)|\$\w+", " ", expression)
    for metric in re.findall(r"\b(?:weft_|vllm:|gen_ai_)[\w:]+", bare):
        base = re.sub(r"_(bucket|sum|count)$", "", metric)
        known = base if base in kinds else metric
        used.add(known)
        if known not in kinds:
            wrong.append(f"{title}: nobody tells {metric}")
        elif (kinds[known] == "histogram") != (known != metric):
            wrong.append(f"{title}: {metric} is a {kinds[known]}")
        elif kinds[known] == "counter" and "rate(" not in bare and title != "variables":
            wrong.append(f"{title}: {metric} only rises")
for panel in dashboard["panels"]:
    if not panel["targets"] or panel["id"] > len(dashboard["panels"]):
        wrong.append(f"{panel['title']}: no targets, or a wrong id")

print("\n".join(wrong) or f"{len(targets)} expressions, {len(used)} of {len(kinds)} metrics")
sys.exit(1 if wrong else 0)
