//! Faults in words, as they stand in `make dev FAULTS=…`.
//!
//! ```text
//! faults  = [ rule *( ";" rule ) ]                         a line's end is a ";" too, and "#" begins a comment
//! rule    = place SP kind *( SP option )
//! place   = "*" / service [ "." operation ]                kms.Decrypt, s3.GetObject, sts, * (kms, ssm, sts and s3)
//!         / "db" [ "." user ]                              db.upload
//!         / "function" [ "." deployment ]                  function.data-key-encrypt
//!         / "gateway" / "clock"
//! service = "kms" / "ssm" / "sts" / "s3"
//! kind    = "throttle"                                     services, functions: refused as too many calls
//!         / "5xx"                                          services: an internal error of theirs
//!         / "expired"                                      services, db: the caller's credentials have ended
//!         / "reset"                                        services, gateway: the connection ends before anything was done
//!         / "lost"                                         services, db, gateway: it is done, and the connection ends without an answer
//!         / "hang"                                         services, db: no answer, for two minutes at most
//!         / "wrong"                                        services: one letter or digit of the answer's body is another one
//!         / "cut"                                          services: half of the answer's body is missing
//!         / "latency=" time [ ".." time ]                  services, db, functions, gateway: waits first; between the two by chance
//!         / "stale=" time                                  services: a read is answered as it was answered up to so long ago
//!         / "refuse"                                       db: a new connection is closed before it is let in
//!         / "borrow"                                       db: the proxy has no database connection for the statement, as after its timeout
//!         / "failover"                                     db: every open connection is cut, where the statement would have been sent
//!         / "crash"                                        functions: the process is killed with the event in its hands
//!         / "skew=" [ "+" / "-" ] time                     clock: the services' clock against the functions'
//! option  = number "%"                                     by chance; 100% when nothing is said. Up to four decimals
//!         / "every=" count                                 every so many that fit the place
//!         / "first=" count                                 no more after so many were struck
//!         / "after=" time / "for=" time                    not before, and not longer than; from when the rules were set
//! time    = number ( "ms" / "s" / "m" / "h" )
//! ```
//!
//! What cannot be (a `failover` of S3, a `clock` with `every=`) is an error of its place, as is everything that is not understood.

use std::fmt;
use std::time::Duration;

/// The longest text, in bytes.
const LONGEST: usize = 16 * 1024;
/// The most rules.
const MOST: usize = 64;
/// The longest time, a year: nothing overflows.
const LONGEST_TIME: u64 = 365 * 24 * 3_600 * 1_000;

/// Why a text is no list of faults. Its words are stable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The character at which it is wrong, from 1.
    pub at: usize,
    /// What is.
    pub what: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "faults, character {}: {}", self.at, self.what)
    }
}

impl std::error::Error for Wrong {}

/// Where a rule holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// `kms`, `ssm`, `sts`, `s3`, `db`, `function`, `gateway`, `clock`, or `*` for the first four.
    pub service: &'static str,
    /// The one operation, database user or deployment; all of them where there is none.
    pub name: Option<String>,
}

impl Place {
    /// Whether this is the place of a call.
    #[must_use]
    pub fn holds(&self, service: &str, name: &str) -> bool {
        let of_service = self.service == service || self.service == "*" && SERVICES.contains(&service);
        of_service && self.name.as_deref().is_none_or(|own| own.eq_ignore_ascii_case(name))
    }
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Refused as too many calls.
    Throttle,
    /// An internal error of the service.
    Unavailable,
    /// As if the caller's session had ended.
    Expired,
    /// The connection ends before anything was done.
    Reset,
    /// It is done and the connection ends.
    Lost,
    /// No answer.
    Hang,
    /// A sign of the answer is another one.
    Wrong,
    /// Half of the answer is missing.
    Cut,
    /// Waits between these two first.
    Latency(Duration, Duration),
    /// A read is answered as it was answered at most so long ago.
    Stale(Duration),
    /// A new connection is closed.
    Refuse,
    /// No database connection was free within the proxy's time.
    Borrow,
    /// All connections are cut.
    Failover,
    /// The process is killed.
    Crash,
    /// Milliseconds by which the services' clock is ahead.
    Skew(i64),
}

/// When a rule strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct When {
    /// Parts of a million.
    pub chance: u32,
    /// Every so many.
    pub every: u64,
    /// No more than so many.
    pub first: u64,
    /// Not before.
    pub after: Duration,
    /// Not longer than.
    pub lasts: Option<Duration>,
}

impl Default for When {
    fn default() -> Self {
        Self { chance: 1_000_000, every: 1, first: u64::MAX, after: Duration::ZERO, lasts: None }
    }
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// As it was written, with single spaces.
    pub source: String,
    /// Where.
    pub place: Place,
    /// What.
    pub kind: Kind,
    /// When.
    pub when: When,
}

const SERVICES: [&str; 4] = ["kms", "ssm", "sts", "s3"];
const OF_SERVICES: &[&str] =
    &["throttle", "5xx", "expired", "reset", "lost", "hang", "wrong", "cut", "latency", "stale"];
const PLACES: [(&str, &[&str]); 9] = [
    ("kms", OF_SERVICES),
    ("ssm", OF_SERVICES),
    ("sts", OF_SERVICES),
    ("s3", OF_SERVICES),
    ("*", OF_SERVICES),
    ("db", &["expired", "lost", "hang", "latency", "refuse", "borrow", "failover"]),
    ("function", &["throttle", "latency", "crash"]),
    ("gateway", &["reset", "lost", "latency"]),
    ("clock", &["skew"]),
];

/// A word and the character at which it begins, from 1.
type Word<'a> = (usize, &'a str);

/// Reads rules.
///
/// # Errors
/// The first thing that is wrong, and where.
pub fn read(text: &str) -> Result<Vec<Rule>, Wrong> {
    if text.len() > LONGEST {
        return Err(Wrong { at: 1, what: format!("longer than {LONGEST} bytes") });
    }
    let mut rules = Vec::new();
    for words in sentences(text) {
        if let Some((first, rest)) = words.split_first() {
            if rules.len() == MOST {
                return Err(wrong(*first, format!("more than {MOST} rules")));
            }
            rules.push(rule(*first, rest)?);
        }
    }
    Ok(rules)
}

/// The words of each rule.
fn sentences(text: &str) -> Vec<Vec<Word<'_>>> {
    let (mut sentences, mut words, mut begun, mut comment) = (Vec::new(), Vec::new(), None, false);
    for (at, (byte, sign)) in text.char_indices().chain([(text.len(), '\n')]).enumerate() {
        let ends = sign == '\n' || sign == ';' && !comment;
        comment = sign != '\n' && (comment || sign == '#');
        if comment || ends || sign.is_whitespace() {
            if let Some((at, from)) = begun.take() {
                words.push((at, text.get(from..byte).unwrap_or_default()));
            }
        } else if begun.is_none() {
            begun = Some((at + 1, byte));
        }
        if ends {
            sentences.push(std::mem::take(&mut words));
        }
    }
    sentences
}

fn rule(first: Word<'_>, rest: &[Word<'_>]) -> Result<Rule, Wrong> {
    let (place, kinds) = place(first)?;
    let Some((second, options)) = rest.split_first() else {
        let (at, word) = first;
        return Err(wrong((at + word.chars().count(), ""), format!("wanted what happens there: {}", kinds.join(", "))));
    };
    let kind = kind(*second, &place, kinds)?;
    let (mut when, mut given) = (When::default(), Vec::new());
    for option in options {
        let name = set(&mut when, *option)?;
        if given.contains(&name) {
            return Err(wrong(*option, format!("{name} a second time")));
        }
        if place.service == "clock" && !["after", "for"].contains(&name) {
            return Err(wrong(*option, "a clock knows after= and for= only".to_owned()));
        }
        given.push(name);
    }
    let words = [first, *second].into_iter().chain(options.iter().copied());
    let source = words.map(|(_, word)| word).collect::<Vec<_>>().join(" ");
    Ok(Rule { source, place, kind, when })
}

fn place(word: Word<'_>) -> Result<(Place, &'static [&'static str]), Wrong> {
    let (service, name) = word.1.split_once('.').map_or((word.1, None), |(service, name)| (service, Some(name)));
    let Some((service, kinds)) = PLACES.into_iter().find(|(known, _)| *known == service) else {
        let known = PLACES.map(|(known, _)| known).join(", ");
        return Err(wrong(word, format!("{} is no place; wanted one of {known}", quoted(service))));
    };
    let plain = |name: &str| {
        !name.is_empty()
            && name.len() <= 64
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    if let Some(name) = name.filter(|name| ["*", "gateway", "clock"].contains(&service) || !plain(name)) {
        return Err(wrong(word, format!("{service} has no part named {}", quoted(name))));
    }
    Ok((Place { service, name: name.map(str::to_owned) }, kinds))
}

fn kind(word: Word<'_>, place: &Place, kinds: &[&str]) -> Result<Kind, Wrong> {
    let (name, value) = word.1.split_once('=').map_or((word.1, None), |(name, value)| (name, Some(value)));
    if !kinds.contains(&name) {
        let wanted = kinds.join(", ");
        return Err(wrong(
            word,
            format!("{} does not happen to {}; wanted one of {wanted}", quoted(name), place.service),
        ));
    }
    let valued = ["latency", "stale", "skew"].contains(&name);
    let value = match (valued, value) {
        (true, Some(value)) => (word.0 + name.chars().count() + 1, value),
        (false, None) => (word.0, ""),
        (true, None) => return Err(wrong(word, format!("{name} needs a time: {name}=200ms"))),
        (false, Some(_)) => return Err(wrong(word, format!("{name} takes no value"))),
    };
    Ok(match name {
        "throttle" => Kind::Throttle,
        "5xx" => Kind::Unavailable,
        "expired" => Kind::Expired,
        "reset" => Kind::Reset,
        "lost" => Kind::Lost,
        "hang" => Kind::Hang,
        "wrong" => Kind::Wrong,
        "cut" => Kind::Cut,
        "refuse" => Kind::Refuse,
        "borrow" => Kind::Borrow,
        "failover" => Kind::Failover,
        "crash" => Kind::Crash,
        "stale" => Kind::Stale(time(value)?),
        "skew" => skew(value)?,
        _ => latency(value)?,
    })
}

fn latency((at, value): Word<'_>) -> Result<Kind, Wrong> {
    let Some((least, most)) = value.split_once("..") else {
        let exact = time((at, value))?;
        return Ok(Kind::Latency(exact, exact));
    };
    let (least, most) = (time((at, least))?, time((at + least.chars().count() + 2, most))?);
    if least > most {
        return Err(wrong((at, value), "the first time is longer than the second".to_owned()));
    }
    Ok(Kind::Latency(least, most))
}

fn skew((at, value): Word<'_>) -> Result<Kind, Wrong> {
    let (behind, rest) = match value.split_at_checked(1) {
        Some(("-", rest)) => (true, (at + 1, rest)),
        Some(("+", rest)) => (false, (at + 1, rest)),
        _ => (false, (at, value)),
    };
    let ahead = i64::try_from(time(rest)?.as_millis()).unwrap_or(i64::MAX);
    Ok(Kind::Skew(if behind { -ahead } else { ahead }))
}

/// Sets one option and answers its name.
fn set(when: &mut When, word: Word<'_>) -> Result<&'static str, Wrong> {
    if let Some(number) = word.1.strip_suffix('%') {
        when.chance = percent((word.0, number))?;
        return Ok("%");
    }
    let (name, value) = word.1.split_once('=').unwrap_or((word.1, ""));
    let value = (word.0 + name.chars().count() + 1, value);
    match name {
        "every" => when.every = count(value)?,
        "first" => when.first = count(value)?,
        "after" => when.after = time(value)?,
        "for" => when.lasts = Some(time(value)?),
        _ => {
            return Err(wrong(
                word,
                format!("{} is no option; wanted N%, every=N, first=N, after=TIME or for=TIME", quoted(word.1)),
            ));
        }
    }
    Ok(match name {
        "every" => "every",
        "first" => "first",
        "after" => "after",
        _ => "for",
    })
}

fn percent(word: Word<'_>) -> Result<u32, Wrong> {
    let (whole, decimals) = word.1.split_once('.').map_or((word.1, "0"), |(whole, decimals)| (whole, decimals));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let fits = digits(whole) && whole.len() <= 3 && digits(decimals) && decimals.len() <= 4;
    let millionths = || -> Option<u32> {
        let fraction: u32 = format!("{decimals:0<4}").parse().ok()?;
        whole.parse::<u32>().ok()?.checked_mul(10_000)?.checked_add(fraction)
    };
    let chance = if fits { millionths() } else { None };
    chance.filter(|chance| (1..=1_000_000).contains(chance)).ok_or_else(|| {
        wrong(
            word,
            format!(
                "{} is no chance; wanted more than 0 % and at most 100 %, with up to four decimals",
                quoted(word.1)
            ),
        )
    })
}

fn count(word: Word<'_>) -> Result<u64, Wrong> {
    let number = word.1.bytes().all(|byte| byte.is_ascii_digit()).then(|| word.1.parse().ok()).flatten();
    number
        .filter(|number| (1..=1_000_000_000).contains(number))
        .ok_or_else(|| wrong(word, format!("{} is no count; wanted 1 to 1000000000", quoted(word.1))))
}

fn time(word: Word<'_>) -> Result<Duration, Wrong> {
    let split = word.1.find(|sign: char| !sign.is_ascii_digit()).unwrap_or(word.1.len());
    let (number, unit) = word.1.split_at(split);
    let factor = match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    let millis = factor.and_then(|factor: u64| number.parse::<u64>().ok()?.checked_mul(factor));
    let millis = millis.filter(|millis| (1..=LONGEST_TIME).contains(millis));
    let millis = millis
        .ok_or_else(|| wrong(word, format!("{} is no time; wanted such as 200ms, 5s, 3m or 1h", quoted(word.1))))?;
    Ok(Duration::from_millis(millis))
}

fn wrong((at, _): Word<'_>, what: String) -> Wrong {
    Wrong { at, what }
}

/// A piece of the text, as an error may show it.
fn quoted(text: &str) -> String {
    let short: String = text.chars().take(40).collect();
    format!("{short:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Rule {
        let mut rules = read(text).unwrap();
        assert_eq!(rules.len(), 1, "{text}");
        rules.remove(0)
    }

    #[test]
    fn rules_are_read_as_they_are_meant() {
        let when = When::default();
        let place = |service, name: Option<&str>| Place { service, name: name.map(str::to_owned) };
        let ms = Duration::from_millis;
        for (text, wanted, kind, at) in [
            (
                "kms.Decrypt throttle 10%",
                place("kms", Some("Decrypt")),
                Kind::Throttle,
                When { chance: 100_000, ..when },
            ),
            ("* 5xx 0.25%", place("*", None), Kind::Unavailable, When { chance: 2_500, ..when }),
            (
                "s3 latency=200ms every=3 for=30s",
                place("s3", None),
                Kind::Latency(ms(200), ms(200)),
                When { every: 3, lasts: Some(ms(30_000)), ..when },
            ),
            ("db latency=1s..2m", place("db", None), Kind::Latency(ms(1_000), ms(120_000)), when),
            (
                "db.data_key_encrypt failover every=50 first=2",
                place("db", Some("data_key_encrypt")),
                Kind::Failover,
                When { every: 50, first: 2, ..when },
            ),
            ("clock skew=-4m after=1s", place("clock", None), Kind::Skew(-240_000), When { after: ms(1_000), ..when }),
            ("clock skew=+4m", place("clock", None), Kind::Skew(240_000), when),
            ("ssm stale=10s", place("ssm", None), Kind::Stale(ms(10_000)), when),
            (
                "function.data-key-encrypt crash first=1",
                place("function", Some("data-key-encrypt")),
                Kind::Crash,
                When { first: 1, ..when },
            ),
        ] {
            assert_eq!(one(text), Rule { source: text.to_owned(), place: wanted, kind, when: at }, "{text}");
        }
        let many = read(" \n# nothing; here\nkms   reset ;; s3 cut 1% # both\n;db refuse").unwrap();
        let sources: Vec<_> = many.iter().map(|rule| rule.source.as_str()).collect();
        assert_eq!(sources, ["kms reset", "s3 cut 1%", "db refuse"]);
        assert_eq!(read("").unwrap(), []);
    }

    #[test]
    fn a_star_is_the_services_of_aws_and_nothing_else() {
        let place = one("* reset").place;
        assert!(place.holds("kms", "Sign") && place.holds("s3", "GetObject"));
        assert!(!place.holds("db", "upload") && !place.holds("gateway", ""));
        let place = one("kms.decrypt reset").place;
        assert!(place.holds("kms", "Decrypt") && !place.holds("kms", "Encrypt") && !place.holds("ssm", "Decrypt"));
    }

    #[test]
    fn what_is_not_understood_is_named_with_its_place() {
        for (text, message) in [
            (
                "kmz throttle",
                r#"faults, character 1: "kmz" is no place; wanted one of kms, ssm, sts, s3, *, db, function, gateway, clock"#,
            ),
            (
                "kms throttle; kms trottle",
                r#"faults, character 19: "trottle" does not happen to kms; wanted one of throttle, 5xx, expired, reset, lost, hang, wrong, cut, latency, stale"#,
            ),
            (
                "s3 failover",
                r#"faults, character 4: "failover" does not happen to s3; wanted one of throttle, 5xx, expired, reset, lost, hang, wrong, cut, latency, stale"#,
            ),
            (
                "db",
                "faults, character 3: wanted what happens there: expired, lost, hang, latency, refuse, borrow, failover",
            ),
            ("kms latency", "faults, character 5: latency needs a time: latency=200ms"),
            ("kms latency=200", r#"faults, character 13: "200" is no time; wanted such as 200ms, 5s, 3m or 1h"#),
            ("kms latency=2s..1s", "faults, character 13: the first time is longer than the second"),
            ("kms latency=1s..x", r#"faults, character 17: "x" is no time; wanted such as 200ms, 5s, 3m or 1h"#),
            ("kms throttle=1", "faults, character 5: throttle takes no value"),
            (
                "kms throttle 101%",
                r#"faults, character 14: "101" is no chance; wanted more than 0 % and at most 100 %, with up to four decimals"#,
            ),
            (
                "kms throttle 0%",
                r#"faults, character 14: "0" is no chance; wanted more than 0 % and at most 100 %, with up to four decimals"#,
            ),
            ("kms throttle every=0", r#"faults, character 20: "0" is no count; wanted 1 to 1000000000"#),
            ("kms throttle every=1 every=2", "faults, character 22: every a second time"),
            (
                "kms throttle sometimes",
                r#"faults, character 14: "sometimes" is no option; wanted N%, every=N, first=N, after=TIME or for=TIME"#,
            ),
            ("clock skew=1s 5%", "faults, character 15: a clock knows after= and for= only"),
            ("gateway.x reset", r#"faults, character 1: gateway has no part named "x""#),
            ("kms.Ä reset", r#"faults, character 1: kms has no part named "Ä""#),
            ("kms. reset", r#"faults, character 1: kms has no part named """#),
            (
                "ä kms",
                r#"faults, character 1: "ä" is no place; wanted one of kms, ssm, sts, s3, *, db, function, gateway, clock"#,
            ),
            (
                "kms latency=99999999999999999999s",
                r#"faults, character 13: "99999999999999999999s" is no time; wanted such as 200ms, 5s, 3m or 1h"#,
            ),
            ("clock skew=ä", r#"faults, character 12: "ä" is no time; wanted such as 200ms, 5s, 3m or 1h"#),
        ] {
            assert_eq!(read(text).unwrap_err().to_string(), message, "{text}");
        }
        assert!(read(&"kms reset;".repeat(65)).unwrap_err().what.contains("more than 64"));
        assert!(read(&" ".repeat(LONGEST + 1)).is_err());
    }

    #[test]
    fn no_text_makes_the_reader_stop() {
        let pieces = [
            "kms",
            "db",
            " ",
            ";",
            "latency=",
            "..",
            "5",
            "%",
            "ms",
            "=",
            "\u{1f642}",
            "every=",
            "clock skew=-",
            "\n",
            "#",
        ];
        let mut state = 7_u64;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..8 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                text.push_str(pieces[usize::try_from(state >> 33).unwrap() % pieces.len()]);
            }
            if let Err(wrong) = read(&text) {
                assert!(wrong.at >= 1 && wrong.at <= text.chars().count() + 2, "{text:?}: {wrong}");
            }
        }
    }
}
