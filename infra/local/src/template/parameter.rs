//! Template parameters.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::scalar;

/// The parameters' values: what was given, else the default.
pub(super) fn values(
    declared: &Map<String, Value>,
    given: &BTreeMap<String, String>,
    faults: &mut Vec<String>,
) -> BTreeMap<String, String> {
    const ATTRIBUTES: [&str; 6] =
        ["Type", "Description", "Default", "AllowedValues", "AllowedPattern", "ConstraintDescription"];
    let mut values = BTreeMap::new();
    for name in given.keys().filter(|name| !declared.contains_key(*name)) {
        faults.push(format!("parameter {name}: not declared"));
    }
    for (name, declaration) in declared {
        let attribute = |attribute: &str| declaration.get(attribute);
        for unknown in declaration.as_object().into_iter().flat_map(Map::keys) {
            if !ATTRIBUTES.contains(&unknown.as_str()) {
                faults.push(format!("parameter {name}: unknown attribute `{unknown}`"));
            }
        }
        let kind = attribute("Type").and_then(Value::as_str).unwrap_or_default();
        if !["String", "Number"].contains(&kind) {
            faults.push(format!("parameter {name}: unknown type `{kind}`"));
        }
        let Some(value) = given.get(name).cloned().or_else(|| attribute("Default").and_then(scalar)) else {
            faults.push(format!("parameter {name}: no value"));
            continue;
        };
        if kind == "Number" && value.parse::<f64>().is_err() {
            faults.push(format!("parameter {name}: no number"));
        }
        if let Some(allowed) = attribute("AllowedValues").and_then(Value::as_array)
            && !allowed.iter().filter_map(scalar).any(|one| one == value)
        {
            faults.push(format!("parameter {name}: `{value}` is not one of its values"));
        }
        if let Some(pattern) = attribute("AllowedPattern").and_then(Value::as_str) {
            match Pattern::parse(pattern) {
                None => faults.push(format!("parameter {name}: AllowedPattern is beyond this reader")),
                Some(pattern) if !pattern.matches(&value) => {
                    faults.push(format!("parameter {name}: `{value}` does not fit its pattern"));
                }
                Some(_) => {}
            }
        }
        values.insert(name.clone(), value);
    }
    values
}

/// The part of regular expressions that parameter patterns need: characters and classes, each with a count.
struct Pattern(Vec<Piece>);

struct Piece {
    class: Vec<(char, char)>,
    least: usize,
    most: usize,
}

impl Pattern {
    fn parse(text: &str) -> Option<Pattern> {
        let (mut pieces, mut rest) = (Vec::new(), text);
        while !rest.is_empty() {
            let class;
            if let Some(inside) = rest.strip_prefix('[') {
                let (body, tail) = inside.split_once(']')?;
                class = ranges(body)?;
                rest = tail;
            } else {
                let letter = rest.chars().next().filter(|letter| !"\\.^$|()*+?{}".contains(*letter))?;
                class = vec![(letter, letter)];
                rest = rest.get(letter.len_utf8()..)?;
            }
            let (least, most, tail) = count(rest)?;
            pieces.push(Piece { class, least, most });
            rest = tail;
        }
        Some(Pattern(pieces))
    }

    fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        fits(&self.0, &text)
    }
}

fn fits(pieces: &[Piece], text: &[char]) -> bool {
    let Some((piece, others)) = pieces.split_first() else { return text.is_empty() };
    let run = text.iter().take(piece.most).take_while(|letter| piece.holds(**letter)).count();
    (piece.least..=run).rev().any(|taken| text.get(taken..).is_some_and(|rest| fits(others, rest)))
}

impl Piece {
    fn holds(&self, letter: char) -> bool {
        self.class.iter().any(|(first, last)| (*first..=*last).contains(&letter))
    }
}

fn ranges(body: &str) -> Option<Vec<(char, char)>> {
    if body.is_empty() || body.starts_with('^') || body.contains('\\') {
        return None;
    }
    let mut letters = body.chars();
    let mut class = Vec::new();
    while let Some(first) = letters.next() {
        let mut ahead = letters.clone();
        match (ahead.next(), ahead.next()) {
            (Some('-'), Some(last)) if first <= last => {
                class.push((first, last));
                letters = ahead;
            }
            _ => class.push((first, first)),
        }
    }
    Some(class)
}

fn count(rest: &str) -> Option<(usize, usize, &str)> {
    if let Some(inside) = rest.strip_prefix('{') {
        let (body, tail) = inside.split_once('}')?;
        let (least, most) = match body.split_once(',') {
            None => (body.parse().ok()?, body.parse().ok()?),
            Some((least, "")) => (least.parse().ok()?, usize::MAX),
            Some((least, most)) => (least.parse().ok()?, most.parse().ok()?),
        };
        return Some((least, most, tail));
    }
    for (sign, least, most) in [('?', 0, 1), ('*', 0, usize::MAX), ('+', 1, usize::MAX)] {
        if let Some(tail) = rest.strip_prefix(sign) {
            return Some((least, most, tail));
        }
    }
    Some((1, 1, rest))
}

#[cfg(test)]
mod tests {
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
            ("(a|b)", "a", None),
            ("[^a]", "b", None),
        ] {
            assert_eq!(Pattern::parse(pattern).map(|one| one.matches(text)), expected, "{pattern} on {text}");
        }
    }
}
