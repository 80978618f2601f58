"""The texts are true: every example of README.md and docs/*.md runs, and shows what it says it shows.

A ```sql block is fed to psql as it stands, in the order of the document, in a new database. A ```text block right
after it is its output: each of its paragraphs has to occur in what psql prints, where runs of blanks and dashes count
as one and `...` stands for anything. A block whose output shows ERROR: has to raise just that; no other may raise
anything. Of a ```text sample block, which holds figures of one run, only the first line (the names of the columns) is
compared.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness import Cluster, Database, wait_until
from harness.server import REPOSITORY

DOCUMENTS = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(sql|text sample|text)\n(.*?)^```$", re.M | re.S)


@dataclass
class Example:
    """A block of SQL and what the document says that it prints."""

    line: int
    sql: str
    output: str | None
    sample: bool


def examples(document: Path) -> list[Example]:
    """The blocks of a document; an output belongs to the block that stands directly before it."""
    text = document.read_text()
    found: list[Example] = []
    end = None
    for match in FENCE.finditer(text):
        kind, body = match.groups()
        if kind == "sql":
            found.append(Example(text.count("\n", 0, match.start()) + 1, body, None, False))
            end = match.end()
        elif end is not None and not text[end : match.start()].strip():
            found[-1].output, found[-1].sample = body, kind == "text sample"
    return found


def plain(text: str) -> str:
    """Without what psql adds to align columns, and without footers, which a document may leave out."""
    text = re.sub(r"\(\d+ rows?\)", " ", text)
    text = re.sub(r"-{2,}(\+-+)*|-\+-", " ", text)
    return re.sub(r"\s+", " ", text).strip()


def pattern(output: str) -> str:
    """What the printed output has to contain, as a regular expression."""
    return ".*?".join(re.escape(plain(part)) for part in output.split("..."))


def run(database: Database, sql: str) -> str:
    """What psql prints, messages included."""
    done = database.psql(sql, check=False, options=["-v", "ON_ERROR_STOP=0"])
    return f"{done.stderr}\n{done.stdout}"


def check(database: Database, example: Example, name: str) -> None:
    """Runs one example and compares."""
    printed = run(database, example.sql)
    where = f"{name}, line {example.line}:\n{example.sql}\nprinted:\n{printed}"
    wanted = example.output or ""
    errors = re.findall(r"^ERROR: .*$", printed, re.M)
    assert errors == re.findall(r"^ERROR: .*$", wanted, re.M), where
    if example.sample:
        wanted = wanted.splitlines()[0]
    for paragraph in wanted.split("\n\n"):
        assert re.search(pattern(paragraph), plain(printed), re.S), f"{where}\nbut should have printed:\n{paragraph}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_examples_run_and_print_what_they_say(document: Path, new_cluster) -> None:
    """Each example of a document, in a server where nothing was done before."""
    cluster: Cluster = new_cluster()
    cluster.sql("CREATE DATABASE examples")
    for example in examples(document):
        check(cluster.database("examples"), example, document.name)


def test_the_kill_switch_works_without_preload(new_cluster) -> None:
    """The block of operations.md that says LOAD, in a server that has not preloaded the library."""
    cluster: Cluster = new_cluster(preload=False)
    [off] = [e for e in examples(REPOSITORY / "docs" / "operations.md") if "backfill.enabled = off" in e.sql]
    assert "ERROR" not in run(cluster, off.sql)
    asked = "LOAD 'backfill'; SELECT setting FROM pg_settings WHERE name = 'backfill.enabled'"
    wait_until(lambda: cluster.sql(asked) == [("off",)], 10, "the reload")


# Tables that repeat what the source says


def table(document: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without code marks and without its own head."""
    text = (REPOSITORY / document).read_text()
    below = re.split(rf"^#+ {re.escape(heading)}$", text, maxsplit=1, flags=re.M)[1]
    lines = re.search(r"(?:^\|.*\|\n)+", below, re.M)[0].splitlines()[2:]
    return [[cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in lines]


def source(path: str) -> str:
    """A file of the extension's source."""
    return (REPOSITORY / "src" / path).read_text()


def strings_of(path: str, constant: str) -> list[str]:
    """The quoted words of a constant; of pairs, both."""
    body = re.search(rf"const {constant}\b[^=]*= &\[(.*?)^\];", source(path), re.S | re.M)[1]
    return re.findall(r'"([^"]*)"', re.sub(r"//.*", "", body))


def test_the_state_machine_in_the_design_is_that_of_the_source() -> None:
    """docs/design.md shows every edge of src/job/state.rs with its reason, and no other."""
    edges = re.findall(
        r'edge\(\s*State::(\w+),\s*Event::(\w+),\s*State::(\w+),\s*"([^"]*)",?\s*\)', source("job/state.rs")
    )
    assert edges
    shown = [(a, b, c, why) for a, b, c, why in table("docs/design.md", "The state machine")]
    words = {"WorkerGone": "worker gone", "Done": "walk done"}
    assert shown == [(a.lower(), words.get(b, b.lower()), c.lower(), why) for a, b, c, why in edges]


def test_the_checkpoint_in_the_design_is_that_of_the_source() -> None:
    """docs/design.md quotes the fence, the DELETE of src/catalog/checkpoint.rs, as it is."""
    fence = re.search(r"WITH gone AS \(.*?\)\n", source("catalog/checkpoint.rs"), re.S)[0]
    assert fence in (REPOSITORY / "docs/design.md").read_text()


def test_the_settings_are_those_of_the_library(db) -> None:
    """docs/operations.md lists every setting with its default."""
    rows = db.sql("SELECT name, boot_val || coalesce(' ' || unit, '') FROM pg_settings WHERE name LIKE 'backfill.%'")
    assert sorted(rows) == sorted((row[0], row[1]) for row in table("docs/operations.md", "Settings"))


def test_what_a_worker_pins_is_what_the_source_pins() -> None:
    """docs/operations.md lists the fixed settings of src/worker/session.rs, and those taken from the session."""
    fixed = strings_of("worker/session.rs", "FIXED")
    shown = [tuple(row[:2]) for row in table("docs/operations.md", "What a worker's session is pinned to")]
    wanted = [*zip(fixed[::2], fixed[1::2], strict=True), ("transaction_timeout", "0")]
    assert shown == wanted
    taken = re.search(r"Taken from the session.*?:(.*?)\.\n", (REPOSITORY / "docs/operations.md").read_text(), re.S)[1]
    assert re.findall(r"`(\w+)`", taken) == strings_of("api/session.rs", "MEANING")


def test_what_a_job_can_wait_for_is_explained() -> None:
    """docs/operations.md has a row for each beginning of a text of src/api/inspect.rs, and no other."""
    body = re.search(r"pub fn waiting_for\b.*?^}", source("api/inspect.rs"), re.S | re.M)[0]
    texts = re.findall(r'(?:Some\(|format!\(\s*)"([^"]*)"', body)
    shown = [row[0] for row in table("docs/operations.md", "What jobs wait for")]
    assert len(texts) == len(shown)
    assert all(any(text.startswith(beginning) for text in texts) for beginning in shown)


def test_the_columns_of_progress_are_explained(db) -> None:
    """README.md explains each column of backfill.progress, in its order."""
    columns = [
        name
        for (name,) in db.sql(
            """SELECT attname FROM pg_attribute
               WHERE attrelid = 'backfill.progress'::regclass AND attnum > 0 ORDER BY attnum"""
        )
    ]
    assert [name for row in table("README.md", "Watch") for name in row[0].split(", ")] == columns


def test_each_function_is_in_the_readme(db) -> None:
    """README.md names each function that is not internal, and each of its arguments."""
    readme = (REPOSITORY / "README.md").read_text()
    functions = db.sql("""
        SELECT p.proname, p.proargnames FROM pg_proc p
        WHERE p.pronamespace = 'backfill'::regnamespace AND obj_description(p.oid, 'pg_proc') NOT LIKE 'Internal:%'
    """)
    assert len(functions) > 10
    for name, arguments in functions:
        shown = re.findall(rf"backfill\.{name}\(([a-z_, ]*)\)", readme)
        assert ", ".join(arguments or []) in shown, name


def test_links_lead_somewhere() -> None:
    """Every relative link of the texts names a file that is there."""
    for document in [*DOCUMENTS, REPOSITORY / "CONTRIBUTING.md", REPOSITORY / "CHANGELOG.md"]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
