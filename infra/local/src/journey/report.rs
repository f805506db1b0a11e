//! The table that the journey prints, row by row as it goes.

use std::io::Write as _;
use std::time::Instant;

/// One step: what was tried, what had to come, what came.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was tried.
    pub step: String,
    /// What had to come.
    pub want: String,
    /// What came.
    pub got: String,
    /// Whether it is what had to come.
    pub ok: bool,
}

/// Gathers the rows.
pub struct Report {
    rows: Vec<Row>,
    print: bool,
    since: Instant,
}

impl Report {
    /// An empty report; with `print` each row is shown when it is known.
    pub fn new(print: bool) -> Self {
        Self { rows: Vec::new(), print, since: Instant::now() }
    }

    /// A headline.
    pub fn part(&mut self, title: &str) {
        self.show(&format!("\n{title}\n"));
    }

    /// A line between the rows.
    pub fn remark(&mut self, text: &str) {
        self.show(&format!("          {text}\n"));
    }

    /// A row that holds when `got` is `want`.
    pub fn row(&mut self, step: &str, want: impl Into<String>, got: impl Into<String>) {
        let (want, got) = (want.into(), got.into());
        let ok = want == got;
        let millis = self.since.elapsed().as_millis();
        let mark = if ok { "ok  " } else { "FAIL" };
        let outcome = if ok { got.clone() } else { format!("wanted {want}, got {got}") };
        self.show(&format!("  {mark} {millis:>5} ms  {step:<62} {outcome}\n"));
        self.rows.push(Row { step: step.to_owned(), want, got, ok });
        self.since = Instant::now();
    }

    /// A row that holds when `ok`.
    pub fn check(&mut self, step: &str, ok: bool, want: &str, got: impl Into<String>) {
        self.row(step, want, if ok { want.to_owned() } else { got.into() });
    }

    /// All rows.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Those that do not hold.
    pub fn failures(&self) -> Vec<&Row> {
        self.rows.iter().filter(|row| !row.ok).collect()
    }

    fn show(&self, text: &str) {
        if self.print {
            let mut out = std::io::stdout().lock();
            let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        }
    }
}
