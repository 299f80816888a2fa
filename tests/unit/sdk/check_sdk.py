#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""libweft as a product: what it exports, its headers, the layout of its structs, its installation.

Exit status: 0 = as it should be, 1 = not, with what to do about it; 77 = a tool is missing.
"""
import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
CLIENT = ROOT / "dataplane" / "client"
INCLUDE, TABLES = ROOT / "schemas" / "include" / "weft", ROOT / "schemas"
sys.dont_write_bytecode = True
sys.path.insert(0, str(CLIENT))
import header  # noqa: E402  (the path above makes it visible)

# Lie in the caller's memory, as parameters or in arrays: their size is part of the ABI.
CALLERS_OWN = ("weft_client_opts", "weft_message", "weft_query", "weft_query_more", "weft_result",
               "weft_worker_facts", "weft_load", "weft_worker_figures", "weft_job_part",
               "weft_job_report", "weft_worker_callbacks")
DIALECTS = (("c", "c11"), ("c", "c17"), ("c++", "c++17"), ("c++", "c++20"))
LIBRARY_PAGES = {"libweft", "weft_client", "weft_query", "weft_result", "weft_worker"}
WARNINGS = ("-Wall", "-Wextra", "-pedantic", "-Werror")
SKIPPED = 77


class Problem(Exception):
    """What is wrong, and what to do."""


def run(command, **options):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False,
                          **options)
    if done.returncode != 0:
        raise Problem(f"{' '.join(str(c) for c in command)}: exit {done.returncode}\n"
                      f"{done.stdout}{done.stderr}")
    return done.stdout


def difference(what, found, listed, advice_new, advice_gone):
    lines = [f"+ {name}" for name in sorted(found - listed)]
    lines += [f"- {name}" for name in sorted(listed - found)]
    if found - listed:
        lines.append(advice_new)
    if listed - found:
        lines.append(advice_gone)
    if lines:
        raise Problem(f"{what}:\n" + "\n".join(lines))


# ---- symbols ----
def mapped():
    text = (CLIENT / "weft.map").read_text(encoding="utf-8")
    return {(name, node) for node, names in re.findall(r"(WEFT_[\d.]+) \{\nglobal:\n(.*?)local:",
                                                       text, re.S)
            for name in re.findall(r"(\w+);", names)}


def nm_names(*args):
    return [line.split()[-1] for line in run(["nm", *args]).splitlines() if len(line.split()) == 3]


def check_symbols(args):
    """Headers, weft.map, libweft.so and libweft.a name the same functions, and nothing else."""
    listed = mapped()
    names = {name for name, _ in listed}
    functions = header.Sdk(INCLUDE, TABLES).functions
    difference("the headers against weft.map", set(functions), names,
               "A new function: append it to dataplane/client/weft.map.",
               "A function went: programs need it. Keep it, or raise SOVERSION.")
    unmarked = [f.name for f in functions.values() if not f.api]
    if unmarked:
        raise Problem(f"not marked WEFT_API in the headers: {', '.join(unmarked)}")
    exported = nm_names("-D", "--defined-only", args.build_dir / "lib" / "libweft.so")
    versioned = {tuple(name.split("@@")) for name in exported if not name.startswith("WEFT_")}
    difference("libweft.so against weft.map", versioned, listed,
               "It exports more than it should: see C_VISIBILITY_PRESET and the map's `local`.",
               "Listed but not there: is it defined, and marked WEFT_API?")
    archived = set(nm_names("-g", "--defined-only", args.build_dir / "lib" / "libweft.a"))
    difference("libweft.a against weft.map", archived, names,
               "It shows what is inside: see `objcopy --localize-hidden`.",
               "Listed but not there: is it defined, and marked WEFT_API?")
    return f"{len(names)} functions"


# ---- headers ----
def compilers():
    found = [(cc, cxx) for cc, cxx in (("gcc", "g++"), ("clang", "clang++"))
             if shutil.which(cc) and shutil.which(cxx)]
    if not found:
        raise SystemExit(SKIPPED)
    return found


def check_headers(_args):
    """Each header compiles alone, as C and C++, without a warning; also all together, twice."""
    names = sorted(path.name for path in INCLUDE.glob("*.h"))
    sources = [[name] for name in names] + [names + names[::-1]]
    for cc, cxx in compilers():
        for language, standard in DIALECTS:
            for included in sources:
                text = "".join(f"#include <weft/{name}>\n" for name in included)
                text += "int main(void) { return 0; }\n"
                run([cc if language == "c" else cxx, "-x", language, f"-std={standard}", *WARNINGS,
                     "-I", TABLES, "-I", TABLES / "include", "-fsyntax-only", "-"], input=text)
    return f"{len(names)} headers, {', '.join(cc for cc, _ in compilers())}"


# ---- layout ----
def layout_source(structs):
    lines = ["#include <stdio.h>", "#include <weft/client.h>", "#include <weft/worker.h>",
             "int main(void) {"]
    for struct, fields in structs.items():
        lines.append(f'printf("{struct} %zu\\n", sizeof({struct}_t));')
        for field in fields:
            lines.append(f'printf("{struct}.{field.name} %zu %zu\\n", offsetof({struct}_t, '
                         f'{field.name}), sizeof((({struct}_t *)0)->{field.name}));')
    return "\n".join([*lines, "return 0; }", ""])


def layout_now(args):
    structs = header.Sdk(INCLUDE, TABLES).structs
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder) / "layout.c", Path(folder) / "layout"
        source.write_text(layout_source(structs), encoding="utf-8")
        run([args.cc, "-I", TABLES, "-I", TABLES / "include", source, "-o", program])
        return run([program])


def layout_rows(text):
    rows = (line.split(maxsplit=1) for line in text.splitlines() if not line.startswith("#"))
    return {row[0]: row[1] for row in rows if len(row) == 2}


def check_layout(args):
    """Structs lie in memory as weft.layout says: a program built today runs with the next one."""
    path = CLIENT / "weft.layout"
    text = layout_now(args)
    if args.update:
        path.write_text("# SPDX-License-Identifier: Apache-2.0\n"
                        "# The public structs, 64-bit: NAME SIZE, then NAME.FIELD OFFSET SIZE.\n"
                        "# Made by tests/unit/sdk/check_sdk.py --update layout.\n" + text,
                        encoding="utf-8")
        return f"wrote {path}"
    now, was = layout_rows(text), layout_rows(path.read_text(encoding="utf-8"))
    moved = [f"{name}: was {was[name]}, is {now.get(name, 'gone')}" for name in was
             if now.get(name) != was[name] and not name.endswith(".reserved") and
             ("." in name or name in CALLERS_OWN)]
    if moved:
        raise Problem("programs that exist would break:\n" + "\n".join(moved) +
                      "\nTake new fields from the end's `reserved`, so that nothing else moves; or "
                      "raise SOVERSION\nand run check_sdk.py --update layout.")
    if now != was:
        new = sorted(name for name in now if now[name] != was.get(name))
        raise Problem(f"appended, which is fine: {', '.join(new)}\n"
                      "Run tests/unit/sdk/check_sdk.py --update layout, and tell the Python "
                      "package\n(dataplane/client/python/weft/_library.py).")
    return f"{len(now)} lines"


# ---- Python ----
def import_weft(args):
    os.environ["WEFT_LIBRARY"] = str(args.build_dir / "lib" / "libweft.so")
    sys.path.insert(0, str(CLIENT / "python"))
    import weft  # only this check needs it
    return weft


def camel(name):
    return "".join(word.capitalize() for word in name.split("_")) + "Error"


def check_python(args):
    """The Python package has the compiler's layout, every status, and text that survives cuts."""
    weft = import_weft(args)
    from weft import _core, _library
    now = layout_rows(layout_now(args))
    for name, struct in _library.STRUCTS.items():
        rows = {f"{name}.{field}": f"{at.offset} {at.size}" for field, at in
                ((field[0], getattr(struct, field[0])) for field in struct._fields_)}
        rows[name] = str(_library.ctypes.sizeof(struct))
        wanted = {key: value for key, value in now.items() if key.split(".")[0] == name}
        difference(f"{name} in weft/_library.py", set(rows.items()), set(wanted.items()),
                   "(is there, but not so in C)", "(is so in C: append it in weft/_library.py)")
    statuses = {(camel(name), int(code)) for name, code, _ in
                header.Sdk(INCLUDE, TABLES).table("status.def", "WEFT_STATUSES")}
    errors = {(name, getattr(weft, name).code) for name in weft.errors.__all__
              if getattr(weft, name).code != 0}
    difference("weft/errors.py against status.def", errors, statuses,
               "(no such status)", "A new status: a class for it in weft/errors.py, in its family.")
    check_cuts(_core)
    return f"{len(_library.STRUCTS)} structs, {len(errors)} exceptions"


def check_cuts(core):
    """Pieces may end anywhere inside a character."""
    text = "naïve 東京 🧵"
    data = text.encode()
    for cut in range(len(data) + 1):
        sink = core.Sink(1)
        sink.put(data[:cut])
        sink.put(data[cut:], True)
        if "".join(sink.pieces) != text:
            raise Problem(f"cut after byte {cut}: {list(sink.pieces)}")


def check_pip(args):
    """pip installs the package from the tree, and what it has installed works."""
    pythons = [name for name in (sys.executable, "/usr/bin/python3") if subprocess.run(
        [name, "-c", "import setuptools, wheel, pip"], capture_output=True, check=False)
        .returncode == 0]
    if not pythons:
        raise SystemExit(SKIPPED)
    python = pythons[0]
    with tempfile.TemporaryDirectory() as folder:
        source, site = Path(folder) / "source", Path(folder) / "site"
        shutil.copytree(CLIENT / "python", source)  # pip builds in the source folder
        run([python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps",
             "--no-build-isolation", "--disable-pip-version-check", "--root-user-action=ignore",
             "--target", site, source])
        shutil.copy(args.build_dir / "lib" / "libweft.so.1", site / "weft")
        env = {key: value for key, value in os.environ.items() if key != "WEFT_LIBRARY"}
        out = run([python, "-c", "import weft, weft._library as l; print(weft.__file__, "
                   "l.library()._name)"], env=env | {"PYTHONPATH": str(site)}, cwd=folder).split()
        files = {path.name for path in (site / "weft").iterdir()}
        if not all(str(site) in path for path in out) or "py.typed" not in files:
            raise Problem(f"installed {sorted(files)}, imported {out}")
    return "installed, found its library beside it"


# ---- manual ----
def check_man(args):
    """Every page is clean to mandoc and groff, and what it refers to exists."""
    pages = sorted(path for path in (args.build_dir / "man").glob("*/man?/*") if path.is_file())
    tools = [command for command in (["mandoc", "-Tlint", "-W", "warning"],
                                     ["man", "--warnings", "-l"]) if shutil.which(command[0])]
    if not tools:
        raise SystemExit(SKIPPED)
    names, said = {path.name for path in pages}, []
    difference("pages against functions", {name[:-2] for name in names if name.endswith(".3")},
               set(header.Sdk(INCLUDE, TABLES).functions) | LIBRARY_PAGES, "(no such function)",
               "A new function: put it into @synopsis and @functions of a page in "
               "dataplane/client/man.")
    for path in pages:
        text = path.read_text(encoding="utf-8")
        said += [f"{path.name}: no page {name}.{section}" for name, section in
                 re.findall(r"^\.Xr (weft\S*|libweft) (\d)", text, re.M)
                 if f"{name}.{section}" not in names and section == "3"]
        if text.startswith(".so "):
            said += [f"{path.name}: {text}"] if text.split("/")[-1].strip() not in names else []
            continue
        for command in tools:
            done = subprocess.run([*command, path], capture_output=True, text=True, check=False,
                                  env=os.environ | {"MANPAGER": "cat", "LC_ALL": "C.UTF-8"})
            said.append(done.stdout + done.stderr if command[0] == "mandoc" else done.stderr)
    said = [text for text in said if text]
    if said or not pages:
        raise Problem("\n".join(said) or "no pages")
    return f"{len(pages)} pages, {' and '.join(command[0] for command in tools)}"


# ---- installation ----
def example_build(path):
    """The command after `Build:` in an example's first comment."""
    return re.search(r"\* Build: (.*)", path.read_text(encoding="utf-8"))[1].replace("*/", "")


def check_install(args):
    """From an installation alone: the examples build by the line in their heads, and run. It may
    be at another prefix than was configured, or staged for a package."""
    for tool in ("pkg-config", "cmake"):
        if not shutil.which(tool):
            raise SystemExit(SKIPPED)
    counts = []
    for staged in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            stage = Path(folder) / "stage"
            command = ["cmake", "--install", args.build_dir, "--component", "sdk"]
            if staged:
                run(command, env=os.environ | {"DESTDIR": str(stage)})
                counts.append(check_installed(stage, {"PKG_CONFIG_SYSROOT_DIR": str(stage)}))
            else:
                run([*command, "--prefix", stage])
                counts.append(check_installed(stage, {}))
    return f"{counts[0][0]} examples from {counts[0][1]} files, installed and staged"


def check_installed(stage, env):
    work = stage.parent / "work"
    work.mkdir()
    files = {p.name: p for p in stage.rglob("*") if not p.is_dir()}
    wanted = {"libweft.so", "libweft.so.1", "libweft.a", "weft.pc", "wire.def", "status.def",
              "libweft.3", "weft_client.3", "weft_ask.3", *(p.name for p in INCLUDE.glob("*.h"))}
    if not wanted <= set(files):
        raise Problem(f"not installed: {', '.join(sorted(wanted - set(files)))}")
    env = os.environ | env | {"PKG_CONFIG_LIBDIR": str(files["weft.pc"].parent),
                              "LD_LIBRARY_PATH": str(files["libweft.so"].parent)}
    examples = sorted((CLIENT / "examples").glob("*.c"))
    for example in examples:
        shutil.copy(example, work)
        run(["sh", "-c", f"{example_build(example)} -Wall -Wextra -Werror"], cwd=work, env=env)
    run(["sh", "-c", "cc ask.c -o ask-static $(pkg-config --cflags weft) "
         f"{files['libweft.a']} -lm"], cwd=work, env=env)
    for program in ("ask", "ask-static"):
        expect_unreachable(work / program, env)
    return len(examples), len(files)


def expect_unreachable(program, env):
    """Port 1 of this host: nobody is there, and the program says so in the table's words."""
    table = header.Sdk(INCLUDE, TABLES).table("status.def", "WEFT_STATUSES")
    sentence = next(text for name, _, text in table if name == "UNREACHABLE")
    done = subprocess.run([program, "127.0.0.1:1", "m", "Hi"], env=env, capture_output=True,
                          text=True, timeout=60, check=False)
    if done.returncode != 1 or sentence not in done.stderr:
        raise Problem(f"{program.name}: exit {done.returncode}, {done.stdout}{done.stderr}")


CHECKS = {"symbols": check_symbols, "headers": check_headers, "layout": check_layout,
          "install": check_install, "python": check_python, "pip": check_pip,
          "man": check_man}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build-dir", type=Path, default=ROOT / "build")
    parser.add_argument("--cc", default="cc", help="C compiler")
    parser.add_argument("--update", action="store_true", help="layout: write the list anew")
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
