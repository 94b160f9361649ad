"""Where the labels of a scatter go so that they do not cover each other."""

from collections.abc import Sequence

CHARACTER, LINE, GAP = 6.4, 15, 7  # pixels of a 12 px label, and its distance from the point
PLACES = (
    "middle right",
    "top center",
    "bottom center",
    "middle left",
    "top right",
    "bottom right",
    "top left",
    "bottom left",
)
Box = tuple[float, float, float, float]


def place_labels(
    points: Sequence[tuple[float, float]], texts: Sequence[str], *, width: float, height: float
) -> list[str | None]:
    """A Plotly textposition for each label; None for an empty one, and where no place is free.

    points: in units of the axes' ranges (0 to 1); earlier labels win; width and height: of the plot in pixels.
    """
    pixels = [(x * width, (1 - y) * height) for x, y in points]
    taken: list[Box] = [(x - 5, y - 5, x + 5, y + 5) for x, y in pixels]
    chosen: list[str | None] = []
    for point, text in zip(pixels, texts, strict=True):
        boxes = {place: _box(point, len(text) * CHARACTER, place) for place in PLACES}
        free = next((place for place, box in boxes.items() if text and _is_free(box, taken, width, height)), None)
        chosen.append(free)
        if free:
            taken.append(boxes[free])
    return chosen


def _box(point: tuple[float, float], length: float, place: str) -> Box:
    x, y = point
    vertical, horizontal = place.split()
    left = {"right": x + GAP, "center": x - length / 2, "left": x - GAP - length}[horizontal]
    top = {"middle": y - LINE / 2, "top": y - GAP - LINE, "bottom": y + GAP}[vertical]
    return left, top, left + length, top + LINE


def _is_free(box: Box, taken: Sequence[Box], width: float, height: float) -> bool:
    left, top, right, bottom = box
    if left < 0 or right > width or top < 0 or bottom > height:
        return False
    return all(right < a or left > c or bottom < b or top > d for a, b, c, d in taken)
