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
from harness import Cluster, Database, Server, wait_until
from harness.jobs import complete, start
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
    cluster: Cluster = new_cluster(conf={"backfill.allow_superuser_jobs": "off"})
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


def table(document: str, heading: str, skip: int = 0) -> list[list[str]]:
    """The cells of the first table below a heading (after `skip` others), without code marks and its own head."""
    text = (REPOSITORY / document).read_text()
    below = re.split(rf"^#+ {re.escape(heading)}$", text, maxsplit=1, flags=re.M)[1]
    lines = re.findall(r"(?:^\|.*\|\n)+", below, re.M)[skip].splitlines()[2:]
    return [[cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in lines]


def source(path: str) -> str:
    """A file of the extension's source."""
    return (REPOSITORY / "src" / path).read_text()


def strings_of(path: str, constant: str) -> list[str]:
    """The quoted words of a constant; of pairs, both."""
    body = re.search(rf"const {constant}\b[^=]*= &\[(.*?)^\];", source(path), re.S | re.M)[1]
    return re.findall(r'"([^"]*)"', re.sub(r"//.*", "", body))


def test_the_state_machine_in_the_design_is_that_of_the_source() -> None:
    """docs/design.md shows every edge of src/model/state.rs with its reason, and no other."""
    edges = re.findall(
        r'edge\(\s*State::(\w+),\s*Event::(\w+),\s*State::(\w+),\s*"([^"]*)",?\s*\)', source("model/state.rs")
    )
    assert edges
    shown = [(a, b, c, why) for a, b, c, why in table("docs/design.md", "The state machine")]
    words = {"WorkerGone": "worker gone", "Done": "walk done"}
    assert shown == [(a.lower(), words.get(b, b.lower()), c.lower(), why) for a, b, c, why in edges]


def test_the_checkpoint_in_the_design_is_that_of_the_source() -> None:
    """docs/design.md quotes the fence, the DELETE of src/store/checkpoint.rs, as it is."""
    fence = re.search(r"WITH gone AS \(.*?\)\n", source("store/checkpoint.rs"), re.S)[0]
    assert fence in (REPOSITORY / "docs/design.md").read_text()


def bare(text: str) -> str:
    """SQL without what only lays it out."""
    return re.sub(r"\s*\)", ")", re.sub(r"\(\s+", "(", " ".join(text.split())))


def test_the_statements_in_the_design_are_those_that_are_sent(server: Server, new_cluster) -> None:
    """The design shows statements on the walked tables as the worker sends them: here is a job for each kind."""
    if not (Path(server.ask("--pkglibdir")) / "auto_explain.so").exists():
        pytest.skip("this server comes without auto_explain")
    text = "".join((REPOSITORY / "docs" / name).read_text() for name in ("design.md", "waves.md", "physical-order.md"))
    blocks = [block for block in re.findall(r"^```\n(.*?)^```$", text, re.S | re.M) if '"public".' in block]
    lines = [re.sub(r"^--.*\n", "", block, flags=re.M) for block in blocks]
    statements = [bare(statement) for block in lines for statement in re.split(r"\n\s*\n", block) if statement.strip()]
    assert len(statements) > 10

    conf = {"shared_preload_libraries": "backfill, auto_explain", "auto_explain.log_min_duration": "0"}
    cluster: Cluster = new_cluster(conf=conf)
    cluster.sql("""
        CREATE EXTENSION backfill; SET auto_explain.log_min_duration = -1;
        CREATE TABLE orders (id bigint PRIMARY KEY, rate int, rate_new int);
        CREATE TABLE lines (order_id bigint, no int, rate int, rate_new int, PRIMARY KEY (order_id, no));
        CREATE TABLE visits (id bigint PRIMARY KEY, seconds int, minutes numeric) PARTITION BY RANGE (id);
        CREATE TABLE visits_2025 PARTITION OF visits DEFAULT;
        CREATE FUNCTION same() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
        INSERT INTO orders SELECT i, i FROM generate_series(1, 150000) i;
        INSERT INTO lines SELECT i, i, i FROM generate_series(1, 3000) i;
        INSERT INTO visits SELECT i, i FROM generate_series(1, 3000) i
    """)
    reset = "SET auto_explain.log_min_duration = -1; UPDATE orders SET rate_new = NULL WHERE id % 2 = 0; ANALYZE orders"
    extinguished = {"where": "rate_new IS NULL", "batch": 5000}
    once = {"strategy": "sequential"}
    complete(cluster, start(cluster, "orders", "rate_new = rate", batch=5001, options=once))
    cluster.sql(reset)
    complete(cluster, start(cluster, "orders", "rate_new = rate", **extinguished, options={"walk": "key"}))
    cluster.sql(reset)
    complete(cluster, start(cluster, "orders", "rate_new = rate", **extinguished, options={"walk": "physical"}))
    # With a trigger before the UPDATE, rows are found by their keys alone.
    for name in ("orders", "lines"):
        cluster.sql(f"CREATE TRIGGER same BEFORE UPDATE ON {name} FOR EACH ROW EXECUTE FUNCTION same(); {reset}")
        complete(cluster, start(cluster, name, "rate_new = rate", **extinguished, options={"walk": "key"}))
    complete(cluster, start(cluster, "visits", "minutes = visits.seconds / 60.0", batch=100, options=once))
    sent = bare(cluster.log.read_text(errors="replace"))
    for statement in statements:
        assert f"Query Text: {statement}" in sent, statement


def test_the_costs_of_waves_in_the_design_are_those_of_the_source() -> None:
    """docs/waves.md has each constant of the model in src/waves/costs.rs that the choice depends on."""
    for name, value, _how in table("docs/waves.md", "How many passes, how large a region"):
        assert float(re.search(rf"const {name}: f64 = ([\d.]+);", source("waves/costs.rs"))[1]) == float(value), name


def test_the_settings_are_those_of_the_library(db) -> None:
    """docs/operations.md lists every setting with its default, docs/throttling.md those that are options, too."""
    rows = db.sql("""
        SELECT name, CASE WHEN name = 'backfill.max_lag_bytes' THEN boot_val::int / 1024 || ' MB'
                          WHEN name = 'backfill.max_workers_per_role' THEN boot_val
                          WHEN boot_val IN ('-1', '') THEN 'none' ELSE boot_val || coalesce(' ' || unit, '') END
        FROM pg_settings WHERE name LIKE 'backfill.%'
    """)
    shown = [(row[0], row[1]) for row in table("docs/operations.md", "Settings")]
    words = {"all count": "none", "false": "off"}
    for names, _when, _bound, default in table("docs/throttling.md", "The signals"):
        shown += [(f"backfill.{name}", words.get(default, default)) for name in names.split(", ")]
    assert sorted(rows) == sorted(shown)


def test_the_options_are_those_of_the_source() -> None:
    """docs/reference.md lists every option of src/model/option.rs, in its order, with the bounds of the integers;
    docs/throttling.md those of src/throttle/signals.rs."""
    keys = re.search(r"const KEYS\b.*?^\];", source("model/option.rs"), re.S | re.M)[0]
    found = re.findall(r'\b(key|integer)\(\s*"(\w+)",\s*(-?\w+)?(?:,\s*(\w+))?', keys)
    shown = table("docs/reference.md", "Options")
    assert [row[0] for row in shown] == [name for _kind, name, *_bounds in found]
    signals = re.search(r"const SIGNALS\b.*?^\];", source("throttle/signals.rs"), re.S | re.M)[0]
    bounded = [re.search(r'name: "(\w+)"', entry)[1] for entry in signals.split("    Entry {")[1:]]
    assert len(bounded) > 10
    assert [name for row in table("docs/throttling.md", "The signals") for name in row[0].split(", ")] == bounded
    for (kind, name, *bounds), row in zip(found, shown, strict=True):
        if kind == "integer":
            assert row[1] == " to ".join(f"{int(bound.replace('_', '')):,}" for bound in bounds), name


def test_the_locks_are_those_of_the_source() -> None:
    """docs/operations.md lists every kind of lock of src/pg/lock.rs."""
    numbers = re.findall(r"^(?:pub )?const \w+: u16 = (\d+);", source("pg/lock.rs"), re.M)
    assert numbers
    assert [row[0] for row in table("docs/operations.md", "Locks")] == sorted(numbers)


def test_what_waves_have_to_say_is_explained() -> None:
    """docs/operations.md has a row for each note of src/worker/wave_policy.rs, and each reason of src/waves/cost.rs."""
    texts = re.findall(r'"((?:waves rest|waves rested in a part of the walk): [^"]*)"', source("worker/wave_policy.rs"))
    single = source("waves/cost.rs").split("impl Single")[1].split("is_asked_for")[0]
    reasons = re.findall(r"Single::(Blocked|Scattered|Small|Faster)\b.*?\"(.*?)\"", single, re.S)
    texts += [f"no waves: {reason}" for _, reason in reasons]
    assert len(texts) == 8
    shown = [row[0].split("...")[0] for row in table("docs/operations.md", "What the note says")]
    for text in texts:
        told = text.replace("{index}", "…").replace("{holder}", "transaction of pid …")
        assert any(told.startswith(beginning) for beginning in shown), text


def test_what_a_worker_pins_is_what_the_source_pins() -> None:
    """docs/operations.md lists the fixed settings of src/worker/session.rs, and those taken from the session."""
    fixed = strings_of("worker/session.rs", "FIXED")
    shown = [tuple(row[:2]) for row in table("docs/operations.md", "What a worker's session is pinned to")]
    # Those two depend on the job, and on the version.
    others = [("session_replication_role", "origin"), ("transaction_timeout", "0")]
    wanted = [*zip(fixed[::2], fixed[1::2], strict=True), *others]
    assert shown == wanted
    taken = re.search(r"Taken from the session.*?:(.*?)\.\n", (REPOSITORY / "docs/operations.md").read_text(), re.S)[1]
    assert re.findall(r"`(\w+)`", taken) == strings_of("api/session.rs", "MEANING")


def test_what_a_job_can_wait_for_is_explained() -> None:
    """docs/operations.md has a row for each beginning of a text of inspect.rs and standing.rs, and no other."""
    body = re.search(r"pub fn waiting_for\b.*?^}", source("api/inspect.rs"), re.S | re.M)[0]
    body += re.search(r"pub fn waits_for\b.*?^}", source("model/standing.rs"), re.S | re.M)[0]
    texts = re.findall(r'(?:Some\(\s*|format!\(\s*|unwrap_or\()"([^"]*)"', body)
    shown = [row[0] for row in table("docs/operations.md", "What jobs wait for")]
    assert len(texts) == len(shown)
    assert all(any(text.startswith(beginning) for text in texts) for beginning in shown)


def test_the_columns_of_progress_are_explained(db) -> None:
    """docs/reference.md explains each column of backfill.progress, in its order."""
    columns = [
        name
        for (name,) in db.sql(
            """SELECT attname FROM pg_attribute
               WHERE attrelid = 'backfill.progress'::regclass AND attnum > 0 ORDER BY attnum"""
        )
    ]
    assert [name for row in table("docs/reference.md", "Columns of progress") for name in row[0].split(", ")] == columns


def test_each_function_is_in_the_guide(db) -> None:
    """README.md or docs/guide.md names each function that is not internal, and each of its arguments."""
    guide = (REPOSITORY / "README.md").read_text() + (REPOSITORY / "docs/guide.md").read_text()
    functions = db.sql("""
        SELECT p.proname,
               ARRAY(SELECT a.name FROM unnest(p.proargnames, p.proargmodes) WITH ORDINALITY AS a (name, mode, no)
                     WHERE a.mode IS NULL OR a.mode = 'i' ORDER BY a.no)
        FROM pg_proc p
        WHERE p.pronamespace = 'backfill'::regnamespace AND obj_description(p.oid, 'pg_proc') NOT LIKE 'Internal:%'
    """)
    assert len(functions) > 10
    by_name = {name for name, arguments in functions if arguments and arguments[0] == "job_id"}
    assert "Wherever these take `job_id`, they take a name as well" in guide
    for name, arguments in functions:
        # That each has this form, too, has a test in test_job_names.py.
        if arguments and arguments[0] == "name" and name in by_name:
            continue
        shown = re.findall(rf"backfill\.{name}\(([a-z_, ]*)\)", guide)
        assert ", ".join(arguments or []) in shown, name


def test_links_lead_somewhere() -> None:
    """Every relative link of the texts names a file that is there."""
    for document in [*DOCUMENTS, REPOSITORY / "CONTRIBUTING.md", REPOSITORY / "CHANGELOG.md"]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_the_tests_named_are_there() -> None:
    """docs/reliability.md names no test that isn't there."""
    there = set()
    for file in (REPOSITORY / "tests").rglob("test_*.py"):
        there |= {file.name, file.stem, *re.findall(r"^def (test_\w+)", file.read_text(), re.M)}
    named = re.findall(r"`(test_\w+(?:\.py)?)`", (REPOSITORY / "docs/reliability.md").read_text())
    assert len(named) > 40
    assert not [name for name in named if name not in there]
