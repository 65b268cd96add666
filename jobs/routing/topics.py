"""Patterns of topic exchanges: words between dots; ``*`` is any one, ``#`` any number of them."""

from __future__ import annotations

from collections.abc import Iterable


class _Node:
    """The patterns that begin alike, down to here."""

    __slots__ = ("ends", "following", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        #: Word → how the patterns go on.
        self.following: dict[str, _Node] = {}
        #: What those stand for that end here.
        self.ends: list[int] = []


class Topics:
    """Many patterns at once, as a tree of their words: a key costs by its own words, not by how
    many patterns there are."""

    def __init__(self, patterns: Iterable[tuple[str, int]]) -> None:
        """Patterns with what each stands for."""
        self._count = 1
        self._root = _Node(0)
        for pattern, meaning in patterns:
            self._add(pattern, meaning)

    def _add(self, pattern: str, meaning: int) -> None:
        node, before = self._root, ""
        for word in _words(pattern):
            if word == before == "#":
                continue  # any number twice is any number
            before = word
            found = node.following.get(word)
            if found is None:
                found = node.following[word] = _Node(self._count)
                self._count += 1
            node = found
        node.ends.append(meaning)

    def find(self, key: str) -> list[int]:
        """What the patterns stand for that a key fits, each once, in order."""
        words = _words(key)
        total = len(words)
        found: set[int] = set()
        # Ways on which it fits so far: a node, and how many words led there. Each is gone once, so
        # that patterns with many "#" cost no more than their size.
        ways = [(self._root, 0)]
        seen = set()
        while ways:
            node, used = ways.pop()
            if (node.number, used) in seen:
                continue
            seen.add((node.number, used))
            following = node.following
            if "#" in following:
                ways += [(following["#"], more) for more in range(used, total + 1)]
            if used == total:
                found.update(node.ends)
                continue
            if words[used] in following:
                ways.append((following[words[used]], used + 1))
            if "*" in following:
                ways.append((following["*"], used + 1))
        return sorted(found)


def _words(text: str) -> list[str]:
    return text.split(".") if text else []
