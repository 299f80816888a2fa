# SPDX-License-Identifier: Apache-2.0
"""Reads the public headers: structs with their fields and comments, function declarations, tables.

Used by man/pages.py (the manual says what the headers say) and tests/unit/sdk (exported names and
layouts are what the committed lists say). Knows only the plain C that these headers are written in.
"""
import re
from dataclasses import dataclass
from pathlib import Path

HEADERS = ("client.h", "worker.h", "logprob.h", "status.h", "wire.h")


@dataclass
class Field:
    declaration: str  # "const char *node"
    name: str
    text: str  # the comment behind it; "" if there is none


@dataclass
class Function:
    name: str
    result: str  # "int "
    arguments: str
    api: bool  # marked WEFT_API
    text: str  # the comment before it


def words(comment):
    """A comment's text in one line."""
    lines = (re.sub(r"^\s*\*?\s?", "", line) for line in comment.splitlines())
    return " ".join(" ".join(lines).split())


def field_name(declaration):
    pointer = re.search(r"\(\*(\w+)\)\(", declaration)
    return pointer[1] if pointer else re.search(r"(\w+)(\[\d+\])?$", declaration)[1]


def fields(body):
    """The fields of a struct's body. A comment belongs to the field on whose line it begins; one
    on a line of its own belongs to the next field."""
    found, above = [], ""
    for match in re.finditer(r"/\*(.*?)\*/|([^;/]+);([ \t]*/\*(.*?)\*/)?", body, re.S):
        if match[2] is None:
            above = words(match[1])
            continue
        declaration = " ".join(match[2].split())
        found.append(Field(declaration, field_name(declaration), words(match[4] or "") or above))
        above = ""
    return found


def structs(text):
    """{name: [Field]} of all `typedef struct NAME { ... } NAME_t;`."""
    pattern = r"typedef struct (\w+) \{\n(.*?)\n\} \1_t;"
    return {match[1]: fields(match[2]) for match in re.finditer(pattern, text, re.S)}


def functions(text):
    """All function declarations, in order."""
    found = []
    pattern = (r"(?:/\*((?:(?!\*/).)*?)\*/\n)?"
               r"^(WEFT_API )?((?:const )?\w+ \**)(weft_\w+)\(([^;{]*?)\);")
    for match in re.finditer(pattern, text, re.S | re.M):
        if not match[3].startswith("return"):
            found.append(Function(match[4], match[3], " ".join(match[5].split()),
                                  match[2] is not None, words(match[1] or "")))
    return found


def table(text, macro):
    """Rows of an X-macro table: ENTRY(a, b, "text") as lists of strings."""
    body = re.search(r"#define %s\((\w+)[^)]*\)(.*?[^\\])\n(?!\s)" % macro, text + "\n\n", re.S)
    rows = re.finditer(r"\b%s\(((?:[^()\"]|\"[^\"]*\")*)\)" % body[1], body[2])
    return [[cell.strip().strip('"') for cell in re.findall(r'"[^"]*"|[^,"]+', row[1])
             if cell.strip()] for row in rows]


class Sdk:
    """All public headers of a folder (schemas/include/weft, or an installed one)."""

    def __init__(self, folder, tables=None):
        self.folder = Path(folder)
        self.tables = Path(tables or folder)
        self.structs, self.functions = {}, {}
        for name in HEADERS:
            text = (self.folder / name).read_text(encoding="utf-8")
            self.structs.update(structs(text))
            self.functions.update({f.name: f for f in functions(text)})

    def table(self, file, macro):
        return table((self.tables / file).read_text(encoding="utf-8"), macro)
