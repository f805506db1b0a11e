//! What a run came to for the peers, beside ours.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::measure::{Findings, Tally};
use crate::peers::{PEERS, Peer, Question};
use crate::report::{median, rounded, spread};

/// Microseconds of a processor by which two runs of the same differ.
const NOISE: f64 = 10.0;

/// One peer's figures beside ours; each ratio is theirs to ours.
struct Beside<'a> {
    peer: &'a Peer,
    tally: &'a Tally,
    wait: f64,
    /// Microseconds on a processor beyond what the language's runtime takes for nothing.
    own: f64,
    our_wait: f64,
    our_own: f64,
    start: f64,
    our_start: f64,
    memory: f64,
    our_memory: f64,
}

impl<'a> Beside<'a> {
    fn new(findings: &'a Findings, peer: &'a Peer) -> Option<Self> {
        let tally = findings.case(peer.name)?;
        let ours = findings.case(peer.question.ours())?;
        let work = |name: &str| findings.case(name).map_or(f64::NAN, Tally::processor_micros);
        let floor = if peer.question == Question::Nothing { 0.0 } else { work(peer.floor()) };
        let our_own = match peer.question {
            Question::Nothing => ours.processor_micros(),
            Question::Presign => findings.micros("presign a PUT, us of a processor"),
            _ => ours.processor_micros() - work(Question::Nothing.ours()),
        };
        let start = |name: &str| median(findings.starts.get(name));
        let program = peer.question.program();
        Some(Self {
            peer,
            tally,
            wait: median(Some(&tally.took)),
            own: tally.processor_micros() - floor,
            our_wait: median(Some(&ours.took)),
            our_own,
            start: start(peer.name),
            our_start: start(program),
            memory: findings.memory(peer.name),
            our_memory: findings.memory(program),
        })
    }

    fn json(&self, findings: &Findings) -> Value {
        let (peer, of) = (self.peer, |theirs: f64, ours: f64| rounded(theirs / ours));
        json!({"name": peer.name, "installed": true, "asked": peer.question.title(), "ours": peer.question.ours(),
            "our_program": peer.question.program(), "start_ms": rounded(self.start),
            "first_answer_ms": findings.firsts.get(peer.name).map(|firsts| rounded(median(Some(firsts)))),
            "peak_memory_mb": rounded(self.memory), "p50_us": rounded(self.wait), "own_processor_us": rounded(self.own),
            "our_p50_us": rounded(self.our_wait), "our_own_processor_us": rounded(self.our_own),
            "our_start_ms": rounded(self.our_start), "our_peak_memory_mb": rounded(self.our_memory),
            "to_ours": {"start": of(self.start, self.our_start), "memory": of(self.memory, self.our_memory),
                "wait": of(self.wait, self.our_wait), "own_processor": self.times().map(rounded)}})
    }

    /// How many times ours their own processor is; nothing where ours is less than the noise of a run.
    fn times(&self) -> Option<f64> {
        (self.our_own >= NOISE).then(|| self.own / self.our_own)
    }
}

/// The readable form.
pub(crate) fn table(findings: &Findings) -> String {
    let mut out = String::from(
        "\nbeside others, and theirs to ours     first poll          memory            wait [blocks]                    processor of its own\n",
    );
    let mut absent = Vec::new();
    for peer in &PEERS {
        let Some(one) = Beside::new(findings, peer) else {
            absent.push(peer.name);
            continue;
        };
        let (low, high) = spread(one.tally.blocks.iter().map(|block| block.p50), 0.0);
        let _ = writeln!(
            out,
            "  {:<24} {:>8.1} ms {:>6.1}x {:>6.1} MB {:>5.1}x {:>9.0} us [{low:.0}-{high:.0}] {:>7.1}x {:>9.0} us {:>8}",
            peer.name,
            one.start,
            one.start / one.our_start,
            one.memory,
            one.memory / one.our_memory,
            one.wait,
            one.wait / one.our_wait,
            one.own,
            one.times().map_or_else(|| "-".to_owned(), |times| format!("{times:.1}x")),
        );
    }
    if !absent.is_empty() {
        let _ = writeln!(out, "  not installed, and not measured: {} (scripts/need-peers)", absent.join(", "));
    }
    out
}

/// The form for programs.
pub(crate) fn json(findings: &Findings) -> Value {
    let one = |peer: &Peer| {
        let absent = || json!({"name": peer.name, "installed": false});
        Beside::new(findings, peer).map_or_else(absent, |one| one.json(findings))
    };
    PEERS.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Block;

    #[test]
    fn a_peer_that_is_not_installed_is_named_and_has_no_figures() {
        let findings = Findings::default();
        let table = table(&findings);
        for peer in &PEERS {
            assert!(table.contains(peer.name));
        }
        let json = json(&findings);
        assert_eq!(json.as_array().unwrap().len(), PEERS.len());
        assert!(json.as_array().unwrap().iter().all(|one| one["installed"] == false && one["p50_us"].is_null()));
    }

    #[test]
    fn what_a_language_takes_for_nothing_is_not_counted_as_its_own() {
        let tally = |micros: f64| Tally {
            took: vec![micros],
            processor: (micros * 1e3) as u64,
            calls: 1,
            blocks: vec![Block { p50: micros, processor: micros }],
            ..Tally::default()
        };
        let cases =
            [("floor", 100.0), ("authorizer, new token", 150.0), ("php-floor", 200.0), ("php-authorizer", 500.0)];
        let findings =
            Findings { cases: cases.map(|(name, micros)| (name, tally(micros))).into(), ..Findings::default() };
        let json = json(&findings);
        let php = json.as_array().unwrap().iter().find(|one| one["name"] == "php-authorizer").unwrap();
        assert_eq!((&php["own_processor_us"], &php["our_own_processor_us"]), (&json!(300.0), &json!(50.0)));
        assert_eq!(php["to_ours"]["own_processor"], 6.0);
        assert_eq!(php["to_ours"]["wait"], json!(3.33));
    }

    #[test]
    fn nothing_is_a_multiple_of_what_cannot_be_measured() {
        let one = |our_own: f64| Beside {
            peer: &PEERS[0],
            tally: Box::leak(Box::default()),
            own: 400.0,
            wait: 1.0,
            our_wait: 1.0,
            our_own,
            start: 1.0,
            our_start: 1.0,
            memory: 1.0,
            our_memory: 1.0,
        };
        assert_eq!((one(-6.0).times(), one(0.0).times(), one(9.9).times()), (None, None, None));
        assert_eq!(one(40.0).times(), Some(10.0));
    }
}
