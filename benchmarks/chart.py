"""A bar chart as SVG: plain text in it, readable on light and dark pages and by screen readers."""

from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH = 760
#: Where the bars begin, and the longest ends.
LEFT, RIGHT = 330, 670
ROW, BAR, TOP = 24, 15, 64

STYLE = """
    text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328 }
    .title { font-size: 16px; font-weight: 600 }
    .note { fill: #59636e }
    .value { font-variant-numeric: tabular-nums }
    .ours { fill: #0969da }
    .peer { fill: #8c959f }
    .limit { fill: none; stroke: #59636e; stroke-dasharray: 3 3 }
    text.ours { fill: #0550ae; font-weight: 600 }
    @media (prefers-color-scheme: dark) {
      text { fill: #f0f6fc }
      .note { fill: #9198a1 }
      .ours { fill: #4493f8 }
      .peer { fill: #6e7681 }
      .limit { fill: none; stroke: #9198a1 }
      text.ours { fill: #79c0ff }
    }
"""


@dataclass(frozen=True)
class Bar:
    """One row: ``kind`` is ``ours``, ``peer`` or ``limit`` (what the machine allows)."""

    label: str
    value: float
    kind: str = "peer"
    digits: int = 0

    @property
    def text(self) -> str:
        """The value as people read it."""
        return f"{self.value:,.{self.digits}f}"


@dataclass(frozen=True)
class Chart:
    """Bars from zero, all on one scale."""

    title: str
    subtitle: str
    bars: list[Bar]

    def svg(self) -> str:
        """Return the chart. The description lists every value."""
        height = TOP + ROW * len(self.bars) + 10
        listed = "; ".join(f"{bar.label}: {bar.text}" for bar in self.bars)
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
            f' width="{WIDTH}" height="{height}" role="img" aria-labelledby="title desc">',
            f'  <title id="title">{escape(self.title)}</title>',
            f'  <desc id="desc">{escape(self.subtitle)}. {escape(listed)}.</desc>',
            f"  <style>{STYLE}  </style>",
            f'  <text class="title" x="8" y="24">{escape(self.title)}</text>',
            f'  <text class="note" x="8" y="45">{escape(self.subtitle)}</text>',
        ]
        longest = max((bar.value for bar in self.bars), default=1.0)
        for number, bar in enumerate(self.bars):
            lines += self._row(bar, TOP + ROW * number, bar.value / longest)
        return "\n".join([*lines, "</svg>", ""])

    def _row(self, bar: Bar, top: int, share: float) -> list[str]:
        width = max(1.0, share * (RIGHT - LEFT))
        middle, end = top + BAR - 3, LEFT + width
        own = " ours" if bar.kind == "ours" else ""
        return [
            f'  <text class="label{own}" x="{LEFT - 10}" y="{middle}" text-anchor="end">'
            f"{escape(bar.label)}</text>",
            f'  <rect class="{bar.kind}" x="{LEFT}" y="{top}" height="{BAR}" width="{width:.1f}"/>',
            f'  <text class="value{own}" x="{end + 8:.1f}" y="{middle}">{bar.text}</text>',
        ]
