"""docs/migration-tools.md, with the real tools: the files and commands of the page are taken out of it and run."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from harness import Cluster, Database
from harness.jobs import complete
from harness.server import REPOSITORY, clean_environment

PAGE = REPOSITORY / "docs" / "migration-tools.md"
FILE = re.compile(r"^`([^`\n]+)`\n```\w*[^\n]*\n(.*?)^```$", re.M | re.S)
COMMAND = re.compile(r"^```sh\n(.*?)^```$", re.M | re.S)
ROWS = 20_000

# What a project has before: where its migrations are.
ALEMBIC = "[alembic]\nscript_location = migrations\n"
DJANGO = """
import os, sys
from django.conf import settings
from django.core.management import execute_from_command_line

host, port, name = (os.environ[key] for key in ("PGHOST", "PGPORT", "PGDATABASE"))
database = {"ENGINE": "django.db.backends.postgresql", "NAME": name, "USER": "postgres", "HOST": host, "PORT": port}
settings.configure(INSTALLED_APPS=["shop"], DATABASES={"default": database}, USE_TZ=True)
execute_from_command_line(sys.argv)
"""
SQITCH = "[core]\n\tengine = pg\n[deploy]\n\tverify = false\n[user]\n\tname = Shop\n\temail = shop@example.com\n"


def section(tool: str) -> str:
    """What the page says about a tool."""
    return re.split(rf"^## {tool}$", PAGE.read_text(), maxsplit=1, flags=re.M)[1].split("\n## ")[0]


def cache(*path: str) -> Path:
    """A file that scripts/setup has fetched; the test is skipped where it could not."""
    found = Path(os.environ.get("BACKFILL_CACHE", "/nowhere"), "migration", *path)
    if not found.exists():
        pytest.skip(f"there is no {found.name} here: scripts/setup fetches the migration tools where they can be had")
    return found


@dataclass
class Project:
    """The files of the page in a folder, and how its command is run there."""

    tool: str
    db: Database
    folder: Path
    programs: dict[str, list[str]]
    url: str
    env: dict[str, str] = field(default_factory=dict)

    def write(self, files: dict[str, str]) -> None:
        """Writes the project's own files, and those of the page."""
        for name, body in [*files.items(), *FILE.findall(section(self.tool))]:
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(body)

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Runs a command line of the tool."""
        program, *arguments = command.split()
        here = {
            "DATABASE_URL": self.url,
            "PGHOST": str(self.db.cluster.folder),
            "PGPORT": str(self.db.cluster.port),
            "PGDATABASE": self.db.name,
            "PGUSER": "postgres",
            "HOME": str(self.folder),
        }
        return subprocess.run(
            [*self.programs[program], *arguments],
            cwd=self.folder,
            env=clean_environment() | here | self.env,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def migrate(self) -> subprocess.CompletedProcess[str]:
        """The command of the page."""
        [command] = COMMAND.findall(section(self.tool))
        return self.run(command.strip())


def alembic(project: Project, socket: str) -> str:
    """Its project; returns how to make it forget what it has applied."""
    python = cache("python", "bin", "alembic")
    project.programs = {"alembic": [str(python)]}
    project.url = f"postgresql+psycopg://postgres@/{project.db.name}?{socket}"
    project.write({"alembic.ini": ALEMBIC})
    return "DELETE FROM alembic_version"


def django(project: Project, socket: str) -> str:
    """Likewise."""
    project.programs = {"python": [str(cache("python", "bin", "python"))]}
    project.write({"manage.py": DJANGO, "shop/__init__.py": "", "shop/migrations/__init__.py": ""})
    return "DELETE FROM django_migrations WHERE app = 'shop'"


def dbmate(project: Project, socket: str) -> str:
    """Likewise."""
    project.programs = {"dbmate": [str(cache("node", "node_modules", ".bin", "dbmate"))]}
    project.url = f"postgres://postgres@/{project.db.name}?{socket}&sslmode=disable"
    project.env = {"DBMATE_NO_DUMP_SCHEMA": "true"}
    project.write({})
    return "DELETE FROM schema_migrations"


def node_pg_migrate(project: Project, socket: str) -> str:
    """Likewise."""
    project.programs = {"node-pg-migrate": [str(cache("node", "node_modules", ".bin", "node-pg-migrate"))]}
    project.url = f"postgres://postgres@localhost/{project.db.name}?{socket}"
    project.write({"package.json": '{"type": "module"}'})
    return "DELETE FROM pgmigrations"


def sqitch(project: Project, socket: str) -> str:
    """Likewise; psql is the server's own."""
    root = cache("sqitch")
    libraries = [root / "usr/share/perl5", *root.glob("usr/lib/*/perl5/5*")]
    psql = project.db.cluster.server.program("psql")
    project.programs = {"sqitch": ["perl", "-CAS", str(root / "usr/bin/sqitch")]}
    project.env = {
        "PERL5LIB": ":".join(map(str, libraries)),
        "SQITCH_TARGET": f"db:pg://postgres@/{project.db.name}?{socket}",
        "LC_ALL": "C.UTF-8",
    }
    project.write({"sqitch.conf": SQITCH + f'[engine "pg"]\n\tclient = {psql}\n'})
    return "DELETE FROM sqitch.dependencies; DELETE FROM sqitch.changes"


TOOLS: dict[str, Callable[[Project, str], str]] = {
    "Alembic": alembic,
    "Django": django,
    "dbmate": dbmate,
    "node-pg-migrate": node_pg_migrate,
    "sqitch": sqitch,
}


@pytest.mark.parametrize("tool", TOOLS)
def test_the_page(tool: str, db: Database, tmp_path: Path) -> None:
    """The first run starts the job and stops at the next migration; the second one, later, ends it; more do nothing."""
    cluster: Cluster = db.cluster
    db.sql("CREATE TABLE orders (id bigint PRIMARY KEY, rate text NOT NULL)")
    db.sql(f"INSERT INTO orders SELECT g, g::text FROM generate_series(1, {ROWS}) g")
    project = Project(tool, db, tmp_path, {}, "")
    forget = TOOLS[tool](project, f"host={cluster.folder}&port={cluster.port}")

    early = project.migrate()
    said = early.stdout + early.stderr
    assert early.returncode != 0, said
    assert 'backfill job 1 ("orders.rate_new") has not completed: it is running' in said, said
    row = complete(db, 1)
    assert row["rows_updated"] == ROWS
    later = project.migrate()
    assert later.returncode == 0, later.stdout + later.stderr

    def check() -> None:
        [outcome] = db.sql(
            "SELECT (SELECT count(*) FROM orders WHERE rate_new = rate::bigint), (SELECT attnotnull FROM pg_attribute"
            " WHERE attrelid = 'orders'::regclass AND attname = 'rate_new'), (SELECT count(*) FROM backfill.progress),"
            " (SELECT count(*) FROM pg_constraint WHERE conrelid = 'orders'::regclass AND contype = 'c')"
        )
        assert outcome == (ROWS, True, 1, 0)

    check()
    # Each migration again, on a database where it was applied.
    db.sql(forget)
    again = project.migrate()
    assert again.returncode == 0, again.stdout + again.stderr
    check()


def test_the_page_has_these_tools() -> None:
    """No section without a test, none without files."""
    headings = re.findall(r"^## (.*)$", PAGE.read_text(), re.M)
    assert headings == ["What you see when it is too early", *TOOLS, "Any other tool"]
    for tool in TOOLS:
        assert len(FILE.findall(section(tool))) >= 2
