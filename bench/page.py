"""Puts the report where readers look."""

from __future__ import annotations

from pathlib import Path

BEGIN, END = "<!-- bench -->", "<!-- /bench -->"


def replace_between(text: str, new: str) -> str:
    """The text with what stands between the markers replaced; both have to be there, once and in order."""
    head, begin, rest = text.partition(BEGIN)
    _old, end, tail = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in tail or END in head:
        raise ValueError(f"the file needs {BEGIN} and then {END}, once each")
    return f"{head}{BEGIN}\n{new.strip()}\n{END}{tail}"


def update(path: Path, new: str) -> None:
    """Rewrites the file."""
    path.write_text(replace_between(path.read_text(), new))
