# SPDX-License-Identifier: Apache-2.0
"""The membership programs that can be measured, one small class each.

An adapter says how one node of its kind is started and what a line of its output means. Everything
else (clock, faults, counting) is the same for all of them. A program made for this harness, as
memberlist.go here, prints a JSON object a line: {"event": "alive|suspect|dead|left", "node": "n3"},
when it comes to believe so; Lines reads that.
"""
import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ALIVE, SUSPECT, DEAD, LEFT = "alive", "suspect", "dead", "left"
EVENTS = (ALIVE, SUSPECT, DEAD, LEFT)
PORT = 7946
GO_IMPORTS = "/usr/share/gocode"  # where Debian's golang-*-dev packages put their sources


class AgentError(Exception):
    """The program is not there or cannot be built; the text says what to do."""


class Agent:
    """name: of the system in results. prepare() once, before any node starts."""
    name = ""

    def prepare(self):
        """Checks or builds the program."""

    def version(self):
        return ""

    def command(self, node, address, join, folder):
        """The words that start node `node`; `join` is an address of the cluster or None."""
        raise NotImplementedError

    def parse(self, line):
        """(event, node it is about) or None."""
        raise NotImplementedError


class Serf(Agent):
    """Debian's serf with the LAN profile, as people run it. Its log says what it believes."""
    name = "serf"
    JOIN = re.compile(r"serf: EventMember(Join|Failed|Leave): (\S+)")
    DOUBT = re.compile(r"memberlist: Suspect (\S+) has failed")
    MEANING = {"Join": ALIVE, "Failed": DEAD, "Leave": LEFT}

    def prepare(self):
        if not shutil.which("serf"):
            raise AgentError("serf is missing. Run: apt-get install serf")

    def version(self):
        done = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", "serf"], capture_output=True,
                              text=True, check=False)
        return f"serf {done.stdout.strip() or '?'}, profile lan"

    def command(self, node, address, join, folder):
        words = ["serf", "agent", f"-node={node}", f"-bind={address}:{PORT}",
                 "-rpc-addr=127.0.0.1:7373", "-profile=lan", "-log-level=info"]
        return words + ([f"-join={join}:{PORT}"] if join else [])

    def parse(self, line):
        if found := self.JOIN.search(line):
            return self.MEANING[found[1]], found[2]
        if found := self.DOUBT.search(line):
            return SUSPECT, found[1]
        return None


class Lines(Agent):
    """Any program that prints a JSON object for each event. Words of its command may hold {node},
    {address}, {join} and {folder}; a word with {join} is left out for the first node, and so is the
    one before it if that begins with "--" and has no "="."""

    def __init__(self, name, command):
        self.name = name
        self.words = shlex.split(command)

    def prepare(self):
        if self.words and not shutil.which(self.words[0]):
            raise AgentError(f"'{self.words[0]}' is missing")

    def version(self):
        return " ".join(self.words)

    def command(self, node, address, join, folder):
        words = []
        for word in self.words:
            if "{join}" in word and not join:
                if words and words[-1].startswith("--") and "=" not in words[-1]:
                    words.pop()
                continue
            words.append(word.format(node=node, address=address, join=join, folder=folder))
        return words

    def parse(self, line):
        if not line.startswith("{"):
            return None
        try:
            event = json.loads(line)
        except ValueError:
            return None
        if event.get("event") not in EVENTS or "node" not in event:
            return None
        return event["event"], event["node"]


class Memberlist(Lines):
    """The library beneath serf with the timers of one's choice, so that nobody's defaults are all
    that is beaten. Built from Debian's packages into a folder of its own."""
    KNOBS = {"probe": "200ms", "timeout": "100ms", "suspicion": "2", "gossip": "200ms"}

    def __init__(self, name, **knobs):
        self.knobs = {**self.KNOBS, **knobs}
        super().__init__(name, "")
        self.program = None

    def prepare(self):
        if not shutil.which("go") or not (Path(GO_IMPORTS) / "src").is_dir():
            raise AgentError("Go and memberlist's sources are missing. Run: apt-get install "
                             "golang-go golang-github-hashicorp-memberlist-dev")
        self.program = build_memberlist()
        self.words = [self.program, "-name={node}", "-bind={address}", "-join={join}"]
        self.words += [f"-{knob}={value}" for knob, value in sorted(self.knobs.items())]

    def version(self):
        done = subprocess.run(["dpkg-query", "-W", "-f", "${Version}",
                               "golang-github-hashicorp-memberlist-dev"],
                              capture_output=True, text=True, check=False)
        knobs = " ".join(f"{k}={v}" for k, v in sorted(self.knobs.items()))
        return f"memberlist {done.stdout.strip() or '?'}, {knobs}"


def build_memberlist():
    """Compiles memberlist.go unless that has been done, and returns the program's path."""
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "weft-membership"
    program, source = folder / "memberlist", HERE / "memberlist.go"
    if program.exists() and program.stat().st_mtime > source.stat().st_mtime:
        return str(program)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as cache:
        env = {**os.environ, "GOPATH": GO_IMPORTS, "GO111MODULE": "off", "GOCACHE": cache,
               "GOFLAGS": "-p=2"}
        done = subprocess.run(["go", "build", "-o", program, source], env=env, capture_output=True,
                              text=True, check=False)
    if done.returncode != 0:
        raise AgentError(f"memberlist.go does not build:\n{done.stderr}")
    return str(program)


def known():
    """{name: adapter} of the systems that need no command of the user's."""
    all_of_them = [Serf(), Memberlist("tuned"), Memberlist("tuned4", suspicion="4"),
                   Memberlist("default", probe="1s", timeout="500ms", suspicion="4")]
    return {agent.name: agent for agent in all_of_them}


def by_words(word):
    """An adapter from the command line: a known name, memberlist with timers of one's choice
    (memberlist:probe=500ms:suspicion=3), or NAME=COMMAND for Lines."""
    if word.startswith("memberlist:"):
        knobs = dict(knob.partition("=")[::2] for knob in word.split(":")[1:])
        if not set(knobs) <= set(Memberlist.KNOBS) or not all(knobs.values()):
            raise AgentError(f"'{word}': knobs are {', '.join(Memberlist.KNOBS)}")
        return Memberlist(word, **knobs)
    name, has_command, command = word.partition("=")
    if has_command:
        return Lines(name, command)
    if name not in known():
        raise AgentError(f"'{name}' is none of {', '.join(known())}, nor NAME=COMMAND")
    return known()[name]
