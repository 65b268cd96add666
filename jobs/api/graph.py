"""What followed what: the graph of a result and those that came of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TextIO


class DependencyGraph:
    """Results, each with those that directly followed it. Its text shows them indented, each with
    the number of all that came of it."""

    def __init__(self) -> None:
        self._followed: dict[Any, list[Any]] = {}

    def add_arc(self, result: Any) -> None:
        """Add a result that nothing has followed yet."""
        self._followed.setdefault(result, [])

    def add_edge(self, result: Any, after: Any) -> None:
        """Note that one has followed another."""
        self.add_arc(result)
        self._followed[result].append(after)

    def valency_of(self, result: Any) -> int:
        """How many results came of this one, directly or not."""
        followed = self._followed.get(result, [])
        return len(followed) + sum(map(self.valency_of, followed))

    def edges(self) -> list[Any]:
        """The results that others have followed."""
        return [result for result, followed in self._followed.items() if followed]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._followed)

    def __len__(self) -> int:
        return len(self._followed)

    def __contains__(self, result: object) -> bool:
        return result in self._followed

    def __getitem__(self, result: Any) -> list[Any]:
        return self._followed[result]

    def items(self) -> list[tuple[Any, list[Any]]]:
        return list(self._followed.items())

    def to_dot(self, fh: TextIO) -> None:
        """Write it to a file in the language of Graphviz."""
        fh.write("digraph dependencies {\n")
        for result, followed in self._followed.items():
            fh.write(f'    "{result.id}" [shape=oval]\n')
            fh.writelines(f'    "{result.id}" -> "{one.id}"\n' for one in followed)
        fh.write("}\n")

    def __repr__(self) -> str:
        return "\n".join(line for result in self for line in self._lines(result, 0))

    def _lines(self, result: Any, level: int) -> Iterator[str]:
        yield f"{'     ' * level}{result.id}({self.valency_of(result)})"
        for one in self._followed.get(result, []):
            yield from self._lines(one, level + 1)
