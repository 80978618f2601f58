"""The source: folders depend on each other one way, and what needs no server imports none."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src"
# Folders that need no server: they import nothing but each other and these files.
PURE = {"model", "scan", "waves", "throttle", "estimate", "sync", "report"}
LEAVES = {"error", "quote", "guc"}
# What ends a file: its unit tests, and those that run in a server.
TESTS = re.compile(r"#\[cfg\((?:test|any\(test, .*\))\)\]\n(?:#\[.*\]\n)*mod tests\b")

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
    """The modules of ours that a module names by `crate` or `super`, in `use` or in its text; its tests apart."""
    text = TESTS.split(re.sub(r"//.*", "", FILES[name].read_text()))[0]
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


def cycles(graph: Graph) -> list[list[str]]:
    """The sets of nodes that reach each other, by Tarjan's algorithm."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    open_nodes: list[str] = []
    found = []

    def visit(node: str) -> None:
        number[node] = lowest[node] = len(number)
        open_nodes.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in number:
                visit(other)
            if other in open_nodes:
                lowest[node] = min(lowest[node], lowest[other])
        if lowest[node] == number[node]:
            start = open_nodes.index(node)
            component = open_nodes[start:]
            del open_nodes[start:]
            if len(component) > 1:
                found.append(sorted(component))

    for node in sorted(graph):
        if node not in number:
            visit(node)
    return found


def shown(graph: Graph, found: list[list[str]]) -> str:
    """Each edge within a cycle, for a person."""
    edges = [f"{a} -> {b}" for nodes in found for a in nodes for b in sorted(graph[a] & set(nodes))]
    return "these files import each other in a circle: " + ", ".join(edges)


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


ROOMS = sorted({name[0] for name in FILES if len(name) > 1})


def test_all_rooms_are_looked_at() -> None:
    """The folders of `src/` are found, and none is left out."""
    assert {"api", "worker", "stranger", "store", "table", "pg", "model"} | PURE <= set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_files_are_in_no_cycle(room: str) -> None:
    """Within a room."""
    files = {name for name in FILES if name and name[0] == room}
    graph = {"/".join(name): {"/".join(other) for other in IMPORTS[name] & files} for name in files}
    found = cycles(graph)
    assert found == [], shown(graph, found)


def test_what_needs_no_server_names_none() -> None:
    """Neither pgrx nor unsafe code."""
    for room in PURE:
        for path in (SOURCE / room).rglob("*.rs"):
            text = re.sub(r"//.*", "", path.read_text())
            assert not re.search(r"\b(pgrx|pg_sys|unsafe)\b", text), path
