"""The lines a call graph is drawn with, as SVG paths: what a node is shows in its shape."""

from __future__ import annotations

from itertools import pairwise

NODE_W, NODE_H = 96, 44
"""Pixels of a node."""


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


def middle(points: list[tuple[float, float]]) -> tuple[float, float]:
    """Return where a label goes: on the last piece, nearer to the callee, where lines lie farthest apart.

    Parameters
    ----------
    points : list of (float, float)
        As for `curve`.
    """
    (x1, y1), (x2, y2) = points[-2], points[-1]
    t = 0.62
    ease = 3 * t * t - 2 * t * t * t
    along = 1.5 * t - 1.5 * t * t + t * t * t
    return x1 + (x2 - x1) * ease, y1 + (y2 - y1) * along
