"""The source: folders depend on each other one way, and what needs no server imports none."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src"
# Folders that need no server: they import nothing but each other and these files.
PURE = {"model", "scan", "waves", "throttle", "estimate", "sync", "report"}
LEAVES = {"error", "quote", "guc"}
# Rooms whose files are in no cycle either.
FLAT = {"worker", "scan", "waves", "throttle", "estimate", "sync", "store", "table"}

Graph = Mapping[str, set[str]]


def module(path: Path) -> tuple[str, ...]:
    """The module that a file holds."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return parts[:-1] if parts[-1] in ("mod", "lib") else parts


FILES = {module(path): path for path in SOURCE.rglob("*.rs") if not path.stem.endswith("_tests")}


def leaves(tree: str) -> Iterator[list[str]]:
    """The paths of a tree of imports, `a::{b, c::{d}}`."""
    head, _, group = tree.partition("{")
    prefix = [part for part in head.strip().split("::") if part]
    if not group:
        yield [part.split(" as ")[0].strip() for part in prefix]
        return
    depth, item = 0, ""
    for sign in group.rstrip().removesuffix("}") + ",":
        depth += (sign == "{") - (sign == "}")
        if sign == "," and depth == 0:
            for rest in leaves(item) if item.strip() else ():
                yield prefix + rest
            item = ""
        else:
            item += sign


def imports(name: tuple[str, ...]) -> set[tuple[str, ...]]:
    """The modules of ours that a module names, in `use` or in its text; its unit tests apart."""
    text = re.sub(r"//.*", "", FILES[name].read_text()).split("#[cfg(test)]\nmod tests")[0]
    uses = re.findall(r"\buse\s+([^;]+);", text)
    paths = [path for use in uses for path in leaves(use)]
    paths += [path.split("::") for path in re.findall(r"\b(?:crate|super)(?:::\w+)+", text)]
    found = set()
    for path in paths:
        base = list(name)
        if path[0] == "crate":
            base, path = [], path[1:]
        elif path[0] != "super":
            continue
        while path and path[0] == "super":
            base, path = base[:-1], path[1:]
        full = tuple(base + path)
        while full and full not in FILES:
            full = full[:-1]
        if full and full != name:
            found.add(full)
    return found


IMPORTS = {name: imports(name) for name in FILES}


def cycles(graph: Graph) -> list[set[str]]:
    """Nodes that reach each other."""
    reach: dict[str, set[str]] = {}
    for start in graph:
        seen: set[str] = set()
        todo = [*graph[start]]
        while todo:
            node = todo.pop()
            if node not in seen:
                seen.add(node)
                todo += graph.get(node, set())
        reach[start] = seen
    return [{a, b} for a in graph for b in graph if a < b and b in reach[a] and a in reach[b]]


def test_folders_are_in_no_cycle() -> None:
    """Of `src/`: api and worker at the top, what needs no server at the bottom."""
    graph: dict[str, set[str]] = defaultdict(set)
    for name, found in IMPORTS.items():
        for other in found:
            if name and other[0] != name[0]:
                graph[name[0]].add(other[0])
    assert len(graph) > 10 and len(IMPORTS) > 150
    assert cycles(graph) == []
    assert "worker" not in graph["api"] and "api" not in graph["worker"]
    assert graph["pg"] <= LEAVES, graph["pg"]
    for room in PURE:
        assert graph[room] <= PURE | LEAVES - {"guc"}, (room, graph[room])


def test_files_are_in_no_cycle() -> None:
    """Within the rooms that promise it."""
    for room in FLAT:
        files = {name for name in FILES if name and name[0] == room}
        graph = {"/".join(name): {"/".join(other) for other in IMPORTS[name] & files} for name in files}
        assert graph and cycles(graph) == [], room


def test_what_needs_no_server_names_none() -> None:
    """Neither pgrx nor unsafe code."""
    for room in PURE:
        for path in (SOURCE / room).rglob("*.rs"):
            text = re.sub(r"//.*", "", path.read_text())
            assert not re.search(r"\b(pgrx|pg_sys|unsafe)\b", text), path
