"""The pieces of HTML that a page is put together from. Everything that comes from data or files is escaped here."""

import html
import math
from collections.abc import Iterable, Sequence
from importlib.resources import files

# Neither breaks a line, so that a figure keeps its unit and a range its ends.
SPACE, DASH = "\u00a0", "\u2060–\u2060"


class Markup(str):
    """Text that is HTML already; any other text is escaped when it is put into a page."""

    __slots__ = ()


def text(value: object) -> Markup:
    """``value`` as HTML: unchanged if it is :class:`Markup`, escaped otherwise."""
    return value if isinstance(value, Markup) else Markup(html.escape(str(value)))


def join(parts: Iterable[object]) -> Markup:
    """Pieces one after another."""
    return Markup("".join(text(part) for part in parts))


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """An element. ``class_`` and ``for_`` lose their underline, other underlines become dashes; None is left out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{written}>{join(children)}</{name}>")


class Cell(Markup):
    """A whole ``td`` with attributes of its own, for :func:`table`."""

    __slots__ = ()


def cell(content: object, **attributes: object) -> Cell:
    """A table's cell with attributes; see :func:`tag`."""
    return Cell(tag("td", content, **attributes))


def table(
    caption: str, header: Sequence[object], rows: Iterable[Sequence[object]], *, class_: str | None = None
) -> Markup:
    """A table whose first column names the rows; it scrolls by itself where it is wider than the screen."""
    head = tag("thead", tag("tr", *(tag("th", name, scope="col") for name in header)))
    body = tag(
        "tbody",
        *(
            tag(
                "tr",
                tag("th", row[0], scope="row"),
                *(entry if isinstance(entry, Cell) else cell(entry) for entry in row[1:]),
            )
            for row in rows
        ),
    )
    # A keyboard must be able to reach what scrolls.
    return tag(
        "div",
        tag("table", tag("caption", caption), head, body, class_=class_),
        class_="scroll",
        tabindex="0",
        role="region",
        aria_label=caption,
    )


def bar(value: float, *, low: float | None = None, high: float | None = None, kind: str = "fused") -> Markup:
    """A share of 0..1 as a bar, with a whisker from ``low`` to ``high``. The figure itself stands beside it as text."""
    parts = [tag("i", style=f"width:{_percent(value)}")]
    if low is not None and high is not None:
        parts.append(tag("b", style=f"left:{_percent(low)};width:{_percent(high - low)}"))
    return tag("span", *parts, class_=f"bar {kind}", aria_hidden="true")


def _percent(value: float) -> str:
    return f"{100 * min(max(value, 0.0), 1.0):.2f}%"


def percent(share: float) -> str:
    """A share of 0..1 for people."""
    return "-" if math.isnan(share) else f"{100 * share:.1f}{SPACE}%"


def image(source: str, alt: str) -> Markup:
    """A picture inside the page; ``source`` is a ``data:`` address."""
    return Markup(f'<img src="{html.escape(source)}" alt="{html.escape(alt)}">')


def chart(svg: str, *, title: str, description: str) -> Markup:
    """A drawing with its title; ``description`` is for those who cannot see it."""
    drawing = tag("div", Markup(svg), role="img", aria_label=f"{title}: {description}", class_="drawing")
    return tag("figure", tag("figcaption", title), drawing, class_="chart")


def section(title: str, *children: object, level: int = 2, id_: str | None = None) -> Markup:
    """A part of the page under a heading."""
    return tag("section", tag(f"h{level}", title), *children, id=id_)


def details(summary: str, *children: object) -> Markup:
    """What is folded away until asked for."""
    return tag("details", tag("summary", summary), *children)


def paragraphs(lines: Iterable[object], *, class_: str | None = None) -> Markup:
    """A list of notes."""
    items = [tag("li", line) for line in lines]
    return tag("ul", *items, class_=class_) if items else Markup()


def document(title: str, *body: object) -> str:
    """The whole page: it loads nothing from anywhere and runs no scripts."""
    style = files("twostream.reporting").joinpath("page.css").read_text(encoding="utf-8")
    return (
        "<!doctype html>\n"
        '<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        # Whatever a file name smuggles past the escaping, the browser will neither run nor fetch it.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">"
        f"<title>{text(title)}</title><style>{style}</style></head>"
        f"<body><main>{join(body)}</main></body></html>\n"
    )
