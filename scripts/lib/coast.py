# SPDX-License-Identifier: Apache-2.0
"""coast.py WHEEL OUT: the land in a shapefile as JSON, for scripts/coast-fetch.

Shapefile: ESRI Shapefile Technical Description (1998), polygons. Out: rings, each a flat list of
tenths of a degree: longitude, latitude, then differences to the point before.
"""
import json
import struct
import sys
import zipfile

MEMBER = "geopandas/datasets/naturalearth_lowres/naturalearth_lowres.shp"
TOLERANCE = 0.25  # degrees
POLYGON = 5


def rings(data):
    """The rings of all polygons, as lists of (longitude, latitude)."""
    at = 100
    while at + 8 <= len(data):
        length = struct.unpack_from(">i", data, at + 4)[0] * 2
        body = at + 8
        kind, parts, points = (struct.unpack_from("<i", data, body)[0],
                               *struct.unpack_from("<ii", data, body + 36))
        if kind == POLYGON:
            starts = [*struct.unpack_from(f"<{parts}i", data, body + 44), points]
            base = body + 44 + 4 * parts
            for first, end in zip(starts, starts[1:]):
                yield [struct.unpack_from("<dd", data, base + 16 * i) for i in range(first, end)]
        at = body + length


def far(point, a, b):
    """Squared distance of a point from the line through a and b, or from a if they are one."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    px, py = point[0] - a[0], point[1] - a[1]
    if dx == 0 and dy == 0:
        return px * px + py * py
    return (px * dy - py * dx) ** 2 / (dx * dx + dy * dy)


def simplify(points):
    """Douglas and Peucker (1973), without recursion."""
    keep = {0, len(points) - 1}
    todo = [(0, len(points) - 1)]
    while todo:
        first, last = todo.pop()
        worst = max(range(first + 1, last), default=None,
                    key=lambda i: far(points[i], points[first], points[last]))
        if worst is not None and far(points[worst], points[first], points[last]) > TOLERANCE ** 2:
            keep.add(worst)
            todo += [(first, worst), (worst, last)]
    return [points[i] for i in sorted(keep)]


def main(wheel, out):
    result = []
    for ring in rings(zipfile.ZipFile(wheel).read(MEMBER)):
        flat, before = [], (0, 0)
        for point in simplify(ring)[:-1]:
            now = tuple(round(v * 10) for v in point)
            if now != before or not flat:
                flat += [now[0] - before[0], now[1] - before[1]]
            before = now
        if len(flat) >= 6:
            result.append(flat)
    with open(out, "w", encoding="ascii") as file:
        json.dump(result, file, separators=(",", ":"))


main(*sys.argv[1:])
