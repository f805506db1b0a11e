//! From findings to a table, a JSON file and a verdict.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::measure::{BARE, FLOOR, Findings, SIGNING, Tally};

/// What is checked: one figure and what it may be.
struct Line {
    what: String,
    found: f64,
    goal: f64,
    allow: f64,
}

/// What one case came to that ran by itself: no ratio, for nothing ran beside it.
pub(crate) fn alone(name: &str, tally: &Tally) -> String {
    let (p50, processor) = (median(Some(&tally.took)), tally.processor_micros());
    format!("  {name}: {} calls, p50 {p50:.0} us, processor {processor:.0} us\n", tally.calls)
}

/// Everything a run came to.
pub(crate) struct Report {
    findings: Findings,
    lines: Vec<Line>,
    wrong_counts: Vec<String>,
}

impl Report {
    /// Holds the findings against the budgets.
    pub(crate) fn new(findings: Findings, budgets: &Value) -> Self {
        let mut lines = Vec::new();
        for (program, budget) in members(&budgets["start"]) {
            lines.push(Line::new(format!("{program}: start-up over the floor"), findings.start(program), budget));
        }
        for (program, budget) in members(&budgets["memory_mb"]) {
            lines.push(Line::new(format!("{program}: peak memory, MB"), findings.memory(program), budget));
        }
        for (name, budget) in members(&budgets["ratios"]) {
            lines.push(Line::new(name.to_owned(), findings.ratio(name), budget));
        }
        for (name, budget) in members(&budgets["micros"]) {
            lines.push(Line::new(name.to_owned(), findings.micros(name), budget));
        }
        let mut wrong_counts = Vec::new();
        for (name, wanted) in members(&budgets["calls"]) {
            let found = findings.case(name).map(per_call).unwrap_or_default();
            if !keeps(&found, wanted) {
                wrong_counts.push(format!("{name}: calls to the outside are {found}, not {wanted}"));
            }
        }
        Self { findings, lines, wrong_counts }
    }

    /// Whether everything is within what the budgets allow.
    pub(crate) fn holds(&self) -> bool {
        self.wrong_counts.is_empty() && self.lines.iter().all(|line| line.found <= line.allow)
    }

    /// The readable form.
    pub(crate) fn table(&self) -> String {
        let mut out = String::new();
        let findings = &self.findings;
        let _ = writeln!(out, "\nstart-up, memory                first poll    first answer       memory");
        for name in findings.starts.keys() {
            let start = median(findings.starts.get(name));
            let _ = write!(out, "  {name:<20} {start:>7.2} ms {:>6.2}x", findings.start(name));
            match findings.firsts.get(name) {
                Some(firsts) => {
                    let _ = write!(out, " {:>10.1} ms", median(Some(firsts)));
                    let _ = writeln!(out, " {:>9.1} MB", findings.memory(name));
                }
                None => out.push('\n'),
            }
        }
        let _ = writeln!(
            out,
            "\nwarm calls                               p50       p99   over floor   processor   over floor   s3 kms sts ssm db"
        );
        for (name, tally) in &findings.cases {
            let (p50, processor) = (median(Some(&tally.took)), tally.processor_micros());
            let floor = findings.case(FLOOR);
            let over = p50 / floor.map_or(f64::NAN, |floor| median(Some(&floor.took)));
            let burden = processor / floor.map_or(f64::NAN, Tally::processor_micros);
            let calls = per_call(tally);
            let _ = writeln!(
                out,
                "  {name:<31} {p50:>8.0} us {:>6.0} us {over:>10.2}x {processor:>8.0} us {burden:>11.2}x   {:>2} {:>3} {:>3} {:>3} {:>2}",
                quantile(&tally.took, 0.99),
                calls["s3"],
                calls["kms"],
                calls["sts"],
                calls["ssm"],
                calls["round_trips"],
            );
        }
        let bare = median(Some(&findings.bare_field));
        let _ = writeln!(out, "  one field of 64 bytes, the bare cryptography: {bare:.2} us");
        let signature = median(Some(&findings.bare_signature));
        let _ = writeln!(out, "  one signature of a token within the process, bare: {signature:.0} us");
        let round_trip = median(Some(&findings.bare_round_trip));
        let _ = writeln!(out, "  one round trip to the database, bare, processor: {round_trip:.0} us");
        let _ = writeln!(out, "\ngoals                                                          found     goal");
        for line in &self.lines {
            let verdict = if line.found <= line.goal {
                "met"
            } else if line.found <= line.allow {
                "MISSED, as known"
            } else {
                "MISSED"
            };
            let _ = writeln!(out, "  {:<58} {:>8.2} {:>8.2}   {verdict}", line.what, line.found, line.goal);
        }
        for wrong in &self.wrong_counts {
            let _ = writeln!(out, "  {wrong}   MISSED");
        }
        if self.wrong_counts.is_empty() {
            out.push_str("  calls to the outside per warm call: as in the budgets      met\n");
        }
        out
    }

    /// The form for programs.
    pub(crate) fn json(&self) -> Value {
        let findings = &self.findings;
        let programs: Map<String, Value> = findings
            .starts
            .iter()
            .map(|(name, starts)| {
                let program = json!({"start_ms": rounded(median(Some(starts))), "start_over_floor": rounded(findings.start(name)),
                    "first_answer_ms": findings.firsts.get(name).map(|firsts| rounded(median(Some(firsts)))),
                    "peak_memory_mb": findings.memory.get(name).map(|_| rounded(findings.memory(name)))});
                ((*name).to_owned(), program)
            })
            .collect();
        let cases: Map<String, Value> = findings
            .cases
            .iter()
            .map(|(name, tally)| {
                let case = json!({"p50_us": rounded(median(Some(&tally.took))), "p99_us": rounded(quantile(&tally.took, 0.99)),
                    "processor_us": rounded(tally.processor_micros()), "calls": tally.calls, "outside": per_call(tally)});
                ((*name).to_owned(), case)
            })
            .collect();
        let goals: Vec<Value> = self
            .lines
            .iter()
            .map(|line| {
                json!({"what": line.what, "found": rounded(line.found), "goal": line.goal, "allow": line.allow,
                    "met": line.found <= line.goal})
            })
            .collect();
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        json!({"machine": format!("{cores} cores, {}", std::env::consts::ARCH), "programs": programs, "cases": cases,
            "bare_field_us": rounded(median(Some(&findings.bare_field))),
            "bare_signature_us": rounded(median(Some(&findings.bare_signature))),
            "bare_round_trip_us": rounded(median(Some(&findings.bare_round_trip))), "goals": goals,
            "wrong_counts": self.wrong_counts})
    }
}

impl Line {
    fn new(what: String, found: f64, budget: &Value) -> Self {
        let goal = budget["goal"].as_f64().unwrap_or(0.0);
        Self { what, found, goal, allow: budget["allow"].as_f64().unwrap_or(goal) }
    }
}

impl Findings {
    fn case(&self, name: &str) -> Option<&Tally> {
        self.cases.iter().find(|(case, _)| *case == name).map(|(_, tally)| tally)
    }

    fn start(&self, program: &str) -> f64 {
        median(self.starts.get(program)) / median(self.starts.get(FLOOR))
    }

    fn memory(&self, program: &str) -> f64 {
        self.memory.get(program).map_or(f64::NAN, |kibibytes| *kibibytes as f64 / 1024.0)
    }

    /// The ratios that the design sets goals for. A name that is not known here is a budget that no run can hold.
    fn ratio(&self, name: &str) -> f64 {
        let wait = |case: &str| self.case(case).map_or(f64::NAN, |tally| median(Some(&tally.took)));
        let work = |case: &str| self.case(case).map_or(f64::NAN, Tally::processor_micros);
        let case = |name: &str| if name == "bare RS256" { BARE.to_owned() } else { name.to_owned() };
        let pair = |by: &str| {
            let (one, other) = name.split_once(by)?;
            let other = case(other);
            (self.case(one).is_some() && self.case(&other).is_some()).then_some((one, other))
        };
        if let Some((one, other)) = pair(": wait over ") {
            return wait(one) / wait(&other);
        }
        if let Some((one, other)) = pair(": processor over ") {
            return work(one) / work(&other);
        }
        match name {
            "encrypt 1,000: processor over the bare cryptography" => {
                work("encrypt 1,000") / 1_000.0 / median(Some(&self.bare_field))
            }
            "decrypt 1,000: processor over the bare cryptography" => {
                work("decrypt 1,000") / 1_000.0 / median(Some(&self.bare_field))
            }
            // 100,000 fields in a second of one core: the one goal that is no ratio.
            "encrypt 1,000: processor, us a field" => work("encrypt 1,000") / 1_000.0,
            "decrypt 1,000: processor, us a field" => work("decrypt 1,000") / 1_000.0,
            // Twice as many fields cost twice as much, and not more.
            "encrypt: the second 500 fields over the first" => {
                (work("encrypt 1,000") - work("encrypt 500")) / (work("encrypt 500") - work("encrypt 1"))
            }
            "presign (content - metadata): processor over bare RS256" => {
                (work("download, content") - work("download, metadata")) / work(BARE)
            }
            _ => f64::NAN,
        }
    }

    /// Microseconds of a processor. Signing a URL is what it takes beyond a warm call of one database round trip that signs nothing: gate,
    /// round trip and a small answer are in both.
    fn micros(&self, name: &str) -> f64 {
        let work = |case: &str| self.case(case).map_or(f64::NAN, Tally::processor_micros);
        let beyond = |case: &str| work(case) - work("download, metadata");
        match name {
            "presign a PUT, us of a processor" => beyond("upload"),
            "presign a form, us of a processor" => beyond("upload, form"),
            "plan 10,000 parts, us of a processor" => beyond("upload, plan of 10,000 parts"),
            "presign a part among 500, us of a processor" => beyond("upload, 500 part URLs") / 500.0,
            "presign a GET, us of a processor" => beyond("download, content"),
            // What the token function itself does: without the runtime's share, the signature, and a round trip to the database.
            "token (SSM): own work, us of a processor" => {
                let outside = median(Some(&self.bare_signature)) + median(Some(&self.bare_round_trip));
                work(SIGNING) - work(FLOOR) - outside
            }
            _ => f64::NAN,
        }
    }
}

impl Tally {
    fn processor_micros(&self) -> f64 {
        self.processor as f64 / 1e3 / self.calls.max(1) as f64
    }
}

/// Calls to the outside for one call; whole numbers where it comes out even.
fn per_call(tally: &Tally) -> Value {
    let each = |count: u64| {
        let calls = tally.calls.max(1);
        if count.is_multiple_of(calls) { json!(count / calls) } else { json!(rounded(count as f64 / calls as f64)) }
    };
    let outside = &tally.outside;
    json!({"s3": each(outside.s3), "kms": each(outside.kms), "sts": each(outside.sts), "ssm": each(outside.ssm),
        "round_trips": each(outside.round_trips)})
}

/// Whole numbers must be met exactly; a broken one is the most that calls may cost on the average.
fn keeps(found: &Value, wanted: &Value) -> bool {
    members(wanted).all(|(service, wanted)| match wanted.as_u64() {
        Some(_) => found[service] == *wanted,
        None => found[service].as_f64().zip(wanted.as_f64()).is_some_and(|(found, most)| found <= most),
    })
}

fn members(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}

fn median(values: Option<&Vec<f64>>) -> f64 {
    values.map_or(f64::NAN, |values| quantile(values, 0.5))
}

fn quantile(values: &[f64], at: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = (sorted.len().saturating_sub(1) as f64 * at).round();
    sorted.get(place as usize).copied().unwrap_or(f64::NAN)
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Outside;

    #[test]
    fn a_quantile_is_a_value_that_was_measured() {
        let values = [5.0, 1.0, 3.0, 2.0, 4.0];
        assert_eq!((quantile(&values, 0.5), quantile(&values, 0.99), quantile(&values, 0.0)), (3.0, 5.0, 1.0));
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn a_goal_that_nothing_was_measured_for_is_not_held() {
        let budgets = json!({"ratios": {"nobody knows this": {"goal": 1000.0}}});
        assert!(!Report::new(Findings::default(), &budgets).holds());
        let budgets = json!({"calls": {"nobody": {"s3": 0, "kms": 0, "sts": 0, "round_trips": 0}}});
        assert!(!Report::new(Findings::default(), &budgets).holds());
    }

    #[test]
    fn counts_must_be_exact() {
        let tally = |kms| Tally { calls: 10, outside: Outside { kms, ..Outside::default() }, ..Tally::default() };
        for (wanted, kms, holds) in [
            (json!(1), 10, true),
            (json!(1), 9, false),
            (json!(1), 11, false),
            (json!(1), 20, false),
            (json!(1.1), 11, true),
            (json!(1.1), 12, false),
        ] {
            let budgets = json!({"calls": {"token": {"s3": 0, "kms": wanted, "sts": 0, "round_trips": 0}}});
            let findings = Findings { cases: vec![("token", tally(kms))], ..Findings::default() };
            assert_eq!(Report::new(findings, &budgets).holds(), holds, "{kms}");
        }
    }

    #[test]
    fn the_budgets_name_only_what_is_measured() {
        let budgets: Value = serde_json::from_str(crate::BUDGETS).unwrap();
        let mut found: Vec<&str> = members(&budgets).map(|(name, _)| name).collect();
        found.sort_unstable();
        assert_eq!(found, ["calls", "memory_mb", "micros", "ratios", "start"]);
        for part in ["memory_mb", "micros", "ratios", "start"] {
            for (name, budget) in members(&budgets[part]) {
                let (goal, allow) = (budget["goal"].as_f64().unwrap(), budget["allow"].as_f64());
                assert!(allow.is_none_or(|allow| allow > goal), "{name}: what is allowed is more than the goal");
            }
        }
    }
}
