"""A report as a tuple of sections of blocks, and its two renderings: Markdown and one HTML page.

A new kind of block is one more dataclass in `Block` and one more `case` in each rendering.
"""

import dataclasses
import html
import re
import string
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from lenet import figures

_PAGE = Path(__file__).with_name("page.html")


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph; `**bold**` and backquoted code are understood."""

    text: str


@dataclasses.dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    items: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Notice:
    """A paragraph that must not be overlooked."""

    text: str


@dataclasses.dataclass(frozen=True)
class Facts:
    """The few numbers at the top: (value, what it is)."""

    facts: tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of cells under a header; a column of numbers is set flush right."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclasses.dataclass(frozen=True)
class Code:
    """Text to be copied as it is."""

    code: str
    language: str


@dataclasses.dataclass(frozen=True)
class Plot:
    """An SVG figure.

    Attributes:
        name: the name of its file, without the suffix.
        svg: the file.
        width: in points.
        alternative: what it shows, for those who cannot see it.
        caption: what stands under it.
        wide: whether it takes all the width there is, and scrolls on a phone.
        paper: whether its images are dark on light, to be turned round on a dark page.
    """

    name: str
    svg: str
    width: float
    alternative: str
    caption: str
    wide: bool = False
    paper: bool = False


@dataclasses.dataclass(frozen=True)
class Row:
    """Plots that stand side by side where there is room."""

    plots: tuple[Plot, ...]


@dataclasses.dataclass(frozen=True)
class Details:
    """Blocks that are folded away under a line of text."""

    summary: str
    blocks: tuple["Block", ...]


Block = Text | Bullets | Notice | Facts | Table | Code | Plot | Row | Details


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: tuple[Block, ...]


def plot(
    name: str,
    figure: Figure,
    alternative: str,
    caption: str,
    *,
    wide: bool = False,
    paper: bool = False,
) -> Plot:
    """A `Plot` of a matplotlib figure; `name` becomes the name of its file."""
    width = figures.POINTS_PER_INCH * figure.get_figwidth()
    return Plot(name, figures.to_svg(figure), width, alternative, caption, wide, paper)


def plots(drawn: Sequence[Section]) -> tuple[Plot, ...]:
    """Every figure of a report, in its order."""

    def of_block(block: Block) -> tuple[Plot, ...]:
        match block:
            case Plot():
                return (block,)
            case Row():
                return block.plots
            case Details():
                return tuple(plot for inner in block.blocks for plot in of_block(inner))
            case _:
                return ()

    return tuple(plot for section in drawn for block in section.blocks for plot in of_block(block))


def to_markdown(title: str, drawn: Sequence[Section]) -> str:
    """The report as GitHub-flavoured Markdown, with its figures as files."""
    parts = [f"# {title}"]
    for section in drawn:
        parts.append(f"## {section.title}")
        parts += [_block_to_markdown(block) for block in section.blocks]
    return "\n\n".join(parts) + "\n"


def _block_to_markdown(block: Block) -> str:
    match block:
        case Text(text):
            return text.replace("<", "&lt;")
        case Bullets(items):
            return "\n".join(f"- {item.replace('<', '&lt;')}" for item in items)
        case Notice(text):
            return f"> {text.replace('<', '&lt;')}"
        case Facts(facts):
            return "\n".join(f"- **{value}** {label}" for value, label in facts)
        case Table(header, rows):
            rule = ["---:" if _numeric(column) else "---" for column in zip(*rows, strict=True)]
            lines = [header, rule or ["---"] * len(header), *rows]
            return "\n".join(
                f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |"
                for line in lines
            )
        case Code(code, language):
            return f"```{language}\n{code}\n```"
        case Plot():
            alternative = re.sub(r"([\[\]])", r"\\\1", block.alternative)
            return f"![{alternative}](figures/{block.name}.svg)\n\n*{block.caption}*"
        case Row(row):
            return "\n\n".join(_block_to_markdown(plot) for plot in row)
        case Details(summary, blocks):
            inside = "\n\n".join(_block_to_markdown(inner) for inner in blocks)
            return f"<details>\n<summary>{html.escape(summary)}</summary>\n\n{inside}\n\n</details>"


def to_html(title: str, drawn: Sequence[Section]) -> str:
    """The report as one page that needs no other file."""
    parts = [f"<h1>{html.escape(title)}</h1>"]
    for section in drawn:
        parts.append(f"<h2>{html.escape(section.title)}</h2>")
        parts += [_block_to_html(block) for block in section.blocks]
    template = string.Template(_PAGE.read_text("utf-8"))
    return template.substitute(title=html.escape(title), body="\n".join(parts))


def _block_to_html(block: Block) -> str:
    match block:
        case Text(text):
            return f"<p>{_inline(text)}</p>"
        case Bullets(items):
            return f"<ul>{''.join(f'<li>{_inline(item)}</li>' for item in items)}</ul>"
        case Notice(text):
            return f'<p class="notice">{_inline(text)}</p>'
        case Facts(facts):
            inside = "".join(
                f"<div><b>{_inline(value)}</b><span>{_inline(label)}</span></div>"
                for value, label in facts
            )
            return f'<div class="facts">{inside}</div>'
        case Table(header, rows):
            columns = tuple(zip(*rows, strict=True)) or ((),) * len(header)
            kinds = [' class="number"' if _numeric(column) else "" for column in columns]
            head = "".join(
                f"<th{kind}>{_inline(cell)}</th>" for kind, cell in zip(kinds, header, strict=True)
            )
            body = "".join(
                "<tr>"
                + "".join(
                    f"<td{kind}>{_inline(cell)}</td>" for kind, cell in zip(kinds, row, strict=True)
                )
                + "</tr>\n"
                for row in rows
            )
            return (
                f'<div class="table"><table><thead><tr>{head}</tr></thead>\n'
                f"<tbody>{body}</tbody></table></div>"
            )
        case Code(code, _):
            return f"<pre><code>{html.escape(code)}</code></pre>"
        case Plot():
            flags = " ".join(flag for flag in ("wide", "paper") if getattr(block, flag))
            limit = "" if block.wide else f' style="max-width: {1.35 * block.width:.0f}px"'
            return (
                f'<figure class="{flags}"{limit}><div class="canvas">{_inline_svg(block)}</div>'
                f"<figcaption>{_inline(block.caption)}</figcaption></figure>"
            )
        case Row(row):
            return f'<div class="row">{"".join(_block_to_html(plot) for plot in row)}</div>'
        case Details(summary, blocks):
            inside = "\n".join(_block_to_html(inner) for inner in blocks)
            return f"<details><summary>{html.escape(summary)}</summary>\n{inside}\n</details>"


def _inline(text: str) -> str:
    escaped = html.escape(text)
    escaped = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", escaped)
    escaped = re.sub(r"`(.+?)`", r"<code>\1</code>", escaped)
    escaped = re.sub(r"\b([np]) = (?=\d)", r"\1&nbsp;=&nbsp;", escaped)
    return re.sub(r"(?<=\d) (?=%|s\b|min\b|h\b)", "&nbsp;", escaped)


def _inline_svg(plot: Plot) -> str:
    """The SVG as an element of the page: its own ids, the page's colours, scaled to its place."""
    svg = plot.svg[plot.svg.index("<svg") :]
    svg = re.sub(r"<style.*?</style>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{plot.name}-', svg)
    svg = re.sub(r'(url\(|href=")#', rf"\1#{plot.name}-", svg)
    for name, color in figures.PALETTE.items():
        svg = svg.replace(color, f"var(--{name})")
    opening = re.match(r"<svg[^>]*>", svg)
    assert opening is not None
    box = re.search(r'viewBox="[^"]*"', opening[0])
    assert box is not None
    label = html.escape(plot.alternative)
    namespaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
    attributes = f'{namespaces}{box[0]} role="img" aria-label="{label}"'
    return f"<svg {attributes}>{svg[opening.end() :]}"


def _numeric(column: Sequence[str]) -> bool:
    number = re.compile(r"-|[-+]?[\d,.]+(e[-+]?\d+)?( %)?")
    return any(cell for cell in column) and all(
        not cell or number.fullmatch(cell) for cell in column
    )
