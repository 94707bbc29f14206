"""What differs between two texts, line by line, with bounds: whoever writes templates may write those that are hard to compare."""

import json
from difflib import SequenceMatcher
from typing import Any

# difflib may take the cube of the lines; beyond so many that differ the whole is shown as replaced.
MOST_LINES = 400
AROUND = 3  # unchanged lines shown on both sides, as `diff -u` does


def difference(before: Any, after: Any) -> str:
    """A unified diff without its heads, or "" where there is none. What is no text is compared as JSON, absent as empty."""
    if before == after:
        return ""
    old, new = _lines(before), _lines(after)
    same = _same_at_front(old, new)
    behind = _same_at_front(old[same:][::-1], new[same:][::-1])
    first = max(0, same - AROUND)  # difflib sees what differs and a few lines around it
    left, right = old[first : len(old) - behind + min(AROUND, behind)], new[first : len(new) - behind + min(AROUND, behind)]
    if max(len(left), len(right)) > MOST_LINES:
        return "\n".join([_head(first, len(left), first, len(right)), *_each("-", left), *_each("+", right)])
    shown: list[str] = []
    for group in SequenceMatcher(None, left, right, autojunk=False).get_grouped_opcodes(AROUND):
        (_, left_from, _, right_from, _), (_, _, left_to, _, right_to) = group[0], group[-1]
        shown.append(_head(first + left_from, left_to - left_from, first + right_from, right_to - right_from))
        for kind, left_at, left_end, right_at, right_end in group:
            if kind == "equal":
                shown += _each(" ", left[left_at:left_end])
            else:
                shown += [*_each("-", left[left_at:left_end]), *_each("+", right[right_at:right_end])]
    return "\n".join(shown)


def _head(left: int, left_count: int, right: int, right_count: int) -> str:
    """`@@ -1,3 +1,4 @@`; of nothing the line before it is named (GNU diffutils, 2.2.2.2)."""
    sides = [f"{start + (1 if count else 0)},{count}" for start, count in ((left, left_count), (right, right_count))]
    return f"@@ -{sides[0]} +{sides[1]} @@"


def _lines(value: Any) -> list[str]:
    if value is None:
        return []
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True)
    return text.split("\n") if text not in ("{}", "[]") else []


def _same_at_front(old: list[str], new: list[str]) -> int:
    return next((number for number, pair in enumerate(zip(old, new, strict=False)) if pair[0] != pair[1]), min(len(old), len(new)))


def _each(sign: str, lines: list[str]) -> list[str]:
    return [sign + line for line in lines]
