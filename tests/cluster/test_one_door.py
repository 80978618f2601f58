"""The source: only a few functions of src/pg hand text to PostgreSQL's parser, analyser, planner or input functions.

The rule is that text of a role other than the caller is never looked at in the caller's session. It is kept by
construction: these functions ask `confine::require` first, and only `stranger` and the workers connect as others.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src"
# What turns text into something that may run: the function, and the files that may name it.
DOORS = {
    # Of maintenance: VACUUM and ANALYZE of a table, by its quoted name.
    # Of a call: what the client itself has sent, once more.
    r"\braw_parser\b": {"pg/clauses.rs", "pg/maintenance.rs", "pg/typed.rs"},
    r"\bpg_parse_query\b": {"pg/evaluate/mod.rs"},
    r"\bpg_analyze_and_rewrite\w*\b": {"pg/evaluate/mod.rs"},
    r"\bpg_plan_quer(y|ies)\b": {"pg/evaluate/mod.rs"},
    r"\bSPI_prepare\w*\b": {"pg/clauses.rs", "pg/spi/plan.rs"},
    r"\bSPI_(exec|execute|cursor_open|cursor_parse_open)\w*\b": {"pg/spi/mod.rs", "pg/spi/plan.rs"},
    r"\b(Oid)?InputFunctionCall\w*\b": {"pg/arg.rs"},
    r"\b(Oid)?ReceiveFunctionCall\w*\b": set(),
    r"\bgetTypeInputInfo\b": {"pg/arg.rs"},
    r"\beval_const_expressions\b": set(),
    r"\bexpression_planner\w*\b": set(),
    r"\bExecInitExpr\w*\b": set(),
    # Reads which columns a stored expression names, and evaluates nothing.
    r"\bstringToNode\b": {"pg/hot.rs"},
    r"\b(parse_analyze|transformExpr|transformStmt|standard_planner|parseTypeString|stringToQualifiedNameList)\w*\b": {
        "pg/planner.rs"
    },
    # Evaluates what is constant in them.
    r"\bRelationGetIndex(Expressions|Predicate)\b": {"pg/hot.rs"},
    # Counters of statistics, the fill of the queue of notifications, and the seed of random(): built-in functions.
    r"\bOidFunctionCall\w*\b": {"pg/hot.rs", "pg/notify.rs", "pg/owner_session.rs"},
    r"\bSpi\b": set(),
    # Whose rights are in force.
    r"\bSetUserIdAndSecContext\b": {"pg/confine.rs", "pg/elevate.rs", "pg/txn.rs"},
    r"\bSetSessionAuthorization\b": {"pg/role.rs"},
    r"\bprocess_is_the_owners\b": {"pg/confine.rs", "pg/owner_session.rs"},
    r"\bBackgroundWorkerInitializeConnection\w*\b": {"pg/bgworker.rs"},
}
# Functions that hand text over, and what each has to ask before it does anything else.
ASKS = {
    ("pg/clauses.rs", "parse"): "confine::require()?;",
    ("pg/clauses.rs", "analysed"): "confine::require()?;",
    ("pg/hot.rs", "facts"): "confine::require()?;",
    ("pg/evaluate/mod.rs", "changes"): "confine::require()?;",
    ("pg/spi/mod.rs", "query"): "allowed()?;",
    ("pg/spi/mod.rs", "query_latest"): "allowed()?;",
    ("pg/spi/mod.rs", "run_for_effect"): "confine::require()?;",
    ("pg/spi/mod.rs", "read_only"): "confine::require()?;",
    ("pg/spi/plan.rs", "prepare"): "allowed()?;",
    ("pg/spi/plan.rs", "execute"): "if self.own != elevate::is_elevated() {",
    ("pg/arg.rs", "input"): "if oid.to_u32() >= pg_sys::FirstNormalObjectId {",
}


def code(path: Path) -> str:
    """A source file without its comments."""
    return re.sub(r"//.*", "", path.read_text())


@pytest.mark.parametrize("door", DOORS)
def test_only_these_files_name_it(door: str) -> None:
    """A new place that could look at a stranger's text does not come in by accident."""
    found = {str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.rs") if re.search(door, code(path))}
    assert found <= DOORS[door], (
        f"{door} in {sorted(found - DOORS[door])}: text goes through src/pg/spi or src/stranger"
    )


@pytest.mark.parametrize("where", ASKS, ids="::".join)
def test_each_of_them_asks_first(where: tuple[str, str]) -> None:
    """The guard is the first statement of the function."""
    file, function = where
    bodies = re.findall(rf"\bfn {function}\b[^{{;]*\{{\s*([^\n]*)", code(SOURCE / file))
    assert bodies, f"{file} has no function {function}"
    assert ASKS[where] in bodies, bodies


def test_the_text_of_statements_within_the_extensions_rights_is_its_own() -> None:
    """What runs with the rights of the extension's owner is made of constants: no clause of a job gets in there."""
    clauses = re.compile(r"\b(set_clause|where_clause|check_clause|throttle_query|on_end)\b")
    files = sorted((SOURCE / "store").glob("*.rs"))
    assert len(files) > 20
    for path in files:
        for call in re.finditer(r"format!\(\s*\"(?:[^\"\\]|\\.)*\"\s*,([^;]*?)\)", code(path)):
            assert not clauses.search(call.group(1)), f"{path.name}: {call.group(0)[:200]}"


def test_fixed_statements_are_static() -> None:
    """`spi::fixed` asks nothing, so the compiler has to: its text is 'static."""
    text = code(SOURCE / "pg" / "spi" / "mod.rs")
    assert re.search(r"pub fn fixed\(sql: &'static str", text)
    assert re.search(r"pub fn fixed_first\(sql: &'static str", text)
    text = code(SOURCE / "pg" / "spi" / "kept.rs")
    assert re.search(r"pub fn kept\(sql: &'static str", text)
    assert re.search(r"pub fn kept_first\(sql: &'static str", text)
    for path in SOURCE.rglob("*.rs"):
        assert "Box::leak" not in code(path) and ".leak()" not in code(path), path
