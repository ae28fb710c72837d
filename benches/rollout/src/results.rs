//! The kept results: a table of one line for each cell, that later runs replace or add to.

use std::{fs, io, path::Path, time::Duration};

use crate::{
    cell::Cell,
    policy::Policy,
    router::Mode,
    server::SERVERS,
    tally::{Class, Tally},
};

/// What a cell came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub cell: Cell,
    pub tally: Tally,
    /// From the deletion to the end of the process, for each replica in its turn; in the file in milliseconds.
    pub gone: Vec<Duration>,
    /// How many of them the kubelet had to kill.
    pub killed: u64,
}

const REPLICAS: usize = crate::cell::REPLICAS;

impl Row {
    /// Mean seconds until a replica is gone.
    pub fn seconds(&self) -> f64 {
        let sum: Duration = self.gone.iter().sum();
        sum.as_secs_f64() / self.gone.len().max(1) as f64
    }

    pub fn to_line(&self) -> String {
        let Cell { server, mode, policy, delay } = &self.cell;
        let mut fields = vec![server.clone(), mode.name().into(), policy.name().into(), delay.as_secs().to_string()];
        fields.push(self.tally.requests.to_string());
        fields.extend(self.tally.failed.iter().map(ToString::to_string));
        fields.push(self.tally.on_closed.to_string());
        fields.extend(self.gone.iter().map(|gone| gone.as_millis().to_string()));
        fields.push(self.killed.to_string());
        fields.join("\t")
    }

    pub fn parse(line: &str) -> Option<Self> {
        let mut fields = line.trim_end().split('\t');
        let cell = Cell::parse(&[fields.next()?, fields.next()?, fields.next()?, fields.next()?])?;
        let mut number = || fields.next()?.parse::<u64>().ok();
        let mut tally = Tally { requests: number()?, ..Tally::default() };
        for count in &mut tally.failed {
            *count = number()?;
        }
        tally.on_closed = number()?;
        let gone = (0..REPLICAS).map(|_| number().map(Duration::from_millis)).collect::<Option<_>>()?;
        Some(Self { cell, tally, gone, killed: number()? })
    }
}

fn head() -> String {
    let mut fields = vec!["server", "mode", "policy", "late by s", "requests"];
    fields.extend(Class::ALL.map(Class::name));
    fields.push("on closed");
    let gone: Vec<String> = (1..=REPLICAS).map(|replica| format!("gone {replica} ms")).collect();
    fields.extend(gone.iter().map(String::as_str));
    fields.push("killed");
    fields.join("\t")
}

/// All rows, in the order in which they are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Results(pub Vec<Row>);

impl Results {
    /// None yet where there is no file.
    ///
    /// # Errors
    /// The file cannot be read, or has a line that is no result.
    pub fn load(file: &Path) -> Result<Self, String> {
        let text = match fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(format!("{}: {error}", file.display())),
        };
        Self::parse(&text).map_err(|line| format!("{}: no result: {line}", file.display()))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let rows = text.lines().skip(1).map(|line| Row::parse(line).ok_or_else(|| line.to_string()));
        rows.collect::<Result<_, _>>().map(Self)
    }

    fn to_text(&self) -> String {
        let lines = self.0.iter().map(Row::to_line);
        std::iter::once(head()).chain(lines).fold(String::new(), |text, line| text + &line + "\n")
    }

    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, file: &Path) -> Result<(), String> {
        fs::write(file, self.to_text()).map_err(|error| format!("{}: {error}", file.display()))
    }

    /// The new row replaces an older one of the same cell.
    pub fn merge(&mut self, row: Row) {
        self.0.retain(|other| other.cell != row.cell);
        self.0.push(row);
        self.0.sort_by_key(|row| {
            let Cell { server, mode, policy, delay } = &row.cell;
            let place = SERVERS.iter().position(|known| known.name == server).unwrap_or(SERVERS.len());
            (place, *mode, *policy, *delay)
        });
    }

    pub fn find(&self, server: &str, mode: Mode, policy: Policy, delay: Duration) -> Option<&Row> {
        let is_wanted =
            |cell: &Cell| cell.server == server && cell.mode == mode && cell.policy == policy && cell.delay == delay;
        self.0.iter().find(|row| is_wanted(&row.cell))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(policy: Policy, delay: u64, requests: u64) -> Row {
        let cell = Cell { server: "nginx".into(), mode: Mode::Http, policy, delay: Duration::from_secs(delay) };
        let tally = Tally { requests, failed: [0, 1, 2, 3, 4, 5, 6, 7, 8], on_closed: 9 };
        Row { cell, tally, gone: vec![Duration::from_millis(1234); REPLICAS], killed: 1 }
    }

    #[test]
    fn what_is_saved_is_read_again() {
        let results = Results(vec![row(Policy::NoHook, 0, 10), row(Policy::Boathook, 15, 20)]);
        assert_eq!(Results::parse(&results.to_text()), Ok(results));
        assert_eq!(Results::parse("head\nnginx\thttp\tnone"), Err("nginx\thttp\tnone".into()));
    }

    #[test]
    fn a_new_row_replaces_the_old_one_and_all_are_in_order() {
        let mut results = Results::default();
        for row in [row(Policy::Boathook, 3, 1), row(Policy::NoHook, 8, 2), row(Policy::NoHook, 0, 3)] {
            results.merge(row);
        }
        results.merge(row(Policy::NoHook, 8, 4));
        let requests: Vec<u64> = results.0.iter().map(|row| row.tally.requests).collect();
        assert_eq!(requests, [3, 4, 1]);
    }
}
