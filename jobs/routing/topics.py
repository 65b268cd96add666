"""Patterns of topic exchanges: words between dots; ``*`` is any one, ``#`` any number of them."""

from __future__ import annotations

from collections.abc import Iterable


class _Node:
    """The patterns that begin alike, down to here."""

    __slots__ = ("any", "closure", "ends", "following")

    def __init__(self, word: str = "") -> None:
        #: Whether it stands behind a "#", which may take further words.
        self.any = word == "#"
        #: Word → how the patterns go on.
        self.following: dict[str, _Node] = {}
        #: What the patterns that end here stand for.
        self.ends: list[int] = []
        #: Where a search is on arriving here: here, and behind a "#" that takes no word.
        self.closure: dict[_Node, None] = {self: None}


class Topics:
    """Many patterns at once, as a tree of their words: a key costs by its own words, not by how
    many patterns there are."""

    def __init__(self, patterns: Iterable[tuple[str, int]]) -> None:
        """``patterns``: each with what it stands for."""
        self._root = _Node()
        self._start = self._root.closure
        for pattern, meaning in patterns:
            node, before = self._root, ""
            for word in _words(pattern):
                if word == before == "#":
                    continue  # any number twice is any number
                before = word
                found = node.following.get(word)
                if found is None:
                    found = node.following[word] = _Node(word)
                    if found.any:
                        node.closure[found] = None
                node = found
            node.ends.append(meaning)

    def find(self, key: str) -> list[int]:
        """What the patterns that a key fits stand for, each once, in order."""
        found: set[int] = set()
        # The nodes that the words so far lead to: each once, so that patterns with many "#" cost no
        # more than their size.
        nodes = self._start
        for word in _words(key):
            reached: dict[_Node, None] = {}
            for node in nodes:
                if node.any:
                    reached[node] = None  # one word more of any number
                following = node.following
                if word in following:
                    reached.update(following[word].closure)
                if "*" in following:
                    reached.update(following["*"].closure)
            nodes = reached
        for node in nodes:
            found.update(node.ends)
        return sorted(found)


def _words(text: str) -> list[str]:
    return text.split(".") if text else []
