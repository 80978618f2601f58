//! The horizon, and who holds it back: other sessions, by way of psql.

#[pgrx::pg_schema]
mod tests {
    use std::time::{Duration, Instant};

    use pgrx::prelude::*;

    use crate::pg::horizon::{horizon, next_xid, oldest_holder, precedes};
    use crate::server_tests::support::{connected, oid, run, value};

    #[pg_test]
    fn numbers_wrap_around() {
        assert!(precedes(100, 101) && !precedes(101, 100) && !precedes(100, 100));
        assert!(precedes(u32::MAX, 3) && !precedes(3, u32::MAX));
    }

    #[pg_test]
    fn the_horizon_is_no_later_than_this_transaction() {
        run("CREATE TABLE public.t (a int)");
        let mine = value("SELECT pg_current_xact_id()::xid").expect("a transaction");
        let mine: u32 = mine.parse().expect("a number");
        let oldest = horizon(oid("public.t"));
        assert!(oldest == mine || precedes(oldest, mine), "{oldest} {mine}");
        assert!(precedes(mine, next_xid()));
        assert_ne!(oldest, 0);
        // Without a table, the oldest of the cluster.
        let shared = horizon(pgrx::pg_sys::Oid::from(4_000_000_000));
        assert!(shared == oldest || precedes(shared, oldest));
    }

    /// Waits until somebody is named of whom `wanted` is true.
    fn wait_for(wanted: impl Fn(Option<&str>) -> bool) -> Option<String> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            run("SELECT pg_stat_clear_snapshot()");
            let holder = connected(oldest_holder).expect("an answer");
            if wanted(holder.as_deref()) {
                return holder;
            }
            // Other tests have transactions of their own.
            assert!(Instant::now() < deadline, "it is {holder:?}");
            run("SELECT pg_sleep(0.01)");
        }
    }

    /// Has a shell run psql, without a transaction number of this session's own: its transaction
    /// would be older than that of psql. `$psql` in the command stands for the call.
    fn shell(command: &str) {
        let asked = |sql: &str| value(sql).expect(sql);
        let folder = "SELECT split_part(current_setting('unix_socket_directories'), ',', 1)";
        let psql = format!(
            "\"{}/psql\" -qX -v ON_ERROR_STOP=1 -h \"{}\" -p {} -U {} -d {}",
            asked("SELECT setting FROM pg_config() WHERE name = 'BINDIR'"),
            asked(folder),
            asked("SHOW port"),
            asked("SELECT current_user"),
            asked("SELECT current_database()"),
        );
        let command = command.replace("$psql", &psql);
        run(&format!("COPY (SELECT WHERE false) TO PROGRAM '{command}'"));
    }

    #[pg_test]
    fn an_open_transaction_is_named() {
        shell(
            r#"PGAPPNAME=holder $psql -c "BEGIN" -c "SELECT pg_current_xact_id()" -c "SELECT pg_sleep(600) -- secret" > /dev/null 2>&1 &"#,
        );
        let open = " (holder, active, open for 00:";
        let holder = wait_for(|holder| holder.is_some_and(|text| text.contains(open)));
        let holder = holder.expect("a holder");
        assert!(!holder.contains("secret"), "{holder}");
        let pid = holder
            .strip_prefix("transaction of pid ")
            .and_then(|rest| rest.split_once(open));
        let (pid, _) = pid.expect("a process");
        run(&format!("SELECT pg_terminate_backend({pid})"));
        wait_for(|holder| holder.is_none_or(|text| !text.contains("holder")));
    }

    #[pg_test]
    fn a_prepared_transaction_is_named() {
        shell(
            r#"$psql -c "BEGIN" -c "SELECT pg_current_xact_id()" -c "PREPARE TRANSACTION ''backfill test''" > /dev/null"#,
        );
        let named = "prepared transaction \"backfill test\" (open for 00:";
        wait_for(|holder| holder.is_some_and(|text| text.starts_with(named)));
        shell(r#"$psql -c "ROLLBACK PREPARED ''backfill test''""#);
        wait_for(|holder| holder.is_none_or(|text| !text.contains("prepared")));
    }

    #[pg_test]
    fn a_replication_slot_without_a_standby_is_no_holder() {
        run("SELECT pg_create_physical_replication_slot('backfill_idle_slot', true)");
        let holder = connected(oldest_holder).expect("an answer");
        run("SELECT pg_drop_replication_slot('backfill_idle_slot')");
        assert!(holder.is_none_or(|text| !text.contains("slot")));
    }
}
