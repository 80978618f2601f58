//! The statements that repeat a job.

use super::model::Report;
use super::words::plain;
use crate::quote::{ident, literal, qualified};

impl Report {
    /// Returns SQL that does the same again: the settings that the clauses were written under, and the call. `None` for
    /// a reader who may not see everything it takes.
    pub fn statement(&self) -> Option<String> {
        if self.document["single_rows"] == true {
            return Some("-- It did single rows again, which a verification had found to be wrong: there is nothing to be repeated.".to_owned());
        }
        let call = self.call()?;
        let settings = self.document["settings"].as_object()?;
        let settings: Vec<String> = settings
            .iter()
            .map(|(name, value)| {
                let value = literal(&plain(value));
                format!("set_config({}, {value}, false)", literal(name))
            })
            .collect();
        let mut lines = Vec::new();
        if !settings.is_empty() {
            lines.push(format!("SELECT {};", settings.join(",\n    ")));
        }
        if !self.job("options")["settings"].is_null() {
            lines.push(
                "-- The values of options.settings are not shown here: put them in.".to_owned(),
            );
        }
        let name = self.text("name");
        if !name.is_empty() {
            // The name goes into a comment, which a line break would end.
            let name: String = name.chars().filter(|c| !c.is_control()).collect();
            let job = self.text("job_id");
            lines.push(format!(
                "-- Its name, {}, is left out: with it the call would find job {job}, and do nothing. backfill.forget({job}) frees it.",
                literal(&name)
            ));
        }
        lines.push(call);
        Some(lines.join("\n"))
    }

    /// Returns what a verification asks of each row.
    pub(super) fn wanted(&self) -> Option<String> {
        let check = self.document["check"].as_object()?;
        Some(match check["check_clause"].as_str() {
            Some(clause) => clause.to_owned(),
            None if check["recompute"] == true => "the SET list would not change it".to_owned(),
            None => "the WHERE clause is not true of it".to_owned(),
        })
    }

    fn call(&self) -> Option<String> {
        let job = self.text("verifies");
        let (function, mut arguments) = match job.is_empty() {
            true => self.begun(),
            false => ("verify", self.arguments_of_verify(job)?),
        };
        let options = self.job("options");
        if options.as_object().is_some_and(|given| !given.is_empty()) {
            arguments.push(format!("options => {}", literal(&options.to_string())));
        }
        let arguments = arguments.join(",\n    ");
        Some(format!("SELECT backfill.{function}({arguments});"))
    }

    /// Returns the function that begins such a job, and its arguments. A dry run is begun like the run that it is for.
    fn begun(&self) -> (&'static str, Vec<String>) {
        let work = self.job("work");
        let text = |name: &str| work[name].as_str().map(literal);
        let named = |name: &'static str, value: Option<String>| {
            value.map(|value| format!("{name} => {value}"))
        };
        let table = literal(&self.text("relation"));
        let pace = [self.text("batch_size"), self.text("sleep_ms")];
        let (function, first, more) = if let Some(statement) = text("statement") {
            ("execute", vec![table, statement], Vec::new())
        } else if let Some(list) = text("select_list") {
            let name = |part: &str| work[part].as_str().unwrap_or_default().to_owned();
            let columns = work["columns"].as_array().into_iter().flatten();
            let columns: Vec<String> = columns.filter_map(|c| c.as_str().map(ident)).collect();
            let target = literal(&qualified(&name("schema"), &name("name")));
            let more = vec![
                named("columns", Some(literal(&columns.join(", ")))),
                named("select_list", Some(list)),
                named("on_conflict", text("on_conflict")),
            ];
            ("copy", vec![table, target], more)
        } else if !self.text("set_clause").is_empty() {
            let set = literal(&self.text("set_clause"));
            ("start", vec![table], vec![named("set_clause", Some(set))])
        } else {
            ("delete", vec![table], Vec::new())
        };
        let mut arguments: Vec<String> = first.into_iter().chain(pace).collect();
        arguments.extend(more.into_iter().flatten());
        let where_clause = self.text("where_clause");
        if !where_clause.is_empty() {
            arguments.push(format!("where_clause => {}", literal(&where_clause)));
        }
        (function, arguments)
    }

    fn arguments_of_verify(&self, job: String) -> Option<Vec<String>> {
        let check = self.document["check"].as_object()?;
        let mut arguments = vec![job];
        if let Some(clause) = check["check_clause"].as_str() {
            arguments.push(format!("check_clause => {}", literal(clause)));
        }
        if check["recompute"] == true {
            arguments.push("recompute => true".to_owned());
        }
        Some(arguments)
    }
}

#[cfg(test)]
mod tests {
    use super::super::example::example;

    #[test]
    fn the_call_can_be_pasted() {
        assert_eq!(
            example().statement().unwrap(),
            "SELECT set_config('search_path', '\"$user\", public', false);\n-- Its name, '<b>rates</b> | x', is left out: with it the call would find job 7, and do nothing. backfill.forget(7) frees it.\nSELECT backfill.start('orders',\n    1000,\n    5,\n    set_clause => 'a = ''it''''s''',\n    where_clause => 'a IS NULL',\n    options => '{\"workers\":2}');"
        );
    }

    #[test]
    fn each_kind_of_work_is_begun_by_its_own_call() {
        let begun = |work: serde_json::Value| {
            let mut report = example();
            report.document["job"]["work"] = work;
            report.document["job"]["set_clause"] = serde_json::Value::Null;
            report.statement().unwrap()
        };
        let copy = begun(
            serde_json::json!({"target": 7, "schema": "s", "name": "N", "columns": ["a", "B"],
            "select_list": "x, y", "on_conflict": "DO NOTHING", "lock": "share"}),
        );
        assert!(copy.contains("backfill.copy('orders',\n    '\"s\".\"N\"',\n    1000,\n    5,\n    columns => '\"a\", \"B\"',\n    select_list => 'x, y',\n    on_conflict => 'DO NOTHING',\n    where_clause => 'a IS NULL',"), "{copy}");
        let execute = begun(serde_json::json!({"statement": "TABLE batch", "lock": "none"}));
        assert!(
            execute.contains("backfill.execute('orders',\n    'TABLE batch',\n    1000,"),
            "{execute}"
        );
        let delete = begun(serde_json::Value::Null);
        assert!(
            delete.contains("backfill.delete('orders',\n    1000,"),
            "{delete}"
        );
    }

    #[test]
    fn a_verification_is_repeated_as_one() {
        let mut report = example();
        report.document["job"]["verifies"] = 3.into();
        report.document["job"]["name"] = serde_json::Value::Null;
        report.document["job"]["options"] = serde_json::json!({});
        report.document["settings"] = serde_json::json!({});
        assert_eq!(report.statement(), None);
        let clause = serde_json::json!({"check_clause": "a = 'b'", "recompute": false});
        report.document["check"] = clause;
        assert_eq!(
            report.statement().unwrap(),
            "SELECT backfill.verify(3,\n    check_clause => 'a = ''b''');"
        );
        assert_eq!(report.wanted().unwrap(), "a = 'b'");
        let recompute = serde_json::json!({"check_clause": null, "recompute": true});
        report.document["check"] = recompute;
        assert!(report.statement().unwrap().contains("recompute => true"));
    }
}
