//! What is in force for a while ends with it, also when an error leaves it.

#[pgrx::pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::error::Result;
    use crate::pg::spi;
    use crate::pg::timeout;
    use crate::server_tests::support::connected;

    #[pg_test]
    fn a_limit_that_an_error_leaves_cancels_nothing_afterwards() {
        let left = connected(|| {
            let error = spi::in_subtransaction(|| {
                timeout::limited(100, || -> Result<()> { pgrx::error!("left early") })
            });
            // Longer than what was left of the limit.
            spi::query("SELECT pg_sleep(0.3)", &[])?;
            Ok(error)
        });
        let error = left
            .expect("a sleep that is not cancelled")
            .expect_err("an error");
        assert_eq!(error.message, "left early");
    }

    #[pg_test]
    fn a_limit_cancels_what_takes_longer() {
        let cancelled =
            connected(|| Ok(timeout::limited(50, || spi::attempt("SELECT pg_sleep(10)"))));
        let error = cancelled.expect("connected").expect_err("cancelled");
        assert_eq!(error.sqlstate, "57014");
        assert_eq!(
            error.message,
            "canceling statement due to statement timeout"
        );
    }
}
