#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the manual pages out of the templates beside it (*.in, mdoc) and what is true elsewhere:
the public headers, the tables of schemas/, and the programs' own --help. Lines of a template that
begin with @ are directives; they are the methods of Library and Programs."""
import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.dont_write_bytecode = True
sys.path.insert(0, str(HERE.parent))
import header  # noqa: E402  (the path above makes it visible)


# ---- roff ----
def escape(text):
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "\\(ga")
    return re.sub(r"^(?=[.'])", r"\\&", text, flags=re.M)


def argument(text):
    """One argument of a macro."""
    return '"' + escape(text).replace('"', '\\(dq') + '"'


def prose(text):
    """Running text; words such as weft_ask() become references to functions."""
    text = re.sub(r"`(\w+)`", r"\1", text)
    lines = []
    for line in re.sub(r"([.!?])\s+(?=[A-Z])", r"\1\n", text).split("\n"):
        lines.append(escape(line).replace("\\(ga", "`"))
    return [line for line in lines if line]


def listing(items):
    """items: (head, [lines of body])."""
    lines = [".Bl -tag -width Ds"]
    for head, body in items:
        lines += [f".It {head}", *body]
    return [*lines, ".El"]


def literal(lines):
    return [".Bd -literal -offset indent", *(escape(line) for line in lines), ".Ed"]


# ---- directives about the library ----
class Library:
    def __init__(self):
        self.sdk = header.Sdk(ROOT / "schemas" / "include" / "weft", ROOT / "schemas")
        self.page = None
        self.aliases = {}  # function: page

    def synopsis(self, *names):
        """Prototypes; each function becomes a name of this page."""
        lines = []
        for name in names:
            function = self.sdk.functions[name]
            self.aliases.setdefault(name, self.page)
            lines += [f".Ft {argument(function.result.strip())}", f".Fo {name}"]
            lines += [f".Fa {argument(a.strip())}" for a in function.arguments.split(",")]
            lines.append(".Fc")
        return lines

    def functions(self, *names):
        """What the headers say about functions."""
        items, waiting = [], []
        for name in names:
            waiting.append(name)
            text = self.sdk.functions[name].text
            if text or name == names[-1]:
                items.append((" , ".join(f"Fn {n}" for n in waiting), prose(text)))
                waiting = []
        return listing(items)

    def fields(self, struct):
        """What the headers say about the fields of a struct."""
        items = [(f"Vt {argument(f.declaration)}", prose(f.text))
                 for f in self.sdk.structs[struct] if f.name != "reserved"]
        return listing(items)

    def rows(self, file, macro, prefix=""):
        """A table of schemas/: name and its last column."""
        rows = self.sdk.table(file, macro)
        return listing([(f"Dv {prefix}{row[0]}", prose(row[-1])) for row in rows])

    def statuses(self):
        rows = self.sdk.table("status.def", "WEFT_STATUSES")
        return listing([(f"Dv WEFT_E_{name} Pq {escape(code)}", prose(text))
                        for name, code, text in rows])


# ---- directives about programs ----
def help_of(command):
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode != 0 or not done.stdout:
        raise SystemExit(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr}")
    return done.stdout.splitlines()


# Two spaces end an option's or a command's head, or one where the column of the texts begins.
OPTION = re.compile(r"^ {2,6}(-.*?)(?:(?: {2,}| (?=[a-z]))(\S.*))?$")
COMMAND = re.compile(r"^  ([a-z][\w-]*)(?: {2,}| (?<=^.{12}))(\S.*)$")
EXAMPLES = re.compile(r"^(?:examples?):$", re.I)


def paragraph(lines):
    """Other text of a help: a line that begins a little indented heads what follows, those that
    begin far indented stand as they are, as the usage does."""
    out, block = [], []
    for line in [*lines, ""]:
        text = line.strip()
        if re.match(r"^usage:|^ {4}", line, re.I):
            block.append(re.sub(r"(?i)^usage:\s*", "", text))
            continue
        if block:
            out += [".Pp", *literal(block), ".Pp"]
            block = []
        if line.startswith(" ") and len(text) < 60 and not out:
            out += [".Pp", escape(text[0].upper() + text[1:]) + ":"]
        elif text:
            out += prose(text)
        else:
            out.append(".Pp")
    return out


def squeeze(lines):
    """Without paragraphs that mdoc has anyway, or twice."""
    out = []
    for line in lines:
        if line == ".Pp" and (not out or out[-1] in (".Pp", ".Ed") or
                              out[-1].startswith((".Ss", ".Sh"))):
            continue
        if line.startswith((".Bl", ".Bd", ".Ss", ".Sh", ".Ed")) or line == ".El":
            while out and out[-1] == ".Pp":
                out.pop()
        out.append(line)
    while out and out[-1] == ".Pp":
        out.pop()
    return out


def help_page(lines):
    """A program's --help as mdoc: options and commands as lists, examples as they are."""
    out, items, other = [], [], []

    def flush():
        nonlocal items, other
        if items:
            out.extend([*listing(items), ".Pp"])
        out.extend(paragraph(other))
        items, other = [], []

    at = 0
    while at < len(lines):
        option, command = OPTION.match(lines[at]), COMMAND.match(lines[at])
        if EXAMPLES.match(lines[at].strip()):
            flush()
            end = at + 1
            while end < len(lines) and (lines[end].startswith(" ") or not lines[end]):
                end += 1
            rest = [line[2:] for line in lines[at + 1:end] if line]
            out += [".Pp", "Examples:", *literal(rest), ".Pp"]
            at = end
            continue
        if option or command:
            if other:
                flush()
            head = f"Sy {argument((option or command)[1])}"
            items.append((head, prose((option or command)[2] or "")))
        elif items and re.match(r"^ {8,}\S", lines[at]):
            items[-1][1].extend(prose(lines[at].strip()))
        else:
            if items:
                flush()
            other.append(lines[at])
        at += 1
    flush()
    return squeeze(out)


class Programs:
    def __init__(self, paths):
        self.paths = paths

    def help(self, program):
        """The program's --help, without its first line, which is the page's NAME."""
        lines = help_of([self.paths[program], "--help"])
        return help_page(lines[1:] if " - " in lines[0] else lines)

    def commands(self, program):
        """The --help of each command of a program, as subsections."""
        out = []
        for match in filter(None, map(COMMAND.match, help_of([self.paths[program], "--help"]))):
            if match[1] in ("help", "version"):
                continue
            lines = help_of([self.paths[program], match[1], "--help"])
            begin = 1 if " - " in lines[0] else 0
            out += [f".Ss {program} {match[1]}", escape(match[2][0].upper() + match[2][1:]) + ".",
                    ".Pp", *help_page(lines[begin:])]
        return squeeze(out)


    def places(self):
        """The gateway's own constraints of a request, as headers."""
        text = (ROOT / "dataplane" / "gateway" / "place.def").read_text(encoding="utf-8")
        items = []
        for _, name, _, _, _, *words in header.table(text, "GATEWAY_PLACES"):
            words = "".join(word for word in words if word != "\\")  # a line's end
            items.append((f"Li {argument(name)}", prose(words)))
        return listing(items)


# ---- pages ----
def expand(template, source):
    out = []
    for line in template.read_text(encoding="utf-8").splitlines():
        if line.startswith("@"):
            name, *args = line[1:].split()
            out += getattr(source, name)(*args)
        else:
            out.append(line)
    return "\n".join(squeeze(out)) + "\n"


def write(folder, name, text):
    path = folder / f"man{name[-1]}" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def library_pages(out, _args):
    library = Library()
    for template in sorted(HERE.glob("*.3.in")):
        library.page = template.stem
        write(out, template.stem, expand(template, library))
    for name, page in library.aliases.items():
        if f"{name}.3" != page:
            write(out, f"{name}.3", f".so man3/{page}\n")


def program_pages(out, args):
    programs = Programs(dict(pair.split("=", 1) for pair in args.programs))
    for template in sorted([*HERE.glob("*.1.in"), *HERE.glob("*.8.in")]):
        if template.stem[:-2] in programs.paths:
            write(out, template.stem, expand(template, programs))


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for man1, man3, man8; emptied first")
    parser.add_argument("programs", nargs="*", metavar="NAME=FILE",
                        help="pages of these programs; without any: of the library")
    args = parser.parse_args()
    shutil.rmtree(args.out, ignore_errors=True)
    (program_pages if args.programs else library_pages)(args.out, args)


if __name__ == "__main__":
    main()
