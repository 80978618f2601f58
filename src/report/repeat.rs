//! How to do the same again.

use super::model::Report;
use super::words::plain;
use crate::plan::sql::literal;

impl Report {
    /// What does the same again: the settings that the clauses were written under, and the call.
    pub fn statement(&self) -> String {
        let settings = self.document["settings"].as_object().into_iter().flatten();
        let settings: Vec<String> = settings
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
        lines.push(self.call());
        lines.join("\n")
    }

    fn call(&self) -> String {
        let mut arguments = vec![
            literal(&self.text("relation")),
            self.text("batch_size"),
            self.text("sleep_ms"),
            format!("set_clause => {}", literal(&self.text("set_clause"))),
        ];
        for (name, field) in [("where_clause", "where_clause"), ("name", "name")] {
            let value = self.text(field);
            if !value.is_empty() {
                arguments.push(format!("{name} => {}", literal(&value)));
            }
        }
        let options = self.job("options");
        if options
            .as_object()
            .is_some_and(|options| !options.is_empty())
        {
            arguments.push(format!("options => {}", literal(&options.to_string())));
        }
        format!("SELECT backfill.start({});", arguments.join(",\n    "))
    }
}

#[cfg(test)]
mod tests {
    use super::super::example::example;

    #[test]
    fn the_call_can_be_pasted() {
        assert_eq!(
            example().statement(),
            "SELECT set_config('search_path', '\"$user\", public', false);\nSELECT backfill.start('orders',\n    1000,\n    5,\n    set_clause => 'a = ''it''''s''',\n    where_clause => 'a IS NULL',\n    name => '<b>rates</b> | x',\n    options => '{\"workers\":2}');"
        );
    }
}
