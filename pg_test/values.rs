//! Key values make the way to text and back unchanged, whatever the session's settings.

#[pgrx::pg_schema]
mod tests {
    use pgrx::pg_sys::Oid;
    use pgrx::prelude::*;

    use crate::pg::settings::{self, CANONICAL};
    use crate::pg::spi::{self, Arg, Plan};
    use crate::server_tests::support::{connected, run, value};

    fn type_oid(name: &str) -> Oid {
        let text = value(&format!("SELECT '{name}'::regtype::oid")).expect(name);
        Oid::from(text.parse::<u32>().expect("an OID"))
    }

    /// The text form of an SQL expression, as a checkpoint would hold it.
    fn text_of(expression: &str) -> String {
        let row = connected(|| {
            settings::with(CANONICAL, || {
                spi::first(&format!("SELECT {expression}"), &[])
            })
        });
        let row = row.expect("no error").expect("a row");
        row.get(0).expect(expression).to_owned()
    }

    /// Sends the text through a parameter of its type; it has to equal the expression, and to have
    /// the same text again.
    fn round_trip(expression: &str, type_name: &str) {
        let text = text_of(expression);
        let oid = type_oid(type_name);
        let sql = format!(
            "SELECT $1, $1 IS NOT DISTINCT FROM ({expression}), pg_column_size($1) = pg_column_size({expression})"
        );
        let output =
            connected(|| Plan::prepare(&sql, &[oid])?.run_canonical(&[Arg::Typed(oid, &text)]));
        let output = output.unwrap_or_else(|error| panic!("{expression}: {error}"));
        let row = &output.rows[0];
        assert_eq!(row.get(0), Some(text.as_str()), "{expression}");
        assert!(
            row.bool(1),
            "{expression} came back as another value than {text}"
        );
    }

    const VALUES: &[(&str, &str)] = &[
        ("(-32768)::int2", "int2"),
        ("(-2147483648)::int4", "int4"),
        ("9223372036854775807::int8", "int8"),
        ("4294967295::oid", "oid"),
        ("1e-200::numeric", "numeric"),
        ("1.500::numeric", "numeric"),
        (
            "123456789012345678901234567890.123456789::numeric",
            "numeric",
        ),
        ("'NaN'::numeric", "numeric"),
        ("'-Infinity'::numeric", "numeric"),
        ("0.1::float8", "float8"),
        ("'5e-324'::float8", "float8"),
        ("1.7976931348623157e308::float8", "float8"),
        ("'NaN'::float8", "float8"),
        ("0.1::float4", "float4"),
        ("true", "bool"),
        ("''::text", "text"),
        ("' '::text", "text"),
        ("'NULL'::text", "text"),
        ("E'it''s \"q\" \\\\ {a,b} \\t\\n end'::text", "text"),
        ("'äöü 😀 ﷽'::text", "text"),
        ("repeat('x', 10000)", "text"),
        ("'abc'::char(5)", "bpchar"),
        ("'abc  '::char(5)", "bpchar"),
        ("'ab c'::varchar(9)", "varchar"),
        ("'Weird \"Name\"'::name", "name"),
        ("'x'::\"char\"", "\"char\""),
        ("'\\xdeadbeef00ff'::bytea", "bytea"),
        ("''::bytea", "bytea"),
        ("'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid", "uuid"),
        ("'192.168.0.1/24'::inet", "inet"),
        ("'::ffff:1.2.3.4'::inet", "inet"),
        ("'10.0.0.0/8'::cidr", "cidr"),
        ("'08:00:2b:01:02:03'::macaddr", "macaddr"),
        ("'2024-02-03'::date", "date"),
        ("'infinity'::date", "date"),
        ("'4713-01-01 BC'::date", "date"),
        (
            "'2024-02-03 04:05:06.789012+09'::timestamptz",
            "timestamptz",
        ),
        ("'-infinity'::timestamptz", "timestamptz"),
        ("'0044-03-15 12:00 BC'::timestamp", "timestamp"),
        ("'23:59:59.999999'::time", "time"),
        ("'12:00:00+05:30'::timetz", "timetz"),
        ("'-1 year 2 mons -3 days 04:05:06.7'::interval", "interval"),
        ("'$1,234.56'::money", "money"),
        ("B'0101'::bit(4)", "bit"),
        ("B''::varbit", "varbit"),
        ("'{1,NULL,3}'::int[]", "int[]"),
        ("'{\"a\": [1, \"x\"]}'::jsonb", "jsonb"),
        ("'[1,5)'::int4range", "int4range"),
        ("'f'::public.mood", "public.mood"),
        ("'it''s'::public.short_text", "public.short_text"),
    ];

    fn types() {
        run("CREATE TYPE public.mood AS ENUM ('a b', 'f', 'it''s')");
        run("CREATE DOMAIN public.short_text AS text CHECK (length(VALUE) < 10)");
    }

    #[pg_test]
    fn key_values_survive_the_way_to_text_and_back() {
        types();
        for (expression, type_name) in VALUES {
            round_trip(expression, type_name);
        }
    }

    #[pg_test]
    fn key_values_survive_under_settings_that_change_their_text() {
        types();
        for (name, value) in [
            ("DateStyle", "German, DMY"),
            ("IntervalStyle", "sql_standard"),
            ("TimeZone", "America/St_Johns"),
            ("bytea_output", "escape"),
            ("extra_float_digits", "-10"),
        ] {
            run(&format!("SELECT set_config('{name}', '{value}', true)"));
        }
        let expressions: Vec<String> = VALUES.iter().map(|(e, _)| text_of(e)).collect();
        for (expression, type_name) in VALUES {
            round_trip(expression, type_name);
        }
        // A checkpoint that was written under these settings is the one written under the usual ones.
        run("RESET DateStyle; RESET IntervalStyle; RESET bytea_output; RESET extra_float_digits");
        let again: Vec<String> = VALUES.iter().map(|(e, _)| text_of(e)).collect();
        assert_eq!(expressions, again);
    }

    #[pg_test]
    fn the_statement_itself_runs_under_the_sessions_settings() {
        run("SET LOCAL DateStyle = 'German, DMY'");
        let output = connected(|| {
            Plan::prepare("SELECT $1, $1::text", &[type_oid("date")])?
                .run_canonical(&[Arg::Typed(type_oid("date"), "2024-02-03")])
        });
        let output = output.expect("a date");
        assert_eq!(output.rows[0].get(0), Some("2024-02-03"));
        assert_eq!(output.rows[0].get(1), Some("03.02.2024"));
    }

    #[pg_test]
    fn texts_and_nulls_are_bound_as_they_are() {
        let texts: Vec<String> = ["", "NULL", "{}", "a,b", "\"", "\\", "ü"]
            .map(str::to_owned)
            .to_vec();
        let row = connected(|| {
            spi::first(
                "SELECT array_to_json($1)::text, $2 IS NULL, $3, $4, $5",
                &[
                    Arg::Texts(&texts),
                    Arg::text(None),
                    Arg::Float8(0.1),
                    Arg::Bool(true),
                    Arg::Int8(i64::MIN),
                ],
            )
        });
        let row = row.expect("no error").expect("a row");
        assert_eq!(row.get(0), Some(r#"["","NULL","{}","a,b","\"","\\","ü"]"#));
        assert!(row.bool(1));
        assert_eq!(row.get(2), Some("0.1"));
        assert!(row.bool(3));
        assert_eq!(row.get(4), Some("-9223372036854775808"));
    }
}
