//! Parts of the owner's statements other than clauses, parsed by themselves.

use pgrx::pg_sys::{self, NodeTag};

use super::clauses::{STANDARD_STRINGS, parse};
use super::text::lossy;
use super::{list, settings};
use crate::error::{Error, Result, sqlstate};

/// Parses a list of columns, as it stands between the parentheses after INSERT INTO; returns their names.
pub fn column_list(columns: &str) -> Result<Vec<String>> {
    const HINT: &str = "columns is what stands between the parentheses after INSERT INTO: 'a, b'.";
    // SAFETY: the result of parsing is null or a statement, in the current memory context, which is not left here. It is
    // treated as what its tag says; the columns of an INSERT are of that type.
    settings::with(&[STANDARD_STRINGS], || unsafe {
        let statement = parse("INSERT INTO t (", &format!("{columns}\n) SELECT"), HINT)?;
        if statement.is_null() || (*statement).type_ != NodeTag::T_InsertStmt {
            return Err(not_only("columns", "a list of column names", HINT));
        }
        let insert = &*statement.cast::<pg_sys::InsertStmt>();
        let targets = list::pointers::<pg_sys::ResTarget>(insert.cols);
        if targets
            .iter()
            .any(|target| !(**target).indirection.is_null())
        {
            return Err(not_only("columns", "a list of whole columns", HINT));
        }
        let names = targets.into_iter();
        Ok(names.filter_map(|target| lossy((*target).name)).collect())
    })
}

/// Checks that a text is a select list by itself: expressions, each with a value for one column. Returns their number, if it is known
/// before the table is: `t.*` stands for any number.
pub fn select_list(select_list: &str) -> Result<Option<usize>> {
    const HINT: &str = "select_list is what stands between SELECT and FROM: 'a, b + 1'.";
    // SAFETY: as in `column_list`; the targets of a SELECT are of that type, and what they select are nodes, which begin with a tag.
    settings::with(&[STANDARD_STRINGS], || unsafe {
        let statement = parse("SELECT ", select_list, HINT)?;
        if statement.is_null() || (*statement).type_ != NodeTag::T_SelectStmt {
            return Err(not_only("select_list", "a list of expressions", HINT));
        }
        let select = &*statement.cast::<pg_sys::SelectStmt>();
        for (found, what) in [
            (!select.intoClause.is_null(), "INTO"),
            (!select.fromClause.is_null(), "FROM"),
            (!select.whereClause.is_null(), "WHERE"),
            (!select.groupClause.is_null(), "GROUP BY"),
            (!select.havingClause.is_null(), "HAVING"),
            (!select.windowClause.is_null(), "WINDOW"),
            (!select.distinctClause.is_null(), "DISTINCT"),
            (!select.sortClause.is_null(), "ORDER BY"),
            (
                !select.limitCount.is_null() || !select.limitOffset.is_null(),
                "LIMIT",
            ),
            (!select.lockingClause.is_null(), "FOR UPDATE or the like"),
            (
                select.op != pg_sys::SetOperation::SETOP_NONE,
                "UNION or the like",
            ),
        ] {
            if found {
                let wanted = format!("a list of expressions, but has {what}");
                return Err(not_only("select_list", &wanted, HINT));
            }
        }
        let targets = list::pointers::<pg_sys::ResTarget>(select.targetList);
        let mut stars = 0;
        for target in &targets {
            match star((**target).val) {
                Star::None => {}
                Star::OfTable => stars += 1,
                Star::Alone => {
                    return Err(
                        not_only("select_list", "a list of expressions, but has *", HINT).hint(
                            "Name the columns, or put the table's name before it: 'orders.*'.",
                        ),
                    );
                }
            }
        }
        Ok((stars == 0).then_some(targets.len()))
    })
}

/// Checks that a text is one item of FROM.
pub fn from_item(from: &str) -> Result<()> {
    const HINT: &str = "option \"from\" is one item of FROM, with a name: 'rates r', 'a JOIN b ON b.id = a.b', '(SELECT ...) AS r'.";
    // SAFETY: as in `column_list`.
    settings::with(&[STANDARD_STRINGS], || unsafe {
        let statement = parse("SELECT FROM ", from, HINT)?;
        if statement.is_null() || (*statement).type_ != NodeTag::T_SelectStmt {
            return Err(not_only("option \"from\"", "one item of FROM", HINT));
        }
        let select = &*statement.cast::<pg_sys::SelectStmt>();
        if list::only::<pg_sys::Node>(select.fromClause).is_none() {
            let wanted = "one item of FROM, and not a list";
            return Err(
                not_only("option \"from\"", wanted, HINT).hint("Join the items: 'a CROSS JOIN b'.")
            );
        }
        for (found, what) in [
            (!select.whereClause.is_null(), "WHERE"),
            (!select.groupClause.is_null(), "GROUP BY"),
            (!select.havingClause.is_null(), "HAVING"),
            (!select.windowClause.is_null(), "WINDOW"),
            (!select.sortClause.is_null(), "ORDER BY"),
            (
                !select.limitCount.is_null() || !select.limitOffset.is_null(),
                "LIMIT",
            ),
            (!select.lockingClause.is_null(), "FOR UPDATE or the like"),
            (
                select.op != pg_sys::SetOperation::SETOP_NONE,
                "UNION or the like",
            ),
        ] {
            if found {
                let wanted = format!("one item of FROM, but has {what}");
                return Err(not_only("option \"from\"", &wanted, HINT));
            }
        }
        Ok(())
    })
}

/// Checks that a text is one statement that can be run for each batch.
pub fn batch_statement(statement: &str) -> Result<()> {
    const HINT: &str = "statement is one INSERT, UPDATE, DELETE, MERGE or SELECT that names batch: 'INSERT INTO b SELECT f(id) FROM batch'.";
    // SAFETY: as in `column_list`.
    settings::with(&[STANDARD_STRINGS], || unsafe {
        let parsed = parse("", statement, HINT)?;
        let tag = (!parsed.is_null()).then(|| (*parsed).type_);
        match tag {
            Some(
                NodeTag::T_InsertStmt
                | NodeTag::T_UpdateStmt
                | NodeTag::T_DeleteStmt
                | NodeTag::T_MergeStmt,
            ) => Ok(()),
            Some(NodeTag::T_SelectStmt) if !makes_table(&*parsed.cast()) => Ok(()),
            Some(NodeTag::T_SelectStmt) => {
                Err(not_only("statement", "one query, but has INTO", HINT))
            }
            Some(NodeTag::T_CallStmt) => Err(not_only(
                "statement",
                "one statement that reads batch, and not CALL",
                HINT,
            )
            .hint("A function is called by a SELECT: 'SELECT f(array_agg(id)) FROM batch'.")),
            Some(_) => Err(not_only(
                "statement",
                "one INSERT, UPDATE, DELETE, MERGE or SELECT",
                HINT,
            )),
            None => Err(not_only("statement", "one statement", HINT)),
        }
    })
}

/// A star in a select list.
enum Star {
    None,
    /// `t.*`
    OfTable,
    /// `*`
    Alone,
}

/// # Safety
/// `value` must be null or a node as it was parsed.
unsafe fn star(value: *mut pg_sys::Node) -> Star {
    // SAFETY: as the caller promises. The node is treated as what its tag says; the fields of a column's name are nodes.
    unsafe {
        if value.is_null() || (*value).type_ != NodeTag::T_ColumnRef {
            return Star::None;
        }
        let fields = list::pointers::<pg_sys::Node>((*value.cast::<pg_sys::ColumnRef>()).fields);
        match fields.as_slice() {
            [.., last] if (**last).type_ != NodeTag::T_A_Star => Star::None,
            [_] => Star::Alone,
            _ => Star::OfTable,
        }
    }
}

/// Whether a query is SELECT ... INTO: of several that are combined, the first one says so.
///
/// # Safety
/// The statement must be as it was parsed.
unsafe fn makes_table(select: &pg_sys::SelectStmt) -> bool {
    let mut select = select;
    // SAFETY: as the caller promises: the left side of a combined query is null or another one.
    unsafe {
        while let Some(left) = select.larg.as_ref() {
            select = left;
        }
    }
    !select.intoClause.is_null()
}

fn not_only(what: &str, wanted: &str, hint: &str) -> Error {
    let message = format!("{what} must be {wanted}");
    Error::new(sqlstate::SYNTAX_ERROR, message).hint(hint)
}
