#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The programs as somebody meets them who has just built them: what they say of themselves, how a
node starts, and what it says where it cannot. `CHECKS` at the end lists what there is; each is a
ctest, product_NAME."""
import argparse
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SKIPPED = 77
END_S = 20.0
COLUMNS_MAX = 100
PROGRAMS = ("weft", "weft-bench", "weft-gateway", "weft-impair", "weft-upstream", "weft-worker",
            "weftd")
HUGEPAGES = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages")
LOCAL_NODE = """
node: alone
address: 127.0.0.1
data_port: {port}
latitude: 0
longitude: 0
seeds: []
identity: {folder}/keys/identity.key
mesh_key: {folder}/keys/mesh.key
nic: {{driver: none, interface: lo, hugepages: "{hugepages}"}}
sockets: {{admin: {sockets}/admin.sock, port: {sockets}/port.sock}}
"""


class Problem(Exception):
    """What is wrong, for people."""


def check(good, *what):
    if not good:
        raise Problem(" ".join(str(word) for word in what))


def bin_dir(args):
    return args.build_dir / "bin"


# ---- what programs say of themselves ----
def run(*command):
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=END_S, check=False)


def commands_of(program):
    """[program], and if it has commands [program, command] for each."""
    text = run(program, "--help").stdout
    names = re.findall(r"^  ([a-z][\w-]*)(?: {2,}| (?<=^.{12}))\S", text, re.M)
    if program.name not in ("weft", "weft-bench"):
        names = []
    return [[program], *([program, name] for name in names)]


def check_help_of(command, name):
    """The help of a program or of a command of it, and what a wrong option leads to."""
    texts = [run(*command, option) for option in ("--help", "-h")]
    for done in texts:
        check(done.returncode == 0 and not done.stderr and done.stdout,
              f"{name} --help or -h: exit {done.returncode}", done.stderr)
    text = texts[0].stdout
    check(texts[1].stdout == text, f"{name}: -h says other than --help")
    lines = text.splitlines()
    check(lines[0].startswith(f"{name} - ") or name == "weft", f"{name}: begins with", lines[0])
    check(re.search(rf"^usage: {name}\b", text, re.M), f"{name}: no usage")
    check(re.search(r"^examples?\b.*:$", text, re.M) or name == "weft", f"{name}: no example")
    said = [line for line in lines if len(line) > COLUMNS_MAX or line != line.rstrip()]
    check(not said, f"{name} --help: too long, or blanks at the end:", said)
    done = run(*command, "--no-such-option")
    check(done.returncode == 2 and not done.stdout,
          f"{name} --no-such-option: exit {done.returncode}", done.stdout, done.stderr)
    check("--help" in done.stderr or "`weft help" in done.stderr,
          f"{name} --no-such-option: does not say who helps:", done.stderr)


def source_of(command):
    """The file that reads a command's options."""
    program, *name = command
    name = "_".join(name).replace("-", "_")
    fixed = {"weftd": "dataplane/weftd.c", "weft-gateway": "dataplane/gateway.c",
             "weft-worker": "kernels/worker.c", "weft-upstream": "kernels/upstream/settings.c",
             "weft-impair": "bench/impair/main.c", "weft-bench": f"bench/{name}.c",
             "weft": f"controlplane/cli/cmd_{name}.c"}
    return ROOT / fixed[program.name]


def check_options_of(command, name):
    """No option is only in the source."""
    source = source_of(command)
    if not source.exists():
        return
    known = set(re.findall(r'\{"([\w-]+)",\s*(?:required|no|optional)_argument',
                           source.read_text(encoding="utf-8"))) - {"help"}
    told = set(re.findall(r"--([a-z][\w-]*)", run(*command, "--help").stdout))
    check(known <= told, f"{name} --help does not tell of", sorted(known - told))


def check_environment(args):
    """Every variable that a program asks for is in some program's help."""
    told = ""
    for path in sorted(bin_dir(args).glob("weft*")):
        if path.name in PROGRAMS:
            told += "".join(run(*command, "--help").stdout for command in commands_of(path))
    asked = set()
    for folder in ("bench", "controlplane", "dataplane", "kernels", "schemas"):
        for path in (ROOT / folder).rglob("*.c"):
            asked |= set(re.findall(r'getenv\("([A-Z_]+)"|_ENV +"([A-Z_]+)"',
                                    path.read_text(encoding="utf-8")))
    asked = {one or other for one, other in asked} - {"HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"}
    unknown = sorted(name for name in asked if name not in told)
    check(not unknown, "no --help tells of", unknown)


def check_help(args):
    """Every program and command explains itself, and says what is wrong with a command line."""
    count = 0
    for path in sorted(bin_dir(args).glob("weft*")):
        if path.name not in PROGRAMS:
            continue
        for option in ("--version", "-V"):
            done = run(path, option)
            check(done.returncode == 0 and re.match(rf"{path.name} \d+\.\d+\.\d+", done.stdout),
                  f"{path.name} {option}: exit {done.returncode}", done.stdout, done.stderr)
        for command in commands_of(path):
            if command[1:] not in (["version"], ["help"]):
                name = " ".join([path.name, *command[1:]])
                check_help_of(command, name)
                check_options_of(command, name)
            count += 1
    check_environment(args)
    return f"{count} programs and commands"


def check_alone(args):
    """Where no node is, commands that ask one say so: there is no answer, the usage is right."""
    if Path("/run/weft").is_dir() and any(Path("/run/weft").glob("*.sock")):
        return "a node is here: nothing to see"
    commands = (["status"], ["peers"], ["routes"], ["drain"], ["top", "--once"],
                ["pcap", "-w", "x"], ["query", "--model", "m"], ["run", "hi"], ["policy", "show"])
    with tempfile.TemporaryDirectory() as folder:
        environment = {name: value for name, value in os.environ.items()
                       if name not in ("WEFT_ADMIN", "WEFT_NODE")} | {"XDG_RUNTIME_DIR": folder}
        for command in commands:
            done = subprocess.run([bin_dir(args) / "weft", *command], stdin=subprocess.DEVNULL,
                                  capture_output=True, text=True, timeout=END_S, check=False,
                                  env=environment, cwd=folder)
            check(done.returncode == 1 and "no node is known" in done.stderr,
                  *command, f"without a node: exit {done.returncode}", done.stderr)
    return f"{len(commands)} commands"


def check_full(args):
    """What cannot be written is an error: no figures on a full disk and exit status 0."""
    commands = (["weft", "help"], ["weft", "version"], ["weft", "conf-check", "--keys"],
                ["weft-bench", "policies", "--requests", "2000", "--load", "0.5", "--json"])
    for program, *rest in commands:
        with open("/dev/full", "w", encoding="ascii") as full:
            done = subprocess.run([bin_dir(args) / program, *rest], stdout=full, text=True,
                                  stderr=subprocess.PIPE, timeout=END_S, check=False)
        check(done.returncode == 1 and "cannot write" in done.stderr,
              program, *rest, f"on a full disk: exit {done.returncode}", done.stderr)
    return f"{len(commands)} commands"


# ---- scripts ----
def scripts():
    return sorted(path for path in (ROOT / "scripts").iterdir()
                  if path.is_file() and os.access(path, os.X_OK))


def check_script(path):
    """Its help, and what a wrong option leads to."""
    done = run(path, "--help")
    lines = done.stdout.splitlines()
    check(done.returncode == 0 and re.match("usage: ", done.stdout), path.name, "--help:", done)
    check(f"  scripts/{path.name}" in done.stdout, path.name, "--help has no example")
    check(all(len(line) <= COLUMNS_MAX for line in lines), path.name, "--help is too wide")
    bare = [line for line in lines if re.match(r"^  (-[\w-]+(, )?)+( [A-Z_]+)?$", line) and
            not re.match(r"^ {8,}", (lines + [""])[lines.index(line) + 1])]
    check(not bare, path.name, "--help does not explain", bare)
    done = run(path, "--no-such-option")
    check(done.returncode == 2 and re.search("--no-such-option|required", done.stderr), path.name,
          f"and a wrong option: exit {done.returncode}", done.stderr)


BAD_VALUES = (["sim-campaign", "--seeds", "x"], ["fuzz-campaign", "--jobs", "0"],
              ["bench-routed", "--nodes", "1,x"], ["bench-compare", "--rounds", "x"],
              ["bench-plot", "--out", "/tmp/plot", "/no/such.json"], ["mesh", "up", "--nodes", "x"],
              ["build", "--sanitize", "x"], ["test", "--filter"])


def check_scripts(_args):
    """Every script explains itself and stands in the table of scripts/README.md, and no others."""
    for path in scripts():
        check_script(path)
    for name, *rest in BAD_VALUES:
        done = run(ROOT / "scripts" / name, *rest)
        check(done.returncode == 2 and "error:" in done.stderr and "Traceback" not in done.stderr,
              name, *rest, f": exit {done.returncode}", done.stderr)
    readme = (ROOT / "scripts" / "README.md").read_text(encoding="utf-8")
    table = set(re.findall(r"^\| `([\w-]+)` \|", readme, re.M)) | {"bench-results"}
    there = {path.name for path in scripts()}
    check(table == there, "scripts/README.md and the folder differ in", sorted(table ^ there))
    return f"{len(there)} scripts"


# ---- READMEs ----
def readmes():
    for path in sorted(ROOT.rglob("*.md")):
        if not any(part.startswith((".", "build")) for part in path.relative_to(ROOT).parts):
            yield path, path.read_text(encoding="utf-8")


def command_lines(text):
    """What follows the name of a program or script in code, up to what ends a command."""
    code = re.findall(r"^```\n(.*?)^```|^    (\S.*)$|`([^`\n]+)`", text, re.M | re.S)
    for words in ("".join(found).replace("\\\n", " ") for found in code):
        for line in words.splitlines():
            yield from re.findall(
                r"(?:^|[ \"(])((?:build/bin/|scripts/)?[a-z][\w-]*)((?: [^|;&#)]*)?)", line)


def check_command(name, rest, helps):
    """The options that a command line of a README gives: does the program know them?"""
    inner = re.match(r" exec \w+ (?:build/bin/)?([\w-]+)(.*)", rest)
    if name == "mesh" and inner:
        return check_command(*inner.groups(), helps)
    words = rest.split()
    command = (name, words[0]) if words and (name, words[0]) in helps else (name,)
    text = helps.get(command)
    if text is None:
        return []
    if name in ("weft", "weft-bench") and words and len(command) == 1 and \
            re.fullmatch("[a-z][a-z-]+", words[0]):
        return [f"{name} {words[0]}"]
    return [f"{' '.join(command)} {option}" for option in re.findall(r"(?<=\s)--[a-z][\w-]*", rest)
            if not re.search(rf"{option}(?![\w-])", text) and option not in ("--help", "--version")]


def check_sample(args):
    """The configuration that a README shows is one."""
    text = (ROOT / "controlplane" / "README.md").read_text(encoding="utf-8")
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".yaml") as file:
        file.write(re.search(r"^```\n(node: .*?)^```", text, re.M | re.S)[1])
        file.flush()
        done = run(bin_dir(args) / "weft", "conf-check", file.name)
    check(done.returncode == 0, "controlplane/README.md:", done.stderr)


def check_readmes(args):
    """Links of the READMEs lead somewhere; scripts, commands and options in them exist."""
    helps = {(path.name,): run(path, "--help").stdout for path in scripts()}
    for path in sorted(bin_dir(args).glob("weft*")):
        if path.name in PROGRAMS:
            helps |= {(path.name, *rest): run(path, *rest, "--help").stdout
                      for _, *rest in commands_of(path)}
    said, count = [], 0
    for path, text in readmes():
        count += 1
        where = path.relative_to(ROOT)
        said += [f"{where}: no {link}" for link in re.findall(r"\]\(([^)#]+)", text)
                 if "://" not in link and not (path.parent / link).exists()]
        said += [f"{where}: no {name}" for name in re.findall(r"scripts/[\w./-]*\w(?![-*\w])", text)
                 if not (ROOT / name).exists()]
        for name, rest in command_lines(text):
            said += [f"{where}: no {what}"
                     for what in check_command(name.rpartition("/")[2], rest, helps)]
    check(not said, "\n" + "\n".join(said))
    check_sample(args)
    return f"{count} files"


# ---- units ----
def check_units(args):
    """The units are what systemd takes, and the options in them are the programs' own."""
    if not shutil.which("systemd-analyze"):
        raise SystemExit(SKIPPED)
    count = 0
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted((args.build_dir / "systemd").iterdir()):
            # As installed, but with the programs that were built.
            text = re.sub(r"=/\S*/bin/", f"={bin_dir(args).resolve()}/",
                          path.read_text(encoding="utf-8"))
            unit = Path(folder) / path.name.replace("@.", "@model.")
            unit.write_text(text, encoding="utf-8")
            done = run("systemd-analyze", "verify", "--man=no", unit)
            check(done.returncode == 0 and path.name not in done.stderr, path.name, done.stderr)
            command = re.search(r"^ExecStart=(\S+)((?:.*\\\n)*.*)$", text, re.M)
            told = run(command[1], "--help").stdout
            unknown = [o for o in re.findall(r"--[a-z][\w-]*", command[2]) if o not in told]
            check(not unknown, path.name, "has", unknown)
            count += 1
    return f"{count} units"


# ---- how a node starts ----
def free_port():
    """One of this machine's that nobody has, nor the next one: other nodes may run here."""
    while True:
        with socket.socket(type=socket.SOCK_DGRAM) as one, \
                socket.socket(type=socket.SOCK_DGRAM) as next_one:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            try:
                next_one.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port


class Node:
    """weftd without a network (no privilege needed), in a folder of its own."""

    def __init__(self, args, folder, sockets="run", hugepages="off"):
        self.sockets = Path(folder) / sockets
        config = Path(folder) / "node.yaml"
        config.write_text(LOCAL_NODE.format(folder=folder, sockets=self.sockets, port=free_port(),
                                            hugepages=hugepages), encoding="utf-8")
        self.process = subprocess.Popen(
            [bin_dir(args) / "weftd", "--config", config, "--insecure"],
            stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def end(self):
        """Its exit status and what it said."""
        try:
            said = self.process.communicate(timeout=END_S)[1]
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise Problem("it does not end:", self.process.communicate()[1]) from None
        return self.process.returncode, said


def start_makes_folder(args, folder):
    """/run is empty after a boot: the folder of the sockets is made, the keys' one, too."""
    node = Node(args, folder)
    ready = any(" ready " in line for line in node.process.stderr)
    node.process.send_signal(signal.SIGTERM)
    status, said = node.end()
    check(ready and status == 0, status, said)
    check(not list(node.sockets.iterdir()), "left:", list(node.sockets.iterdir()))


def start_without_folder(args, folder):
    status, said = Node(args, folder, sockets="no/such").end()
    check(status == 1 and "cannot make the folder" in said, status, said)


def start_without_hugepages(args, folder):
    if HUGEPAGES.exists() and HUGEPAGES.read_text(encoding="ascii").strip() != "0":
        return
    node = Node(args, folder, hugepages="on")
    status, said = node.end()
    check(status == 1 and "nic.hugepages is on" in said, status, said)
    check(not list(node.sockets.iterdir()), "left:", list(node.sockets.iterdir()))


def start_interrupted(args, folder):
    """A signal counts from the first moment on, not only once the node is ready."""
    for pause_ms in (0, 5, 10, 20, 40, 80, 120, 160):
        node = Node(args, folder)
        time.sleep(pause_ms / 1000)
        node.process.send_signal(signal.SIGTERM)
        status, said = node.end()
        # Before it has a handler the signal's default ends it, which is as good.
        check(status in (0, -signal.SIGTERM), f"SIGTERM after {pause_ms} ms:", status, said)


def start_worker_without_kv_dir(args, folder):
    """What a worker keeps at its end needs a folder; that it has none is said at its start."""
    done = run(bin_dir(args) / "weft-worker", "--port", f"{folder}/p", "--model", "/none.gguf",
               "--kv-dir", f"{folder}/no/such")
    check(done.returncode == 2 and "cannot make --kv-dir" in done.stderr, done.stderr)


def start_worker_without_model(args, folder):
    """Status 2: trying again changes nothing. `weft serve` does not then."""
    model = Path(folder) / "cut.gguf"
    model.write_bytes(b"GGUF\3\0\0\0")
    for path in (model, "/no/such.gguf", folder):
        done = run(bin_dir(args) / "weft-worker", "--port", f"{folder}/p", "--model", path)
        check(done.returncode == 2 and f"cannot serve {path}" in done.stderr,
              path, "exit", done.returncode, done.stderr)
    done = run(bin_dir(args) / "weft", "serve", "--model", model, "--listen", "0")
    check(done.returncode == 1 and done.stderr.count("cannot serve") == 1, done.stderr)


def catches(pid, number):
    """Whether a process has a handler for that signal."""
    caught = re.search(r"^SigCgt:\s*(\w+)$", Path(f"/proc/{pid}/status").read_text("ascii"), re.M)
    return bool(int(caught[1], 16) >> (number - 1) & 1)


def start_serve_without_reader(args, folder):
    """Whoever read the log of `weft serve` may go: it goes on, until it is told to end."""
    model = Path(folder) / "no.gguf"
    model.write_bytes(b"GGUF")  # and no more: what fails is told again and again
    reader, writer = os.pipe()
    serve = subprocess.Popen([bin_dir(args) / "weft", "serve", "--model", model, "--listen", "0"],
                             stdin=subprocess.DEVNULL, stdout=writer, stderr=writer)
    os.close(reader)
    os.close(writer)
    time.sleep(1)
    until = time.monotonic() + END_S
    while serve.poll() is None and not catches(serve.pid, signal.SIGTERM) and \
            time.monotonic() < until:
        time.sleep(0.01)
    serve.send_signal(signal.SIGTERM)
    try:
        status = serve.wait(END_S)
    except subprocess.TimeoutExpired:
        serve.kill()
        raise Problem("it does not end") from None
    check(status in (0, 1), "exit", status)


def check_start(args):
    """A node begins on a fresh machine, says what keeps it from it, and ends when it is told to."""
    cases = [start_makes_folder, start_without_folder, start_without_hugepages, start_interrupted,
             start_worker_without_kv_dir, start_worker_without_model,
             start_serve_without_reader]
    for case in cases:
        with tempfile.TemporaryDirectory() as folder:
            try:
                case(args, folder)
            except Problem as problem:
                raise Problem(f"{case.__name__}: {problem}") from None
    return f"{len(cases)} cases"


CHECKS = {"alone": check_alone, "full": check_full, "help": check_help, "readmes": check_readmes,
          "scripts": check_scripts, "start": check_start, "units": check_units}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build-dir", type=Path, default=ROOT / "build")
    parser.add_argument("check", choices=CHECKS)
    args = parser.parse_args()
    try:
        print(f"ok {args.check}: {CHECKS[args.check](args)}")
    except Problem as problem:
        print(f"{args.check}: {problem}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
