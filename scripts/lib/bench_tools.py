# SPDX-License-Identifier: Apache-2.0
"""Other benchmark tools, which scripts/bench-tools runs beside `weft-bench load`: how each is
told the same requests, and where its report has its figures. They are in BUILD_DIR/peers/NAME
(scripts/bench-peers).
"""
import csv
import json
import math
import random
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

QUANTILES = ("p50", "p90", "p99")
ASCII = [chr(c) for c in range(33, 127)]
# What tokenizers of this kind write for a space and a line's end.
SPACE, LINE = "\u0120", "\u010a"
END = "<|end|>"
SEED = 42
DAY = "2026-01-01"  # of the schedule's CSV; only differences count
# Not HF_HUB_OFFLINE: with it AIPerf looks for a tokenizer in a cache, never in a folder. Nothing is
# asked of a model hub all the same.
QUIET = {"HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1", "TRANSFORMERS_VERBOSITY": "error",
         "GUIDELLM__MAX_WORKER_PROCESSES": "2"}


@dataclass
class Shape:
    """What is asked of a server. `at_s`: when each request is due; None: `concurrency` at a time,
    each when one before has ended."""
    name: str
    stream: bool
    prompts: list  # tokens of each request's prompt
    answers: list  # and of its answer
    at_s: list | None = None
    rate: float = 0  # of at_s
    concurrency: int = 0

    def write(self, folder):
        """The same requests in the formats that there are: times and lengths, or texts."""
        folder.mkdir(parents=True, exist_ok=True)
        at_s = self.at_s or [0.0] * len(self.prompts)
        rows = list(zip(at_s, self.prompts, self.answers))
        (folder / "requests.jsonl").write_text("".join(
            json.dumps({"timestamp": round(at * 1e3, 3), "input_length": prompt,
                        "output_length": answer}) + "\n" for at, prompt, answer in rows),
            encoding="utf-8")
        (folder / "requests.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(
            f"{DAY} 00:{int(at) // 60:02}:{at % 60:010.7f},{prompt},{answer}\n"
            for at, prompt, answer in rows), encoding="utf-8")
        (folder / "texts.jsonl").write_text("".join(
            json.dumps({"prompt": "x" * prompt, "output_tokens": answer}) + "\n"
            for _, prompt, answer in rows), encoding="utf-8")


def poisson(rate, seconds, prompts, answers, seed):
    """An open loop; lengths are uniform between two each. Arrivals are as GuideLLM, which takes no
    schedule, draws its own: as many at once as come in a second, then exponential gaps."""
    draw = random.Random(seed)
    due = [0.0] * math.floor(rate)
    at = draw.expovariate(rate)
    while at < seconds:
        due.append(at)
        at += draw.expovariate(rate)
    return Shape("open loop", True, [draw.randint(*prompts) for _ in due],
                 [draw.randint(*answers) for _ in due], due, rate)


def closed(concurrency, requests, prompt, answer, stream):
    return Shape(f"{concurrency} at a time, streaming {'on' if stream else 'off'}", stream,
                 [prompt] * requests, [answer] * requests, concurrency=concurrency)


def write_tokenizer(folder):
    """A tokenizer without a model: each printable character of ASCII is a token. A toy worker's
    token is one character, so tools that count tokens themselves count them right."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {text: i for i, text in enumerate([*ASCII, SPACE, LINE])}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
             "use_regex": False}
    end = {"id": len(vocabulary), "content": END, "single_word": False, "lstrip": False,
           "rstrip": False, "normalized": False, "special": True}
    whole = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [end],
             "normalizer": None, "pre_tokenizer": level, "post_processor": None, "decoder": level,
             "model": {"type": "BPE", "dropout": None, "unk_token": "?",
                       "continuing_subword_prefix": None, "end_of_word_suffix": None,
                       "fuse_unk": False, "byte_fallback": False, "vocab": vocabulary,
                       "merges": []}}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "pad_token": END,
              "unk_token": "?", "model_max_length": 1 << 20, "clean_up_tokenization_spaces": False,
              "chat_template": "{% for message in messages %}{{ message['content'] }}{% endfor %}"}
    (folder / "tokenizer.json").write_text(json.dumps(whole), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


# ---- each tool: words of its command; its figures ----

def scaled(figures, scale, names=QUANTILES):
    """{p50, p90, p99} in ms; None: this tool has no such figure."""
    return {q: figures[name] * scale for q, name in zip(QUANTILES, names)} if figures else None


def ours_words(bench, run):
    shape = run.shape
    words = [bench, "load", "--node", f"http://127.0.0.1:{run.port}", "--model", run.model,
             "--json", "--no-floor", "--no-intervals", "--samples", run.folder / "ours.csv"]
    if shape.at_s:
        return [*words, "--trace", run.folder / "requests.csv"]
    return [*words, "--requests", len(shape.prompts), "--concurrency", shape.concurrency,
            "--max-tokens", shape.answers[0], "--prompt", "x" * shape.prompts[0]]


def interpolated(values_ns):
    """Quantiles in ms as the tools have them: between the two nearest samples. (weft-bench's own
    are samples, which for p99 of few hundred is another figure.)"""
    ordered, found = sorted(values_ns), {}
    for name in QUANTILES:
        place = (len(ordered) - 1) * int(name[1:]) / 100
        low = ordered[math.floor(place)]
        found[name] = (low + (ordered[math.ceil(place)] - low) * (place % 1)) / 1e6
    return found


def ours_figures(text, run):
    out = json.loads(text)
    with open(run.folder / "ours.csv", encoding="utf-8") as file:
        rows = [{name: int(row[name]) for name in ("due_ns", "first_ns", "end_ns", "tokens")}
                for row in csv.DictReader(file)]
    return {"failed": out["refused"] + out["failed"], "answers a second": out["answers_per_s"],
            "tokens a second": out["tokens_per_s"],
            "first token": interpolated([row["first_ns"] - row["due_ns"] for row in rows]),
            "per token": interpolated([(row["end_ns"] - row["first_ns"]) / (row["tokens"] - 1)
                                       for row in rows if row["tokens"] > 1]),
            "whole answer": interpolated([row["end_ns"] - row["due_ns"] for row in rows])}


def aiperf_words(run):
    shape = run.shape
    when = (["--fixed-schedule"] if shape.at_s else
            ["--no-fixed-schedule", "--concurrency", shape.concurrency, "--request-count",
             len(shape.prompts)])
    return ["-m", "aiperf", "profile", "--model", run.model, "--url",
            f"http://127.0.0.1:{run.port}", "--endpoint-type", "chat",
            *(["--streaming"] if shape.stream else []), "--tokenizer", run.tokenizer,
            "--custom-dataset-type", "mooncake_trace", "--input-file",
            run.folder / "requests.jsonl", *when, "--ui", "none", "--no-gpu-telemetry",
            "--output-artifact-dir", run.folder / "aiperf"]


def aiperf_figures(run):
    out = json.loads((run.folder / "aiperf" / "profile_export_aiperf.json").read_text("utf-8"))
    return {"failed": int((out.get("error_request_count") or {"avg": 0})["avg"]),
            "answers": int(out["request_count"]["avg"]),
            "answers a second": out["request_throughput"]["avg"],
            "tokens a second": out["output_token_throughput"]["avg"],
            "first token": scaled(out.get("time_to_first_token"), 1),
            "per token": scaled(out.get("inter_token_latency"), 1),
            "whole answer": scaled(out["request_latency"], 1)}


def inference_perf_words(run):
    shape = run.shape
    trace = {"file": str(run.folder / "requests.csv"), "format": "AzurePublicDataset"}
    load = {"type": "trace_replay", "trace": trace, "interval": 0, "num_workers": 1,
            "worker_max_concurrency": 1000,
            "stages": [{"rate": 1, "duration": 1}]} if shape.at_s else {
        "type": "concurrent", "interval": 0, "num_workers": 1,
        "stages": [{"num_requests": len(shape.prompts), "concurrency_level": shape.concurrency}]}
    # It draws random prompts for /v1/completions only.
    config = {"api": {"type": "completion", "streaming": shape.stream}, "load": load,
              "data": {"type": "random", "trace": trace},
              "server": {"type": "vllm", "model_name": run.model, "ignore_eos": True,
                         "base_url": f"http://127.0.0.1:{run.port}"},
              "tokenizer": {"pretrained_model_name_or_path": str(run.tokenizer)},
              "report": {"request_lifecycle": {"summary": True, "per_stage": False,
                                               "percentiles": [50, 90, 99]}},
              "storage": {"local_storage": {"path": str(run.folder / "inference_perf")}}}
    (run.folder / "inference_perf.yaml").write_text(json.dumps(config), encoding="utf-8")
    return ["-c", "from inference_perf import main_cli; main_cli()", "--config_file",
            run.folder / "inference_perf.yaml"]


def inference_perf_figures(run):
    path = run.folder / "inference_perf" / "summary_lifecycle_metrics.json"
    out = json.loads(path.read_text("utf-8"))
    good, names = out["successes"], ("median", "p90", "p99")
    latency = good["latency"]
    return {"failed": out["failures"]["count"], "answers": good["count"],
            "answers a second": good["throughput"]["requests_per_sec"],
            "tokens a second": good["throughput"]["output_tokens_per_sec"],
            "first token": scaled(latency["time_to_first_token"], 1e3, names),
            "per token": scaled(latency["time_per_output_token"], 1e3, names),
            "whole answer": scaled(latency["request_latency"], 1e3, names)}


def guidellm_words(run):
    shape = run.shape
    kind = (["poisson", "--rate", shape.rate] if shape.at_s else
            ["concurrent", "--rate", shape.concurrency])
    columns = {"prompt_column": "prompt", "output_tokens_count_column": "output_tokens"}
    return ["-m", "guidellm", "benchmark", "run", "--target", f"http://127.0.0.1:{run.port}",
            "--model", run.model, "--processor", run.tokenizer, "--data",
            run.folder / "texts.jsonl", "--data-args", json.dumps(columns), "--rate-type", *kind,
            "--max-requests", len(shape.prompts),
            "--disable-progress", "--disable-console-outputs", "--output-path",
            run.folder / "guidellm.json"]


def guidellm_figures(run):
    out = json.loads((run.folder / "guidellm.json").read_text("utf-8"))["benchmarks"][0]
    metrics, total = out["metrics"], out["request_totals"]

    def quantiles(name, scale):
        return scaled(metrics[name]["successful"]["percentiles"], scale)
    seconds = out["end_time"] - out["start_time"]
    tokens = metrics["output_token_count"]["successful"]["total_sum"]
    return {"failed": total["errored"] + total["incomplete"], "answers": total["successful"],
            "answers a second": total["successful"] / seconds,
            "tokens a second": tokens / seconds,
            "first token": quantiles("time_to_first_token_ms", 1),
            "per token": quantiles("inter_token_latency_ms", 1),
            "whole answer": quantiles("request_latency", 1e3)}


@dataclass
class Run:
    """One run of one tool."""
    shape: Shape
    model: str
    port: int
    tokenizer: Path
    folder: Path


@dataclass
class Tool:
    name: str
    words: Callable
    figures: Callable
    always_streams: bool = False

    def python(self, build):
        """Its interpreter; None: not installed."""
        home = Path(build).resolve() / "peers" / self.name
        return home / "bin" / "python" if (home / "complete").exists() else None

    def version(self, build):
        package = self.name.replace("_", "-")
        code = f"import importlib.metadata as m; print('{package}', m.version('{package}'))"
        return subprocess.run([self.python(build), "-c", code], capture_output=True, text=True,
                              check=True).stdout.strip()


TOOLS = {tool.name: tool for tool in (
    Tool("aiperf", aiperf_words, aiperf_figures),
    Tool("inference_perf", inference_perf_words, inference_perf_figures),
    Tool("guidellm", guidellm_words, guidellm_figures, always_streams=True),
)}
