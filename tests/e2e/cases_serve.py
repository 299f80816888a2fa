# SPDX-License-Identifier: Apache-2.0
"""`weft serve`: everything on one machine, by one command and without a privilege. See harness.py;
the mesh only lends a network namespace."""
import re
import signal
import subprocess
import tempfile
from pathlib import Path

from harness import MODEL, ROOT, MeshSpec, Skip, case, check, wait_until
from http_client import PORT, Server, Stream, chat, content

HOST = MeshSpec(nodes=2, workers="none")
CHAT = "/v1/chat/completions"
READY_S = 60.0
HI = chat(MODEL, "Say hi.", max_tokens=4)


def model_file():
    found = subprocess.run([ROOT / "scripts" / "model-fetch", "--offline"], capture_output=True,
                           text=True, check=False)
    if found.returncode != 0:
        raise Skip("the model is not there")
    return found.stdout.strip()


def children(pid):
    """{program: pid} of what a process has started."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = path.read_text(encoding="ascii")
            program = Path(f"/proc/{path.parent.name}/exe").resolve().name
        except OSError:
            continue
        if int(words.rpartition(")")[2].split()[1]) == pid:
            found[program] = int(path.parent.name)
    return found


def serve(mesh, *options):
    """Root without any capability: what matters is that none is needed. Its folders are where no
    other `weft serve` of this machine looks for leftovers."""
    model = model_file()
    runtime = Path(mesh.folder) / "serve"
    runtime.mkdir(mode=0o700, exist_ok=True)
    return Server(mesh, "tokyo", "weft", lambda program: [
        "env", f"XDG_RUNTIME_DIR={runtime}", "setpriv", "--bounding-set=-all", "--inh-caps=-all",
        "--no-new-privs", program, "serve", "--model", model, "--listen", str(PORT), "--threads",
        "1", *options])


def answered(server):
    return server.ask("POST", CHAT, HI).status == 200


def log_of_this(server, at):
    return server.log()[at:]


@case("serve/whole_life", HOST)
def whole_life(mesh, _quick):
    """Answers, goes on after each of its programs was killed, ends running answers well."""
    path = Path(mesh.folder) / "tokyo" / "weft.log"
    at = path.stat().st_size if path.exists() else 0
    server = serve(mesh)
    try:
        wait_until(lambda: "ready api=" in log_of_this(server, at), READY_S, "it says that it is")
        check(answered(server), "not answered")
        folder = Path(re.search(r"admin=(\S+)/admin.sock", log_of_this(server, at))[1])
        for program in ("weft-worker", "weftd", "weft-gateway"):
            pid = children(server.process.pid)[program]
            subprocess.run(["kill", "-KILL", str(pid)], check=True)
            wait_until(lambda p=program, old=pid:
                       children(server.process.pid).get(p) not in (None, old),
                       READY_S, f"{program} runs again")

            def again():
                try:
                    return answered(server)
                except OSError:
                    return False
            wait_until(again, READY_S, f"answers after the end of {program}")
        stream = Stream(server, CHAT, chat(MODEL, "Tell a story.", max_tokens=40))
        next(stream)
        server.process.send_signal(signal.SIGINT)
        events = list(stream)
        check(stream.done and content(events), "the running answer was cut:", events[-1:])
        check(server.process.wait(READY_S) == 0, "exit status", server.process.returncode)
        check(not folder.exists(), "left behind:", folder)
    finally:
        server.close()


@case("serve/leftovers", HOST)
def leftovers(mesh, _quick):
    """What a killed `weft serve` has left is removed by the next one, what runs is left alone."""
    path = Path(mesh.folder) / "tokyo" / "weft.log"
    folders = []
    servers = []
    try:
        for killed in (True, False):
            at = path.stat().st_size if path.exists() else 0
            servers.append(serve(mesh))
            wait_until(lambda start=at: "ready api=" in log_of_this(servers[-1], start), READY_S,
                       "it says that it is")
            folders.append(Path(re.search(r"admin=(\S+)/admin.sock",
                                          log_of_this(servers[-1], at))[1]))
            if killed:
                programs = children(servers[-1].process.pid)
                servers[-1].process.kill()
                servers[-1].process.wait(READY_S)
                wait_until(lambda p=programs: not any(Path(f"/proc/{pid}").exists()
                                                      for pid in p.values()), READY_S,
                           "its programs have ended, too")
                check(folders[0].exists(), "nothing was left")
        check(not folders[0].exists() and folders[1].exists(), "not removed:", folders)
    finally:
        for server in servers:
            server.close()


@case("serve/would_not_run", HOST)
def would_not_run(mesh, _quick):
    """No such file, a file that is no model, a listening port that somebody has: an error, soon."""
    weft = mesh.build_dir / "bin" / "weft"

    def run(*args):
        return subprocess.run(mesh.in_netns([weft, "serve", *args], "tokyo"), capture_output=True,
                              text=True, timeout=READY_S, check=False)
    check(run().returncode == 2, "without a model")
    check(run("--model", "/nowhere/at.all").returncode == 1, "a model that is not there")
    none = run("--model", "/etc/passwd", "--listen", "8099")
    check(none.returncode == 1 and "is not a GGUF file" in none.stderr, none.stderr[-2000:])
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"GGUF")  # and no more
        file.flush()
        none = run("--model", file.name, "--listen", "8099")
        check(none.returncode == 1 and "would not run" in none.stderr, none.stderr[-2000:])
    none = run("--model", model_file(), "--listen", "192.0.2.1:8099")
    check(none.returncode == 1 and "has no such address" in none.stderr, none.stderr[-2000:])
