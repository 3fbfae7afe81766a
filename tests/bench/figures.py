# SPDX-License-Identifier: Apache-2.0
"""Medians, spread, and the tables that show them."""

import statistics


def quantile(values, share):
    """With interpolation between neighbours."""
    values = sorted(values)
    at = share * (len(values) - 1)
    low = int(at)
    high = min(low + 1, len(values) - 1)
    return values[low] + (values[high] - values[low]) * (at - low)


def summary(values):
    """What is told of one measurement of one contestant, in ms."""
    return {
        "n": len(values),
        "median": round(statistics.median(values), 2),
        "p10": round(quantile(values, 0.1), 2),
        "p90": round(quantile(values, 0.9), 2),
        "min": round(min(values), 2),
        "max": round(max(values), 2),
    }


def table(header, rows):
    """Markdown that can also be read as it is."""
    rows = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    lines = []
    for number, row in enumerate(rows):
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        lines.append("| " + " | ".join(cells) + " |")
        if number == 0:
            lines.append("|" + "|".join(["-" * (widths[0] + 2)]
                                        + ["-" * (width + 1) + ":" for width in widths[1:]]) + "|")
    return "\n".join(lines)


def spread_row(name, numbers):
    """A row below ("what", "median", "p10 to p90", "min to max")."""
    return [name, f"{numbers['median']:.1f}", f"{numbers['p10']:.1f} to {numbers['p90']:.1f}",
            f"{numbers['min']:.1f} to {numbers['max']:.1f}"]
