//! The statements of a walk go by the index of the key, others as they like.

#[pgrx::pg_schema]
mod tests {
    use std::ffi::CString;

    use pgrx::prelude::*;

    use crate::action::Update;
    use crate::action::statement::{Giving, batch};
    use crate::model::row_lock::RowLock;
    use crate::pg::planner::{Access, set_walk};
    use crate::scan::key::choose;
    use crate::scan::sql::{Rows, Statement, Target};
    use crate::server_tests::support::{connected, lines, oid, run};
    use crate::table::index;

    /// A table of one page, which the planner would rather read whole.
    fn table() {
        run("CREATE TABLE public.t (id int PRIMARY KEY, a int, b int)");
        run("INSERT INTO public.t SELECT i, i, i FROM generate_series(1, 50) i");
        run("CREATE INDEX t_a ON public.t (a)");
        run("ANALYZE public.t");
    }

    fn target(where_clause: Option<&str>) -> Target {
        let relation = oid("public.t");
        let key = connected(|| choose(index::candidates(relation)?, None, "t")).expect("a key");
        Target {
            schema: "public".to_owned(),
            relation: "t".to_owned(),
            alias: None,
            key: key.columns,
            where_clause: where_clause.map(str::to_owned),
            lock: RowLock::NoKeyUpdate,
        }
    }

    fn update(set_clause: &str, where_clause: Option<&str>) -> Statement {
        let action = Update::new(set_clause, &["b"]);
        let rows = Rows::Range { after: true };
        batch(&action, &target(where_clause), rows, Giving::Nothing)
    }

    /// The plan for parameters that are not known, as the worker has it made.
    fn plan(statement: &Statement, parameters: &str, walk: bool) -> String {
        let prepare = format!("PREPARE walk AS {}", statement.text);
        let announced = if walk {
            prepare.clone()
        } else {
            "SELECT".to_owned()
        };
        let announced = CString::new(announced).expect("no zero byte");
        set_walk(
            oid("public.t"),
            oid("public.t_pkey"),
            vec![(announced, Access::Index)],
        );
        run("SET LOCAL plan_cache_mode = force_generic_plan");
        run(&prepare);
        let plan = lines(&format!("EXPLAIN (COSTS OFF) EXECUTE walk({parameters})"));
        run("DEALLOCATE walk");
        plan
    }

    #[pg_test]
    fn the_update_of_a_walk_goes_by_the_key() {
        table();
        let update = update("b = b + 1", None);
        let free = plan(&update, "1, 40", false);
        assert!(free.contains("Seq Scan on t"), "{free}");
        let walk = plan(&update, "1, 40", true);
        assert!(walk.contains("Index Scan using t_pkey on t"), "{walk}");
        assert!(
            walk.contains("Index Cond: ((id > $1) AND (id <= $2))"),
            "{walk}"
        );
        assert!(!walk.contains("Seq Scan"), "{walk}");
    }

    #[pg_test]
    fn the_predicates_index_does_not_lure_the_walk_away() {
        table();
        let update = update("b = 0", Some("a = 7"));
        let walk = plan(&update, "1, 40", true);
        assert!(walk.contains("using t_pkey"), "{walk}");
        assert!(walk.contains("Filter: (a = 7)"), "{walk}");
    }

    #[pg_test]
    fn the_bound_and_the_last_key_go_by_the_key_without_sorting() {
        table();
        let target = target(Some("a > 7"));
        for (statement, parameters) in [
            (target.bound(true), "1, 40, 10, 1"),
            (target.bound(false), "40, 10, 1"),
            (target.read(true, false), "1, 40, 10"),
            (target.read(false, true), "40, 10"),
            (target.greatest(&[]), "1"),
        ] {
            let walk = plan(&statement, parameters, true);
            assert!(walk.contains("using t_pkey on t"), "{walk}");
            assert!(!walk.contains("Sort"), "{walk}");
        }
    }

    #[pg_test]
    fn the_users_subqueries_are_left_alone() {
        table();
        let update = update(
            "b = (SELECT max(x.b) FROM public.t x WHERE x.b < t.a)",
            None,
        );
        let walk = plan(&update, "1, 40", true);
        assert!(walk.contains("using t_pkey on t"), "{walk}");
        assert!(walk.contains("Seq Scan on t x"), "{walk}");
    }

    #[pg_test]
    fn other_relations_and_other_statements_are_left_alone() {
        table();
        run(
            "CREATE TABLE public.other (id int PRIMARY KEY, a int); INSERT INTO public.other SELECT i FROM generate_series(1, 50) i; ANALYZE public.other",
        );
        let text = "EXPLAIN (COSTS OFF) UPDATE public.other SET a = 1 WHERE id > 0";
        let announced = CString::new(text).expect("no zero byte");
        set_walk(
            oid("public.t"),
            oid("public.t_pkey"),
            vec![(announced, Access::Index)],
        );
        let plan = lines(text);
        assert!(plan.contains("Seq Scan on other"), "{plan}");
        let plan = lines("EXPLAIN (COSTS OFF) UPDATE public.t SET a = 1 WHERE id > 0");
        assert!(plan.contains("Seq Scan on t"), "{plan}");
    }

    #[pg_test]
    fn without_its_index_the_walk_still_has_a_plan() {
        table();
        let update = update("b = 0", None);
        let gone = "PREPARE gone AS ".to_owned() + &update.text;
        set_walk(
            oid("public.t"),
            oid("public.t"),
            vec![(
                CString::new(gone.clone()).expect("no zero byte"),
                Access::Index,
            )],
        );
        run("SET LOCAL plan_cache_mode = force_generic_plan");
        run(&gone);
        let plan = lines("EXPLAIN (COSTS OFF) EXECUTE gone(1, 40)");
        assert!(plan.contains("Scan"), "{plan}");
    }
}
