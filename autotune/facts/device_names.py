"""What a GPU is called, down to the words that tell one board from another.

``NVIDIA A100-SXM4-80GB``, ``2x A100 80GB`` and ``A100`` may be one board; ``RTX 4070`` and
``RTX 4070 Ti`` are two, and a laptop's chip is never the desktop's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_SPELLINGS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        ("_", " "),
        # What drivers add: "(RADV NAVI31)", "(TM)"; not what tells the board.
        (r"\((?![^)]*\b(?:laptop|mobile|max-q|\d+ ?gi?b|sxm\d?|pcie)\b)[^)]*\)", " "),
        # How many there are: "2x RTX 3090", "RTX 3090 x2". A "7900 XTX" is no 7,900 of anything.
        (r"^\s*\d{1,2}\s*[x×]\s*|(?:\s+x|\s*×)\s*\d{1,2}\s*$", ""),
        (r"^\s*(?=m\d\b)", "apple "),
        (r"(\d+)[ -]cores?\b", r"\1core"),
        (r"(\d+)[ -]?gi?b\b", r"\1gb"),
        (r"\b(rtx|gtx|rx)(?=a?\d)", r"\1 "),
        (r"(?<=\d)(?=(?:ti|super|xtx?|gre)\b)", " "),
        # A V100 for another socket, SXM3, is a board of its own.
        (r"\bsxm[2456]\b", "sxm"),
        (r"\bmobile\b", "laptop"),
        # A GeForce 6800 is of 2004, a Radeon RX 6800 is not.
        (r"\bgeforce\b(?! [6-9]\d{3}\b)", " "),
    )
)
"""One spelling for what is written in several ways; in this order, of a name in small letters."""
_APART = re.compile(r"[^\s,/()-]+")
_MAKERS = frozenset({"nvidia", "amd", "intel", "radeon", "tesla", "graphics", "gpu"})
"""Words that tell no board."""
_FAMILIES = frozenset({"gtx", "rtx", "rx", "arc", "instinct"})
"""Words before a number that tells the board alone, if it is longer than that of an ``RX 580``."""
_UNSAID = frozenset({"sxm", "pcie", "hbm3", "blackwell", "generation", "workstation", "edition"})
"""Words that people leave out, who then mean the most common board."""
_SIZE = re.compile(r"\d+(?:gb|core)")


def words_of(name: str) -> tuple[str, ...]:
    """The words of a name that tell a board, in one spelling; none where it tells only the maker.

    Sizes are words such as ``80gb`` and ``30core``.
    """
    text = name.lower()
    for pattern, replacement in _SPELLINGS:
        text = pattern.sub(replacement, text)
    return tuple(word for word in _APART.findall(text) if word not in _MAKERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedName:
    """The name of one board in a table."""

    words: frozenset[str]
    needed: frozenset[str]
    """Those without which the name could be another board's."""

    @classmethod
    def of(cls, name: str) -> ListedName:
        """From the name as the table writes it."""
        family, *rest = words_of(name)
        goes = family in _FAMILIES and not re.fullmatch(r"\d{1,3}", rest[0])
        needed = {word for word in rest if word not in _UNSAID and not _SIZE.fullmatch(word)}
        return cls(
            words=frozenset({family, *rest}),
            needed=frozenset(needed if goes else {family, *needed}),
        )

    def is_meant(self, said: frozenset[str]) -> bool:
        """Whether these words may mean this board.

        They may leave out what is not needed, and add a size where the table names none.
        """
        added, left_out = said - self.words, self.words - said
        if not said >= self.needed or not all(map(_SIZE.fullmatch, added)):
            return False
        return not (added and any(map(_SIZE.fullmatch, left_out)))
