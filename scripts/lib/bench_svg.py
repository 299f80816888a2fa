# SPDX-License-Identifier: Apache-2.0
"""The picture of bench-routed's JSON, for bench/RESULTS.md and the README: p99 of the first token,
one worker asked directly beside as many workers per node behind a mesh. Plain SVG, no library.
"""
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 720, 300, 52, 40, 44
SHARES = (0.5, 0.9)
COLOURS = {"direct": "#9aa5b1", "routed": "#2563eb"}
NAMES = {"direct": "one worker, asked directly", "routed": "through the mesh, same load a worker"}
BAR, GAP, WHISKER = 30, 4, 5
STEPS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


def text(x, y, words, anchor="middle", extra=""):
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" {extra}>{words}</text>'


def scale_of(rows):
    """Milliseconds at the top of the axis, and between its lines."""
    most = max(figure[2] for row in rows for figure in (row["direct"]["p99_ms"],
                                                        row["routed"]["p99_ms"]))
    step = next((step for step in STEPS if most / step <= 6), STEPS[-1])
    return (int(most / step) + 1) * step, step


def bar(x, figure, name, y_of):
    """One bar with its 95 % interval."""
    middle, low, high = figure
    centre = x + BAR / 2
    return [f'<rect x="{x:.1f}" y="{y_of(middle):.1f}" width="{BAR}" '
            f'height="{y_of(0) - y_of(middle):.1f}" fill="{COLOURS[name]}"/>',
            f'<path d="M{centre - WHISKER:.1f} {y_of(high):.1f}h{2 * WHISKER}m-{WHISKER} 0'
            f'V{y_of(low):.1f}m-{WHISKER} 0h{2 * WHISKER}" stroke="#1f2937" fill="none"/>',
            text(centre, y_of(high) - 4, f"{middle:.0f}", extra='font-size="11"')]


def panel(rows, share, left, width, y_of):
    out = [text(left + width / 2, HEIGHT - 6, f"{100 * share:g} % of capacity")]
    for number, row in enumerate(rows):
        centre = left + width * (number + 0.5) / len(rows)
        x = centre - BAR - GAP / 2
        out += bar(x, row["direct"]["p99_ms"], "direct", y_of)
        out += bar(x + BAR + GAP, row["routed"]["p99_ms"], "routed", y_of)
        words = f"{row['nodes']} node{'s' if row['nodes'] != 1 else ''}"
        out.append(text(centre, HEIGHT - BOTTOM + 16, words))
    return out


def routed(data):
    """The SVG; None if there is too little in the JSON for it."""
    panels = [[row for row in data["rows"] if row["share"] == share] for share in SHARES]
    rows = [row for panel_rows in panels for row in panel_rows]
    if not all(panels) or any(row[side]["p99_ms"] is None for row in rows
                              for side in COLOURS):
        return None
    top_ms, step_ms = scale_of(rows)

    def y_of(ms):
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - ms / top_ms)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
           f'width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="13" '
           'fill="#1f2937">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
           text(6, 16, "first token, p99 in ms (95 % intervals)", "start")]
    for place, name in enumerate(COLOURS):
        x = 290 + 195 * place
        out += [f'<rect x="{x}" y="6" width="12" height="12" fill="{COLOURS[name]}"/>',
                text(x + 17, 16, NAMES[name], "start", 'font-size="11"')]
    for ms in range(0, top_ms + 1, step_ms):
        out += [f'<path d="M{LEFT} {y_of(ms):.1f}H{WIDTH - 8}" stroke="#e5e7eb"/>',
                text(LEFT - 6, y_of(ms) + 4, ms, "end", 'font-size="11"')]
    width = (WIDTH - LEFT - 8) / len(panels)
    for number, (share, panel_rows) in enumerate(zip(SHARES, panels)):
        out += panel(panel_rows, share, LEFT + number * width, width, y_of)
    return "\n".join([*out, "</svg>"]) + "\n"
