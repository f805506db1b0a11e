//! Template parameters.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::{kind::is_symbolic, scalar};

const ATTRIBUTES: [&str; 11] = [
    "Type",
    "Description",
    "Default",
    "AllowedValues",
    "AllowedPattern",
    "ConstraintDescription",
    "MinLength",
    "MaxLength",
    "MinValue",
    "MaxValue",
    "NoEcho",
];

/// The parameters' values: what was given, else the default. A list type gives an array.
pub(crate) fn values(
    declared: &Map<String, Value>,
    given: &BTreeMap<String, String>,
    faults: &mut Vec<String>,
) -> BTreeMap<String, Value> {
    let mut values = BTreeMap::new();
    for name in given.keys().filter(|name| !declared.contains_key(*name)) {
        faults.push(format!("parameter {name}: not declared"));
    }
    for (name, declaration) in declared {
        let mut fault = |text: String| faults.push(format!("parameter {name}: {text}"));
        for unknown in declaration.as_object().into_iter().flat_map(Map::keys) {
            if !ATTRIBUTES.contains(&unknown.as_str()) {
                fault(format!("unknown attribute `{unknown}`"));
            }
        }
        let kind = declaration.get("Type").and_then(Value::as_str).unwrap_or_default();
        let Some(list) = is_list(kind) else {
            fault(format!("unknown type `{kind}`"));
            continue;
        };
        let Some(value) = given.get(name).cloned().or_else(|| declaration.get("Default").and_then(scalar)) else {
            fault("no value".to_owned());
            continue;
        };
        let items: Vec<&str> = if list { value.split(',').map(str::trim).collect() } else { vec![value.as_str()] };
        for item in &items {
            constraints(kind, declaration, item).into_iter().for_each(&mut fault);
        }
        let value = if list { items.into_iter().map(Value::from).collect() } else { Value::String(value) };
        values.insert(name.clone(), value);
    }
    values
}

/// Whether a parameter type is a list; `None` for a type this reader does not know.
fn is_list(kind: &str) -> Option<bool> {
    match kind {
        "String" | "Number" => Some(false),
        "CommaDelimitedList" | "List<String>" | "List<Number>" => Some(true),
        _ => {
            let (inner, list) = match kind.strip_prefix("List<").and_then(|rest| rest.strip_suffix('>')) {
                Some(inner) => (inner, true),
                None => (kind, false),
            };
            (inner.starts_with("AWS::EC2::") && inner.ends_with("::Id")).then_some(list)
        }
    }
}

fn constraints(kind: &str, declaration: &Value, value: &str) -> Vec<String> {
    let mut faults = Vec::new();
    // The id of a resource that is not made yet says nothing about the form of the real one.
    if is_symbolic(value) {
        return faults;
    }
    let number = value.parse::<f64>().ok();
    if ["Number", "List<Number>"].contains(&kind) && number.is_none() {
        faults.push("no number".to_owned());
    }
    if let Some(allowed) = declaration.get("AllowedValues").and_then(Value::as_array)
        && !allowed.iter().filter_map(scalar).any(|one| one == value)
    {
        faults.push(format!("`{value}` is not one of its values"));
    }
    let bound = |name: &str| declaration.get(name).and_then(scalar).and_then(|text| text.parse::<f64>().ok());
    let letters = value.chars().map(|_| 1.0).sum::<f64>();
    let outside = |least: Option<f64>, most: Option<f64>, is: f64| {
        least.is_some_and(|least| is < least) || most.is_some_and(|most| is > most)
    };
    if outside(bound("MinLength"), bound("MaxLength"), letters) {
        faults.push(format!("`{value}` has a length that is not allowed"));
    }
    if number.is_some_and(|number| outside(bound("MinValue"), bound("MaxValue"), number)) {
        faults.push(format!("{value} is out of range"));
    }
    if let Some(pattern) = declaration.get("AllowedPattern").and_then(Value::as_str) {
        match Alternatives::parse(pattern) {
            None => faults.push("AllowedPattern is beyond this reader".to_owned()),
            Some(pattern) if !pattern.matches(value) => faults.push(format!("`{value}` does not fit its pattern")),
            Some(_) => {}
        }
    }
    faults
}

/// The part of regular expressions that parameter patterns need: alternatives of characters, classes and groups, each
/// with a count. Always the whole value.
#[derive(Debug)]
struct Alternatives(Vec<Vec<Piece>>);

#[derive(Debug)]
struct Piece {
    matcher: Matcher,
    least: usize,
    most: usize,
}

#[derive(Debug)]
enum Matcher {
    Class { ranges: Vec<(char, char)>, negated: bool },
    Group(Alternatives),
}

impl Alternatives {
    fn parse(text: &str) -> Option<Alternatives> {
        let text = text.strip_prefix('^').unwrap_or(text);
        let letters: Vec<char> = text.strip_suffix('$').unwrap_or(text).chars().collect();
        let mut rest = letters.as_slice();
        let alternatives = Self::read(&mut rest)?;
        rest.is_empty().then_some(alternatives)
    }

    fn read(rest: &mut &[char]) -> Option<Alternatives> {
        let mut alternatives = vec![Vec::new()];
        loop {
            let matcher = match **rest {
                [] | [')', ..] => return Some(Alternatives(alternatives)),
                ['|', ref tail @ ..] => {
                    *rest = tail;
                    alternatives.push(Vec::new());
                    continue;
                }
                ['(', '?', ':', ref tail @ ..] | ['(', ref tail @ ..] => {
                    *rest = tail;
                    let group = Self::read(rest)?;
                    *rest = rest.strip_prefix(&[')'])?;
                    Matcher::Group(group)
                }
                ['[', ref tail @ ..] => {
                    *rest = tail;
                    class(rest)?
                }
                ['\\', 'd', ref tail @ ..] => {
                    *rest = tail;
                    Matcher::Class { ranges: vec![('0', '9')], negated: false }
                }
                ['\\', letter, ref tail @ ..] if !letter.is_alphanumeric() => {
                    *rest = tail;
                    Matcher::Class { ranges: vec![(letter, letter)], negated: false }
                }
                ['.', ref tail @ ..] => {
                    *rest = tail;
                    Matcher::Class { ranges: Vec::new(), negated: true }
                }
                [letter, ref tail @ ..] if !"\\^$*+?{}]".contains(letter) => {
                    *rest = tail;
                    Matcher::Class { ranges: vec![(letter, letter)], negated: false }
                }
                _ => return None,
            };
            let (least, most) = count(rest)?;
            alternatives.last_mut()?.push(Piece { matcher, least, most });
        }
    }

    fn matches(&self, text: &str) -> bool {
        let letters: Vec<char> = text.chars().collect();
        self.ends(&letters, 0).contains(&letters.len())
    }

    /// Where a match that starts at `from` may end.
    fn ends(&self, letters: &[char], from: usize) -> Vec<usize> {
        let mut all = Vec::new();
        for pieces in &self.0 {
            let mut ends = vec![from];
            for piece in pieces {
                let mut next: Vec<usize> = ends.iter().flat_map(|from| piece.ends(letters, *from)).collect();
                next.sort_unstable();
                next.dedup();
                ends = next;
            }
            all.extend(ends);
        }
        all
    }
}

impl Piece {
    fn ends(&self, letters: &[char], from: usize) -> Vec<usize> {
        let (mut all, mut ends) = (Vec::new(), vec![from]);
        for taken in 0..=self.most {
            if taken >= self.least {
                all.extend(&ends);
            }
            ends = ends.iter().flat_map(|from| self.matcher.ends(letters, *from)).collect();
            ends.sort_unstable();
            ends.dedup();
            // Nothing new: an empty group would turn for ever.
            if ends.iter().all(|end| all.contains(end)) && taken >= self.least {
                break;
            }
        }
        all
    }
}

impl Matcher {
    fn ends(&self, letters: &[char], from: usize) -> Vec<usize> {
        match self {
            Matcher::Group(group) => group.ends(letters, from),
            Matcher::Class { ranges, negated } => {
                let holds = |letter: &char| ranges.iter().any(|(first, last)| (*first..=*last).contains(letter));
                letters.get(from).filter(|letter| holds(letter) != *negated).map(|_| from + 1).into_iter().collect()
            }
        }
    }
}

fn class(rest: &mut &[char]) -> Option<Matcher> {
    let negated = matches!(**rest, ['^', ..]);
    if negated {
        *rest = rest.get(1..)?;
    }
    let mut ranges = Vec::new();
    loop {
        match **rest {
            [']', ref tail @ ..] if !ranges.is_empty() => {
                *rest = tail;
                return Some(Matcher::Class { ranges, negated });
            }
            ['\\', letter, ref tail @ ..] if !letter.is_alphanumeric() => {
                *rest = tail;
                ranges.push((letter, letter));
            }
            ['\\' | '[', ..] => return None,
            [first, '-', last, ref tail @ ..] if last != ']' && first <= last => {
                *rest = tail;
                ranges.push((first, last));
            }
            [letter, ref tail @ ..] => {
                *rest = tail;
                ranges.push((letter, letter));
            }
            [] => return None,
        }
    }
}

fn count(rest: &mut &[char]) -> Option<(usize, usize)> {
    let (least, most, taken) = match **rest {
        ['?', ..] => (0, 1, 1),
        ['*', ..] => (0, usize::MAX, 1),
        ['+', ..] => (1, usize::MAX, 1),
        ['{', ..] => {
            let end = rest.iter().position(|letter| *letter == '}')?;
            let body: String = rest.get(1..end)?.iter().collect();
            let (least, most) = match body.split_once(',') {
                None => (body.parse().ok()?, body.parse().ok()?),
                Some((least, "")) => (least.parse().ok()?, usize::MAX),
                Some((least, most)) => (least.parse().ok()?, most.parse().ok()?),
            };
            (least, most, end + 1)
        }
        _ => return Some((1, 1)),
    };
    *rest = rest.get(taken..)?;
    Some((least, most))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn patterns_match_the_whole_value() {
        for (pattern, text, expected) in [
            ("[a-z][a-z0-9]{0,3}", "a1b2", Some(true)),
            ("[a-z][a-z0-9]{0,3}", "a1b2c", Some(false)),
            ("[a-z][a-z0-9]{0,3}", "1a", Some(false)),
            ("ab+c?", "abbb", Some(true)),
            ("[a-z-]+", "a-b", Some(true)),
            ("a*ab", "aaab", Some(true)),
            ("^(a|bc)?$", "bc", Some(true)),
            ("(a|bc)?", "b", Some(false)),
            ("([0-9]{1,3}\\.){3}[0-9]+/\\d+", "10.0.0.0/16", Some(true)),
            ("\\*|[a-z0-9]{1,32}", "*", Some(true)),
            ("[^/]+", "a/b", Some(false)),
            ("(a*)*", "aaa", Some(true)),
            (".+@sha256:[0-9a-f]{4}", "x/y@sha256:00ff", Some(true)),
            ("\\w+", "a", None),
            ("(a", "a", None),
        ] {
            assert_eq!(Alternatives::parse(pattern).map(|one| one.matches(text)), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn lists_are_split_and_every_item_is_held_to_the_constraints() {
        let declared = json!({
            "Subnets": {"Type": "List<AWS::EC2::Subnet::Id>"},
            "Switches": {"Type": "CommaDelimitedList", "AllowedValues": ["a", "b"]},
            "Days": {"Type": "Number", "MinValue": 7},
            "Kept": {"Type": "AWS::SSM::Parameter::Value<String>"},
        });
        let given = [("Subnets", "a, b"), ("Switches", "a,c"), ("Days", "3"), ("Kept", "x"), ("More", "y")];
        let given = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut faults = Vec::new();
        let values = values(declared.as_object().unwrap(), &given, &mut faults);
        assert_eq!(values["Subnets"], json!(["a", "b"]));
        assert_eq!(faults.len(), 4, "{faults:?}");
    }
}
