"""backfill.report: its figures are the database's, its HTML asks for nothing, and nobody's text is markup."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import psycopg
import pytest
from harness import Database, wait_until
from harness.jobs import complete, fail, progress, start, wait_for_state
from harness.tables import make_table

VOID = {"meta", "br", "hr", "img", "input", "link", "line", "polyline"}
HOSTILE = "<script>alert(1)</script> \"q\" 'a' & | `b` _c_ *d* {{e}}"


class Page(HTMLParser):
    """A report as a browser takes it: what is in which element, and that each is closed in its turn."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []
        self.facts: dict[str, str] = {}
        self.sections: dict[str, list[list[str]]] = {}
        self.plots: list[dict[str, list[str]]] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == [], self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element begins."""
        self.seen.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "tr":
            self.sections[self.title].append([])
        if tag == "figure":
            self.plots.append({"axis": [], "title": [], "legend": [], "lines": []})
        if tag == "polyline":
            self.plots[-1]["lines"].append(dict(attrs)["points"] or "")
        if tag not in VOID:
            self.open.append(tag)
            self.text.append("")

    def handle_endtag(self, tag: str) -> None:
        """It ends, with what was in it."""
        if tag in VOID:
            return
        assert self.open.pop() == tag, (tag, self.open)
        said = self.text.pop()
        match tag:
            case "h2":
                self.title = said
                self.sections[said] = []
            case "dt":
                self.name = said
            case "dd":
                self.facts[self.name] = said
            case "td" | "th":
                self.sections[self.title][-1].append(said)
            case "pre":
                self.sections[self.title] = [[said]]
            case "h3":
                self.plots[-1]["title"].append(said)
            case "text":
                self.plots[-1]["axis"].append(said)
            case "span":
                self.plots[-1]["legend"].append(said)

    def handle_data(self, data: str) -> None:
        """Text is in all that is open."""
        self.text = [text + data for text in self.text]


def report(db: Database, job: int, form: str = "html", *, user: str = "postgres") -> str:
    """The report, as somebody."""
    return db.value("SELECT backfill.report(%s, %s)", [job, form], user=user)


def document(db: Database, job: int) -> dict[str, Any]:
    """What tools get."""
    return json.loads(report(db, job, "json"))


def with_failures(db: Database) -> int:
    """A job of which three rows fail, with two events more, verified."""
    make_table(db, 3000)
    db.sql("CREATE INDEX ON t (n); ANALYZE t")
    job = start(db, "t", "n = 7 / (id % 1000)", batch=100, name="seven", options={"max_failed_rows": 10, "workers": 2})
    complete(db, job)
    complete(db, db.value("SELECT backfill.verify(%s, 'n IS NOT NULL')", [job]))
    return job


def test_its_figures_are_the_databases(db: Database) -> None:
    """In JSON, and the same ones in the three forms for people."""
    job = with_failures(db)
    found, row = document(db, job), progress(db, job)
    for name in ("rows_done", "rows_updated", "rows_failed", "state", "hot_percent", "wal_bytes", "batch_size"):
        assert found["job"][name] == (float(row[name]) if name == "hot_percent" else row[name]), name
    assert row["rows_updated"] == 2997 and row["rows_failed"] == 3
    heap, indexes = db.sql("SELECT pg_table_size('t'), pg_indexes_size('t')")[0]
    assert (found["sizes"]["heap_after"], found["sizes"]["indexes_after"]) == (heap, indexes)
    assert found["sizes"]["heap_before"] <= heap
    events = db.sql("SELECT event, old, new FROM backfill.events WHERE job_id = %s ORDER BY event_id", [job])
    assert [(event["event"], event["old"], event["new"]) for event in found["events"]] == events
    failed = db.sql("SELECT key, message FROM backfill.failed_rows WHERE job_id = %s ORDER BY failed_row_id", [job])
    assert [(one["key"], one["message"]) for one in found["failed_rows"]] == failed and len(failed) == 3
    seconds = db.value("SELECT extract(epoch FROM finished_at - started_at) FROM backfill.progress WHERE job_id = 1")
    assert found["seconds"] == float(seconds)
    assert "verified" in found["verifications"][0]["note"]

    page = Page(report(db, job))
    assert page.facts["Passed"] == "3,000" and page.facts["Updated"].startswith("2,997") and page.facts["Failed"] == "3"
    assert page.facts["Pace"] == "100 rows a commit, 0 ms between two, 2 workers"
    assert len(page.sections["Timeline"]) == len(events) + 1
    assert [line[1] for line in page.sections["Rows that failed (the first 20)"][1:]] == [key[0] for key, _ in failed]
    assert page.sections["Verification"][1][2] == "completed"
    for form in ("text", "markdown"):
        text = report(db, job, form).replace("\\", "")
        for figure in (
            "3,000",
            "2,997",
            "division by zero",
            "n = 7 / (id % 1000)",
            "100 rows a commit",
            "but 3 failed",
        ):
            assert figure in text, (form, figure)


def test_the_html_asks_for_nothing(db: Database) -> None:
    """No script, no other file; what is drawn has axes, a unit and a legend."""
    make_table(db, 2000)
    job = start(db, "t", "n = n + 1", batch=100, sleep_ms=20)
    complete(db, job)
    # What there was by then.
    lag = "'{\"max_lag_bytes\": ' || g * 2000 || ', \"max_lock_waiters\": ' || g * 500 || '}'"
    db.sql(f"""
        INSERT INTO backfill_internal.sample (job_id, at, spacing, rows_done, rows_updated, wal_bytes, worked_ms,
                                              slept_ms, batch_ms, lag_bytes, waited_ms)
        SELECT {job}, min(at) + g * interval '10 s', 10, 1000000 + g * g * 100, g * 50, g * 1000, g * 900, g * 10,
               20 + g % 9, g * 100000, ({lag})::jsonb
        FROM backfill_internal.sample, generate_series(1, 400) g GROUP BY g
    """)
    html = report(db, job)
    page = Page(html)
    assert not page.seen & {"script", "link", "img", "iframe", "object", "embed", "base", "form", "a", "image", "use"}
    assert all(name not in ("src", "href", "style", "xlink:href", "srcset") for _, name, _ in page.attributes)
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert not re.search(r"url\(|@import|https?:|//[a-z]", html)
    assert [plot["title"] for plot in page.plots] == [
        ["Rate rows/s"],
        ["Batch ms"],
        ["Lag of the furthest-behind standby or slot bytes"],
        ["Waiting, of each interval s"],
    ]
    for plot in page.plots:
        assert plot["legend"] and len(plot["lines"]) == len(plot["legend"])
        assert plot["axis"][-1] == "minutes since the start" and len(plot["axis"]) > 6, plot["axis"]
        assert max(line.count(",") for line in plot["lines"]) >= 400
    assert page.plots[3]["legend"] == ["max_lag_bytes", "max_lock_waiters"]
    # The curve of the lag ends at the top of what it says: 400 times 100 kB.
    points = [tuple(map(float, point.split(","))) for point in page.plots[2]["lines"][0].split()]
    assert points == sorted(points) and points[0][1] > points[-1][1]


def test_nobodys_text_is_markup(db: Database) -> None:
    """Names, clauses and messages of errors."""
    quoted = '"' + HOSTILE.replace('"', '""') + '"'
    db.sql(f"CREATE TABLE {quoted} (id int PRIMARY KEY, {quoted} text)", None)
    db.sql(f"INSERT INTO {quoted} VALUES (1), (2)")
    lines = "\n| x |\n```\n# y"
    raising = "CREATE FUNCTION boom(t text) RETURNS text LANGUAGE plpgsql AS $b$ BEGIN RAISE '%', t; END $b$"
    db.sql(raising.replace("%", "%%"), [])
    literal = "'" + (HOSTILE + lines).replace("'", "''") + "'"
    with psycopg.connect(db.dsn(), autocommit=True) as connection:
        found = connection.execute(
            "SELECT backfill.start(%s::text::regclass, set_clause => %s, name => %s, options => %s)",
            [quoted, f"{quoted} = boom({literal})", HOSTILE, '{"max_failed_rows": 5}'],
        ).fetchall()
    job = found[0][0]
    wait_for_state(db, job, "completed")
    page = Page(report(db, job))
    assert page.seen <= {
        "html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "h3", "p", "div", "section", "dl", "dt",
        "dd", "table", "thead", "tbody", "tr", "th", "td", "pre", "footer", "figure", "figcaption", "small", "span",
        "svg", "line", "text", "polyline",
    }  # fmt: skip
    assert HOSTILE + lines in page.facts["SET"].replace("''", "'")
    assert HOSTILE in page.sections["Rows that failed (the first 20)"][1][3]
    assert json.loads(report(db, job, "json"))["job"]["name"] == HOSTILE
    markdown = report(db, job, "markdown")
    body = markdown[: markdown.index("## To repeat it")]
    tables = [line for line in body.split("\n") if line.startswith("|")]
    # An escaped pipe is none.
    widths = {re.sub(r"\\.", "", line).count("|") for line in tables}
    assert widths == {3, 5}, widths
    assert "<script" not in body.replace("\\<", "").replace("&lt;", ""), body
    assert all(not line.startswith(("# y", "```")) for line in body.split("\n"))
    assert HOSTILE in report(db, job, "text")


def test_the_call_in_it_does_the_same(db: Database) -> None:
    """Pasted into psql, with the settings that it names."""
    db.sql("CREATE TABLE d (id int PRIMARY KEY, day text DEFAULT '02/03/2024', m text)")
    db.sql("INSERT INTO d SELECT generate_series(1, 100)")
    first = start(
        db, "d", "m = to_char(day::date, 'FMMonth')", batch=9, name="it's", session="SET DateStyle = 'ISO, DMY'"
    )
    complete(db, first)
    assert db.sql("SELECT DISTINCT m FROM d") == [("March",)]
    call = Page(report(db, first)).sections["To repeat it"][0][0]
    assert call in report(db, first, "text") and call in report(db, first, "markdown")
    db.sql("UPDATE d SET m = NULL")
    db.psql(call)
    again = db.value("SELECT max(job_id) FROM backfill.progress")
    assert again > first
    assert complete(db, again)["batch_size"] == 9
    assert db.sql("SELECT DISTINCT m FROM d") == [("March",)]


def test_jobs_in_each_state_have_one(db: Database) -> None:
    """It says how the job stands, above all where it is not finished."""
    make_table(db, 1000)
    pending = db.value("SELECT backfill.define('t', 'n = 5', name => 'later')")
    assert "Not finished: it is pending" in report(db, pending, "text")
    db.sql("SELECT backfill.cancel(%s)", [pending])
    job = start(db, "t", "n = n + 1", batch=100, sleep_ms=60_000)
    wait_until(lambda: progress(db, job)["rows_updated"] >= 100, 30, "a batch")
    assert "Not finished: it is running; so far 100 rows were updated." in report(db, job)
    db.sql("SELECT backfill.pause(%s)", [job])
    wait_for_state(db, job, "paused")
    assert "Not finished: it is paused" in report(db, job, "markdown")
    db.sql("SELECT backfill.cancel(%s)", [job])
    wait_for_state(db, job, "cancelled")
    assert "Cancelled, after 100 rows were updated. Not finished." in report(db, job, "text")
    failing = start(db, "t", "n = 1 / (id - 500)", batch=100)
    fail(db, failing)
    assert 'class="verdict failed"' in report(db, failing)
    assert "Failed, after 499 rows were updated. Not finished." in report(db, failing)
    db.sql("SELECT backfill.cancel(%s)", [failing])
    dry = start(db, "t", "n = n + 1", options={"dry_run": True})
    complete(db, dry)
    text = report(db, dry, "text")
    assert text.startswith(f"Dry run {dry} on public.t\n") and "1000 would change" in text
    for state in (pending, job, failing, dry):
        Page(report(db, state))


def test_who_may_see_it(db: Database) -> None:
    """Whoever may see the job; pg_monitor without what only the owner's people see."""
    db.sql(
        "DROP ROLE IF EXISTS onlooker, passing;CREATE ROLE onlooker LOGIN IN ROLE pg_monitor; CREATE ROLE passing LOGIN"
    )
    job = with_failures(db)
    bad = [
        ("passing", f"{job}", "42501"),
        ("postgres", "99", "42704"),
        ("postgres", "NULL", "22004"),
        ("postgres", f"{job}, NULL", "22004"),
        ("postgres", f"{job}, 'pdf'", "22023"),
    ]
    for user, arguments, sqlstate in bad:
        with pytest.raises(psycopg.Error) as caught:
            db.sql(f"SELECT backfill.report({arguments})", user=user)
        assert caught.value.sqlstate == sqlstate and caught.value.diag.message_hint, (arguments, caught.value)
    seen = json.loads(report(db, job, "json", user="onlooker"))
    assert seen["settings"] is None and document(db, job)["settings"]
    assert seen["job"]["rows_updated"] == 2997
    assert [row["key"] for row in seen["failed_rows"]] == [None] * 3
    assert "division" not in report(db, job, user="onlooker")
    db.sql("DROP ROLE onlooker, passing")


def test_sizes_and_times_are_those_that_were_measured(db: Database) -> None:
    """Before, after and growth, in each form; and a job without samples has no plots."""
    measure = "SELECT pg_table_size('t'), pg_indexes_size('t')"
    make_table(db, 3000)
    db.sql("ALTER TABLE t SET (autovacuum_enabled = off)")
    (before,) = db.sql(measure)
    job = start(db, "t", "n = n + 1", batch=100, sleep_ms=20)
    row = complete(db, job)
    (after,) = db.sql(measure)
    found = document(db, job)
    names = ("heap_before", "indexes_before", "heap_after", "indexes_after")
    assert tuple(found["sizes"][name] for name in names) == before + after and after[0] > before[0]
    for name in ("seconds_working", "seconds_sleeping", "seconds_throttled"):
        assert found["job"][name] == float(row[name]), name
    assert found["job"]["seconds_sleeping"] >= 0.5
    growth = [f"{(new - old) * 100 / old:+.0f} %" for old, new in zip(before, after, strict=True)]
    sizes = Page(report(db, job)).sections["Size"][1:]
    assert [line[3] for line in sizes] == growth
    for form in ("text", "markdown"):
        lines = [re.split(r" \| |  +", line.strip("| ")) for line in report(db, job, form).splitlines()]
        assert all(line in lines for line in sizes), form
    db.sql("DELETE FROM backfill_internal.sample")
    page = Page(report(db, job))
    assert document(db, job)["samples"] is None and page.plots == [] and "History" not in page.sections


@pytest.mark.parametrize("options", [{"workers": 2, "max_failed_rows": 9}, {"dry_run": True}, {"target_ms": 50}])
def test_the_call_has_all_that_was_asked(db: Database, options: dict[str, Any]) -> None:
    """Names that need quotes, clauses with quotes, a changed pace, options: the job that it starts is the same."""
    same = ("relation", "set_clause", "where_clause", "options", "batch_size", "sleep_ms", "kind")
    db.sql('CREATE TABLE "a \'b\' ""c""" (id int PRIMARY KEY, "x y" text); INSERT INTO "a \'b\' ""c""" VALUES (1), (2)')
    job = start(db, '"a \'b\' ""c"""', "\"x y\" = 'it''s'", where="id <> 2", name="d 'e'", options=options)
    first = complete(db, job)
    call = Page(report(db, job)).sections["To repeat it"][0][0]
    # Its name is taken: with it, nothing would be done.
    assert "is left out" in call and f"job {job}" in call
    db.psql(call)
    again = complete(db, db.value("SELECT max(job_id) FROM backfill.progress"))
    assert again["job_id"] > job and again["name"] is None
    assert [again[name] for name in same] == [first[name] for name in same]


def test_a_verification_is_told_as_one(db: Database) -> None:
    """It has updated nothing, is no success where rows are wrong, and to repeat it changes nothing."""
    make_table(db, 100)
    job = start(db, "t", "n = id")
    complete(db, job)
    db.sql("UPDATE t SET n = -1 WHERE id <= 8")
    check = db.value("SELECT backfill.verify(%s, 'n = id')", [job])
    complete(db, check)
    html = report(db, check)
    page = Page(html)
    assert "8 of 100 rows" in html
    db.psql(page.sections["To repeat it"][0][0])
    again = complete(db, db.value("SELECT max(job_id) FROM backfill.progress"))
    wrong = db.value("SELECT count(*) FROM t WHERE n = -1")
    assert (again["kind"], wrong) == ("verification", 8)
    assert 'class="verdict other"' in html and "Updated" not in page.facts and page.facts["Wrong"] == "8"
    assert (page.facts["Verifies"], page.facts["Check"]) == (f"job {job}", "n = id")


def test_a_terminal_is_not_driven(db: Database) -> None:
    """An error message can hold row data, and that what a terminal obeys."""
    make_table(db, 1)
    complete(db, start(db, "t", "n = (E'\\x1b[2J\\x07' || n)::int", options={"max_failed_rows": 1}))
    raw = {form: re.findall(r"[^\n -\uffff]|[\x7f-\x9f]", report(db, 1, form)) for form in ("html", "text", "markdown")}
    assert raw == {"html": [], "text": [], "markdown": []}


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
WRAPPER = """<!DOCTYPE html><body><iframe id=f width={width} height=900></iframe><pre id=o></pre><script>
const f = document.getElementById('f');
f.onload = () => {{
  const d = f.contentDocument.documentElement;
  const wide = [...f.contentDocument.querySelectorAll('body *')].filter(
      e => e.getBoundingClientRect().right > d.clientWidth + 1 && !e.closest('pre')).map(e => e.outerHTML.slice(0, 80));
  document.getElementById('o').textContent = JSON.stringify([d.scrollWidth, d.clientWidth, wide]);
}};
f.srcdoc = {html};
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_overflows(db: Database, tmp_path: Path, width: int) -> None:
    """In a real browser, on a screen and on a telephone, with long names and many samples."""
    name = "long_" * 11
    db.sql(
        f"CREATE TABLE {name} (id int PRIMARY KEY, n int DEFAULT 0); INSERT INTO {name} SELECT generate_series(1, 500)"
    )
    clause = "n = CASE WHEN id % 100 = 0 THEN 1 / (id % 100) ELSE " + "+".join(["n"] * 60) + " END"
    job = start(db, name, clause, name="x" * 60, options={"max_failed_rows": 10})
    complete(db, job)
    db.sql(f"""
        INSERT INTO backfill_internal.sample (job_id, at, spacing, rows_done, rows_updated, wal_bytes, worked_ms,
                                              slept_ms, batch_ms)
        SELECT {job}, min(at) + g * interval '10 s', 10, g * 100000, g, g, g, g, g FROM backfill_internal.sample,
        generate_series(1, 300) g GROUP BY g
    """)
    html = json.dumps(report(db, job)).replace("</", "<\\/")
    page = tmp_path / "page.html"
    page.write_text(WRAPPER.format(width=width, html=html))
    tmp_path.chmod(0o755)
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    result = subprocess.run(
        [*command, "--window-size=1400,1000", "--virtual-time-budget=5000", "--dump-dom", page.as_uri()],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        timeout=90,
    )
    said = re.search(r'<pre id="o">(.*?)</pre>', result.stdout, re.DOTALL)
    assert said and said.group(1), result.stdout[-500:]
    scroll, client, wide = json.loads(said.group(1).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    assert client <= width and scroll <= client and wide == [], (scroll, client, wide)


def test_the_timeline_has_the_reason_of_a_failure(db: Database) -> None:
    """Beside the event, until the job is resumed."""
    make_table(db, 100)
    job = start(db, "t", "n = 1 / (id - 50)")
    fail(db, job)
    shown = db.value("SELECT backfill.report(%s, 'text')", [job])
    timeline = shown[shown.index("Timeline") :]
    assert "division by zero" in timeline, shown
