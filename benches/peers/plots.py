"""Draws docs/performance/*.svg from what is kept in results/. Run by run.py, with the Python that setup installs."""

import html
import math
import re
import statistics
from pathlib import Path

import matplotlib

matplotlib.use("svg")

import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, NullFormatter

import results

FOLDER = Path(__file__).resolve().parent.parent.parent / "docs/performance"

# Okabe and Ito's colours, which nearly everybody can tell apart; each bar is named as well.
COLOURS = {"tandem": "#0072B2", "limit": "#8A8A8A", "nats": "#E69F00", "rabbitmq": "#D55E00", "activemq": "#CC79A7",
           "mosquitto": "#009E73", "crossbar": "#56B4E9"}
INK = "#222222"
PALE = "#D8D8D8"

# Of largest to smallest, from which a linear axis shows nothing of the smallest.
LOG_FROM = 20

SETTINGS = {
    # The same figures give the same file, with text as text.
    "svg.hashsalt": "tandem", "svg.fonttype": "none", "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"], "font.size": 10,
    # A ground of its own, so that it can be read on a dark page as well.
    "figure.facecolor": "white", "axes.facecolor": "white", "savefig.facecolor": "white",
    "text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "axes.edgecolor": "#767676",
    "figure.constrained_layout.w_pad": 0.12, "figure.constrained_layout.h_pad": 0.1,
    "axes.spines.top": False, "axes.spines.right": False, "figure.titlesize": 11,
}


def short(value):
    """1.5 M, 20 k."""
    for unit, name in ((1e6, " M"), (1e3, " k")):
        if value >= unit:
            return f"{value / unit:.3g}{name}"
    return f"{value:.3g}"


def save(figure, name, title):
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}.svg"
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    plt.close(figure)
    # Some lines end with blanks; and who does not see it is told what it is.
    text = "\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n"
    path.write_text(re.sub(r"(<svg [^>]*)>", rf'\1 role="img">\n <title>{html.escape(title)}</title>', text, count=1))


def line_with_ends(axes, x, y, spread, along):
    """From the smallest to the largest, dark with a light edge, so that it shows on any colour."""
    for colour, width, thick in (("white", 3.2, 3), (INK, 1.2, 1)):
        axes.errorbar(x, y, fmt="none", ecolor=colour, elinewidth=width, capsize=3, capthick=thick, **{along: spread})


def bars(found):
    """Deliveries per CPU-second: the median of each, and from the smallest to the largest."""
    # Where nothing came in time there is nothing to draw.
    values = {variant.key: [value for value in found.values(variant.key, "per_cpu") if value] for variant in found.variants()}
    shown = [variant for variant in found.variants() if values[variant.key]]
    if not shown:
        return
    values = [values[variant.key] for variant in shown]
    middles = [statistics.median(some) for some in values]
    figure, axes = plt.subplots(figsize=(8, 1.15 + 0.36 * len(shown)), layout="constrained")
    places = range(len(shown))
    axes.barh(places, middles, height=0.68, color=[COLOURS[variant.broker] for variant in shown])
    below = [middle - min(some) for middle, some in zip(middles, values)]
    above = [max(some) - middle for middle, some in zip(middles, values)]
    line_with_ends(axes, middles, places, [below, above], "xerr")
    axes.set_yticks(places, [variant.title for variant in shown])
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    smallest, largest = min(map(min, values)), max(map(max, values))
    is_log = largest / smallest > LOG_FROM
    if is_log:
        axes.set_xscale("log")
        axes.set_xlim(10 ** math.floor(math.log10(smallest * 0.7)), largest * 3)
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(0, largest * 1.14)
    for place, middle, some in zip(places, middles, values):
        axes.annotate(short(middle), (max(some), place), xytext=(5, 0), textcoords="offset points", va="center")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.grid(axis="x", color=PALE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel(found.workload.axis + (" (logarithmic)" if is_log else ""))
    figure.suptitle(found.workload.title, x=0.02, ha="left")
    save(figure, found.workload.name, found.workload.title)


PERCENTILES = (("p50", "50 %"), ("p90", "90 %"), ("p99", "99 %"), ("p99_9", "99.9 %"))
MARKERS = "osD^vPX"


def percentiles(found):
    """How long messages take: the median of the rounds for each percentile, and from the smallest to the largest."""
    shown = [variant for variant in found.variants() if found.values(variant.key, "p99_9")]
    if not shown:
        return
    figure, axes = plt.subplots(figsize=(8, 4.2), layout="constrained")
    seen, lines = {}, []
    for index, variant in enumerate(shown):
        values = [[us / 1000 for us in found.values(variant.key, name)] for name, _ in PERCENTILES]
        middles = [found.median(variant.key, name) / 1000 for name, _ in PERCENTILES]
        # Side by side, or they hide each other.
        places = [at + 0.09 * (index - (len(shown) - 1) / 2) for at in range(len(PERCENTILES))]
        spread = [[middle - min(some) for middle, some in zip(middles, values)],
                  [max(some) - middle for middle, some in zip(middles, values)]]
        turn = seen[variant.broker] = seen.get(variant.broker, 0) + 1
        line = axes.errorbar(places, middles, yerr=spread, color=COLOURS[variant.broker], marker=MARKERS[index],
                             markersize=6, linewidth=1.4, linestyle="-" if turn == 1 else "--", elinewidth=1.2,
                             capsize=3)
        lines.append(line[0])
    axes.set_xticks(range(len(PERCENTILES)), [said for _, said in PERCENTILES])
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="y", which="both", color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel("of deliveries took at most")
    axes.set_ylabel("milliseconds (logarithmic)")
    figure.suptitle(found.workload.title, x=0.02, ha="left")
    figure.legend(lines, [variant.title for variant in shown], frameon=False, loc="outside lower center", ncols=3)
    save(figure, f"{found.workload.name}-percentiles", f"{found.workload.title}: percentiles")


def main():
    plt.rcParams.update(SETTINGS)
    for found in results.load_all().values():
        if found is None or found.workload.name in ("idle", "start"):
            continue
        bars(found)
        if found.workload.shows_percentiles:
            percentiles(found)


if __name__ == "__main__":
    main()
