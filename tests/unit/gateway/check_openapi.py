# SPDX-License-Identifier: Apache-2.0
"""schemas/openapi.yaml against the gateway's tables: every route with its method, every constraint
as header and as field of `weft`, every field that a request may have. Usage: check_openapi.py ROOT.
"""
import re
import sys
from pathlib import Path

root = Path(sys.argv[1])
gateway = root / "dataplane" / "gateway"
text = (root / "schemas" / "openapi.yaml").read_text(encoding="utf-8")
wrong = []


def same(what, documented, real):
    for name in sorted(set(documented) ^ set(real)):
        wrong.append(f"{what}: {name} is only in the {'code' if name in real else 'description'}")


code = (gateway / "routes.c").read_text(encoding="utf-8")
real = {(method.lower(), path.rstrip("/")) for method, path in
        re.findall(r'\{\.method = "(\w+)",\s*\.path = "([^"]+)"', code)}
documented = {(method, re.sub(r"/(\{\w+\})?$", "", path)) for path, block in
              re.findall(r"^  (/\S*):\n((?:    .*\n)+)", text, re.M)
              for method in re.findall(r"^    (get|post|delete):", block, re.M)}
same("routes", documented, real)

places = re.findall(r'PLACE\((\w+), "([^"]+)"',
                    (gateway / "place.def").read_text(encoding="utf-8"))
same("headers", re.findall(r"name: (x-[\w-]+), in: header", text), [p[1] for p in places])
weft = re.search(r"\n    Weft:\n(.*?)\n    \w+:\n", text, re.S)[1]
fields = re.findall(r"^        (\w+): \{", weft, re.M)
same("fields of weft", fields, ["near" if p[0] == "near" else p[0] for p in places])

numbers = set(re.findall(r'^    \{"(\w+)",', (gateway / "api.c").read_text(encoding="utf-8"), re.M))
missing = [name for name in sorted(numbers) if not re.search(rf"\b{name}: \{{", text)]
wrong += [f"fields: {name} is not described" for name in missing]

print("\n".join(wrong) or f"{len(real)} routes, {len(places)} constraints, {len(numbers)} figures")
sys.exit(1 if wrong else 0)
