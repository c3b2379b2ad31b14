"""The lines a call graph is drawn with, as SVG paths: what a node is shows in its shape."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

NODE_W, NODE_H = 96, 44
"""Pixels of a node."""

_ALONG = (0.62, 0.5, 0.74, 0.4, 0.3)


def outline(kind: str, y: float, grow: float = 0.0) -> str:
    """Return the SVG path of a node's shape.

    Parameters
    ----------
    kind : str
        What the node is; database, cache and queue have shapes of their own.
    y : float
        Its middle, in pixels of the plot; x is in pixels from its middle.
    grow : float
        Pixels to draw it larger by, for a ring.
    """
    w, h = NODE_W / 2 + grow, NODE_H / 2 + grow
    top, bottom = y - h, y + h
    if kind == "database":  # a cylinder
        lid = 6
        return (
            f"M {-w},{top + lid} Q {-w},{top} 0,{top} Q {w},{top} {w},{top + lid} L {w},{bottom - lid} "
            f"Q {w},{bottom} 0,{bottom} Q {-w},{bottom} {-w},{bottom - lid} Z "
            f"M {-w},{top + lid} Q {-w},{top + 2 * lid} 0,{top + 2 * lid} "
            f"Q {w},{top + 2 * lid} {w},{top + lid}"
        )
    if kind == "cache":  # a hexagon
        cut = 12
        return (
            f"M {-w},{y} L {-w + cut},{top} L {w - cut},{top} L {w},{y} L {w - cut},{bottom} "
            f"L {-w + cut},{bottom} Z"
        )
    if kind == "queue":  # a slanted box
        slant = 10
        return f"M {-w + slant},{top} L {w},{top} L {w - slant},{bottom} L {-w},{bottom} Z"
    r = 8
    return (
        f"M {-w + r},{top} L {w - r},{top} Q {w},{top} {w},{top + r} L {w},{bottom - r} "
        f"Q {w},{bottom} {w - r},{bottom} L {-w + r},{bottom} Q {-w},{bottom} {-w},{bottom - r} "
        f"L {-w},{top + r} Q {-w},{top} {-w + r},{top} Z"
    )


def curve(points: list[tuple[float, float]]) -> str:
    """Return an SVG path of cubic curves that leave and arrive upright.

    Parameters
    ----------
    points : list of (float, float)
        From the caller over the bends to the callee.
    """
    text = f"M {points[0][0]:.5f},{points[0][1]:.1f}"
    for (x1, y1), (x2, y2) in pairwise(points):
        middle = (y1 + y2) / 2
        text += f" C {x1:.5f},{middle:.1f} {x2:.5f},{middle:.1f} {x2:.5f},{y2:.1f}"
    return text


def label_places(
    curves: Sequence[Sequence[tuple[float, float]]],
    sizes: Sequence[tuple[float, float]],
    taken: Sequence[tuple[float, float]],
    width: float,
) -> list[tuple[float, float]]:
    """Return a place for each curve's label, on the curve, where it covers least of what is there already.

    Parameters
    ----------
    curves : sequence of sequences of (float, float)
        As for `curve`.
    sizes : sequence of (float, float)
        Width and height of each label in pixels.
    taken : sequence of (float, float)
        Middles of the nodes.
    width : float
        Pixels that 1 of x stands for.

    Returns
    -------
    list of (float, float)
        In the order of the curves.
    """
    boxes: list[tuple[float, float, float, float]] = [(x * width, y, NODE_W, NODE_H) for x, y in taken]
    places = []
    for points, (label_w, label_h) in zip(curves, sizes, strict=True):
        choices = [_along(points, piece, t) for piece in range(len(points) - 2, -1, -1) for t in _ALONG]
        covered = [sum(_overlap((x * width, y, label_w, label_h), box) for box in boxes) for x, y in choices]
        x, y = choices[covered.index(min(covered))]
        boxes.append((x * width, y, label_w, label_h))
        places.append((x, y))
    return places


def _along(points: Sequence[tuple[float, float]], piece: int, t: float) -> tuple[float, float]:
    """Return the point of one piece of a curve at ``t`` of 0-1."""
    (x1, y1), (x2, y2) = points[piece], points[piece + 1]
    sideways = 3 * t * t - 2 * t * t * t
    down = 1.5 * t - 1.5 * t * t + t * t * t
    return x1 + (x2 - x1) * sideways, y1 + (y2 - y1) * down


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> float:
    """Return the area two boxes share, each given by its middle, width and height."""
    across = (one[2] + other[2]) / 2 - abs(one[0] - other[0])
    down = (one[3] + other[3]) / 2 - abs(one[1] - other[1])
    return across * down if across > 0 and down > 0 else 0.0
