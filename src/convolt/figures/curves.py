"""How a run learnt, epoch by epoch."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from convolt.figures.style import COLORS, new_figure, set_margins, set_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAMES = {"train": "training", "val": "validation"}
_FEW_RATES = 9


def draw_curves(
    rows: Sequence[Mapping[str, float]],
    title: str,
    tested: int | None = None,
    metric: tuple[str, str] = ("accuracy", "accuracy"),
) -> "Figure":
    """Draw loss, a metric and learning rate.

    Args:
        rows: An epoch each, as in metrics.csv.
        title: Above them.
        tested: The epoch whose weights were tested.
        metric: A fraction, by its name in the rows, and what it is called.
    """
    panels = {"loss": "loss", metric[0]: f"{metric[1]}, %", "learning_rate": "learning rate"}
    marker = "o" if len(rows) < 25 else ""
    with new_figure(9.6, 3.2, layout=None) as figure:
        grid = figure.subplots(1, 3, gridspec_kw={"wspace": 0.36})
        set_margins(figure, left=0.6, bottom=0.48)
        for axes, (name, label) in zip(grid, panels.items(), strict=True):
            scale = 100 if name == metric[0] else 1
            keys = [name] if name == "learning_rate" else [f"train/{name}", f"val/{name}"]
            for key, color, line in zip(keys, COLORS, ("-", "--"), strict=False):
                points = [(row["epoch"], scale * row[key]) for row in rows if key in row]
                if points:
                    x, y = zip(*points, strict=True)
                    style = {"color": color, "linestyle": line, "marker": marker, "markersize": 3.5}
                    axes.plot(x, y, label=_NAMES.get(key.partition("/")[0]), **style)
            if tested is not None:
                axes.axvline(tested, color="#777777", linewidth=0.9, linestyle=":", label="tested epoch")
            axes.set_xlabel("epoch")
            axes.set_ylabel(label)
            axes.xaxis.get_major_locator().set_params(integer=True)
            if name != "learning_rate":
                axes.legend(fontsize=8)
                continue
            rates = [row[name] for row in rows if row.get(name)]
            if rates and max(rates) > 50 * min(rates) and len(set(rates)) < _FEW_RATES:  # steps, not a curve
                axes.set_yscale("log")
                axes.yaxis.set_major_formatter("{x:g}")
            else:
                axes.set_ylim(bottom=0)
        set_title(figure, title)
        return figure
